"""Explained model: one onnxruntime session that returns logits and saliency maps in one forward pass."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from kdedge_runtime.drawing.heatmap import UNMEASURED, MapDisplay
from kdedge_runtime.embedding import EMBEDDING, PROTOTYPES
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.familiarity import FAMILIARITY, Familiarity
from kdedge_runtime.graph_signature import check_graph
from kdedge_runtime.int8_arithmetic import Arithmetic, int8_arithmetic, use_exact_sums
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.modalities import Sample
from kdedge_runtime.onnx_session import check_outputs, first_line, run_session
from kdedge_runtime.precision import PRECISIONS
from kdedge_runtime.saliency_methods import NO_MAP
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.arrays import Floats, Integers, normalize_rows
from kdedge_runtime.util.class_hint import class_hint
from kdedge_runtime.util.counts import counted
from kdedge_runtime.util.file_hint import file_hint
from kdedge_runtime.util.files import utf8_path

__all__ = ["Explanation", "Model", "available_providers", "is_bundle", "refuse_bundle"]

MAX_THREADS = 256
"""Maximum number of threads per inference. onnxruntime has no limit of its own and could exhaust the machine."""

_FIRST_PASS_S = 60.0
"""Time limit of the first pass in seconds, because a graph can contain an endless loop."""


def is_bundle(path: Path) -> bool:
    """Return True if a path is a bundle: a .zip file."""
    return path.suffix.lower() == ".zip"


def refuse_bundle(path: Path) -> None:
    """Raise if a path is a bundle where a single model file is needed. `open_model` accepts both.

    Raises:
        ModelFileError: the path is a bundle.
    """
    if is_bundle(path):
        raise ModelFileError(
            f"{path} is a bundle, but a single model file is needed. Unpack it (`python3 -m zipfile -e {path} .`) "
            "and pass one of the .onnx files in it."
        )


@dataclass(frozen=True, eq=False)
class Explanation:
    """Predictions and saliency maps for a batch."""

    logits: Floats
    """Logits `[N, K]`, one column per label."""
    scores: Floats
    """Scores `[N, K]` of the task. For classification: probabilities at the calibration temperature; rows sum to 1."""
    explained_class: Integers
    """Class index explained by each map, `[N]`."""
    saliency_map: Floats | None
    """Raw signed maps `[N, h, w]`: positive values support the explained class, negative values oppose it.

    None if the file was exported with `--method none` or no map was requested.
    """
    display: MapDisplay = UNMEASURED
    """Position and contrast of the maps on the samples."""
    familiarity: Floats | None = None
    """Similarity to the training samples `[N]`, larger for more familiar ones; None if the file does not have it."""
    unknown: NDArray[np.bool_] | None = None
    """True for samples whose familiarity lies below the threshold of the file, `[N]`; None without familiarity."""
    embedding: Floats | None = None
    """L2-normalized embeddings `[N, D]`; None if the file does not have them."""

    def of_sample(self, index: int) -> "Explanation":
        """Return the outputs for one sample, as a batch of one."""
        return replace(self, **{name: values[index : index + 1] for name, values in self._arrays().items()})

    @classmethod
    def concatenate(cls, parts: Sequence["Explanation"]) -> "Explanation":
        """Join batches of the same model."""
        arrays = [part._arrays() for part in parts]
        joined: dict[str, Any] = {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}
        return replace(parts[0], **joined)

    def _arrays(self) -> dict[str, Any]:
        """Return the outputs, whose first axis is the batch."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """Loaded model file."""

    path: Path
    metadata: Metadata
    """Metadata of the file, with the labels and threshold of `with_classes`."""
    session: ort.InferenceSession
    prototypes: Floats | None = field(default=None, kw_only=True)
    """L2-normalized prototypes of enrolled classes `[M, D]`; None for the classes of the file."""
    bundle: Path | None = field(default=None, kw_only=True)
    """Bundle that `path` was unpacked from, as opened; None for a bare model file."""

    def __repr__(self) -> str:
        """Return the file, the number of labels and the task."""
        return f"Model({str(self.path)!r}, {counted(len(self.metadata.labels), 'label')}, {self.metadata.task})"

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        provider: str = "cpu",
        spinning: bool = False,
        exact_sums: bool = False,
    ) -> "Model":
        """Load a model file written by `kdedge export` and run it once on a blank sample.

        Args:
            path: the `.onnx` file.
            threads: threads per inference; None for onnxruntime's default (all cores).
            provider: short name of the onnxruntime execution provider (`cpu`, `cuda`, `coreml`, …). There is no silent
                fallback.
            spinning: True lets idle threads busy-wait, which takes a core from the camera and heats small boards.
            exact_sums: True computes quantized operations with exact float sums. This is slower than the machine's
                integer kernels, which may saturate (`kdedge_runtime.int8_arithmetic`).

        Raises:
            ModelFileError: the file is missing, damaged or not written by kdedge; its graph does not match its
                metadata; or the first pass fails or takes more than a minute.
            UsageError: the provider is not available, or `threads` is out of range.
        """
        path = Path(path)
        if path.is_dir():
            inside = min(path.glob("*.onnx"), default=None)
            advice = f"Pass the file in it: {inside}" if inside else f"Export it with `kdedge export {path}`"
            raise ModelFileError(f"{path} is a folder, but a model file is needed. {advice}.")
        if not path.is_file():
            raise ModelFileError(
                f"The model file {path} does not exist.{file_hint(path)} Create one with `kdedge export RUN`."
            )
        refuse_bundle(path)
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise UsageError(
                f"{threads} threads per inference are not supported. Expected 1 to {MAX_THREADS}; use at most the "
                "number of cores."
            )
        options = ort.SessionOptions()
        options.log_severity_level = 4  # its log would print untrusted node names unescaped
        if threads is not None:
            options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        if exact_sums:
            use_exact_sums(options)
        wanted, name = _provider(provider), utf8_path(path, "onnxruntime")
        try:
            # The fallback would try other providers and print to standard output.
            session = ort.InferenceSession(name, options, providers=[wanted], enable_fallback=0)
        except Exception as error:  # onnxruntime's exceptions have no common public base class
            raise ModelFileError(
                f"onnxruntime {ort.__version__} cannot read {path}: {first_line(error)} "
                "Expected a model file written by `kdedge export`; copy or export it again."
            ) from error
        if session.get_providers()[0] != wanted:
            raise UsageError(
                f"onnxruntime {ort.__version__} includes {wanted} but cannot start it, and would use the CPU "
                "instead. Install its driver and libraries, or remove --provider."
            )
        try:
            props = session.get_modelmeta().custom_metadata_map
            metadata = Metadata.from_props(props)
            check_graph(path, session, metadata)
        except UnicodeDecodeError as error:  # onnxruntime decodes names and symbolic shapes when they are read
            raise ModelFileError(f"{path} is damaged: its text is not valid UTF-8. Copy or export it again.") from error
        model = cls(path, metadata, session)
        model._try()
        return model

    @property
    def provider(self) -> str:
        """Active execution provider, by its onnxruntime name."""
        return str(self.session.get_providers()[0])

    @property
    def arithmetic(self) -> Arithmetic | None:
        """Arithmetic of the quantized operations; None for a file without integers."""
        precision = PRECISIONS.get(self.metadata.precision)
        return int8_arithmetic(self.session) if precision is not None and precision.is_integer else None

    @property
    def has_map(self) -> bool:
        """True if the file has a saliency map."""
        return self.metadata.outputs.method != NO_MAP

    def class_index(self, name: str, *, by_explainer: bool = False) -> int:
        """Return the index of a class, given its name or its index as text.

        Args:
            name: a label or a class index.
            by_explainer: True if a black-box explainer is used, which needs no map in the file.

        Raises:
            UsageError: there is no such class, or the file has no map to explain it with.
        """
        if not self.has_map and not by_explainer:
            raise UsageError(
                f"{self.path} has no saliency map, so no class can be explained. Export it without --method none, "
                "use a --method that needs no map in the file, or remove --class."
            )
        labels = self.metadata.labels
        if name in labels:
            return labels.index(name)
        if name.isdecimal() and int(name) < len(labels):
            return int(name)
        raise UsageError(f"The model has no class {name!r}.{class_hint(name, labels)}")

    def with_classes(self, labels: Sequence[str], prototypes: Floats, threshold: float | None = None) -> "Model":
        """Return this model with other classes. It shares the session, so that this takes no time and no memory.

        Args:
            labels: names of the classes, `M` different ones.
            prototypes: one vector a class, float32 `[M, D]`, such as its mean embedding; of any length but zero.
            threshold: similarity below which a sample is unknown, in [-1, 1]; None for no threshold.

        Raises:
            UsageError: the file has no embedding, or the classes do not fit it.
            ModelFileError: there is a threshold, but the file has no familiarity.
        """
        embedding, familiarity = self.metadata.embedding, self.metadata.familiarity
        if embedding is None:
            raise UsageError(
                f"{self.path} is a model of the task {self.metadata.task}, whose classes are fixed. Expected an "
                f"embedding model. Train one with `kdedge distill … --task {EMBEDDING}`."
            )
        rows = np.ascontiguousarray(prototypes, dtype=np.float32)
        if not labels or len(set(labels)) != len(labels) or rows.shape != (len(labels), embedding.size):
            raise UsageError(
                f"{len(labels)} class names ({len(set(labels))} different) and prototypes of shape {list(rows.shape)} "
                f"do not fit {self.path}. Expected different names and one prototype of {embedding.size} values each."
            )
        if not (np.isfinite(rows).all() and rows.any(axis=1).all()):
            raise UsageError("A prototype is zero or not finite. Expected finite vectors; enroll its class again.")
        if familiarity is not None:
            # The counts belong to the classes of the file.
            familiarity = Familiarity(familiarity.method, threshold)
        elif threshold is not None:
            raise ModelFileError(
                f"{self.path} has no familiarity, so that a threshold of {threshold:g} has no effect. Export it again."
            )
        metadata = replace(self.metadata, labels=tuple(labels), familiarity=familiarity)
        return replace(self, metadata=metadata, prototypes=normalize_rows(rows))

    def predict(self, samples: Sample, class_index: int | None = None, *, explained: bool = True) -> Explanation:
        """Predict and explain a preprocessed batch; `kdedge_runtime.predict` takes one raw sample.

        It takes one forward pass, or one per sample if the file has a fixed batch of 1.

        Args:
            samples: preprocessed samples `[N, *metadata.input.shape]`; images are uint8 RGB `[N, H, W, 3]`.
            class_index: class to explain in every sample; None for the top-1 class of each.
            explained: False omits the map. This saves almost no time, because onnxruntime computes the whole graph
                regardless of the requested outputs (its issue 16483).

        Raises:
            UsageError: the shape, dtype or class index does not match the model.
            ModelFileError: onnxruntime cannot run the graph, or an output has an unexpected shape or range.
        """
        if len(samples) > 1 and self._batch == 1:
            parts = [self._predict(sample[None], class_index, explained=explained) for sample in samples]
            return Explanation.concatenate(parts)
        return self._predict(samples, class_index, explained=explained)

    @property
    def _batch(self) -> int | str | None:
        """Fixed batch size of the graph, or the name of a dynamic one."""
        inputs = {item.name: item for item in self.session.get_inputs()}
        batch: int | str | None = inputs[self.metadata.input.name].shape[0]
        return batch

    def _try(self) -> None:
        spec = self.metadata.input
        options = ort.RunOptions()
        limit = threading.Timer(_FIRST_PASS_S, setattr, (options, "terminate", True))
        limit.daemon = True
        limit.start()
        try:
            self._predict(np.zeros((1, *spec.shape), spec.dtype), None, explained=True, options=options)
        except ModelFileError as error:
            if not options.terminate:
                raise
            raise ModelFileError(
                f"{self.path} did not finish a pass within {_FIRST_PASS_S:.0f} s. Expected a model that this machine "
                "can run; use a smaller one."
            ) from error
        finally:
            limit.cancel()

    def _predict(
        self, samples: Sample, class_index: int | None, *, explained: bool, options: ort.RunOptions | None = None
    ) -> Explanation:
        spec = self.metadata.input
        if samples.ndim != 1 + len(spec.shape) or samples.shape[1:] != spec.shape or samples.dtype != spec.dtype:
            raise UsageError(
                f"The model takes {spec.dtype} {spec.kind} samples of shape (N, {', '.join(map(str, spec.shape))}), "
                f"got {samples.dtype} {samples.shape}. Convert each one with model.metadata.input.preprocess."
            )
        feed: dict[str, np.ndarray] = {spec.name: samples}
        if class_index is not None:
            if not 0 <= class_index < len(self.metadata.labels):
                raise UsageError(
                    f"Class index {class_index} is out of range for the model's {len(self.metadata.labels)} classes."
                )
            if self.has_map:
                feed["class_index"] = np.array([class_index], dtype=np.int64)
        if self.prototypes is not None:
            feed[PROTOTYPES] = self.prototypes
        with_map, measured = self.has_map and explained, self.metadata.familiarity
        names = ["logits", *(["saliency_map", "explained_class"] if with_map else [])]
        names += [] if measured is None else [FAMILIARITY]
        names += [] if self.metadata.embedding is None else [EMBEDDING]
        found = dict(zip(names, run_session(self.session, names, feed, self.path, options), strict=True))
        size = 0 if self.metadata.embedding is None else self.metadata.embedding.size
        check_outputs(self.path, (len(samples), len(self.metadata.labels)), **found, embedding_size=size)
        logits, familiarity = found["logits"], found.get(FAMILIARITY)
        if with_map:
            classes = found["explained_class"]
        else:
            classes = logits.argmax(axis=1) if class_index is None else np.full(len(samples), class_index)
        scores = TASKS[self.metadata.task].scores(logits, self.metadata.temperature)
        return Explanation(
            logits,
            scores,
            classes,
            found.get("saliency_map"),
            self.metadata.outputs.display,
            familiarity,
            None if measured is None or familiarity is None else measured.is_unknown(familiarity),
            found.get(EMBEDDING),
        )


def available_providers() -> dict[str, str]:
    """Return the execution providers of the installed onnxruntime, by lower-case short name."""
    return {name.removesuffix("ExecutionProvider").lower(): name for name in ort.get_available_providers()}


def _provider(short_name: str) -> str:
    available = available_providers()
    if short_name.lower() not in available:
        raise UsageError(
            f"onnxruntime {ort.__version__} has no provider {short_name!r} here. Available: {', '.join(available)}."
        )
    return available[short_name.lower()]
