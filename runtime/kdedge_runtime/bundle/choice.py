"""The model of a bundle that is the fastest on this machine."""

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from kdedge_runtime.bundle.content import MODELS, BundleError, is_bundle
from kdedge_runtime.bundle.key import read_public_key
from kdedge_runtime.bundle.opening import opened_bundle
from kdedge_runtime.model import Model

__all__ = ["load_fastest", "opened_files", "opened_model"]

_log = logging.getLogger(__name__)
_WARM_UPS = 2
_PASSES = 5
_WORTH = 0.95
"""The quantized model must take less than this share of the other's time, to be worth its rounding."""


@contextmanager
def opened_files(path: Path, signer: str | None = None) -> Iterator[list[Path]]:
    """Yield the model files of a bundle once it is known to be sound, or the one file that is no bundle.

    Args:
        path: a bundle; without a signer also a bare model file.
        signer: public key whose signature is required, see `read_public_key`.

    Raises:
        BundleError: the bundle is not sound, or a signature is required of a bare file.
        UsageError: the key is none.
    """
    public_key = None if signer is None else read_public_key(signer)
    if is_bundle(path):
        with opened_bundle(path, public_key) as files:
            checked = "sums right" if public_key is None else "signed with the required key"
            _log.info("bundle: %s, %s", path.name, checked)
            yield [files[name] for name in MODELS if name in files]
    elif public_key is None:
        yield [path]
    else:
        raise BundleError(
            f"{path} is a bare file, which carries no signature, and --require-signature asks for one. Pack it with "
            f"`kdedge bundle {path} --sign KEY`."
        )


@contextmanager
def opened_model(path: Path, load: Callable[[Path], Model], signer: str | None = None) -> Iterator[Model]:
    """Load the model of a bundle that suits this machine; its file is there for as long as the block lasts.

    Args:
        path: as for `opened_files`.
        load: opens a model file.
        signer: as for `opened_files`.

    Raises:
        BundleError: see `opened_files`.
        UsageError: see `opened_files`.
    """
    with opened_files(path, signer) as files:
        yield load_fastest(files, load)


def load_fastest(
    files: Sequence[Path], load: Callable[[Path], Model], measure: Callable[[Model], float] | None = None
) -> Model:
    """Keep the one of a plain and a quantized model that suits this machine: int8 is slower on some.

    Args:
        files: one model file, or the plain and then the quantized one.
        load: opens a model file.
        measure: milliseconds of a pass; None measures a few.
    """
    if len(files) == 1:
        return load(files[0])
    plain, quantized = map(load, files)
    plain_ms, quantized_ms = map(measure or _latency_ms, (plain, quantized))
    chosen = quantized if quantized_ms < _WORTH * plain_ms else plain
    _log.info(
        "bundle: %s takes %.1f ms here, %s %.1f ms; running %s",
        *(plain.path.name, plain_ms, quantized.path.name, quantized_ms, chosen.path.name),
    )
    return chosen


def _latency_ms(model: Model) -> float:
    spec = model.metadata.input
    picture = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3), np.uint8)
    times_ms = []
    for _ in range(_WARM_UPS + _PASSES):
        started = time.perf_counter()
        model.predict(picture)
        times_ms.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times_ms[_WARM_UPS:])
