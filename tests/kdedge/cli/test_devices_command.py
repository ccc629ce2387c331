"""`kdedge devices`, `bench` and `doctor` print the same as on the device."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from training_toys import Outcome

from kdedge_runtime.cli.main import main as on_the_device
from kdedge_runtime.devices import profile_names, profile_text


def same_on_the_device(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    capfd.readouterr()
    assert on_the_device(list(arguments)) == 0
    return capfd.readouterr().out


def test_devices_lists_the_same_as_on_the_device(
    command: Callable[..., Outcome], capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = command("devices")
    assert outcome.code == 0 and set(profile_names()) < set(outcome.out.split())
    assert outcome.out == same_on_the_device(capfd, "devices")


def test_devices_name_prints_rationales(command: Callable[..., Outcome]) -> None:
    assert command("devices", "raspberry-pi-5") == Outcome(0, profile_text("raspberry-pi-5"), "")
    wrong = command("devices", "raspberry-pi5")
    assert wrong.code == 2 and "Did you mean raspberry-pi-5?" in wrong.err


def test_devices_detect_prints_this_machine(command: Callable[..., Outcome], capfd: pytest.CaptureFixture[str]) -> None:
    assert command("devices", "detect").out == same_on_the_device(capfd, "devices", "detect")


def test_doctor_prints_a_report(command: Callable[..., Outcome]) -> None:
    outcome = command("doctor")
    assert outcome.code == 0
    assert {"kdedge-runtime", "Python", "torch", "onnxruntime"} <= set(outcome.out.split())


def test_self_test_and_bench_of_an_exported_model(
    command: Callable[..., Outcome], exported_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("model.onnx", "model.int8.onnx"):
        printed = same_on_the_device(capfd, "self-test", str(exported_run / name), "--device", "generic")
        assert printed.count("[✓]") == 6 and "[✗]" not in printed

    outcome = command("bench", str(exported_run / "model.int8.onnx"), "--threads", "1", "--json")
    assert outcome.code == 0, outcome.err
    names = [timing["name"] for timing in json.loads(outcome.out)["timings"]]
    assert names == ["int8", "int8 without map", "fp32", "fp32 without map"]
