"""Verification of an added map by independent measurements on the file's own graph.

Three comparisons are made. The map is recomputed in numpy from the graph's features and gradient. The gradient is
compared with central differences of the logit. The highest and lowest map positions are compared with the change of the
logit when their own features change.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from kdedge_export.onnx_graph.graph_index import Array, TensorProbe
from kdedge_export.onnx_graph.graph_input import make_example_feed
from kdedge_export.onnx_import.classifier_graph import ClassifierGraph
from kdedge_export.onnx_import.feature_edit import DELTA, FEATURES, MASK, with_edited_features
from kdedge_export.onnx_import.numpy_methods import map_by_definition
from kdedge_export.onnx_import.saliency_nodes import SaliencyNodes
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.saliency_methods import RECIPROCAM

__all__ = ["CONFIRMED", "check_map"]

CONFIRMED = 5e-3
"""Largest relative error of a verified map.

Float32 through two dense layers of 4,096 ReLUs has errors of 2e-3, while a wrong map is off by its own magnitude.
"""
TOLERANCE = {"float32": 2e-2, "float16": 1e-1}
"""Largest relative error of a map that is written; float32 sums of a hundred million products have errors of this
size."""
QUANTIZED_TOLERANCE = 1e-1
_STEPS = {"float32": (1e-2, 1.0, 1e-1, 1e-3, 3e-2, 3e-3, 1e-4), "float16": (1e-1, 1.0, 3e-1)}
"""Step sizes of the central differences, in standard deviations of the features, tried in turn. Small ones cross
fewer kinks, large ones are less noisy. A wrong map agrees at none."""
_IMAGES = (3, 4, 5)
"""Seeds of the images; another image is tried if a kink lies within the smallest step."""
_DIRECTIONS = 6
_EXTREMES = 3
"""Number of highest and of lowest map positions to test."""


def check_map(
    original: onnx.ModelProto,
    explained: onnx.ModelProto,
    parts: ClassifierGraph,
    saliency: SaliencyNodes,
    name: str,
    side_px: int | None,
) -> float:
    """Verify the map by independent measurements on the file's own graph.

    Args:
        original: the file's graph.
        explained: the graph with its map and the same input.
        parts: analysis of the original.
        saliency: description of the added map.
        name: file name for messages.
        side_px: input size in pixels, if the graph leaves it dynamic.

    Returns:
        The largest relative error, on the image where it is smallest. Up to `CONFIRMED` the map is verified; above, the
            logits are too coarse to decide.

    Raises:
        KdedgeError: the map is wrong.
    """
    wanted = [parts.target, "saliency_map", "explained_class", saliency.features]
    wanted += [saliency.gradient] if saliency.gradient else []
    dtype = parts.values[parts.target].dtype
    edited, quantized = with_edited_features(
        original, parts.target, parts.logits, parts.values[parts.target], without_rounding=saliency.gradient is not None
    )
    run_explained, run_edited = TensorProbe(explained, wanted, name), TensorProbe(edited, [parts.logits], name)
    tolerance = max(TOLERANCE[dtype.name], QUANTIZED_TOLERANCE if quantized else 0.0)
    error = math.inf
    for seed in _IMAGES:
        feed = make_example_feed(parts.port, side_px, 1, seed)
        found = run_explained(feed)
        features, explained_class = found[parts.target], int(found["explained_class"][0])
        score = _score_of(run_edited, feed | {FEATURES: features}, parts, explained_class)
        error = min(error, _error(found, parts, saliency, score))
        if error <= CONFIRMED:
            break
    if error <= tolerance:
        return error
    raise KdedgeError(
        f"The map of {name} does not match the behavior of its logits: relative error {error:.1e}, expected at most "
        f"{tolerance:.0e}. Nothing was written. Please report this model."
    )


_Score = Callable[[Array, Array], NDArray[np.float64]]
"""Function that returns the explained logit of `features · mask + delta` for each delta, `[N]`."""


def _score_of(run_edited: TensorProbe, feed: dict[str, Array], parts: ClassifierGraph, explained_class: int) -> _Score:
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
        # Large matrices are read once per run, so a batch takes little longer than one image.
        groups = np.split(deltas, len(deltas)) if one_at_a_time else [deltas]
        return np.concatenate([run(mask, group) for group in groups])

    return score


def _error(found: dict[str, Array], parts: ClassifierGraph, saliency: SaliencyNodes, score: _Score) -> float:
    """Return the relative error of the map on one image."""
    saliency_map = found["saliency_map"][0].astype(np.float64)
    if saliency.method == RECIPROCAM:
        return _against_masking(saliency_map, parts, score)
    gradient = None if saliency.gradient is None else found[saliency.gradient]
    expected = map_by_definition(saliency.method, found[saliency.features], gradient, parts.layout)
    formula = _relative_to(saliency_map, np.abs(saliency_map - expected).max())
    if gradient is None or not formula <= CONFIRMED:
        return formula
    probed = _ProbedFeatures(parts, found[parts.target][0].astype(np.float64)[None], score)
    of_gradient = _against_differences(gradient[0].astype(np.float64)[None], probed, found[parts.target].dtype.name)
    of_positions = _against_changed_positions(saliency_map, probed, saliency.method, found[parts.target].dtype.name)
    return max(formula, of_gradient, of_positions)


@dataclass(frozen=True)
class _ProbedFeatures:
    parts: ClassifierGraph
    features: NDArray[np.float64]
    """Features of one image, `[1, …]`."""
    score: _Score

    def slopes(
        self,
        directions: NDArray[np.float64],
        expected: NDArray[np.float64],
        least: NDArray[np.float64],
        steps: Iterable[float],
    ) -> NDArray[np.float64]:
        """Measure the derivative of the logit along changes of the features, at the step closest to the expected value.

        Args:
            directions: changes of the features, `[N, …]`.
            expected: derivatives according to the gradient or the map, `[N]`.
            least: differences below which no other step is tried, `[N]`.
            steps: step sizes relative to the change.

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
        """Expand values of spatial positions to the shape of the features, zero for prefix tokens."""
        shape, prefix = list(self.features.shape), self.parts.layout.prefix
        shape[1] -= prefix
        whole = np.broadcast_to(values, shape)
        return np.pad(whole, ((0, 0), (prefix, 0), (0, 0))) if prefix else whole


def _against_differences(gradient: NDArray[np.float64], probed: _ProbedFeatures, dtype: str) -> float:
    """Compare the gradient with the change of the logit along random directions, shared by all positions if it is."""
    rng = np.random.default_rng(0)
    spread = float(probed.features.std()) or 1.0  # for constant features, which any step changes
    steps = [share * spread for share in _STEPS[dtype]]
    slopes = probed.over_features(gradient)
    directions = np.concatenate([probed.over_features(rng.normal(size=gradient.shape)) for _ in range(_DIRECTIONS)])
    expected = (slopes * directions).reshape(_DIRECTIONS, -1).sum(axis=1)
    measured = probed.slopes(directions, expected, 0.5 * CONFIRMED * np.abs(expected), steps)
    # Over random directions this estimates the norm of the gradient's error relative to the gradient's.
    return float(np.linalg.norm(measured - expected)) / max(float(np.linalg.norm(measured)), 1e-12)


def _against_changed_positions(
    saliency_map: NDArray[np.float64], probed: _ProbedFeatures, method: str, dtype: str
) -> float:
    """Compare the extreme map positions with the change of the logit when their features change.

    HiResCAM is the derivative of the logit along the features of the position itself. Grad-CAM is the derivative along
    the same features placed at every position, divided by the number of positions. Other methods are not derivatives of
    the logit.
    """
    if method not in ("gradcam", "hirescam"):
        return 0.0
    layout, most, directions = probed.parts.layout, float(np.abs(saliency_map).max()), []
    positions = saliency_map.size if method == "gradcam" else 1
    tried = _extremes(saliency_map)
    for position in tried:
        mask = np.zeros(saliency_map.shape)
        mask[position] = 1
        direction = probed.features * layout.over_positions(mask, 0.0)
        if method == "gradcam":
            every = layout.over_positions(np.ones(saliency_map.shape), 0.0)
            direction = direction.sum(layout.position_axes, keepdims=True) * every
        directions.append(direction)
    expected = np.array([saliency_map[position] for position in tried]) * positions
    least = np.full(len(tried), 0.5 * CONFIRMED * most * positions)
    measured = probed.slopes(np.concatenate(directions), expected, least, _STEPS[dtype])
    return _relative_to(saliency_map, float(np.abs(measured - expected).max()) / positions)


def _against_masking(saliency_map: NDArray[np.float64], parts: ClassifierGraph, score: _Score) -> float:
    """Compare the extreme map positions with runs in which the features of all other positions are zero."""
    layout = parts.layout
    none, nothing = np.zeros(saliency_map.shape), layout.over_channels([0.0])
    (baseline,) = score(layout.over_positions(none, 1.0), nothing)
    errors = []
    for position in _extremes(saliency_map):
        mask = none.copy()
        mask[position] = 1
        (alone,) = score(layout.over_positions(mask, 1.0), nothing)
        errors.append(abs(alone - baseline - saliency_map[position]))
    return _relative_to(saliency_map, max(errors))


def _extremes(saliency_map: NDArray[np.float64]) -> list[tuple[int, int]]:
    order = np.argsort(saliency_map, axis=None)
    chosen = dict.fromkeys([*order[:_EXTREMES].tolist(), *order[-_EXTREMES:].tolist()])
    return [divmod(int(position), saliency_map.shape[1]) for position in chosen]


def _relative_to(saliency_map: NDArray[np.float64], error: float) -> float:
    return float(error / max(float(np.abs(saliency_map).max()), 1e-12))
