"""Proof that surgery changed nothing and added what it says: both graphs are run, and the map is measured again."""

import math
from collections.abc import Callable

import numpy as np
import onnx

from kdedge_export.errors import HeadNotSupported
from kdedge_export.surgery.anatomy import Anatomy
from kdedge_export.surgery.edit import DELTA, MASK, with_edited_features
from kdedge_export.surgery.front import PixelInput, normalised
from kdedge_export.surgery.port import example_feed
from kdedge_export.surgery.saliency import Saliency
from kdedge_export.surgery.view import Array, Probe
from kdedge_runtime.errors import KdedgeError, ModelFileError
from kdedge_runtime.metadata import ImageInput

__all__ = ["check_map", "check_other_size", "check_outputs"]

OUTPUT_TOLERANCE = {"float32": 1e-6, "float16": 2e-3}
"""Largest difference of the file's own outputs, relative to their range: sums in another order."""
FRONT_TOLERANCE = 1e-3
"""The same behind a new front: `(pixel − 255·mean) / (255·std)` is rounded otherwise than in double precision."""
MAP_TOLERANCE = {"float32": 2e-2, "float16": 1e-1}
"""Of Grad-CAM's channel weights against central differences, relative to their size; float32 sums of a
hundred million products are as coarse as this."""
QUANTIZED_TOLERANCE = 1e-1
_STEPS = {"float32": (1e-2, 1.0, 1e-1, 1e-3, 1e-4), "float16": (1e-1, 1.0)}
"""Of central differences, in standard deviations of the features, tried in turn: small ones meet fewer kinks, large
ones less noise."""
_PICTURES = (3, 4, 5)
"""Seeds of pictures: another one is tried where a kink lies within the smallest step, which no wrong map outlives."""
_DIRECTIONS = 6
_CELLS = 6


def check_outputs(
    original: onnx.ModelProto,
    explained: onnx.ModelProto,
    parts: Anatomy,
    name: str,
    side_px: int | None,
    front: tuple[PixelInput, ImageInput] | None,
) -> float:
    """Run both graphs on random pictures, one and three at a time where the batch is open.

    Args:
        original: the file's graph.
        explained: the same after surgery.
        parts: what was found in the original.
        name: the file's, for messages.
        side_px: height and width of the pictures, where the graph leaves them open.
        front: how pixels become the original's input, and the input of the explained graph; None where it kept its own.

    Returns:
        The largest error of the file's own outputs, relative to their range.

    Raises:
        KdedgeError: an output that the file had is another one now.
    """
    own = [value.name for value in original.graph.output]
    worst, tolerance = 0.0, OUTPUT_TOLERANCE["float32"] if front is None else FRONT_TOLERANCE
    run_before, run_after = Probe(original, own, name), Probe(explained, own, name)
    for seed, images in ((1, 1), (2, 3)):
        feed = example_feed(parts.port, side_px, images, seed)
        fed = feed
        if front is not None:
            pixels, spec = front
            shape = (len(feed[parts.port.name]), spec.height, spec.width, 3)
            fed = {spec.name: np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)}
            feed = {parts.port.name: normalised(fed[spec.name], parts.port, pixels)}
        before, after = run_before(feed), run_after(fed)
        for output in own:
            half = before[output].dtype == np.float16 or parts.values[parts.target].dtype == np.float16
            tolerance = max(tolerance, OUTPUT_TOLERANCE["float16" if half else "float32"])
            worst = max(worst, _relative(after[output], before[output]))
    if not worst <= tolerance:
        raise KdedgeError(
            f"After surgery {name} gives other answers: relative error {worst:.1e}, expected at most {tolerance:.0e}. "
            "Nothing was written. Please report this model."
        )
    return worst


def check_other_size(
    original: onnx.ModelProto, explained: onnx.ModelProto, parts: Anatomy, name: str, side_px: int | None
) -> None:
    """Where the graph leaves its input's size open and takes pictures larger than the example's, so must ours.

    Args:
        original: the file's graph.
        explained: the same with its map, behind the same input.
        parts: what was found in the original.
        name: the file's, for messages.
        side_px: height and width of the example.

    Raises:
        HeadNotSupported: the map can be had at the example's size only.
    """
    if parts.port.has_size:
        return
    height = example_feed(parts.port, side_px)[parts.port.name].shape[1 if parts.port.layout == "NHWC" else 2]
    feed = example_feed(parts.port, height + height // parts.cells[0], 1)  # by a cell larger
    try:
        Probe(original, [parts.logits], name)(feed)
    except ModelFileError:
        return  # weights, such as those of positions, fix the size that the input leaves open
    try:
        Probe(explained, ["saliency_map"], name)(feed)
    except ModelFileError as error:
        raise HeadNotSupported(
            f"{name} takes pictures of any size, but its map can be had at {height} px only ({error}) Export it for "
            "one size, or say how pixels become its input, which fixes the size: --mean, --std, --size."
        ) from error


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
        The largest error, relative to the largest value: of Grad-CAM's channel weights against central differences of
        the logit, of ReciproCAM's cells against runs in which the other features are masked.

    Raises:
        KdedgeError: the map is not what it says to be.
    """
    wanted = [parts.target, "saliency_map", "explained_class", *([saliency.weights] if saliency.weights else [])]
    dtype = parts.values[parts.target].dtype
    edited, quantized = with_edited_features(
        original, parts.target, parts.logits, parts.values[parts.target], without_rounding=saliency.weights is not None
    )
    run_explained, run_edited = Probe(explained, wanted, name), Probe(edited, [parts.logits], name)
    tolerance = max(MAP_TOLERANCE[dtype.name], QUANTIZED_TOLERANCE if quantized else 0.0)
    error = math.inf
    for seed in _PICTURES:
        feed = example_feed(parts.port, side_px, 1, seed)
        found = run_explained(feed)
        score = _score_of(run_edited, feed, parts, int(found["explained_class"][0]))
        if saliency.weights is None:
            error = min(error, _against_masking(found["saliency_map"], parts, score))
            if error <= tolerance:
                return error
            continue
        spread = float(found[parts.target][0].astype(np.float64).std())
        for share in _STEPS[dtype.name]:
            error = min(error, _against_differences(found[saliency.weights], parts, score, share * spread))
            if error <= tolerance:
                return error
    way = "masking features" if saliency.weights is None else "central differences"
    raise KdedgeError(
        f"The map of {name} is not what its logits do: relative error {error:.1e} against {way}, expected at most "
        f"{tolerance:.0e}. Nothing was written. Please report this model."
    )


_Score = Callable[[Array, Array], float]
"""The explained logit of `features · mask + delta`."""


def _score_of(run_edited: Probe, feed: dict[str, Array], parts: Anatomy, explained_class: int) -> _Score:
    dtype = parts.values[parts.target].dtype

    def score(mask: Array, delta: Array) -> float:
        logits = run_edited(feed | {MASK: mask.astype(dtype), DELTA: delta.astype(dtype)})[parts.logits]
        return float(logits.reshape(len(logits), -1)[0, explained_class])

    return score


def _against_differences(weights: Array, parts: Anatomy, score: _Score, step: float) -> float:
    """Channel weights against what the logit does when all cells of the channels are moved a little at once."""
    rng, layout = np.random.default_rng(0), parts.layout
    everything, cells = layout.over_channels([1.0]), layout.over_cells(np.ones(parts.cells), 0.0)
    summed = weights[0].astype(np.float64).ravel() * math.prod(parts.cells)
    errors, sizes = [], []
    for _ in range(_DIRECTIONS):
        direction = rng.normal(size=summed.size)
        moved = step * layout.over_channels(direction) * cells
        measured = (score(everything, moved) - score(everything, -moved)) / (2 * step)
        errors.append(abs(measured - float(direction @ summed)))
        sizes.append(abs(measured))
    return float(np.max(errors) / max(np.max(sizes), 1e-12))


def _against_masking(saliency_map: Array, parts: Anatomy, score: _Score) -> float:
    """Cells of the map against runs in which all other cells of the features are zero."""
    rng, layout = np.random.default_rng(0), parts.layout
    height, width = parts.cells
    none, nothing = np.zeros((height, width)), layout.over_channels([0.0])
    baseline = score(layout.over_cells(none, 1.0), nothing)
    errors = []
    for cell in rng.choice(height * width, size=min(_CELLS, height * width), replace=False):
        mask = none.copy()
        mask[divmod(int(cell), width)] = 1
        alone = score(layout.over_cells(mask, 1.0), nothing)
        errors.append(abs(alone - baseline - float(saliency_map[0][divmod(int(cell), width)])))
    return float(np.max(errors) / max(float(np.abs(saliency_map[0]).max()), 1e-12))


def _relative(measured: Array, expected: Array) -> float:
    if measured.shape != expected.shape:
        return math.inf
    if expected.dtype.kind not in "fiu" or not expected.size:
        return 0.0 if np.array_equal(measured, expected) else math.inf
    wide = expected.astype(np.float64)
    return float(np.abs(measured.astype(np.float64) - wide).max() / max(float(np.ptp(wide)), 1e-12))
