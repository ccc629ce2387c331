"""CUDA graph capture of repeated work on a GPU.

Small models are bound by the launch overhead of many short kernels. A graph launches all of them at once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["CudaGraphRunner"]

_WARM_UP = 3
"""Number of eager calls before capture, which compile, select algorithms and initialize the optimizer state."""


class CudaGraphRunner:
    """Function of tensors that is captured after its first calls and replayed afterwards.

    It may modify other tensors, such as weights, if their memory addresses stay the same. Inputs are copied to static
    buffers, and outputs are overwritten by the next call.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self._function = function
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor | None, ...] = ()
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """Call the function; shapes and missing inputs must be the same every time."""
        self._calls += 1
        if self._calls <= _WARM_UP:
            return self._aside(inputs)
        if self._graph is None:
            self._inputs = tuple(None if value is None else value.clone() for value in inputs)
            self._graph = torch.cuda.CUDAGraph()
            # Recorded, not executed. Other threads, such as one that pins memory, may continue to use CUDA.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._outputs = self._function(*self._inputs)
        for place, value in zip(self._inputs, inputs, strict=True):
            if place is not None and value is not None:
                place.copy_(value)
        self._graph.replay()
        return self._outputs

    def _aside(self, inputs: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        """Run on a side stream, as required before capture."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs
