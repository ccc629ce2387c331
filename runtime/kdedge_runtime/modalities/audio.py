"""Audio: mono PCM, cut into windows of a fixed length."""

import io
import math
import threading
import wave
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from kdedge_runtime.errors import UnreadableSample
from kdedge_runtime.modalities.audio_features import MelScale, log_mel
from kdedge_runtime.modalities.input_spec import BrowserSensor, InputSpec, Renderer
from kdedge_runtime.util.arrays import Floats, Integers, Pixels
from kdedge_runtime.util.sounds import require_measured

if TYPE_CHECKING:
    from kdedge_runtime.drawing.heatmap import HeatStats
    from kdedge_runtime.prediction import Prediction
    from kdedge_runtime.sources.source import Source

__all__ = ["MAX_WINDOW_S", "AudioInput"]

MAX_WINDOW_S = 600.0
"""Longest window in seconds."""
_HIGHEST_HZ = 192_000
_FULL_SCALE = 32_767


@dataclass(frozen=True)
class AudioInput(InputSpec):
    """Audio input specification: rate, window and log-mel features.

    The graph takes float32 PCM `[N, samples]`, mono in [-1, 1], and computes the features (see
    `kdedge_runtime.modalities.audio_features`). A sound of another length is cut at its center by `preprocess`, or
    padded there with zeros on both sides.
    """

    rate_hz: int
    """Samples per second."""
    samples: int
    """Length of the window in samples, a multiple of `frame_hop`."""
    n_fft: int
    """Length of a frame in samples, even."""
    win_length: int
    """Length of the Hann window at the center of a frame in samples, even."""
    frame_hop: int
    """Interval between frames in samples, even and at most `n_fft`."""
    mel_bands: int
    fmin_hz: float
    fmax_hz: float
    log_offset: float
    """Value added to the energy of a band before the logarithm."""
    least_peak: float
    """Sounds are divided by their peak, or by this value if it is larger; 1 keeps their level."""
    mean: float
    """Mean of the features, subtracted in the graph."""
    std: float
    """Standard deviation of the features, by which the graph divides."""
    hop_s: float = 0.5
    """Default interval between the windows of a recording in seconds."""
    name: str = "audio"
    kind: Literal["audio"] = "audio"

    @property
    def scale(self) -> MelScale:
        """Parameters of the log-mel features."""
        return MelScale._make(getattr(self, name) for name in MelScale._fields)

    @property
    def frames(self) -> int:
        """Number of frames of the features."""
        return self.samples // self.frame_hop

    @property
    def window_s(self) -> float:
        """Length of the window in seconds."""
        return self.samples / self.rate_hz

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of samples."""
        return (self.samples,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of PCM, float32."""
        return np.dtype(np.float32)

    @property
    def summary(self) -> str:
        """Length and rate, such as `1 s at 16 kHz`."""
        return f"{self.window_s:g} s at {self.rate_hz / 1000:g} kHz"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Parse the metadata of a model file; see `InputSpec`."""
        given = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        spec = cls(**given)
        whole = (spec.rate_hz, spec.samples, spec.n_fft, spec.win_length, spec.frame_hop, spec.mel_bands)
        if not all(isinstance(number, int) and number > 0 for number in whole) or not isinstance(spec.name, str):
            raise TypeError(f"invalid input {dict(values)}")
        real = (spec.fmin_hz, spec.fmax_hz, spec.log_offset, spec.least_peak, spec.mean, spec.std, spec.hop_s)
        is_sound = (
            all(math.isfinite(number) for number in real)
            and spec.rate_hz <= _HIGHEST_HZ
            and spec.window_s <= MAX_WINDOW_S
            and spec.samples % spec.frame_hop == spec.n_fft % 2 == spec.win_length % 2 == spec.frame_hop % 2 == 0
            and spec.frame_hop <= spec.win_length <= spec.n_fft <= spec.samples
            and 0 <= spec.fmin_hz < spec.fmax_hz <= spec.rate_hz / 2
            and min(spec.log_offset, spec.least_peak, spec.std, spec.hop_s) > 0
            and spec.mel_bands <= spec.n_fft // 2
            and spec.hop_s <= spec.window_s
        )
        if not is_sound:
            raise ValueError(f"invalid input {dict(values)}")
        return spec

    def preprocess(self, sample: Floats) -> Floats:
        """Cut or pad a sound at its center to the length of the window.

        Args:
            sample: PCM float32 `[S]` at `rate_hz`, mono.

        Returns:
            PCM float32 `[self.samples]`.

        Raises:
            UnreadableSample: there are no samples, they are integers, one is not finite, or nothing was measured
            (`require_measured`).
        """
        if sample.ndim != 1 or not len(sample):
            raise UnreadableSample(f"A sound has the shape {sample.shape}. Expected PCM [S], one channel.", "empty")
        if not np.issubdtype(sample.dtype, np.floating):
            message = f"A sound has the type {sample.dtype}. Expected float32 PCM in [-1, 1]."
            raise UnreadableSample(message, "wrong type")
        if not np.isfinite(sample).all():
            raise UnreadableSample("A sound has samples that are not finite (NaN or infinity).", "not finite")
        start = max(0, len(sample) - self.samples) // 2
        part = sample[start : start + self.samples]
        require_measured(part, self.samples)
        missing = self.samples - len(part)
        return np.pad(part, (missing // 2, missing - missing // 2)).astype(np.float32)

    @property
    def preprocessing_id(self) -> str:
        """Rate and length; features are part of the graph."""
        return f"{self.rate_hz} {self.samples}"

    def reference_sample(self, seed: int) -> Floats:
        """Generate a triangle wave with rising pitch, exact in float32 on every machine."""
        steps = np.arange(self.samples, dtype=np.int64)
        phase = (steps * (40 + 24 * seed) + steps * steps // max(1, self.samples // 256)) % 1024
        wave: Floats = ((np.abs(phase - 512) - 256) / 512).astype(np.float32)
        return wave

    def features(self, sample: Floats) -> Floats:
        """Compute log-mel features of PCM of any length, float32 `[mel_bands, frames]`, not normalized."""
        return log_mel(sample, self.scale)

    def map_stats(self, saliency_map: Floats, sample: Floats, shift: tuple[float, float]) -> "HeatStats":
        """Compute the statistics of a map: `cx` in time, and `cy` in mel bands from the highest (0) to the lowest (1).

        Args:
            saliency_map: raw signed map, mel × time, lowest band first.
            sample: raw sound; `cx` is a fraction of its length.
            shift: offset of the map content in map positions.
        """
        from kdedge_runtime.drawing.heatmap import heat_stats

        start = float((len(sample) - self.samples) // 2)
        box = (start, 0.0, start + self.samples, 1.0)
        return heat_stats(saliency_map[::-1], box, 1, len(sample), (shift[0], -shift[1]))

    def renderer(self, *, moving: bool, fps: float | None) -> Renderer:
        """Create a renderer of spectrograms; see `InputSpec`."""
        from kdedge_runtime.drawing.spectrogram_renderer import SpectrogramRenderer

        return SpectrogramRenderer(self, moving=moving, fps=fps)

    def draw_explanation(self, prediction: "Prediction", opacity: float) -> Pixels:
        """Draw the spectrogram of the window next to its overlay; see `InputSpec`."""
        from kdedge_runtime.drawing.explanation_drawing import heat_of_sample, side_by_side
        from kdedge_runtime.drawing.spectrogram_renderer import draw_window

        plain, overlay = (draw_window(self, prediction, heat, opacity) for heat in (None, heat_of_sample(prediction)))
        return side_by_side(plain, overlay)

    def draw_sample(self, sample: Floats) -> Pixels:
        """Draw the spectrogram of the window, uint8 RGB."""
        from kdedge_runtime.drawing.spectrogram import draw_spectrogram

        return draw_spectrogram(self.features(self.preprocess(sample)), None, (0.0, self.window_s))

    @property
    def sample_suffix(self) -> str:
        """Suffix of wav files."""
        return ".wav"

    @property
    def sample_noun(self) -> str:
        """Window of a recording."""
        return "window"

    def encode_sample(self, sample: Floats) -> bytes:
        """Encode a sound as wav with 16 bits; values beyond full scale are clipped."""
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.rate_hz)
            file.writeframes(np.round(np.clip(sample, -1, 1) * _FULL_SCALE).astype("<i2").tobytes())
        return buffer.getvalue()

    @property
    def mask_size(self) -> tuple[int, int]:
        """Mel bands and frames."""
        return self.mel_bands, self.frames

    def mask(self, sample: Floats, keep: Floats, fill: Floats | None = None) -> Floats:
        """Silence hidden bands and times, or blend them with another sound; see `InputSpec`."""
        from kdedge_runtime.modalities.audio_masking import blend_sounds

        hidden = np.zeros_like(sample) if fill is None else fill
        return blend_sounds(sample, hidden, keep, self.scale)

    def segments(self, sample: Floats, count: int) -> Integers:
        """Segment a sound into a grid of bands and times with at most `count` parts, about square on the map."""
        rows = max(1, min(self.mel_bands, count, math.isqrt(max(1, count * self.mel_bands // self.frames))))
        columns = max(1, min(self.frames, count // rows))
        row = np.arange(self.mel_bands, dtype=np.int64) * rows // self.mel_bands
        column = np.arange(self.frames, dtype=np.int64) * columns // self.frames
        return row[:, None] * columns + column

    @property
    def browser_sensor(self) -> BrowserSensor:
        """Microphone."""
        return "microphone"

    @property
    def example_source(self) -> str:
        """Default microphone; see `InputSpec`."""
        return "mic:"

    def open_source(
        self,
        uri: str,
        frames: Literal["all", "latest"] | None = None,
        stop: threading.Event | None = None,
        *,
        loop: bool = False,
        hop_s: float | None = None,
    ) -> "Source":
        """Create a source of windows from files or a microphone; see `kdedge_runtime.sources.audio`."""
        from kdedge_runtime.sources.audio import SoundWindows, open_audio_source

        windows = SoundWindows(self.rate_hz, self.samples, hop_s or self.hop_s)
        return open_audio_source(windows, uri, frames, stop, loop=loop)
