"""No command opens a connection, and onnxruntime's telemetry stays off."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from training_toys import ONE_THREAD, kdedge_command

TRAIN = ("--model", "small:resnet8", "--device", "cpu", "--epochs", "1", "--batch-size", "16")
TELEMETRY_FILES = (".onnxruntime", "onnxruntime.db", "deviceid", ".ses")


@pytest.mark.parametrize("package", ["kdedge", "kdedge_export", "kdedge_runtime"])
@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_packages_disable_telemetry_by_default(package: str, given: str | None, expected: str) -> None:
    environment = {key: value for key, value in ONE_THREAD.items() if key != "ORT_DISABLE_TELEMETRY"}
    if given is not None:
        environment["ORT_DISABLE_TELEMETRY"] = given
    code = f"import os, sys, {package}; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"], "set before any import of onnxruntime"


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run", "train", "export", "validate"])
def test_commands_open_no_connections_and_write_no_telemetry(
    verb: str, scenes: Path, teacher_run: Path, exported_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(exported_run if verb == "validate" else teacher_run, run)
    arguments = {
        "run": (
            "run",
            exported_run / "model.onnx",
            "--source",
            "synthetic:",
            "--max-frames",
            "60",
            "--jsonl",
            "/dev/null",
        ),
        "train": ("train", scenes, *TRAIN, "--out", tmp_path / "new"),
        "export": ("export", run, "--quantize"),
        "validate": ("validate", run, "--quick"),
    }[verb]
    home, scratch, log = tmp_path / "home", tmp_path / "scratch", tmp_path / "calls.txt"
    home.mkdir()
    scratch.mkdir()
    environment = {key: value for key, value in ONE_THREAD.items() if key != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(home), "TMPDIR": str(scratch), "XDG_CACHE_HOME": str(home / ".cache")}
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    strace = ("strace", "--seccomp-bpf", "-f", "-qq", "-e", calls, "-o", str(log)) if shutil.which("strace") else ()
    done = subprocess.run(
        [*strace, *kdedge_command(*arguments)], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    # A check of the toy model may fail; the report is written anyway.
    assert done.returncode in ((0, 4) if verb == "validate" else (0,)), done.stderr
    written = [path for folder in (home, scratch) for path in folder.rglob("*") if path.name in TELEMETRY_FILES]
    assert written == []
    if strace:
        assert re.findall(r".*AF_INET.*", log.read_text(encoding="utf-8")) == []
