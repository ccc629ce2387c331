"""Arithmetic of int8 model files: integer kernels of the machine, or exact sums in float32.

x86 cores with AVX2 but without VNNI add pairs of 8-bit products in 16 bits, so large weights saturate. Other kernels do
not saturate. Accuracy is therefore always measured with exact sums, and latency with the integer kernels.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

import onnxruntime as ort

__all__ = ["Arithmetic", "int8_arithmetic", "kernels_saturate", "use_exact_sums"]

Arithmetic = Literal["exact sums", "machine kernels"]
"""Arithmetic of quantized operations.

`exact sums`: multiply and add the quantized values in float32. `machine kernels`: use the integer kernels that
onnxruntime selects on this machine.
"""
_EXACT: Arithmetic = "exact sums"
_KERNELS: Arithmetic = "machine kernels"
_ENTRY = "session.disable_quant_qdq"


def use_exact_sums(options: ort.SessionOptions) -> None:
    """Disable onnxruntime's integer kernels for quantized operations. Float graphs are unaffected.

    Args:
        options: options of a session that is not open yet.
    """
    options.add_session_config_entry(_ENTRY, "1")


def int8_arithmetic(session: ort.InferenceSession) -> Arithmetic:
    """Return the arithmetic used for a session's quantized operations."""
    options = session.get_session_options()
    try:
        return _EXACT if options.get_session_config_entry(_ENTRY) == "1" else _KERNELS
    except RuntimeError:  # raised by onnxruntime for an entry that is not set
        return _KERNELS


def kernels_saturate(instructions: Collection[str], quantization: Mapping[str, Any] | None) -> bool:
    """Return True if a core's integer kernels saturate on the weights of a model file.

    Args:
        instructions: instruction sets of the core (`kdedge_runtime.devices.detection.MachineInfo.instructions`).
        quantization: quantization section of the metadata; None for an fp32 file.
    """
    eight_bits = quantization is not None and not quantization.get("reduce_range", True)
    return eight_bits and "avx2" in instructions and "vnni" not in instructions
