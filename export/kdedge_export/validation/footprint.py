"""What a model file takes."""

from dataclasses import dataclass

__all__ = ["Footprint"]


@dataclass(frozen=True)
class Footprint:
    """Size and cost of one model file, where it is validated."""

    parameters: int
    """Weights of the network, without buffers."""
    file_mb: float
    """In 10^6 bytes."""
    latency_ms: float
    """Median of one image."""
    threads: int
    """Of that one inference."""
    peak_memory_mb: float | None
    """Of a process that loads the runtime and the file and answers once, in 10^6 bytes; None where the system does not
    tell."""
