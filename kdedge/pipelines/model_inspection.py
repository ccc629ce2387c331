"""Look into a model: its layers and what they cost, and how it decides about one picture. Nothing here needs torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from kdedge_export.errors import HeadNotSupported
from kdedge_export.inspect.class_weights import ClassWeights, class_weights
from kdedge_export.inspect.layer_attribution import Decision, decide
from kdedge_export.inspect.layer_timing import LayerTimes, time_layers
from kdedge_export.inspect.structure import Structure, structure_of
from kdedge_export.onnx_graph.graph_index import Array, GraphView
from kdedge_export.onnx_graph.graph_input import example_feed, image_port
from kdedge_export.onnx_import.logits_output import count_classes
from kdedge_export.onnx_import.model_loading import load_file
from kdedge_runtime import Model
from kdedge_runtime.errors import UsageError
from kdedge_runtime.preprocess import fit
from kdedge_runtime.util.arrays import Pixels
from kdedge_runtime.util.files import written
from kdedge_runtime.util.images import read_picture

__all__ = ["Inspected", "Seen", "inspect_model", "see_picture"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Seen:
    """One picture as the model saw it, and how it decided."""

    name: str
    pixels: Pixels
    """uint8 RGB `[H, W, 3]` at the model's size."""
    decision: Decision
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Inspected:
    """What there is to see in a model file."""

    path: Path
    structure: Structure
    times: LayerTimes
    weights: ClassWeights | None
    """None where the last layer's weights are not plain constants, as in a quantized head."""
    labels: tuple[str, ...]
    """Numbers where the file names no classes."""
    seen: Seen | None
    why_not_seen: str | None = None
    """Why the picture could not be followed, if there was one."""

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size


def inspect_model(
    source: str, picture: Path | None = None, *, class_name: str | None = None, progress: Progress = lambda *_: None
) -> Inspected:
    """Read a model's structure, time its layers, and follow a picture through it.

    Args:
        source: a run folder with an exported file, or an `.onnx` file, by kdedge or not.
        picture: a picture to follow; the file must be one that `kdedge run` takes.
        class_name: the class to explain, by name or number; None explains the top class.
        progress: told while long steps go on.

    Raises:
        UsageError: there is no file, or pictures cannot become its input.
        ModelFileError: it is no image classifier.
    """
    path = _model_file(source)
    model = load_file(path)
    explained = any(item.key == "kdedge.schema" for item in model.metadata_props)
    if (picture is not None or class_name is not None) and not explained:
        raise UsageError(
            f"{path} does not say how a picture becomes its input. Say it with kdedge export --from-onnx {path} "
            "--mean MEAN --std STD, and inspect the file that this writes."
        )
    if class_name is not None and picture is None:
        raise UsageError("--class names what to explain in a picture. Name a picture too, or leave --class out.")
    view = GraphView(model)
    port = image_port(view, str(path))
    classes = count_classes(view, example_feed(port, None), str(path))
    progress("timing layers", 0, 1)
    structure, feed = structure_of(model), example_feed(port, None, images=1)
    times = time_layers(model, feed, structure)
    progress("timing layers", 1, 1)
    loaded = Model.load(path) if explained else None
    labels = loaded.metadata.labels if loaded is not None else ()
    seen, why_not_seen = None, None
    if loaded is not None and picture is not None:
        try:
            seen = see_picture(model, loaded, picture, class_name=class_name, progress=progress)
        except HeadNotSupported as error:  # the layers are there to see all the same
            why_not_seen = str(error)
    weights = class_weights(model, classes)
    names = labels or tuple(map(str, range(classes)))
    return Inspected(path, structure, times, weights, names, seen, why_not_seen)


def see_picture(
    model: onnx.ModelProto,
    loaded: Model,
    picture: Path,
    *,
    class_name: str | None = None,
    progress: Progress = lambda *_: None,
) -> Seen:
    """Follow one picture through a model file by kdedge.

    Args:
        model: the file's graph.
        loaded: the same file in the runtime.
        picture: the picture's file.
        class_name: the class to explain, by name or number.
        progress: told while long steps go on.

    Raises:
        SourceError: the picture cannot be read.
        UsageError: there is no such class.
        HeadNotSupported: the graph has no maps of features to follow it by.
    """
    class_index = None if class_name is None else loaded.class_index(class_name)
    pixels = fit(read_picture(picture), loaded.metadata.input)
    feed: dict[str, Array] = {loaded.metadata.input.name: np.ascontiguousarray(pixels[None])}
    decision = decide(
        model,
        feed,
        str(loaded.path),
        class_index=class_index,
        logits=loaded.predict(pixels[None]).logits,
        temperature=loaded.metadata.temperature,
        progress=lambda done, total: progress("following the picture", done, total),
    )
    return Seen(written(picture.name), pixels, decision, loaded.metadata.labels)


def _model_file(source: str) -> Path:
    path = Path(source)
    if path.is_dir():
        path = path / "model.onnx"
        if not path.is_file():
            raise UsageError(f"There is no model file {path}. Write it first: kdedge export {source}")
    return path
