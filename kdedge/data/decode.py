"""Picture files to one array, through the geometry that the device uses."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from kdedge.data.problems import Problems, Skipped
from kdedge.data.split import Split
from kdedge_runtime.arrays import Integers, Pixels
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.pictures import UnreadablePicture, load_picture
from kdedge_runtime.preprocess import fit

__all__ = ["Decoded", "Progress", "decode"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of pictures done and their total, on the calling thread."""


@dataclass(frozen=True)
class Decoded:
    """The pictures that could be read, aligned with their classes and files."""

    images: Pixels
    """uint8 RGB `[N, H, W, 3]` at the model's size."""
    targets: Integers
    """`[N]`, index into the labels; -1 where the class is unknown."""
    paths: tuple[Path, ...]
    problems: Problems

    def __len__(self) -> int:
        return len(self.paths)


def decode(split: Split, spec: ImageInput, *, workers: int | None = None, progress: Progress | None = None) -> Decoded:
    """Read every picture at the model's size; bad files are dropped together with their targets.

    Args:
        split: the files and their classes.
        spec: the model's input.
        workers: decoding threads; None takes one a core, eight at most.
        progress: called after every picture.
    """
    images = np.empty((len(split), spec.height, spec.width, 3), dtype=np.uint8)

    def read_into(index: int) -> Skipped | bool:
        """Fill one row; tells whether the picture is grey, or why it is skipped."""
        path = split.paths[index]
        try:
            picture = load_picture(path)
        except UnreadablePicture as error:
            return Skipped(path, error.fault)
        images[index] = fit(picture.pixels, spec)
        return picture.is_grey

    kept: list[int] = []
    grey: list[Path] = []
    skipped: list[Skipped] = []
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for index, outcome in enumerate(pool.map(read_into, range(len(split)))):
            if isinstance(outcome, Skipped):
                skipped.append(outcome)
            else:
                kept.append(index)
                if outcome:
                    grey.append(split.paths[index])
            if progress:
                progress(index + 1, len(split))
    return Decoded(
        images=images[kept] if skipped else images,
        targets=np.array([split.targets[index] for index in kept], dtype=np.int64),
        paths=tuple(split.paths[index] for index in kept),
        problems=Problems(len(split), tuple(skipped), tuple(grey)),
    )
