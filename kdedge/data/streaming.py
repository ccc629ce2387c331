"""Pictures that do not fit in memory, decoded by worker processes in the order that training asks for."""

import atexit
import hashlib
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdedge.data.samples import Sample
from kdedge.data.splits import Split
from kdedge_runtime.errors import DataError, KdedgeError
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.preprocess import fit
from kdedge_runtime.util.arrays import Integers
from kdedge_runtime.util.images import UnreadablePicture

__all__ = ["Stream", "cores", "fits", "most_that_fit"]

_SHARE_OF_MEMORY = 0.5
"""The other half is for the model, its activations and everybody else."""
_LEFT_TO_MAIN = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C and service managers signal the whole process group."""


def most_that_fit(spec: ImageInput, memory_bytes: int) -> int:
    """How many pictures, decoded at the model's size, take at most half of the memory."""
    return int(_SHARE_OF_MEMORY * memory_bytes) // (spec.height * spec.width * 3)


def fits(count: int, spec: ImageInput, memory_bytes: int) -> bool:
    """Whether so many pictures, decoded at the model's size, take at most half of the memory."""
    return count <= most_that_fit(spec, memory_bytes)


class Stream:
    """The pictures of a split, decoded anew whenever they are asked for, as `kdedge.data.decoding` would.

    Worker processes start with the first batch and stay for the next epochs, until the stream is closed or the program
    ends.
    """

    def __init__(self, split: Split, spec: ImageInput, *, workers: int | None = None) -> None:
        """Prepare to read; nothing is opened yet.

        Args:
            split: the pictures and their classes.
            spec: the model's input.
            workers: decoding processes; None takes one for each core that this process may use.
        """
        self.targets: Integers = np.array(split.targets, dtype=np.int64)
        """`[N]`, index into the labels."""
        self.side = (spec.height, spec.width)
        """In px."""
        self._order = _Order(split)
        self._spec = spec
        self._workers = workers or cores()
        self._loader: DataLoader[Tensor | str] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def sha256(self) -> str:
        """Of how pictures are cut and scaled, and of the names, sizes and times of the files, in their order."""
        spec = self._spec
        digest = hashlib.sha256(f"{self.side} {spec.resize} {spec.crop_fraction} {spec.interpolation}\n".encode())
        for sample in self._order.split.samples:
            digest.update(f"{sample.name}\0{sample.stamp()}\n".encode())
        return digest.hexdigest()

    @property
    def names(self) -> tuple[str, ...]:
        """What reports call the pictures."""
        return tuple(sample.name for sample in self._order.split.samples)

    def batches(self, order: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Decode batches of pictures, ahead of their use and in exactly this order; one such iteration at a time.

        Args:
            order: the indices of each batch. A picture may come several times, or not at all.

        Yields:
            uint8 RGB `[n, H, W, 3]` on the CPU, in pinned memory where there is CUDA.

        Raises:
            DataError: a picture cannot be read.
            KdedgeError: a worker is gone.
        """
        self._order.batches = order
        try:
            for batch in self._begun():
                if isinstance(batch, str):
                    raise DataError(
                        f"{batch} Put the same file back and go on with --resume, or start again without it."
                    )
                yield batch
        except (RuntimeError, OSError, EOFError) as error:  # torch has no type of its own for a worker that is gone
            self.close()
            raise KdedgeError(
                f"A process that decodes pictures has ended ({error}). Most often memory has run out, /dev/shm in "
                "containers: give more of it (docker run --shm-size=8g), or use smaller batches."
            ) from error
        except DataError:
            self.close()
            raise

    def close(self) -> None:
        """End the workers; more batches would start others."""
        loader, self._loader = self._loader, None
        if loader is not None and loader._iterator is not None:
            # Dropping it would do, but for reference cycles: then torch waits five seconds for each worker.
            loader._iterator._shutdown_workers()  # type: ignore[attr-defined]

    def _begun(self) -> Iterator[Tensor | str]:
        if self._loader is not None:
            return iter(self._loader)
        self._loader = DataLoader(
            _Decoder(self._spec),
            batch_size=None,  # an item is a batch already
            sampler=self._order,
            num_workers=self._workers,
            multiprocessing_context=_context(),
            worker_init_fn=_begin_worker,
            persistent_workers=True,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # the global one, which training draws from, stays as it is
        )
        iterator = iter(self._loader)
        # What torch has registered to be done at exit, just now, would wait for each worker as well.
        atexit.register(_close, weakref.ref(self))
        return iterator


class _Order:
    """What the workers are to decode next. They get samples and not indices, so that none has to hold all names."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.batches: Sequence[Sequence[int]] = ()

    def __iter__(self) -> Iterator[list[Sample]]:
        for batch in self.batches:
            yield [self.split.samples[index] for index in batch]


class _Decoder(Dataset[Tensor | str]):
    """What a worker does."""

    def __init__(self, spec: ImageInput) -> None:
        self.spec = spec

    def __getitem__(self, samples: Sequence[Sample]) -> Tensor | str:
        """A batch, or what is wrong with a picture: of an exception torch would show the worker's traceback."""
        images = np.empty((len(samples), self.spec.height, self.spec.width, 3), dtype=np.uint8)
        for row, sample in enumerate(samples):
            try:
                images[row] = fit(sample.read().pixels, self.spec)
            except UnreadablePicture as error:
                return str(error)
        return torch.from_numpy(images)


def _begin_worker(_: int) -> None:
    """Leave it to the main process when to end, but do not outlive it."""
    for number in _LEFT_TO_MAIN:
        signal.signal(number, signal.SIG_IGN)
    # torch's own watch takes the server that forks the workers for the main process.
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(main: Any) -> None:
    main.join()
    os._exit(1)


def _close(stream: Callable[[], Stream | None]) -> None:
    if (used := stream()) is not None:
        used.close()


def _context() -> BaseContext:
    """Processes that do not begin as a copy of this one, whose threads may hold locks at that moment."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not by every worker
    resource_tracker.ensure_running()  # started by the server's start, it would let the signals through again
    # Workers inherit what is blocked: ignoring it in their first line, a Ctrl-C could come before.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_MAIN)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
