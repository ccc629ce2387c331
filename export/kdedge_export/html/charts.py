"""Charts by matplotlib in the style of the pages, as SVG or PNG."""

import base64
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from matplotlib.ticker import ScalarFormatter
from PIL import Image, ImageFont

from kdedge_export.html.palette import PALETTE
from kdedge_export.html.thumbnails import jpeg_uri
from kdedge_runtime.drawing.fonts import find_font

__all__ = ["COLORS", "Chart", "chart_style", "font_families", "number_format"]

COLORS = {name: light for name, (light, _) in PALETTE.items()}
"""Colors of charts by name; a chart inside a page follows the page into dark mode."""

_NAMES = {light: name for name, light in COLORS.items()}
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
ElementTree.register_namespace("", _SVG[1:-1])
_SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML cannot hold."""
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 12,
    "text.color": COLORS["ink"],
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.labelcolor": COLORS["soft"],
    "axes.labelsize": 12,
    "axes.edgecolor": COLORS["line"],
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": COLORS["line"],
    "grid.linewidth": 1,
    "lines.linewidth": 2,
    "lines.scale_dashes": False,
    "xtick.color": COLORS["line"],
    "ytick.color": COLORS["line"],
    "xtick.labelcolor": COLORS["soft"],
    "ytick.labelcolor": COLORS["soft"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "figure.facecolor": COLORS["paper"],
    "figure.constrained_layout.h_pad": 6 / 72,
    "figure.dpi": 72,  # one unit of the SVG is one CSS pixel
    "svg.fonttype": "none",
    "image.interpolation": "none",
    "image.composite_image": False,
}


@contextmanager
def chart_style() -> Iterator[None]:
    """Apply the style to the charts drawn in this context."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A browser finds another font; a PNG shows a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


class Chart:
    """Figure with a label for screen readers, and with tooltips."""

    def __init__(
        self, width: float, height: float, label: str, *, layout: Literal["constrained"] | None = "constrained"
    ) -> None:
        """Create an empty figure of a size in CSS pixels, inside `chart_style`."""
        self.label = _printable(label)
        self.figure = Figure(figsize=(width / 72, height / 72), layout=layout)
        self._tags: dict[str, tuple[str, dict[str, str]]] = {}

    def axes(self, *position: int) -> Axes:
        """Add axes at a position of a grid, as (rows, columns, number); by default they fill the figure."""
        return self.figure.add_subplot(*position)

    def canvas(self) -> Axes:
        """Add axes over the whole figure whose coordinates are CSS pixels from the top left corner."""
        width, height = self.figure.bbox.size
        axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        axes.set_axis_off()
        return axes

    def tag(self, artist: Artist, tooltip: str = "", **attributes: str) -> None:
        """Give an artist a tooltip and SVG attributes; an underscore in a name becomes a hyphen."""
        name = f"tag-{len(self._tags)}"
        artist.set_gid(name)
        self._tags[name] = (
            _printable(tooltip),
            {key.strip("_").replace("_", "-"): value for key, value in attributes.items()},
        )

    @chart_style()
    def svg(self) -> Markup:
        """Render for a page: the colors are those of the page, and the width is the available one."""
        self.figure.patch.set_visible(False)
        root = self._rendered()
        for side in ("width", "height"):
            del root.attrib[side]
        root.set("class", "chart")
        for element in root.iter():
            element.tag = element.tag.removeprefix(_SVG)
            if "style" in element.attrib:
                element.set("style", re.sub(r"#[0-9a-f]{6}", _as_variable, element.attrib["style"]))
        return Markup(ElementTree.tostring(root, encoding="unicode"))

    @chart_style()
    def svg_file(self) -> str:
        """Render as a separate file, in light colors on a background."""
        root = self._rendered()
        root.attrib |= {side: root.attrib[side].removesuffix("pt") for side in ("width", "height")}
        return ElementTree.tostring(root, encoding="unicode") + "\n"

    @chart_style()
    def png(self) -> bytes:
        """Render at two pixels per CSS pixel, in light colors on a background."""
        self._clean()
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
        return buffer.getvalue()

    def _rendered(self) -> ElementTree.Element:
        self._clean()
        buffer = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": self.label}):
            self.figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
        root = ElementTree.fromstring(buffer.getvalue())
        root.attrib |= {"role": "img", "aria-label": self.label, "style": "stroke-linejoin: round"}
        for definitions in root.findall(f"{_SVG}defs[{_SVG}style]"):
            root.remove(definitions)  # it would style the whole page
        for element in list(root.iter()):
            if _XLINK + "href" in element.attrib:
                element.set("href", element.attrib.pop(_XLINK + "href"))
            if element.tag == _SVG + "image":
                element.set("href", _compressed(element.attrib["href"]))
            if "style" in element.attrib:
                element.set("style", element.attrib["style"].replace("'DejaVu Sans'", _SANS))
            self._attach(element)
        _drop_unused_names(root)
        return root

    def _clean(self) -> None:
        for text in self.figure.findobj(Text):
            assert isinstance(text, Text)
            text.set_text(_printable(text.get_text()))

    def _attach(self, element: ElementTree.Element) -> None:
        tooltip, attributes = self._tags.get(element.get("id", ""), ("", {}))
        element.attrib |= attributes
        if tooltip:
            title = ElementTree.Element(_SVG + "title")
            title.text = tooltip
            element.insert(0, title)


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text)


def number_format() -> ScalarFormatter:
    """Return a tick format without offsets and powers, with true minus signs."""
    formatter = ScalarFormatter(useOffset=False)
    formatter.set_scientific(False)
    return formatter


def font_families(text: str) -> list[str]:
    """Return the font families that cover a text in any script, as far as the system has them."""
    return _families(find_font(text))


@cache
def _families(typeface: str | None) -> list[str]:
    default: list[str] = _STYLE["font.family"]
    if typeface is None:
        return default
    fontManager.addfont(str(ImageFont.truetype(typeface, 10).path))
    return [*default, fontManager.ttflist[-1].name]


def _compressed(uri: str) -> str:
    """Encode an opaque image, which is a photograph, as JPEG; a map with transparent positions stays PNG."""
    encoded = "".join(uri.split(",", 1)[1].split())
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)), formats=["PNG"]).convert("RGBA"))
    return jpeg_uri(pixels[..., :3]) if (pixels[..., 3] == 255).all() else f"data:image/png;base64,{encoded}"


def _as_variable(color: re.Match[str]) -> str:
    name = _NAMES.get(color[0])
    return color[0] if name is None else f"var(--{name})"


def _drop_unused_names(root: ElementTree.Element) -> None:
    """Remove ids without a reference: they would occur twice in a page of several charts."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    for element in root.iter():
        if element.get("id") is not None and element.get("id") not in used:
            del element.attrib["id"]
