"""Label placement for the points of a plot."""

from typing import TypeAlias

__all__ = ["Box", "free_place"]

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom in px."""

_CHARACTER, _LINE = 7.2, 15
"""Approximate mean width of a character and line height of bold 12 px text, in px."""
_GAPS = (9, 24, 40, 60)


def free_place(text: str, around: Box, taken: list[Box], room: Box) -> Box:
    """Return the label position next to a box with the least overlap.

    Args:
        text: Label, one line of bold 12 px text.
        around: Box of the labeled points.
        taken: Boxes to avoid; the returned box is appended.
        room: Outer limits for the label.
    """
    places = [place for gap in _GAPS for place in _beside(text, around, gap) if _inside(place, room)]
    best = min(
        places or list(_beside(text, around, _GAPS[0])), key=lambda place: sum(_overlap(place, b) for b in taken)
    )
    taken.append(best)
    return best


def _beside(text: str, around: Box, gap: float) -> list[Box]:
    """Return candidate boxes: right, left, above and below, then at the corners."""
    left, top, right, bottom = around
    width, middle = _CHARACTER * len(text), (top + bottom) / 2
    xs = ((left + right - width) / 2, right, left - width)
    centers = [(right + gap, middle), (left - gap - width, middle)]
    centers += [(x, y) for x in xs for y in (top - gap, bottom + gap)]
    return [(x, y - _LINE / 2, x + width, y + _LINE / 2) for x, y in centers]


def _inside(box: Box, room: Box) -> bool:
    return box[0] >= room[0] and box[1] >= room[1] and box[2] <= room[2] and box[3] <= room[3]


def _overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)
