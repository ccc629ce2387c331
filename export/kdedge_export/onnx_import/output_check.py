"""Verification that the modified graph preserves the file's outputs, on random images."""

import math

import numpy as np
import onnx

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_graph.graph_index import Array, TensorProbe
from kdedge_export.onnx_graph.graph_input import make_example_feed
from kdedge_export.onnx_import.classifier_graph import ClassifierGraph
from kdedge_export.onnx_import.preprocessing import PixelInput, is_normalized_input
from kdedge_runtime.errors import KdedgeError, ModelFileError
from kdedge_runtime.modalities.image import ImageInput

__all__ = ["check_other_size", "check_same_outputs"]

OUTPUT_TOLERANCE = {"float32": 1e-6, "float16": 2e-3}
"""Largest difference of the file's own outputs relative to their range, due to a different summation order."""
FRONT_TOLERANCE = 1e-3
"""Largest difference with added preprocessing, since `(pixel − 255·mean) / (255·std)` is rounded differently than in
float64."""


def check_same_outputs(
    original: onnx.ModelProto,
    explained: onnx.ModelProto,
    parts: ClassifierGraph,
    name: str,
    side_px: int | None,
    front: tuple[PixelInput, ImageInput] | None,
) -> float:
    """Run both graphs on random images, with batches of one and three if the batch is dynamic.

    Args:
        original: the file's graph.
        explained: the modified graph.
        parts: analysis of the original.
        name: file name for messages.
        side_px: input size in pixels, if the graph leaves it dynamic.
        front: conversion from pixels to the original input, and the input of the modified graph; None if the input is
            unchanged.

    Returns:
        The largest error of the file's own outputs, relative to their range.

    Raises:
        KdedgeError: an output of the file has changed.
    """
    own = [value.name for value in original.graph.output]
    worst, tolerance = 0.0, OUTPUT_TOLERANCE["float32"] if front is None else FRONT_TOLERANCE
    run_before, run_after = TensorProbe(original, own, name), TensorProbe(explained, own, name)
    for seed, images in ((1, 1), (2, 3)):
        feed = make_example_feed(parts.port, side_px, images, seed)
        fed = feed
        if front is not None:
            pixels, spec = front
            shape = (len(feed[parts.port.name]), spec.height, spec.width, 3)
            fed = {spec.name: np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)}
            feed = {parts.port.name: is_normalized_input(fed[spec.name], parts.port, pixels)}
        before, after = run_before(feed), run_after(fed)
        for output in own:
            half = before[output].dtype == np.float16 or parts.values[parts.target].dtype == np.float16
            tolerance = max(tolerance, OUTPUT_TOLERANCE["float16" if half else "float32"])
            worst = max(worst, _relative(after[output], before[output]))
    if not worst <= tolerance:
        raise KdedgeError(
            f"The modified graph of {name} has different outputs: relative error {worst:.1e}, expected at most "
            f"{tolerance:.0e}. Nothing was written. Please report this model."
        )
    return worst


def check_other_size(
    original: onnx.ModelProto, explained: onnx.ModelProto, parts: ClassifierGraph, name: str, side_px: int | None
) -> None:
    """Check that the modified graph accepts the same larger images as the original, if the input size is dynamic.

    Args:
        original: the file's graph.
        explained: the graph with its map and the same input.
        parts: analysis of the original.
        name: file name for messages.
        side_px: input size of the example in pixels.

    Raises:
        HeadNotSupported: the map works only at the example's size.
    """
    if parts.port.has_size:
        return
    height = make_example_feed(parts.port, side_px)[parts.port.name].shape[1 if parts.port.layout == "NHWC" else 2]
    feed = make_example_feed(parts.port, height + height // parts.positions[0], 1)  # larger by one map position
    try:
        TensorProbe(original, [parts.logits], name)(feed)
    except ModelFileError:
        return  # weights, such as position embeddings, fix the size although the input is dynamic
    try:
        TensorProbe(explained, ["saliency_map"], name)(feed)
    except ModelFileError as error:
        raise HeadNotSupported(
            f"{name} accepts images of any size, but its map works only at {height} px ({error}) Export it for one "
            "size, or specify the preprocessing, which fixes the size: --mean, --std, --size."
        ) from error


def _relative(measured: Array, expected: Array) -> float:
    if measured.shape != expected.shape:
        return math.inf
    if expected.dtype.kind not in "fiu" or not expected.size:
        return 0.0 if np.array_equal(measured, expected) else math.inf
    wide = expected.astype(np.float64)
    reach = np.ptp(wide) if wide.size > len(wide) else np.abs(wide).max()  # a single value per image has no range
    return float(np.abs(measured.astype(np.float64) - wide).max() / max(float(reach), 1e-12))
