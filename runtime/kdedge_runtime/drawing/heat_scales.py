"""Display scales of the maps of a run, one for each region."""

from collections import defaultdict

from kdedge_runtime.drawing.heatmap import SmoothedScale, display_heat, peak
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.arrays import Floats

__all__ = ["HeatScales"]


class HeatScales:
    """Display scales that are smoothed over frames that follow one another in time."""

    def __init__(self, *, moving: bool, fps: float | None = None) -> None:
        """Create the scales.

        Args:
            moving: True to smooth the scales over time.
            fps: frame rate of a recording that is not played in real time; None uses the capture times.
        """
        self._moving = moving
        self._fps = fps
        self._scales: defaultdict[str | None, _Scale] = defaultdict(_Scale)

    def update(self, prediction: Prediction) -> None:
        """Update the scale of every region with its map."""
        at_s = prediction.frame.time_s(self._fps)
        for each in prediction.by_region:
            if each.saliency_map is not None:
                self._scales[each.region_name].update(peak(each.saliency_map), at_s, smooth=self._moving)

    def heat(self, prediction: Prediction) -> Floats | None:
        """Return the map of a prediction for display, float32 `[h, w]` in [0, 1], or None without one."""
        if prediction.saliency_map is None:
            return None
        scale = self._scales[prediction.region_name].value
        return display_heat(prediction.saliency_map, scale, prediction.display.typical_contrast)


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
