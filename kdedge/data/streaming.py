"""Streaming of samples that do not fit in memory, decoded by worker processes in training order."""

import atexit
import hashlib
import math
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

from kdedge.data.samples import StoredSample
from kdedge.data.splits import Split
from kdedge_runtime.errors import DataError, KdedgeError, UnreadableSample
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.arrays import Targets

__all__ = ["SampleStream", "worker_count", "fits_in_memory", "max_samples_in_memory"]

_SHARE_OF_MEMORY = 0.5
"""Fraction of the memory for samples; the rest is for the model, its activations and other processes."""
_LEFT_TO_MAIN = (signal.SIGINT, signal.SIGTERM)
"""Signals left to the main process; Ctrl-C and service managers signal the whole process group."""


def max_samples_in_memory(spec: InputSpec, memory_bytes: int) -> int:
    """Return the number of samples at the model's input size that fit in half of the memory."""
    return int(_SHARE_OF_MEMORY * memory_bytes) // (math.prod(spec.shape) * spec.dtype.itemsize)


def fits_in_memory(count: int, spec: InputSpec, memory_bytes: int) -> bool:
    """Return True if this number of samples at the model's input size fits in half of the memory."""
    return count <= max_samples_in_memory(spec, memory_bytes)


class SampleStream:
    """Samples of a split, decoded on every access exactly as by `kdedge.data.decoding`.

    Worker processes start with the first batch and persist over epochs, until the stream is closed or the program ends.
    """

    def __init__(self, split: Split, spec: InputSpec, *, workers: int | None = None) -> None:
        """Initialize the stream; nothing is opened yet.

        Args:
            split: samples and their classes.
            spec: input of the model.
            workers: number of decoding processes; None takes one per available core.
        """
        split = split.for_input(spec)
        self.targets: Targets = split.target_array
        """Class indices `[N]`."""
        self._order = _Order(split)
        self._spec = spec
        self._workers = workers or worker_count()
        self._loader: DataLoader[Tensor | str] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def sha256(self) -> str:
        """SHA-256 of the resizing rule and of the names, sizes and modification times of the files, in order."""
        digest = hashlib.sha256(f"{self._spec.preprocessing_id}\n".encode())
        for sample in self._order.split.samples:
            digest.update(f"{sample.name}\0{sample.stamp()}\n".encode())
        return digest.hexdigest()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the samples in reports."""
        return tuple(sample.name for sample in self._order.split.samples)

    def batches(self, order: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Decode batches of samples ahead of time, in exactly this order; only one iteration may be active.

        Args:
            order: sample indices of each batch. A sample may occur several times or not at all.

        Yields:
            uint8 RGB `[n, H, W, 3]` on the CPU, in pinned memory if CUDA is available.

        Raises:
            DataError: a sample cannot be read.
            KdedgeError: A worker process has died.
        """
        self._order.batches = order
        try:
            for batch in self._begun():
                if isinstance(batch, str):
                    raise DataError(f"{batch} Restore the file and continue with --resume, or start again without it.")
                yield batch
        except (RuntimeError, OSError, EOFError) as error:  # torch has no exception type for a dead worker
            self.close()
            raise KdedgeError(
                f"A decoding process has died ({error}). The usual cause is lack of memory, or of /dev/shm in "
                "containers: increase it (docker run --shm-size=8g), or use smaller batches."
            ) from error
        except DataError:
            self.close()
            raise

    def close(self) -> None:
        """Stop the workers; further batches start new ones."""
        loader, self._loader = self._loader, None
        if loader is not None and loader._iterator is not None:
            # Dropping the iterator would suffice without reference cycles; with them torch waits five seconds per
            # worker.
            loader._iterator._shutdown_workers()  # type: ignore[attr-defined]

    def _begun(self) -> Iterator[Tensor | str]:
        if self._loader is not None:
            return iter(self._loader)
        self._loader = DataLoader(
            _Decoder(self._spec),
            batch_size=None,  # an item is already a batch
            sampler=self._order,
            num_workers=self._workers,
            multiprocessing_context=_context(),
            worker_init_fn=_begin_worker,
            persistent_workers=True,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # keeps the global generator, which training uses, unchanged
        )
        iterator = iter(self._loader)
        # Registered after torch's own exit handler, which would wait for each worker as well.
        atexit.register(_close, weakref.ref(self))
        return iterator


class _Order:
    """Sampler of the next batches. It yields samples instead of indices, so that workers need not hold all names."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.batches: Sequence[Sequence[int]] = ()

    def __iter__(self) -> Iterator[list[StoredSample]]:
        for batch in self.batches:
            yield [self.split.samples[index] for index in batch]


class _Decoder(Dataset[Tensor | str]):
    """Dataset that decodes batches in a worker."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec

    def __getitem__(self, samples: Sequence[StoredSample]) -> Tensor | str:
        """Return a batch, or an error message: for an exception torch would print the worker's traceback."""
        values = np.empty((len(samples), *self.spec.shape), self.spec.dtype)
        for row, sample in enumerate(samples):
            try:
                values[row] = self.spec.preprocess(sample.read().values)
            except UnreadableSample as error:
                return str(error)
        return torch.from_numpy(values)


def _begin_worker(_: int) -> None:
    """Ignore signals that the main process handles, and exit when it dies."""
    for number in _LEFT_TO_MAIN:
        signal.signal(number, signal.SIG_IGN)
    # torch's own watchdog mistakes the fork server for the main process.
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(main: Any) -> None:
    main.join()
    os._exit(1)


def _close(stream: Callable[[], SampleStream | None]) -> None:
    if (used := stream()) is not None:
        used.close()


def _context() -> BaseContext:
    """Return a multiprocessing context without plain fork, which could copy locks held by threads."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imports torch once instead of in every worker
    resource_tracker.ensure_running()  # if the fork server started it, it would unblock the signals
    # Workers inherit the blocked signals; ignoring them only on startup would leave a gap.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_MAIN)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def worker_count() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
