"""Verification of embedding files: checks, report, page, and what does not apply to similarities."""

import json
from pathlib import Path

import numpy as np
import pytest
from embedding_toys import LABELS, EmbeddingToy, embedding_file, textures
from jsonschema import Draft202012Validator

from kdedge_export.metrics.confidence import Interval
from kdedge_export.metrics.faithfulness import areas
from kdedge_export.metrics.file_predictions import embed
from kdedge_export.metrics.verification import FileVerification, Verification, verification
from kdedge_export.validation import Gates, Models, ValidationReport, ValidationSet, json_schema, validate, write_report
from kdedge_export.validation.samples import SampleGallery
from kdedge_export.validation.verification_checks import check_verification
from kdedge_runtime import Model
from kdedge_runtime.errors import ModelFileError

SAMPLES, TARGETS = textures(400, seed=2)
TOY = EmbeddingToy()


def measured(drop: float, half_width: float | None, samples: int = 400) -> Verification:
    interval = None if half_width is None else Interval(drop - half_width, drop + half_width)
    ends = {"equal_error": None, "true_accepts": None}
    files = (
        FileVerification("fp32", 0.02, 0.9, None, ends),
        FileVerification("int8", 0.02, 0.9 - drop, drop, ends | {"drop": interval}),
    )
    return Verification(samples, 10, 900, 9000, files)


@pytest.mark.parametrize(
    ("drop", "half_width", "outcome"),
    [
        (0.0, 0.02, "passed"),
        (0.02, 0.02, "inconclusive"),
        (0.04, 0.02, "failed"),
        (-0.5, 0.3, "passed"),
        (0.0, None, "inconclusive"),
        (float("nan"), None, "failed"),
    ],
)
def test_drop_is_checked_at_the_unfavorable_end(drop: float, half_width: float | None, outcome: str) -> None:
    (check,) = check_verification(measured(drop, half_width), ["int8"], Gates())
    assert (check.key, check.outcome, check.bound) == ("int8_true_accept_drop", outcome, 3.0)
    assert (check.unit, check.relation) == ("points", "<=")


def test_number_of_samples_needed_counts_both_samples_of_a_pair() -> None:
    # An unseen sample in 100 may lose 2 · 3.69 points.
    (check,) = check_verification(measured(0.0, 0.0738, samples=100), ["int8"], Gates())
    assert check.outcome == "inconclusive" and check.samples_needed is not None
    assert 240 <= check.samples_needed <= 260
    (check,) = check_verification(measured(0.0, 0.04, samples=1000), ["int8"], Gates())
    assert check.outcome == "inconclusive" and check.samples_needed is None


def test_bound_is_that_of_the_gates() -> None:
    (check,) = check_verification(measured(0.1, 0.1), ["int8"], Gates(max_true_accept_drop_points=30.0))
    assert (check.outcome, check.bound) == ("passed", 30.0)


def test_drop_is_not_measured_without_verification() -> None:
    (check,) = check_verification(None, ["int8"], Gates())
    assert (check.key, check.outcome) == ("int8_true_accept_drop", "not measured") and check.reason is not None
    assert check_verification(None, [], Gates()) == []


def run(folder: Path, targets: np.ndarray | None = TARGETS, **broken: float) -> tuple[ValidationReport, SampleGallery]:
    """Validate the toy's files; `broken` describes the int8 file."""
    fp32 = embedding_file(TOY, folder / "model.onnx", threshold=0.7)
    int8 = embedding_file(TOY, folder / "model.int8.onnx", threshold=0.7, **({"noise": 0.01} | broken))
    return validate(Models(TOY, fp32, {"int8": int8}), ValidationSet(SAMPLES, LABELS, targets, task="embedding"))


def outcomes(report: ValidationReport) -> dict[str, str]:
    return {check.key: check.outcome for check in report.checks}


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> tuple[ValidationReport, SampleGallery]:
    return run(tmp_path_factory.mktemp("validated"))


def test_good_files_pass(validated: tuple[ValidationReport, SampleGallery]) -> None:
    report, _ = validated
    found = outcomes(report)
    assert set(found.values()) == {"passed"}, {key: each for key, each in found.items() if each != "passed"}
    assert {"int8_true_accept_drop", "int8_divergence", "int8_map_pearson_mean", "fp32_other_map_error"} <= found.keys()
    assert report.verification is not None and report.verification.samples == 400
    assert [row.model for row in report.verification.files] == ["fp32", "int8"]


def test_rates_are_those_of_the_files(validated: tuple[ValidationReport, SampleGallery], tmp_path: Path) -> None:
    report, _ = validated
    fp32 = embedding_file(TOY, tmp_path / "model.onnx")
    order = np.argsort(TARGETS, kind="stable")
    found = verification({"fp32": embed(fp32, SAMPLES[order])}, "fp32", TARGETS[order])
    assert found is not None and report.verification is not None
    assert report.verification.files[0] == found.files[0]
    assert found.files[0].true_accepts > 0.9


def test_scrambled_embeddings_fail_although_logits_are_intact(tmp_path: Path) -> None:
    report, _ = run(tmp_path, noise=0.0, scrambled=0.04)
    assert {key for key, each in outcomes(report).items() if each == "failed"} == {"int8_true_accept_drop"}


def test_similarities_have_no_calibration(validated: tuple[ValidationReport, SampleGallery]) -> None:
    report, _ = validated
    assert report.calibration == {} and report.classes
    assert report.familiarity is not None
    assert {row.max_softmax_auroc for row in report.familiarity.groups} == {None}


def test_areas_are_similarities(validated: tuple[ValidationReport, SampleGallery]) -> None:
    faith = validated[0].faithfulness
    assert faith is not None and 0 < faith.rows["int8"].deletion < faith.rows["int8"].insertion < 1


def test_areas_of_negative_similarities_are_zero(tmp_path: Path) -> None:
    model = embedding_file(TOY, tmp_path / "model.onnx").with_classes(LABELS, -TOY.prototypes.numpy())
    found = model.predict(SAMPLES[:1])
    assert found.logits.max() < 0 and found.saliency_map is not None
    assert areas(model, SAMPLES[0], found.saliency_map[0], 0, lambda sample: sample) == (0.0, 0.0)


def test_report_and_page_have_the_rates(validated: tuple[ValidationReport, SampleGallery], tmp_path: Path) -> None:
    report, evidence = validated
    page, document = write_report(report, evidence, tmp_path)
    text, values = page.read_text("utf-8"), json.loads(document.read_text("utf-8"))
    Draft202012Validator(json_schema()).validate(values)
    fp32, int8 = values["verification"]["files"]
    described = json_schema()["$defs"]["verified_file"]["properties"]
    assert set(fp32) == set(int8) == set(described)
    assert fp32["drop"] is None and int8["intervals"]["drop"]["low"] < int8["drop"] < int8["intervals"]["drop"]["high"]
    assert "Equal error rate" in text and f"{100 * fp32['true_accepts']:.1f}" in text
    assert "<h2>Calibration</h2>" not in text


@pytest.mark.parametrize("targets", [None, np.zeros(400, np.int64)])
def test_no_verification_without_both_kinds_of_pairs(targets: np.ndarray | None, tmp_path: Path) -> None:
    report, _ = run(tmp_path, targets=targets)
    assert report.verification is None and outcomes(report)["int8_true_accept_drop"] == "not measured"


def test_embedding_must_be_in_every_file(model_of_classes: Model) -> None:
    with pytest.raises(ModelFileError, match="embedding"):
        embed(model_of_classes, SAMPLES[:2])


@pytest.fixture
def model_of_classes(tmp_path: Path) -> Model:
    from validate_toys import Toy, model_file

    return model_file(Toy(), tmp_path / "classes.onnx")


@pytest.mark.parametrize(("samples", "outcome"), [(200, "inconclusive"), (260, "passed")])
def test_unchanged_file_needs_about_250_samples(samples: int, outcome: str) -> None:
    embeddings, targets = np.eye(5, dtype=np.float32)[np.arange(samples) % 5], np.arange(samples) % 5
    found = verification({"fp32": embeddings, "int8": embeddings}, "fp32", targets)
    (check,) = check_verification(found, ["int8"], Gates())
    assert check.outcome == outcome and check.measured == 0
