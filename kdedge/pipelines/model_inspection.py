"""Inspect a model: layers, cost, and the attribution of one prediction. This module does not import torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from kdedge_export.errors import HeadNotSupported
from kdedge_export.inspection.class_weights import ClassWeights, class_weights
from kdedge_export.inspection.example_feed import example_feed
from kdedge_export.inspection.layer_attribution import LayerAttribution, attribute_layers
from kdedge_export.inspection.layer_timing import LayerTimes, time_layers
from kdedge_export.inspection.structure import GraphStructure, structure_of
from kdedge_export.modalities import modality_of
from kdedge_export.onnx_graph.file_metadata import read_metadata
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex
from kdedge_export.onnx_graph.graph_input import EXAMPLES
from kdedge_export.onnx_graph.prototypes import fix_prototypes
from kdedge_export.onnx_import.foreign_file import ForeignFile
from kdedge_export.onnx_import.logits_output import count_classes
from kdedge_export.onnx_import.model_loading import load_foreign_model
from kdedge_runtime import Model
from kdedge_runtime.errors import UsageError
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.arrays import Pixels
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.images import read_image
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["ModelInspection", "ImageInspection", "inspect_model", "inspect_image"]


@dataclass(frozen=True)
class ImageInspection:
    """Image at the model's input size, with its layer attribution."""

    name: str
    pixels: Pixels
    """Input pixels, uint8 RGB `[H, W, 3]`."""
    decision: LayerAttribution
    labels: tuple[str, ...]
    task: str = "classify"
    """Task of the model, a key of `kdedge_runtime.tasks.TASKS`."""

    def score_text(self, score: float) -> str:
        """Format a score of the ranking."""
        return TASKS[self.task].format_score(score, 1)


@dataclass(frozen=True)
class ModelInspection:
    """Inspection results of a model file."""

    path: Path
    structure: GraphStructure
    times: LayerTimes
    weights: ClassWeights | None
    """Weights of the last layer; None without classes, or if they are not plain constants, as in a quantized head."""
    labels: tuple[str, ...]
    """Class names; class indices if the file has none."""
    seen: ImageInspection | None
    has_classes: bool = True
    """False if the outputs are values, whose names are the labels."""
    why_not_seen: str | None = None
    """Reason for a missing attribution, if an image was given."""

    @property
    def bytes(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size


def inspect_model(
    source: str, image: Path | None = None, *, class_name: str | None = None, progress: ProgressCallback = no_progress
) -> ModelInspection:
    """Read a model's structure, time its layers, and attribute its prediction for an image.

    Args:
        source: run folder with an exported file, or an `.onnx` file from kdedge or elsewhere.
        image: image to trace; the file must be usable with `kdedge run`.
        class_name: class to explain, by name or index; None explains the top class.
        progress: called during long steps.

    Raises:
        UsageError: the file does not exist, or has no preprocessing for images.
        ModelFileError: the file is not an image classifier.
    """
    path = _model_file(source)
    model = load_foreign_model(ForeignFile.open(path))
    fix_prototypes(model)
    metadata = read_metadata(model)
    explained = metadata is not None
    if (image is not None or class_name is not None) and not explained:
        raise UsageError(
            f"{path} has no preprocessing for images. Add it with kdedge export {path} --mean "
            "MEAN --std STD, and inspect the exported file."
        )
    if class_name is not None and image is None:
        raise UsageError("--class selects the class to explain in an image. Give an image too, or remove --class.")
    if image is not None and metadata is not None and not modality_of(metadata.input).has_layer_attribution:
        raise UsageError(
            f"{path} takes {metadata.input.kind} samples, and inspect traces images only. Remove {image}, or draw its "
            f"map: kdedge explain {path} {image}"
        )
    if metadata is None:
        classes = count_classes(GraphIndex(model), example_feed(model, str(path), count=EXAMPLES), str(path))
    else:
        classes = len(metadata.labels)
    progress("timing layers", 0, 1)
    structure, feed = structure_of(model), example_feed(model, str(path))
    times = time_layers(model, feed, structure)
    progress("timing layers", 1, 1)
    loaded = Model.load(path) if explained else None
    labels = loaded.metadata.labels if loaded is not None else ()
    seen, why_not_seen = None, None
    if loaded is not None and image is not None:
        try:
            seen = inspect_image(model, loaded, image, class_name=class_name, progress=progress)
        except HeadNotSupported as error:  # the layers are still shown
            why_not_seen = str(error)
    has_classes = loaded is None or TASKS[loaded.metadata.task].has_classes
    weights = class_weights(model, classes) if has_classes else None
    names = labels or tuple(map(str, range(classes)))
    return ModelInspection(path, structure, times, weights, names, seen, has_classes, why_not_seen)


def inspect_image(
    model: onnx.ModelProto,
    loaded: Model,
    image: Path,
    *,
    class_name: str | None = None,
    progress: ProgressCallback = no_progress,
) -> ImageInspection:
    """Attribute the prediction of a kdedge model file for one image.

    Args:
        model: graph of the file.
        loaded: the same file in the runtime.
        image: image file.
        class_name: class to explain, by name or index.
        progress: called during long steps.

    Raises:
        SourceError: the image cannot be read.
        UsageError: the class does not exist.
        HeadNotSupported: the graph has no spatial feature maps.
    """
    class_index = None if class_name is None else loaded.class_index(class_name)
    pixels = loaded.metadata.input.preprocess(read_image(image))
    feed: dict[str, Array] = {loaded.metadata.input.name: np.ascontiguousarray(pixels[None])}
    decision = attribute_layers(
        model,
        feed,
        str(loaded.path),
        class_index=class_index,
        logits=loaded.predict(pixels[None]).logits,
        temperature=loaded.metadata.temperature,
        task=loaded.metadata.task,
        progress=progress,
    )
    return ImageInspection(displayable(image.name), pixels, decision, loaded.metadata.labels, loaded.metadata.task)


def _model_file(source: str) -> Path:
    path = Path(source)
    if path.is_dir():
        path = path / "model.onnx"
        if not path.is_file():
            raise UsageError(f"There is no model file {path}. Export it first: kdedge export {source}")
    return path
