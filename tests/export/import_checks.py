"""Inputs of imported files, and their maps computed from features and weights."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx_toys import SIDE

from kdedge_export.onnx_import import PixelInput

HALF = PixelInput((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def pictures(n: int, seed: int, *, last: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(n, 3, 4, 4)).repeat(8, 2).repeat(8, 3) + 0.3 * rng.normal(size=(n, 3, SIDE, SIDE))
    return np.ascontiguousarray(coarse.transpose(0, 2, 3, 1) if last else coarse).astype(np.float32)


def predictions(path: Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options)
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def cam(path: Path, feed: dict[str, np.ndarray], classifier: np.ndarray) -> np.ndarray:
    """Compute CAM (Zhou et al., CVPR 2016) over the number of positions, from the file's features `[N, C, h, w]`."""
    model = onnx.load(path)
    model.graph.output.append(onnx.ValueInfoProto(name="features"))
    session = ort.InferenceSession(model.SerializeToString())
    features, top = session.run(["features", "explained_class"], feed)
    return np.einsum("nk,nkhw->nhw", classifier[top], features) / np.prod(features.shape[2:])


def assert_close(measured: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert measured.shape == expected.shape
    assert np.abs(measured - expected).max() <= tolerance * np.abs(expected).max()
