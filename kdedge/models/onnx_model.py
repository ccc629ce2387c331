"""A teacher from an `.onnx` file, run by onnxruntime: any framework's classifier can teach.

A file by `kdedge export` says all there is to know about itself. Of any other file the graph must be a classifier with
one image input: float32 (normalised) or uint8 (raw pixels in [0, 255]), `[N, 3, H, W]` or `[N, H, W, 3]`, RGB.
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
from kdedge_export.torch_export.normalization import Normalise
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.metadata import ImageInput, Metadata
from kdedge_runtime.onnx_session import first_line

__all__ = ["OnnxTeacher", "file_sha256"]

LOGITS, MAP, CLASS = "logits", "saliency_map", "class_index"
PROBE_IMAGES = 2
"""More than one: a batch of one would not show a graph that mixes up its images."""
_Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class _Port:
    """How a graph wants its images."""

    name: str
    is_raw: bool
    """uint8 pixels rather than normalised float32."""
    channels_last: bool
    batch: int | None
    """The one batch size that it takes; None for any."""
    height: int | None
    width: int | None
    """In px; None when the graph leaves it open."""


@dataclass(frozen=True, eq=False)
class OnnxTeacher:
    """A classifier in a file. Calling it gives logits and, where the file has them, maps."""

    path: Path
    sha256: str
    """Of the file, and of those that hold its weights when they are apart."""
    input: ImageInput
    """The pictures it wants. Mean and std have no effect on a graph that takes raw pixels."""
    metadata: Metadata | None
    """What a file by kdedge says of itself; None of any other."""
    classes: int
    has_map: bool
    """Whether the file gives the saliency map of its top class: an output `saliency_map`, float `[N, h, w]`."""
    explains_any: bool
    """Whether it explains any class that it is asked about, as files by kdedge do."""
    port: _Port
    logits_output: str
    gives_probabilities: bool
    """Whether the graph ends in a softmax, which is undone: a temperature needs logits."""
    normalise: Normalise
    sessions: dict[str, ort.InferenceSession] = field(default_factory=dict)
    """By execution provider; each is made when it is first needed."""

    @property
    def fed(self) -> str | None:
        """How pixels become what a file of another framework is fed, and how to say otherwise; None by kdedge."""
        if self.metadata is not None or self.port.is_raw:
            return None
        mean, std = (",".join(f"{value:g}" for value in values) for values in (self.input.mean, self.input.std))
        return (
            f"(pixel / 255 − mean) / std with mean {mean} and std {std}, as nothing says otherwise; if that is not "
            f"what {self.path.name} was trained with: kdedge export --from-onnx {self.path} --mean MEAN --std STD "
            "-o TEACHER.onnx, and let that teach"
        )

    @classmethod
    def load(cls, path: str | Path, input: ImageInput | None = None) -> "OnnxTeacher":
        """Open a file and look at what it answers to two random pictures.

        Args:
            path: the `.onnx` file; weights that it keeps in other files must lie beside it.
            input: mean and std of the model's training, and the size where the graph leaves it open. None takes
                ImageNet's mean and std, and 224 px. A float graph that wants pixels in [0, 255] has mean 0 and std
                1/255. A file by kdedge has its own and takes none.

        Raises:
            ModelFileError: the file is missing or damaged, or it is no image classifier.
            UsageError: `input` is given for a file by kdedge.
        """
        path = Path(path)
        sha256 = file_sha256(path)
        session = _session(path, "CPUExecutionProvider")
        props = session.get_modelmeta().custom_metadata_map
        metadata = Metadata.from_props(props) if "kdedge.schema" in props else None
        if metadata is not None and input is not None:
            raise UsageError(f"{path} was exported by kdedge and says itself which input it wants. Leave that out.")
        port = _image_port(path, session)
        if metadata is not None:
            spec = metadata.input
        else:
            given = input or ImageInput(IMAGENET_SIZE, IMAGENET_SIZE, IMAGENET_MEAN, IMAGENET_STD)
            spec = replace(given, height=port.height or given.height, width=port.width or given.width)
        normalise = Normalise(spec)
        generator = torch.Generator().manual_seed(0)
        probe = torch.randint(0, 256, (PROBE_IMAGES, spec.height, spec.width, 3), generator=generator)
        tensors = [item.name for item in session.get_outputs() if item.type.startswith("tensor(")]
        answers = _run(path, session, tensors, port, _feed(probe.to(torch.uint8), port, normalise))
        logits_output = _logits_output(path, answers)
        logits = answers[logits_output]
        if metadata is not None and logits.shape[1] != len(metadata.labels):
            raise ModelFileError(
                f"{path} is not what its metadata says: it gives {logits.shape[1]} logits for {len(metadata.labels)} "
                "labels. Export it again."
            )
        has_map = MAP in answers and answers[MAP].ndim == 3 and answers[MAP].dtype == np.float32
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
            normalise,
            {"CPUExecutionProvider": session},
        )

    @property
    def labels(self) -> tuple[str, ...] | None:
        """None when the file does not name its classes."""
        return None if self.metadata is None else self.metadata.labels

    def __call__(self, images: Tensor, class_index: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Classify and explain a batch.

        It runs on the GPU when the images are there and onnxruntime has its CUDA provider, else on the CPU.

        Args:
            images: uint8 RGB `[N, H, W, 3]` on any device; those of another size than the model's are resampled.
            class_index: the class to explain in all of them; None explains each one's top class.

        Returns:
            logits float32 `[N, K]`, of a graph that ends in a softmax log-probabilities; and the raw, signed map of
            that class, float32 `[N, h, w]`, or None where the file does not give it. Both on the images' device.
        """
        feed = _feed(images, self.port, self.normalise.to(images.device))
        has_map = self.has_map if class_index is None else self.explains_any
        wanted = [self.logits_output, MAP] if has_map else [self.logits_output]
        asked = {CLASS: np.array([class_index])} if has_map and class_index is not None else {}
        answers = _run(self.path, self._session_for(images.device), wanted, self.port, feed, asked)
        logits = torch.from_numpy(answers[self.logits_output]).to(images.device)
        if self.gives_probabilities:
            logits = logits.clamp_min(torch.finfo(torch.float32).tiny).log()
        return logits, torch.from_numpy(answers[MAP]).to(images.device) if has_map else None

    def _session_for(self, device: torch.device) -> ort.InferenceSession:
        cuda = "CUDAExecutionProvider"
        provider = cuda if device.type == "cuda" and cuda in ort.get_available_providers() else "CPUExecutionProvider"
        if provider not in self.sessions:
            self.sessions[provider] = _session(self.path, provider)
        return self.sessions[provider]


def file_sha256(path: Path) -> str:
    """Of an `.onnx` file and the files in which it keeps its weights.

    Raises:
        ModelFileError: it is missing or no ONNX model, or weights are not beside it.
    """
    if not path.is_file():
        raise ModelFileError(f"There is no model file {path}. Expected an .onnx file with a classifier.")
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's own types, without a common base
        raise ModelFileError(f"{path} is not an ONNX model: {error}. Export or copy it again.") from error
    beside = {entry.value for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"}
    digest = hashlib.sha256()
    for part in (path, *(path.parent / name for name in sorted(beside))):
        if not part.is_file():
            raise ModelFileError(
                f"{path} keeps its weights in another file, {part.name}, which is not beside it. Copy that file too, "
                "or save the model in one file: onnx.save(model, FILE, save_as_external_data=False)."
            )
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _session(path: Path, provider: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # It takes turns with PyTorch: as many threads as that, and none that spin meanwhile.
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = list(dict.fromkeys([provider, "CPUExecutionProvider"]))
    try:
        return ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime raises its own types without a common, public base
        raise ModelFileError(
            f"onnxruntime {ort.__version__} cannot load {path}: {first_line(error)} Export or copy it again."
        ) from error


def _image_port(path: Path, session: ort.InferenceSession) -> _Port:
    inputs = session.get_inputs()  # those with a default value are not among them
    shown = ", ".join(f"{item.name} {item.type} {item.shape}" for item in inputs)
    refusal = ModelFileError(
        f"{path} is no image classifier that can teach: its inputs are {shown}. Expected one input, float32 or uint8, "
        "[N, 3, H, W] or [N, H, W, 3]."
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


def _feed(images: Tensor, port: _Port, normalise: Normalise) -> np.ndarray[Any, Any]:
    """What the graph wants of uint8 images `[N, H, W, 3]`."""
    with torch.no_grad():
        if not port.is_raw:
            x = normalise(images)
        else:
            x = images.permute(0, 3, 1, 2)
            if tuple(x.shape[2:]) != normalise.size:  # as `Normalise` resamples, but in whole pixel values
                x = F.interpolate(x.float(), normalise.size, mode="bilinear", antialias=True)
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
    """Outputs by name, of a batch of any size; `others` are inputs besides the images."""
    step = port.batch or len(x)
    parts: list[Sequence[np.ndarray[Any, Any]]] = []
    for start in range(0, len(x), step):
        chunk = x[start : start + step]
        short = step - len(chunk)
        if short:
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], short, axis=0)])
        try:
            parts.append(session.run(names, {port.name: chunk, **others}))
        except Exception as error:  # as above
            raise ModelFileError(
                f"{path} fails on images {chunk.shape}: {first_line(error)} Export it for that batch and size, with a "
                "dynamic batch if possible."
            ) from error
    whole = [np.concatenate(values) if values[0].ndim else values[0] for values in zip(*parts, strict=True)]
    return {name: value[: len(x)] if value.ndim else value for name, value in zip(names, whole, strict=True)}


def _logits_output(path: Path, answers: _Arrays) -> str:
    flat = [
        name
        for name, value in answers.items()
        if value.dtype == np.float32 and value.ndim == 2 and len(value) == PROBE_IMAGES and value.shape[1] > 1
    ]
    if LOGITS in flat:
        return LOGITS
    if len(flat) != 1:
        shown = ", ".join(f"{name} {value.dtype} {list(value.shape)}" for name, value in answers.items())
        raise ModelFileError(
            f"{path} is no classifier that can teach: for {PROBE_IMAGES} images it gives {shown}. Expected one output "
            f"float32 [{PROBE_IMAGES}, classes], or one of several named {LOGITS}."
        )
    return flat[0]
