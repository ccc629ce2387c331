"""Trees of LightGBM."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdedge.models.trees.boosting import PATIENCE, Boosting
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.util.files import atomic_path
from kdedge_runtime.util.optional_package import needs_package

__all__ = ["LightgbmTrees"]

_OBJECTIVES = {
    "binary": "binary",
    "multiclass": "multiclass",
    "regression": "regression",
    "regression_l1": "regression",
}
_SETTINGS = {"num_leaves": 15, "bagging_fraction": 0.8, "bagging_freq": 1, "feature_fraction": 0.8, "verbose": -1}


def _lightgbm() -> Any:
    with needs_package("A model of LightGBM", "lightgbm", "pip install lightgbm"):
        import lightgbm
    return lightgbm


@dataclass(frozen=True, eq=False)
class LightgbmTrees:
    """Booster of LightGBM; a `Trees`."""

    booster: Any
    names: tuple[str, ...]
    categorical: tuple[bool, ...]
    objective: str
    margins: int
    factor: float
    """Factor of the sum of the trees: that inside LightGBM's sigmoid, divided by the number of averaged trees."""

    @classmethod
    def load(cls, path: Path) -> "LightgbmTrees":
        """Read a text file.

        Raises:
            ModelFileError: the file is damaged.
            MissingDependency: LightGBM is not installed.
        """
        lightgbm = _lightgbm()
        try:
            return cls._of(lightgbm.Booster(model_file=str(path)))
        except (lightgbm.basic.LightGBMError, OSError, ValueError, KeyError, IndexError) as error:
            raise ModelFileError(
                f"{path} is not a model of LightGBM: {str(error)[:120]}. Expected the text of its save_model."
            ) from error

    @classmethod
    def fit(cls, boosting: Boosting) -> tuple["LightgbmTrees", int]:
        """Train trees with early stopping; see `XgboostTrees.fit`."""
        lightgbm = _lightgbm()
        objective: dict[str, Any] = {"objective": "regression" if not boosting.classes else "binary"}
        if boosting.classes > 2:
            objective = {"objective": "multiclass", "num_class": boosting.classes}
        codes = [place for place, each in enumerate(boosting.categorical) if each]
        # LightGBM refuses characters of JSON in names. The columns are matched by the record of the run.
        plain = [f"column_{place}" for place in range(len(boosting.names))]
        data = lightgbm.Dataset(*boosting.train, feature_name=plain, categorical_feature=codes)
        booster = lightgbm.train(
            _SETTINGS | objective | {"learning_rate": boosting.rate, "seed": boosting.seed},
            data,
            boosting.rounds,
            valid_sets=[data.create_valid(*boosting.val)],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        best = int(booster.best_iteration) or int(booster.current_iteration())
        text = booster.model_to_string(num_iteration=best)
        return cls._of(lightgbm.Booster(model_str=text)), best

    def save(self, path: Path) -> None:
        """Write a text file atomically."""
        with atomic_path(path) as temporary:
            self.booster.save_model(str(temporary))

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return margins; see `Trees`."""
        found = np.asarray(self.booster.predict(rows, raw_score=True), np.float32)
        return (self.factor * found).reshape(len(rows), self.margins)

    def contributions(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return TreeSHAP values; see `Trees`."""
        found = np.asarray(self.booster.predict(rows, pred_contrib=True), np.float32)
        return (self.factor * found).reshape(len(rows), self.margins, -1)

    @classmethod
    def _of(cls, booster: Any) -> "LightgbmTrees":
        model = booster.dump_model(num_iteration=1)
        name, *settings = model["objective"].split()
        values = dict(setting.split(":") for setting in settings if ":" in setting)
        if "sqrt" in settings:  # of reg_sqrt, whose output is the square of the margin
            name = model["objective"]
        if "is_linear=1" in booster.model_to_string(num_iteration=1):
            name += " with linear_tree"
        averaged = booster.current_iteration() if model.get("average_output") else 1
        codes = {place for tree in model["tree_info"] for place in _categorical_splits(tree["tree_structure"])}
        infos = model.get("feature_infos", {})
        names = tuple(model["feature_names"])
        categorical = tuple(
            place in codes or bool(infos.get(each, {}).get("values")) for place, each in enumerate(names)
        )
        return cls(
            booster,
            names,
            categorical,
            _OBJECTIVES.get(name, name),
            int(booster.num_model_per_iteration()),
            float(values.get("sigmoid", 1.0)) / max(1, averaged),
        )


def _categorical_splits(node: dict[str, Any]) -> set[int]:
    """Return the inputs that are compared with sets of codes below a node."""
    if "split_feature" not in node:
        return set()
    below = _categorical_splits(node["left_child"]) | _categorical_splits(node["right_child"])
    return below | ({int(node["split_feature"])} if node["decision_type"] == "==" else set())
