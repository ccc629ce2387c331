"""Ensembles of trees as teachers: exact contributions, files of other programs, and no pickles."""

import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightgbm
import numpy as np
import pytest
import torch
import xgboost

from kdedge.data.table_schema import ColumnSchema, TableSchema
from kdedge.models.model_spec import ModelSpec
from kdedge.models.trees.boosting import Boosting
from kdedge.models.trees.ensemble import TreeEnsemble, load_tree_file, load_tree_run
from kdedge.models.trees.lightgbm_trees import LightgbmTrees
from kdedge.models.trees.tree_module import TreeModule
from kdedge.models.trees.xgboost_trees import XgboostTrees
from kdedge.training.teachers.tree_teacher import TreeTeacher
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.modalities.table_column import HIDDEN, TableColumn
from kdedge_runtime.modalities.tabular import TabularInput

LIBRARIES = [XgboostTrees, LightgbmTrees]
NAMES = ("a", "b", "c")


def rows(count: int = 400, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(count, 3)).astype(np.float32)
    found[:, 2] = rng.integers(0, 4, count)
    found[rng.random(count) < 0.1, 0] = np.nan
    return found


def targets(found: np.ndarray, classes: int) -> np.ndarray:
    value = np.nan_to_num(found[:, 0]) * found[:, 1] + (found[:, 2] == 2)
    if not classes:
        return value.astype(np.float32)
    return np.digitize(value, np.quantile(value, np.linspace(0, 1, classes + 1)[1:-1]))


def fitted(library: type[XgboostTrees] | type[LightgbmTrees], classes: int) -> XgboostTrees | LightgbmTrees:
    sides = [(some, targets(some, classes)) for some in (rows(), rows(100, 1))]
    trees, rounds = library.fit(
        Boosting(*sides, NAMES, (False, False, True), classes=classes, rate=0.3, rounds=15, seed=0)
    )
    assert 1 <= rounds <= 15
    return trees


def ensemble(trees: XgboostTrees | LightgbmTrees, classes: int) -> TreeEnsemble:
    columns = (
        TableColumn("a", "numeric", edges=(0.0, 1.0), reference=(0.5,)),
        TableColumn("b", "numeric", edges=(0.0, 1.0), reference=(0.5,)),
        TableColumn("c", "categorical", categories=("w", "x", "y", "z"), reference=(0.25,) * 4),
    )
    task = "classify" if classes else "regression"
    return TreeEnsemble(Path("trees"), "", TabularInput(columns), None, task, max(1, classes), trees)


@pytest.mark.parametrize("classes", [0, 2, 3])
@pytest.mark.parametrize("library", LIBRARIES)
def test_contributions_add_up(library: type[XgboostTrees], classes: int, tmp_path: Path) -> None:
    trees = fitted(library, classes)
    parts = trees.contributions(rows())
    assert parts.shape == (400, trees.margins, 4)
    np.testing.assert_allclose(parts.sum(axis=2), trees.predict(rows()), rtol=1e-4, atol=1e-4)
    path = tmp_path / ("trees.ubj" if library is XgboostTrees else "trees.txt")
    trees.save(path)
    again = library.load(path)
    np.testing.assert_allclose(again.contributions(rows()), parts, rtol=1e-5, atol=1e-6)
    assert (again.objective, again.margins) == (trees.objective, trees.margins)
    model = ensemble(trees, classes)
    logits, given = model(rows(), explained=True)
    plain, nothing = model(rows())
    np.testing.assert_allclose(logits, plain, rtol=1e-4, atol=1e-4)
    assert nothing is None and given is not None and given.shape == (400, max(1, classes), 3)


@pytest.mark.parametrize("library", LIBRARIES)
def test_two_classes_have_the_probability_of_the_trees(library: type[XgboostTrees]) -> None:
    trees = fitted(library, 2)
    logits, parts = ensemble(trees, 2)(rows(), explained=True)
    share = torch.from_numpy(logits).softmax(dim=1)[:, 1].numpy()
    np.testing.assert_allclose(share, 1 / (1 + np.exp(-trees.predict(rows())[:, 0])), rtol=1e-4, atol=1e-5)
    assert parts is not None
    np.testing.assert_allclose(parts[:, 0], -parts[:, 1])


def test_contributions_equal_shap() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its plots
        import shap
    some = np.nan_to_num(rows())[:, :2]
    booster = xgboost.train(
        {"max_depth": 3, "objective": "reg:squarederror"}, xgboost.DMatrix(some, some.prod(axis=1)), 8
    )
    trees = XgboostTrees._of(booster)
    theirs = shap.TreeExplainer(booster).shap_values(some[:50])
    np.testing.assert_allclose(trees.contributions(some[:50])[:, 0, :-1], theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("library", LIBRARIES)
def test_any_name_of_a_column_can_be_trained(library: type[XgboostTrees]) -> None:
    some = rows(100)
    side = some, targets(some, 2)
    names = ("a < b", 'c "d"', "größe, [m²]")
    trees, _ = library.fit(Boosting(side, side, names, (False,) * 3, classes=2, rate=0.3, rounds=3, seed=0))
    plain, _ = library.fit(Boosting(side, side, NAMES, (False,) * 3, classes=2, rate=0.3, rounds=3, seed=0))
    np.testing.assert_array_equal(trees.contributions(some), plain.contributions(some))


@pytest.mark.parametrize("library", LIBRARIES)
def test_missing_unseen_and_hidden_values_are_missing(library: type[XgboostTrees]) -> None:
    model = ensemble(fitted(library, 2), 2)
    row = rows()[:1].repeat(3, axis=0)
    row[:, 2] = (-1, np.nan, HIDDEN)
    row[:, 0] = (np.nan, HIDDEN, np.nan)
    logits, _ = model(row)
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])


def test_teacher_and_module_agree() -> None:
    model, some = ensemble(fitted(XgboostTrees, 3), 3), torch.from_numpy(rows(20))
    output = TreeTeacher(model)(some, 2)
    assert output.classes is not None and output.maps is not None and output.maps.shape == (20, 2, 1, 3)
    assert torch.equal(output.classes, output.logits.topk(2, dim=1).indices)
    logits, maps, classes = TreeModule(model)(some, output.classes[:, 1])
    torch.testing.assert_close(maps, output.maps[:, 1])
    assert torch.equal(classes, output.classes[:, 1]) and torch.equal(logits, output.logits)
    assert torch.equal(TreeModule(model)(some, torch.tensor([-1]))[2], logits.argmax(dim=1))
    assert TreeTeacher(model)(some).maps is None


def test_files_of_other_programs(tmp_path: Path) -> None:
    some = np.ascontiguousarray(rows()[:, :2])
    data = xgboost.DMatrix(some, targets(rows(), 2), feature_names=["a", "b"])
    booster = xgboost.train({"objective": "binary:logistic"}, data, 5)
    booster.save_model(tmp_path / "model.json")
    found = load_tree_file(tmp_path / "model.json")
    assert [column.name for column in found.input.features] == ["a", "b"] and found.classes == 2
    np.testing.assert_allclose(
        found(some)[0][:, 1] * 2, booster.predict(data, output_margin=True), rtol=1e-5, atol=1e-6
    )
    other = lightgbm.train(
        {"objective": "regression", "verbose": -1},
        lightgbm.Dataset(some, some[:, 1].copy(), feature_name=["a", "b"]),
        5,
    )
    other.save_model(tmp_path / "model.txt")
    assert load_tree_file(tmp_path / "model.txt").task == "regression"


@pytest.mark.parametrize("boosting", ["gbdt", "dart", "rf"])
@pytest.mark.parametrize("objective", ["regression", "binary", "multiclass"])
def test_outputs_equal_those_of_lightgbm(tmp_path: Path, boosting: str, objective: str) -> None:
    some, classes = rows()[:, :2], {"regression": 0, "binary": 2, "multiclass": 3}[objective]
    settings = {"objective": objective, "boosting": boosting, "bagging_freq": 1, "bagging_fraction": 0.7, "verbose": -1}
    settings |= {"num_class": 3} if classes > 2 else {"sigmoid": 2.0} if classes else {}
    data = lightgbm.Dataset(some, targets(rows(), classes), feature_name=["a", "b"])
    lightgbm.train(settings, data, 6).save_model(tmp_path / "model.txt")
    logits, parts = load_tree_file(tmp_path / "model.txt")(some, explained=True)
    plain, _ = load_tree_file(tmp_path / "model.txt")(some)
    expected = lightgbm.Booster(model_file=str(tmp_path / "model.txt")).predict(some)
    for values in (logits, plain):
        shares = torch.from_numpy(values).softmax(dim=1).numpy()
        found = shares if classes > 2 else (shares if classes else values)[:, -1]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert parts is not None and parts.shape == (400, max(1, classes), 2)


@pytest.mark.parametrize("settings", [{"reg_sqrt": True}, {"linear_tree": True}])
def test_trees_with_other_outputs_are_refused(tmp_path: Path, settings: dict[str, bool]) -> None:
    some = np.nan_to_num(rows()[:, :2])
    data = lightgbm.Dataset(some, np.abs(some[:, 1]), feature_name=["a", "b"])
    booster = lightgbm.train({"objective": "regression", "verbose": -1} | settings, data, 3)
    booster.save_model(tmp_path / "model.txt")
    with pytest.raises(ModelFileError, match=r"objective regression (sqrt|with linear_tree)"):
        load_tree_file(tmp_path / "model.txt")
    double = xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(some, some), 2)
    double.save_model(tmp_path / "model.ubj")
    with pytest.raises(ModelFileError, match="2 targets"):
        load_tree_file(tmp_path / "model.ubj")


def test_categories_of_other_files_need_a_schema(tmp_path: Path) -> None:
    fitted(XgboostTrees, 2).save(tmp_path / "model.ubj")
    with pytest.raises(UsageError, match=r"'c'.*schema\.json"):
        load_tree_file(tmp_path / "model.ubj")
    columns = tuple(ColumnSchema(name, "numeric") for name in NAMES[:2])
    named = ColumnSchema("c", "categorical", categories=("w", "x", "y", "z"))
    TableSchema("t", "classify", ("no", "yes"), (*columns, named)).write(tmp_path / "schema.json")
    found = load_tree_file(tmp_path / "model.ubj")
    assert found.labels == ("no", "yes") and found.input.features[2].categories == ("w", "x", "y", "z")


def test_file_that_is_not_that_of_the_run_is_refused(tmp_path: Path) -> None:
    model = ensemble(fitted(XgboostTrees, 2), 2)
    record: Any = SimpleNamespace(
        model=ModelSpec("xgboost", 2), input=model.input, labels=("no", "yes"), task="classify"
    )
    model.trees.save(tmp_path / "trees.ubj")  # type: ignore[attr-defined]
    assert load_tree_run(tmp_path, record).classes == 2
    fitted(XgboostTrees, 3).save(tmp_path / "trees.ubj")
    with pytest.raises(ModelFileError, match="3 outputs"):
        load_tree_run(tmp_path, record)


def test_pickles_and_damaged_files_are_refused(tmp_path: Path) -> None:
    for name in ("model.ubj", "model.json", "model.txt"):
        (tmp_path / name).write_bytes(pickle.dumps({"a": 1}))
        with pytest.raises(ModelFileError, match="is not a model of"):
            load_tree_file(tmp_path / name)
    ranked = xgboost.train({"objective": "count:poisson"}, xgboost.DMatrix(rows()[:, :2], np.arange(400)), 2)
    ranked.save_model(tmp_path / "model.ubj")
    with pytest.raises(ModelFileError, match="count:poisson"):
        load_tree_file(tmp_path / "model.ubj")
