"""Self-test: compare a model's outputs and costs on this machine with reference frames and budgets."""

from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import onnxruntime as ort

from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.diagnostics.checklist import DeviceCheck, check_bound
from kdedge_runtime.diagnostics.default_class import run_without_class
from kdedge_runtime.diagnostics.reference_frames import ReferenceFrames, mean_error
from kdedge_runtime.diagnostics.system_state import SystemState, Throttling, read_system_state
from kdedge_runtime.int8_arithmetic import kernels_saturate
from kdedge_runtime.model import Model
from kdedge_runtime.util.process import peak_memory_mb
from kdedge_runtime.util.timing import Stopwatch

__all__ = ["advice", "self_test"]

_WARM_UPS = 3
_RUNS = 21
_FLOAT_TOLERANCE = 0.01
"""Tolerance of fp32 and fp16 outputs relative to their range, mean over frames. A different summation order causes 1e-6
to 1e-4 and reduced precision (TF32, half precision) less than this. A faulty kernel causes more.
"""
_INT8_LOGITS_TOLERANCE, _INT8_MAP_TOLERANCE = 0.02, 0.05
_NEAR = 0.05
"""Upper limit of the prediction tolerance relative to the logits' range, even for files with more rounding."""
_ROUNDINGS = 3.0
"""Tolerance of int8 files in multiples of their own rounding, but at least the constants above.

Measured with EfficientNet-Lite0 and ResNet-20 on x86 with VNNI and on emulated ARM with and without dot products. Logit
errors reach 1.2 times the rounding or 0.007; map errors reach 1.4 times or 0.015. If 16-bit sums saturate (emulated
AVX2 without VNNI), Lite0's logits differ by 0.11 of their range and its maps by 0.21.
"""


def self_test(
    model: Model, profile: DeviceProfile, read_state: Callable[[], SystemState] = read_system_state
) -> list[DeviceCheck]:
    """Run a model on its reference frames and check outputs and budgets.

    Args:
        model: model with its deployment settings.
        profile: device profile.
        read_state: function that reads the board state.

    Raises:
        ModelFileError: the file contains no reference frames.
    """
    reference = ReferenceFrames.of(model)
    objection = profile.onnxruntime.objection(ort.__version__)
    checks = [DeviceCheck("onnxruntime", objection or ort.__version__, "as the profile allows", objection is None)]
    checks += _outputs(model, reference)
    checks += _costs(model, reference, profile, read_state)
    return checks


def advice(model: Model, checks: list[DeviceCheck], instructions: tuple[str, ...]) -> str | None:
    """Return a fix for a failure if its cause is known, else None."""
    failed = {check.name for check in checks if check.passed is False}
    saturates = kernels_saturate(instructions, model.metadata.quantization)
    if failed & {"answers", "logits", "map", "familiarity"} and saturates:
        return (
            "This core has no VNNI: it adds pairs of products in 16 bits, and 8-bit weights overflow. Export the "
            "file for this core: `kdedge export … --quantize --device laptop-x86-avx2`."
        )
    if "onnxruntime" in failed:
        return "Install a version of onnxruntime that the profile allows: `pip install -U onnxruntime`."
    return None


def _outputs(model: Model, reference: ReferenceFrames) -> Iterator[DeviceCheck]:
    outputs = [
        model.predict(sample[None], int(reference.explained_class[number]))
        for number, sample in enumerate(reference.samples)
    ]
    logits = np.concatenate([one.logits for one in outputs])
    logits_tolerance = map_tolerance = familiarity_tolerance = _FLOAT_TOLERANCE
    if model.arithmetic is not None:
        logits_tolerance = max(_INT8_LOGITS_TOLERANCE, _ROUNDINGS * reference.logits_rounding)
        map_tolerance = max(_INT8_MAP_TOLERANCE, _ROUNDINGS * reference.map_rounding)
        familiarity_tolerance = max(_INT8_MAP_TOLERANCE, _ROUNDINGS * reference.familiarity_rounding)
    near = 2 * min(logits_tolerance, _NEAR)
    same = sum(
        # Classes closer than the tolerance may swap.
        expected[outputs.argmax()] >= expected.max() - near * np.ptp(expected)
        for outputs, expected in zip(logits, reference.logits, strict=True)
    )
    count = len(reference.samples)
    yield DeviceCheck("answers", f"{same} of {count}", f"{count} of {count}", bool(same == count))
    yield check_bound("logits", mean_error(logits, reference.logits), logits_tolerance, "{:.4f} of the range")
    if reference.familiarity is not None:
        familiarity = np.concatenate([one.familiarity for one in outputs if one.familiarity is not None])
        error = mean_error(familiarity[None], reference.familiarity[None])  # relative to the range over the frames
        yield check_bound("familiarity", error, familiarity_tolerance, "{:.4f} of the range")
    if reference.saliency_map is None:
        yield DeviceCheck("map", "not evaluated: the file has no map", "", None)
        return
    free = run_without_class(model, reference.samples)
    kept = free.fault or f"{free.kept} of {free.samples}"
    yield DeviceCheck("default class", kept, f"{free.samples} of {free.samples}", free.fault is None)
    maps = np.concatenate([one.saliency_map for one in outputs if one.saliency_map is not None])
    yield check_bound("map", mean_error(maps, reference.saliency_map), map_tolerance, "{:.4f} of the range")


def _costs(
    model: Model, reference: ReferenceFrames, profile: DeviceProfile, read_state: Callable[[], SystemState]
) -> Iterator[DeviceCheck]:
    budgets = profile.budgets
    yield _within_budget("file", model.path.stat().st_size / 1e6, budgets.file_mb, "{:.2f} MB")
    throttling = Throttling(read_state())
    watch = Stopwatch()
    for number in range(_WARM_UPS + _RUNS):
        sample = reference.samples[number % len(reference.samples)][None]
        with watch:
            model.predict(sample)
    throttling.add(read_state())
    latency = _within_budget("latency", median(watch.laps_ms[_WARM_UPS:]), budgets.latency_ms, "{:.2f} ms")
    if throttling.reasons:  # latency on a throttled board is not representative
        latency = DeviceCheck("latency", f"not measured: {', '.join(throttling.reasons)}", latency.expected, False)
    yield latency
    peak_mb = peak_memory_mb()
    if peak_mb is None:
        yield DeviceCheck("peak memory", "not evaluated: not available on this system", "", None)
    else:
        yield _within_budget("peak memory", peak_mb, budgets.peak_memory_mb, "{:.0f} MB")


def _within_budget(name: str, value: float, budget: float | None, form: str) -> DeviceCheck:
    if budget is None:
        return DeviceCheck(name, form.format(value), "the profile sets no budget", None)
    return check_bound(name, value, budget, form)
