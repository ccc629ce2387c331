"""Overlay rendering for a run."""

from kdedge_runtime.drawing.heatmap import SmoothedScale, display_heat, peak
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.arrays import Pixels

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
        self._steady = SmoothedScale()
        self._scale = self._seen_at = 0.0

    def update_scale(self, prediction: Prediction) -> None:
        """Update the heat scale, also for frames that are not drawn."""
        if prediction.saliency_map is not None:
            strength, frame = peak(prediction.saliency_map), prediction.frame
            before, self._seen_at = self._seen_at, frame.index / self._fps if self._fps else frame.captured_at
            self._scale = self._steady.update(strength, self._seen_at - before) if self._moving else strength

    def render(self, prediction: Prediction, opacity: float) -> Pixels:
        """Return the frame with heat map and caption, uint8 RGB. `opacity` applies at full heat, in [0, 1]."""
        # Imported on demand, because runs without overlays need no fonts.
        from kdedge_runtime.drawing.caption import Caption
        from kdedge_runtime.drawing.overlay import draw_overlay

        rgb = prediction.frame.sample
        heat, display = None, prediction.display
        if prediction.saliency_map is not None:
            heat = display_heat(prediction.saliency_map, self._scale, display.typical_contrast)
        details = [] if heat is None or prediction.explained == prediction.label else [f"heat: {prediction.explained}"]
        if self._moving:
            details.append(f"{prediction.age_ms:.0f} ms old")
        caption = Caption(prediction.label, prediction.score_text, prediction.share, tuple(details))
        height, width = rgb.shape[:2]
        box = self._spec.visible_box(height, width)
        return draw_overlay(rgb, heat, box, caption, opacity=opacity, shift=display.shift)
