"""The warning that a machine's own int8 kernels saturate where those of the device do not."""

from collections.abc import Callable, Mapping
from typing import Any

from kdedge_runtime.devices.detection import Machine, detect_machine
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.int8_arithmetic import kernels_saturate

__all__ = ["saturation_note"]


def saturation_note(
    quantization: Mapping[str, Any] | None, machine: Callable[[], Machine] = detect_machine
) -> str | None:
    """Return one sentence where this machine's kernels saturate on a file's weights; None elsewhere.

    Args:
        quantization: what the file's metadata states; None for a float file.
        machine: detects this machine.
    """
    try:
        instructions = machine().instructions
    except KdedgeError:  # a machine that states nothing of itself
        return None
    if not kernels_saturate(instructions, quantization):
        return None
    device = (quantization or {}).get("device", "the device")
    return (
        f"this machine has no VNNI, and its int8 kernels saturate on 8-bit weights; those of {device} do not. "
        "Judged with exact sums; do not run this file here"
    )
