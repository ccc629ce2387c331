"""Commands of `kdedge-run`: required and rejected options."""

import subprocess
import sys
from pathlib import Path

import pytest

from kdedge_runtime.cli.main import main
from kdedge_runtime.devices import load_profile, profile_names, profile_text


def refused(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("verb", ["--self-test", "--bench"])
def test_model_commands_require_a_model(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(verb, capsys=capsys).startswith(f"kdedge-run: error: {verb} needs a MODEL. ")


@pytest.mark.parametrize(
    ("arguments", "odd"),
    [
        (["m.onnx", "--bench", "--source", "0"], "--bench does not use --source"),
        (["m.onnx", "--bench", "--view"], "--bench does not use --view"),
        (["m.onnx", "--self-test", "--soak", "10s"], "--self-test does not use --soak"),
        (["m.onnx", "--self-test", "--cadence", "every=2"], "--self-test does not use --cadence"),
        (["m.onnx", "--self-test", "--class", "cat"], "--self-test does not use --class"),
        (["m.onnx", "--bench", "--max-frames", "3"], "--bench does not use --max-frames"),
        (["m.onnx", "--doctor"], "--doctor does not use MODEL"),
        (["--doctor", "--json"], "--doctor does not use --json"),
        (["--devices", "--device", "generic"], "--devices does not use --device"),
        (["m.onnx", "--source", "0", "--json"], "--json needs --self-test or --bench"),
        (["m.onnx", "--bench", "--self-test"], "not allowed with argument"),
        (["m.onnx"], "--source, or --device for its camera"),
        ([], "required: MODEL"),
    ],
)
def test_unused_options_are_rejected(arguments: list[str], odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert odd in refused(*arguments, capsys=capsys)


def test_devices_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == profile_names()
    (pi,) = (line for line in lines if line.startswith("raspberry-pi-5 "))
    assert pi.split()[1:5] == ["4", "3", "1,024", "dotprod"] and "pays" in pi


def test_device_name_prints_its_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--devices", "raspberry-pi-4"]) == 0
    assert capsys.readouterr().out == profile_text("raspberry-pi-4")
    assert main(["--devices", "raspberry-pi-44"]) == 2
    assert "Did you mean raspberry-pi-4?" in capsys.readouterr().err


def test_devices_detect_prints_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--devices", "detect"]) == 0
    told = capsys.readouterr().out
    assert "CPU" in told and "onnxruntime" in told
    assert next(line for line in told.splitlines() if line.startswith("profile")).split()[1] in profile_names()


def test_profile_sets_default_source(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # No camera is available here; the error names the one that was tried.
    assert load_profile("raspberry-pi-5").camera == "csi:0"
    assert main([str(model_path), "--device", "raspberry-pi-5"]) in (3, 5)
    assert "csi:0" in capsys.readouterr().err


def test_auto_selects_this_machine(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(model_path), "--source", "synthetic:", "--max-frames", "2"]
    assert main([*arguments, "--device", "auto"]) == 0
    assert main([*arguments, "--device", "atuo"]) == 2


def test_doctor_and_devices_do_not_load_onnxruntime() -> None:
    # onnxruntime may be the broken part.
    code = (
        "import sys; from kdedge_runtime.cli.main import main; main(['--devices']); main(['--devices', 'detect']); "
        "main(['--doctor']); assert 'onnxruntime' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
