"""Storage of samples during training: in device memory, or streamed to it."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from kdedge.data import DatasetIndex, DecodedSamples, SkippedSamples, Split, decode, load, load_validation
from kdedge.data.dataset import readable_validation
from kdedge.data.decoding import readable
from kdedge.data.samples import StoredSample
from kdedge.data.splits import lowest_ranked
from kdedge.data.streaming import SampleStream, fits_in_memory, worker_count
from kdedge.training.compute_device import ComputeDevice
from kdedge.training.distributed import ProcessGroup
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.arrays import Pixels, Targets
from kdedge_runtime.util.progress import ProgressCallback

__all__ = [
    "DeviceSamples",
    "SampleStore",
    "StreamedSamples",
    "TrainingSamples",
    "WindowCount",
    "load_evaluation_samples",
    "load_training_samples",
]

MIN_VAL = 2000
"""Minimum number of validation samples to use, if available."""


class TrainingSamples(NamedTuple):
    """Samples of a run, and how they came from the stored ones."""

    train: "SampleStore"
    val: "SampleStore"
    problems: SkippedSamples
    """Report of unreadable samples."""
    windows: "WindowCount"


class WindowCount(NamedTuple):
    """Windows among the samples; unreadable ones are not counted if the samples are in memory."""

    windows: int
    stored: int
    """Number of stored samples that they are cut from."""

    @classmethod
    def of(cls, *splits: Iterable[StoredSample]) -> Self:
        """Count the windows of splits."""
        cut = [sample.cut_from for split in splits for sample in split if sample.cut_from is not None]
        return cls(len(cut), len(set(cut)))


class SampleStore(Protocol):
    """Labeled samples, served in batches."""

    targets: Tensor
    """Class indices, int64 `[N]` on the device."""

    def __len__(self) -> int: ...

    @property
    def sha256(self) -> str:
        """Hash that identifies the samples and their order."""

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each batch of indices, int64 `[n]` as (indices, samples)."""

    def close(self) -> None:
        """Stop background workers."""


class DeviceSamples:
    """Samples held in device memory."""

    def __init__(self, samples: Pixels, targets: Targets, device: torch.device) -> None:
        self.pixels = torch.from_numpy(samples).to(device)
        self.targets = torch.from_numpy(targets).to(device)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def sha256(self) -> str:
        """Hash of the pixels; see `SampleStore`."""
        return hashlib.sha256(self.pixels.cpu().numpy().data).hexdigest()

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches; see `SampleStore`."""
        for index in order:
            yield index, self.pixels[index]

    def close(self) -> None:
        """Do nothing; see `SampleStore`."""


class StreamedSamples:
    """Samples read from files by background workers during training."""

    def __init__(self, stream: SampleStream, device: torch.device) -> None:
        self._stream = stream
        self.targets = torch.from_numpy(stream.targets).to(device)

    def __len__(self) -> int:
        return len(self._stream)

    @property
    def sha256(self) -> str:
        """Hash of names, file sizes, modification times and decoding settings; see `SampleStore`."""
        return self._stream.sha256

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches; see `SampleStore`."""
        batches = self._stream.batches([index.tolist() for index in order])
        for index, samples in zip(order, batches, strict=True):
            yield index, samples.to(self.targets.device, non_blocking=True)

    def close(self) -> None:
        """Stop background workers; see `SampleStore`."""
        self._stream.close()


def load_training_samples(
    dataset: DatasetIndex, spec: InputSpec, compute: ComputeDevice, group: ProcessGroup, progress: ProgressCallback
) -> TrainingSamples:
    """Load training and validation samples into memory if they fit, otherwise stream them.

    If the validation split is much larger than the training split, a part of each class is used, to limit its cost.

    Raises:
        DataError: A class has no readable samples, or the validation split has none.
    """
    classes = len(set(dataset.val.targets)) if TASKS[dataset.task].has_classes else 0
    per_class = max(1, max(MIN_VAL, len(dataset.train)) // max(1, classes))
    if len(dataset.val) > per_class * classes:
        dataset = replace(dataset, val=lowest_ranked(dataset.val, per_class=per_class, seed=0))
    train, side = dataset.train.for_input(spec), dataset.val.for_input(spec)
    dataset = replace(dataset, train=train, val=side)
    if _all_fit(len(dataset.train) + len(dataset.val), spec, compute, group):
        data = load(dataset, spec, progress=progress)
        windows = WindowCount.of(data.train.stored, data.val.stored)
        return TrainingSamples(_on_device(data.train, compute), _on_device(data.val, compute), data.problems, windows)
    samples = _streamed(dataset.train, spec, compute)
    problems = SkippedSamples(len(dataset.skipped), dataset.skipped)
    if not _all_fit(len(dataset.val), spec, compute, group):
        side, found = readable_validation(dataset, spec, progress=progress)
        windows = WindowCount.of(train.samples, side.samples)
        return TrainingSamples(samples, _streamed(side, spec, compute), problems + found, windows)
    val = load_validation(dataset, spec, progress=progress)
    windows = WindowCount.of(train.samples, val.stored)
    return TrainingSamples(samples, _on_device(val, compute), problems + val.problems, windows)


def load_evaluation_samples(
    split: Split,
    spec: InputSpec,
    compute: ComputeDevice,
    group: ProcessGroup,
    progress: ProgressCallback,
    *,
    beside: Sequence[SampleStore],
) -> tuple[SampleStore, SkippedSamples]:
    """Load test samples into memory if they fit, otherwise stream them.

    Args:
        split: samples and their targets.
        spec: input of the model.
        compute: device with its memory limit.
        group: processes that test together.
        progress: called after every sample.
        beside: stores that may already be in memory.
    """
    held = sum(len(samples) for samples in beside if isinstance(samples, DeviceSamples))
    if not _all_fit(held + len(split), spec, compute, group):
        sound, problems = readable(split, spec, progress=progress)  # a damaged file must not end a run after training
        return _streamed(sound, spec, compute), problems
    decoded = decode(split, spec, progress=progress)
    return _on_device(decoded, compute), decoded.problems


def _all_fit(count: int, spec: InputSpec, compute: ComputeDevice, group: ProcessGroup) -> bool:
    """Return whether the samples fit in memory; all processes agree, as only in-memory loading drops damaged files."""
    (fit,) = group.broadcast([float(fits_in_memory(count, spec, compute.memory_bytes))])
    return bool(fit)


def _on_device(decoded: DecodedSamples, compute: ComputeDevice) -> DeviceSamples:
    return DeviceSamples(decoded.samples, decoded.targets, compute.device)


def _streamed(split: Split, spec: InputSpec, compute: ComputeDevice) -> StreamedSamples:
    return StreamedSamples(SampleStream(split, spec, workers=max(1, worker_count() // compute.sharers)), compute.device)
