"""Decoding of samples into one array, with the device's preprocessing."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kdedge.data.samples import StoredSample
from kdedge.data.skipped_samples import SkippedSample, SkippedSamples
from kdedge.data.splits import Split
from kdedge_runtime.errors import UnreadableSample
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.arrays import Pixels, Targets
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["DecodedSamples", "decode", "readable"]


@dataclass(frozen=True)
class DecodedSamples:
    """Readable samples, aligned with their targets."""

    samples: Pixels
    """Preprocessed samples `[N, …]`; images are uint8 RGB `[N, H, W, 3]` at the model's input size."""
    targets: Targets
    """Class indices `[N]`; -1 for an unknown class."""
    stored: tuple[StoredSample, ...]
    """The samples as they are stored."""
    problems: SkippedSamples

    def __len__(self) -> int:
        return len(self.stored)


def decode(
    split: Split, spec: InputSpec, *, workers: int | None = None, progress: ProgressCallback = no_progress
) -> DecodedSamples:
    """Decode and preprocess every sample; unreadable samples are dropped with their targets.

    Args:
        split: samples and their classes.
        spec: input of the model.
        workers: number of decoding threads; None takes one per core, at most eight.
        progress: called after every sample.
    """
    split = split.for_input(spec)
    samples = np.empty((len(split), *spec.shape), spec.dtype)

    def keep(index: int, pixels: Pixels) -> None:
        samples[index] = spec.preprocess(pixels)

    kept, problems = _read_all(split, keep, workers, progress)
    for row, index in enumerate(kept):
        if row != index:  # close the gap in place: copying would need twice the memory
            samples[row] = samples[index]
    sound = split.take(kept)
    targets = sound.target_array
    return DecodedSamples(samples=samples[: len(kept)], targets=targets, stored=sound.samples, problems=problems)


def readable(
    split: Split, spec: InputSpec, *, progress: ProgressCallback = no_progress
) -> tuple[Split, SkippedSamples]:
    """Return the readable samples for an input, and a report on the others; each is read once and discarded."""
    split = split.for_input(spec)

    def check(_index: int, pixels: Pixels) -> None:
        spec.preprocess(pixels)  # raises for samples that can be decoded, but not used

    kept, problems = _read_all(split, check, None, progress)
    return split.take(kept), problems


def _read_all(
    split: Split, use: Callable[[int, Pixels], None], workers: int | None, progress: ProgressCallback
) -> tuple[list[int], SkippedSamples]:
    """Read every sample in threads and pass it to `use`; return the indices of readable samples and the problems."""

    def read(index: int) -> SkippedSample | str | None:
        """Return the conversion of the sample, or the reason for skipping it."""
        sample = split.samples[index]
        try:
            loaded = sample.read()
            use(index, loaded.values)
        except UnreadableSample as error:
            return SkippedSample(sample.name, error.fault)
        return loaded.conversion

    kept: list[int] = []
    converted: list[SkippedSample] = []
    skipped: list[SkippedSample] = []
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for index, outcome in enumerate(pool.map(read, range(len(split)))):
            if isinstance(outcome, SkippedSample):
                skipped.append(outcome)
            else:
                kept.append(index)
                if outcome is not None:
                    converted.append(SkippedSample(split.samples[index].name, outcome))
            progress("reading samples", index + 1, len(split))
    return kept, SkippedSamples(len(split), tuple(skipped), tuple(converted))
