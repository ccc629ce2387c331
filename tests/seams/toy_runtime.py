"""Toy modality and task at inference: signals of several channels, and any subset of the labels.

A signal is float32 `[T, C]`. The ground truth is an integer whose bits are the labels.
"""

import io
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from kdedge_runtime.drawing.heatmap import HeatStats
from kdedge_runtime.modalities import InputSpec, Sample
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.util.arrays import Floats, Integers, Pixels

KIND = "signal"
TASK = "multilabel"
LABELS = ("slow", "fast", "spike")
LENGTH, CHANNELS = 64, 2


@dataclass(frozen=True)
class SignalInput(InputSpec):
    """Input of a model for signals; standardized per channel inside the graph."""

    length: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str = "signal"
    kind: Literal["signal"] = KIND

    @property
    def shape(self) -> tuple[int, ...]:
        return self.length, len(self.mean)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    @property
    def summary(self) -> str:
        return f"{self.length} steps of {len(self.mean)} channels"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        known = {name: values[name] for name in ("length", "mean", "std", "name", "kind")}
        return cls(**known | {"mean": tuple(known["mean"]), "std": tuple(known["std"])})

    def preprocess(self, sample: Sample) -> Sample:
        """Cut a signal to the length of the input, or pad it with its last value."""
        padded = np.pad(sample, ((0, max(0, self.length - len(sample))), (0, 0)), mode="edge")
        return padded[: self.length].astype(np.float32)

    @property
    def preprocessing_id(self) -> str:
        return f"{self.length}"

    def reference_sample(self, seed: int) -> Sample:
        steps = np.arange(self.length * len(self.mean), dtype=np.int64)
        return ((steps * (2 * seed + 3) % 17 - 8) / 8).astype(np.float32).reshape(self.shape)

    def map_stats(self, saliency_map: Floats, sample: Sample, shift: tuple[float, float]) -> HeatStats:
        evidence = np.maximum(saliency_map[0].astype(np.float64), 0)
        if not evidence.sum() > 0:
            return HeatStats(None, None, 0.0, None)
        center = float(evidence @ (np.arange(len(evidence)) + 0.5) / len(evidence) / evidence.sum())
        return HeatStats(center, None, float((evidence > evidence.max() / 2).mean()), None)

    def renderer(self, *, moving: bool, fps: float | None) -> "SignalRenderer":
        return SignalRenderer()

    def draw_sample(self, sample: Sample) -> Pixels:
        return draw(sample)

    @property
    def sample_suffix(self) -> str:
        return ".npy"

    def encode_sample(self, sample: Sample) -> bytes:
        content = io.BytesIO()
        np.save(content, sample)
        return content.getvalue()

    @property
    def mask_size(self) -> tuple[int, int]:
        return 1, self.length

    def mask(self, sample: Sample, keep: Floats, fill: Sample | None = None) -> Sample:
        hidden = np.asarray(self.mean, np.float32) if fill is None else fill
        shown = keep[:, 0, :, None].astype(np.float32)
        return hidden + shown * (sample - hidden)

    def segments(self, sample: Sample, count: int) -> Integers:
        return (np.arange(self.length) * min(count, self.length) // self.length)[None]

    def draw_explanation(self, prediction: Prediction, opacity: float) -> Pixels:
        return draw(prediction.frame.sample, prediction.saliency_map)

    def open_source(
        self,
        uri: str,
        frames: Literal["all", "latest"] | None = None,
        stop: threading.Event | None = None,
        *,
        loop: bool = False,
        hop_s: float | None = None,
    ) -> "SignalFiles":
        return SignalFiles(uri)


def draw(sample: Sample, saliency_map: Floats | None = None) -> Pixels:
    """Plot a signal as rows of brightness, one per channel, above the positive part of its map."""
    low, high = float(sample.min()), float(sample.max())
    rows = ((sample.T - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    heat = np.zeros((1, len(sample)), np.uint8)
    if saliency_map is not None and saliency_map.max() > 0:
        wide = np.repeat(np.maximum(saliency_map[0], 0), -(-len(sample) // saliency_map.shape[1]))[: len(sample)]
        heat[0] = wide / wide.max() * 255
    picture = np.repeat(np.concatenate([rows, heat]), 8, axis=0)
    return np.repeat(picture[..., None], 3, axis=2)


class SignalRenderer:
    """Renderer of signals."""

    def update_scale(self, prediction: Prediction) -> None:
        """Every map has its own scale."""

    def render(self, prediction: Prediction, opacity: float) -> Pixels:
        return draw(prediction.frame.sample, prediction.saliency_map)


class SignalFiles:
    """Source of the `.npy` files in a folder."""

    live, fps, dropped, unreadable, reconnects = False, None, 0, 0, 0

    def __init__(self, uri: str) -> None:
        self.name = uri
        self.paths = (Path(uri),)
        self._files = sorted(Path(uri).glob("*.npy"))
        self.expected = len(self._files)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self._files):
            yield Frame(index, np.load(file), time.monotonic(), file.name)


class MultilabelInference:
    """Scores are independent probabilities."""

    name = TASK
    score_name = "probability"
    has_classes = False
    has_values = False
    has_embedding = False

    def scores(self, logits: Floats, temperature: float) -> Floats:
        return (1 / (1 + np.exp(-logits / temperature))).astype(np.float32)

    def ranking(self, scores: Floats, labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
        present = [index for index in np.argsort(-scores, kind="stable") if scores[index] > 0.5]
        if not present:
            return (("none", 1 - float(scores.max())),)
        return tuple((labels[index], float(scores[index])) for index in present)

    def share(self, score: float) -> float | None:
        return score

    def format_score(self, score: float, digits: int = 0) -> str:
        return f"{score:.{digits + 2}f}"


MULTILABEL = MultilabelInference()


def bits_of(values: Integers, count: int) -> np.ndarray:
    """Return the labels of ground-truth integers, bool `[N, count]`."""
    return (values[:, None] >> np.arange(count)) & 1 == 1


def make_signal(bits: int, rng: np.random.Generator) -> Floats:
    """Synthesize a signal with the labels of `bits`: a slow wave, a fast wave, and a spike at a random time."""
    steps = np.arange(LENGTH)
    signal = rng.normal(0, 0.2, (LENGTH, CHANNELS))
    if bits & 1:
        signal[:, 0] += np.sin(2 * np.pi * steps / 32 + rng.uniform(0, 6))
    if bits & 2:
        signal[:, 1] += np.sin(2 * np.pi * steps / 4 + rng.uniform(0, 6))
    if bits & 4:
        signal[rng.integers(4, LENGTH - 4), :] += 4
    return signal.astype(np.float32)


def write_signals(root: Path, counts: Mapping[str, int]) -> Path:
    """Write a dataset of signals."""
    rng = np.random.default_rng(0)
    for side, count in counts.items():
        (root / side).mkdir(parents=True)
        for number in range(count):
            bits = number % 8
            np.save(root / side / f"{bits}-{number:04}.npy", make_signal(bits, rng))
    return root
