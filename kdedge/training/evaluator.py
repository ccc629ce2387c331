"""Evaluation of the student on held-out samples, and its agreement with the teacher."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdedge.data import UNLABELED
from kdedge.losses.loss_inputs import ModelOutput
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.compute_device import evaluation_batch
from kdedge.training.distributed import ProcessGroup
from kdedge.training.sample_store import SampleStore
from kdedge.training.step import TrainStep
from kdedge.training.teachers.teacher import Teacher
from kdedge.training.teachers.teacher_cache import TeacherCache, to_stored_precision
from kdedge_export.metrics.comparison import maps_pearson
from kdedge_export.metrics.scores import mean
from kdedge_export.tasks import EXPORT_TASKS

__all__ = ["EvalOutputs", "Evaluator", "agreement_metrics", "evaluate"]


@dataclass(frozen=True)
class EvalOutputs:
    """Outputs of a model on every sample of a split."""

    logits: Tensor
    """Logits, float32 `[N, K]`."""
    maps: Tensor | None
    """Raw saliency maps of the requested classes, float32 `[N, h, w]`; None for a model without maps."""


def evaluate(
    forward: Callable[[Tensor, int | Tensor], ModelOutput],
    store: SampleStore,
    wanted: int | Tensor,
    group: ProcessGroup,
) -> EvalOutputs:
    """Evaluate a model on samples and gather the outputs of all processes.

    Args:
        forward: forward function, see `Teacher`.
        store: N samples.
        wanted: classes to explain, int64 `[N, 1]`; 1 explains each sample's top class.
        group: processes; each evaluates its share.
    """
    count = len(store)
    # Gathering needs equal counts in all processes: pad with the last sample.
    places = torch.arange(-(-count // group.size) * group.size, device=store.targets.device).clamp_max_(count - 1)
    predictions = [
        forward(samples, wanted if isinstance(wanted, int) else wanted[index])
        for index, samples in store.batches(torch.split(group.shard(places), evaluation_batch(places.device)))
    ]
    maps = [prediction.maps[:, 0] for prediction in predictions if prediction.maps is not None]
    with torch.no_grad():
        return EvalOutputs(
            group.gather(torch.cat([prediction.logits for prediction in predictions]))[:count],
            group.gather(torch.cat(maps))[:count] if maps else None,
        )


def agreement_metrics(
    student: EvalOutputs, targets: Tensor, teacher: EvalOutputs | None, task: str
) -> dict[str, float]:
    """Compute the metrics of the task, unless there are no labels, and `agreement` and `map_pearson` with a teacher.

    The maps of both models must be for the teacher's top class. They are compared as in the report of `kdedge
    validate`. `map_pearson` is omitted if all maps are constant.

    Args:
        student: outputs of the student.
        targets: ground truth of the dataset, `[N]`.
        teacher: outputs of the teacher on the same samples, or None.
        task: task of the dataset.
    """
    is_unlabeled = TRAINING_TASKS[task].accepts_unlabeled and bool((targets == UNLABELED).all())
    metrics = {} if is_unlabeled else TRAINING_TASKS[task].metrics(student.logits, targets)
    if teacher is not None:
        theirs, ours = (outputs.logits.cpu().numpy() for outputs in (teacher, student))
        metrics["agreement"] = float(EXPORT_TASKS[task].agreement(theirs, ours).mean())
        if student.maps is not None and teacher.maps is not None:
            theirs, ours = (maps.cpu().numpy() for maps in (teacher.maps, student.maps))
            alike = mean(maps_pearson(theirs, ours))
            if not math.isnan(alike):
                metrics["map_pearson"] = alike
    return metrics


class Evaluator:
    """Evaluates a student during training against the labels and the teacher."""

    def __init__(
        self,
        train_step: TrainStep,
        val: SampleStore,
        teacher: Teacher | None,
        cache: TeacherCache | None,
        task: str,
    ) -> None:
        """Initialize the evaluator.

        Args:
            train_step: student in training.
            val: validation samples, which select the best epoch.
            teacher: teacher, or None.
            cache: cache of teacher outputs, or None.
            task: task of the dataset, a key of `kdedge.tasks.TRAINING_TASKS`.
        """
        self.val, self.task = val, task
        self._train_step, self.teacher, self._cache = train_step, teacher, cache

    @cached_property
    def teacher_outputs(self) -> EvalOutputs | None:
        """Outputs of the teacher on the validation samples, or None without a teacher."""
        if self.teacher is None or self._cache is None:
            return self.evaluate_teacher(self.val)
        if self._cache.read("val") is None:
            outputs = self.evaluate_teacher(self.val)
            if outputs is not None and self._train_step.group.is_main:
                classes = outputs.logits.argmax(dim=1, keepdim=True)
                maps = None if outputs.maps is None else outputs.maps[:, None]
                self._cache.write("val", to_stored_precision(ModelOutput(outputs.logits, classes, maps)))
            self._train_step.group.wait()
        kept, device = self._cache.read("val"), self.val.targets.device
        assert kept is not None
        maps = None if kept.maps is None else kept.maps[:, 0].float().to(device)
        return EvalOutputs(kept.logits.float().to(device), maps)

    @property
    def teacher_metrics(self) -> dict[str, float]:
        """Metrics of the teacher on the validation samples; empty without a teacher."""
        outputs = self.teacher_outputs
        return {} if outputs is None else agreement_metrics(outputs, self.val.targets, None, self.task)

    def validate(self) -> dict[str, float]:
        """Return the student's metrics on the validation samples: `val_top1`, `val_loss` and so on."""
        return {f"val_{name}": value for name, value in self._figures(self.val, self.teacher_outputs).items()}

    def test(self, store: SampleStore, teacher: EvalOutputs | None) -> dict[str, float]:
        """Return the student's metrics on test samples: `test_top1`, `test_loss` and so on.

        Args:
            store: test samples.
            teacher: teacher outputs on them, see `evaluate_teacher`.
        """
        return {f"test_{name}": value for name, value in self._figures(store, teacher).items()}

    def evaluate_teacher(self, store: SampleStore) -> EvalOutputs | None:
        """Evaluate the teacher on samples; None without a teacher."""
        return None if self.teacher is None else evaluate(self.teacher, store, 1, self._train_step.group)

    def _figures(self, store: SampleStore, teacher: EvalOutputs | None) -> dict[str, float]:
        classes = 1 if teacher is None else teacher.logits.argmax(dim=1, keepdim=True)
        student = evaluate(self._train_step.predict, store, classes, self._train_step.group)
        return agreement_metrics(student, store.targets, teacher, self.task)
