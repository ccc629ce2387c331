"""Attribution at one stage of a network, by position and by channel."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kdedge_export.inspection.sampled_positions import sampled_positions
from kdedge_export.onnx_graph.graph_index import Array
from kdedge_export.onnx_graph.spatial.spatial_grid import SpatialGrid
from kdedge_runtime.util.arrays import Floats

__all__ = ["Channel", "Attribution", "Way", "by_ablation", "by_gradient", "is_blind"]

Way: TypeAlias = Literal["gradient × activation", "blanking"]
KEPT_CHANNELS = 6
"""Number of channels per stage with their own maps."""
_CANCELLED = 1e-3
"""Remaining fraction of the evidence if channels cancel by construction, due to rounding and a norm's epsilon."""
_BLANKED_BLOCKS = 7
"""Number of blocks per side for ablation; each needs a run of the model."""
_BLANKED_CHANNELS = 24
"""Number of most active channels for ablation; each needs a run of the model."""


@dataclass(frozen=True)
class Channel:
    """Attribution to one channel."""

    index: int
    evidence: float
    """Signed evidence in units of the logit; for ablation, the drop of the logit without the channel."""
    share: float
    """Fraction `|c_k| / Σ_j |c_j|` over the stage's channels; for ablation, over the ablated ones."""
    saliency_map: Floats
    """Map `[h, w]` of its evidence at the read positions; for ablation, its activations with the sign of its
    evidence."""


@dataclass(frozen=True)
class Attribution:
    """Attribution of a class at one stage."""

    saliency_map: Floats
    """Signed map `[h, w]`; positive values are evidence for the class. For gradients without unread rows and columns
    (`read_cells`); for ablation with one coarser position per block."""
    channels: tuple[Channel, ...]
    """Channels with the largest shares, largest first."""
    shares: NDArray[np.float64]
    """Shares of all channels, largest first; they sum to 1, or to 0 without evidence."""
    beside: float | None
    """Share of the evidence in tokens without a position, such as a class token: `Σ |e|` over them and over all.
    None without such tokens, and for ablation."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Displacement of the map's content to the right and down, in map positions; see `read_cells`."""

    def channels_for(self, share: float) -> int:
        """Return the number of channels that carry this share of the evidence."""
        return min(int(np.searchsorted(np.cumsum(self.shares), share - 1e-9)) + 1, len(self.shares))


def by_gradient(grid: SpatialGrid, activations: Array, slope: Array) -> Attribution:
    """Compute gradient × activation.

    Args:
        grid: grid of the activations.
        activations: activations for one image.
        slope: derivative of the class's logit with respect to them.
    """
    slopes = grid.planes(slope)
    read = sampled_positions(slopes)
    evidence = read.of(grid.planes(activations) * slopes)
    by_position = evidence.sum(axis=0)
    by_token = (grid.beside(activations) * grid.beside(slope)).sum(axis=0)
    held, apart = (float(np.abs(values).sum()) for values in (by_position, by_token))
    beside = apart / ((held + apart) or 1.0) if by_token.size else None
    return replace(_ranked(by_position, evidence.sum(axis=(1, 2)), evidence, beside), shift=read.shift)


def is_blind(grid: SpatialGrid, activations: Array, slope: Array) -> bool:
    """Return True if gradient × activation is zero at every position by construction.

    This is the case if the positions do not affect the logit: after the last attention only a class token does. It is
    also the case before each position is normalized separately. The following layers then do not depend on the scale of
    its activations, so that `Σ_k (∂z/∂A_kij) · A_kij`, the derivative with respect to that scale, is zero (Euler).
    After the normalization it is not.
    """
    evidence = grid.planes(activations) * grid.planes(slope)
    return bool(np.abs(evidence.sum(axis=0)).sum() <= _CANCELLED * np.abs(evidence).sum())


def by_ablation(grid: SpatialGrid, activations: Array, logit: Callable[[Array], float]) -> Attribution:
    """Measure the drop of the logit when blocks of positions, or channels, are set to zero.

    Args:
        grid: grid of the activations.
        activations: activations for one image.
        logit: function that returns the class's logit for activations multiplied by a mask of their shape.
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
        falls[row, column] = whole - logit(grid.over_positions(mask, elsewhere=1.0))
    by_channel = np.zeros(len(held))
    for k in np.argsort(-np.abs(held).sum(axis=(1, 2)), kind="stable")[:_BLANKED_CHANNELS]:
        kept = everything.copy()
        kept[k] = 0
        by_channel[k] = whole - logit(grid.over_channels(kept, elsewhere=1.0))
    return _ranked(falls, by_channel, held * np.sign(by_channel)[:, None, None], None)


def _ranked(by_position: Array, by_channel: Array, maps: Array, beside: float | None) -> Attribution:
    total = float(np.abs(by_channel).sum()) or 1.0
    order = np.argsort(-np.abs(by_channel), kind="stable")
    channels = tuple(
        Channel(int(k), float(by_channel[k]), float(abs(by_channel[k]) / total), maps[k].astype(np.float32))
        for k in order[:KEPT_CHANNELS]
    )
    return Attribution(by_position.astype(np.float32), channels, np.abs(by_channel[order]) / total, beside)
