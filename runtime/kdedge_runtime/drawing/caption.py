"""Captions on images: label, score and details, legible on any background and at any size."""

from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw

from kdedge_runtime.drawing.fonts import find_font, load_font

__all__ = ["Caption", "append_caption", "draw_caption", "draw_region_caption"]

_PLATE = (12, 12, 18, 184)
_BRIGHT = (255, 255, 255, 255)
_SOFT = (214, 214, 226, 255)
_TRACK = (255, 255, 255, 56)
_FILL = (255, 152, 56, 255)
_MIN_PX = 9
_ASCENT = 0.84
_WIDEST_SCORE = "   100%"
_REGION_SCALE = 0.75
"""Font size of the caption of a region, relative to that of the image."""
_MAX_CHARACTERS = 200
"""Maximum number of characters in a line: longer text does not fit, and layout time grows with its length."""


@dataclass(frozen=True)
class Caption:
    """Caption text of an image."""

    label: str
    score: str
    """Score of `label` with its unit, such as `93%`; empty for none."""
    share: float | None = None
    """Score as a fraction of its range, in [0, 1], shown as a bar; None for no bar."""
    details: tuple[str, ...] = ()
    """Smaller lines below the label."""


def draw_caption(image: Image.Image, caption: Caption) -> None:
    """Draw a caption on a dark plate in the lower left corner of an RGB image, in place.

    The font size is 1/17 of the shorter image side. Text that is too wide is shrunk first, then truncated with an
    ellipsis.
    """
    size = _type_size(image)
    margin = max(2, size // 2)
    block = _Block(caption, size, image.width - 4 * margin)
    left, top = margin, image.height - 3 * margin - block.height
    _draw_plate(image, block, left, top, size, margin)


def draw_region_caption(image: Image.Image, caption: Caption, region: tuple[int, int, int, int]) -> None:
    """Draw the caption of a region of an RGB image, in place.

    A region with room has its caption in its lower left corner. Others have it below, or else above. The font is
    smaller than that of `draw_caption`.

    Args:
        image: the image.
        caption: caption of the region.
        region: left, top, right and bottom in pixels.
    """
    size = max(_MIN_PX, round(_type_size(image) * _REGION_SCALE))
    margin = max(2, size // 3)
    block = _Block(caption, size, image.width - 2 * margin)
    width, height = block.width + 2 * margin, block.height + 2 * margin
    left, top, right, bottom = region
    if right - left >= width + 2 * margin and bottom - top >= 2 * height:
        x, y = left + margin, bottom - margin - height
    elif bottom + height <= image.height:
        x, y = left, bottom
    else:
        x, y = left, max(0, top - height if top >= height else image.height - height)
    _draw_plate(image, block, max(0, min(x, image.width - width)), y, size, margin)


def _draw_plate(image: Image.Image, block: "_Block", left: int, top: int, size: int, margin: int) -> None:
    draw = ImageDraw.Draw(image, "RGBA")
    corner = (left + block.width + 2 * margin, top + block.height + 2 * margin)
    draw.rounded_rectangle((left, top, *corner), size // 3, fill=_PLATE)
    block.draw(draw, left + margin, top + margin)


def append_caption(image: Image.Image, caption: Caption) -> Image.Image:
    """Return the image on a dark background with the caption below it, so that no part is covered."""
    size = _type_size(image)
    margin = max(2, size // 2)
    block = _Block(caption, size, image.width - 2 * margin)
    page = Image.new("RGB", (image.width, image.height + block.height + 3 * margin), _PLATE[:3])
    page.paste(image, (0, 0))
    block.draw(ImageDraw.Draw(page, "RGBA"), margin, image.height + margin)
    return page


class _Block:
    """Caption layout: measured first, then drawn."""

    def __init__(self, caption: Caption, size: int, room: int) -> None:
        # The width of 100% for every probability, so that the plate keeps its size in a video.
        widest = max(_WIDEST_SCORE, f"   {caption.score}", key=len)
        self.size, self.label = _fitted(caption.label, widest, size, room)
        self.small = max(_MIN_PX, round(self.size * 0.66))
        self.details = [_fitted(text, "", self.small, room)[1] for text in caption.details]
        self.score, self.share = caption.score, caption.share
        self.bar, self.gap = 0 if self.share is None else max(2, self.size // 6), max(2, self.size // 4)
        self.width = max(
            _width(self.label + widest, self.size), *[_width(text, self.small) for text in self.details], 1
        )
        self.height = self.size + self.gap + self.bar + len(self.details) * (self.gap + self.small)

    def draw(self, draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
        # Baseline anchors, so that lines with and without descenders align.
        baseline = y + round(self.size * _ASCENT)
        type_ = load_font(find_font(self.label), self.size)
        draw.text((x, baseline), self.label, _BRIGHT, font=type_, anchor="ls")
        draw.text((x + self.width, baseline), self.score, _BRIGHT, font=type_, anchor="rs")
        y += self.size + self.gap
        filled = round(self.width * (self.share or 0.0))
        if self.bar:
            draw.rectangle((x, y, x + self.width - 1, y + self.bar - 1), fill=_TRACK)
        if filled:
            draw.rectangle((x, y, x + filled - 1, y + self.bar - 1), fill=_FILL)
        y += self.bar
        for text in self.details:
            y += self.gap
            type_ = load_font(find_font(text), self.small)
            draw.text((x, y + round(self.small * _ASCENT)), text, _SOFT, font=type_, anchor="ls")
            y += self.small


def _type_size(image: Image.Image) -> int:
    return max(_MIN_PX, round(min(image.size) / 17))


@lru_cache(maxsize=256)
def _width(text: str, size: int) -> int:
    return round(load_font(find_font(text), size).getlength(text))


@lru_cache(maxsize=256)
def _fitted(text: str, rest: str, size: int, room: int) -> tuple[int, str]:
    """Return the font size and text at which `text` and `rest` fit into `room` pixels. Only `text` may be truncated."""
    text = text[:_MAX_CHARACTERS]
    while size > _MIN_PX and _width(text + rest, size) > room:
        size -= 1
    wording = text
    while text and _width(wording + rest, size) > room:
        text = text[:-1]
        wording = text.rstrip() + "…"
    return size, wording
