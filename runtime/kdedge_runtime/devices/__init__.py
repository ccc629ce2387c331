"""Device profiles and detection of the machine."""

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
