"""Environment report: relevant facts without names and paths, also on broken systems."""

import getpass
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kdedge_runtime.cli.main import main
from kdedge_runtime.devices import load_profile
from kdedge_runtime.devices.detection import MachineInfo
from kdedge_runtime.diagnostics.environment import (
    EnvironmentReport,
    OnnxRuntimeCheck,
    check_onnxruntime,
    collect_environment,
)
from kdedge_runtime.diagnostics.system_state import SystemState

CALM = SystemState(50.0, 1500.0, 1500.0, (), (), None)
SOUND = EnvironmentReport(
    machine=MachineInfo("Raspberry Pi 4 Model B Rev 1.4", "Cortex-A72", "aarch64", 4, (), 3978),
    profile=load_profile("raspberry-pi-4"),
    packages={"numpy": "2.4.6", "onnxruntime": "1.32.0"},
    onnxruntime=OnnxRuntimeCheck("1.32.0", ("CPU",), None),
    board=CALM,
    cameras=("/dev/video0 HD Webcam C525",),
)


def fake_python(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_report_contains_relevant_facts() -> None:
    block = SOUND.block()
    for fact in (
        "kdedge-runtime",
        "Raspberry Pi 4 Model B Rev 1.4",
        "Cortex-A72, aarch64, 4 cores",
        "3,978 MB",
        "numpy 2.4.6",
        "1.32.0 with CPU",
        "50 °C",
        "/dev/video0 HD Webcam C525",
        "raspberry-pi-4",
    ):
        assert fact in block
    assert SOUND.advice() == []


def test_report_contains_no_names_or_paths(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert f"Python          {'.'.join(map(str, sys.version_info[:3]))}" in printed
    secrets = {str(Path.home()), str(Path.cwd()), sys.prefix, os.uname().nodename, getpass.getuser()} - {
        "/",
        "vm",
        "root",
    }
    assert not [secret for secret in secrets if secret in printed]


@pytest.mark.parametrize(
    ("diagnosis", "advice"),
    [
        (replace(SOUND, onnxruntime=OnnxRuntimeCheck("1.25.1", ("CPU",), None)), "1.25.1 is known to be broken here"),
        (
            replace(
                SOUND,
                packages={"onnxruntime": "1.21.0"},
                onnxruntime=OnnxRuntimeCheck(None, (), "import killed by SIGILL"),
            ),
            "1.21.0 is older than 1.22. Install another version: `pip install -U onnxruntime`",
        ),
        (
            replace(SOUND, onnxruntime=OnnxRuntimeCheck(None, (), "import fails (ImportError)")),
            "cannot be imported",
        ),
        (
            replace(SOUND, packages={"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.32.0"}),
            "onnxruntime and onnxruntime-gpu overwrite each other",
        ),
        (replace(SOUND, machine=replace(SOUND.machine, architecture="armv7l")), "32-bit system"),
        (replace(SOUND, board=replace(CALM, throttled=("under-voltage",))), "is throttled (under-voltage)"),
        (replace(SOUND, board=replace(CALM, throttled_since_boot=("throttled",))), "since boot (throttled)"),
        (replace(SOUND, machine=replace(SOUND.machine, ram_mb=512)), "less memory than the profile"),
    ],
)
def test_each_problem_has_advice(diagnosis: EnvironmentReport, advice: str) -> None:
    (printed,) = diagnosis.advice()
    assert advice in printed


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("kill -ILL $$", "import killed by SIGILL"),
        ("kill -SEGV $$", "import killed by SIGSEGV"),
        (
            'echo \'Traceback: File "/home/ada/x.py"\' >&2; echo "ImportError: /home/ada/lib.so" >&2; exit 1',
            "import fails (ImportError)",
        ),
        ("exit 3", "import fails (no message)"),
    ],
)
def test_crash_on_import_is_reported(tmp_path: Path, script: str, failure: str) -> None:
    assert check_onnxruntime(fake_python(tmp_path, script)) == OnnxRuntimeCheck(None, (), failure)


def test_installed_onnxruntime_imports() -> None:
    trial = check_onnxruntime()
    assert trial.failure is None and "CPU" in trial.providers


def test_cameras_are_listed_with_missing_permissions(tmp_path: Path) -> None:
    for number, name in ((10, "bcm2835-codec-decode"), (0, "HD  Webcam\nC525")):
        folder = tmp_path / f"sys/class/video4linux/video{number}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(name + "\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/video0").touch()
    assert collect_environment(tmp_path).cameras == (
        "/dev/video0 HD Webcam C525",
        "/dev/video10 bcm2835-codec-decode (permission denied: join the group video)",
    )


def test_advice_is_printed_to_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ill = replace(SOUND, board=replace(CALM, throttled=("throttled",)))
    monkeypatch.setattr("kdedge_runtime.diagnostics.environment.collect_environment", lambda: ill)
    assert main(["doctor"]) == 0
    printed = capsys.readouterr()
    assert "advice" not in printed.out and printed.err.startswith("advice: The board is throttled")
