"""Rendering of the predictions of a run on time series."""

from dataclasses import replace
from typing import TYPE_CHECKING

from kdedge_runtime.drawing.heat_scales import HeatScales
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.arrays import Pixels

if TYPE_CHECKING:
    from kdedge_runtime.modalities.timeseries import TimeseriesInput

__all__ = ["SeriesRenderer"]


class SeriesRenderer:
    """Renders predictions as plots of the window, with heat behind each channel."""

    def __init__(self, spec: "TimeseriesInput", *, moving: bool, fps: float | None = None) -> None:
        """Create a renderer; see `InputSpec.renderer`."""
        self._spec = spec
        self._scales = HeatScales(moving=moving, fps=fps)

    def update_scale(self, prediction: Prediction) -> None:
        """Update the heat scale, also for windows that are not drawn."""
        self._scales.update(prediction)

    def render(self, prediction: Prediction, opacity: float) -> Pixels:
        """Return the plot with heat and caption, uint8 RGB. `opacity` applies at full heat, in [0, 1]."""
        # Imported on demand, because runs without overlays need no fonts.
        from kdedge_runtime.drawing.prediction_caption import caption_of
        from kdedge_runtime.drawing.series_plot import draw_series

        caption = caption_of(prediction)
        if (span := prediction.frame.span_s) is not None:
            caption = replace(caption, details=(*caption.details, f"{span[0]:.2f} to {span[1]:.2f} s"))
        heat, shift = self._scales.heat(prediction), prediction.display.shift
        return draw_series(prediction.frame.sample, self._spec, heat, caption, opacity=opacity, shift=shift)
