"""Self-test: valid models pass, and each fault fails its own check."""

import base64
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from reference_files import saturating_model, with_metadata, with_reference_frames

from kdedge_runtime.cli.main import main
from kdedge_runtime.devices import Budgets, DeviceProfile, load_profile
from kdedge_runtime.devices.detection import detect_machine
from kdedge_runtime.diagnostics import device_checks as module
from kdedge_runtime.diagnostics.checklist import DeviceCheck, check_bound, checklist
from kdedge_runtime.diagnostics.device_checks import advice, self_test
from kdedge_runtime.diagnostics.reference_frames import record_reference_frames
from kdedge_runtime.diagnostics.system_state import SystemState
from kdedge_runtime.model import Model

QEMU = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
CALM = SystemState(50.0, 1500.0, 1500.0, (), (), None)
ROOMY = replace(load_profile("generic"), budgets=Budgets(1000, 60_000, 60_000, None))


def failed(checks: Sequence[DeviceCheck]) -> list[str]:
    return [check.name for check in checks if check.passed is False]


def checked(path: Path, profile: DeviceProfile = ROOMY, state: SystemState = CALM) -> list[DeviceCheck]:
    return self_test(Model.load(path, threads=1), profile, lambda: state)


def off_by(path: Path, key: str, share: float) -> Path:
    """Change one recorded output of every frame by a share of its range, like a faulty kernel."""
    reference = record_reference_frames(path)
    values = np.frombuffer(base64.b64decode(reference[key]), dtype="<f4").reshape(reference["frames"], -1).copy()
    values[:, 0] += share * np.ptp(values, axis=1)
    return with_metadata(path, reference_frames=reference | {key: base64.b64encode(values.tobytes()).decode()})


def test_valid_model_passes_every_check(write_model: Callable[..., Path]) -> None:
    checks = checked(with_reference_frames(write_model()))
    assert [check.name for check in checks] == [
        "onnxruntime",
        "answers",
        "logits",
        "default class",
        "map",
        "file",
        "latency",
        "peak memory",
    ]
    assert all(check.passed for check in checks)


def test_model_without_map_is_checked_by_logits(write_model: Callable[..., Path]) -> None:
    checks = checked(with_reference_frames(write_model(method="none")))
    assert [check.name for check in checks if check.passed is None] == ["map"]
    assert failed(checks) == []


@pytest.mark.parametrize("key", ["logits", "saliency_map"])
def test_differing_outputs_fail(write_model: Callable[..., Path], key: str) -> None:
    name = "map" if key == "saliency_map" else key
    assert failed(checked(off_by(write_model("near.onnx"), key, 0.003))) == []
    assert name in failed(checked(off_by(write_model("far.onnx"), key, 0.05)))


def test_changed_prediction_fails(write_model: Callable[..., Path]) -> None:
    path = write_model()
    reference = record_reference_frames(path)
    logits = np.frombuffer(base64.b64decode(reference["logits"]), dtype="<f4").reshape(4, 3)
    turned = base64.b64encode(np.ascontiguousarray(np.roll(logits, 1, axis=1)).tobytes()).decode()
    checks = checked(with_metadata(path, reference_frames=reference | {"logits": turned}))
    assert {"answers", "logits"} <= set(failed(checks))
    assert next(check.found for check in checks if check.name == "answers") == "0 of 4"


def test_wrong_default_class_fails(write_model: Callable[..., Path]) -> None:
    path = write_model()
    graph = onnx.load(path)
    (top,) = (node for node in graph.graph.node if node.op_type == "ArgMax")
    top.op_type = "ArgMin"
    onnx.save(graph, path)
    checks = checked(with_reference_frames(path))
    assert failed(checks) == ["default class"], "the reference frames were recorded with the faulty graph"
    assert "explains class" in next(check.found for check in checks if check.name == "default class")


def test_int8_tolerance_follows_recorded_rounding(write_model: Callable[..., Path]) -> None:
    def int8(name: str, share: float, rounding: float) -> Path:
        path = with_metadata(write_model(name), quantization={"weights": "int8", "reduce_range": False})
        off_by(path, "logits", share)
        reference = Model.load(path).metadata.reference_frames
        assert reference is not None
        return with_metadata(path, reference_frames=reference | {"logits_rounding": rounding})

    assert "logits" not in failed(checked(int8("a.onnx", 0.015, 0.0)))
    assert "logits" in failed(checked(int8("b.onnx", 0.05, 0.0)))
    assert "logits" not in failed(checked(int8("c.onnx", 0.05, 0.02)))
    assert "logits" in failed(checked(int8("d.onnx", 0.24, 0.0126)))


def test_nan_outputs_fail(write_model: Callable[..., Path]) -> None:
    path = write_model()
    reference = record_reference_frames(path)
    nans = np.full((4, 3), np.nan, dtype="<f4")
    checks = checked(
        with_metadata(path, reference_frames=reference | {"logits": base64.b64encode(nans.tobytes()).decode()})
    )
    assert "logits" in failed(checks)


@pytest.mark.parametrize(
    ("budgets", "name"),
    [
        (Budgets(file_mb=1e-6), "file"),
        (Budgets(latency_ms=1e-6), "latency"),
        (Budgets(peak_memory_mb=1.0), "peak memory"),
    ],
)
def test_each_budget_fails_independently(write_model: Callable[..., Path], budgets: Budgets, name: str) -> None:
    assert failed(checked(with_reference_frames(write_model()), replace(ROOMY, budgets=budgets))) == [name]


def test_costs_without_budgets_are_reported_but_not_checked(write_model: Callable[..., Path]) -> None:
    checks = checked(with_reference_frames(write_model()), load_profile("generic"))
    assert [check.name for check in checks if check.passed is None] == ["file", "latency", "peak memory"]
    assert all(check.found for check in checks)


def test_throttled_board_has_no_latency(write_model: Callable[..., Path]) -> None:
    checks = checked(with_reference_frames(write_model()), state=replace(CALM, throttled=("under-voltage",)))
    assert failed(checks) == ["latency"]
    assert next(check.found for check in checks if check.name == "latency") == "not measured: under-voltage"


def test_forbidden_version_fails(write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_reference_frames(write_model())
    monkeypatch.setattr(module.ort, "__version__", "1.25.0")
    assert failed(checked(path)) == ["onnxruntime"]


def test_advice_mentions_saturation_only_if_possible(write_model: Callable[..., Path]) -> None:
    path = with_metadata(write_model(), quantization={"weights": "int8", "reduce_range": False})
    model = Model.load(path)
    broken = [DeviceCheck("logits", "0.24", "<= 0.02", False)]
    printed = advice(model, broken, ("avx2",))
    assert printed is not None and "16 bits" in printed and "--device laptop-x86-avx2" in printed
    assert advice(model, broken, ("vnni", "avx2")) is None
    assert advice(model, [DeviceCheck("latency", "50 ms", "<= 33 ms", False)], ("avx2",)) is None
    assert advice(Model.load(with_metadata(path, quantization={"reduce_range": True})), broken, ("avx2",)) is None


def test_checklist_has_one_line_per_check() -> None:
    checks = [
        check_bound("latency", 18.3, 33, "{:.2f} ms"),
        check_bound("file", 120.0, 105, "{:.2f} MB"),
        DeviceCheck("map", "not evaluated: the file has no map", "", None),
    ]
    assert checklist(checks).splitlines() == [
        "[✓] latency  18.30 ms                            (<= 33 ms)",
        "[✗] file     120.00 MB                           (<= 105 MB)  FAILED",
        "[-] map      not evaluated: the file has no map",
    ]


def test_self_test_result_is_the_exit_code(
    write_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    good = with_reference_frames(write_model("good.onnx"))
    assert main(["self-test", str(good), "--device", "generic"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("good.onnx on generic\n[✓] onnxruntime") and printed.err == ""

    bad = off_by(write_model("bad.onnx"), "saliency_map", 0.3)
    assert main(["self-test", str(bad), "--device", "generic", "--json"]) == 4
    printed = capsys.readouterr()
    record_ = json.loads(printed.out)
    assert record_["passed"] is False and record_["device"] == "generic"
    assert [check["name"] for check in record_["checks"] if check["passed"] is False] == ["map"]
    assert "error: The self-test failed: map." in printed.err


@pytest.mark.skipif(platform.machine() != "x86_64" or QEMU is None, reason="needs qemu-x86_64 on an x86-64 machine")
def test_saturating_core_is_detected(tmp_path: Path) -> None:
    """Emulate a core with AVX2 but without VNNI, whose 16-bit sums saturate."""
    path = with_reference_frames(
        with_metadata(saturating_model(tmp_path / "m.onnx"), quantization={"weights": "int8", "reduce_range": False})
    )
    program = "import sys; from kdedge_runtime.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "self-test", str(path), "--device", "generic", "--json"]
    done = subprocess.run([str(QEMU), "-cpu", "Haswell", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert [check["name"] for check in checks if check["passed"] is False] == ["logits"]
    if "vnni" in detect_machine().instructions:
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0, "passes with VNNI"


def test_file_without_reference_frames_is_rejected(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["self-test", str(model_path)]) == 2
    assert "contains no reference frames" in capsys.readouterr().err
