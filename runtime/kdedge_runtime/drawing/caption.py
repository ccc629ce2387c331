"""The words on a picture: label, probability and a line of detail, legible on any ground and at any size."""

from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw

from kdedge_runtime.drawing.fonts import font, typeface_of

__all__ = ["Caption", "draw_caption", "with_caption_below"]

_PLATE = (12, 12, 18, 184)
_BRIGHT = (255, 255, 255, 255)
_SOFT = (214, 214, 226, 255)
_TRACK = (255, 255, 255, 56)
_FILL = (255, 152, 56, 255)
_SMALLEST_PX = 9
_ASCENT = 0.84
_WIDEST_PERCENT = "   100 %"
_MOST_CHARACTERS = 200
"""Of a line; no picture is wide enough for more, and setting type takes time by its length."""


@dataclass(frozen=True)
class Caption:
    """What is written on a picture."""

    label: str
    probability: float
    """Of `label`, in [0, 1]; written in percent and drawn as a bar."""
    details: tuple[str, ...] = ()
    """Smaller lines below."""


def draw_caption(picture: Image.Image, caption: Caption) -> None:
    """Write a caption on a dark plate in the lower left corner of an RGB picture, in place.

    The type is 1/17 of the picture's shorter side; text that does not fit the width is made smaller, then cut
    with an ellipsis.
    """
    size = _type_size(picture)
    margin = max(2, size // 2)
    block = _Block(caption, size, picture.width - 4 * margin)
    left, top = margin, picture.height - 3 * margin - block.height
    draw = ImageDraw.Draw(picture, "RGBA")
    corner = (left + block.width + 2 * margin, picture.height - margin)
    draw.rounded_rectangle((left, top, *corner), size // 3, fill=_PLATE)
    block.draw(draw, left + margin, top + margin)


def with_caption_below(picture: Image.Image, caption: Caption) -> Image.Image:
    """The picture on a dark ground with the caption under it, so that no part is covered."""
    size = _type_size(picture)
    margin = max(2, size // 2)
    block = _Block(caption, size, picture.width - 2 * margin)
    page = Image.new("RGB", (picture.width, picture.height + block.height + 3 * margin), _PLATE[:3])
    page.paste(picture, (0, 0))
    block.draw(ImageDraw.Draw(page, "RGBA"), margin, picture.height + margin)
    return page


class _Block:
    """A caption set in type: measured, then drawn."""

    def __init__(self, caption: Caption, size: int, room: int) -> None:
        self.size, self.label = _fitted(caption.label, _WIDEST_PERCENT, size, room)
        self.small = max(_SMALLEST_PX, round(self.size * 0.66))
        self.details = [_fitted(text, "", self.small, room)[1] for text in caption.details]
        self.bar, self.gap = max(2, self.size // 6), max(2, self.size // 4)
        self.probability = min(max(caption.probability, 0.0), 1.0)
        # The width of 100 % whatever the probability, so that the plate of a video stands still.
        self.width = max(
            _width(self.label + _WIDEST_PERCENT, self.size), *[_width(text, self.small) for text in self.details], 1
        )
        self.height = self.size + self.gap + self.bar + len(self.details) * (self.gap + self.small)

    def draw(self, draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
        # Anchors at the baseline, so that lines with and without descenders stand evenly.
        baseline = y + round(self.size * _ASCENT)
        type_ = font(typeface_of(self.label), self.size)
        draw.text((x, baseline), self.label, _BRIGHT, font=type_, anchor="ls")
        percent = f"{self.probability * 100:.0f} %"
        draw.text((x + self.width, baseline), percent, _BRIGHT, font=type_, anchor="rs")
        y += self.size + self.gap
        draw.rectangle((x, y, x + self.width - 1, y + self.bar - 1), fill=_TRACK)
        filled = round(self.width * self.probability)
        if filled:
            draw.rectangle((x, y, x + filled - 1, y + self.bar - 1), fill=_FILL)
        y += self.bar
        for text in self.details:
            y += self.gap
            type_ = font(typeface_of(text), self.small)
            draw.text((x, y + round(self.small * _ASCENT)), text, _SOFT, font=type_, anchor="ls")
            y += self.small


def _type_size(picture: Image.Image) -> int:
    return max(_SMALLEST_PX, round(min(picture.size) / 17))


@lru_cache(maxsize=256)
def _width(text: str, size: int) -> int:
    return round(font(typeface_of(text), size).getlength(text))


@lru_cache(maxsize=256)
def _fitted(text: str, rest: str, size: int, room: int) -> tuple[int, str]:
    """The size and wording at which `text` and then `rest` fit into `room` pixels; only `text` may be cut."""
    text = text[:_MOST_CHARACTERS]
    while size > _SMALLEST_PX and _width(text + rest, size) > room:
        size -= 1
    wording = text
    while text and _width(wording + rest, size) > room:
        text = text[:-1]
        wording = text.rstrip() + "…"
    return size, wording
