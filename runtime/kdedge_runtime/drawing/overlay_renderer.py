"""Overlay rendering for a run."""

from collections import defaultdict
from typing import TYPE_CHECKING

from kdedge_runtime.drawing.heatmap import SmoothedScale, display_heat, peak
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.modalities.image_region import ImageRegion
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.arrays import Floats, Pixels

if TYPE_CHECKING:
    from kdedge_runtime.drawing.caption import Caption
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
        self._fps = fps
        self._scales: defaultdict[str | None, _Scale] = defaultdict(_Scale)

    def update_scale(self, prediction: Prediction) -> None:
        """Update the heat scale of every region, also for frames that are not drawn."""
        frame = prediction.frame
        at_s = frame.index / self._fps if self._fps else frame.captured_at
        for each in prediction.by_region:
            if each.saliency_map is not None:
                self._scales[each.region_name].update(peak(each.saliency_map), at_s, smooth=self._moving)

    def render(self, prediction: Prediction, opacity: float) -> Pixels:
        """Return the frame with heat maps and captions, uint8 RGB. `opacity` applies at full heat, in [0, 1]."""
        # Imported on demand, because runs without overlays need no fonts.
        if prediction.region is not None:
            from kdedge_runtime.drawing.region_overlay import draw_region_overlay

            regions = [self._region(each) for each in prediction.by_region]
            return draw_region_overlay(prediction.frame.sample, regions, opacity)
        from kdedge_runtime.drawing.overlay import draw_overlay

        rgb = prediction.frame.sample
        box = self._spec.visible_box(*rgb.shape[:2])
        caption = self._caption(prediction)
        return draw_overlay(rgb, self._heat(prediction), box, caption, opacity=opacity, shift=prediction.display.shift)

    def _region(self, prediction: Prediction) -> "RegionDrawing":
        from kdedge_runtime.drawing.region_overlay import RegionDrawing

        region = prediction.region
        assert isinstance(region, ImageRegion)
        left, top, right, bottom = box = region.box(*prediction.frame.sample.shape[:2])
        return RegionDrawing(
            box=box,
            heat=self._heat(prediction),
            visible=self._spec.visible_box(bottom - top, right - left),
            caption=self._caption(prediction),
            shift=prediction.display.shift,
        )

    def _heat(self, prediction: Prediction) -> Floats | None:
        if prediction.saliency_map is None:
            return None
        scale = self._scales[prediction.region_name].value
        return display_heat(prediction.saliency_map, scale, prediction.display.typical_contrast)

    def _caption(self, prediction: Prediction) -> "Caption":
        from kdedge_runtime.drawing.caption import Caption

        details = [prediction.nearest_text] if prediction.unknown else []
        if prediction.saliency_map is not None and prediction.explained != prediction.label:
            details.append(f"heat: {prediction.explained}")
        label = prediction.answer
        if prediction.region is not None:  # the frame age would be repeated in every region
            label = f"{prediction.region.name}: {label}"
        elif self._moving:
            details.append(f"{prediction.age_ms:.0f} ms old")
        # The score belongs to the nearest class, which is not the answer to an unknown sample.
        score, share = ("", None) if prediction.unknown else (prediction.score_text, prediction.share)
        return Caption(label, score, share, tuple(details))


class _Scale:
    """Display scale of the maps of one region."""

    def __init__(self) -> None:
        self.value = 0.0
        self._smoothed = SmoothedScale()
        self._updated_at_s = 0.0

    def update(self, strength: float, at_s: float, *, smooth: bool) -> None:
        """Update the scale with the maximum of a map at a time in seconds."""
        self.value = self._smoothed.update(strength, at_s - self._updated_at_s) if smooth else strength
        self._updated_at_s = at_s
