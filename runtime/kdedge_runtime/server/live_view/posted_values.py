"""Values of posted JSON objects, checked."""

from kdedge_runtime.drawing.heatmap import Box
from kdedge_runtime.errors import UsageError
from kdedge_runtime.server.live_view.controls import is_share

__all__ = ["optional_box", "optional_text", "whole_number"]


def whole_number(value: object) -> int:
    """Return the serial number of a frame.

    Raises:
        UsageError: the value is not an integer.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError("Expected serial: NUMBER of a shown frame.")
    return value


def optional_text(key: str, value: object) -> str | None:
    """Return a text, or None without one.

    Raises:
        UsageError: the value is of another type.
    """
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"Expected {key}: TEXT.")


def optional_box(value: object) -> Box | None:
    """Return a box as fractions of the frame, or None without one.

    Raises:
        UsageError: the value is not a list of four fractions in [0, 1].
    """
    if value is None:
        return None
    numbers = [float(edge) for edge in value if is_share(edge)] if isinstance(value, list) else []
    if len(numbers) != 4:
        raise UsageError("Expected box: [left, top, right, bottom] as fractions of the frame, 0 to 1.")
    left, top, right, bottom = numbers
    return left, top, right, bottom
