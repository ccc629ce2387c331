"""Teachers from ONNX files of any framework, run by onnxruntime.

A file from `kdedge export` is fully described by its metadata, for samples of any modality. Any other file of images
is read as in `kdedge export MODEL.onnx`, and must take RGB: uint8 (pixels in [0, 255]) or floating-point (normalized).
The modality describes the input of other files of its samples (`TrainingModality.foreign_feed`).
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor

from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.graph_feed import GraphFeed, feed_images, feed_samples
from kdedge.models.model_registry import IMAGENET_MEAN, IMAGENET_SIZE, IMAGENET_STD
from kdedge_export.modalities import modality_of
from kdedge_export.onnx_graph.file_metadata import read_metadata
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex, TensorProbe
from kdedge_export.onnx_graph.graph_input import EXAMPLES, find_image_input
from kdedge_export.onnx_import.foreign_file import ForeignFile
from kdedge_export.onnx_import.logits_output import find_logits, with_two_classes
from kdedge_export.onnx_import.model_loading import simplify_model
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.modalities.image import ImageInput

__all__ = ["OnnxClassifier"]

MAP, CLASS = "saliency_map", "class_index"
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True, eq=False)
class OnnxClassifier:
    """Classifier in an ONNX file. Calling it returns logits and, if available, maps."""

    path: Path
    sha256: str
    """Hash of the file and its external weights."""
    input: InputSpec
    """Input of the model. Mean and std of images have no effect on a graph with raw pixels."""
    metadata: Metadata | None
    """Metadata of a file from kdedge; None for other files."""
    classes: int
    has_map: bool
    """True if the file has an output `saliency_map`, float `[N, h, w]`, for its top class."""
    explains_any: bool
    """True if any class can be explained, as in files from kdedge."""
    feed: GraphFeed
    graph: onnx.ModelProto
    """Graph with logits of two or more classes; external weights are not loaded."""
    logits: str
    """Tensor before a final softmax or sigmoid."""
    gives_probabilities: bool
    """True if `logits` sum to one, as in a softmax of several nodes; inverted, since a temperature needs logits."""
    fed: str | None = None
    """Preprocessing assumed for a file of another framework, with advice on changing it; None if none is assumed."""
    probes: dict[str, TensorProbe] = field(default_factory=dict)
    """Sessions by execution provider, created on first use."""

    @classmethod
    def load(cls, path: str | Path, input: ImageInput | None = None, *, modality: str = "image") -> "OnnxClassifier":
        """Open a file and probe its outputs with two random samples.

        Args:
            path: the `.onnx` file; external weights must be next to it.
            input: mean and std of images in training, and the size if it is dynamic. None takes ImageNet's mean and
                std, and 224 px. A float graph for pixels in [0, 255] has mean 0 and std 1/255. Must be None for a file
                from kdedge.
            modality: modality of the samples of a file of another framework.

        Raises:
            ModelFileError: the file is missing, damaged, or not a classifier of such samples.
            UsageError: `input` is given for a file from kdedge.
        """
        path = Path(path)
        file = ForeignFile.open(path)
        metadata = read_metadata(file.model)
        if metadata is not None and input is not None:
            raise UsageError(
                f"{path} was exported by kdedge and contains its preprocessing. Remove the argument `input`."
            )
        graph = simplify_model(file)
        view = GraphIndex(graph)
        fed: str | None = None
        if metadata is not None and not isinstance(metadata.input, ImageInput):
            spec: InputSpec = metadata.input
            feed = feed_samples(spec.name, spec.dtype)
        elif metadata is None and modality != "image":
            spec, feed = TRAINING_MODALITIES[modality].foreign_feed(view, str(path))
        else:
            given = metadata.input if metadata is not None and isinstance(metadata.input, ImageInput) else input
            spec, feed, fed = _image_feed(path, view, given, is_own=metadata is not None)
        samples = modality_of(spec).random_samples(spec, feed.batch or EXAMPLES, np.random.default_rng(0))
        example = {feed.name: feed.convert(torch.from_numpy(samples))}
        graph, logits = with_two_classes(graph, find_logits(view, example, str(path), folder=path.parent))
        has_map = any(value.name == MAP for value in graph.graph.output)
        probe = _probe(path, graph, [logits, MAP] if has_map else [logits], _CPU)
        values = probe(example)
        scores = values[logits].reshape(len(values[logits]), -1)
        if metadata is not None and scores.shape[1] != len(metadata.labels):
            raise ModelFileError(
                f"{path} does not match its metadata: it has {scores.shape[1]} logits for {len(metadata.labels)} "
                "labels. Export it again."
            )
        has_map = has_map and values[MAP].ndim == 3 and values[MAP].dtype == np.float32
        return cls(
            path,
            file.sha256,
            spec,
            metadata,
            scores.shape[1],
            has_map,
            has_map and metadata is not None and any(value.name == CLASS for value in graph.graph.input),
            feed,
            graph,
            logits,
            bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3)),
            fed,
            {_CPU: probe},
        )

    @property
    def task(self) -> str:
        """Task of the file; classification without metadata."""
        return "classify" if self.metadata is None else self.metadata.task

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names, or None if the file has none."""
        return None if self.metadata is None else self.metadata.labels

    def __call__(self, samples: Tensor, class_index: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Classify and explain a batch.

        It runs on the GPU if the samples are there and onnxruntime has its CUDA provider, otherwise on the CPU.

        Args:
            samples: samples `[N, *shape]` on any device; images of another size are resampled.
            class_index: class to explain in all samples; None explains each sample's top class.

        Returns:
            Logits float32 `[N, K]`, and the raw signed map of the class, float32 `[N, h, w]`, or None if the file has
            no such map. Both are on the samples' device.
        """
        values_in = self.feed.convert(samples)
        has_map = self.has_map if class_index is None else self.explains_any
        others = {CLASS: np.array([class_index])} if has_map and class_index is not None else {}
        values = self._run(values_in, others, samples.device)
        logits = torch.from_numpy(values[self.logits]).to(samples.device).flatten(1).float()
        if self.gives_probabilities:
            logits = logits.clamp_min(torch.finfo(torch.float32).tiny).log()
        return logits, torch.from_numpy(values[MAP]).to(samples.device) if has_map else None

    def _run(self, x: Array, others: dict[str, Array], device: torch.device) -> dict[str, Array]:
        """Run a batch of any size; `others` are additional inputs."""
        provider = _CUDA if device.type == "cuda" and _CUDA in ort.get_available_providers() else _CPU
        if provider not in self.probes:
            self.probes[provider] = _probe(self.path, self.graph, self.probes[_CPU].names, provider)
        step, parts = self.feed.batch or len(x), []
        for start in range(0, len(x), step):
            chunk = x[start : start + step]
            missing = step - len(chunk)
            if missing:
                chunk = np.concatenate([chunk, np.repeat(chunk[-1:], missing, axis=0)])
            parts.append(self.probes[provider]({self.feed.name: chunk, **others}))
        return {name: np.concatenate([part[name] for part in parts])[: len(x)] for name in parts[0]}


def _probe(path: Path, graph: onnx.ModelProto, tensors: list[str], provider: str) -> TensorProbe:
    # onnxruntime alternates with PyTorch, so both use the same number of threads.
    threads = torch.get_num_threads()
    return TensorProbe(graph, tensors, str(path), threads, folder=path.parent, provider=provider)


def _image_feed(
    path: Path, view: GraphIndex, given: ImageInput | None, *, is_own: bool
) -> tuple[ImageInput, GraphFeed, str | None]:
    """Return the input of a graph of images, its feed, and the assumed preprocessing."""
    port = find_image_input(view, str(path))
    if port.channels != 3:
        raise ModelFileError(
            f"{path} is not usable as a teacher: it takes {port.name} {[size or '?' for size in port.shape]}. "
            "Expected color images, [N, 3, H, W] or [N, H, W, 3]; kdedge export "
            f"{path} --mean 0.5 --std 0.5 -o TEACHER.onnx makes a teacher of a grayscale network."
        )
    spec = given or ImageInput(IMAGENET_SIZE, IMAGENET_SIZE, IMAGENET_MEAN, IMAGENET_STD)
    if not is_own:
        height, width = port.size
        spec = replace(spec, height=height or spec.height, width=width or spec.width)
    fed = None
    if not is_own and port.dtype != np.uint8:
        mean, std = (",".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
        fed = (
            f"(pixel / 255 − mean) / std with mean {mean} and std {std}, the default; if {path.name} was trained "
            f"differently: kdedge export {path} --mean MEAN --std STD -o TEACHER.onnx, and use that as the "
            "teacher"
        )
    return spec, feed_images(port.with_size(spec.height, spec.width), spec), fed
