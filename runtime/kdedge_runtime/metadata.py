"""Schema of the `kdedge.*` metadata in a model file.

Values are JSON, read through `custom_metadata_map` and never evaluated. Unknown keys are ignored, so that later
versions can add keys under the same schema number. A change in the meaning of an existing key needs a new schema
number. The exporter writes the metadata with these same classes.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from kdedge_runtime.drawing.heatmap import UNMEASURED, MapDisplay
from kdedge_runtime.embedding import Embedding
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.familiarity import Familiarity
from kdedge_runtime.modalities import InputSpec, parse_input
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.json_values import is_finite_number
from kdedge_runtime.util.plugin_registry import MissingPlugin

__all__ = ["MAX_POSITIONS", "SCHEMA", "TOP_CLASS", "Metadata", "Outputs"]

SCHEMA = 1
PREFIX = "kdedge."
TOP_CLASS = -1
"""Default of the graph input `class_index`: explain the top class of each sample."""
MAX_POSITIONS = 4_000_000
"""Maximum number of values in a saliency map."""
_MAX_REASON_LENGTH = 200


@dataclass(frozen=True)
class Outputs:
    """Description of the graph outputs besides the logits."""

    method: str
    """Saliency method, or `none` if the file has no map."""
    target_layer: str | None = None
    """Module path of the layer whose features the map explains."""
    head: str | None = None
    map_height: int | None = None
    map_width: int | None = None
    display: MapDisplay = UNMEASURED

    @classmethod
    def from_json(cls, text: str) -> "Outputs":
        """Parse the metadata entry `kdedge.outputs`.

        Raises:
            ModelFileError: the entry is damaged.
        """
        try:
            return _outputs(_checked(_parse(PREFIX + "outputs", text), dict))
        except (TypeError, ValueError, OverflowError) as error:
            raise _damaged(error) from error

    def explains_like(self, other: "Outputs") -> bool:
        """Return True if both files compute the same kind of map. Ignores `display`, which depends on rounding."""
        return replace(self, display=UNMEASURED) == replace(other, display=UNMEASURED)


@dataclass(frozen=True)
class Metadata:
    """Metadata of a model file."""

    labels: tuple[str, ...]
    """Class names in the order of the logits."""
    input: InputSpec
    outputs: Outputs
    quantization: dict[str, Any] | None = None
    lineage: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    """Calibration temperature: probabilities are `softmax(logits / temperature)`."""
    reference_frames: dict[str, Any] | None = None
    """Reference frames and their expected outputs; see `kdedge_runtime.diagnostics.reference_frames`."""
    task: str = "classify"
    """Interpretation of the logits, a key of `kdedge_runtime.tasks.TASKS`."""
    familiarity: Familiarity | None = None
    """Output `familiarity` and its threshold; None without that output."""
    embedding: Embedding | None = None
    """Output `embedding` and input `prototypes`; None unless the task is `embedding`."""

    @property
    def has_values(self) -> bool:
        """True if the predictions are values without a range, as in a regression; False if they are labels."""
        return TASKS[self.task].has_values

    @property
    def precision(self) -> str:
        """Name of the precision, a key of `kdedge_runtime.precision.PRECISIONS`."""
        # The entry of the shipped model has no name.
        return "fp32" if self.quantization is None else str(self.quantization.get("precision", "int8"))

    def to_props(self) -> dict[str, str]:
        """Return the metadata as `metadata_props` entries: namespaced keys, JSON values."""
        values = {"schema": SCHEMA} | {item.name: getattr(self, item.name) for item in fields(self)}
        values["input"], values["outputs"] = asdict(self.input), asdict(self.outputs)
        values["familiarity"] = None if self.familiarity is None else asdict(self.familiarity)
        values["embedding"] = None if self.embedding is None else asdict(self.embedding)
        return {PREFIX + key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> "Metadata":
        """Parse the metadata of a model file.

        Raises:
            ModelFileError: the file was not exported by kdedge, has another schema, or contains an invalid value.
            MissingPlugin: no installed package provides its modality or its task.
        """
        if PREFIX + "schema" not in props:
            raise ModelFileError(
                "The model file has no kdedge metadata, so its labels and input size are unknown. Expected a file "
                "written by `kdedge export`. To convert a file of another framework, run `kdedge export "
                "FILE --mean … --std …`."
            )
        schema = _parse(PREFIX + "schema", props[PREFIX + "schema"])
        if schema != SCHEMA:
            raise ModelFileError(
                f"The model file has metadata schema {schema!r}; this kdedge-runtime reads schema {SCHEMA}. "
                "Export the model again, or install the kdedge-runtime that matches it."
            )
        keys = {PREFIX + item.name: item.name for item in fields(cls)}
        values = {keys[key]: _parse(key, text) for key, text in props.items() if key in keys}
        try:
            values["labels"] = _labels(_checked(values["labels"], list))
            values["input"] = parse_input(_checked(values["input"], dict))
            values["outputs"] = _outputs(_checked(values["outputs"], dict))
            values["task"] = _task(values.get("task", "classify"))
            if values.get("familiarity") is not None:
                values["familiarity"] = Familiarity.from_json(_checked(values["familiarity"], dict))
            if values.get("embedding") is not None:
                values["embedding"] = Embedding.from_json(_checked(values["embedding"], dict))
            metadata = cls(**values)
            if TASKS[metadata.task].has_embedding != (metadata.embedding is not None):
                raise ValueError(
                    f"task {metadata.task} {'without' if metadata.embedding is None else 'with'} embedding"
                )
            if not isinstance(metadata.temperature, int | float) or not 0 < float(metadata.temperature) < math.inf:
                raise ValueError(f"invalid temperature {metadata.temperature!r}")
            for value in (metadata.quantization, metadata.reference_frames):
                if value is not None:
                    _checked(value, dict)
        except MissingPlugin:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _damaged(error) from error
        return metadata


def _damaged(error: Exception) -> ModelFileError:
    reason = str(error)[:_MAX_REASON_LENGTH]
    return ModelFileError(
        f"The model file's metadata is damaged ({type(error).__name__}: {reason}). Export the model again."
    )


def _parse(key: str, text: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # lone surrogates are valid in JSON but cannot be encoded
        return value
    except (ValueError, RecursionError) as error:
        reason = str(error)[:_MAX_REASON_LENGTH]
        raise ModelFileError(
            f"The model file's metadata is damaged: {key} is not JSON ({reason}). Export the model again."
        ) from error


def _known(kind: type[Outputs] | type[MapDisplay], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values whose keys this version reads."""
    return {item.name: values[item.name] for item in fields(kind) if item.name in values}


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _labels(values: list[Any]) -> tuple[str, ...]:
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError("labels are not a list of names")
    return tuple(values)


def _task(name: Any) -> str:
    TASKS[_checked(name, str)]  # raises MissingPlugin
    return str(name)


def _outputs(values: dict[str, Any]) -> Outputs:
    display = MapDisplay(**_known(MapDisplay, _checked(values.get("display", {}), dict)))
    outputs = Outputs(**_known(Outputs, values) | {"display": display})
    _checked(outputs.method, str)
    for name in (outputs.target_layer, outputs.head):
        if name is not None:
            _checked(name, str)
    sides = (outputs.map_height, outputs.map_width)
    is_sound = all(side is None or (isinstance(side, int) and side > 0) for side in sides)
    if not is_sound or math.prod(side or 1 for side in sides) > MAX_POSITIONS:
        raise ValueError(f"invalid map {values}")
    shifts_are_sound = all(is_finite_number(shift) and abs(shift) <= 1 for shift in display.shift)
    contrast = display.typical_contrast
    if not shifts_are_sound or not (contrast is None or (is_finite_number(contrast) and contrast > 0)):
        raise ValueError(f"invalid map display {values}")
    return outputs
