"""Rasterization of drawings: placement, antialiasing, outline and lighting."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from kdedge_export.scenes.backdrops import Color
from kdedge_export.scenes.icons import Part, Points
from kdedge_runtime.sources.synthetic import Mask
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["Palette", "Pose", "darker", "paint"]

_LINE = 0.07
"""Outline width in drawing units."""
_RIGHT = np.array((1.0, -1.0))


@dataclass(frozen=True)
class Pose:
    """Position and orientation of a drawing in an image."""

    x: float
    """Horizontal position of the drawing's origin, in pixels from the left."""
    y: float
    scale: float
    """Pixels per drawing unit."""
    angle: float
    """Clockwise rotation in radians."""
    flipped: bool = False
    """True if mirrored horizontally before the rotation."""

    def place(self, points: Points) -> Points:
        """Transform points from drawing units to image pixels."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([(cos, sin), (-sin, cos)]) * self.scale
        if self.flipped:
            turn[0] *= -1
        return points @ turn + (self.x, self.y)


@dataclass(frozen=True)
class Palette:
    """Colors and lighting of a drawing."""

    body: Color
    accent: Color
    outline: Color | None
    light_angle: float
    """Direction of the light in radians, clockwise from the right."""

    def of(self, paint: str) -> Color:
        """Return the color of a part."""
        if paint == "body":
            return self.body
        if paint == "accent":
            return self.accent
        if paint == "shade":
            return darker(self.body, 0.68)
        return (245, 245, 240) if paint == "light" else (38, 34, 40)


def paint(image: Pixels, parts: tuple[Part, ...], pose: Pose, palette: Palette) -> Mask:
    """Draw an object into an image, with antialiasing and lighting.

    Args:
        image: uint8 RGB `[H, W, 3]`, modified in place.
        parts: parts of the drawing.
        pose: placement; parts outside the image are clipped.
        palette: colors and lighting.

    Returns:
        bool `[H, W]`: pixels covered at least half by the object.
    """
    height, width = image.shape[:2]
    mask = np.zeros((height, width), dtype=bool)
    line_px = _LINE * pose.scale if palette.outline else 0.0
    shapes = [pose.place(part.points) for part in parts]
    solid = np.concatenate([points for points, part in zip(shapes, parts, strict=True) if part.is_solid])
    left, top = np.maximum(np.floor(solid.min(axis=0) - line_px - 1), 0).astype(int)
    right, bottom = np.minimum(np.ceil(solid.max(axis=0) + line_px + 1), (width, height)).astype(int)
    if left >= right or top >= bottom:
        return mask
    finer = 4 if pose.scale < 64 else 2
    shapes = [(points - (left, top)) * finer for points in shapes]
    size = (int(right - left) * finer, int(bottom - top) * finer)
    ink, silhouette = _fill(parts, shapes, palette, line_px * finer, size)
    coverage = silhouette.reduce(finer)
    lit = np.asarray(ink.reduce(finer)) * _light(coverage, pose.scale, palette.light_angle)[..., None]
    share = np.asarray(coverage)
    weight = share[..., None] * np.float32(1 / 255)
    crop = image[top:bottom, left:right]
    crop[:] = np.minimum(lit, 255) * weight + crop * (1 - weight) + np.float32(0.5)
    mask[top:bottom, left:right] = share >= 128
    return mask


def _fill(
    parts: tuple[Part, ...], shapes: list[Points], palette: Palette, line: float, size: tuple[int, int]
) -> tuple[Image.Image, Image.Image]:
    """Return ink (RGB) and silhouette (L). The ink extends beyond the silhouette, to avoid color bleeding."""
    edge = palette.outline or palette.body
    ink = Image.new("RGB", size, edge)
    silhouette = Image.new("L", size)
    drawing, cutting = ImageDraw.Draw(ink), ImageDraw.Draw(silhouette)
    for _, group in groupby(zip(parts, shapes, strict=True), key=lambda pair: pair[0].paint):
        alike = list(group)
        # All outlines of one paint precede its fills, so that touching pieces become one shape.
        for part, points in alike:
            if part.is_solid or part.paint == "hole":
                grown = _widened(points, line / 2 if part.is_solid else -line / 2).ravel().tolist()
                cutting.polygon(grown, fill=255 if part.is_solid else 0)
                drawing.polygon(grown if part.is_solid else points.ravel().tolist(), fill=edge)
        for part, points in alike:
            if part.paint != "hole":
                drawing.polygon(points.ravel().tolist(), fill=palette.of(part.paint))
    return ink, silhouette


def _widened(points: Points, distance: float) -> Points:
    """Offset the edges of a closed polygon outward. Corners stay sharp up to twice the distance."""
    edges = np.concatenate((points[1:], points[:1])) - points
    lengths = np.hypot(edges[:, 0], edges[:, 1])[:, None] + 1e-9
    normals = edges[:, ::-1] * _RIGHT / lengths
    area = (points[:, 0] * edges[:, 1] - points[:, 1] * edges[:, 0]).sum()
    miters = normals + np.concatenate((normals[-1:], normals[:-1]))
    # The miter m = a + b of unit normals reaches the offset corner at 2 m / |m|².
    reach = 2 / np.maximum((miters**2).sum(axis=1, keepdims=True), 1.0)
    widened: Points = points + miters * reach * (distance if area > 0 else -distance)
    return widened


def _light(coverage: Image.Image, scale: float, angle: float) -> Floats:
    """Return brightness factors `[h, w]` that make a flat silhouette appear rounded and lit from one side."""
    radius = max(1.0, 0.12 * scale)
    height = np.asarray(coverage.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32) * np.float32(radius / 255)
    slope = np.zeros_like(height)
    slope[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * np.float32(0.45 * np.cos(angle))
    slope[1:-1] += (height[2:] - height[:-2]) * np.float32(0.45 * np.sin(angle))
    factor: Floats = 1 - np.clip(slope, -0.3, 0.3)
    return factor


def darker(color: Color, share: float) -> Color:
    """Return the color at a share of its brightness."""
    red, green, blue = (round(value * share) for value in color)
    return red, green, blue
