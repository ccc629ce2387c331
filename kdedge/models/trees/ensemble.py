"""Ensemble of trees with its columns: logits and exact TreeSHAP values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kdedge.data.table_schema import SCHEMA_FILE, ColumnSchema, read_schema
from kdedge.models.run_folder import RunRecord
from kdedge.models.trees import trees_file
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.modalities.table_column import ColumnKind, TableColumn
from kdedge_runtime.modalities.tabular import TabularInput
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.files import file_sha256

__all__ = ["TreeEnsemble", "Trees", "load_tree_file", "load_tree_run", "mark_missing"]

_OUTPUTS = {"binary": ("classify", 2), "regression": ("regression", 1)}


class Trees(Protocol):
    """Trees of a library."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs, in order; empty if the file has none."""

    @property
    def categorical(self) -> tuple[bool, ...]:
        """True for each input that takes codes of categories."""

    @property
    def objective(self) -> str:
        """`binary`, `multiclass` or `regression`; another name if it is not supported."""

    @property
    def margins(self) -> int:
        """Number of margins: 1, or the number of classes."""

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the margins `[N, margins]` of rows `[N, F]`; missing values are NaN."""

    def contributions(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return TreeSHAP values with the base value last, `[N, margins, F + 1]`; their sum is the margin.

        Lundberg et al., From Local Explanations to Global Understanding with Explainable AI for Trees, Nature Machine
        Intelligence 2020, algorithm 2 (path-dependent).
        """


@dataclass(frozen=True, eq=False)
class TreeEnsemble:
    """Ensemble of trees as a model of tables."""

    path: Path
    sha256: str
    input: TabularInput
    labels: tuple[str, ...] | None
    """Class names; None if the file has none."""
    task: str
    classes: int
    trees: Trees
    fed: str | None = None
    """Assumption about the input; None, since columns are matched by name."""

    @property
    def bytes(self) -> int:
        """File size in bytes."""
        return self.path.stat().st_size

    def __call__(self, rows: Floats, *, explained: bool = False) -> tuple[Floats, Floats | None]:
        """Compute logits, and contributions to them.

        A binary ensemble has one margin `m`. Its logits are `-m/2` and `m/2`, whose softmax is the ensemble's
        probability, with mean zero as those of a student.

        Args:
            rows: preprocessed rows, float32 `[N, F]`.
            explained: True to compute contributions.

        Returns:
            Logits float32 `[N, K]`; and TreeSHAP values of each logit `[N, K, F]`, or None.
        """
        values = mark_missing(rows, self.input)
        parts: Floats | None = None
        if explained:
            all_parts = self.trees.contributions(values)
            logits, parts = all_parts.sum(axis=2), all_parts[..., :-1]
        else:
            logits = self.trees.predict(values)
        if self.classes == 2:
            logits = np.concatenate([-logits / 2, logits / 2], axis=1)
            parts = None if parts is None else np.concatenate([-parts / 2, parts / 2], axis=1)
        return logits.astype(np.float32), None if parts is None else parts.astype(np.float32)


def mark_missing(rows: Floats, spec: TabularInput) -> Floats:
    """Return rows `[N, F]` with NaN for missing values and unknown categories, as the libraries take them."""
    unknown = np.array([column.kind == "categorical" for column in spec.features]) & ~(rows >= 0)
    filled: Floats = np.where(unknown | ~np.isfinite(rows), np.nan, rows).astype(np.float32)
    return filled


def load_tree_run(run: Path, record: RunRecord) -> TreeEnsemble:
    """Load the ensemble of a run folder.

    Raises:
        ModelFileError: the file is missing or damaged, or is not that of the run.
        MissingDependency: the library is not installed.
    """
    path = trees_file(run, record.model.name)
    assert isinstance(record.input, TabularInput)
    trees = _open(path)
    found = (*_OUTPUTS.get(trees.objective, ("classify", trees.margins)), len(trees.categorical))
    expected = (record.task, record.model.classes, len(record.input.features))
    if found != expected or trees.objective not in (*_OUTPUTS, "multiclass"):
        raise ModelFileError(
            f"{path} has {found[1]} outputs and {found[2]} columns for {trees.objective}, but the run has "
            f"{expected[1]} and {expected[2]} for {record.task}. Train the model again."
        )
    return TreeEnsemble(path, file_sha256(path), record.input, record.labels, record.task, record.model.classes, trees)


def load_tree_file(path: Path) -> TreeEnsemble:
    """Load a file of XGBoost (`.ubj`, `.json`) or LightGBM (`.txt`) that kdedge did not train.

    Its inputs are columns by their names in the file. Codes of categories, and inputs without a name, need a schema
    next to the file, whose order of columns and categories is that of the training.

    Raises:
        ModelFileError: the file is damaged, or its objective is not supported.
        UsageError: a schema is missing or does not fit.
        MissingDependency: the library is not installed.
    """
    trees = _open(path)
    beside = path.with_name(SCHEMA_FILE)
    schema = read_schema(beside) if beside.is_file() else None
    if trees.objective not in (*_OUTPUTS, "multiclass"):
        raise ModelFileError(
            f"{path} has the objective {trees.objective}, which has neither logits of classes nor a value. Expected "
            "binary:logistic, multi:softprob or reg:squarederror, or LightGBM's binary, multiclass or regression."
        )
    columns = _columns(path, trees, None if schema is None else schema.used)
    task, classes = _OUTPUTS.get(trees.objective, ("classify", trees.margins))
    labels = None if schema is None else schema.labels
    if labels is not None and len(labels) != classes:
        raise UsageError(f"{beside} has {len(labels)} labels, but {path.name} has {classes} outputs.")
    return TreeEnsemble(path, file_sha256(path), TabularInput(columns), labels, task, classes, trees)


def _open(path: Path) -> Trees:
    if not path.is_file():
        raise ModelFileError(f"There is no file {path}. Train the model again.")
    if path.suffix.lower() == ".txt":
        from kdedge.models.trees.lightgbm_trees import LightgbmTrees

        return LightgbmTrees.load(path)
    from kdedge.models.trees.xgboost_trees import XgboostTrees

    return XgboostTrees.load(path)


def _columns(path: Path, trees: Trees, schema: tuple[ColumnSchema, ...] | None) -> tuple[TableColumn, ...]:
    names = trees.names or tuple(column.name for column in schema or ())
    if len(names) != len(trees.categorical):
        raise UsageError(
            f"{path} has no names for its {len(trees.categorical)} inputs. Put a {SCHEMA_FILE} with these columns, in "
            "their order, next to it."
        )
    known = {column.name: column for column in schema or ()}
    columns = []
    for name, is_categorical in zip(names, trees.categorical, strict=True):
        kind: ColumnKind = "categorical" if is_categorical else "numeric"
        categories = known[name].categories if name in known else ()
        if is_categorical and not categories:
            raise UsageError(
                f"{path} takes codes of the categories of {name!r}, whose texts it does not contain. Put a "
                f"{SCHEMA_FILE} with them, in the order of their codes, next to it."
            )
        columns.append(TableColumn(name, kind, categories=categories, reference=(0.0,) * len(categories)))
    return tuple(columns)
