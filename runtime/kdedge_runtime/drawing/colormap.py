"""Color ramp of heat maps. Lightness rises evenly with the value, so that it also works in grayscale."""

import numpy as np

from kdedge_runtime.util.arrays import Pixels

__all__ = ["heat_ramp"]

# (position, lightness, chroma, hue in degrees) in OKLCh: violet, magenta, red, orange, pale yellow.
_ANCHORS = (
    (0.00, 0.35, 0.16, 292.0),
    (0.30, 0.49, 0.22, 335.0),
    (0.55, 0.63, 0.23, 382.0),
    (0.78, 0.77, 0.17, 420.0),
    (1.00, 0.94, 0.12, 465.0),
)


def heat_ramp() -> Pixels:
    """Return the color ramp as a table, uint8 RGB `[256, 3]`, from no heat to full heat.

    Colors are interpolated in OKLCh, the polar form of the perceptually uniform OKLab (Ottosson 2020,
    https://bottosson.github.io/posts/oklab).
    """
    position, lightness, chroma, hue = np.array(_ANCHORS).T
    heat = np.linspace(0.0, 1.0, 256)
    lightness, chroma, hue = (np.interp(heat, position, values) for values in (lightness, chroma, hue))
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_linear_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(to_linear_rgb @ cones**3, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    ramp: Pixels = np.round(encoded.T * 255).astype(np.uint8)
    return ramp
