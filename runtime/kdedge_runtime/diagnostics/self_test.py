"""The self-test: what a model has to say and may cost, held against what it says and costs on this machine."""

from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import onnxruntime as ort

from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.diagnostics.checklist import Check, bounded
from kdedge_runtime.diagnostics.default_class import run_without_class
from kdedge_runtime.diagnostics.reference_frames import Golden, mean_error
from kdedge_runtime.diagnostics.system_state import BoardState, Throttling, read_board
from kdedge_runtime.int8_arithmetic import kernels_saturate
from kdedge_runtime.model import Model
from kdedge_runtime.util.process import peak_memory_mb
from kdedge_runtime.util.timing import Stopwatch

__all__ = ["advice", "self_test"]

_WARM_UPS = 3
_RUNS = 21
_FLOAT_TOLERANCE = 0.01
"""Of the outputs' range, mean over frames. Sums in another order differ by 1e-6 to 1e-4, arithmetic with 11 bits (TF32,
half precision) by less than this; a kernel that is wrong, by more."""
_INT8_LOGITS_TOLERANCE, _INT8_MAP_TOLERANCE = 0.02, 0.05
_NEAR = 0.05
"""Of the range, at most: an answer that the file's own rounding cannot excuse."""
_ROUNDINGS = 3.0
"""An int8 file is granted this many times its own rounding, or the tolerances above where they are more. Measured with
EfficientNet-Lite0 and ResNet-20 on x86 with VNNI and on emulated ARM with and without dot products: logits err by up to
1.2 times their rounding or 0.007, maps by up to 1.4 times or 0.015. Where 16-bit sums saturate (emulated AVX2 without
VNNI) Lite0's logits err by 0.11 of their range and its maps by 0.21."""


def self_test(model: Model, profile: DeviceProfile, look: Callable[[], BoardState] = read_board) -> list[Check]:
    """Run a model on its golden frames and hold it against them and against the device's budgets.

    Args:
        model: as it will run.
        profile: the device.
        look: reads the state of the board.

    Raises:
        ModelFileError: the file brings no golden frames.
    """
    golden = Golden.of(model)
    objection = profile.onnxruntime.objection(ort.__version__)
    checks = [Check("onnxruntime", objection or ort.__version__, "as the profile allows", objection is None)]
    checks += _outputs(model, golden)
    checks += _costs(model, golden, profile, look)
    return checks


def advice(model: Model, checks: list[Check], instructions: tuple[str, ...]) -> str | None:
    """What to do about a failure, where its cause can be told."""
    failed = {check.name for check in checks if check.passed is False}
    saturates = kernels_saturate(instructions, model.metadata.quantization)
    if failed & {"answers", "logits", "map"} and saturates:
        return (
            "This core has no VNNI: it adds pairs of products in 16 bits, and 8-bit weights overflow. Export the file "
            "for it: `kdedge export … --quantize --device laptop-x86-avx2`."
        )
    if "onnxruntime" in failed:
        return "Install a version of onnxruntime that the profile allows: `pip install -U onnxruntime`."
    return None


def _outputs(model: Model, golden: Golden) -> Iterator[Check]:
    said = [
        model.predict(image[None], int(golden.explained_class[number])) for number, image in enumerate(golden.images)
    ]
    logits = np.concatenate([one.logits for one in said])
    logits_tolerance = map_tolerance = _FLOAT_TOLERANCE
    if model.metadata.quantization is not None:
        logits_tolerance = max(_INT8_LOGITS_TOLERANCE, _ROUNDINGS * golden.logits_rounding)
        map_tolerance = max(_INT8_MAP_TOLERANCE, _ROUNDINGS * golden.map_rounding)
    near = 2 * min(logits_tolerance, _NEAR)
    same = sum(
        # Two classes that are closer than the tolerance may change places.
        expected[said.argmax()] >= expected.max() - near * np.ptp(expected)
        for said, expected in zip(logits, golden.logits, strict=True)
    )
    count = len(golden.images)
    yield Check("answers", f"{same} of {count}", f"{count} of {count}", bool(same == count))
    yield bounded("logits", mean_error(logits, golden.logits), logits_tolerance, "{:.4f} of the range")
    if golden.saliency_map is None:
        yield Check("map", "not judged: the file gives none", "", None)
        return
    free = run_without_class(model, golden.images)
    kept = free.fault or f"{free.kept} of {free.images}"
    yield Check("default class", kept, f"{free.images} of {free.images}", free.fault is None)
    maps = np.concatenate([one.saliency_map for one in said if one.saliency_map is not None])
    yield bounded("map", mean_error(maps, golden.saliency_map), map_tolerance, "{:.4f} of the range")


def _costs(model: Model, golden: Golden, profile: DeviceProfile, look: Callable[[], BoardState]) -> Iterator[Check]:
    budgets = profile.budgets
    yield _within_budget("file", model.path.stat().st_size / 1e6, budgets.file_mb, "{:.2f} MB")
    throttling = Throttling(look())
    watch = Stopwatch()
    for number in range(_WARM_UPS + _RUNS):
        image = golden.images[number % len(golden.images)][None]
        with watch:
            model.predict(image)
    throttling.look(look())
    latency = _within_budget("latency", median(watch.laps_ms[_WARM_UPS:]), budgets.latency_ms, "{:.2f} ms")
    if throttling.reasons:  # a figure of a board that holds itself back says nothing of the model
        latency = Check("latency", f"not measured: {', '.join(throttling.reasons)}", latency.asked, False)
    yield latency
    peak_mb = peak_memory_mb()
    if peak_mb is None:
        yield Check("peak memory", "not judged: the system does not tell", "", None)
    else:
        yield _within_budget("peak memory", peak_mb, budgets.peak_memory_mb, "{:.0f} MB")


def _within_budget(name: str, value: float, budget: float | None, form: str) -> Check:
    if budget is None:
        return Check(name, form.format(value), "the profile sets no budget", None)
    return bounded(name, value, budget, form)
