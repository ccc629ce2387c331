"""Bundles: the model files for a device with a manifest, checksums and an optional signature."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from kdedge.models.run_folder import is_run, read_run
from kdedge.models.trees import refuse_export
from kdedge_runtime import Model
from kdedge_runtime.bundle import MANIFEST, SIGNATURE, SUMS, Manifest, format_checksums, model_names
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.model import is_bundle
from kdedge_runtime.precision import FP32
from kdedge_runtime.util.files import atomic_path
from kdedge_runtime.util.optional_package import needs_package

__all__ = ["BundleSummary", "write_bundle"]

_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Timestamp of every file in the archive, so that bundling is reproducible."""


@dataclass(frozen=True)
class BundleSummary:
    """Bundle written to disk."""

    path: Path
    models: tuple[str, ...]
    public_key: str | None
    """Public key of the signature, hexadecimal; None for an unsigned bundle."""
    replaced: bool
    """True if an earlier bundle was replaced."""
    example_source: str
    """Value of `--source` in suggested commands, see `InputSpec`."""


def write_bundle(
    source: Path,
    target: Path | None = None,
    private_key: Path | None = None,
    *,
    version: int = 1,
    device: str | None = None,
) -> BundleSummary:
    """Bundle `model.onnx` of a folder with its other precisions, or one model file.

    Args:
        source: run folder or other folder with exported files, or a model file.
        target: output .zip file, which may only replace an earlier bundle. None writes `bundle.zip` next to the
            models.
        private_key: PEM file of an Ed25519 key to sign with.
        version: version number, at least 1. A device that requires signatures rejects a lower version than it has run.
        device: device profile of the target device; None for any device.

    Raises:
        UsageError: the device, model or key does not exist, or the target is not a .zip file or holds something else.
        ModelFileError: A model cannot be run.
        MissingDependency: A key is given, but the package for signing is not installed.
    """
    if device is not None:
        load_profile(device)
    models, spec = _models(source)
    folder = source if source.is_dir() else source.parent
    target = folder / "bundle.zip" if target is None else target
    replaces = _replaces_bundle(target)
    contents = {name: path.read_bytes() for name, path in models.items()}
    contents[MANIFEST] = Manifest(version, device).to_json()
    sums = format_checksums({name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})
    contents[SUMS] = sums
    public_key = None
    if private_key is not None:
        contents[SIGNATURE], public_key = _signed(sums, private_key)
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), content)
    return BundleSummary(target, tuple(models), public_key, replaces, spec.example_source)


def _replaces_bundle(target: Path) -> bool:
    """Return True if an earlier bundle will be replaced. Raise if the target is anything else."""
    if not is_bundle(target):
        raise UsageError(f"Bundles are .zip files, but {target} is not. Choose another name: -o {target}.zip.")
    if not target.exists():
        return False
    if zipfile.is_zipfile(target):
        with zipfile.ZipFile(target) as archive:
            if SUMS in archive.namelist():
                return True
    raise UsageError(f"{target} already exists and is not a bundle. Choose another file: -o FILE.zip.")


def _models(source: Path) -> tuple[dict[str, Path], InputSpec]:
    """Return the path of each model by its name in the bundle, and their input."""
    names = model_names()
    if source.is_file():
        model = Model.load(source, threads=1)
        return {names[Candidate.of(model).name]: source}, model.metadata.input
    found = {name: source / file for name, file in names.items() if (source / file).is_file()}
    if not found:
        refuse_export(str(source), read_run(source) if is_run(source) else None)
        raise UsageError(f"{source} has no {names[FP32.name]}. Export it first: `kdedge export {source} --quantize`.")
    models = {name: Model.load(path, threads=1) for name, path in found.items()}
    for name, model in models.items():
        if (candidate := Candidate.of(model)).name != name:
            raise UsageError(
                f"{candidate.path} is not {name}, but {candidate.name}. Export it again: `kdedge export {source}`."
            )
    if len({model.metadata.labels for model in models.values()}) > 1:
        raise UsageError(f"The models in {source} have different classes. Export them again: `kdedge export {source}`.")
    return {names[name]: path for name, path in found.items()}, next(iter(models.values())).metadata.input


def _signed(message: bytes, private_key: Path) -> tuple[bytes, str]:
    with needs_package("Signing", "cryptography", "pip install cryptography"):
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    if not private_key.is_file():
        raise UsageError(
            f"The key file {private_key} does not exist. Create one with `openssl genpkey -algorithm ed25519 -out "
            f"{private_key}`, and do not copy it to devices."
        )
    try:
        key = serialization.load_pem_private_key(private_key.read_bytes(), password=None)
    except (ValueError, TypeError) as error:  # TypeError: a password is required
        raise UsageError(f"{private_key} is not an unencrypted private key in PEM format ({error}).") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{private_key} is not an Ed25519 key. Create one with `openssl genpkey -algorithm ed25519`.")
    public_key = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return key.sign(message), public_key.hex()
