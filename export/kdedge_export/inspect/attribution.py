"""The evidence at one stage of a network: by cell, and by channel."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kdedge_export.inspect.sampled_positions import read_cells
from kdedge_export.onnx_graph.graph_index import Array
from kdedge_export.onnx_graph.spatial.spatial_grid import Grid
from kdedge_runtime.util.arrays import Floats

__all__ = ["Channel", "Evidence", "Way", "by_blanking", "by_gradient", "is_blind"]

Way: TypeAlias = Literal["gradient × activation", "blanking"]
KEPT_CHANNELS = 6
"""Of each stage, with maps of their own."""
_CANCELLED = 1e-3
"""What is left of each cell's evidence where its channels cancel by construction: rounding, and a norm's epsilon."""
_BLANKED_BLOCKS = 7
"""Along a side: each is a run of the model."""
_BLANKED_CHANNELS = 24
"""Of the most active ones, likewise."""


@dataclass(frozen=True)
class Channel:
    """One channel's part in a decision."""

    index: int
    evidence: float
    """Signed, in units of the logit; of blanking, by how much the logit falls without it."""
    share: float
    """`|c_k| / Σ_j |c_j|` over the stage's channels; of blanking, over those that were blanked."""
    saliency_map: Floats
    """`[h, w]`, its evidence by cell that is read; of blanking, its activations with the sign of its evidence."""


@dataclass(frozen=True)
class Evidence:
    """What a stage holds for a class."""

    saliency_map: Floats
    """`[h, w]`, signed: positive cells speak for the class. Of a gradient without the rows and columns that nothing
    reads (`read_cells`); of blanking, a cell a block, which is coarser."""
    channels: tuple[Channel, ...]
    """Those with the largest shares, largest first."""
    shares: NDArray[np.float64]
    """Of all channels, largest first; they add up to 1, or to 0 where there is no evidence."""
    beside: float | None
    """Share of the evidence in tokens that are of no cell, such as a class token: `Σ |e|` over them and over all. None
    where there are none, and of blanking."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Displacement of the map's content to the right and down, in its cells; see `read_cells`."""

    def channels_for(self, share: float) -> int:
        """How many channels carry this much of the evidence."""
        return min(int(np.searchsorted(np.cumsum(self.shares), share - 1e-9)) + 1, len(self.shares))


def by_gradient(grid: Grid, activations: Array, slope: Array) -> Evidence:
    """Gradient times activation.

    Args:
        grid: of the activations.
        activations: of one picture.
        slope: the derivative of the class's logit with respect to them.
    """
    slopes = grid.planes(slope)
    read = read_cells(slopes)
    evidence = read.of(grid.planes(activations) * slopes)
    by_cell = evidence.sum(axis=0)
    by_token = (grid.beside(activations) * grid.beside(slope)).sum(axis=0)
    held, apart = (float(np.abs(values).sum()) for values in (by_cell, by_token))
    beside = apart / ((held + apart) or 1.0) if by_token.size else None
    return replace(_ranked(by_cell, evidence.sum(axis=(1, 2)), evidence, beside), shift=read.shift)


def is_blind(grid: Grid, activations: Array, slope: Array) -> bool:
    """Whether gradient times activation is zero in every cell whatever the picture shows.

    So it is where cells do not move the logit: behind the last attention to them only a class token counts. And so it
    is before each cell is normalised by itself: what follows does not depend on the scale of its activations, so that
    `Σ_k (∂z/∂A_kij) · A_kij`, the derivative with respect to that scale, is zero (Euler). Behind the norm it is not.
    """
    evidence = grid.planes(activations) * grid.planes(slope)
    return bool(np.abs(evidence.sum(axis=0)).sum() <= _CANCELLED * np.abs(evidence).sum())


def by_blanking(grid: Grid, activations: Array, logit: Callable[[Array], float]) -> Evidence:
    """By how much the logit falls when blocks of cells, or channels, are set to zero.

    Args:
        grid: of the activations.
        activations: of one picture.
        logit: the class's logit when the activations are multiplied by a mask of their shape.
    """
    held = grid.planes(activations)
    everything = np.ones(len(held))
    whole = logit(grid.over_channels(everything, elsewhere=1.0))
    rows, columns = min(_BLANKED_BLOCKS, grid.height), min(_BLANKED_BLOCKS, grid.width)
    falls = np.zeros((rows, columns))
    for row, column in np.ndindex(rows, columns):
        mask = np.ones(grid.size)
        mask[
            row * grid.height // rows : (row + 1) * grid.height // rows,
            column * grid.width // columns : (column + 1) * grid.width // columns,
        ] = 0
        falls[row, column] = whole - logit(grid.over_cells(mask, elsewhere=1.0))
    by_channel = np.zeros(len(held))
    for k in np.argsort(-np.abs(held).sum(axis=(1, 2)), kind="stable")[:_BLANKED_CHANNELS]:
        kept = everything.copy()
        kept[k] = 0
        by_channel[k] = whole - logit(grid.over_channels(kept, elsewhere=1.0))
    return _ranked(falls, by_channel, held * np.sign(by_channel)[:, None, None], None)


def _ranked(by_cell: Array, by_channel: Array, maps: Array, beside: float | None) -> Evidence:
    total = float(np.abs(by_channel).sum()) or 1.0
    order = np.argsort(-np.abs(by_channel), kind="stable")
    channels = tuple(
        Channel(int(k), float(by_channel[k]), float(abs(by_channel[k]) / total), maps[k].astype(np.float32))
        for k in order[:KEPT_CHANNELS]
    )
    return Evidence(by_cell.astype(np.float32), channels, np.abs(by_channel[order]) / total, beside)
