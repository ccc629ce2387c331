"""Proof that an added map is what it claims: it is measured again on the file's own graph.

Three things are compared. The map is computed again in numpy, from the features and the gradient that the graph holds.
The gradient is compared with central differences of the logit. The cells of highest and lowest heat are compared with
what the logit does when their own features change.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from kdedge_export.onnx_graph.graph_index import Array, Probe
from kdedge_export.onnx_graph.graph_input import example_feed
from kdedge_export.onnx_import.classifier_graph import Anatomy
from kdedge_export.onnx_import.feature_edit import DELTA, FEATURES, MASK, with_edited_features
from kdedge_export.onnx_import.graph_methods import RECIPROCAM
from kdedge_export.onnx_import.numpy_methods import map_by_definition
from kdedge_export.onnx_import.saliency_nodes import Saliency
from kdedge_runtime.errors import KdedgeError

__all__ = ["CONFIRMED", "check_map"]

CONFIRMED = 5e-3
"""Largest relative error of a map that counts as confirmed.

Float32 through two dense layers of 4,096 ReLUs is as coarse as 2e-3, and a wrong map is off by its own size.
"""
TOLERANCE = {"float32": 2e-2, "float16": 1e-1}
"""Largest relative error of a map that is written; float32 sums of a hundred million products are as coarse as this."""
QUANTIZED_TOLERANCE = 1e-1
_STEPS = {"float32": (1e-2, 1.0, 1e-1, 1e-3, 3e-2, 3e-3, 1e-4), "float16": (1e-1, 1.0, 3e-1)}
"""Of central differences, in standard deviations of the features, tried in turn: small ones meet fewer kinks, large
ones less noise. No wrong map agrees at any."""
_PICTURES = (3, 4, 5)
"""Seeds of pictures: another one is tried where a kink lies within the smallest step."""
_DIRECTIONS = 6
_EXTREMES = 3
"""Cells of highest heat that are tried, and as many of lowest."""


def check_map(
    original: onnx.ModelProto,
    explained: onnx.ModelProto,
    parts: Anatomy,
    saliency: Saliency,
    name: str,
    side_px: int | None,
) -> float:
    """Measure the map in another way than it is computed, on the file's own graph.

    Args:
        original: the file's graph.
        explained: the same with its map, behind the same input.
        parts: what was found in the original.
        saliency: how the map was added.
        name: the file's, for messages.
        side_px: height and width of the pictures, where the graph leaves them open.

    Returns:
        The largest relative error, on the picture where it is smallest; up to `CONFIRMED` the map is
        proved, above it the logits are too coarse to tell.

    Raises:
        KdedgeError: the map is not what it claims to be.
    """
    wanted = [parts.target, "saliency_map", "explained_class", saliency.features]
    wanted += [saliency.gradient] if saliency.gradient else []
    dtype = parts.values[parts.target].dtype
    edited, quantized = with_edited_features(
        original, parts.target, parts.logits, parts.values[parts.target], without_rounding=saliency.gradient is not None
    )
    run_explained, run_edited = Probe(explained, wanted, name), Probe(edited, [parts.logits], name)
    tolerance = max(TOLERANCE[dtype.name], QUANTIZED_TOLERANCE if quantized else 0.0)
    error = math.inf
    for seed in _PICTURES:
        feed = example_feed(parts.port, side_px, 1, seed)
        found = run_explained(feed)
        features, explained_class = found[parts.target], int(found["explained_class"][0])
        score = _score_of(run_edited, feed | {FEATURES: features}, parts, explained_class)
        error = min(error, _error(found, parts, saliency, score))
        if error <= CONFIRMED:
            break
    if error <= tolerance:
        return error
    raise KdedgeError(
        f"The map of {name} is not what its logits do: relative error {error:.1e}, expected at most {tolerance:.0e}. "
        "Nothing was written. Please report this model."
    )


_Score = Callable[[Array, Array], NDArray[np.float64]]
"""The explained logit of `features · mask + delta` for each delta, `[N]`."""


def _score_of(run_edited: Probe, feed: dict[str, Array], parts: Anatomy, explained_class: int) -> _Score:
    port, dtype = parts.port, parts.values[parts.target].dtype
    image, one_at_a_time = feed[port.name][:1], port.shape[0] is not None

    def run(mask: Array, deltas: Array) -> NDArray[np.float64]:
        edits = {
            port.name: np.repeat(image, len(deltas), axis=0),
            MASK: mask.astype(dtype),
            DELTA: deltas.astype(dtype),
        }
        logits = run_edited(feed | edits)[parts.logits]
        return logits.reshape(len(deltas), -1)[:, explained_class].astype(np.float64)

    def score(mask: Array, deltas: Array) -> NDArray[np.float64]:
        # Large matrices are read once a run, so that a batch takes little longer than one picture.
        groups = np.split(deltas, len(deltas)) if one_at_a_time else [deltas]
        return np.concatenate([run(mask, group) for group in groups])

    return score


def _error(found: dict[str, Array], parts: Anatomy, saliency: Saliency, score: _Score) -> float:
    """The relative error of the map on one picture."""
    saliency_map = found["saliency_map"][0].astype(np.float64)
    if saliency.method == RECIPROCAM:
        return _against_masking(saliency_map, parts, score)
    gradient = None if saliency.gradient is None else found[saliency.gradient]
    expected = map_by_definition(saliency.method, found[saliency.features], gradient, parts.layout)
    formula = _relative_to(saliency_map, np.abs(saliency_map - expected).max())
    if gradient is None or not formula <= CONFIRMED:
        return formula
    looked_at = _LookedAt(parts, found[parts.target][0].astype(np.float64)[None], score)
    of_gradient = _against_differences(gradient[0].astype(np.float64)[None], looked_at, found[parts.target].dtype.name)
    of_cells = _against_changed_cells(saliency_map, looked_at, saliency.method, found[parts.target].dtype.name)
    return max(formula, of_gradient, of_cells)


@dataclass(frozen=True)
class _LookedAt:
    parts: Anatomy
    features: NDArray[np.float64]
    """Of one picture, `[1, …]`."""
    score: _Score

    def slopes(
        self,
        directions: NDArray[np.float64],
        expected: NDArray[np.float64],
        least: NDArray[np.float64],
        steps: Iterable[float],
    ) -> NDArray[np.float64]:
        """Measure the derivative of the logit along changes of the features, each at the step nearest to the expected.

        Args:
            directions: the changes, each in the shape of the features, `[N, …]`.
            expected: the derivatives by the gradient or by the map, `[N]`.
            least: differences at which no other step is tried, `[N]`.
            steps: shares of the change.

        Returns:
            float64 `[N]`.
        """
        everything, nearest = self.parts.layout.over_channels([1.0]), np.full(len(directions), np.inf)
        for step in steps:
            open_ones = np.flatnonzero(~(np.abs(nearest - expected) <= least))
            if not len(open_ones):
                break
            change = step * directions[open_ones]
            up, down = np.split(self.score(everything, np.concatenate([change, -change])), 2)
            measured, wanted = (up - down) / (2 * step), expected[open_ones]
            is_nearer = np.abs(measured - wanted) < np.abs(nearest[open_ones] - wanted)
            nearest[open_ones[is_nearer]] = measured[is_nearer]
        return nearest

    def over_features(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of the cells in the shape of the features, zero for tokens that belong to no part of the picture."""
        shape, prefix = list(self.features.shape), self.parts.layout.prefix
        shape[1] -= prefix
        whole = np.broadcast_to(values, shape)
        return np.pad(whole, ((0, 0), (prefix, 0), (0, 0))) if prefix else whole


def _against_differences(gradient: NDArray[np.float64], looked_at: _LookedAt, dtype: str) -> float:
    """The gradient against what the logit does when features move at random; one for all cells moves all alike."""
    rng = np.random.default_rng(0)
    spread = float(looked_at.features.std()) or 1.0  # of dead features, which any step moves
    steps = [share * spread for share in _STEPS[dtype]]
    slopes = looked_at.over_features(gradient)
    directions = np.concatenate([looked_at.over_features(rng.normal(size=gradient.shape)) for _ in range(_DIRECTIONS)])
    expected = (slopes * directions).reshape(_DIRECTIONS, -1).sum(axis=1)
    measured = looked_at.slopes(directions, expected, 0.5 * CONFIRMED * np.abs(expected), steps)
    # Over random directions this is the length of the gradient's error over the gradient's.
    return float(np.linalg.norm(measured - expected)) / max(float(np.linalg.norm(measured)), 1e-12)


def _against_changed_cells(saliency_map: NDArray[np.float64], looked_at: _LookedAt, method: str, dtype: str) -> float:
    """The hottest and the coldest cells against what the logit does when their features change.

    HiResCAM is the slope of the logit along the features of the cell itself. Grad-CAM is that along the same features
    put on every cell, over the number of cells. Other methods are no slope of the logit.
    """
    if method not in ("gradcam", "hirescam"):
        return 0.0
    layout, most, directions = looked_at.parts.layout, float(np.abs(saliency_map).max()), []
    cells = saliency_map.size if method == "gradcam" else 1
    tried = _extremes(saliency_map)
    for cell in tried:
        mask = np.zeros(saliency_map.shape)
        mask[cell] = 1
        direction = looked_at.features * layout.over_cells(mask, 0.0)
        if method == "gradcam":
            every = layout.over_cells(np.ones(saliency_map.shape), 0.0)
            direction = direction.sum(layout.cell_axes, keepdims=True) * every
        directions.append(direction)
    expected = np.array([saliency_map[cell] for cell in tried]) * cells
    least = np.full(len(tried), 0.5 * CONFIRMED * most * cells)
    measured = looked_at.slopes(np.concatenate(directions), expected, least, _STEPS[dtype])
    return _relative_to(saliency_map, float(np.abs(measured - expected).max()) / cells)


def _against_masking(saliency_map: NDArray[np.float64], parts: Anatomy, score: _Score) -> float:
    """The hottest and the coldest cells against runs in which all other cells of the features are zero."""
    layout = parts.layout
    none, nothing = np.zeros(saliency_map.shape), layout.over_channels([0.0])
    (baseline,) = score(layout.over_cells(none, 1.0), nothing)
    errors = []
    for cell in _extremes(saliency_map):
        mask = none.copy()
        mask[cell] = 1
        (alone,) = score(layout.over_cells(mask, 1.0), nothing)
        errors.append(abs(alone - baseline - saliency_map[cell]))
    return _relative_to(saliency_map, max(errors))


def _extremes(saliency_map: NDArray[np.float64]) -> list[tuple[int, int]]:
    order = np.argsort(saliency_map, axis=None)
    chosen = dict.fromkeys([*order[:_EXTREMES].tolist(), *order[-_EXTREMES:].tolist()])
    return [divmod(int(cell), saliency_map.shape[1]) for cell in chosen]


def _relative_to(saliency_map: NDArray[np.float64], error: float) -> float:
    return float(error / max(float(np.abs(saliency_map).max()), 1e-12))
