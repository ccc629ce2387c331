"""Sources of teacher outputs for a batch: computed online, or read from a cache."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from kdedge.losses.all_class_maps import MOST_PROBABLE
from kdedge.losses.loss_inputs import ModelOutput
from kdedge.training.augmentation.augmentation_plan import AugmentationPlan
from kdedge.training.compute_device import evaluation_batch
from kdedge.training.cuda_graphs import CudaGraphRunner
from kdedge.training.distributed import ProcessGroup
from kdedge.training.interruption import StopRequested
from kdedge.training.sample_store import SampleStore
from kdedge.training.teachers.teacher import NetworkTeacher, Teacher
from kdedge.training.teachers.teacher_cache import TeacherCache, to_stored_precision
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["OnlineTeacher", "TeacherTargets", "NoTeacher", "CachedTeacher", "classes_to_keep"]


class TeacherTargets(Protocol):
    """Source of teacher outputs for the batches of an epoch."""

    def begin(self, epoch: int, must_stop: Callable[[], bool]) -> None:
        """Prepare an epoch, counted from 0.

        Raises:
            StopRequested: `must_stop` returned True before all outputs were ready.
        """

    def prediction(self, index: Tensor, samples: Tensor) -> ModelOutput | None:
        """Return the teacher outputs for augmented samples `[n, …]` at dataset indices int64 `[n]`."""


class NoTeacher:
    """No teacher: training on labels only."""

    def begin(self, epoch: int, must_stop: Callable[[], bool]) -> None:
        """Do nothing; see `TeacherTargets`."""

    def prediction(self, index: Tensor, samples: Tensor) -> ModelOutput | None:
        """Return None; see `TeacherTargets`."""
        return None


class OnlineTeacher:
    """Runs the teacher on every batch."""

    def __init__(self, teacher: Teacher, map_classes: int, *, compiled: bool) -> None:
        """Initialize the teacher's forward function.

        Args:
            teacher: teacher.
            map_classes: number of classes whose maps are needed.
            compiled: True to compile; see `ComputeDevice.compiled`. No effect for ensembles and model files.
        """
        self._teacher = teacher
        self._map_classes = map_classes
        self._replayed: Callable[..., tuple[Tensor, ...]] | None = None
        if compiled and isinstance(teacher, NetworkTeacher):
            forward = torch.compile(teacher.predict, fullgraph=True, dynamic=False)

            def run_teacher(samples: Tensor) -> tuple[Tensor, ...]:
                with torch.no_grad():
                    prediction = forward(samples, map_classes)
                maps = (
                    ()
                    if prediction.classes is None or prediction.maps is None
                    else (prediction.classes, prediction.maps)
                )
                return (prediction.logits, *maps, *prediction.features)

            self._replayed = CudaGraphRunner(run_teacher)

    def begin(self, epoch: int, must_stop: Callable[[], bool]) -> None:
        """Do nothing; see `TeacherTargets`."""

    def prediction(self, index: Tensor, samples: Tensor) -> ModelOutput | None:
        """Run the teacher; see `TeacherTargets`."""
        if self._replayed is None:
            return self._teacher(samples, self._map_classes)
        logits, *rest = self._replayed(samples)
        if not self._map_classes:
            return ModelOutput(logits, features=tuple(rest))
        return ModelOutput(logits, rest[0], rest[1], tuple(rest[2:]))


class CachedTeacher:
    """Runs the teacher once per view of the samples and reads its outputs from disk afterwards."""

    def __init__(
        self,
        teacher: Teacher,
        map_classes: int,
        samples: SampleStore,
        views: AugmentationPlan,
        cache: TeacherCache,
        group: ProcessGroup,
        progress: ProgressCallback,
    ) -> None:
        """Initialize the cached teacher.

        Args:
            teacher: teacher.
            map_classes: number of classes whose maps this run needs.
            samples: training samples.
            views: schedule with a fixed number of views.
            cache: cache of teacher outputs.
            group: processes that share the cache; the main process fills it.
            progress: called while the teacher is evaluated.
        """
        self._teacher, self._map_classes = teacher, map_classes
        self._classes_to_keep = classes_to_keep(teacher, map_classes)
        self._samples, self._views, self._cache = samples, views, cache
        self._group, self._progress = group, progress
        self._prediction: ModelOutput | None = None

    def begin(self, epoch: int, must_stop: Callable[[], bool]) -> None:
        """Load the outputs of the epoch's view; the first time this evaluates the teacher on all samples."""
        name = f"view-{self._views.number(epoch)}"
        stopped = False
        if self._cache.read(name) is None and self._group.is_main:
            try:
                self._cache.write(name, self._evaluate(epoch, must_stop))
            except StopRequested:
                stopped = True
        if self._group.any(stopped, self._samples.targets.device):  # the other processes wait here
            raise StopRequested
        prediction = self._cache.read(name)
        assert prediction is not None
        device = self._samples.targets.device
        logits, features = prediction.logits.to(device), tuple(each.to(device) for each in prediction.features)
        if prediction.classes is None or prediction.maps is None or not self._map_classes:
            self._prediction = ModelOutput(logits, features=features)
        else:
            kept = slice(self._map_classes)
            classes, maps = prediction.classes[:, kept].to(device), prediction.maps[:, kept].to(device)
            self._prediction = ModelOutput(logits, classes, maps, features)

    def prediction(self, index: Tensor, samples: Tensor) -> ModelOutput | None:
        """Return cached outputs; see `TeacherTargets`."""
        kept = self._prediction
        assert kept is not None
        logits, features = kept.logits[index].float(), tuple(each[index].float() for each in kept.features)
        if kept.classes is None or kept.maps is None:
            return ModelOutput(logits, features=features)
        return ModelOutput(logits, kept.classes[index].long(), kept.maps[index].float(), features)

    def _evaluate(self, epoch: int, must_stop: Callable[[], bool]) -> ModelOutput:
        view, count, wanted = self._views.draw(epoch), len(self._samples), self._classes_to_keep
        everything = torch.arange(count, device=self._samples.targets.device)
        predictions: list[ModelOutput] = []
        done = 0
        for index, samples in self._samples.batches(torch.split(everything, evaluation_batch(everything.device))):
            if must_stop():
                raise StopRequested
            predictions.append(
                to_stored_precision(self._teacher(self._views.augmenter.apply(samples, view.take(index)), wanted))
            )
            if len(predictions) == 1:
                self._cache.require_room(predictions[0], count)
            done += len(index)
            self._progress("evaluating the teacher", done, count)
        logits = torch.cat([prediction.logits for prediction in predictions])
        features = tuple(map(torch.cat, zip(*(prediction.features for prediction in predictions), strict=True)))
        classes = [prediction.classes for prediction in predictions if prediction.classes is not None]
        maps = [prediction.maps for prediction in predictions if prediction.maps is not None]
        if not maps:
            return ModelOutput(logits, features=features)
        return ModelOutput(logits, torch.cat(classes), torch.cat(maps), features)


def classes_to_keep(teacher: Teacher, needed: int) -> int:
    """Return the number of classes whose maps are cached: enough for any loss of later runs, if that is cheap."""
    if teacher.unexplained is not None:
        return 0
    return max(needed, MOST_PROBABLE) if teacher.most_maps is None else teacher.most_maps
