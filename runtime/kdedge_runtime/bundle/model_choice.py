"""Selection of the fastest model of a bundle on this machine."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from kdedge_runtime.bundle.checksums import BundleError, model_names
from kdedge_runtime.bundle.manifest import MANIFEST, Manifest, accept_version
from kdedge_runtime.bundle.reader import open_bundle
from kdedge_runtime.bundle.signature import read_public_key
from kdedge_runtime.model import Model, is_bundle
from kdedge_runtime.precision import fastest
from kdedge_runtime.util.timing import latencies_ms

__all__ = ["load_fastest", "verified_model_files"]

_log = logging.getLogger(__name__)
_RUNS = 5
"""Timed passes of each model."""
_MAX_RUNS = 50
"""Timed passes of each model if they fit in `_MEASURED_MS`. With five, passes of 0.3 ms differ by more than 5% by
chance."""
_MEASURED_MS = 1000.0


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
    """Load the models of a bundle and return the one to run here (`kdedge_runtime.precision.fastest`).

    They are measured with the provider and the threads of the device, since a less exact precision is slower on some.

    Args:
        files: files from `open_bundle`.
        load: function that loads a model file.
        measure: function that returns the latency of each given model in ms; None for a short measurement.
    """
    present = {name: files[file] for name, file in model_names().items() if file in files}
    models = {name: load(path) for name, path in present.items()}
    if len(models) == 1:
        return next(iter(models.values()))
    latencies = dict(zip(models, (measure or _latencies_ms)(*models.values()), strict=True))
    chosen = models[fastest(latencies)]
    taken = ", ".join(f"{models[name].path.name} {ms:.2f} ms" for name, ms in latencies.items())
    _log.info("bundle: latency here: %s; running %s", taken, chosen.path.name)
    return chosen


def _latencies_ms(*models: Model) -> tuple[float, ...]:
    sample = models[0].metadata.input.reference_sample(0)[None]
    calls = [partial(model.predict, sample) for model in models]
    latencies = latencies_ms(*calls, runs=_RUNS)
    runs = min(_MAX_RUNS, int(_MEASURED_MS / sum(latencies)))
    return latencies_ms(*calls, runs=runs) if runs > _RUNS else latencies
