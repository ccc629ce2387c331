"""Rendering of predictions for sounds as spectrograms with heat."""

from typing import TYPE_CHECKING

from kdedge_runtime.drawing.heat_scales import HeatScales
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.arrays import Floats, Pixels

if TYPE_CHECKING:
    from kdedge_runtime.drawing.caption import Caption
    from kdedge_runtime.modalities.audio import AudioInput

__all__ = ["SpectrogramRenderer", "draw_window"]


class SpectrogramRenderer:
    """Renderer of the window of each prediction, with its position in the recording on the time axis."""

    def __init__(self, spec: "AudioInput", *, moving: bool, fps: float | None = None) -> None:
        """Create a renderer; see `InputSpec.renderer`."""
        self._spec = spec
        self._moving = moving
        self._scales = HeatScales(moving=moving, fps=fps)

    def update_scale(self, prediction: Prediction) -> None:
        """Update the heat scale, also for windows that are not drawn."""
        self._scales.update(prediction)

    def render(self, prediction: Prediction, opacity: float) -> Pixels:
        """Return the spectrogram with heat map and caption, uint8 RGB. `opacity` applies at full heat, in [0, 1]."""
        # Imported on demand, because runs without overlays need no fonts.
        from kdedge_runtime.drawing.prediction_caption import caption_of

        caption = caption_of(prediction, moving=self._moving)
        return draw_window(self._spec, prediction, self._scales.heat(prediction), opacity, caption)


def draw_window(
    spec: "AudioInput", prediction: Prediction, heat: Floats | None, opacity: float, caption: "Caption | None" = None
) -> Pixels:
    """Draw the spectrogram of a window on the time axis of its recording, uint8 RGB.

    Args:
        spec: input of the model.
        prediction: prediction for the window.
        heat: heat map `[h, w]` in [0, 1], lowest band first, or None.
        opacity: opacity at full heat, in [0, 1].
        caption: caption, or None.
    """
    from kdedge_runtime.drawing.spectrogram import draw_spectrogram

    start = 0.0 if prediction.frame.span_s is None else prediction.frame.span_s[0]
    start += (len(prediction.sample) - spec.samples) / 2 / spec.rate_hz  # where the sound is cut or padded
    return draw_spectrogram(
        spec.features(spec.preprocess(prediction.sample)),
        heat,
        (start, start + spec.window_s),
        caption,
        opacity=opacity,
        shift=prediction.display.shift,
    )
