"""Environment report for bug reports, with advice.

It contains versions, hardware and cameras, but no user names or paths. onnxruntime is imported in a subprocess, because
some versions crash on some cores.
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
from kdedge_runtime.devices.detection import MachineInfo, detect_machine, profile_for
from kdedge_runtime.devices.profile import DeviceProfile
from kdedge_runtime.diagnostics.system_state import SystemState, read_system_state

__all__ = ["EnvironmentReport", "OnnxRuntimeCheck", "collect_environment", "check_onnxruntime"]

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
"""Distributions that install the same import package, `onnxruntime`."""
_TRIAL = "import onnxruntime as o; print(o.__version__, *o.get_available_providers())"
_TRIAL_TIMEOUT_S = 60


@dataclass(frozen=True)
class OnnxRuntimeCheck:
    """Result of importing onnxruntime in a subprocess."""

    version: str | None
    """Version, or None if the import failed."""
    providers: tuple[str, ...]
    failure: str | None
    """Error description, or None."""

    def summary(self) -> str:
        """Return a one-line description."""
        return self.failure or f"{self.version} with {', '.join(self.providers)}"


@dataclass(frozen=True)
class EnvironmentReport:
    """Environment report and advice."""

    machine: MachineInfo
    profile: DeviceProfile
    packages: dict[str, str]
    onnxruntime: OnnxRuntimeCheck
    board: SystemState
    cameras: tuple[str, ...]

    def block(self) -> str:
        """Return the report as text to paste into an issue."""
        rows = {
            "kdedge-runtime": __version__,
            "Python": f"{platform.python_version()} ({platform.python_implementation()})",
            "system": f"{platform.system()} {platform.release()}",
            "packages": ", ".join(f"{name} {version}" for name, version in self.packages.items()) or "none",
            "onnxruntime": self.onnxruntime.summary(),
            **self.machine.rows(),
            "profile": self.profile.name,
            "state": str(self.board),
            "cameras": ", ".join(self.cameras) or "none",
        }
        width = max(len(name) for name in rows)
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())

    def advice(self) -> list[str]:
        """Return recommended changes, one sentence each; empty if there are none."""
        return list(self._advice())

    def _advice(self) -> Iterator[str]:
        installed = [name for name in self.packages if _RIVALS.match(name)]
        if len(installed) > 1:
            yield (
                f"{' and '.join(installed)} overwrite each other. Uninstall all of them, then install only the one "
                "you need."
            )
        version = self.onnxruntime.version or next((self.packages[name] for name in installed), None)
        objection = None if version is None else self.profile.onnxruntime.objection(version)
        if objection is not None:
            yield f"{objection}. Install another version: `pip install -U onnxruntime`."
        elif self.onnxruntime.failure is not None:
            yield "onnxruntime cannot be imported. Reinstall it: `pip install --force-reinstall onnxruntime`."
        if sys.maxsize < 2**32 or self.machine.architecture.startswith(("armv6", "armv7")):
            yield "This is a 32-bit system, and onnxruntime has no wheels for it. Install the 64-bit system."
        if self.board.throttled:
            yield (
                f"The board is throttled ({', '.join(self.board.throttled)}). Use a stronger power supply or more "
                "cooling. `kdedge-run bench` reports no timings until then."
            )
        elif self.board.throttled_since_boot:
            since = ", ".join(self.board.throttled_since_boot)
            yield f"The board was throttled since boot ({since}). Check its power supply and cooling."
        if self.profile.ram_mb and self.machine.ram_mb and self.machine.ram_mb < 0.75 * self.profile.ram_mb:
            yield f"The machine has less memory than the profile {self.profile.name} assumes."


def collect_environment(root: Path = _ROOT) -> EnvironmentReport:
    """Collect the environment report.

    Args:
        root: folder that contains `proc/`, `sys/` and `dev/`. Values other than `/` are for tests.
    """
    machine = detect_machine(root)
    return EnvironmentReport(
        machine=machine,
        profile=profile_for(machine),
        packages=_packages(),
        onnxruntime=check_onnxruntime(),
        board=read_system_state(root),
        cameras=tuple(_cameras(root)),
    )


def check_onnxruntime(python: str = sys.executable) -> OnnxRuntimeCheck:
    """Import onnxruntime in a subprocess, because the import may crash.

    Args:
        python: Python interpreter to use.
    """
    try:
        done = subprocess.run(
            [python, "-c", _TRIAL], capture_output=True, text=True, timeout=_TRIAL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return OnnxRuntimeCheck(None, (), f"import takes more than {_TRIAL_TIMEOUT_S} s")
    if done.returncode < 0:
        return OnnxRuntimeCheck(None, (), f"import killed by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        # The last line contains the error; the lines above contain paths.
        kind = (done.stderr.strip().splitlines() or ["no message"])[-1].partition(":")[0]
        return OnnxRuntimeCheck(None, (), f"import fails ({kind})")
    version, *providers = done.stdout.split()
    return OnnxRuntimeCheck(version, tuple(name.removesuffix("ExecutionProvider") for name in providers), None)


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
        blocked = "" if os.access(device, os.R_OK | os.W_OK) else " (permission denied: join the group video)"
        yield f"/dev/{folder.name} {name}{blocked}"
    if root == _ROOT and (tool := shutil.which("rpicam-vid") or shutil.which("libcamera-vid")):
        yield f"ribbon-cable cameras through {Path(tool).name}"
