"""The pictures that int8 is calibrated on, and those that are held out to measure what it loses."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from kdedge.data import Sample, decode, scan
from kdedge.models.run_folder import is_run, read_run
from kdedge.pipelines.origins import as_model_classes, pictures_of
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.util.arrays import Integers, Pixels, evenly_spaced

__all__ = ["CalibrationPictures", "calibration_pictures"]

CALIBRATION_IMAGES = 256
"""At most; activation ranges of more differ little."""
HELD_OUT_IMAGES = 512
"""At most, and at most a third: of the training side too, but not calibrated on. What quantization loses is measured on
them where something is chosen by it; what validation measures stays untouched."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CalibrationPictures:
    """Training images at the model's size."""

    calibration: Pixels
    """uint8 RGB `[N, H, W, 3]`."""
    held_out: Pixels
    """uint8 RGB `[M, H, W, 3]`, not calibrated on."""
    held_out_samples: tuple[Sample, ...]
    """The files of these."""
    targets: Integers | None
    """Right classes of the held-out ones, as the model counts them; None where they are not known."""
    problems: str | None
    """What is wrong with the files, if anything."""


class TakesPictures(Protocol):
    """A model or a file's metadata."""

    @property
    def input(self) -> ImageInput:
        """Geometry and normalization of its input."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""


def calibration_pictures(
    source: str, trained: TakesPictures, data: str | None, progress: Progress
) -> CalibrationPictures:
    """Evenly spaced training images; never those that the model is validated on.

    Args:
        source: a run folder, a model's name, or a model file.
        trained: that model.
        data: pictures; None takes the run's training side.
        progress: told while pictures are read.

    Raises:
        UsageError: nobody says where the pictures are.
    """
    if data is None and not is_run(Path(source)):
        raise UsageError(
            "Quantization needs pictures to calibrate on, and a model without a run has none. "
            "Name a folder of pictures such as the model will see: --data DIR."
        )
    collection = scan(data or pictures_of(read_run(Path(source)), source), unlabelled_ok=True)
    split = collection.train
    held_out = min(HELD_OUT_IMAGES, len(split) // 3)
    chosen = split.take(evenly_spaced(len(split), CALIBRATION_IMAGES + held_out).tolist())
    count = len(chosen)
    decoded = decode(chosen, trained.input, progress=lambda done, total: progress("reading pictures", done, total))
    aside = np.diff(np.arange(len(decoded) + 1) * held_out // count) > 0  # spread evenly too
    if not aside.any():  # one or two pictures: measured on what it is calibrated on
        aside = np.ones(len(decoded), dtype=bool)
    calibration = decoded.images[~aside] if not aside.all() else decoded.images
    targets = _known_classes(decoded.targets, collection.labels, trained.labels, collection.source)
    problems = str(decoded.problems) if decoded.problems else None
    return CalibrationPictures(
        calibration,
        decoded.images[aside],
        tuple(decoded.samples[index] for index in np.flatnonzero(aside)),
        None if targets is None else targets[aside],
        problems,
    )


def _known_classes(targets: Integers, labels: tuple[str, ...], known: tuple[str, ...], source: str) -> Integers | None:
    """The right classes; None for pictures in no folders, or in folders that are not the model's classes."""
    try:
        return as_model_classes(targets, labels, known, source) if labels else None
    except DataError:
        return None
