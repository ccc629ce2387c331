"""Draws the answers of a run."""

from kdedge_runtime.drawing.heatmap import SteadyScale, display_heat, peak
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.prediction import Answer
from kdedge_runtime.preprocess import visible_box
from kdedge_runtime.util.arrays import Pixels

__all__ = ["Painter"]


class Painter:
    """Draws answers; of a moving picture it remembers how bright the heat was."""

    def __init__(self, spec: ImageInput, *, moving: bool, fps: float | None = None) -> None:
        """Start a run.

        Args:
            spec: the model's input, which says what part of a frame it sees.
            moving: whether frames follow one another in time. Their heat shares a steady scale, and their age is
                written on them.
            fps: the rate of a recording that is not read at its own; None takes the time between frames from their
                captures.
        """
        self._spec = spec
        self._moving = moving
        self._fps = fps
        self._steady = SteadyScale()
        self._scale = self._seen_at = 0.0

    def look(self, answer: Answer) -> None:
        """Take in the strength of the evidence, also of frames that are not drawn."""
        if answer.saliency_map is not None:
            strength, frame = peak(answer.saliency_map), answer.frame
            before, self._seen_at = self._seen_at, frame.index / self._fps if self._fps else frame.captured_at
            self._scale = self._steady.update(strength, self._seen_at - before) if self._moving else strength

    def paint(self, answer: Answer, opacity: float) -> Pixels:
        """The frame with its heat and caption, uint8 RGB; full heat covers it with `opacity`, in [0, 1]."""
        # Here, since a run that nobody watches needs no typefaces.
        from kdedge_runtime.drawing.caption import Caption
        from kdedge_runtime.drawing.overlay import draw_overlay

        rgb = answer.frame.rgb
        heat, display = None, answer.display
        if answer.saliency_map is not None:
            heat = display_heat(answer.saliency_map, self._scale, display.typical_contrast)
        details = [] if heat is None or answer.explained == answer.label else [f"heat: {answer.explained}"]
        if self._moving:
            details.append(f"{answer.age_ms:.0f} ms old")
        caption = Caption(answer.label, answer.probability, tuple(details))
        height, width = rgb.shape[:2]
        box = visible_box(height, width, self._spec)
        return draw_overlay(rgb, heat, box, caption, opacity=opacity, shift=display.shift)
