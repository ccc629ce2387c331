"""Confidence of a teacher on unlabeled samples, compared with validation samples."""

from dataclasses import dataclass

import torch

from kdedge.data import UNLABELED
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.compute_device import evaluation_batch
from kdedge.training.evaluator import Evaluator
from kdedge.training.sample_store import SampleStore
from kdedge_runtime.util.arrays import evenly_spaced

__all__ = ["TeacherConfidence", "measure_confidence"]

_MAX_SAMPLES = 2000
_CONFIDENT = 0.5
_OTHER_DOMAIN = 0.75
"""Ratio of the mean confidences below which unlabeled samples look like another domain.

Measured: a GTSRB teacher has 0.85 on its validation samples, 0.89 on more signs, 0.49 on Tiny-ImageNet and 0.45 on
ImageNet photos; a Tiny-ImageNet teacher has 0.64, 0.65, and 0.32 on GTSRB.
"""


@dataclass(frozen=True)
class TeacherConfidence:
    """Confidence of a teacher, the probability of its prediction, on unlabeled training samples."""

    samples: int
    """Number of samples, at most 2,000, evenly spaced."""
    mean: float
    """Mean confidence in [0, 1]."""
    share: float
    """Share of samples with a confidence above 0.5."""
    on_val: float
    """Mean confidence on the validation samples."""
    counts: tuple[int, ...]
    """Number of samples predicted as each class."""

    @property
    def warning(self) -> str | None:
        """Warning about samples that look like another domain, or None."""
        if self.mean >= _OTHER_DOMAIN * self.on_val:
            return None
        return (
            f"The teacher's mean confidence is {self.mean:.2f} on the unlabeled samples, but {self.on_val:.2f} on the "
            "validation samples. They look like another domain: check the folder, or remove --unlabeled."
        )

    @property
    def summary(self) -> str:
        """Description for the plan."""
        largest, smallest = max(self.counts), min(self.counts)
        return (
            f"of the teacher: mean {self.mean:.2f} on {self.samples:,} unlabeled samples, {self.on_val:.2f} on "
            f"validation; {self.share:.0%} above {_CONFIDENT}; largest class {largest:,}, smallest {smallest:,}"
        )


def measure_confidence(evaluator: Evaluator, samples: SampleStore) -> TeacherConfidence | None:
    """Evaluate the teacher on unlabeled training samples; None without any, or without comparable predictions.

    Args:
        evaluator: evaluator with the teacher and its outputs on the validation samples.
        samples: training samples.
    """
    task, teacher, val = TRAINING_TASKS[evaluator.task], evaluator.teacher, evaluator.teacher_outputs
    if teacher is None or val is None or not task.accepts_unlabeled:
        return None
    chosen = (samples.targets == UNLABELED).nonzero()[:, 0]
    if not len(chosen):
        return None
    chosen = chosen[torch.from_numpy(evenly_spaced(len(chosen), _MAX_SAMPLES)).to(chosen.device)]
    logits = torch.cat(
        [teacher(batch).logits for _, batch in samples.batches(torch.split(chosen, evaluation_batch(chosen.device)))]
    )
    ours, theirs = task.confidence(logits), task.confidence(val.logits)
    if ours is None or theirs is None:
        return None
    counts = torch.bincount(logits.argmax(dim=1), minlength=logits.shape[1])
    return TeacherConfidence(
        samples=len(chosen),
        mean=float(ours.mean()),
        share=float((ours > _CONFIDENT).float().mean()),
        on_val=float(theirs.mean()),
        counts=tuple(counts.tolist()),
    )
