"""Waterfall of a row: the contribution of each column to the score, from the average row to this one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from kdedge_runtime.drawing.fonts import Font, find_font, load_font
from kdedge_runtime.util.arrays import Floats, Pixels
from kdedge_runtime.util.counts import counted

if TYPE_CHECKING:
    from kdedge_runtime.modalities.tabular import TabularInput
    from kdedge_runtime.prediction import Prediction

__all__ = ["Bar", "WaterfallRenderer", "bars_of", "columns_of", "draw_prediction", "draw_row", "draw_waterfall"]

_BARS = 12
"""Maximum number of bars; the last one sums up the remaining columns."""
_ROWS = 40
"""Maximum number of columns of a row that is drawn without a map."""
_WIDTH, _LINE, _SIZE = 640, 26, 15
_NAMES = 0.58
"""Share of the width for names and values."""
_ROOM = 3 * _SIZE
"""Minimum width in pixels beside the bars for their numbers, so that most waterfalls have the same scale."""
_GAP = 4
"""Distance of a number from its bar in pixels."""
_PAGE, _TEXT, _SOFT, _RULE = (18, 18, 24), (238, 238, 244), (176, 176, 190), (70, 70, 84)
_FOR, _AGAINST = (255, 152, 56), (86, 156, 255)
"""Colors of contributions for and against the explained output; they differ in lightness, too."""
_MAX_CHARACTERS = 80


@dataclass(frozen=True)
class Bar:
    """Contribution of a column, or of several."""

    title: str
    value: str
    """Value of the column as text; empty for several columns."""
    contribution: float


class WaterfallRenderer:
    """Renderer of the predictions of rows."""

    def __init__(self, spec: "TabularInput") -> None:
        self._spec = spec

    def update_scale(self, prediction: "Prediction") -> None:
        """Do nothing: each waterfall has its own scale."""

    def render(self, prediction: "Prediction", opacity: float) -> Pixels:
        """Return the waterfall of a row with its prediction; without a map the row with its values."""
        head = prediction.nearest_text if prediction.unknown else f"{prediction.label} {prediction.score_text}"
        if prediction.unknown:
            head = f"{prediction.answer} · {head}"
        return draw_prediction(self._spec, prediction, head)


def draw_prediction(spec: "TabularInput", prediction: "Prediction", head: str = "") -> Pixels:
    """Draw the waterfall of a row, uint8 RGB; without a map the row with its values. No line above without `head`."""
    values = spec.preprocess(prediction.sample)
    if prediction.saliency_map is None:
        return draw_row(spec, values, head)
    detail = f"contributions to {prediction.explained}, from the average row"
    return draw_waterfall(bars_of(spec, values, prediction.saliency_map[0]), head, detail)


def bars_of(spec: "TabularInput", values: Floats, contributions: Floats, most: int = _BARS) -> tuple[Bar, ...]:
    """Return the bars of a row, largest contribution first.

    Args:
        spec: input with the columns.
        values: preprocessed row, float32 `[columns]`.
        contributions: contribution of each column, `[columns]`; values that are not finite count as zero.
        most: maximum number of bars, at least 1; the last one sums up the remaining columns.

    Raises:
        ValueError: the number is below 1.
    """
    finite = _finite(contributions)
    shown = _strongest(finite, most)
    bars = [
        Bar(spec.features[place].title, spec.features[place].text_of(float(values[place])), float(finite[place]))
        for place in shown
    ]
    rest = np.delete(finite, shown)
    if len(rest):
        bars.append(Bar(counted(len(rest), "other column"), "", float(rest.sum())))
    return tuple(bars)


def columns_of(maps: Sequence[Floats], most: int = _BARS) -> list[int]:
    """Return the places of the columns that have bars of their own in the waterfalls of a row, in ascending order.

    Args:
        maps: contributions of each waterfall, `[columns]`.
        most: maximum number of bars of each waterfall; see `bars_of`.

    Raises:
        ValueError: the number is below 1.
    """
    return sorted({place for contributions in maps for place in _strongest(_finite(contributions), most)})


def _finite(contributions: Floats) -> Floats:
    return np.nan_to_num(contributions, nan=0.0, posinf=0.0, neginf=0.0)


def _strongest(contributions: Floats, most: int) -> list[int]:
    """Return the places of the bars, largest contribution first, without the bar that sums up the others."""
    if most < 1:
        raise ValueError(f"The maximum of {most} bars is not supported. Expected at least 1.")
    order: list[int] = np.argsort(-np.abs(contributions), kind="stable").tolist()
    return order if len(order) <= most else order[: most - 1]


def draw_waterfall(bars: Sequence[Bar], head: str = "", detail: str = "") -> Pixels:
    """Draw bars that start where the previous one ends, uint8 RGB.

    The number of a bar is beside its end, on the other side if the axis would cross it.

    Args:
        bars: contributions in the order of drawing.
        head: text above the bars; no line without it.
        detail: smaller text below `head`; no line without it.
    """
    ends = np.cumsum([0.0, *(bar.contribution for bar in bars)])
    low, high = float(ends.min()), float(ends.max())
    reach = max(high - low, 1e-9)
    lines = [
        (text, color, size) for text, color, size in ((head, _TEXT, _SIZE + 3), (detail, _SOFT, _SIZE - 2)) if text
    ]
    top = len(lines) * _LINE
    image = Image.new("RGB", (_WIDTH, top + (len(bars) + 1) * _LINE), _PAGE)
    draw = ImageDraw.Draw(image)
    names = round(_NAMES * _WIDTH)
    numbers = [_signed(bar.contribution) for bar in bars]
    room = max([_ROOM, *(2 * _GAP + _text_width(number, _SIZE - 3) for number in numbers)])
    left, right = names + room, _WIDTH - room
    for line, (text, color, size) in enumerate(lines):
        _text(draw, (_SIZE, line * _LINE), text, color, size, _WIDTH - 2 * _SIZE)

    def x_of(value: float) -> int:
        return left + round((value - low) / reach * (right - left))

    axis = x_of(0.0)
    draw.line((axis, top, axis, top + len(bars) * _LINE), fill=_RULE)
    for bar, number, start, end in zip(bars, numbers, ends, ends[1:], strict=False):
        _row(draw, top, bar.title, bar.value, names - _SIZE)
        x, to = sorted((x_of(float(start)), x_of(float(end))))
        to = max(x + 1, to)
        draw.rectangle((x, top + 5, to, top + _LINE - 6), fill=_FOR if bar.contribution > 0 else _AGAINST)
        reach_px = _GAP + _text_width(number, _SIZE - 3)
        crosses_left, crosses_right = x - reach_px <= axis < x, to < axis <= to + reach_px
        is_left = not crosses_left and (bar.contribution < 0 or crosses_right)
        place, anchor = (x - _GAP, "r") if is_left else (to + _GAP, "l")
        _text(draw, (place, top), number, _SOFT, _SIZE - 3, room, anchor)
        top += _LINE
    _text(draw, (_SIZE, top), f"sum {_signed(ends[-1])}", _SOFT, _SIZE - 2, _WIDTH - 2 * _SIZE)
    return np.asarray(image)


def _signed(contribution: float) -> str:
    """Format a contribution with its sign, in at most ten characters below a billion."""
    digits = 0 if abs(contribution) >= 1e3 else 1 if abs(contribution) >= 1e2 else 2
    return f"{contribution:+,.{digits}f}" if abs(contribution) < 1e8 else f"{contribution:+.2g}"


def draw_row(spec: "TabularInput", values: Floats, head: str = "", places: Sequence[int] | None = None) -> Pixels:
    """Draw columns of a preprocessed row with their values, uint8 RGB.

    Args:
        spec: input with the columns.
        values: preprocessed row, float32 `[columns]`.
        head: text above the columns; no line without it.
        places: places of the columns; None for all, up to 40.
    """
    shown = range(len(spec.features))[:_ROWS] if places is None else places
    top = _LINE if head else 0
    image = Image.new("RGB", (_WIDTH, top + (len(shown) + 1) * _LINE), _PAGE)
    draw = ImageDraw.Draw(image)
    _text(draw, (_SIZE, 0), head, _TEXT, _SIZE + 3, _WIDTH - 2 * _SIZE)
    for line, place in enumerate(shown):
        column = spec.features[place]
        _row(draw, top + line * _LINE, column.title, column.text_of(float(values[place])), _WIDTH - _SIZE)
    left_out = len(spec.features) - len(shown)
    if left_out:
        _text(draw, (_SIZE, top + len(shown) * _LINE), counted(left_out, "other column"), _SOFT, _SIZE - 2, _WIDTH)
    return np.asarray(image)


def _row(draw: ImageDraw.ImageDraw, top: int, title: str, value: str, right: int) -> None:
    """Draw a title on the left and its value at the right edge; the value has at most half of the room."""
    half = right // 2
    used = _text(draw, (right, top), value, _TEXT, _SIZE - 1, half, anchor="r")
    _text(draw, (_SIZE, top), title.replace("_", " "), _SOFT, _SIZE - 1, right - used - 2 * _SIZE)


def _text(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    color: tuple[int, int, int],
    size: int,
    room: int,
    anchor: str = "l",
) -> int:
    """Draw a line of text, truncated to `room` pixels, and return its width."""
    shown = text[:_MAX_CHARACTERS]
    font = _font(shown, size)
    while shown and font.getlength(shown) > room:
        shown = shown.rstrip("…")[:-1].rstrip() + "…" if len(shown.rstrip("…")) > 1 else ""
    draw.text((place[0], place[1] + _LINE // 2), shown, color, font=font, anchor=f"{anchor}m")
    return round(font.getlength(shown))


def _text_width(text: str, size: int) -> int:
    return round(_font(text, size).getlength(text))


def _font(text: str, size: int) -> Font:
    return load_font(find_font(text), size)
