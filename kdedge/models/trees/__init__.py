"""Ensembles of trees of XGBoost and LightGBM in their own text and JSON formats, which hold no code.

This module imports neither package, so that names and files can be checked at once.
"""

from pathlib import Path

from kdedge.models.run_folder import RunRecord
from kdedge_runtime.errors import UsageError

__all__ = ["TREE_LIBRARIES", "is_tree_file", "is_tree_run", "refuse_export", "refuse_table_model", "trees_file"]

TREE_LIBRARIES = {"xgboost": ".ubj", "lightgbm": ".txt"}
"""Libraries by the name for `--model`, with the suffix of their files in a run folder."""
_SUFFIXES = (".ubj", ".json", ".txt")


def refuse_table_model(name: str, samples: str, network: str) -> None:
    """Raise if a model is one for rows of a table, for samples of another kind.

    Args:
        name: name of the requested model.
        samples: kind of the samples, such as `sounds`.
        network: name of a network that takes the samples, for the error.

    Raises:
        UsageError: it is `xgboost`, `lightgbm` or `mlp`.
    """
    if name == "mlp" or name.startswith("mlp:"):
        raise UsageError(f"{name} is a network for tables, but the samples are {samples}. Expected {network}.")
    if name in TREE_LIBRARIES:
        raise UsageError(
            f"{name} trains an ensemble of trees, which needs a table, but the samples are {samples}. "
            f"Expected a network, such as {network}."
        )


def refuse_export(source: str, record: RunRecord | None) -> None:
    """Raise if a run, such as `runs/a`, trained an ensemble of trees, which has no model file.

    Raises:
        UsageError: with the command that distills a network, which can be exported.
    """
    if is_tree_run(record):
        raise UsageError(
            f"{source} is an ensemble of trees, which teaches a network but is not exported itself. Distill a network "
            f"and export that: kdedge distill DATA --target COLUMN --teacher {source} --student mlp"
        )


def is_tree_run(record: RunRecord | None) -> bool:
    """Return True for the record of a run that trained an ensemble of trees."""
    return record is not None and record.model.name in TREE_LIBRARIES


def is_tree_file(path: Path) -> bool:
    """Return True for an existing file with a suffix of XGBoost (`.ubj`, `.json`) or LightGBM (`.txt`)."""
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def trees_file(run: Path, library: str) -> Path:
    """Return the path of the ensemble in a run folder."""
    return run / f"trees{TREE_LIBRARIES[library]}"
