"""Training loop over epochs."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from kdedge.config.resolved_config import ResolvedConfig
from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.run_folder import BEST, HEAD, LAST, METRICS, writing
from kdedge.models.weight_files import load_state, read_state
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.batches import Batches
from kdedge.training.checkpoint import restore, save_checkpoint, save_weights
from kdedge.training.epoch import TrainState, train_epoch
from kdedge.training.evaluator import Evaluator
from kdedge.training.head_fit import LastLayer, fit_head
from kdedge.training.interruption import StopRequested, never_stop
from kdedge.training.sample_store import SampleStore
from kdedge.training.step import TrainStep
from kdedge.training.weight_average import average_weights, choose_average
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.files import atomic_write

__all__ = ["TrainerCallback", "Trainer"]


class TrainerCallback(Protocol):
    """Receives progress events during training."""

    def on_step(self, epoch: int, step: int, steps: int, parts: Tensor) -> None:
        """Called after every step with the epoch's loss sums `[terms]` on the device; reading them synchronizes."""

    def on_epoch(self, metrics: dict[str, Any]) -> None:
        """Called after every epoch with the metrics written to `metrics.jsonl`."""


class Trainer:
    """Training run: train step, batches, evaluator and settings."""

    def __init__(
        self,
        train_step: TrainStep,
        batches: Batches,
        evaluator: Evaluator,
        config: ResolvedConfig,
        last_layer: LastLayer | None = None,
    ) -> None:
        """Combine the parts of a run.

        Args:
            train_step: student, loss and optimizer.
            batches: training batches.
            evaluator: validation and test.
            config: settings of the run.
            last_layer: layer that the first epoch fits on frozen features; None to train all layers from the start.
        """
        self.train_step, self.batches, self.evaluator, self.config = train_step, batches, evaluator, config
        self._last_layer = last_layer

    def run(
        self, folder: Path, callback: TrainerCallback, *, resume: bool, must_stop: Callable[[], bool] = never_stop
    ) -> dict[str, Any] | None:
        """Train until the last epoch.

        Args:
            folder: run folder; after every epoch it holds everything needed to resume.
            callback: receives progress events.
            resume: True to continue from the folder's checkpoint, if it exists.
            must_stop: polled after every step; once it returns True, a checkpoint is written and training ends.

        Returns:
            The `best` epoch by validation and the `last` one, as in `metrics.jsonl`, and the total `seconds`; None if
            training was stopped early. `best` may be an average of the first and last weights, with its share
            `average`.

        Raises:
            KdedgeError: the loss is not finite, or a file of the run cannot be written.
            UsageError: the checkpoint is invalid.
        """
        group, device = self.train_step.group, self.train_step.compute.device
        merit = self._merit
        at = self._restore(folder) if resume and (folder / LAST).is_file() else TrainState()
        if group.is_main:
            with writing(folder / METRICS):
                atomic_write(folder / METRICS, "".join(json.dumps(metrics) + "\n" for metrics in at.history))
        while len(at.history) < self.config.epochs:
            started = time.monotonic()
            losses = self._train_epoch(at, callback, must_stop)
            if isinstance(losses, TrainState):
                self._save(folder, losses)
                return None
            metrics = {"epoch": len(at.history) + 1, **losses, **self.evaluator.validate()}
            metrics["seconds"] = round(at.seconds + time.monotonic() - started, 3)
            if group.is_main:
                if all(merit(metrics) > merit(before) for before in at.history):
                    save_weights(folder / BEST, self.train_step.student.model, {"epoch": metrics["epoch"]})
                with writing(folder / METRICS), (folder / METRICS).open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(metrics) + "\n")
                if len(at.history) == 0 and self._averages:
                    save_weights(folder / HEAD, self.train_step.student.model, {"epoch": 1})
            at = TrainState((*at.history, metrics))
            # The checkpoint is written last: a run killed before it repeats the epoch and writes the same files again.
            self._save(folder, at)
            callback.on_epoch(metrics)
            if len(at.history) < self.config.epochs and group.any(must_stop(), device):
                return None
        seconds = round(sum(line["seconds"] for line in at.history), 1)
        best = max(at.history, key=merit)
        if self._averages:
            best = self._best_average(folder, at.history[-1]["epoch"], best)
        return {"best": best, "last": at.history[-1], "seconds": seconds}

    @property
    def _merit(self) -> Callable[[Mapping[str, float]], tuple[float, ...]]:
        """Function of the sort key of an epoch, of the modality and the task."""
        modality = TRAINING_MODALITIES[self.train_step.student.spec.kind]
        return modality.merit(TRAINING_TASKS[self.evaluator.task])

    @property
    def _averages(self) -> bool:
        """True if averages of the weights after the first and the last epoch are compared with those of each epoch."""
        return self._last_layer is not None and self.config.epochs > 1

    def _best_average(self, folder: Path, epoch: int, best: dict[str, Any]) -> dict[str, Any]:
        """Validate averages of the weights, save the best one if it is better, and return the best metrics."""
        group, model = self.train_step.group, self.train_step.student.model
        group.wait()  # the main process writes the file of the first weights
        first = read_state(folder / HEAD)
        last = {name: value.detach().clone() for name, value in model.state_dict().items()}

        def load(share: float) -> None:
            load_state(model, average_weights(first, last, share), str(folder / HEAD))

        def validate(share: float) -> dict[str, Any]:
            load(share)
            return {"epoch": epoch, "average": share, **self.evaluator.validate()}

        found = choose_average(validate, self._merit, best)
        if found is not best:
            load(found["average"])
            if group.is_main:
                save_weights(folder / BEST, model, {"epoch": epoch, "average": found["average"]})
        model.load_state_dict(last)
        return found

    def _train_epoch(
        self, at: TrainState, callback: TrainerCallback, must_stop: Callable[[], bool]
    ) -> dict[str, Any] | TrainState:
        """Train the next epoch, or fit the last layer; see `train_epoch` and `fit_head`."""
        if at.history or self._last_layer is None:
            return train_epoch(self.train_step, self.batches, self.config, at, callback.on_step, must_stop)
        teacher, loss = self.evaluator.teacher, self.config.loss
        try:
            means = fit_head(self.train_step, self.batches, teacher, self._last_layer, loss, must_stop)
        except StopRequested:
            return at
        total = sum(loss[name] * mean for name, mean in means.items())
        return {"loss": total, **{f"loss_{name}": mean for name, mean in means.items()}, "lr": 0.0}

    def test(self, weights: Mapping[str, Path], samples: SampleStore) -> dict[str, dict[str, float]]:
        """Evaluate saved weights on the test samples; the teacher is evaluated once.

        Args:
            weights: mapping from result name to weights file.
            samples: test samples, not used for any decision.

        Returns:
            `test_top1`, `test_loss` and so on under each name, see `Evaluator.test`.
        """
        outputs, figures = self.evaluator.evaluate_teacher(samples), {}
        for name, file in weights.items():
            load_state(self.train_step.student.model, read_state(file), str(file))
            figures[name] = self.evaluator.test(samples, outputs)
        return figures

    def _save(self, folder: Path, at: TrainState) -> None:
        if self.train_step.group.is_main:
            train_step, note = self.train_step, {"history": at.history, "step": at.step, "seconds": at.seconds}
            model = train_step.student.model
            save_checkpoint(folder / LAST, model, train_step.projections, train_step.optimizer, note, at.state)
        self.train_step.group.wait()

    def _restore(self, folder: Path) -> TrainState:
        train_step = self.train_step
        note, state = restore(folder / LAST, train_step.student.model, train_step.projections, train_step.optimizer)
        try:
            return TrainState(tuple(note["history"]), note["step"], note["seconds"], state)
        except KeyError as error:
            raise UsageError(
                f"{folder / LAST} holds only weights, such as those of the best epoch, and no training state. "
                "Start a new run in another --out, optionally from these weights: --weights FILE."
            ) from error
