"""Validation of a model file from another framework, without a PyTorch student."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from validate_toys import LABELS, METADATA, Toy, model_file, pictures

from kdedge_export.candidates import STUDENT, TEACHER, origin, reference, shipped
from kdedge_export.metrics.torch_predictions import predict
from kdedge_export.validation import (
    Check,
    Models,
    SampleGallery,
    ValidationReport,
    ValidationSet,
    checklist,
    json_schema,
    validate,
    write_report,
)
from kdedge_runtime import Model
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.precision import PRECISIONS

IMAGES = pictures(400)
TOY = Toy()
PREDICTIONS = predict(TOY, IMAGES).logits.argmax(axis=1)
COMPARED_WITH_PYTORCH = {
    *("fp32_agreement", "fp32_logits_error", "fp32_divergence", "fp32_map_error"),
    *("fp32_other_map_error", "fp32_labels", "fp32_input"),
}


def run(
    fp32: Model, int8: Model | None = None, targets: np.ndarray | None = PREDICTIONS, quick: bool = True
) -> tuple[ValidationReport, SampleGallery]:
    """Validate files without a student, as `kdedge validate` does after `export MODEL.onnx`."""
    models = Models(
        student=None, fp32=fp32, converted={} if int8 is None else {"int8": int8}, trained_input=fp32.metadata.input
    )
    return validate(models, ValidationSet(IMAGES, fp32.metadata.labels, targets), quick=quick)


def by_key(report: ValidationReport) -> dict[str, Check]:
    return {check.key: check for check in report.checks}


def failed(report: ValidationReport) -> set[str]:
    return {check.key for check in report.checks if check.outcome == "failed"}


@pytest.fixture
def fp32(tmp_path: Path) -> Model:
    return model_file(TOY, tmp_path / "model.onnx")


def test_reference_of_int8_is_the_fp32_file_without_a_student() -> None:
    fp32, fp16, int8 = (Candidate.of_file(PRECISIONS[name], Path(name)) for name in ("fp32", "fp16", "int8"))
    assert reference(int8, [fp32, int8]) == fp32
    assert reference(fp16, [int8, fp16, fp32]) == fp32
    assert reference(int8, [STUDENT, fp32, int8]) == STUDENT
    assert reference(fp32, [fp32, int8]) is None
    assert reference(STUDENT, [STUDENT, fp32]) is None
    assert reference(STUDENT, [TEACHER, STUDENT, fp32]) == TEACHER
    assert reference(TEACHER, [TEACHER, STUDENT, fp32]) is None


def test_least_exact_file_is_shipped() -> None:
    fp32, fp16, int8 = (Candidate.of_file(PRECISIONS[name], Path(name)) for name in ("fp32", "fp16", "int8"))
    assert shipped([TEACHER, int8, STUDENT, fp16, fp32]) == int8
    assert shipped([STUDENT, fp16, fp32]) == fp16
    assert shipped([fp32]) == origin([fp32]) == origin([fp32, int8]) == fp32
    assert [each.title for each in (TEACHER, fp16)] == ["Teacher", "ONNX, fp16"]
    assert [each.words for each in (TEACHER, STUDENT, fp16)] == ["teacher", "PyTorch student", "fp16 file"]
    assert Candidate("pruned", "Pruned", "pruned student").title == "Pruned", "a model that is neither file nor role"


def test_comparisons_with_pytorch_do_not_apply_but_others_are_measured(fp32: Model, tmp_path: Path) -> None:
    report, evidence = run(fp32, model_file(TOY, tmp_path / "model.int8.onnx", noise=0.005), quick=False)
    assert report.passed and report.complete
    inapplicable = {check.key for check in report.checks if check.outcome == "not applicable"}
    assert inapplicable == COMPARED_WITH_PYTORCH
    assert all("no PyTorch model" in (check.reason or "") for check in report.checks if check.key in inapplicable)
    assert all(check.passed for check in report.checks if check.key not in inapplicable)
    assert {"int8_accuracy_drop", "int8_divergence", "int8_map_pearson_p5", "int8_labels", "int8_input"} <= set(
        by_key(report)
    )
    assert list(report.models) == ["fp32", "int8"] and list(report.comparisons) == ["int8"]
    assert report.models["fp32"].accuracy == 1.0
    assert set(report.calibration) == {"fp32", "int8"} and report.classes[0].accuracy["fp32"] == 1.0
    assert report.faithfulness is not None and {"fp32", "int8"} <= set(report.faithfulness.rows)
    assert report.robustness is not None and report.sanity is not None
    assert {row.test for row in report.sanity.rows} == {"class", "sample"}
    for row in report.robustness.rows:
        assert (row.agreement is None) == (row.map_pearson is None) == (row.model == "fp32")
    assert (evidence.explained_class == evidence.predictions["fp32"].logits.argmax(axis=1)).all()


def test_single_file_passes_only_by_measured_checks(fp32: Model) -> None:
    report, _ = run(fp32, quick=False)
    assert report.passed and report.comparisons == {}
    assert {check.key for check in report.checks if check.passed} == {
        *(
            "fp32_default_class",
            "fp32_map_similarity_class",
            "fp32_map_similarity_sample",
            "fp32_map_margin",
            "fp32_gain_over_constant",
        )
    }


def test_inapplicable_checks_are_no_evidence(tmp_path: Path) -> None:
    nothing, _ = run(model_file(TOY, tmp_path / "model.onnx", without_map=True))
    assert {check.key for check in nothing.checks if check.passed} == {"fp32_gain_over_constant"}


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        ({"constant_map": True}, {"fp32_map_similarity_class", "fp32_map_similarity_sample"}),
        ({"default_is_least": True}, {"fp32_default_class"}),
        ({"negative_map": True}, {"fp32_map_margin"}),
    ],
    ids=["constant map", "default class", "negative map"],
)
def test_broken_fp32_file_fails_without_a_reference(tmp_path: Path, fault: dict[str, bool], broken: set[str]) -> None:
    report, _ = run(model_file(TOY, tmp_path / "model.onnx", **fault), quick=False)  # type: ignore[arg-type]
    assert broken <= failed(report)


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        ({"swap_channels": True}, {"int8_accuracy_drop", "int8_map_pearson_mean"}),
        ({"logits_scale": 3.0}, {"int8_logits_distance"}),
        ({"map_scale": 2.0}, {"int8_map_scale_error"}),
        ({"shift_others": True}, {"int8_other_map_pearson"}),
        ({"without_map": True}, {"int8_map_pearson_mean", "int8_map_pearson_p5", "int8_map_scale_error"}),
        ({"metadata": replace(METADATA, labels=LABELS[::-1])}, {"int8_labels"}),
        ({"metadata": replace(METADATA, input=replace(METADATA.input, resize="squash"))}, {"int8_input"}),
    ],
    ids=["answers", "logits", "size of the maps", "other classes", "no map", "labels", "input"],
)
def test_broken_int8_file_fails_against_the_fp32_file(
    fp32: Model, tmp_path: Path, fault: dict[str, object], broken: set[str]
) -> None:
    report, _ = run(fp32, model_file(TOY, tmp_path / "model.int8.onnx", **fault))  # type: ignore[arg-type]
    assert broken <= failed(report)


def test_unlabeled_images_are_supported(fp32: Model, tmp_path: Path) -> None:
    report, _ = run(fp32, model_file(TOY, tmp_path / "model.int8.onnx", noise=0.005), targets=None)
    assert report.passed and not report.complete
    assert by_key(report)["int8_accuracy_drop"].outcome == "not measured"
    assert by_key(report)["int8_agreement"].passed
    assert report.calibration == {} and report.classes


@pytest.mark.parametrize("with_int8", [True, False], ids=["int8", "fp32 only"])
def test_reports_list_inapplicable_checks_and_no_student(fp32: Model, tmp_path: Path, with_int8: bool) -> None:
    int8 = model_file(TOY, tmp_path / "model.int8.onnx", noise=0.005) if with_int8 else None
    targets = np.where(np.arange(len(PREDICTIONS)) % 50, PREDICTIONS, (PREDICTIONS + 1) % len(LABELS))
    report, evidence = run(fp32, int8, targets=targets, quick=False)
    html, document = write_report(report, evidence, tmp_path)
    values, page = json.loads(document.read_text("utf-8")), html.read_text("utf-8")
    faults = [fault.message for fault in Draft202012Validator(json_schema()).iter_errors(values)]
    assert faults == [] and values["passed"] is True
    inapplicable = [check for check in values["checks"] if check["outcome"] == "not applicable"]
    assert {check["key"] for check in inapplicable} == COMPARED_WITH_PYTORCH
    assert all(check["passed"] is None and "no PyTorch model" in check["reason"] for check in inapplicable)
    applying = len(report.checks) - len(inapplicable)
    assert f"Passed all {applying} checks that apply" in page
    assert "PyTorch student" not in page
    assert page.count("not applicable: there is no PyTorch model") == len(inapplicable)
    lines = [line for line in checklist(report.checks) if "not applicable" in line]
    assert len(lines) == len(inapplicable) and all(line.startswith("[ ] fp32") for line in lines)
    if with_int8:
        assert values["comparisons"]["int8"]["reference"] == "fp32"
        assert "vs. fp32 file" in page and "Worst maps" in page
    else:
        assert "Agreement of the maps" not in page and "lowest and highest agreement" not in page
        assert "Wrong predictions" in page and 8 < page.count('<div class="row">') <= 8 + 6
