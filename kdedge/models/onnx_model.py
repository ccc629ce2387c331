"""Teachers from ONNX files of any framework, run by onnxruntime.

A file from `kdedge export` is fully described by its metadata. Any other file is read as in
`kdedge export --from-onnx`, and must take RGB images: uint8 (pixels in [0, 255]) or floating-point (normalized).
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.models.model_registry import IMAGENET_MEAN, IMAGENET_SIZE, IMAGENET_STD
from kdedge_export.modalities.normalization import Normalize
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex, TensorProbe
from kdedge_export.onnx_graph.graph_input import GraphInput, find_image_input, make_example_feed
from kdedge_export.onnx_import.foreign_file import ForeignFile
from kdedge_export.onnx_import.logits_output import find_logits, with_two_classes
from kdedge_export.onnx_import.model_loading import simplify_model
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.modalities.image import ImageInput, require_image

__all__ = ["OnnxClassifier"]

MAP, CLASS = "saliency_map", "class_index"
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True, eq=False)
class OnnxClassifier:
    """Classifier in an ONNX file. Calling it returns logits and, if available, maps."""

    path: Path
    sha256: str
    """Hash of the file and its external weights."""
    input: ImageInput
    """Input of the model. Mean and std have no effect on a graph with raw pixels."""
    metadata: Metadata | None
    """Metadata of a file from kdedge; None for other files."""
    classes: int
    has_map: bool
    """True if the file has an output `saliency_map`, float `[N, h, w]`, for its top class."""
    explains_any: bool
    """True if any class can be explained, as in files from kdedge."""
    port: GraphInput
    graph: onnx.ModelProto
    """Graph with logits of two or more classes; external weights are not loaded."""
    logits: str
    """Tensor before a final softmax or sigmoid."""
    gives_probabilities: bool
    """True if `logits` sum to one, as in a softmax of several nodes; inverted, since a temperature needs logits."""
    normalize: Normalize
    probes: dict[str, TensorProbe] = field(default_factory=dict)
    """Sessions by execution provider, created on first use."""

    @property
    def fed(self) -> str | None:
        """Preprocessing assumed for a file of another framework, with advice on changing it; None for kdedge files."""
        if self.metadata is not None or self.port.dtype == np.uint8:
            return None
        mean, std = (",".join(f"{value:g}" for value in values) for values in (self.input.mean, self.input.std))
        return (
            f"(pixel / 255 − mean) / std with mean {mean} and std {std}, the default; if "
            f"{self.path.name} was trained differently: kdedge export --from-onnx {self.path} --mean MEAN --std STD "
            "-o TEACHER.onnx, and use that as the teacher"
        )

    @classmethod
    def load(cls, path: str | Path, input: ImageInput | None = None) -> "OnnxClassifier":
        """Open a file and probe its outputs with two random images.

        Args:
            path: the `.onnx` file; external weights must be next to it.
            input: mean and std of the training, and the size if it is dynamic. None takes ImageNet's mean and std, and
                224 px. A float graph for pixels in [0, 255] has mean 0 and std 1/255. Must be None for a file from
                kdedge.

        Raises:
            ModelFileError: the file is missing, damaged, or not an image classifier.
            UsageError: `input` is given for a file from kdedge.
        """
        path = Path(path)
        file = ForeignFile.open(path)
        props = {item.key: item.value for item in file.model.metadata_props}
        metadata = Metadata.from_props(props) if "kdedge.schema" in props else None
        if metadata is not None and input is not None:
            raise UsageError(
                f"{path} was exported by kdedge and contains its preprocessing. Do not give another input."
            )
        graph = simplify_model(file)
        view = GraphIndex(graph)
        port = find_image_input(view, str(path))
        if port.channels != 3:
            raise ModelFileError(
                f"{path} is not usable as a teacher: it takes {port.name} {[size or '?' for size in port.shape]}. "
                "Expected color images, [N, 3, H, W] or [N, H, W, 3]; kdedge export --from-onnx "
                f"{path} --mean 0.5 --std 0.5 -o TEACHER.onnx makes a teacher of a grayscale network."
            )
        if metadata is not None:
            spec = require_image(metadata.input, path)
        else:
            given = input or ImageInput(IMAGENET_SIZE, IMAGENET_SIZE, IMAGENET_MEAN, IMAGENET_STD)
            height, width = port.size
            spec = replace(given, height=height or given.height, width=width or given.width)
        port = port.with_size(spec.height, spec.width)
        feed = make_example_feed(port, None)
        graph, logits = with_two_classes(graph, find_logits(view, feed, str(path), folder=path.parent))
        has_map = any(value.name == MAP for value in graph.graph.output)
        probe = _probe(path, graph, [logits, MAP] if has_map else [logits], _CPU)
        values = probe(feed)
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
            port,
            graph,
            logits,
            bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3)),
            Normalize(spec),
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

    def __call__(self, images: Tensor, class_index: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Classify and explain a batch.

        It runs on the GPU if the images are there and onnxruntime has its CUDA provider, otherwise on the CPU.

        Args:
            images: uint8 RGB `[N, H, W, 3]` on any device; images of another size are resampled.
            class_index: class to explain in all images; None explains each image's top class.

        Returns:
            Logits float32 `[N, K]`, and the raw signed map of the class, float32 `[N, h, w]`, or None if the file has
            no such map. Both are on the images' device.
        """
        feed = _feed(images, self.port, self.normalize.to(images.device))
        has_map = self.has_map if class_index is None else self.explains_any
        others = {CLASS: np.array([class_index])} if has_map and class_index is not None else {}
        values = self._run(feed, others, images.device)
        logits = torch.from_numpy(values[self.logits]).to(images.device).flatten(1).float()
        if self.gives_probabilities:
            logits = logits.clamp_min(torch.finfo(torch.float32).tiny).log()
        return logits, torch.from_numpy(values[MAP]).to(images.device) if has_map else None

    def _run(self, x: Array, others: dict[str, Array], device: torch.device) -> dict[str, Array]:
        """Run a batch of any size; `others` are additional inputs."""
        provider = _CUDA if device.type == "cuda" and _CUDA in ort.get_available_providers() else _CPU
        if provider not in self.probes:
            self.probes[provider] = _probe(self.path, self.graph, self.probes[_CPU].names, provider)
        step, parts = self.port.shape[0] or len(x), []
        for start in range(0, len(x), step):
            chunk = x[start : start + step]
            missing = step - len(chunk)
            if missing:
                chunk = np.concatenate([chunk, np.repeat(chunk[-1:], missing, axis=0)])
            parts.append(self.probes[provider]({self.port.name: chunk, **others}))
        return {name: np.concatenate([part[name] for part in parts])[: len(x)] for name in parts[0]}


def _probe(path: Path, graph: onnx.ModelProto, tensors: list[str], provider: str) -> TensorProbe:
    # onnxruntime alternates with PyTorch, so both use the same number of threads.
    threads = torch.get_num_threads()
    return TensorProbe(graph, tensors, str(path), threads, folder=path.parent, provider=provider)


def _feed(images: Tensor, port: GraphInput, normalize: Normalize) -> Array:
    """Convert uint8 images `[N, H, W, 3]` to the input of the graph."""
    with torch.no_grad():
        if port.dtype != np.uint8:
            x = normalize(images)
        else:
            x = images.permute(0, 3, 1, 2)
            if tuple(x.shape[2:]) != normalize.size:  # resample like `Normalize`, but in whole pixel values
                x = F.interpolate(x.float(), normalize.size, mode="bilinear", antialias=True)
                x = x.round().clamp(0, 255).to(torch.uint8)
        if port.layout == "NHWC":
            x = x.permute(0, 2, 3, 1)
    return np.ascontiguousarray(x.cpu().numpy().astype(port.dtype, copy=False))
