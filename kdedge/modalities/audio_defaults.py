"""Default rate, frames and mel bands of audio models."""

import math

from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.audio import MAX_WINDOW_S, AudioInput
from kdedge_runtime.modalities.audio_features import mel_filters

__all__ = ["MAX_RATE_HZ", "MEL_BANDS", "make_audio_input"]

MAX_RATE_HZ = 16_000
"""Highest default rate. Speech and most events keep their information below 8 kHz."""
MIN_RATE_HZ = 1_000
MEL_BANDS = 40
_FRAME_S, _FRAME_HOP_S = 0.032, 0.02
"""Length and interval of frames in seconds."""
_LOWEST_HZ = 60.0
_LOG_OFFSET = 1e-5
_MIN_PEAK = 0.01
"""Peak below which sounds stay quiet: -40 dB of full scale."""


def make_audio_input(rate_hz: int, window_s: float, *, mel_bands: int = MEL_BANDS) -> AudioInput:
    """Return the input for a rate and window, with frames of about 32 ms every 20 ms, not yet normalized.

    Raises:
        UsageError: the rate is too low, the window is not possible, or there are too many mel bands.
    """
    if rate_hz < MIN_RATE_HZ:
        raise UsageError(f"Sounds at {rate_hz} Hz have no features. Expected at least {MIN_RATE_HZ} Hz.")
    win_length = 2 * round(_FRAME_S * rate_hz / 2)
    n_fft = 1 << math.ceil(math.log2(win_length))
    frame_hop = 2 * max(1, round(_FRAME_HOP_S * rate_hz / 2))
    samples = frame_hop * round(window_s * rate_hz / frame_hop)
    values = AudioInput(
        rate_hz=rate_hz,
        samples=samples,
        n_fft=n_fft,
        win_length=win_length,
        frame_hop=frame_hop,
        mel_bands=mel_bands,
        fmin_hz=_LOWEST_HZ,
        fmax_hz=rate_hz / 2 * 0.95,
        log_offset=_LOG_OFFSET,
        least_peak=_MIN_PEAK,
        mean=0.0,
        std=1.0,
        hop_s=samples / rate_hz / 2,
    )
    try:
        spec = AudioInput.from_json(vars(values))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"A window of {window_s:g} s with {mel_bands} mel bands at {rate_hz} Hz is not supported. Expected "
            f"{n_fft / rate_hz:g} to {MAX_WINDOW_S:g} s, and at most {n_fft // 2} bands."
        ) from error
    if not mel_filters(spec.scale).any(axis=1).all():
        raise UsageError(
            f"{mel_bands} mel bands at {rate_hz} Hz are narrower than the frequencies of a frame, so that some are "
            "empty. Expected a smaller --size."
        )
    return spec
