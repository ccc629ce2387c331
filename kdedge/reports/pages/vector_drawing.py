"""Drawing primitives for text and images, rendered as SVG or PNG."""

import base64
import io
from dataclasses import dataclass
from typing import Literal, TypeAlias

from PIL import Image, ImageDraw

from kdedge_export.html.text import escape
from kdedge_export.html.thumbnails import image_uri
from kdedge_runtime.drawing.fonts import Font, find_font, load_font
from kdedge_runtime.util.arrays import Pixels

__all__ = ["DrawnArrow", "DrawnMap", "Drawing", "Item", "DrawnImage", "DrawnText"]

Style: TypeAlias = Literal["title", "plain", "soft", "note", "small"]
_INK, _SOFT, _FAINT, _GROUND = "#17171c", "#666672", "#f1f1f3", "#fcfcfb"
_SIZES: dict[Style, int] = {"title": 14, "plain": 12, "soft": 12, "note": 11, "small": 10}
_INKED: set[Style] = {"title", "plain"}
_MARGIN, _SCALE, _TIP = 24, 2, 5
_STYLE = (
    f"text{{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--ink,{_INK})}}"
    f".decision .title{{font-size:14px;font-weight:640}}.decision :is(.soft,.note,.small){{fill:var(--soft,{_SOFT})}}"
    ".decision .note{font-size:11px;font-weight:400}.decision .small{font-size:10px}"
    f".decision .arrow{{fill:none;stroke:var(--soft,{_SOFT});stroke-width:1.5}}"
)
_SHARP = ' style="image-rendering:pixelated"'
_WITHOUT = str.maketrans({"×": "x", "−": "-", "’": "'", "∕": "/"})
"""Replacements for characters that Pillow's built-in font lacks. Names may still need a system font."""


@dataclass(frozen=True)
class DrawnText:
    """One line of text."""

    x: int
    y: int
    """Vertical position of the text baseline."""
    text: str
    style: Style = "plain"
    after: str = ""
    """Text that follows in the style of a note."""
    hint: str = ""
    """Tooltip text."""


@dataclass(frozen=True)
class DrawnImage:
    """Square image."""

    x: int
    y: int
    side: int
    pixels: Pixels
    """Image pixels, uint8 RGB `[h, w, 3]`."""


@dataclass(frozen=True)
class DrawnMap:
    """Square raster drawn with sharp pixel edges."""

    x: int
    y: int
    side: int
    positions: Pixels
    """Raster pixels, uint8 RGBA `[h, w, 4]`."""
    hint: str = ""


@dataclass(frozen=True)
class DrawnArrow:
    """Arrow that points to the right."""

    x: int
    y: int
    length: int


Item: TypeAlias = DrawnText | DrawnImage | DrawnMap | DrawnArrow


@dataclass(frozen=True)
class Drawing:
    """Figure of items, in drawing order."""

    width: int
    height: int
    label: str
    """Accessible label for screen readers."""
    items: tuple[Item, ...]

    def svg(self, *, standalone: bool) -> str:
        """Render as SVG with embedded images, in the colors of the surrounding page.

        Args:
            standalone: Add a margin and a background, for a file that is opened separately.
        """
        width, height = self.width + 2 * _MARGIN, self.height + 2 * _MARGIN
        ground = f'<rect x="-{_MARGIN}" y="-{_MARGIN}" width="{width}" height="{height}" fill="{_GROUND}"/>'
        box = f"-{_MARGIN} -{_MARGIN} {width} {height}" if standalone else f"0 0 {self.width} {self.height}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="decision" viewBox="{box}" role="img" '
            f'aria-label="{escape(self.label)}"><style>{_STYLE}</style>{ground if standalone else ""}'
            f"{''.join(map(_as_svg, self.items))}</svg>\n"
        )

    def png(self) -> bytes:
        """Render as PNG at two pixels per unit, on a light background."""
        size = tuple(_SCALE * (side + 2 * _MARGIN) for side in (self.width, self.height))
        canvas = Image.new("RGB", (size[0], size[1]), _GROUND)
        for item in self.items:
            _paint(canvas, item)
        buffer = io.BytesIO()
        canvas.save(buffer, "PNG")
        return buffer.getvalue()


def _as_svg(item: Item) -> str:
    match item:
        case DrawnText():
            hint = f"<title>{escape(item.hint)}</title>" if item.hint else ""
            after = f'<tspan class="note">{escape(item.after)}</tspan>' if item.after else ""
            return f'<text x="{item.x}" y="{item.y}" class="{item.style}">{hint}{escape(item.text)}{after}</text>'
        case DrawnImage():
            return _image(image_uri(item.pixels), item)
        case DrawnMap():
            buffer = io.BytesIO()
            Image.fromarray(item.positions, "RGBA").save(buffer, "PNG", optimize=True)
            uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
            return (
                f"<g><title>{escape(item.hint)}</title>"
                f'<rect x="{item.x}" y="{item.y}" width="{item.side}" height="{item.side}" rx="4" '
                f'fill="var(--faint,{_FAINT})"/>{_image(uri, item, _SHARP)}</g>'
            )
        case DrawnArrow():
            return f'<path class="arrow" d="M{item.x} {item.y}h{item.length}m-{_TIP} -4l{_TIP} 4l-{_TIP} 4"/>'


def _image(uri: str, item: DrawnImage | DrawnMap, style: str = "") -> str:
    return f'<image href="{uri}" x="{item.x}" y="{item.y}" width="{item.side}" height="{item.side}"{style}/>'


def _paint(canvas: Image.Image, item: Item) -> None:
    draw, x, y = ImageDraw.Draw(canvas), _SCALE * (item.x + _MARGIN), _SCALE * (item.y + _MARGIN)
    match item:
        case DrawnText():
            text, type_ = _set(item.text, item.style)
            is_bold = int(item.style == "title")
            draw.text((x, y), text, _INK if item.style in _INKED else _SOFT, type_, "ls", stroke_width=0.4 * is_bold)
            if item.after:
                after, small = _set(item.after, "note")
                draw.text((x + type_.getlength(text), y), after, _SOFT, small, "ls")
        case DrawnImage():
            side = _SCALE * item.side
            canvas.paste(Image.fromarray(item.pixels).resize((side, side), Image.Resampling.BICUBIC), (x, y))
        case DrawnMap():
            side = _SCALE * item.side
            draw.rounded_rectangle((x, y, x + side - 1, y + side - 1), 4 * _SCALE, fill=_FAINT)
            positions = Image.fromarray(item.positions, "RGBA").resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(positions, (x, y), positions)
        case DrawnArrow():
            end, tip = x + _SCALE * item.length, _SCALE * _TIP
            for line in (((x, y), (end, y)), ((end - tip, y - 8), (end, y), (end - tip, y + 8))):
                draw.line(line, fill=_SOFT, width=3, joint="curve")


def _set(text: str, style: Style) -> tuple[str, Font]:
    """Replace characters missing from Pillow's font, and return the text with a font that covers the rest."""
    plain = text.translate(_WITHOUT)
    return plain, load_font(find_font(plain), _SCALE * _SIZES[style])
