"""The explained model: one session, one forward pass, the answer and the reason."""

import difflib
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from kdedge_runtime.drawing.heatmap import UNMEASURED, MapDisplay
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.int8_arithmetic import Arithmetic, arithmetic_of, sum_exactly
from kdedge_runtime.metadata import MOST_CELLS, Metadata
from kdedge_runtime.onnx_session import check_outputs, first_line, run_session
from kdedge_runtime.util.arrays import Floats, Integers, Pixels
from kdedge_runtime.util.files import utf8_path

__all__ = ["Explanation", "Model", "available_providers", "is_bundle", "refuse_bundle", "softmax"]

MOST_THREADS = 256
"""Of one inference; onnxruntime starts whatever number it is told, until the machine stands still."""

_FIRST_PASS_S = 60.0
"""A graph can hold a loop without an end."""


def is_bundle(path: Path) -> bool:
    """Whether a path is meant as a bundle: a folder or a .zip."""
    return path.is_dir() or path.suffix.lower() == ".zip"


def refuse_bundle(path: Path) -> None:
    """Refuse a bundle where one model file is needed; `opened_model` takes both.

    Raises:
        ModelFileError: it is one.
    """
    if is_bundle(path):
        raise ModelFileError(
            f"{path} is a bundle, and here one model file is needed. Unpack it (`python3 -m zipfile -e {path} .`) and "
            "name the model.onnx or model.int8.onnx in it."
        )


@dataclass(frozen=True)
class Explanation:
    """What the model says of a batch, and why."""

    logits: Floats
    """`[N, K]`, one column a label."""
    probabilities: Floats
    """`[N, K]`, softmax of the logits at the model's calibration temperature; rows sum to 1."""
    explained_class: Integers
    """`[N]`, the class that each map explains."""
    saliency_map: Floats | None
    """`[N, h, w]`, raw and signed: positive cells speak for the explained class, negative ones against it.

    None when the file was exported with `--method none`, or no map was asked for.
    """
    display: MapDisplay = UNMEASURED
    """Place and strength of these maps on the images."""


@dataclass(frozen=True)
class Model:
    """A model file that is ready to run."""

    path: Path
    metadata: Metadata
    session: ort.InferenceSession

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        provider: str = "cpu",
        spinning: bool = False,
        exact_int8: bool = False,
    ) -> "Model":
        """Open a model file written by `kdedge export`, and try one pass of it on an empty image.

        Args:
            path: the `.onnx` file.
            threads: threads for one inference; None leaves the choice to onnxruntime (all cores).
            provider: onnxruntime's execution provider by its short name (`cpu`, `cuda`, `coreml`, …). It is used
                or refused, never silently replaced.
            spinning: let idle threads wait actively. That takes a core from the camera and heats a small board.
            exact_int8: compute quantized operations with exact sums, which is slower, in place of this machine's
                integer kernels, which may saturate (`kdedge_runtime.int8_arithmetic`).

        Raises:
            ModelFileError: the file is missing, damaged, was not written by kdedge, or its graph is not the one
                that its metadata describes; or its first pass fails or takes more than a minute.
            UsageError: the provider is not part of the installed onnxruntime, or does not work here; or more threads
                than any device has.
        """
        path = Path(path)
        if path.is_dir():
            inside = min(path.glob("*.onnx"), default=path / "model.onnx")
            raise ModelFileError(f"{path} is a folder, and here one model file is needed, such as {inside}.")
        if not path.is_file():
            raise ModelFileError(f"There is no model file {path}. Write one with `kdedge export RUN`.")
        refuse_bundle(path)
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise UsageError(
                f"{threads} threads for one inference. Expected 1 to {MOST_THREADS}; this machine's cores do."
            )
        options = ort.SessionOptions()
        options.log_severity_level = 4  # its own log would print a stranger's node names as they are
        if threads is not None:
            options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        if exact_int8:
            sum_exactly(options)
        wanted, name = _provider(provider), utf8_path(path, "onnxruntime")
        try:
            # Its fallback would try other providers, and tell of it on standard output.
            session = ort.InferenceSession(name, options, providers=[wanted], enable_fallback=0)
        except Exception as error:  # onnxruntime raises its own types without a common, public base
            raise ModelFileError(
                f"onnxruntime {ort.__version__} cannot read {path}: {first_line(error)} "
                "Expected a model file written by `kdedge export`; copy or export it again."
            ) from error
        if session.get_providers()[0] != wanted:
            raise UsageError(
                f"onnxruntime {ort.__version__} has {wanted} but cannot start it here, and would use the CPU instead. "
                "Install the driver and libraries that it needs, or leave --provider out."
            )
        try:
            props = session.get_modelmeta().custom_metadata_map
            inputs = {item.name: item for item in session.get_inputs()}
            outputs = {item.name: item for item in session.get_outputs()}
            metadata = Metadata.from_props(props)
            _check_graph(path, inputs, outputs, metadata)
        except UnicodeDecodeError as error:  # onnxruntime decodes names and symbolic shapes when they are read
            raise ModelFileError(f"{path} is damaged: its texts are no UTF-8. Copy or export it again.") from error
        model = cls(path, metadata, session)
        model._try()
        return model

    @property
    def provider(self) -> str:
        """The execution provider that the session really uses, by onnxruntime's name."""
        return str(self.session.get_providers()[0])

    @property
    def arithmetic(self) -> Arithmetic | None:
        """The arithmetic of its quantized operations; None for a float file."""
        return None if self.metadata.quantization is None else arithmetic_of(self.session)

    @property
    def has_map(self) -> bool:
        """Whether the file gives a saliency map."""
        return self.metadata.outputs.method != "none"

    def class_index(self, name: str, *, by_explainer: bool = False) -> int:
        """The index of a class to explain, by its name or its number.

        Args:
            name: a label, or its number.
            by_explainer: something else than the file's own map explains the class.

        Raises:
            UsageError: no label has this name, or the file gives no map to explain it with.
        """
        if not self.has_map and not by_explainer:
            raise UsageError(
                f"{self.path} gives no saliency map, so no class can be explained. Export it without --method none, "
                "take a --method that needs no map in the file, or leave --class out."
            )
        labels = self.metadata.labels
        if name in labels:
            return labels.index(name)
        if name.isdecimal() and int(name) < len(labels):
            return int(name)
        near = difflib.get_close_matches(name, labels, n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        shown = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
        raise UsageError(f"The model has no class {name!r}.{hint} Its {len(labels)} classes are: {shown}")

    def predict(self, images: Pixels, class_index: int | None = None, *, explained: bool = True) -> Explanation:
        """Classify and explain a batch in one forward pass.

        Args:
            images: uint8 RGB `[N, H, W, 3]` at the model's size (see `kdedge_runtime.preprocess.fit`).
            class_index: the class to explain in every image; None explains the top class of each.
            explained: False asks for no map. That spares no time worth mention: onnxruntime computes the whole graph
                whatever is asked of it (its issue 16483).

        Raises:
            UsageError: the shape, type or class index does not fit the model.
            ModelFileError: onnxruntime cannot run the graph, or its outputs are not of the promised shapes and ranges.
        """
        return self._predict(images, class_index, explained=explained)

    def _try(self) -> None:
        spec = self.metadata.input
        options = ort.RunOptions()
        limit = threading.Timer(_FIRST_PASS_S, setattr, (options, "terminate", True))
        limit.daemon = True
        limit.start()
        try:
            self._predict(np.zeros((1, spec.height, spec.width, 3), np.uint8), None, explained=True, options=options)
        except ModelFileError as error:
            if not options.terminate:
                raise
            raise ModelFileError(
                f"{self.path} did not finish a pass within {_FIRST_PASS_S:.0f} s. Expected a model that this machine "
                "can run; take a smaller one."
            ) from error
        finally:
            limit.cancel()

    def _predict(
        self, images: Pixels, class_index: int | None, *, explained: bool, options: ort.RunOptions | None = None
    ) -> Explanation:
        spec = self.metadata.input
        expected = (spec.height, spec.width, 3)
        if images.ndim != 4 or images.shape[1:] != expected or images.dtype != np.uint8:
            raise UsageError(
                f"The model takes uint8 images of shape (N, {', '.join(map(str, expected))}), "
                f"got {images.dtype} {images.shape}. Bring pictures to size with kdedge_runtime.preprocess.fit."
            )
        feed: dict[str, np.ndarray] = {spec.name: images}
        if class_index is not None:
            if not 0 <= class_index < len(self.metadata.labels):
                raise UsageError(
                    f"Class index {class_index} is outside the model's {len(self.metadata.labels)} classes."
                )
            if self.has_map:
                feed["class_index"] = np.array([class_index], dtype=np.int64)
        if self.has_map and explained:
            names = ["logits", "saliency_map", "explained_class"]
            logits, saliency_map, classes = run_session(self.session, names, feed, self.path, options)
            check_outputs(self.path, (len(images), len(self.metadata.labels)), logits, saliency_map, classes)
        else:
            (logits,), saliency_map = run_session(self.session, ["logits"], feed, self.path, options), None
            check_outputs(self.path, (len(images), len(self.metadata.labels)), logits)
            classes = logits.argmax(axis=1) if class_index is None else np.full(len(images), class_index)
        probabilities, display = softmax(logits / self.metadata.temperature), self.metadata.outputs.display
        return Explanation(logits, probabilities, classes, saliency_map, display)


def softmax(logits: Floats) -> Floats:
    """Probabilities `[N, K]` of logits `[N, K]`."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def _check_graph(
    path: Path, inputs: dict[str, ort.NodeArg], outputs: dict[str, ort.NodeArg], metadata: Metadata
) -> None:
    spec = metadata.input
    needed = {"logits"} if metadata.outputs.method == "none" else {"logits", "saliency_map", "explained_class"}
    faults = [f"no output {name}" for name in sorted(needed - outputs.keys())]
    if spec.name not in inputs:
        faults.append(f"no input {spec.name}")
    elif inputs[spec.name].type != "tensor(uint8)" or not _agrees(inputs[spec.name], (spec.height, spec.width, 3)):
        faults.append(f"an input {spec.name} of {inputs[spec.name].type} {inputs[spec.name].shape}")
    if "logits" in outputs and not _agrees(outputs["logits"], (len(metadata.labels),)):
        faults.append(f"logits {outputs['logits'].shape} for {len(metadata.labels)} labels")
    if "saliency_map" in outputs and not _is_map(outputs["saliency_map"].shape):
        faults.append(f"a saliency_map {outputs['saliency_map'].shape}")
    if faults:
        raise ModelFileError(
            f"{path} is not what its metadata says: it has {', '.join(faults)}. Expected uint8 input "
            f"{spec.name} [N, {spec.height}, {spec.width}, 3] and {', '.join(sorted(needed))}. Export it again."
        )


def _is_map(shape: list[Any]) -> bool:
    sides = [side for side in shape[1:] if isinstance(side, int)]
    return len(shape) == 3 and all(side > 0 for side in sides) and math.prod(sides) <= MOST_CELLS


def _agrees(value: ort.NodeArg, shape: tuple[int, ...]) -> bool:
    """Whether a value's shape after the batch can be `shape`; dimensions that the graph leaves open agree with any."""
    inner = value.shape[1:]
    return len(inner) == len(shape) and all(
        actual == expected or not isinstance(actual, int) for actual, expected in zip(inner, shape, strict=True)
    )


def available_providers() -> dict[str, str]:
    """The execution providers of the installed onnxruntime: its names by their short, lower-case ones."""
    return {name.removesuffix("ExecutionProvider").lower(): name for name in ort.get_available_providers()}


def _provider(short_name: str) -> str:
    available = available_providers()
    if short_name.lower() not in available:
        raise UsageError(
            f"onnxruntime {ort.__version__} here has no provider {short_name!r}; it has: {', '.join(available)}."
        )
    return available[short_name.lower()]
