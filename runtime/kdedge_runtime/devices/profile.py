"""Device profiles: hardware and recommended settings, in TOML files shipped with the runtime."""

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
from kdedge_runtime.precision import Precision

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
"""Instruction sets used by int8 kernels: SDOT/UDOT and SMMLA on ARM, VPDPBUSD and 256-bit integers on x86."""


@dataclass(frozen=True)
class OnnxRuntime:
    """onnxruntime settings for a device."""

    providers: tuple[str, ...]
    """Execution providers by short name, best first."""
    minimum: str
    """Oldest working version."""
    forbidden: tuple[str, ...] = ()
    """Broken versions, exact (`1.21.0`) or a series (`1.24.*`)."""
    spinning: bool = False
    """True if idle threads busy-wait, which lowers latency but heats a core. Default False."""

    def best_provider(self, available: Container[str]) -> str:
        """Return the first provider that is available, else the first one."""
        return next((name for name in self.providers if name in available), self.providers[0])

    def objection(self, version: str) -> str | None:
        """Return the reason why a version must not be used, or None."""
        if _numbers(version) < _numbers(self.minimum):
            return f"onnxruntime {version} is older than {self.minimum}"
        for pattern in self.forbidden:
            if version == pattern or (pattern.endswith(".*") and version.startswith(pattern[:-1])):
                return f"onnxruntime {version} is known to be broken here"
        return None


@dataclass(frozen=True)
class Quantization:
    """Recommended quantization for a device."""

    activations: Literal["uint8", "int8"]
    reduce_range: bool
    """True quantizes weights to 7 bits, to avoid saturation on cores without VNNI."""
    int8_is_faster: bool | None = None
    """True if int8 is expected to be faster than fp32; None if it must be measured."""

    def is_faster(self, precision: Precision) -> bool | None:
        """Return True if a precision is expected to be faster than fp32; None if it must be measured."""
        return self.int8_is_faster if precision.is_integer else None


@dataclass(frozen=True)
class Budgets:
    """Budgets of a model on a device; None for no limit."""

    file_mb: float | None = None
    latency_ms: float | None = None
    """Median latency of one inference with map at batch size 1, in milliseconds."""
    peak_memory_mb: float | None = None
    """Peak memory of the process, in MB."""
    parameters: int | None = None


@dataclass(frozen=True)
class DeviceProfile:
    """Profile of a type of device. None marks values that vary between devices."""

    name: str
    description: str
    onnxruntime: OnnxRuntime
    quantization: Quantization
    budgets: Budgets
    instructions: tuple[Instruction, ...] = ()
    cores: int | None = None
    threads: int | None = None
    """Threads per inference; None for onnxruntime's default."""
    ram_mb: int | None = None
    """Memory of the smallest variant on sale, in MB."""
    boards: tuple[str, ...] = ()
    """Prefixes of the device tree names."""
    camera: str = "0"
    """Default `--source`."""


def profile_names() -> list[str]:
    """Return the names of the shipped profiles, sorted."""
    return sorted(item.name.removesuffix(".toml") for item in _folder().iterdir() if item.name.endswith(".toml"))


def load_profile(name: str) -> DeviceProfile:
    """Load a profile by name.

    Raises:
        UsageError: there is no profile with this name. The message names the closest match.
    """
    return parse_profile(name, profile_text(name))


def profile_text(name: str) -> str:
    """Return the text of a profile, including the sources of its values.

    Raises:
        UsageError: there is no profile with this name. The message names the closest match.
    """
    names = profile_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"The device profile {name!r} does not exist.{hint} Available profiles: {', '.join(names)}.")
    return (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def parse_profile(name: str, text: str) -> DeviceProfile:
    """Parse a profile from the text of its TOML file.

    Raises:
        KdedgeError: the text is not valid TOML, or a key is unknown, missing or of the wrong type.
    """
    try:
        return build(DeviceProfile, tomllib.loads(text) | {"name": name})
    except ValueError as error:  # includes errors of tomllib
        raise KdedgeError(
            f"The device profile {name}.toml is damaged: {error}. Expected the keys of the other profiles; fix it, "
            "or reinstall kdedge-runtime."
        ) from error


def _numbers(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version: `1.32.0rc1` is (1, 32, 0)."""
    parts = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)


def _folder() -> Traversable:
    """Return the `devices/` folder of the installed package, or of the checkout."""
    installed = files("kdedge_runtime.devices") / "profiles"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[3] / "devices"
