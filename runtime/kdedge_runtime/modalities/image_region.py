"""Named regions of an image, each predicted by itself: the values of `--crop`."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.arrays import Pixels

__all__ = ["ImageRegion", "parse_image_regions"]

_MAX_NAME_LENGTH = 60
_FORM = "[NAME=]X1,Y1,X2,Y2 (left, top, right, bottom), in whole pixels or as fractions from 0 to 1"


@dataclass(frozen=True)
class ImageRegion:
    """Rectangle of every image of a run."""

    name: str
    """Name in outputs, unique within a run."""
    edges: tuple[float, float, float, float]
    """Left, top, right and bottom edge; right and bottom are exclusive."""
    unit: Literal["fractions", "pixels"] = "fractions"
    """Unit of the edges: fractions of the image, or pixels."""

    @classmethod
    def parse(cls, text: str, default_name: str) -> "ImageRegion":
        """Parse `[NAME=]X1,Y1,X2,Y2`. Numbers from 0 to 1 are fractions; whole numbers with one above 1 are pixels.

        Args:
            text: text to parse.
            default_name: name of a region without one.

        Raises:
            UsageError: the text has another form, or the rectangle is empty, inverted or outside the image.
        """
        name, has_name, numbers = text.rpartition("=")
        name = name.strip() if has_name else default_name
        if not 0 < len(name) <= _MAX_NAME_LENGTH or not name.isprintable():
            raise UsageError(
                f"--crop {text}: the name needs 1 to {_MAX_NAME_LENGTH} printable characters. Expected {_FORM}."
            )
        edges = tuple(_number(part) for part in numbers.split(","))
        if len(edges) != 4 or not all(map(math.isfinite, edges)):
            raise UsageError(f"--crop {text} is not a region. Expected {_FORM}.")
        left, top, right, bottom = edges
        if min(edges) < 0:
            raise UsageError(f"--crop {text} is outside the image: {min(edges):g} is negative. Expected {_FORM}.")
        in_pixels = max(edges) > 1
        if in_pixels and any(edge != int(edge) for edge in edges):
            raise UsageError(
                f"--crop {text} mixes pixels and fractions, or exceeds the image. Expected {_FORM}, not both."
            )
        if not (left < right and top < bottom):
            raise UsageError(
                f"--crop {text} is empty or inverted. Expected X1 < X2 and Y1 < Y2, as in --crop door=0.1,0.2,0.5,0.8."
            )
        return cls(name, (left, top, right, bottom), "pixels" if in_pixels else "fractions")

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom in pixels of a `height` × `width` image, at least one pixel wide and high.

        Raises:
            UsageError: the region is given in pixels and exceeds the image.
        """
        left, top, right, bottom = self.edges
        if self.unit == "pixels":
            if right > width or bottom > height:
                raise UsageError(
                    f"--crop {self.name}={left:g},{top:g},{right:g},{bottom:g} exceeds the image of {width} × {height} "
                    f"px. Expected X2 <= {width} and Y2 <= {height}, or fractions from 0 to 1."
                )
            return int(left), int(top), int(right), int(bottom)
        x1, y1 = min(round(left * width), width - 1), min(round(top * height), height - 1)
        return x1, y1, max(round(right * width), x1 + 1), max(round(bottom * height), y1 + 1)

    def cut(self, sample: Pixels) -> Pixels:
        """Return the region of an image `[H, W, 3]` as a view of its pixels.

        Raises:
            UsageError: the region is given in pixels and exceeds the image.
        """
        left, top, right, bottom = self.box(*sample.shape[:2])
        return sample[top:bottom, left:right]


def parse_image_regions(texts: Sequence[str]) -> tuple[ImageRegion, ...]:
    """Parse the values of `--crop`. Regions without a name are numbered from `region-1`.

    Raises:
        UsageError: a value is not a valid region, or two regions have the same name.
    """
    regions = tuple(ImageRegion.parse(text, f"region-{number}") for number, text in enumerate(texts, 1))
    name, count = Counter(region.name for region in regions).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{count} regions have the name {name!r}. Expected a different NAME in each --crop NAME=….")
    return regions


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
