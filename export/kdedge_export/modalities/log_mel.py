"""Log-mel features of PCM in the graph: framing, window, Fourier transform, mel filters and logarithm."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.modalities.audio_features import dft_kernels, mel_filters, side_padding

__all__ = ["CHANNELS", "LogMel"]

CHANNELS = 3
"""Number of equal channels of the features, so that networks for images accept them."""


class LogMel(nn.Module):
    """Convert float32 PCM `[N, samples]` to normalized log-mel features `[N, 3, mel_bands, frames]`.

    Framing, window and Fourier transform are one strided convolution; only bins that a filter uses are computed. The
    features equal librosa's with the Slaney scale and `center=False`, after padding (see
    `kdedge_runtime.modalities.audio_features`). A window at another rate is resampled, so that a teacher can use the
    student's sounds.
    """

    dft: Tensor
    mel: Tensor
    offset: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, spec: AudioInput) -> None:
        super().__init__()
        kernels, used = dft_kernels(spec.scale)
        filters = mel_filters(spec.scale)[:, used]
        self.samples, self.least_peak = spec.samples, spec.least_peak
        self.stride, self.padding, self.bins = spec.frame_hop, side_padding(spec.scale), len(used)
        values = {
            "dft": kernels[:, None],
            "mel": filters[:, :, None],
            "offset": np.array(spec.log_offset),
            "mean": np.array(spec.mean),
            "scale": np.array(1 / spec.std),
        }
        for name, array in values.items():
            self.register_buffer(name, torch.tensor(array, dtype=torch.float32), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Compute the features of each sound."""
        x = (self.log_energies(audio) - self.mean) * self.scale
        return torch.stack((x,) * CHANNELS, dim=1)

    def log_energies(self, audio: Tensor) -> Tensor:
        """Compute log-mel features before normalization, `[N, mel_bands, frames]`."""
        if audio.shape[1] != self.samples:  # not in an exported graph, whose input has the model's window
            audio = _resampled(audio, self.samples)
        audio = audio / audio.abs().amax(dim=1, keepdim=True).clamp(min=self.least_peak)
        spectrum = F.conv1d(audio[:, None], self.dft, stride=self.stride, padding=self.padding)
        real, imaginary = torch.split(spectrum, self.bins, dim=1)
        return torch.log(F.conv1d(real * real + imaginary * imaginary, self.mel) + self.offset)


def _resampled(audio: Tensor, samples: int) -> Tensor:
    """Convert windows to another rate by their Fourier series, which is exact up to the lower Nyquist frequency."""
    spectrum = torch.fft.rfft(audio)
    whole: Tensor = torch.fft.irfft(spectrum, n=samples) * (samples / audio.shape[1])
    return whole
