"""Note on int8 kernels that saturate on this machine but not on the target device."""

from collections.abc import Callable, Mapping
from typing import Any

from kdedge_runtime.devices.detection import MachineInfo, detect_machine
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.int8_arithmetic import kernels_saturate

__all__ = ["saturation_note"]


def saturation_note(
    quantization: Mapping[str, Any] | None, machine: Callable[[], MachineInfo] = detect_machine
) -> str | None:
    """Return a note if this machine's int8 kernels saturate on a file's weights, else None.

    Args:
        quantization: quantization entry of the file's metadata; None for an fp32 file.
        machine: function that detects this machine.
    """
    try:
        instructions = machine().instructions
    except KdedgeError:  # the machine reports no instruction sets
        return None
    if not kernels_saturate(instructions, quantization):
        return None
    device = (quantization or {}).get("device", "the device")
    return (
        f"this machine has no VNNI, and its int8 kernels saturate on 8-bit weights; the kernels of {device} do not. "
        "The file was validated with exact sums. Do not run it on this machine"
    )
