"""`kdedge devices`, `bench` and `doctor`: the workbench shows what the device shows."""

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


def test_devices_are_listed_as_on_the_device(
    command: Callable[..., Outcome], capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = command("devices")
    assert outcome.code == 0 and set(profile_names()) < set(outcome.out.split())
    assert outcome.out == same_on_the_device(capfd, "--devices")


def test_a_device_is_shown_with_its_reasons(command: Callable[..., Outcome]) -> None:
    assert command("devices", "show", "raspberry-pi-5") == Outcome(0, profile_text("raspberry-pi-5"), "")
    wrong = command("devices", "show", "raspberry-pi5")
    assert wrong.code == 2 and "Did you mean raspberry-pi-5?" in wrong.err


def test_this_machine_is_detected(command: Callable[..., Outcome], capfd: pytest.CaptureFixture[str]) -> None:
    assert command("devices", "detect").out == same_on_the_device(capfd, "--devices", "detect")


def test_the_doctor_speaks(command: Callable[..., Outcome]) -> None:
    outcome = command("doctor")
    assert outcome.code == 0
    assert {"kdedge-runtime", "Python", "torch", "onnxruntime"} <= set(outcome.out.split())


def test_an_exported_model_tests_itself_and_is_measured(
    command: Callable[..., Outcome], exported_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("model.onnx", "model.int8.onnx"):
        told = same_on_the_device(capfd, str(exported_run / name), "--self-test", "--device", "generic")
        assert told.count("[✓]") == 5 and "[✗]" not in told

    outcome = command("bench", str(exported_run / "model.int8.onnx"), "--threads", "1", "--json")
    assert outcome.code == 0, outcome.err
    names = [timing["name"] for timing in json.loads(outcome.out)["timings"]]
    assert names == ["int8", "int8 without map", "fp32", "fp32 without map"]
