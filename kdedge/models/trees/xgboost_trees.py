"""Trees of XGBoost."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdedge.models.trees.boosting import PATIENCE, Boosting
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.util.files import atomic_path
from kdedge_runtime.util.optional_package import needs_package

__all__ = ["XgboostTrees"]

_OBJECTIVES = {
    "binary:logistic": "binary",
    "binary:logitraw": "binary",
    "multi:softprob": "multiclass",
    "multi:softmax": "multiclass",
    "reg:squarederror": "regression",
    "reg:absoluteerror": "regression",
    "reg:pseudohubererror": "regression",
}
_SETTINGS = {"max_depth": 4, "subsample": 0.8, "colsample_bytree": 0.8, "min_child_weight": 5}


def _xgboost() -> Any:
    with needs_package("A model of XGBoost", "xgboost", "pip install xgboost"):
        import xgboost
    return xgboost


@dataclass(frozen=True, eq=False)
class XgboostTrees:
    """Booster of XGBoost; a `Trees`."""

    booster: Any
    names: tuple[str, ...]
    categorical: tuple[bool, ...]
    objective: str
    margins: int

    @classmethod
    def load(cls, path: Path) -> "XgboostTrees":
        """Read a `.ubj` or `.json` file.

        Raises:
            ModelFileError: the file is damaged.
            MissingDependency: XGBoost is not installed.
        """
        xgboost = _xgboost()
        booster = xgboost.Booster()
        try:
            booster.load_model(path)
        except (xgboost.core.XGBoostError, OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1][:120]
            raise ModelFileError(f"{path} is not a model of XGBoost: {reason}. Expected its .ubj or .json.") from error
        return cls._of(booster)

    @classmethod
    def fit(cls, boosting: Boosting) -> tuple["XgboostTrees", int]:
        """Train trees until the loss on the validation rows has not fallen for `PATIENCE` rounds.

        Returns:
            The trees up to the best round, and the number of rounds.
        """
        xgboost = _xgboost()
        names = boosting.names
        if any(character in name for name in names for character in "[]<"):  # not allowed in names
            names = [f"column_{place}" for place in range(len(names))]
        kinds = ["c" if each else "q" for each in boosting.categorical]
        objective: dict[str, Any] = {"objective": "reg:squarederror"}
        if boosting.classes:
            objective = {"objective": "binary:logistic", "eval_metric": "logloss"}
        if boosting.classes > 2:
            objective = {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": boosting.classes}
        sides = [
            xgboost.DMatrix(rows, targets, feature_names=list(names), feature_types=kinds, enable_categorical=True)
            for rows, targets in (boosting.train, boosting.val)
        ]
        booster = xgboost.train(
            _SETTINGS | objective | {"eta": boosting.rate, "seed": boosting.seed},
            sides[0],
            boosting.rounds,
            evals=[(sides[1], "val")],
            early_stopping_rounds=PATIENCE,
            verbose_eval=False,
        )
        best = int(booster.best_iteration) + 1
        return cls._of(booster[:best]), best

    def save(self, path: Path) -> None:
        """Write a `.ubj` file atomically."""
        with atomic_path(path) as temporary:
            self.booster.save_model(temporary)

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return margins; see `Trees`."""
        found: NDArray[np.float32] = self.booster.predict(self._matrix(rows), output_margin=True)
        return found.reshape(len(rows), self.margins)

    def contributions(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return TreeSHAP values; see `Trees`."""
        found: NDArray[np.float32] = self.booster.predict(self._matrix(rows), pred_contribs=True)
        return found.reshape(len(rows), self.margins, -1)

    def _matrix(self, rows: NDArray[np.float32]) -> Any:
        names, kinds = self.booster.feature_names, self.booster.feature_types
        return _xgboost().DMatrix(rows, feature_names=names, feature_types=kinds, enable_categorical=True)

    @classmethod
    def _of(cls, booster: Any) -> "XgboostTrees":
        learner = json.loads(booster.save_config())["learner"]
        name = learner["objective"]["name"]
        classes = int(learner["learner_model_param"]["num_class"])
        targets = int(learner["learner_model_param"].get("num_target", 1))
        if targets > 1:
            name = f"{name} of {targets} targets"
        kinds = booster.feature_types or ["q"] * booster.num_features()
        names = tuple(booster.feature_names or ())
        return cls(booster, names, tuple(kind == "c" for kind in kinds), _OBJECTIVES.get(name, name), max(1, classes))
