"""Google's speech embedding: a convolutional network over log-mel features, trained on many keywords.

Lin et al., Training Keyword Spotters with Limited and Synthesized Speech Data, ICASSP 2020. The weights are read from
the file `embedding_model.onnx` as published by openWakeWord. A dense layer on the mean of the embeddings over time
replaces its single output for 775 ms.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.audio import MAX_WINDOW_S, AudioInput

__all__ = ["SpeechEmbedding", "read_speech_embedding", "speech_embedding_input"]

_RATE_HZ, _MEL_BANDS = 16_000, 32
_MIN_WINDOW_S = 0.4
"""Shortest window that leaves a position after all pools, in seconds."""
_DECIBELS_PER_LOG = 4.342944819
_FULL_SCALE_LOG = 20.794354
"""Logarithm of the squared full scale of 16 bits, in which the network measures energies."""
_DYNAMIC_RANGE_DB = 80.0
_SLOPE, _LEAST = 0.2, -0.4
"""Slope of negative activations, and their lower bound."""
_STAGES = ((24, "cft"), (48, "ftft"), (72, "ftft"), (96, "ftft"), (96, "ftft"))
"""Channels and convolutions of each stage: both axes (c), frequency (f), or time (t)."""
_KERNELS = {"c": (3, 3), "f": (3, 1), "t": (1, 3)}
_POOLS = ((2, 2), (2, 1), (2, 2), (2, 1), (2, 2))
"""Size of the pool after each stage, in frequency and time."""
_SIDE_FRAMES = 18
"""Frames of silence on both sides, which the convolutions before the fourth pool consume."""


def speech_embedding_input(window_s: float) -> AudioInput:
    """Return the input of the network for a window: 16 kHz, 32 mel bands from 60 to 3,800 Hz every 10 ms.

    Features are energies in 10 dB, with full scale at 16 bits.

    Raises:
        UsageError: the window is shorter than 0.4 s, or longer than 600 s.
    """
    if not _MIN_WINDOW_S <= window_s <= MAX_WINDOW_S:
        raise UsageError(
            f"The speech embedding cannot have windows of {window_s:g} s. Expected {_MIN_WINDOW_S:g} to "
            f"{MAX_WINDOW_S:g} s."
        )
    samples = 640 * round(window_s * _RATE_HZ / 640)
    return AudioInput(
        rate_hz=_RATE_HZ,
        samples=samples,
        n_fft=512,
        win_length=400,
        frame_hop=160,
        mel_bands=_MEL_BANDS,
        fmin_hz=60.0,
        fmax_hz=3800.0,
        log_offset=1e-19,
        least_peak=1.0,
        mean=-_FULL_SCALE_LOG,
        std=10 / _DECIBELS_PER_LOG,
        hop_s=samples / _RATE_HZ / 2,
    )


class SpeechEmbedding(nn.Module):
    """The network with a dense layer; its map has 4 bands × a position every 40 ms."""

    target_layer = "stages.3"
    """Last layer that distinguishes frequencies."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        width, stages = 1, []
        for channels, kinds in _STAGES:
            layers: list[nn.Module] = []
            for kind in kinds:
                padding = (0, 0) if kind == "t" else (1, 0)
                layers += [nn.Conv2d(width, channels, _KERNELS[kind], padding=padding), _Bounded()]
                width = channels
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.last = nn.Conv2d(width, width, _KERNELS["t"], bias=False)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits `[N, K]` of features `[N, 3, 32, T]`, in 10 dB; the channels are equal."""
        x = x[:, :1]
        floor = x.amax(dim=(1, 2, 3), keepdim=True) - _DYNAMIC_RANGE_DB / 10
        x = F.pad(torch.maximum(x, floor) - floor, (_SIDE_FRAMES, _SIDE_FRAMES)) + floor + 2
        logits: Tensor = self.linear(self.embed(x).mean(dim=(2, 3)))
        return logits

    def embed(self, x: Tensor) -> Tensor:
        """Compute embeddings `[N, 96, 1, T']` of features `[N, 1, 32, T]` on the published scale, one for 76 frames."""
        for stage, pool in zip(self.stages, _POOLS, strict=True):
            x = F.max_pool2d(stage(x), pool)
        embeddings: Tensor = self.last(x)
        return embeddings


class _Bounded(nn.Module):
    """Leaky ReLU with a lower bound."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, _SLOPE).clamp(min=_LEAST)


def read_speech_embedding(file: Path) -> dict[str, Tensor]:
    """Read the weights from the published `.onnx` file, in the order of its convolutions.

    Raises:
        UsageError: the file is missing, or holds another network.
    """
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load(file).graph
    except Exception as error:  # damaged bytes can raise any exception in their parser
        raise UsageError(f"{file} cannot be read ({error}). Expected embedding_model.onnx of openWakeWord.") from error
    values = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    weights = [[values[name] for name in node.input[1:]] for node in graph.node if node.op_type == "Conv"]
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in SpeechEmbedding(2).state_dict().items()}
    expected = {name: shape for name, shape in shapes.items() if "linear" not in name}
    # The published network has time before frequency.
    found = [each.transpose(2, 3).contiguous() if each.ndim == 4 else each for pair in weights for each in pair]
    if [each.shape for each in found] != list(expected.values()):
        raise UsageError(f"{file} is not Google's speech embedding. Expected embedding_model.onnx of openWakeWord.")
    return dict(zip(expected, found, strict=True))
