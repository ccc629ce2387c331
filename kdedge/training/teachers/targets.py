"""What the teacher says of a batch: asked anew, or remembered."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from kdedge.losses.all_class_maps import MOST_PROBABLE
from kdedge.losses.loss_inputs import Answer
from kdedge.training.augmentation import transform
from kdedge.training.augmentation.augmentation_plan import Views
from kdedge.training.cuda_graphs import Replayed
from kdedge.training.distributed import Group
from kdedge.training.image_store import Images
from kdedge.training.interruption import StopRequested
from kdedge.training.teachers.teacher import NetworkTeacher, Teacher
from kdedge.training.teachers.teacher_cache import AnswerCache, compact

__all__ = ["AskTeacher", "Guidance", "NoTeacher", "Remembered", "classes_to_keep"]

_BATCH = 256


class Guidance(Protocol):
    """Gives the teacher's answers to the batches of an epoch."""

    def begin(self, epoch: int, must_stop: Callable[[], bool]) -> None:
        """Before the first batch of an epoch, counted from 0.

        Raises:
            StopRequested: `must_stop` said yes before all was ready.
        """

    def answer(self, index: Tensor, images: Tensor) -> Answer | None:
        """The teacher's answer to augmented pictures, uint8 `[n, H, W, 3]`, at these places int64 `[n]` in the data."""


class NoTeacher:
    """Labels only."""

    def begin(self, epoch: int, must_stop: Callable[[], bool]) -> None:
        """See `Guidance`."""

    def answer(self, index: Tensor, images: Tensor) -> Answer | None:
        """See `Guidance`."""
        return None


class AskTeacher:
    """A forward pass of the teacher for every batch."""

    def __init__(self, teacher: Teacher, map_classes: int, *, compiled: bool) -> None:
        """Prepare to ask.

        Args:
            teacher: whom to ask.
            map_classes: of how many classes maps are needed.
            compiled: see `Compute.compiled`; of no effect for several teachers and for model files.
        """
        self._teacher = teacher
        self._map_classes = map_classes
        self._replayed: Callable[..., tuple[Tensor, ...]] | None = None
        if compiled and isinstance(teacher, NetworkTeacher):
            look = torch.compile(teacher.look, fullgraph=True, dynamic=False)

            def ask(images: Tensor) -> tuple[Tensor, ...]:
                with torch.no_grad():
                    answer = look(images, map_classes)
                maps = () if answer.classes is None or answer.maps is None else (answer.classes, answer.maps)
                return (answer.logits, *maps, *answer.features)

            self._replayed = Replayed(ask)

    def begin(self, epoch: int, must_stop: Callable[[], bool]) -> None:
        """See `Guidance`."""

    def answer(self, index: Tensor, images: Tensor) -> Answer | None:
        """See `Guidance`."""
        if self._replayed is None:
            return self._teacher(images, self._map_classes)
        logits, *rest = self._replayed(images)
        if not self._map_classes:
            return Answer(logits, features=tuple(rest))
        return Answer(logits, rest[0], rest[1], tuple(rest[2:]))


class Remembered:
    """The teacher is asked once about each view of the pictures; its answers are kept on the disk."""

    def __init__(
        self,
        teacher: Teacher,
        map_classes: int,
        images: Images,
        views: Views,
        cache: AnswerCache,
        group: Group,
        progress: Callable[[int, int], None],
    ) -> None:
        """Prepare to ask.

        Args:
            teacher: whom to ask.
            map_classes: of how many classes this run needs the maps.
            images: the pictures.
            views: as many as the answers are kept of.
            cache: where.
            group: the processes that share the cache; the leader asks.
            progress: hears (done, total) pictures while the teacher is asked.
        """
        self._teacher, self._map_classes = teacher, map_classes
        self._classes_to_keep = classes_to_keep(teacher, map_classes)
        self._images, self._views, self._cache = images, views, cache
        self._group, self._progress = group, progress
        self._answer: Answer | None = None

    def begin(self, epoch: int, must_stop: Callable[[], bool]) -> None:
        """Have the answers of the epoch's view at hand; the first time this is a pass of the teacher over the data."""
        name = f"view-{self._views.number(epoch)}"
        stopped = False
        if self._cache.read(name) is None and self._group.leads:
            try:
                self._cache.write(name, self._ask(epoch, must_stop))
            except StopRequested:
                stopped = True
        if self._group.any(stopped, self._images.targets.device):  # the others wait here
            raise StopRequested
        answer = self._cache.read(name)
        assert answer is not None
        device = self._images.targets.device
        if answer.classes is None or answer.maps is None or not self._map_classes:
            self._answer = Answer(answer.logits.to(device))
        else:
            kept = slice(self._map_classes)
            self._answer = Answer(
                answer.logits.to(device), answer.classes[:, kept].to(device), answer.maps[:, kept].to(device)
            )

    def answer(self, index: Tensor, images: Tensor) -> Answer | None:
        """See `Guidance`."""
        kept = self._answer
        assert kept is not None
        logits = kept.logits[index].float()
        if kept.classes is None or kept.maps is None:
            return Answer(logits)
        return Answer(logits, kept.classes[index].long(), kept.maps[index].float())

    def _ask(self, epoch: int, must_stop: Callable[[], bool]) -> Answer:
        view, count, wanted = self._views.draw(epoch), len(self._images), self._classes_to_keep
        everything = torch.arange(count, device=self._images.targets.device)
        answers: list[Answer] = []
        done = 0
        for index, images in self._images.batches(torch.split(everything, _BATCH)):
            if must_stop():
                raise StopRequested
            answers.append(compact(self._teacher(transform(images, view.take(index)), wanted)))
            if len(answers) == 1:
                self._cache.require_room(answers[0], count)
            done += len(index)
            self._progress(done, count)
        logits = torch.cat([answer.logits for answer in answers])
        classes = [answer.classes for answer in answers if answer.classes is not None]
        maps = [answer.maps for answer in answers if answer.maps is not None]
        return Answer(logits, torch.cat(classes), torch.cat(maps)) if maps else Answer(logits)


def classes_to_keep(teacher: Teacher, needed: int) -> int:
    """Of how many classes maps are kept: enough for every method that a later run may try, where that is cheap."""
    if teacher.unexplained is not None:
        return 0
    return max(needed, MOST_PROBABLE) if teacher.most_maps is None else teacher.most_maps
