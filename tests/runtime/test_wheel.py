"""Wheel of the runtime in a separate environment, as on a device."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from reference_files import with_reference_frames

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.slow
def test_wheel_runs_without_torch_onnx_or_opencv(tmp_path: Path, model_path: Path) -> None:
    wheels, environment = tmp_path / "wheels", tmp_path / "venv"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, CHECKOUT / "runtime"]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    if "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("no package index to build the wheel with")
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("kdedge_runtime-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python"]
    # No byte compilation, because only a small part is imported.
    subprocess.run([*pip, "install", "--quiet", "--no-compile", wheel], check=True)

    listed = subprocess.run([*pip, "list", "--format", "json"], capture_output=True, text=True, check=True)
    installed = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert {"kdedge-runtime", "numpy", "onnxruntime", "pillow"} <= installed
    assert not installed & {"torch", "torchvision", "onnx", "opencv-python-headless", "typer", "rich"}

    command = [
        environment / "bin" / "kdedge-run",
        model_path,
        "--source",
        "synthetic:",
        "--max-frames",
        "5",
        "--jsonl",
        "-",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert len([json.loads(line) for line in ran.stdout.splitlines()]) == 5 + 1, "frames and the summary"

    file = with_reference_frames(Path(shutil.copy(model_path, tmp_path)))
    for verb in (["devices", "raspberry-pi-5"], ["doctor"], ["self-test", file, "--device", "generic"]):
        subprocess.run([environment / "bin" / "kdedge-run", *verb], check=True, capture_output=True, cwd=tmp_path)
    (package,) = environment.glob("lib/python*/site-packages/kdedge_runtime")
    assert (package / "devices" / "profiles" / "systemd" / "kdedge.service").exists()
