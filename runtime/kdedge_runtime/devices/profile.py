"""Device profiles: what a board can do and what therefore suits it, as TOML files that ship with the runtime."""

import difflib
import tomllib
from collections.abc import Container
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from kdedge_runtime.devices.toml_schema import build
from kdedge_runtime.errors import KdedgeError, UsageError

__all__ = [
    "Budgets",
    "DeviceProfile",
    "Instruction",
    "OnnxRuntime",
    "Quantization",
    "load_profile",
    "parse_profile",
    "profile_names",
    "profile_text",
]

Instruction = Literal["dotprod", "i8mm", "vnni", "avx2"]
"""What int8 kernels use: SDOT/UDOT and SMMLA of ARM, VPDPBUSD and 256-bit integers of x86."""


@dataclass(frozen=True)
class OnnxRuntime:
    """How onnxruntime is to be set up there."""

    providers: tuple[str, ...]
    """Execution providers by their short names, the best first."""
    minimum: str
    """The oldest version that works."""
    forbidden: tuple[str, ...] = ()
    """Versions that do not, each exact (`1.21.0`) or a whole series (`1.24.*`)."""
    spinning: bool = False
    """Whether idle threads wait actively: less latency, for a core's heat."""

    def best_provider(self, available: Container[str]) -> str:
        """The first provider that is installed, else the first."""
        return next((name for name in self.providers if name in available), self.providers[0])

    def objection(self, version: str) -> str | None:
        """Why an installed version must not be used here; None if it may."""
        if _numbers(version) < _numbers(self.minimum):
            return f"onnxruntime {version} is older than {self.minimum}"
        for pattern in self.forbidden:
            if version == pattern or (pattern.endswith(".*") and version.startswith(pattern[:-1])):
                return f"onnxruntime {version} is known to be broken here"
        return None


@dataclass(frozen=True)
class Quantization:
    """What an int8 file for this device should be."""

    activations: Literal["uint8", "int8"]
    reduce_range: bool
    """Quantize weights to 7 bits, so that cores without VNNI do not saturate."""
    int8_pays: bool | None = None
    """Whether int8 is expected to be faster than fp32; None: measure it."""


@dataclass(frozen=True)
class Budgets:
    """What a model may cost there. None sets no bound."""

    file_mb: float | None = None
    latency_ms: float | None = None
    """Median of one inference with the map, one image."""
    peak_memory_mb: float | None = None
    """Of the whole process."""
    parameters: int | None = None


@dataclass(frozen=True)
class DeviceProfile:
    """A kind of machine. What is None differs from one such machine to another."""

    name: str
    description: str
    onnxruntime: OnnxRuntime
    quantization: Quantization
    budgets: Budgets
    instructions: tuple[Instruction, ...] = ()
    cores: int | None = None
    threads: int | None = None
    """For one inference; None leaves the choice to onnxruntime."""
    ram_mb: int | None = None
    """Of the smallest variant that is sold."""
    boards: tuple[str, ...] = ()
    """How the device tree's name of such a machine begins."""
    camera: str = "0"
    """The source that is most likely there, as for `--source`."""


def profile_names() -> list[str]:
    """The profiles that ship with the runtime, sorted."""
    return sorted(item.name.removesuffix(".toml") for item in _folder().iterdir() if item.name.endswith(".toml"))


def load_profile(name: str) -> DeviceProfile:
    """Read a profile by its name.

    Raises:
        UsageError: there is none of this name; the message names the nearest.
    """
    return parse_profile(name, profile_text(name))


def profile_text(name: str) -> str:
    """The file of a profile, with the reasons for its values.

    Raises:
        UsageError: there is none of this name; the message names the nearest.
    """
    names = profile_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"There is no device profile {name!r}.{hint} The profiles are: {', '.join(names)}.")
    return (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def parse_profile(name: str, text: str) -> DeviceProfile:
    """Read a profile from the text of its TOML file.

    Raises:
        KdedgeError: the text is no TOML, or a key is unknown, missing or of another type.
    """
    try:
        return build(DeviceProfile, tomllib.loads(text) | {"name": name})
    except ValueError as error:  # also what tomllib raises
        raise KdedgeError(
            f"The device profile {name}.toml is damaged: {error}. Expected the keys of the other profiles; "
            "mend it, or install kdedge-runtime again."
        ) from error


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version as numbers: `1.32.0rc1` is (1, 32, 0)."""
    parts = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)


def _folder() -> Traversable:
    """`devices/` inside the installed package, or at the root of a checkout."""
    installed = files("kdedge_runtime.devices") / "profiles"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[3] / "devices"
