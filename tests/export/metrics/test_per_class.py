"""Per-class results, worst first."""

import numpy as np
import pytest

from kdedge_export.metrics.comparison import pair_pearson
from kdedge_export.metrics.per_class import ClassRow, class_rows
from kdedge_export.metrics.torch_predictions import Predictions

N, CLASSES = 90, 3
RNG = np.random.default_rng(0)
TARGETS = np.arange(N) % CLASSES
MAPS = RNG.normal(size=(N, 5, 5)).astype(np.float32)


def predictions(answers: np.ndarray, maps: np.ndarray | None) -> Predictions:
    return Predictions(np.eye(CLASSES, dtype=np.float32)[answers], maps, TARGETS)


def rows(targets: np.ndarray | None = TARGETS, maps: np.ndarray | None = MAPS) -> tuple[ClassRow, ...]:
    """Return rows of a perfect student, and of a file that lost half of class 1 and the maps of class 2."""
    student = predictions(TARGETS, maps)
    lost = np.where((TARGETS == 1) & (np.arange(N) < N // 2), 0, TARGETS)
    worse = None if maps is None else np.where((TARGETS == 2)[:, None, None], RNG.normal(size=maps.shape), maps)
    file = predictions(lost, None if worse is None else worse.astype(np.float32))
    pearson = pair_pearson(student, file)
    return class_rows(
        {"student": student, "fp32": file},
        {"fp32": (student, file)},
        {} if pearson is None else {"fp32": pearson},
        targets,
        ("a", "b", "c"),
        origin="student",
        shipped="fp32",
    )


def test_worst_accuracy_comes_first_then_worst_maps() -> None:
    found = rows()
    assert [row.label for row in found] == ["b", "c", "a"]
    assert [row.n for row in found] == [30, 30, 30]
    assert [row.accuracy["fp32"] for row in found] == [0.5, 1.0, 1.0]
    assert [row.accuracy["student"] for row in found] == [1.0, 1.0, 1.0]
    assert found[0].agreement["fp32"] == 0.5
    assert abs(found[1].map_pearson["fp32"]) < 0.2
    assert found[2].map_pearson["fp32"] == pytest.approx(1.0)


def test_every_value_has_an_interval() -> None:
    ends = rows()[0].intervals
    assert set(ends) == {"accuracy", "agreement", "map_pearson"}
    inside = ends["accuracy"]["fp32"]
    assert inside is not None and inside.low < 0.5 < inside.high


def test_predictions_of_the_student_replace_missing_labels() -> None:
    found = rows(targets=None)
    assert [row.accuracy for row in found] == [{}, {}, {}]
    assert found[0].label == "b"


def test_rows_without_maps_have_no_correlation() -> None:
    assert all(row.map_pearson == {} for row in rows(maps=None))


def test_class_without_images_has_no_row() -> None:
    assert {row.label for row in rows(targets=np.where(TARGETS == 0, 1, TARGETS))} == {"b", "c"}
