"""The processes of one training: a single one, or those that `torchrun` started."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from kdedge_runtime.errors import UsageError

__all__ = ["Group", "join_group"]

PATIENCE = timedelta(hours=12)
"""How long processes wait for each other: the leader may ask a teacher about a whole data set, or read it."""


@dataclass(frozen=True)
class Group:
    """This process among those that train one student on different parts of every batch."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of `[..., n, *]` rows along dimension 0, whose number the group divides."""
        part = len(rows) // self.size
        return rows[self.rank * part : (self.rank + 1) * part]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in the order of their ranks; gradients flow back to their owners."""
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows.contiguous(), self.rank, self.size)  # type: ignore[no-untyped-call]
        return gathered

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the processes; gradients flow back to all of them."""
        if self.size == 1:
            return value
        total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
        return total

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, in one exchange.

        Students are small: one flat reduction costs less than a hook on each parameter.
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
        """Replace a tensor by its mean over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size

    def agree(self, values: list[float]) -> list[float]:
        """The leader's values: measurements differ from process to process."""
        if self.size == 1:
            return values
        said: list[object] = [values]
        dist.broadcast_object_list(said)
        agreed: list[float] = said[0]  # type: ignore[assignment]
        return agreed

    def stack(self, value: Tensor) -> Tensor:
        """The tensors of all processes on the CPU, `[processes, *]`."""
        if self.size == 1:
            return value[None]
        values: list[Tensor] = [value] * self.size
        dist.all_gather_object(values, value)
        return torch.stack(values)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is up in any process."""
        if self.size == 1:
            return flag
        raised = torch.tensor(float(flag), device=device)
        dist.all_reduce(raised)
        return bool(raised > 0)

    def wait(self) -> None:
        """Until all processes are here."""
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
        """Every process's loss depends on every process's value."""
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
        """Every process's loss depends on every process's rows."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total[context.place], None, None


def join_group(device: torch.device) -> Group:
    """The group that `torchrun` announces in the environment, over NCCL for CUDA and gloo for the CPU.

    Raises:
        UsageError: the environment is incomplete.
    """
    if "WORLD_SIZE" not in os.environ:
        return Group()
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        except (ValueError, RuntimeError) as error:
            raise UsageError(
                f"WORLD_SIZE is set, but the processes do not find each other: {error}. "
                "Start with torchrun --nproc-per-node N -m kdedge distill …, or unset WORLD_SIZE."
            ) from error
    return Group(dist.get_rank(), dist.get_world_size())
