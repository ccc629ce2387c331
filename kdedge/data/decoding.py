"""Decoding of images into one array, with the device's preprocessing."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kdedge.data.samples import Sample
from kdedge.data.splits import Split
from kdedge.data.unreadable_files import Problems, Skipped
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.preprocess import fit
from kdedge_runtime.util.arrays import Integers, Pixels
from kdedge_runtime.util.images import UnreadablePicture
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["Decoded", "decode", "readable"]


@dataclass(frozen=True)
class Decoded:
    """Readable images, aligned with their classes."""

    images: Pixels
    """Images, uint8 RGB `[N, H, W, 3]` at the model's input size."""
    targets: Integers
    """Class indices `[N]`; -1 for an unknown class."""
    samples: tuple[Sample, ...]
    problems: Problems

    def __len__(self) -> int:
        return len(self.samples)


def decode(
    split: Split, spec: ImageInput, *, workers: int | None = None, progress: ProgressCallback = no_progress
) -> Decoded:
    """Decode every image at the model's input size; unreadable images are dropped with their targets.

    Args:
        split: Images and their classes.
        spec: Input of the model.
        workers: Number of decoding threads; None takes one per core, at most eight.
        progress: Called after every image.
    """
    images = np.empty((len(split), spec.height, spec.width, 3), dtype=np.uint8)

    def keep(index: int, pixels: Pixels) -> None:
        images[index] = fit(pixels, spec)

    kept, problems = _read_all(split, keep, workers, progress)
    for row, index in enumerate(kept):
        if row != index:  # close the gap in place: copying would need twice the memory
            images[row] = images[index]
    sound = split.take(kept)
    targets = np.array(sound.targets, dtype=np.int64)
    return Decoded(images=images[: len(kept)], targets=targets, samples=sound.samples, problems=problems)


def readable(split: Split, *, progress: ProgressCallback = no_progress) -> tuple[Split, Problems]:
    """Return the readable images and a report on the others; each image is read once and discarded."""
    kept, problems = _read_all(split, lambda _index, _pixels: None, None, progress)
    return split.take(kept), problems


def _read_all(
    split: Split, use: Callable[[int, Pixels], None], workers: int | None, progress: ProgressCallback
) -> tuple[list[int], Problems]:
    """Read every image in threads and pass it to `use`; return the indices of readable images and the problems."""

    def read(index: int) -> Skipped | bool:
        """Return whether the image is grayscale, or the reason for skipping it."""
        sample = split.samples[index]
        try:
            picture = sample.read()
        except UnreadablePicture as error:
            return Skipped(sample.name, error.fault)
        use(index, picture.pixels)
        return picture.is_grey

    kept: list[int] = []
    grey: list[str] = []
    skipped: list[Skipped] = []
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for index, outcome in enumerate(pool.map(read, range(len(split)))):
            if isinstance(outcome, Skipped):
                skipped.append(outcome)
            else:
                kept.append(index)
                if outcome:
                    grey.append(split.samples[index].name)
            progress("reading images", index + 1, len(split))
    return kept, Problems(len(split), tuple(skipped), tuple(grey))
