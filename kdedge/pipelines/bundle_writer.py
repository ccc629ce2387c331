"""What a device runs, packed into one folder or file that it can check."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from kdedge_runtime import Model
from kdedge_runtime.bundle import MANIFEST, MODELS, SIGNATURE, SUMS, Manifest, format_sums
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import MissingDependency, UsageError
from kdedge_runtime.util.files import staged, write_whole

__all__ = ["Packed", "write_bundle"]

_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every file, so that the same models make the same .zip."""


@dataclass(frozen=True)
class Packed:
    """A bundle on the disk."""

    path: Path
    models: tuple[str, ...]
    public_key: str | None
    """Hexadecimal; of the key that it was signed with."""
    replaced: bool
    """Whether an earlier bundle lay there."""


def write_bundle(
    source: Path,
    target: Path | None = None,
    private_key: Path | None = None,
    *,
    version: int = 1,
    device: str | None = None,
) -> Packed:
    """Pack `model.onnx` and `model.int8.onnx` of a folder, or one model file.

    Args:
        source: a run folder with exported files, any other folder with them, or a model file.
        target: a .zip, which takes the place of an earlier bundle only, or a folder to make; None for `bundle.zip`
            beside the models.
        private_key: PEM file of an Ed25519 key to sign with.
        version: from 1; a device that requires the signature refuses a lower one than it has run.
        device: the device profile that the bundle is for; None for any.

    Raises:
        UsageError: there is no such device or no model, the target is in the way, or the key is none.
        ModelFileError: a model cannot be run.
        MissingDependency: there is a key, but not the package that signs.
    """
    if device is not None:
        load_profile(device)
    models = _models(source)
    folder = source if source.is_dir() else source.parent
    target = folder / "bundle.zip" if target is None else target
    replaces = _require_free(target)
    contents = {name: path.read_bytes() for name, path in models.items()}
    contents[MANIFEST] = Manifest(version, device).to_json()
    sums = format_sums({name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})
    contents[SUMS] = sums
    public_key = None
    if private_key is not None:
        contents[SIGNATURE], public_key = _signed(sums, private_key)
    if target.suffix.lower() == ".zip":
        with staged(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, content in contents.items():
                archive.writestr(zipfile.ZipInfo(name, _EARLIEST), content)
    else:
        for name, content in contents.items():
            write_whole(target / name, content)
    return Packed(target, tuple(models), public_key, replaces)


def _require_free(target: Path) -> bool:
    """Raise where something else would be lost; tell whether a bundle is replaced."""
    if target.suffix.lower() == ".zip":
        if not target.exists():
            return False
        if zipfile.is_zipfile(target):
            with zipfile.ZipFile(target) as archive:
                if SUMS in archive.namelist():
                    return True
        raise UsageError(f"{target} exists already and is no bundle. Name another: -o FILE.zip.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already. Name a .zip, or a new folder: -o FILE.")
    return False


def _models(source: Path) -> dict[str, Path]:
    if source.is_file():
        model = Model.load(source, threads=1)
        return {MODELS[model.metadata.quantization is not None]: source}
    found = {name: source / name for name in MODELS if (source / name).is_file()}
    if not found:
        raise UsageError(f"{source} has no {MODELS[0]}. Write it with `kdedge export {source} --quantize`.")
    labels = {Model.load(path, threads=1).metadata.labels for path in found.values()}
    if len(labels) > 1:
        raise UsageError(f"The models in {source} have different classes. Export them again: `kdedge export {source}`.")
    return found


def _signed(message: bytes, private_key: Path) -> tuple[bytes, str]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise MissingDependency(
            "Signing needs the package cryptography. Install it: `pip install cryptography`."
        ) from error
    if not private_key.is_file():
        raise UsageError(
            f"There is no key {private_key}. Make one with `openssl genpkey -algorithm ed25519 -out {private_key}`, "
            "and keep it where no device has it."
        )
    try:
        key = serialization.load_pem_private_key(private_key.read_bytes(), password=None)
    except (ValueError, TypeError) as error:  # TypeError: it wants a password
        raise UsageError(f"{private_key} is no private key in PEM without a password ({error}).") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(
            f"{private_key} is a key of another kind. Expected Ed25519: `openssl genpkey -algorithm ed25519`."
        )
    return key.sign(message), key.public_key().public_bytes_raw().hex()
