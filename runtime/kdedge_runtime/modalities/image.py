"""Images: uint8 RGB, resized to a fixed input size."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from PIL import Image

from kdedge_runtime.errors import SourceError, UnreadableSample, UsageError
from kdedge_runtime.modalities.image_region import ImageRegion, parse_image_regions
from kdedge_runtime.modalities.input_spec import BrowserSensor, InputSpec, Region, Renderer
from kdedge_runtime.util.arrays import Floats, Integers, Pixels

if TYPE_CHECKING:
    from kdedge_runtime.drawing.heatmap import HeatStats
    from kdedge_runtime.prediction import Prediction
    from kdedge_runtime.sources.source import Source

__all__ = ["ImageInput", "Interpolation", "Resize", "require_image"]

Resize = Literal["crop", "squash", "letterbox"]
Interpolation = Literal["bilinear", "bicubic"]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_MAX_SIDE_PX = 8192
_JPEG_QUALITY = 92
_OTHER_SUFFIXES = (".json", ".onnx", ".txt", ".zip")
_MIN_VISIBLE = 0.5
"""Share of a region below which a warning names it."""


@dataclass(frozen=True)
class ImageInput(InputSpec):
    """Image input specification: size, normalization and resizing.

    The graph takes uint8 RGB `[N, height, width, 3]` in [0, 255] and normalizes it. The caller resizes with
    `preprocess`. `resize="crop"` scales the shorter side to `size / crop_fraction` and crops the center. `"squash"`
    ignores the aspect ratio. `"letterbox"` scales the longer side and pads with black on both sides.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    """Channel means (RGB) of pixel values scaled to [0, 1]; applied inside the graph."""
    std: tuple[float, float, float]
    resize: Resize = "crop"
    crop_fraction: float = 1.0
    """Share of the scaled shorter side kept by the center crop, in (0, 1]. Used only by `resize="crop"`."""
    interpolation: Interpolation = "bilinear"
    name: str = "image"
    kind: Literal["image"] = "image"

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        return self.height, self.width, 3

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of pixels, uint8."""
        return np.dtype(np.uint8)

    @property
    def summary(self) -> str:
        """Width and height in pixels, such as `224 × 224 px`."""
        return f"{self.width} × {self.height} px"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Parse the metadata of a model file; see `InputSpec`."""
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        spec = cls(**known | {"mean": tuple(values["mean"]), "std": tuple(values["std"])})
        sizes_are_sound = all(isinstance(side, int) and 0 < side <= _MAX_SIDE_PX for side in (spec.height, spec.width))
        channels_are_sound = len(spec.mean) == len(spec.std) == 3 and all(map(math.isfinite, (*spec.mean, *spec.std)))
        if not sizes_are_sound or not channels_are_sound or not 0 < spec.crop_fraction <= 1:
            raise ValueError(f"invalid input {dict(values)}")
        if not isinstance(spec.name, str):
            raise TypeError(f"expected str, got {type(spec.name).__name__}")
        if spec.resize not in get_args(Resize) or spec.interpolation not in get_args(Interpolation):
            raise ValueError(f"unknown resize rule {spec.resize!r} or interpolation {spec.interpolation!r}")
        return spec

    def visible_box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return the visible part of a `height` × `width` image as `(left, top, right, bottom)` in pixels.

        A letterbox extends beyond the image, into its black borders.
        """
        if self.resize == "squash":
            return 0.0, 0.0, float(width), float(height)
        if self.resize == "letterbox":
            inner_height, inner_width = self._inner_size(height, width)
            across, down = width / inner_width, height / inner_height
            left, top = -((self.width - inner_width) // 2) * across, -((self.height - inner_height) // 2) * down
            return left, top, left + self.width * across, top + self.height * down
        scale = min(height / self.height, width / self.width) * self.crop_fraction
        # Rounding may place the side slightly beyond the edge, which Pillow rejects.
        seen_height, seen_width = min(self.height * scale, height), min(self.width * scale, width)
        left, top = (width - seen_width) / 2, (height - seen_height) / 2
        return left, top, left + seen_width, top + seen_height

    def preprocess(self, sample: Pixels) -> Pixels:
        """Resize an image to the input size.

        Crop and resize are one antialiased resampling step.

        Args:
            sample: uint8 RGB `[H, W, 3]` of any size.

        Returns:
            uint8 RGB `[self.height, self.width, 3]`.

        Raises:
            UnreadableSample: the array is no image.
        """
        if sample.dtype != np.uint8 or sample.ndim != 3 or sample.shape[2] != 3 or not sample.size:
            raise UnreadableSample(
                f"An image has the shape {sample.shape} and the type {sample.dtype}. Expected uint8 RGB [H, W, 3].",
                "wrong shape",
            )
        height, width = sample.shape[:2]
        fits = (height, width) == (self.height, self.width)
        if fits and (self.resize != "crop" or self.crop_fraction == 1.0):
            return sample
        if self.resize == "letterbox":
            inner_height, inner_width = self._inner_size(height, width)
            whole = 0.0, 0.0, float(width), float(height)
            inner = _resampled(sample, inner_height, inner_width, whole, self.interpolation)
            left, top = (self.width - inner_width) // 2, (self.height - inner_height) // 2
            boxed = np.zeros(self.shape, dtype=np.uint8)
            boxed[top : top + inner_height, left : left + inner_width] = inner
            return boxed
        return _resampled(sample, self.height, self.width, self.visible_box(height, width), self.interpolation)

    @property
    def preprocessing_id(self) -> str:
        """Size and resizing rule; normalization is part of the graph."""
        return f"{(self.height, self.width)} {self.resize} {self.crop_fraction} {self.interpolation}"

    def reference_sample(self, seed: int) -> Pixels:
        """Generate an image of colored squares; see `kdedge_runtime.drawing.reference_image`."""
        from kdedge_runtime.drawing.reference_image import draw_reference_image

        return draw_reference_image(seed, self.height, self.width)

    def map_stats(self, saliency_map: Floats, sample: Pixels, shift: tuple[float, float]) -> "HeatStats":
        """Compute the statistics of a map in frame coordinates; see `InputSpec`."""
        from kdedge_runtime.drawing.heatmap import heat_stats

        height, width = sample.shape[:2]
        return heat_stats(saliency_map, self.visible_box(height, width), height, width, shift)

    def renderer(self, *, moving: bool, fps: float | None) -> Renderer:
        """Create a renderer of overlays; see `InputSpec`."""
        from kdedge_runtime.drawing.overlay_renderer import OverlayRenderer

        return OverlayRenderer(self, moving=moving, fps=fps)

    def draw_explanation(self, prediction: "Prediction", opacity: float) -> Pixels:
        """Draw an image next to its overlay; see `draw_image_explanation`."""
        from kdedge_runtime.drawing.image_explanation import draw_image_explanation

        return draw_image_explanation(self, prediction, opacity)

    def check_sample_file(self, path: Path) -> None:
        """Raise for a table, a recording or a model; see `InputSpec`."""
        from kdedge_runtime.util.sounds import SOUND_SUFFIXES
        from kdedge_runtime.util.table_rows import TABLE_SUFFIXES

        if path.is_file() and path.suffix.lower() in (*TABLE_SUFFIXES, *SOUND_SUFFIXES, *_OTHER_SUFFIXES):
            raise SourceError(f"{path} has no images, which the model takes. Expected images, or a folder of them.")

    def draw_sample(self, sample: Pixels) -> Pixels:
        """Return the image itself."""
        return sample

    @property
    def sample_suffix(self) -> str:
        """Suffix of JPEG files."""
        return ".jpg"

    @property
    def has_boxes(self) -> bool:
        """True: objects have a place in an image."""
        return True

    def encode_sample(self, sample: Pixels) -> bytes:
        """Encode an image as JPEG."""
        from kdedge_runtime.util.images import encode_jpeg

        return encode_jpeg(sample, _JPEG_QUALITY)

    @property
    def mask_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    def mask(self, sample: Pixels, keep: Floats, fill: Pixels | None = None) -> Pixels:
        """Paint hidden pixels in the mean color, which normalizes to zero, or as in `fill`; see `InputSpec`."""
        color = np.rint(255 * np.array(self.mean)).astype(np.uint8) if fill is None else fill
        hidden = np.broadcast_to(color, sample.shape).astype(np.float32)
        blended = hidden + keep[..., None].astype(np.float32) * (sample.astype(np.float32) - hidden)
        return np.rint(blended).astype(np.uint8)

    def segments(self, sample: Pixels, count: int) -> Integers:
        """Segment an image into superpixels; see `kdedge_runtime.explainers.superpixels`."""
        from kdedge_runtime.explainers.superpixels import superpixels

        return superpixels(sample, count)

    @classmethod
    def parse_regions(cls, texts: Sequence[str]) -> tuple[ImageRegion, ...]:
        """Parse rectangles; see `kdedge_runtime.modalities.image_region`."""
        return parse_image_regions(texts)

    def region_warnings(self, regions: Sequence[Region], sample: Pixels) -> tuple[str, ...]:
        """Name regions that lose more than half to the center crop; see `InputSpec`."""
        return tuple(
            f"The model receives only the center {round(right - left)} × {round(bottom - top)} px of the region "
            f"{region.name} ({part.shape[1]} × {part.shape[0]} px), as with images in training. Choose a region whose "
            f"sides are as {self.width} to {self.height}."
            for region in regions
            for part in [region.cut(sample)]
            for left, top, right, bottom in [self.visible_box(*part.shape[:2])]
            if (right - left) * (bottom - top) < _MIN_VISIBLE * part.shape[0] * part.shape[1]
        )

    @property
    def browser_sensor(self) -> BrowserSensor:
        """Camera."""
        return "camera"

    @property
    def example_source(self) -> str:
        """First camera; see `InputSpec`."""
        return "0"

    def open_source(
        self,
        uri: str,
        frames: Literal["all", "latest"] | None = None,
        stop: threading.Event | None = None,
        *,
        loop: bool = False,
        hop_s: float | None = None,
    ) -> "Source":
        """Create a camera, video or image source; see `kdedge_runtime.sources`.

        Raises:
            UsageError: an interval of windows is given, or the source is not valid.
            SourceError: the file is a table, a recording or a model.
        """
        from kdedge_runtime.sources import open_source

        if hop_s is not None:
            raise UsageError("--hop sets the interval of windows, but images have none. Remove --hop.")
        self.check_sample_file(Path(uri))
        return open_source(uri, frames, stop, loop=loop)

    def _inner_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of an image inside its letterbox, in pixels."""
        scale = min(self.height / height, self.width / width)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def require_image(spec: InputSpec, name: object) -> ImageInput:
    """Return the input of an image model.

    Args:
        spec: input of a model.
        name: name of the model in the error.

    Raises:
        UsageError: the model takes other samples.
    """
    if not isinstance(spec, ImageInput):
        raise UsageError(f"{name} takes no images but {spec.kind} samples. Expected an image model.")
    return spec


def _resampled(
    image: Pixels, to_height: int, to_width: int, box: tuple[float, float, float, float], interpolation: Interpolation
) -> Pixels:
    """Crop a box from an image and resize it, horizontally first and then vertically.

    Each pass rounds to 8 bits. Pillow 13 starts vertically for tall images and earlier versions never do, so both
    passes are explicit. The browser code uses the same order.
    """
    height = image.shape[0]
    left, top, right, bottom = box
    kind = _FILTERS[interpolation]
    across = Image.fromarray(image).resize((to_width, height), kind, box=(left, 0, right, height))
    return np.asarray(across.resize((to_width, to_height), kind, box=(0, top, to_width, bottom)))
