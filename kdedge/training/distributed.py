"""Process group of a training run: a single process, or those started by `torchrun`."""

import atexit
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from kdedge_runtime.errors import UsageError

__all__ = ["ProcessGroup", "join_process_group"]

Result = TypeVar("Result")

TIMEOUT = timedelta(hours=12)
"""Timeout for communication; the main process may evaluate a teacher on a whole dataset, or read it."""


@dataclass(frozen=True)
class ProcessGroup:
    """Process group that trains one student on different parts of every batch."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """True for the main process, which writes files and prints."""
        return self.rank == 0

    def shard(self, rows: Tensor) -> Tensor:
        """Return this process's part of rows `[..., n, *]` along dimension 0, whose length the group size divides."""
        part = len(rows) // self.size
        return rows[self.rank * part : (self.rank + 1) * part]

    def gather(self, rows: Tensor) -> Tensor:
        """Gather the rows of all processes in rank order; gradients flow back to their owners."""
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows.contiguous(), self.rank, self.size)  # type: ignore[no-untyped-call]
        return gathered

    def total(self, value: Tensor) -> Tensor:
        """Sum a tensor over the processes; gradients flow back to all of them."""
        if self.size == 1:
            return value
        total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
        return total

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, in one reduction.

        Students are small: one flat reduction costs less than a hook per parameter.
        """
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self.mean(flat)
        means = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, value: Tensor) -> None:
        """Average a tensor over the processes in place."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size

    def broadcast(self, values: list[float]) -> list[float]:
        """Broadcast the main process's values, since measurements differ between processes."""
        if self.size == 1:
            return values
        shared: list[object] = [values]
        dist.broadcast_object_list(shared)
        agreed: list[float] = shared[0]  # type: ignore[assignment]
        return agreed

    def stack(self, value: Tensor) -> Tensor:
        """Stack the tensors of all processes on the CPU, `[processes, *]`."""
        if self.size == 1:
            return value[None]
        values: list[Tensor] = [value] * self.size
        dist.all_gather_object(values, value)
        return torch.stack(values)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return True if the flag is set in any process."""
        if self.size == 1:
            return flag
        raised = torch.tensor(float(flag), device=device)
        dist.all_reduce(raised)
        return bool(raised > 0)

    def main_first(self, work: Callable[[], Result]) -> Result:
        """Call a function in the main process, and afterwards in the others, which then find what it downloaded."""
        if not self.is_main:
            self.wait()
        try:
            return work()
        finally:  # after an error too, so that every process reports it
            if self.is_main:
                self.wait()

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """Sum the gradients, since every process's loss depends on every process's value."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor, rank: int, size: int) -> Tensor:
        context.place = slice(rank * len(rows), (rank + 1) * len(rows))
        parts = [torch.empty_like(rows) for _ in range(size)]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Sum the gradients, since every process's loss depends on every process's rows."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total[context.place], None, None


def join_process_group(device: torch.device) -> ProcessGroup:
    """Join the group that `torchrun` defines in the environment, with NCCL for CUDA and gloo for the CPU.

    Raises:
        UsageError: the environment is incomplete.
    """
    if "WORLD_SIZE" not in os.environ:
        return ProcessGroup()
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        except (ValueError, RuntimeError) as error:
            raise UsageError(
                f"WORLD_SIZE is set, but the processes cannot connect: {error}. "
                "Start with torchrun --nproc-per-node N -m kdedge distill …, or unset WORLD_SIZE."
            ) from error
        atexit.register(dist.destroy_process_group)  # threads of gloo that outlive the interpreter abort the process
    return ProcessGroup(dist.get_rank(), dist.get_world_size())
