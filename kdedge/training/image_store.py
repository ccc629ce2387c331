"""Where pictures are while they are needed: on the device, or streamed to it."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from kdedge.data import Collection, Decoded, Problems, Split, decode, load, load_validation
from kdedge.data.dataset import readable_validation
from kdedge.data.decoding import Progress, readable
from kdedge.data.splits import lowest_ranked
from kdedge.data.streaming import Stream, cores, fits
from kdedge.training.compute_device import Compute
from kdedge.training.distributed import Group
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.util.arrays import Integers, Pixels

__all__ = ["Images", "OnDevice", "Streamed", "images_for_testing", "training_images"]

LEAST_VAL = 2000
"""So many validation pictures are always looked at, if there are."""


class Images(Protocol):
    """Labelled pictures that come in batches."""

    targets: Tensor
    """int64 `[N]` on the device."""
    side: tuple[int, int]
    """Height and width in px."""

    def __len__(self) -> int: ...

    @property
    def sha256(self) -> str:
        """What tells these pictures, in this order, from others."""

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The pictures of each batch of indices int64 `[n]`, as (indices, uint8 RGB `[n, H, W, 3]`) on the device."""

    def close(self) -> None:
        """End what reads in the background."""


class OnDevice:
    """All pictures in the device's memory."""

    def __init__(self, images: Pixels, targets: Integers, device: torch.device) -> None:
        self.pixels = torch.from_numpy(images).to(device)
        self.targets = torch.from_numpy(targets).to(device)
        self.side = (images.shape[1], images.shape[2])

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def sha256(self) -> str:
        """See `Images`: of the pixels themselves."""
        return hashlib.sha256(self.pixels.cpu().numpy().data).hexdigest()

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Images`."""
        for index in order:
            yield index, self.pixels[index]

    def close(self) -> None:
        """See `Images`."""


class Streamed:
    """Pictures that are read from files while the device computes."""

    def __init__(self, stream: Stream, device: torch.device) -> None:
        self._stream = stream
        self.targets = torch.from_numpy(stream.targets).to(device)
        self.side = stream.side

    def __len__(self) -> int:
        return len(self._stream)

    @property
    def sha256(self) -> str:
        """See `Images`: of the names, of the sizes and times of the files, and of how they are read."""
        return self._stream.sha256

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Images`."""
        pictures = self._stream.batches([index.tolist() for index in order])
        for index, images in zip(order, pictures, strict=True):
            yield index, images.to(self.targets.device, non_blocking=True)

    def close(self) -> None:
        """See `Images`."""
        self._stream.close()


def training_images(
    collection: Collection, spec: ImageInput, compute: Compute, group: Group, progress: Progress
) -> tuple[Images, Images, Problems]:
    """The pictures to train on and those to validate on, in memory where they fit and streamed where not.

    Validating on many more pictures than are trained on would take longer than training: a part of each class does.

    Returns:
        Both, and what is wrong with the files that were opened.

    Raises:
        DataError: no readable picture is left of a class, or none at all for validation.
    """
    per_class = max(1, max(LEAST_VAL, len(collection.train)) // max(1, len(collection.labels)))
    if len(collection.val) > per_class * len(collection.labels):
        collection = replace(collection, val=lowest_ranked(collection.val, per_class=per_class, seed=0))
    if _all_fit(len(collection.train) + len(collection.val), spec, compute, group):
        data = load(collection, spec, progress=progress)
        return _on_device(data.train, compute), _on_device(data.val, compute), data.problems
    images = _streamed(collection.train, spec, compute)
    problems = Problems(len(collection.skipped), collection.skipped)
    if not _all_fit(len(collection.val), spec, compute, group):
        side, found = readable_validation(collection, progress=progress)
        return images, _streamed(side, spec, compute), problems + found
    val = load_validation(collection, spec, progress=progress)
    return images, _on_device(val, compute), problems + val.problems


def images_for_testing(
    split: Split, spec: ImageInput, compute: Compute, group: Group, progress: Progress, *, beside: Sequence[Images]
) -> tuple[Images, Problems]:
    """The pictures to test with, in memory where they fit and streamed where not.

    Args:
        split: the pictures and their classes.
        spec: the model's input.
        compute: whose memory counts.
        group: the processes that test together.
        progress: told after every picture.
        beside: what may be in memory already.
    """
    held = sum(len(images) for images in beside if isinstance(images, OnDevice))
    if not _all_fit(held + len(split), spec, compute, group):
        sound, problems = readable(split, progress=progress)  # a damaged one must not end a run that is trained
        return _streamed(sound, spec, compute), problems
    decoded = decode(split, spec, progress=progress)
    return _on_device(decoded, compute), decoded.problems


def _all_fit(count: int, spec: ImageInput, compute: Compute, group: Group) -> bool:
    """All processes must decide alike: one that leaves out damaged files would count others than one that does not."""
    (fit,) = group.agree([float(fits(count, spec, compute.memory_bytes))])
    return bool(fit)


def _on_device(pictures: Decoded, compute: Compute) -> OnDevice:
    return OnDevice(pictures.images, pictures.targets, compute.device)


def _streamed(split: Split, spec: ImageInput, compute: Compute) -> Streamed:
    return Streamed(Stream(split, spec, workers=max(1, cores() // compute.sharers)), compute.device)
