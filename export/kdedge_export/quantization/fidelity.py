"""Fidelity of a quantized graph: agreement of predictions and maps with the fp32 graph."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kdedge_export.metrics.agreement import accuracy_drop
from kdedge_export.metrics.confidence import DIFFERENCE, mean_interval
from kdedge_export.metrics.map_similarity import is_constant, map_pearson
from kdedge_export.metrics.scores import Scores
from kdedge_export.onnx_graph.session import make_feed, open_session
from kdedge_export.tasks import EXPORT_TASKS
from kdedge_runtime.int8_arithmetic import Arithmetic
from kdedge_runtime.util.arrays import Floats, Pixels, Targets, evenly_spaced

__all__ = ["Fidelity", "FidelityEvaluator"]


_ARITHMETIC: Arithmetic = "exact sums"


@dataclass(frozen=True)
class Fidelity:
    """Agreement of a graph with the fp32 graph on the same samples."""

    agreement: float
    """Fraction of samples in [0, 1] with the same top-1 class."""
    accuracy: float | None
    """Accuracy of the task, such as top-1 in [0, 1]; None without labels."""
    drop_points: float
    """Drop of top-1 accuracy in percentage points; without labels, of samples whose prediction changed."""
    most_drop_points: float
    """Unfavorable end of the drop's 95% interval."""
    logits_error: float
    """Mean over samples of the squared error of the centered logits, relative to their variance."""
    map_pearson: float | None
    """Mean correlation of the maps of the fp32 graph's top-1 class; None without a map."""

    @property
    def loss(self) -> float:
        """Combined loss of both; for small errors, the logits error is twice the loss of correlation."""
        return self.logits_error / 2 + (0.0 if self.map_pearson is None else 1 - self.map_pearson)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, the loss and the arithmetic used, as plain JSON values."""
        return asdict(self) | {"loss": self.loss, "arithmetic": _ARITHMETIC}


class FidelityEvaluator:
    """Evaluator of graphs against the fp32 graph's results on fixed samples."""

    def __init__(
        self, model: onnx.ModelProto, samples: Pixels, targets: Targets | None = None, task: str = "classify"
    ) -> None:
        """Run the fp32 graph.

        Args:
            model: the fp32 graph.
            samples: preprocessed samples `[N, …]`, N ≥ 1; used neither for calibration nor for validation.
            targets: int64 `[N]`, the ground truth; None for unlabeled samples.
            task: task of the model, a key of `kdedge_export.tasks.EXPORT_TASKS`.
        """
        self._samples, self._targets, self._task = samples, targets, EXPORT_TASKS[task]
        self._classes: NDArray[np.int64] = np.full(len(samples), -1)
        self._every = np.arange(len(samples))
        self._logits, self._maps = self._run(model, self._every)
        self._classes = self._logits.argmax(axis=1)

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def itself(self) -> Fidelity:
        """Fidelity of the fp32 graph itself, without losses."""
        return self._compare(self._logits, self._maps, self._every)

    def evaluate(self, model: onnx.ModelProto, samples: int | None = None) -> Fidelity:
        """Evaluate another graph, on so many evenly spaced samples if given, since classes are in order."""
        numbers = self._every if samples is None else evenly_spaced(len(self._samples), samples)
        return self._compare(*self._run(model, numbers), numbers)

    def _run(self, model: onnx.ModelProto, numbers: NDArray[np.int64]) -> tuple[Floats, Floats | None]:
        session = open_session(model, exact_sums=True)
        has_map = any(item.name == "saliency_map" for item in session.get_outputs())
        wanted = ["logits", "saliency_map"] if has_map else ["logits"]
        predictions = [
            session.run(wanted, make_feed(session, self._samples[number][None], int(self._classes[number])))
            for number in numbers
        ]
        logits = np.concatenate([prediction[0] for prediction in predictions])
        return logits, np.concatenate([prediction[1] for prediction in predictions]) if has_map else None

    def _compare(self, logits: Floats, maps: Floats | None, numbers: NDArray[np.int64]) -> Fidelity:
        exact = self._logits[numbers]
        agreed = self._task.agreement(exact, logits)
        accuracy, lost = None, 1 - agreed
        if self._targets is not None:
            kept, right = (self._task.correct(prediction, self._targets[numbers]) for prediction in (exact, logits))
            accuracy, lost = float(right.mean()), kept - right
        pearson = None
        if maps is not None and self._maps is not None:
            varying = ~is_constant(self._maps[numbers])
            # A map that became constant or non-finite scores 0.
            scores = np.nan_to_num(map_pearson(self._maps[numbers], maps), nan=0.0)[varying]
            pearson = float(scores.mean()) if varying.any() else 1.0
        interval = mean_interval(lost, DIFFERENCE, scale=100)
        assert interval is not None, "no samples"
        return Fidelity(
            float(agreed.mean()),
            accuracy,
            accuracy_drop(lost),
            interval.high,
            _relative_error(self._task.centered(exact), self._task.centered(logits)),
            pearson,
        )


def _relative_error(exact: Scores, logits: Scores) -> float:
    spread = np.maximum((exact**2).mean(axis=1), 1e-12)
    relative = np.nan_to_num(((logits - exact) ** 2).mean(axis=1) / spread, nan=np.inf)
    return float(np.minimum(relative, 1e6).mean())
