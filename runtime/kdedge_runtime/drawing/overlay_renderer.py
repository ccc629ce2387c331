"""Overlay rendering for a run."""

from typing import TYPE_CHECKING

from kdedge_runtime.drawing.heat_scales import HeatScales
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.modalities.image_region import ImageRegion
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.arrays import Pixels

if TYPE_CHECKING:
    from kdedge_runtime.drawing.region_overlay import RegionDrawing

__all__ = ["OverlayRenderer"]


class OverlayRenderer:
    """Renders predictions as overlays, with a smoothed heat scale for video."""

    def __init__(self, spec: ImageInput, *, moving: bool, fps: float | None = None) -> None:
        """Create a renderer.

        Args:
            spec: input specification of the model, which determines the visible part of a frame.
            moving: True if frames follow one another in time. Their heat maps share a smoothed scale, and the caption
            shows the frame age.
            fps: frame rate of a recording that is not played in real time; None uses the capture times.
        """
        self._spec = spec
        self._moving = moving
        self._scales = HeatScales(moving=moving, fps=fps)

    def update_scale(self, prediction: Prediction) -> None:
        """Update the heat scale of every region, also for frames that are not drawn."""
        self._scales.update(prediction)

    def render(self, prediction: Prediction, opacity: float) -> Pixels:
        """Return the frame with heat maps and captions, uint8 RGB. `opacity` applies at full heat, in [0, 1]."""
        # Imported on demand, because runs without overlays need no fonts.
        if prediction.region is not None:
            from kdedge_runtime.drawing.region_overlay import draw_region_overlay

            regions = [self._region(each) for each in prediction.by_region]
            return draw_region_overlay(prediction.frame.sample, regions, opacity)
        from kdedge_runtime.drawing.overlay import draw_overlay
        from kdedge_runtime.drawing.prediction_caption import caption_of

        rgb = prediction.frame.sample
        box = self._spec.visible_box(*rgb.shape[:2])
        heat, caption = self._scales.heat(prediction), caption_of(prediction, moving=self._moving)
        return draw_overlay(rgb, heat, box, caption, opacity=opacity, shift=prediction.display.shift)

    def _region(self, prediction: Prediction) -> "RegionDrawing":
        from kdedge_runtime.drawing.prediction_caption import caption_of
        from kdedge_runtime.drawing.region_overlay import RegionDrawing

        region = prediction.region
        assert isinstance(region, ImageRegion)
        left, top, right, bottom = box = region.box(*prediction.frame.sample.shape[:2])
        return RegionDrawing(
            box=box,
            heat=self._scales.heat(prediction),
            visible=self._spec.visible_box(bottom - top, right - left),
            caption=caption_of(prediction, moving=self._moving),
            shift=prediction.display.shift,
        )
