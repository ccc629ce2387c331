"""Test that fidelity of int8 uses exact sums, and latency uses the machine's kernels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_nets import Export

from kdedge_export.onnx_graph import session as sessions
from kdedge_export.onnx_graph.session import open_session
from kdedge_export.quantization import FidelityGoal, QuantizationRecipe, fidelity, mixed_precision, quantize
from kdedge_export.validation.saturation_note import saturation_note
from kdedge_runtime import Model
from kdedge_runtime.devices.detection import MachineInfo
from kdedge_runtime.int8_arithmetic import int8_arithmetic, kernels_saturate

Draw = Callable[[int, int], np.ndarray]
EIGHT_BITS, SEVEN_BITS = {"reduce_range": False, "device": "raspberry-pi-5"}, {"reduce_range": True}


def overflowing() -> onnx.ModelProto:
    """Return a dense layer whose pairs of products exceed 16 bits: 255 · 127 · 2 = 64,770."""
    constants = {
        "step": np.float32(1),
        "zero": np.uint8(0),
        "weight": np.full((64, 4), 127, np.int8),
        "weight_step": np.float32(1 / 127),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "step", "zero"], ["read"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_step"], ["rows"]),
        helper.make_node("MatMul", ["read", "rows"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "overflowing",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_exact_sums_do_not_saturate() -> None:
    images = np.full((3, 64), 255, np.uint8)
    (found,) = open_session(overflowing(), exact_sums=True).run(None, {"image": images})
    np.testing.assert_allclose(found, 64 * 255, rtol=1e-6)


def test_session_reports_its_arithmetic() -> None:
    assert int8_arithmetic(open_session(overflowing(), exact_sums=True)) == "exact sums"
    assert int8_arithmetic(open_session(overflowing(), exact_sums=False)) == "machine kernels"


def test_quantized_model_reports_its_arithmetic(
    export: Callable[[str], Export], pictures: Draw, tmp_path: Path
) -> None:
    from test_static_quantization import saved

    fp32 = export("linear")
    quantized = quantize(fp32.graph, pictures(8, 1), pictures(8, 2), QuantizationRecipe(False))
    exact = saved(quantized, fp32, tmp_path)
    assert exact.arithmetic == "exact sums"
    assert Model.load(exact.path).arithmetic == "machine kernels"
    assert Model.load(fp32.model.path, exact_sums=True).arithmetic is None


def test_fidelity_uses_exact_sums_and_latency_uses_machine_kernels(
    export: Callable[[str], Export], pictures: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[str] = []
    timed: list[str] = []
    measure = sessions.paired_latency_ms

    def opened(model: onnx.ModelProto, threads: int = 1, *, exact_sums: bool) -> object:
        session = open_session(model, threads, exact_sums=exact_sums)
        kinds.append(int8_arithmetic(session))
        return session

    def latencies(of: list, image: np.ndarray, runs: int = 30) -> tuple[float, ...]:
        timed.extend(map(int8_arithmetic, of))
        return measure(of, image, 1)

    monkeypatch.setattr(fidelity, "open_session", opened)
    for module in (mixed_precision, sessions):
        monkeypatch.setattr(module, "paired_latency_ms", latencies)
    goal = FidelityGoal(min_map_correlation=0.999999)
    found = quantize(export("linear").graph, pictures(8, 1), pictures(8, 2), QuantizationRecipe(False), goal=goal)
    assert len(kinds) > 5 and set(kinds) == {"exact sums"}
    assert len(timed) > 3 and set(timed) == {"machine kernels"}
    assert found.note["held_out"]["arithmetic"] == "exact sums"


@pytest.mark.parametrize(
    ("instructions", "quantization", "saturates"),
    [
        (("avx2",), EIGHT_BITS, True),
        (("avx2",), SEVEN_BITS, False),
        (("avx2",), None, False),
        (("avx2", "vnni"), EIGHT_BITS, False),
        (("dotprod",), EIGHT_BITS, False),
        ((), EIGHT_BITS, False),
    ],
)
def test_only_avx2_without_vnni_saturates_with_8_bits(
    instructions: tuple, quantization: dict | None, saturates: bool
) -> None:
    assert kernels_saturate(instructions, quantization) is saturates
    machine = MachineInfo(None, "a core", "x86_64", 4, instructions, 8000)
    note = saturation_note(quantization, lambda: machine)
    assert (note is not None) is saturates
    if note is not None:
        assert "no VNNI" in note and "raspberry-pi-5" in note
