"""Small, real explained models and pictures for the tests of the runtime."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from view_client import ABOUT, HERE

from kdedge_runtime.feedback import FeedbackStore
from kdedge_runtime.metadata import ImageInput, Metadata, Outputs
from kdedge_runtime.model import Model
from kdedge_runtime.progress import Progress
from kdedge_runtime.runner import RunSettings
from kdedge_runtime.sources.picture import PictureSource
from kdedge_runtime.view import Controls, Feedback, LiveView

SIDE = 64
CELLS = 8
LABELS = ("red", "green", "blue")


def write_colour_model(
    path: Path,
    *,
    method: str = "cam",
    spec: ImageInput | None = None,
    labels: tuple[str, ...] = LABELS,
    gain: float = 8.0,
    props: dict[str, str] | None = None,
) -> Path:
    """Write a classifier that says which primary colour prevails, and where.

    Each class weighs its own channel with 1 and the others with -1/2. The map is the closed form of global average
    pooling and a linear layer: `sum_k W[c, k] * A[k]`, whose mean is the logit.
    """
    spec = spec or ImageInput(SIDE, SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    stride = spec.height // CELLS
    weights = gain * (1.5 * np.eye(3, dtype=np.float32) - 0.5)
    pool = np.zeros((3, 3, stride, stride), dtype=np.float32)
    for channel in range(3):
        pool[channel, channel] = 1.0 / (255 * stride * stride)
    constants = {
        "pool": pool,
        "weights": weights,
        "class_index": np.array([-1], dtype=np.int64),
        "zero": np.array(0, dtype=np.int64),
        "axes_hw": np.array([2, 3], dtype=np.int64),
        "axes_k": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", [spec.name], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["as_float"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "pool"], ["activations"], strides=[stride, stride]),
        helper.make_node("ReduceMean", ["activations", "axes_hw"], ["pooled"], keepdims=0),
        helper.make_node("Transpose", ["weights"], ["weights_t"], perm=[1, 0]),
        helper.make_node("MatMul", ["pooled", "weights_t"], ["logits"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])]
    if method != "none":
        nodes += [
            helper.make_node("ArgMax", ["logits"], ["top"], axis=1, keepdims=0),
            helper.make_node("Less", ["class_index", "zero"], ["is_free"]),
            helper.make_node("Where", ["is_free", "top", "class_index"], ["explained_class"]),
            helper.make_node("Gather", ["weights", "explained_class"], ["rows"], axis=0),
            helper.make_node("Unsqueeze", ["rows", "axes_hw"], ["row_maps"]),
            helper.make_node("Mul", ["activations", "row_maps"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "axes_k"], ["saliency_map"], keepdims=0),
        ]
        outputs += [
            helper.make_tensor_value_info("saliency_map", TensorProto.FLOAT, ["N", CELLS, CELLS]),
            helper.make_tensor_value_info("explained_class", TensorProto.INT64, ["N"]),
        ]
    inputs = [helper.make_tensor_value_info(spec.name, TensorProto.UINT8, ["N", spec.height, spec.width, 3])]
    if method != "none":
        # Also an initializer, which is its default.
        inputs.append(helper.make_tensor_value_info("class_index", TensorProto.INT64, [1]))
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "colour", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    shown = Outputs(method, None, "gap-linear", CELLS, CELLS) if method != "none" else Outputs("none")
    metadata = Metadata(labels, spec, shown)
    helper.set_model_props(model, metadata.to_props() if props is None else props)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_model(tmp_path_factory.mktemp("model") / "colour.onnx")


@pytest.fixture(scope="session")
def model(model_path: Path) -> Model:
    return Model.load(model_path, threads=1)


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a colour model with other settings; see `write_colour_model`."""
    return lambda name="other.onnx", **settings: write_colour_model(tmp_path / name, **settings)


@pytest.fixture
def red_spot() -> np.ndarray:
    """A grey picture, uint8 RGB `[64, 64, 3]`, with a red square whose centre is at (44, 20)."""
    picture = np.full((SIDE, SIDE, 3), 90, dtype=np.uint8)
    picture[12:28, 36:52] = (255, 0, 0)
    return picture


@pytest.fixture
def photos(tmp_path: Path, red_spot: np.ndarray) -> Path:
    """A folder with three sound pictures, of red, green and blue spots, and a file that is no picture."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for shift, name in enumerate(("1-red.png", "2-green.png", "3-blue.png")):
        Image.fromarray(np.roll(red_spot, shift, axis=2)).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real MP4: 24 frames of 128 × 96 at 12 fps, the first half red, the second blue."""
    cv2 = pytest.importorskip("cv2", reason="videos need OpenCV")
    path = tmp_path_factory.mktemp("video") / "colours.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 12.0, (128, 96))
    for index in range(24):
        writer.write(np.full((96, 128, 3), (20, 20, 220) if index < 12 else (220, 20, 20), dtype=np.uint8))
    writer.release()
    return path


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return Progress(PictureSource(tmp_path))


@pytest.fixture
def controls(model: Model) -> Controls:
    return Controls(model, RunSettings())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    with FeedbackStore.open(tmp_path / "feedback.sqlite", cap_mb=10) as opened:
        yield opened


@pytest.fixture
def view(controls: Controls, store: FeedbackStore) -> Iterator[LiveView]:
    with LiveView(HERE, ABOUT, controls, Feedback(store, "ab" * 32)) as opened:
        yield opened
