"""Devices: what is written of a kind of machine, and what the one at hand is."""

from kdedge_runtime.devices.profile import (
    Budgets,
    DeviceProfile,
    Instruction,
    OnnxRuntime,
    Quantization,
    load_profile,
    profile_names,
    profile_text,
)

__all__ = [
    "Budgets",
    "DeviceProfile",
    "Instruction",
    "OnnxRuntime",
    "Quantization",
    "load_profile",
    "profile_names",
    "profile_text",
]
