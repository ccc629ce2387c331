"""The model of a bundle that is the fastest on this machine."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from kdedge_runtime.bundle.checksums import MODELS, BundleError
from kdedge_runtime.bundle.manifest import MANIFEST, Manifest, accept
from kdedge_runtime.bundle.public_key import read_public_key
from kdedge_runtime.bundle.reader import opened_bundle
from kdedge_runtime.model import Model, is_bundle
from kdedge_runtime.util.timing import latencies_ms

__all__ = ["load_fastest", "sound_files"]

_log = logging.getLogger(__name__)
_RUNS = 5
_WORTH = 0.95
"""The quantized model must take less than this share of the other's time, to be worth its rounding."""


@contextmanager
def sound_files(path: Path, signer: str | None = None, device: str = "auto") -> Iterator[Mapping[str, Path]]:
    """The files of a bundle that is known to be sound, by their names.

    Args:
        path: a bundle.
        signer: public key whose signature is required, see `read_public_key`.
        device: the profile that a signed bundle must be for, or `auto` for that of this machine.

    Raises:
        BundleError: it is no bundle, or not a sound one; or a signed one for another device, or an older one.
        UsageError: the key is none.
    """
    public_key = None if signer is None else read_public_key(signer)
    if not is_bundle(path):
        raise BundleError(
            f"{path} is a bare file, which carries no signature, and --require-signature asks for one. Pack it with "
            f"`kdedge bundle {path} --sign KEY`."
        )
    with opened_bundle(path, public_key) as files:
        if public_key is not None:
            accept(Manifest.read(files.get(MANIFEST)), public_key, device)
        _log.info("bundle: %s, %s", path.name, "sums right" if public_key is None else "signed with the required key")
        yield files


def load_fastest(
    files: Mapping[str, Path],
    load: Callable[[Path], Model],
    measure: Callable[..., tuple[float, ...]] | None = None,
) -> Model:
    """Load the models of a bundle and keep the one that suits this machine: int8 is slower on some.

    Args:
        files: from `opened_bundle`.
        load: opens a model file.
        measure: milliseconds of a pass of each of the models that it is given; None measures a few.
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
    spec = models[0].metadata.input
    picture = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3), np.uint8)
    return latencies_ms(*(partial(model.predict, picture) for model in models), runs=_RUNS)
