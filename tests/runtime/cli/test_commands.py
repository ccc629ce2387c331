"""Commands of `kdedge-run`: required and rejected options."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kdedge_runtime.cli.main import SUBCOMMANDS, build_parser, main
from kdedge_runtime.devices import load_profile, profile_names, profile_text
from kdedge_runtime.errors import KdedgeError


def refused(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", ["self-test", "bench", "soak"])
def test_model_commands_require_a_model(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = refused(name, "--device", "generic", capsys=capsys)
    assert printed.startswith(f"kdedge-run {name}: error: ") and "required: MODEL" in printed


@pytest.mark.parametrize(
    ("arguments", "odd"),
    [
        (["bench", "m.onnx", "--source", "0"], "unrecognized arguments: --source 0"),
        (["bench", "m.onnx", "--view"], "unrecognized arguments: --view"),
        (["bench", "m.onnx", "--max-frames", "3"], "unrecognized arguments: --max-frames 3"),
        (["self-test", "m.onnx", "--duration", "10s"], "unrecognized arguments: --duration 10s"),
        (["self-test", "m.onnx", "--cadence", "every=2"], "unrecognized arguments: --cadence every=2"),
        (["self-test", "m.onnx", "--class", "cat"], "unrecognized arguments: --class cat"),
        (["soak", "m.onnx", "--source", "0", "--duration", "10s", "--json"], "unrecognized arguments: --json"),
        (["soak", "m.onnx", "--source", "0", "--duration", "10s", "--max-frames", "3"], "arguments: --max-frames 3"),
        (["soak", "m.onnx", "--source", "0"], "required: --duration"),
        (["doctor", "m.onnx"], "unrecognized arguments: m.onnx"),
        (["doctor", "--json"], "unrecognized arguments: --json"),
        (["devices", "--device", "generic"], "unrecognized arguments: --device"),
        (["m.onnx", "--source", "0", "--json"], "unrecognized arguments: --json"),
        (["m.onnx", "bench"], "unrecognized arguments: bench"),
        ([], "required: MODEL"),
    ],
)
def test_unused_options_are_rejected(arguments: list[str], odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert odd in refused(*arguments, capsys=capsys)


@pytest.mark.parametrize(
    ("arguments", "odd"),
    [
        (["m.onnx"], "or --device NAME"),
        (["soak", "m.onnx", "--duration", "10s"], "or --device NAME"),
        (["m.onnx", "--source", "0", "--token", "x"], "--token needs a live view. Add --view"),
        (["m.onnx", "--source", "0", "--tls"], "--tls needs a live view. Add --view"),
        (["soak", "m.onnx", "--source", "0", "--duration", "1s", "--feedback", "f.db"], "--feedback needs a live view"),
    ],
)
def test_incomplete_options_are_rejected(arguments: list[str], odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert odd in capsys.readouterr().err


@pytest.mark.parametrize("name", list(SUBCOMMANDS))
def test_every_subcommand_has_its_own_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"], prog="kdedge run")
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: kdedge run {name} ") and "%(prog)s" not in printed


@pytest.mark.parametrize("name", [None, *SUBCOMMANDS])
def test_every_option_states_its_default(name: str | None) -> None:
    options = [action for action in build_parser(name=name)._actions if action.option_strings and not action.required]
    silent = [action.option_strings for action in options if "(default: " not in (action.help or "")]
    assert silent == [["-h", "--help"], *([["--version"]] if name is None else [])]


def test_help_lists_every_exit_code() -> None:
    text = build_parser().format_help().partition("exit codes:")[2]
    assert {int(code) for code in re.findall(r"\d+", text)} == {0, *(error.exit_code for error in errors()), 130}


def errors() -> list[type[KdedgeError]]:
    """Return the root of all errors and its subclasses in the runtime."""
    found = [KdedgeError]
    for error in found:
        found += [child for child in error.__subclasses__() if child.__module__.startswith("kdedge_runtime")]
    return found


def test_model_named_as_a_subcommand_is_given_with_its_folder(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(model_path, "bench")
    assert main(["./bench", "--source", "synthetic:", "--max-frames", "1", "--jsonl", "-"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2, "the frame and the summary"
    assert "--source" in refused("bench", "--source", "synthetic:", capsys=capsys)


def test_devices_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == profile_names()
    (pi,) = (line for line in lines if line.startswith("raspberry-pi-5 "))
    assert pi.split()[1:5] == ["4", "3", "1,024", "dotprod"] and "faster" in pi


def test_device_name_prints_its_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "raspberry-pi-4"]) == 0
    assert capsys.readouterr().out == profile_text("raspberry-pi-4")
    assert main(["devices", "raspberry-pi-44"]) == 2
    assert "Did you mean raspberry-pi-4?" in capsys.readouterr().err


def test_devices_detect_prints_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "detect"]) == 0
    printed = capsys.readouterr().out
    assert "CPU" in printed and "onnxruntime" in printed
    assert next(line for line in printed.splitlines() if line.startswith("profile")).split()[1] in profile_names()


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
        "import sys; from kdedge_runtime.cli.main import main; main(['devices']); main(['devices', 'detect']); "
        "main(['doctor']); assert 'onnxruntime' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
