"""Enrolled classes: classes of an embedding model that are added without training, in one JSON file.

```json
{"schema": 1, "embedding": {"size": 128, "id": "0123456789abcdef"}, "threshold": 0.52,
 "classes": [{"name": "red-valve", "samples": 5, "prototype": [0.0731, …]}]}
```

The prototype of a class is the mean of the L2-normalized embeddings of its samples (nearest class mean, Mensink et al.
2013). The id names the weights of the model, because embeddings of different models cannot be compared.
"""

import json
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from kdedge_runtime.embedding import EMBEDDING, Embedding
from kdedge_runtime.errors import DataError, KdedgeError, UsageError
from kdedge_runtime.familiarity import UNKNOWN
from kdedge_runtime.model import Model
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.file_hint import file_hint
from kdedge_runtime.util.files import atomic_write
from kdedge_runtime.util.folder_lock import folder_lock
from kdedge_runtime.util.json_values import is_finite_number

__all__ = ["EnrolledClass", "EnrolledClasses", "check_class_name"]

_SCHEMA = 1
_MAX_NAME_LENGTH = 200
_MAX_SAMPLES = 1_000_000
"""Maximum number of samples of a class."""
_MAX_CLASSES = 10_000
"""Maximum number of classes of a file, which are computed for every sample."""
_MAX_WAIT_S = 30.0


@dataclass(frozen=True, eq=False)
class EnrolledClass:
    """One enrolled class."""

    name: str
    samples: int
    """Number of samples, 1 to 1,000,000."""
    prototype: Floats
    """Mean of the L2-normalized embeddings of the samples, float32 `[D]`."""


@dataclass(frozen=True, eq=False)
class EnrolledClasses:
    """Enrolled classes of one model."""

    embedding: Embedding
    """Embedding of the model."""
    threshold: float | None = None
    """Similarity below which a sample is unknown, in [-1, 1]; None if nothing is unknown."""
    classes: tuple[EnrolledClass, ...] = ()
    """Classes in the order of their first enrollment."""

    @classmethod
    def of_model(cls, model: Model, threshold: float | None = None) -> Self:
        """Return no classes yet, for a model.

        Args:
            model: model as loaded from its file.
            threshold: similarity below which a sample is unknown; None for that of the model.

        Raises:
            UsageError: the model has no embedding.
        """
        embedding = model.metadata.embedding
        if embedding is None:
            raise UsageError(
                f"{model.path.name} is a model of the task {model.metadata.task}, whose classes are fixed. Expected an "
                f"embedding model. Train one with `kdedge distill … --task {EMBEDDING}`, and export it."
            )
        return cls(embedding, embedding.threshold if threshold is None else threshold)

    @classmethod
    def read(cls, path: Path, model: Model) -> Self:
        """Read the classes from a file.

        Args:
            path: file of `write`.
            model: model to use them with.

        Raises:
            DataError: the file is missing, damaged, of a later version, without classes, or of another model.
            UsageError: the model has no embedding.
        """
        expected = cls.of_model(model).embedding
        again = _command(model, "NEW.json")
        try:
            text = path.read_bytes()
        except FileNotFoundError as error:
            raise DataError(
                f"The file of classes {path} does not exist.{file_hint(path)} Create it with `{_command(model, path)}`."
            ) from error
        except OSError as error:
            raise DataError(f"The file of classes {path} cannot be read: {error.strerror or error}.") from error
        try:
            found = cls._parse(text)
        except _LaterSchema as error:
            raise DataError(
                f"{path} has schema {error}; this kdedge-runtime reads schema {_SCHEMA}. Install a later "
                f"kdedge-runtime, or enroll the classes again: `{again}`."
            ) from error
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, UsageError) as error:
            raise DataError(
                f"{path} is damaged ({type(error).__name__}: {str(error)[:200]}). Expected classes written by "
                f"`kdedge-run enroll`; enroll them again: `{again}`."
            ) from error
        if not found.embedding.is_of(expected):
            same = found.embedding.size == expected.size
            difference = (
                f"embedding {found.embedding.id} instead of {expected.id}"
                if same
                else f"embeddings of {found.embedding.size} values instead of {expected.size}"
            )
            raise DataError(
                f"The classes in {path} were enrolled with a different model from {model.path.name} ({difference}), so "
                f"that they cannot be compared. Use their model, or enroll their samples again: `{again}`."
            )
        return found

    @classmethod
    def _parse(cls, text: bytes) -> Self:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise TypeError(f"expected an object, got {type(values).__name__}")
        schema = values["schema"]
        if isinstance(schema, int) and schema > _SCHEMA:
            raise _LaterSchema(schema)
        if schema != _SCHEMA or isinstance(schema, bool):
            raise ValueError(f"invalid schema {schema!r}")
        embedding = Embedding.from_json(values["embedding"])
        threshold = values["threshold"]
        if threshold is not None and not (is_finite_number(threshold) and -1 <= threshold <= 1):
            raise ValueError(f"invalid threshold {threshold!r}")
        if len(values["classes"]) > _MAX_CLASSES:
            raise ValueError(f"{len(values['classes'])} classes, expected at most {_MAX_CLASSES}")
        classes = tuple(_parse_class(each, embedding.size) for each in values["classes"])
        names = [each.name for each in classes]
        if not names:
            raise ValueError("no classes")
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise ValueError(f"several classes {name!r}")
        return cls(embedding, None if threshold is None else float(threshold), classes)

    @classmethod
    def read_or_new(cls, path: Path, model: Model) -> Self:
        """Read the classes from a file, or return no classes yet if it is missing. Errors are those of `read`."""
        return cls.read(path, model) if path.exists() else cls.of_model(model)

    @classmethod
    def update(cls, path: Path, model: Model, change: Callable[[Self], Self]) -> Self:
        """Read, change and write a file of classes. Other programs that update it wait, so that no change is lost.

        Args:
            path: file of classes; a missing one counts as no classes yet.
            model: model to use them with.
            change: function from the classes of the file to those to write, at least one.

        Returns:
            The classes written.

        Raises:
            DataError: the file is damaged, or of another model.
            UsageError: the model has no embedding.
            KdedgeError: the file cannot be written, or another program locks its folder.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with folder_lock(path.parent, _MAX_WAIT_S):
                changed = change(cls.read_or_new(path, model))
                changed.write(path)
        except TimeoutError as error:
            raise KdedgeError(f"The classes in {path} are unchanged: {error}. End that program, and repeat.") from error
        except OSError as error:
            raise _unwritable(path, error) from error
        return changed

    def write(self, path: Path) -> None:
        """Write the classes to a file, whole or not at all.

        Raises:
            DataError: there are no classes.
            KdedgeError: the file cannot be written.
        """
        if not self.classes:
            raise DataError(f"There are no classes to write to {path}. Enroll samples of one before.")
        values = {
            "schema": _SCHEMA,
            "embedding": {"size": self.embedding.size, "id": self.embedding.id},
            "threshold": self.threshold,
            "classes": [
                # The shortest decimal number of a float32 is not that of the same float64.
                {
                    "name": each.name,
                    "samples": each.samples,
                    "prototype": [float(str(value)) for value in each.prototype],
                }
                for each in self.classes
            ],
        }
        try:
            atomic_write(path, json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
        except OSError as error:
            raise _unwritable(path, error) from error

    def add(self, name: str, embeddings: Floats) -> Self:
        """Return the classes with further samples of a class, which may be new.

        Args:
            name: name of the class.
            embeddings: L2-normalized embeddings of the samples, `[N, D]`.

        Raises:
            UsageError: the name cannot be used, or there are too many classes.
            DataError: an embedding is not finite, the mean of the class is zero, or the class has too many samples.
        """
        name = check_class_name(name)
        before = next((each for each in self.classes if each.name == name), None)
        if before is None and len(self.classes) >= _MAX_CLASSES:
            raise UsageError(
                f"{name} cannot be added to {len(self.classes)} classes, the most that a file can have. Use another "
                "file, or remove unused classes."
            )
        count, total = len(embeddings), embeddings.sum(axis=0, dtype=np.float64)
        if count + (0 if before is None else before.samples) > _MAX_SAMPLES:
            raise DataError(
                f"{name} would have more than {_MAX_SAMPLES} samples. Enroll further ones as another class."
            )
        if before is not None:
            count, total = count + before.samples, total + before.samples * before.prototype.astype(np.float64)
        prototype = (total / count).astype(np.float32)
        if not np.isfinite(prototype).all() or not prototype.any():
            raise DataError(
                f"The samples of {name} have no mean embedding: it is zero or not finite. Expected samples with "
                "content; use others."
            )
        added = EnrolledClass(name, count, prototype)
        if before is None:
            return replace(self, classes=(*self.classes, added))
        return replace(self, classes=tuple(added if each is before else each for each in self.classes))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(each.name for each in self.classes)

    @property
    def prototypes(self) -> Floats:
        """Prototypes of the classes, float32 `[M, D]`."""
        return np.stack([each.prototype for each in self.classes])

    def apply_to(self, model: Model) -> Model:
        """Return a model that answers with these classes, at least one; see `Model.with_classes`."""
        return model.with_classes(self.names, self.prototypes, self.threshold)


class _LaterSchema(Exception):
    """Schema of a later version."""


def _command(model: Model, output: Path | str) -> str:
    return shlex.join(
        ["kdedge-run", "enroll", str(model.bundle or model.path), "--name", "NAME", "SAMPLES", "-o", str(output)]
    )


def _unwritable(path: Path, error: OSError) -> KdedgeError:
    return KdedgeError(
        f"The classes cannot be written to {path}: {error.strerror or error}. Use a file in a writable folder."
    )


def check_class_name(name: str) -> str:
    """Return the name of a class without surrounding spaces.

    Raises:
        UsageError: the name is empty, too long, contains control characters, or is the word for unknown samples.
    """
    name = name.strip()
    if not 0 < len(name) <= _MAX_NAME_LENGTH:
        raise UsageError(f"The name of a class needs 1 to {_MAX_NAME_LENGTH} characters, got {len(name)}.")
    if not name.isprintable():
        raise UsageError(f"The name of the class {name!r} contains a control character. Type it again.")
    if name.lower() == UNKNOWN:
        raise UsageError(f"A class cannot be named {name}, which is the answer for samples of no class. Rename it.")
    return name


def _parse_class(values: Any, size: int) -> EnrolledClass:
    name, samples, numbers = values["name"], values["samples"], values["prototype"]
    if not isinstance(name, str) or check_class_name(name) != name:
        raise ValueError(f"invalid name {name!r}")
    if not isinstance(samples, int) or isinstance(samples, bool) or not 1 <= samples <= _MAX_SAMPLES:
        raise ValueError(f"{name}: invalid number of samples, expected 1 to {_MAX_SAMPLES}")
    if not isinstance(numbers, list) or len(numbers) != size or not all(map(is_finite_number, numbers)):
        raise ValueError(f"{name}: the prototype is not a list of {size} finite numbers")
    with np.errstate(over="ignore", under="ignore"):
        prototype = np.array(numbers, np.float32)
    if not np.isfinite(prototype).all() or not prototype.any():
        raise ValueError(f"{name}: the prototype is zero or too large")
    return EnrolledClass(name, samples, prototype)
