"""Teachers from ONNX files of any framework, run by onnxruntime.

A file from `kdedge export` is fully described by its metadata. Any other file must be a classifier with one image
input: float32 (normalized) or uint8 (raw pixels in [0, 255]), `[N, 3, H, W]` or `[N, H, W, 3]`, RGB.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.models.model_registry import IMAGENET_MEAN, IMAGENET_SIZE, IMAGENET_STD
from kdedge_export.modalities.normalization import Normalize
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.modalities.image import ImageInput, require_image
from kdedge_runtime.onnx_session import first_line

__all__ = ["OnnxClassifier", "file_sha256"]

LOGITS, MAP, CLASS = "logits", "saliency_map", "class_index"
PROBE_IMAGES = 2
"""More than one image, so that a graph that mixes up its batch is detected."""
_Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class _Port:
    """Image input of a graph."""

    name: str
    is_raw: bool
    """True for uint8 pixels, False for normalized float32."""
    channels_last: bool
    batch: int | None
    """Fixed batch size, or None for any."""
    height: int | None
    width: int | None
    """Width in px, like the height; None if dynamic."""


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
    port: _Port
    logits_output: str
    gives_probabilities: bool
    """True if the graph ends in a softmax, which is inverted, since a temperature needs logits."""
    normalize: Normalize
    sessions: dict[str, ort.InferenceSession] = field(default_factory=dict)
    """Sessions by execution provider, created on first use."""

    @property
    def fed(self) -> str | None:
        """Preprocessing assumed for a file of another framework, with advice on changing it; None for kdedge files."""
        if self.metadata is not None or self.port.is_raw:
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
        sha256 = file_sha256(path)
        session = _session(path, "CPUExecutionProvider")
        props = session.get_modelmeta().custom_metadata_map
        metadata = Metadata.from_props(props) if "kdedge.schema" in props else None
        if metadata is not None and input is not None:
            raise UsageError(
                f"{path} was exported by kdedge and contains its preprocessing. Do not give another input."
            )
        port = _image_port(path, session)
        if metadata is not None:
            spec = require_image(metadata.input, path)
        else:
            given = input or ImageInput(IMAGENET_SIZE, IMAGENET_SIZE, IMAGENET_MEAN, IMAGENET_STD)
            spec = replace(given, height=port.height or given.height, width=port.width or given.width)
        normalize = Normalize(spec)
        generator = torch.Generator().manual_seed(0)
        probe = torch.randint(0, 256, (PROBE_IMAGES, spec.height, spec.width, 3), generator=generator)
        tensors = [item.name for item in session.get_outputs() if item.type.startswith("tensor(")]
        predictions = _run(path, session, tensors, port, _feed(probe.to(torch.uint8), port, normalize))
        logits_output = _logits_output(path, predictions)
        logits = predictions[logits_output]
        if metadata is not None and logits.shape[1] != len(metadata.labels):
            raise ModelFileError(
                f"{path} does not match its metadata: it has {logits.shape[1]} logits for {len(metadata.labels)} "
                "labels. Export it again."
            )
        has_map = MAP in predictions and predictions[MAP].ndim == 3 and predictions[MAP].dtype == np.float32
        optional = [item.name for item in session.get_overridable_initializers()]
        return cls(
            path,
            sha256,
            spec,
            metadata,
            logits.shape[1],
            has_map,
            has_map and metadata is not None and CLASS in optional,
            port,
            logits_output,
            bool((logits >= 0).all() and np.allclose(logits.sum(axis=1), 1.0, atol=1e-3)),
            normalize,
            {"CPUExecutionProvider": session},
        )

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
            Logits float32 `[N, K]` (log-probabilities for a graph with softmax), and the raw signed map of the class,
            float32 `[N, h, w]`, or None if the file has no such map. Both are on the images' device.
        """
        feed = _feed(images, self.port, self.normalize.to(images.device))
        has_map = self.has_map if class_index is None else self.explains_any
        wanted = [self.logits_output, MAP] if has_map else [self.logits_output]
        class_feed = {CLASS: np.array([class_index])} if has_map and class_index is not None else {}
        predictions = _run(self.path, self._session_for(images.device), wanted, self.port, feed, class_feed)
        logits = torch.from_numpy(predictions[self.logits_output]).to(images.device)
        if self.gives_probabilities:
            logits = logits.clamp_min(torch.finfo(torch.float32).tiny).log()
        return logits, torch.from_numpy(predictions[MAP]).to(images.device) if has_map else None

    def _session_for(self, device: torch.device) -> ort.InferenceSession:
        cuda = "CUDAExecutionProvider"
        provider = cuda if device.type == "cuda" and cuda in ort.get_available_providers() else "CPUExecutionProvider"
        if provider not in self.sessions:
            self.sessions[provider] = _session(self.path, provider)
        return self.sessions[provider]


def file_sha256(path: Path) -> str:
    """Hash an `.onnx` file and its external weights.

    Raises:
        ModelFileError: the file is missing or not an ONNX model, or external weights are missing.
    """
    if not path.is_file():
        raise ModelFileError(f"There is no model file {path}. Expected an .onnx file with a classifier.")
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's own types have no common base
        raise ModelFileError(f"{path} is not an ONNX model: {error}. Export or copy it again.") from error
    beside = {entry.value for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"}
    digest = hashlib.sha256()
    for part in (path, *(path.parent / name for name in sorted(beside))):
        if not part.is_file():
            raise ModelFileError(
                f"{path} has external weights in {part.name}, which is not next to it. Copy that file too, "
                "or save the model in one file: onnx.save(model, FILE, save_as_external_data=False)."
            )
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _session(path: Path, provider: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # onnxruntime alternates with PyTorch: use as many threads, without spinning.
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = list(dict.fromkeys([provider, "CPUExecutionProvider"]))
    try:
        return ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's own types have no common, public base
        raise ModelFileError(
            f"onnxruntime {ort.__version__} cannot load {path}: {first_line(error)} Export or copy it again."
        ) from error


def _image_port(path: Path, session: ort.InferenceSession) -> _Port:
    inputs = session.get_inputs()  # inputs with a default value are not included
    shown = ", ".join(f"{item.name} {item.type} {item.shape}" for item in inputs)
    refusal = ModelFileError(
        f"{path} is not an image classifier usable as a teacher: its inputs are {shown}. Expected one input, float32 "
        "or uint8, [N, 3, H, W] or [N, H, W, 3]."
    )
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in ("tensor(float)", "tensor(uint8)"):
        raise refusal
    batch, *inner = (size if isinstance(size, int) else None for size in inputs[0].shape)
    if inner[0] == 3:
        height, width = inner[1:]
    elif inner[2] == 3:
        height, width = inner[:2]
    else:
        raise refusal
    return _Port(inputs[0].name, inputs[0].type == "tensor(uint8)", inner[0] != 3, batch, height, width)


def _feed(images: Tensor, port: _Port, normalize: Normalize) -> np.ndarray[Any, Any]:
    """Convert uint8 images `[N, H, W, 3]` to the input of the graph."""
    with torch.no_grad():
        if not port.is_raw:
            x = normalize(images)
        else:
            x = images.permute(0, 3, 1, 2)
            if tuple(x.shape[2:]) != normalize.size:  # resample like `Normalize`, but in whole pixel values
                x = F.interpolate(x.float(), normalize.size, mode="bilinear", antialias=True)
                x = x.round().clamp(0, 255).to(torch.uint8)
        if port.channels_last:
            x = x.permute(0, 2, 3, 1)
    return np.ascontiguousarray(x.cpu().numpy())


def _run(
    path: Path,
    session: ort.InferenceSession,
    names: list[str],
    port: _Port,
    x: np.ndarray[Any, Any],
    others: Mapping[str, np.ndarray[Any, Any]] = MappingProxyType({}),
) -> _Arrays:
    """Run a batch of any size and return outputs by name; `others` are additional inputs."""
    step = port.batch or len(x)
    parts: list[Sequence[np.ndarray[Any, Any]]] = []
    for start in range(0, len(x), step):
        chunk = x[start : start + step]
        short = step - len(chunk)
        if short:
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], short, axis=0)])
        try:
            parts.append(session.run(names, {port.name: chunk, **others}))
        except Exception as error:  # see above
            raise ModelFileError(
                f"{path} fails on images {chunk.shape}: {first_line(error)} Export it for that batch and size, "
                "preferably with a dynamic batch."
            ) from error
    whole = [np.concatenate(values) if values[0].ndim else values[0] for values in zip(*parts, strict=True)]
    return {name: value[: len(x)] if value.ndim else value for name, value in zip(names, whole, strict=True)}


def _logits_output(path: Path, predictions: _Arrays) -> str:
    flat = [
        name
        for name, value in predictions.items()
        if value.dtype == np.float32 and value.ndim == 2 and len(value) == PROBE_IMAGES and value.shape[1] > 1
    ]
    if LOGITS in flat:
        return LOGITS
    if len(flat) != 1:
        shown = ", ".join(f"{name} {value.dtype} {list(value.shape)}" for name, value in predictions.items())
        raise ModelFileError(
            f"{path} is not a classifier usable as a teacher: for {PROBE_IMAGES} images it returns {shown}. Expected "
            f"one output float32 [{PROBE_IMAGES}, classes], or one of several named {LOGITS}."
        )
    return flat[0]
