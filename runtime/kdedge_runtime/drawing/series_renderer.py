"""Rendering of the predictions of a run on time series."""

from typing import TYPE_CHECKING

from kdedge_runtime.drawing.heatmap import SmoothedScale, display_heat, peak
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.arrays import Pixels

if TYPE_CHECKING:
    from kdedge_runtime.drawing.caption import Caption
    from kdedge_runtime.modalities.timeseries import TimeseriesInput

__all__ = ["SeriesRenderer"]


class SeriesRenderer:
    """Renders predictions as plots of the window, with heat behind each channel."""

    def __init__(self, spec: "TimeseriesInput", *, moving: bool) -> None:
        """Create a renderer.

        Args:
            spec: input of the model.
            moving: True for windows of one recording, whose maps share a smoothed scale.
        """
        self._spec = spec
        self._moving = moving
        self._smoothed = SmoothedScale()
        self._scale = 0.0
        self._updated_at_s = 0.0

    def update_scale(self, prediction: Prediction) -> None:
        """Update the heat scale, also for windows that are not drawn."""
        if prediction.saliency_map is None:
            return
        frame = prediction.frame
        at_s = frame.captured_at if frame.span_s is None else frame.span_s[1]
        strength = peak(prediction.saliency_map)
        self._scale = self._smoothed.update(strength, at_s - self._updated_at_s) if self._moving else strength
        self._updated_at_s = at_s

    def render(self, prediction: Prediction, opacity: float) -> Pixels:
        """Return the plot with heat and caption, uint8 RGB. `opacity` applies at full heat, in [0, 1]."""
        # Imported on demand, because runs without overlays need no fonts.
        from kdedge_runtime.drawing.series_plot import draw_series

        heat = None
        if prediction.saliency_map is not None:
            heat = display_heat(prediction.saliency_map, self._scale, prediction.display.typical_contrast)
        shift = prediction.display.shift
        return draw_series(
            prediction.frame.sample, self._spec, heat, self._caption(prediction), opacity=opacity, shift=shift
        )

    def _caption(self, prediction: Prediction) -> "Caption":
        from kdedge_runtime.drawing.caption import Caption

        details = [prediction.nearest_text] if prediction.unknown else []
        if prediction.saliency_map is not None and prediction.explained != prediction.label:
            details.append(f"heat: {prediction.explained}")
        if (span := prediction.frame.span_s) is not None:
            details.append(f"{span[0]:.2f} to {span[1]:.2f} s")
        # The score belongs to the nearest class, which is not the answer to an unknown sample.
        score, share = ("", None) if prediction.unknown else (prediction.score_text, prediction.share)
        return Caption(prediction.answer, score, share, tuple(details))
