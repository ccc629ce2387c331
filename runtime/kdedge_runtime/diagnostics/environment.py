"""The doctor: what somebody who helps has to know of a machine, as one block to paste, and advice.

It names versions, hardware and cameras, and neither people nor paths. onnxruntime is tried in a process of its own,
since some versions kill the process that imports them on some cores.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdedge_runtime import __version__
from kdedge_runtime.devices.detection import Machine, detect_machine, profile_for
from kdedge_runtime.devices.profile import DeviceProfile
from kdedge_runtime.diagnostics.system_state import BoardState, read_board

__all__ = ["Diagnosis", "OnnxRuntimeTrial", "diagnose", "try_onnxruntime"]

_ROOT = Path("/")
_PACKAGES = (
    "kdedge-distill",
    "kdedge-export",
    "numpy",
    "pillow",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python",
    "opencv-python-headless",
    "picamera2",
    "onnx",
    "torch",
    "torchvision",
)
_RIVALS = re.compile(r"onnxruntime(-gpu|-directml|-openvino|-silicon|-training|-qnn)?$")
"""Distributions that all install the same import name, `onnxruntime`."""
_TRIAL = "import onnxruntime as o; print(o.__version__, *o.get_available_providers())"
_TRIAL_TIMEOUT_S = 60


@dataclass(frozen=True)
class OnnxRuntimeTrial:
    """What became of an attempt to import onnxruntime."""

    version: str | None
    """None where the import failed."""
    providers: tuple[str, ...]
    failure: str | None
    """How it failed."""

    def told(self) -> str:
        """In words."""
        return self.failure or f"{self.version} with {', '.join(self.providers)}"


@dataclass(frozen=True)
class Diagnosis:
    """The block and what it means."""

    machine: Machine
    profile: DeviceProfile
    packages: dict[str, str]
    onnxruntime: OnnxRuntimeTrial
    board: BoardState
    cameras: tuple[str, ...]

    def block(self) -> str:
        """The facts, as text to paste into an issue."""
        rows = {
            "kdedge-runtime": __version__,
            "Python": f"{platform.python_version()} ({platform.python_implementation()})",
            "system": f"{platform.system()} {platform.release()}",
            "packages": ", ".join(f"{name} {version}" for name, version in self.packages.items()) or "none",
            "onnxruntime": self.onnxruntime.told(),
            **self.machine.rows(),
            "profile": self.profile.name,
            "state": str(self.board),
            "cameras": ", ".join(self.cameras) or "none",
        }
        width = max(len(name) for name in rows)
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())

    def advice(self) -> list[str]:
        """What should be changed, a sentence each; empty if all is well."""
        return list(self._advice())

    def _advice(self) -> Iterator[str]:
        installed = [name for name in self.packages if _RIVALS.match(name)]
        if len(installed) > 1:
            yield (
                f"{' and '.join(installed)} overwrite each other. Uninstall all of them, then install the one that "
                "is meant."
            )
        version = self.onnxruntime.version or next((self.packages[name] for name in installed), None)
        objection = None if version is None else self.profile.onnxruntime.objection(version)
        if objection is not None:
            yield f"{objection}. Install another: `pip install -U onnxruntime`."
        elif self.onnxruntime.failure is not None:
            yield "onnxruntime does not work here. Install it again: `pip install --force-reinstall onnxruntime`."
        if sys.maxsize < 2**32 or self.machine.architecture.startswith(("armv6", "armv7")):
            yield "This is a 32-bit system, for which there are no wheels of onnxruntime. Install the 64-bit one."
        if self.board.throttled:
            yield (
                f"The board holds itself back ({', '.join(self.board.throttled)}). Give it a better supply or more "
                "cooling; `--bench` gives no figures until then."
            )
        elif self.board.throttled_since_boot:
            since = ", ".join(self.board.throttled_since_boot)
            yield f"The board held itself back since it was started ({since}). Check its supply and its cooling."
        if self.profile.ram_mb and self.machine.ram_mb and self.machine.ram_mb < 0.75 * self.profile.ram_mb:
            yield f"There is less memory than the profile {self.profile.name} counts on."


def diagnose(root: Path = _ROOT) -> Diagnosis:
    """Look at everything.

    Args:
        root: where `proc/`, `sys/` and `dev/` are; another one than `/` is for tests.
    """
    machine = detect_machine(root)
    return Diagnosis(
        machine=machine,
        profile=profile_for(machine),
        packages=_packages(),
        onnxruntime=try_onnxruntime(),
        board=read_board(root),
        cameras=tuple(_cameras(root)),
    )


def try_onnxruntime(python: str = sys.executable) -> OnnxRuntimeTrial:
    """Import onnxruntime in another process, which may die of it.

    Args:
        python: the interpreter to try it with.
    """
    try:
        done = subprocess.run(
            [python, "-c", _TRIAL], capture_output=True, text=True, timeout=_TRIAL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return OnnxRuntimeTrial(None, (), f"its import takes more than {_TRIAL_TIMEOUT_S} s")
    if done.returncode < 0:
        return OnnxRuntimeTrial(None, (), f"its import dies of {signal.Signals(-done.returncode).name}")
    if done.returncode:
        # The last line names the error; what stands above it holds paths.
        kind = (done.stderr.strip().splitlines() or ["no message"])[-1].partition(":")[0]
        return OnnxRuntimeTrial(None, (), f"its import fails ({kind})")
    version, *providers = done.stdout.split()
    return OnnxRuntimeTrial(version, tuple(name.removesuffix("ExecutionProvider") for name in providers), None)


def _packages() -> dict[str, str]:
    rivals = {
        name
        for distribution in importlib.metadata.distributions()
        if _RIVALS.match(name := (distribution.metadata["Name"] or "").lower())
    }
    found = {}
    for name in dict.fromkeys([*_PACKAGES, *sorted(rivals)]):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cameras(root: Path) -> Iterator[str]:
    for folder in sorted((root / "sys/class/video4linux").glob("video*"), key=lambda path: (len(path.name), path)):
        device = root / "dev" / folder.name
        name = " ".join((folder / "name").read_text(encoding="utf-8", errors="replace").split())
        blocked = "" if os.access(device, os.R_OK | os.W_OK) else " (not permitted: join the group video)"
        yield f"/dev/{folder.name} {name}{blocked}"
    if root == _ROOT and (tool := shutil.which("rpicam-vid") or shutil.which("libcamera-vid")):
        yield f"ribbon-cable cameras through {Path(tool).name}"
