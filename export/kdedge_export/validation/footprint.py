"""Size and latency of a model file."""

from dataclasses import dataclass

__all__ = ["Footprint"]


@dataclass(frozen=True)
class Footprint:
    """Size, latency and memory of one model file on the validating machine."""

    parameters: int
    """Number of parameters, without buffers."""
    file_mb: float
    """File size in 10^6 bytes."""
    latency_ms: float
    """Median latency of one sample, in milliseconds."""
    threads: int
    """Number of threads used for the latency."""
    peak_memory_mb: float | None
    """Peak memory of a process that loads the runtime and the file and predicts once, in 10^6 bytes. None if the
    operating system does not report it."""
