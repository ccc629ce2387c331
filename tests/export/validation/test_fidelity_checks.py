"""Files that pass all comparisons of the top-1 class but are wrong otherwise must fail."""

from pathlib import Path

import numpy as np
import pytest
from toy_validation import failed, run
from validate_toys import LABELS, Toy, model_file, pictures

from kdedge_export.metrics import agreement, map_similarity
from kdedge_export.validation.other_classes import other_classes
from kdedge_runtime.diagnostics.default_class import run_without_class

STUDENT = Toy()


@pytest.mark.parametrize(
    ("sabotage", "fp32", "int8"),
    [
        ({"logits_scale": 3.0}, {"logits_error", "divergence"}, {"divergence", "logits_distance"}),
        ({"logits_scale": 0.1}, {"logits_error", "divergence"}, {"divergence", "logits_distance"}),
        ({"default_is_least": True}, {"default_class"}, {"default_class"}),
        ({"shift_others": True}, {"other_map_error"}, {"other_map_pearson"}),
        ({"map_scale": 1.3}, {"map_error", "other_map_error"}, {"map_scale_error"}),
        ({"map_scale": 0.5}, {"map_error", "other_map_error"}, {"map_scale_error"}),
    ],
    ids=["logits x 3", "logits x 0.1", "least class by default", "maps of other classes", "large map", "small map"],
)
@pytest.mark.parametrize("file", ["fp32", "int8"])
def test_broken_file_fails(
    tmp_path: Path, file: str, sabotage: dict[str, object], fp32: set[str], int8: set[str]
) -> None:
    broken = model_file(STUDENT, tmp_path / "broken.onnx", **sabotage)  # type: ignore[arg-type]
    report, _ = run(tmp_path, **{file: broken}, quick=True)
    assert failed(report) == {f"{file}_{key}" for key in (fp32 if file == "fp32" else int8)}


def test_image_with_the_wrong_default_class_is_named(tmp_path: Path) -> None:
    broken = model_file(STUDENT, tmp_path / "broken.onnx", default_is_least=True)
    report, _ = run(tmp_path, fp32=broken, int8=None, quick=True)
    (check,) = (check for check in report.checks if check.key == "fp32_default_class")
    assert check.measured == 0.0 and "sample 0 explains class" in (check.reason or "")


def test_sound_file_explains_its_top_class_by_default(tmp_path: Path) -> None:
    found = run_without_class(model_file(STUDENT, tmp_path / "sound.onnx"), pictures(8))
    assert (found.samples, found.kept, found.fault) == (8, 8, None)


@pytest.mark.parametrize("count", [2, 4, 7])
def test_other_classes_differ_from_the_top_class_and_cover_all(count: int) -> None:
    top = np.random.default_rng(0).integers(0, count, 60)
    other = other_classes(top, count)
    assert (other != top).all() and set(other) == set(range(count))


def test_logits_distance_depends_on_scale_but_not_offset() -> None:
    logits = np.random.default_rng(0).normal(size=(5, len(LABELS)))
    centered = agreement.centered(logits)
    assert agreement.distance(centered, agreement.centered(logits + 3)) == pytest.approx(0, abs=1e-12)
    assert agreement.distance(centered, 3 * centered) == pytest.approx(0.5)
    assert agreement.distance(centered, 0.1 * centered) == pytest.approx(0.9 / 1.1)
    assert agreement.distance(centered, np.full_like(logits, np.nan)) == pytest.approx(1)
    assert agreement.distance(np.zeros((1, 3)), np.zeros((1, 3))) == pytest.approx(0)


def test_scale_error_is_the_relative_difference_of_norms() -> None:
    maps = np.random.default_rng(0).normal(size=(5, 4, 4))
    for factor, expected in ((1.0, 0.0), (2.0, 0.5), (0.5, 0.5), (-1.0, 0.0), (0.0, 1.0), (np.nan, 1.0)):
        assert map_similarity.scale_error(maps, factor * maps) == pytest.approx(expected)
    assert map_similarity.scale_error(np.zeros((1, 2, 2)), np.zeros((1, 2, 2))) == pytest.approx(0)
