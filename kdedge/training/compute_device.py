"""Where a run computes, and how."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from kdedge_runtime.errors import UsageError

__all__ = ["Compute", "choose_compute"]

WINDOWS_BYTES = 8 << 30
"""What is taken to be there where Python cannot tell."""


@dataclass(frozen=True)
class Compute:
    """A device and the precision that pays there."""

    device: torch.device
    bf16: bool
    """Whether forward passes run in bfloat16; losses and weights stay float32."""
    name: str
    compiled: bool = False
    """Whether steps are compiled and replayed as CUDA graphs: faster, after a minute of compiling."""

    @property
    def sharers(self) -> int:
        """How many processes of this training share the machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    @property
    def memory_bytes(self) -> int:
        """What this process may fill: its share of the machine's memory, and what is free of its card's."""
        own = _machine_bytes() // self.sharers
        if self.device.type == "cuda":
            free: int = torch.cuda.mem_get_info(self.device)[0]
            return min(own, free)
        return own

    def autocast(self) -> torch.autocast:
        """The context for forward passes."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)


def _machine_bytes() -> int:
    """The machine's memory, or what the container may have of it."""
    if not hasattr(os, "sysconf"):
        return WINDOWS_BYTES
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    return there if allowed == "max" else min(there, int(allowed))


def choose_compute(name: str = "auto", *, compiled: bool = False) -> Compute:
    """CUDA when there is a card, else the CPU; of several processes each gets a card of its own.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`.
        compiled: see `Compute.compiled`.

    Raises:
        UsageError: CUDA was asked for and is not there, or the name is unknown.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    if name == "cpu":
        if compiled:
            raise UsageError("--compile replays steps as CUDA graphs, but this run computes on the CPU. Leave it out.")
        return Compute(torch.device("cpu"), False, f"CPU, {torch.get_num_threads()} threads")
    if re.fullmatch(r"cuda(:\d+)?", name) is None:
        raise UsageError(f"Unknown device {name!r}. Expected auto, cpu, cuda or cuda:N.")
    if not torch.cuda.is_available():
        raise UsageError(f"Device {name!r} was asked for, but this PyTorch sees no CUDA card. Use --device cpu.")
    device, cards = torch.device(name), torch.cuda.device_count()
    if (device.index or 0) >= cards:
        raise UsageError(f"There is no device {name!r}: the last of {cards} CUDA cards is cuda:{cards - 1}.")
    torch.cuda.set_device(device)
    capability = torch.cuda.get_device_capability(device)
    return Compute(device, capability >= (8, 0), torch.cuda.get_device_name(device), compiled)
