"""Pictures to one array, through the geometry that the device uses."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from kdedge.data.samples import Sample
from kdedge.data.splits import Split
from kdedge.data.unreadable_files import Problems, Skipped
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.preprocess import fit
from kdedge_runtime.util.arrays import Integers, Pixels
from kdedge_runtime.util.images import UnreadablePicture

__all__ = ["Decoded", "Progress", "decode", "readable"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of pictures done and their total, on the calling thread."""


@dataclass(frozen=True)
class Decoded:
    """The pictures that could be read, aligned with their classes."""

    images: Pixels
    """uint8 RGB `[N, H, W, 3]` at the model's size."""
    targets: Integers
    """`[N]`, index into the labels; -1 where the class is unknown."""
    samples: tuple[Sample, ...]
    problems: Problems

    def __len__(self) -> int:
        return len(self.samples)


def decode(split: Split, spec: ImageInput, *, workers: int | None = None, progress: Progress | None = None) -> Decoded:
    """Read every picture at the model's size; those that cannot be read are dropped together with their targets.

    Args:
        split: the pictures and their classes.
        spec: the model's input.
        workers: decoding threads; None takes one a core, eight at most.
        progress: called after every picture.
    """
    images = np.empty((len(split), spec.height, spec.width, 3), dtype=np.uint8)

    def keep(index: int, pixels: Pixels) -> None:
        images[index] = fit(pixels, spec)

    kept, problems = _read_all(split, keep, workers, progress)
    for row, index in enumerate(kept):
        if row != index:  # close the gap in place: a copy of the rest would need twice the memory
            images[row] = images[index]
    sound = split.take(kept)
    targets = np.array(sound.targets, dtype=np.int64)
    return Decoded(images=images[: len(kept)], targets=targets, samples=sound.samples, problems=problems)


def readable(split: Split, *, progress: Progress | None = None) -> tuple[Split, Problems]:
    """The pictures that can be read, each read once and forgotten; and what is wrong with the others."""
    kept, problems = _read_all(split, lambda _index, _pixels: None, None, progress)
    return split.take(kept), problems


def _read_all(
    split: Split, use: Callable[[int, Pixels], None], workers: int | None, progress: Progress | None
) -> tuple[list[int], Problems]:
    """Read every picture in threads that give it to `use`; the places of those that could be, and the problems."""

    def read(index: int) -> Skipped | bool:
        """Tells whether the picture is grey, or why it is skipped."""
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
            if progress:
                progress(index + 1, len(split))
    return kept, Problems(len(split), tuple(skipped), tuple(grey))
