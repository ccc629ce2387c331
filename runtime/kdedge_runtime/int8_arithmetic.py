"""Arithmetic of an int8 file: the integer kernels of a machine, or sums that no kernel saturates.

An x86 core with AVX2 and without VNNI adds pairs of 8-bit products in 16 bits, and large weights overflow there. No
other kernel does that. So a file is judged with exact sums, wherever it is judged, and timed with the kernels.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

import onnxruntime as ort

__all__ = ["Arithmetic", "arithmetic_of", "kernels_saturate", "sum_exactly"]

Arithmetic = Literal["exact sums", "machine kernels"]
"""`exact sums`: the quantized values of the file, multiplied and added in float32. `machine kernels`: whatever
onnxruntime takes on this machine."""
_EXACT: Arithmetic = "exact sums"
_KERNELS: Arithmetic = "machine kernels"
_ENTRY = "session.disable_quant_qdq"


def sum_exactly(options: ort.SessionOptions) -> None:
    """Keep onnxruntime from replacing quantized operations by integer kernels; float graphs compute as before.

    Args:
        options: of a session that is opened later.
    """
    options.add_session_config_entry(_ENTRY, "1")


def arithmetic_of(session: ort.InferenceSession) -> Arithmetic:
    """Return the arithmetic that a session's quantized operations are computed with."""
    options = session.get_session_options()
    try:
        return _EXACT if options.get_session_config_entry(_ENTRY) == "1" else _KERNELS
    except RuntimeError:  # onnxruntime's answer for an entry that nobody has set
        return _KERNELS


def kernels_saturate(instructions: Collection[str], quantization: Mapping[str, Any] | None) -> bool:
    """Return whether a core's integer kernels saturate on the weights of a file.

    Args:
        instructions: of the core (`kdedge_runtime.devices.Machine.instructions`).
        quantization: what the file's metadata states; None for a float file.
    """
    eight_bits = quantization is not None and not quantization.get("reduce_range", True)
    return eight_bits and "avx2" in instructions and "vnni" not in instructions
