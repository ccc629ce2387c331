"""Device profiles: what a board can do and what therefore suits it, as TOML files that ship with the runtime."""

import difflib
import tomllib
from dataclasses import dataclass, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from kdedge_runtime.errors import KdedgeError, UsageError

__all__ = ["DeviceProfile", "load_profile", "profile_names"]


@dataclass(frozen=True)
class DeviceProfile:
    """A kind of machine."""

    name: str
    description: str
    reduce_range: bool
    """Quantize weights to 7 bits, so that cores without VNNI do not saturate."""


def profile_names() -> list[str]:
    """The profiles that ship with the runtime, sorted."""
    return sorted(item.name.removesuffix(".toml") for item in _folder().iterdir() if item.name.endswith(".toml"))


def load_profile(name: str) -> DeviceProfile:
    """Read a profile by its name.

    Raises:
        UsageError: there is none of this name; the message names the nearest.
    """
    names = profile_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"There is no device profile {name!r}.{hint} The profiles are: {', '.join(names)}.")
    values = tomllib.loads((_folder() / f"{name}.toml").read_text(encoding="utf-8"))
    expected = {field.name for field in fields(DeviceProfile)} - {"name"}
    if set(values) != expected:
        odd = ", ".join(sorted(set(values) ^ expected))
        raise KdedgeError(f"The device profile {name}.toml is damaged: {odd}. Install kdedge-runtime again.")
    return DeviceProfile(name, **values)


def _folder() -> Traversable:
    """`devices/` inside the installed package, or at the root of a checkout."""
    installed = files("kdedge_runtime") / "devices"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "devices"
