"""Selection of the fastest model of a bundle on this machine."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from kdedge_runtime.bundle.checksums import MODELS, BundleError
from kdedge_runtime.bundle.manifest import MANIFEST, Manifest, accept_version
from kdedge_runtime.bundle.reader import open_bundle
from kdedge_runtime.bundle.signature import read_public_key
from kdedge_runtime.model import Model, is_bundle
from kdedge_runtime.util.timing import latencies_ms

__all__ = ["load_fastest", "verified_model_files"]

_log = logging.getLogger(__name__)
_RUNS = 5
_WORTH = 0.95
"""Largest latency ratio to the fp32 model at which the quantized model is used; a smaller gain does not justify the
rounding.
"""


@contextmanager
def verified_model_files(path: Path, signer: str | None = None, device: str = "auto") -> Iterator[Mapping[str, Path]]:
    """Verify a bundle and yield its files by name.

    Args:
        path: the .zip file.
        signer: public key whose signature is required, see `read_public_key`.
        device: device profile that a signed bundle must match, or `auto` for that of this machine.

    Raises:
        BundleError: the path is not a valid bundle, or a signed bundle is for another device or outdated.
        UsageError: the public key is invalid.
        MissingDependency: a signature is required, but the package cryptography is not installed.
    """
    public_key = None if signer is None else read_public_key(signer)
    if not is_bundle(path):
        raise BundleError(
            f"{path} is not a bundle, but --require-signature needs a signed one. Pack it with `kdedge bundle {path} "
            "--sign KEY`."
        )
    with open_bundle(path, public_key) as files:
        if public_key is not None:
            accept_version(Manifest.read(files.get(MANIFEST)), public_key, device)
        _log.info(
            "bundle: %s, %s", path.name, "checksums verified" if public_key is None else "signed with the required key"
        )
        yield files


def load_fastest(
    files: Mapping[str, Path],
    load: Callable[[Path], Model],
    measure: Callable[..., tuple[float, ...]] | None = None,
) -> Model:
    """Load the models of a bundle and return the faster one, because int8 is slower on some machines.

    Args:
        files: files from `open_bundle`.
        load: function that loads a model file.
        measure: function that returns the latency of each given model in ms; None for a short measurement.
    """
    present = [files[name] for name in MODELS if name in files]
    if len(present) == 1:
        return load(present[0])
    plain, quantized = map(load, present)
    plain_ms, quantized_ms = (measure or _latencies_ms)(plain, quantized)
    chosen = quantized if quantized_ms < _WORTH * plain_ms else plain
    _log.info(
        "bundle: %s takes %.1f ms here, %s %.1f ms; running %s",
        *(plain.path.name, plain_ms, quantized.path.name, quantized_ms, chosen.path.name),
    )
    return chosen


def _latencies_ms(*models: Model) -> tuple[float, ...]:
    sample = models[0].metadata.input.reference_sample(0)[None]
    return latencies_ms(*(partial(model.predict, sample) for model in models), runs=_RUNS)
