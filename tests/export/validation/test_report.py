"""Whole validation, from models and images to `report.json`."""

import hashlib
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from torch import Tensor, nn
from toy_validation import IMAGES, STUDENT, failed, run
from validate_toys import LABELS, METADATA, SIDE, Toy, int8_gates, model_file

from kdedge_export.metrics.torch_predictions import predict
from kdedge_export.torch_export import ClassifierOnly, export_graph, save_model, wrap_for_export
from kdedge_export.validation import (
    Data,
    Footprint,
    Models,
    Origin,
    SampleGallery,
    ValidationReport,
    ValidationSet,
    checklist,
    json_schema,
    validate,
    write_report,
)
from kdedge_export.validation.page import render_page
from kdedge_runtime import Model
from kdedge_runtime.devices import Budgets
from kdedge_runtime.drawing.heatmap import MapDisplay
from kdedge_runtime.errors import DataError
from kdedge_runtime.metadata import Outputs

ROLES = ["teacher", "student", "fp32", "int8"]


@dataclass(frozen=True)
class Whole:
    """Report with all of its parts, on intact files in a folder."""

    folder: Path
    report: ValidationReport
    evidence: SampleGallery


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    masks = [np.eye(SIDE, dtype=np.bool_) if number % 2 else None for number in range(len(IMAGES))]
    footprint = Footprint(parameters=1000, file_mb=0.1, latency_ms=1.0, threads=1, peak_memory_mb=None)
    report, evidence = run(
        folder,
        teacher=Toy(seed=7),
        source=Data("toys", "0" * 64),
        masks=masks,
        footprints={"fp32": footprint, "int8": footprint},
        budgets=Budgets(file_mb=1.0, peak_memory_mb=100.0),
        notes=["a note"],
    )
    return Whole(folder, report, evidence)


def test_intact_model_passes(tmp_path: Path) -> None:
    report, _ = run(tmp_path, teacher=Toy(seed=7, stride=2), origins={"teacher": Origin("big toy")})
    assert report.passed and report.complete
    assert report.models["student"].accuracy == pytest.approx(0.8)
    assert list(report.models) == ["teacher", "student", "fp32", "int8"]
    assert report.models["teacher"].name == "big toy"
    assert report.comparisons["student"].agreement < 0.9
    assert report.comparisons["int8"].n == len(IMAGES)


def test_all_models_explain_the_students_top_class(whole: Whole) -> None:
    evidence = whole.evidence
    top = evidence.predictions["student"].logits.argmax(axis=1)
    assert (evidence.predictions["teacher"].logits.argmax(axis=1) != top).any()
    for predictions in evidence.predictions.values():
        assert (predictions.explained_class == top).all()


def test_probabilities_use_the_temperature_of_the_file(whole: Whole) -> None:
    evidence = whole.evidence
    scaled = np.exp(evidence.predictions["student"].logits / METADATA.temperature)
    expected = scaled / scaled.sum(axis=1, keepdims=True)
    for role in ("student", "fp32"):
        assert evidence.scores[role] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("file", ["fp32", "int8"])
@pytest.mark.parametrize(
    "sabotage", [{"swap_channels": True}, {"constant_map": True}, {"class_shift": 1}, {"shuffle_classes": True}]
)
def test_broken_file_fails(tmp_path: Path, file: str, sabotage: dict[str, object]) -> None:
    broken = model_file(STUDENT, tmp_path / "broken.onnx", **sabotage)  # type: ignore[arg-type]
    report, _ = run(tmp_path, **{file: broken})
    assert not report.passed
    assert {key.split("_")[0] for key in failed(report)} == {file}


def test_map_of_the_wrong_class_fails_with_correct_predictions(tmp_path: Path) -> None:
    broken = model_file(STUDENT, tmp_path / "broken.onnx", class_shift=1)
    report, _ = run(tmp_path, fp32=broken, int8=None)
    # The prediction does not depend on the evidence for another class either.
    assert failed(report) == {"fp32_map_error", "fp32_other_map_error", "fp32_map_margin"}


def test_permuted_labels_fail_with_correct_predictions(tmp_path: Path) -> None:
    metadata = replace(METADATA, labels=LABELS[::-1])
    broken = model_file(STUDENT, tmp_path / "broken.onnx", metadata=metadata)
    report, _ = run(tmp_path, int8=broken)
    assert failed(report) == {"int8_labels"}


class Negative(Toy):
    """Toy whose own map is negated."""

    def forward(self, image: Tensor, class_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, saliency_map, explained = super().forward(image, class_index)
        return logits, -saliency_map, explained


def test_map_that_is_wrong_in_pytorch_fails_the_faithfulness_check(tmp_path: Path) -> None:
    student = Negative()
    fp32, int8 = (model_file(student, tmp_path / f"{number}.onnx", negative_map=True) for number in range(2))
    report, _ = run(tmp_path, student=student, fp32=fp32, int8=int8)
    assert failed(report) == {"int8_map_margin"}
    (check,) = (check for check in report.checks if check.key == "int8_map_margin")
    assert check.outcome == "failed" and check.interval is not None and check.interval.high < 0
    quick, _ = run(tmp_path, student=student, fp32=fp32, int8=int8, quick=True)
    assert quick.passed, "--quick skips the check"


def test_faithfulness_needs_enough_images(tmp_path: Path) -> None:
    few, _ = run(tmp_path, samples=IMAGES[:29], targets=None)
    (check,) = (check for check in few.checks if check.key == "int8_map_margin")
    assert check.outcome == "not measured" and not few.complete
    enough, _ = run(tmp_path, samples=IMAGES[:30], targets=None)
    (check,) = (check for check in enough.checks if check.key == "int8_map_margin")
    assert check.passed and check.interval is not None and check.interval.low > 0


def test_shuffled_predictions_fail_without_labels(tmp_path: Path) -> None:
    broken = model_file(STUDENT, tmp_path / "broken.onnx", shuffle_classes=True)
    report, _ = run(tmp_path, int8=broken, targets=None)
    assert "int8_agreement" in failed(report)


def test_image_sanity_check_needs_two_images(tmp_path: Path) -> None:
    report, evidence = run(tmp_path, samples=IMAGES[:1], targets=None, int8=None, quick=True)
    outcomes = {check.key: check.outcome for check in report.checks if "_map_similarity_" in check.key}
    expected = {f"{role}_map_similarity_{test}" for role in ("student", "fp32") for test in ("class", "sample")}
    assert set(outcomes) == expected
    assert {outcome for key, outcome in outcomes.items() if key.endswith("sample")} == {"inconclusive"}
    assert not report.passed
    (line,) = (
        line for line in checklist(report.checks) if line.startswith("[?] fp32 map similarity to another sample")
    )
    assert line.endswith("INCONCLUSIVE with 1 sample; at least 2 are needed")
    page, document = write_report(report, evidence, tmp_path / "report")
    Draft202012Validator(json_schema()).validate(json.loads(document.read_text("utf-8")))
    assert "with 1 sample; at least 2 are needed" in page.read_text("utf-8")


def test_single_class_has_no_class_sanity_check(tmp_path: Path) -> None:
    student = wrap_for_export(convnet(classes=1), METADATA.input)
    path = tmp_path / "model.onnx"
    save_model(export_graph(student).model, replace(METADATA, labels=("stop",), outputs=student.outputs), path)
    file, images = Model.load(path, threads=1), IMAGES[:40]
    report, _ = validate(Models(student, file), ValidationSet(images, ("stop",)), quick=True)
    assert not report.complete
    assert {check.key: check.reason for check in report.checks if check.outcome == "not measured"} == dict.fromkeys(
        ("student_map_similarity_class", "fp32_map_similarity_class", "fp32_other_map_error"), "there is no other class"
    )


@pytest.mark.parametrize("file", ["fp32", "int8"])
def test_file_without_its_map_fails(tmp_path: Path, file: str) -> None:
    plain = model_file(STUDENT, tmp_path / "plain.onnx", without_map=True)
    report, evidence = run(tmp_path, **{file: plain})
    assert report.comparisons[file].maps is None and file not in evidence.pearson
    assert not report.passed and failed(report) >= {"fp32_map_error" if file == "fp32" else "int8_map_pearson_mean"}


def convnet(classes: int = len(LABELS)) -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()
    return nn.Sequential(*stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))


def test_real_export_passes(tmp_path: Path) -> None:
    student = wrap_for_export(convnet(), METADATA.input)
    path = tmp_path / "model.onnx"
    save_model(export_graph(student).model, replace(METADATA, outputs=student.outputs), path)
    report, _ = run(tmp_path, student=student, fp32=Model.load(path), int8=None, targets=None, quick=True)
    assert report.passed and report.complete


def test_export_without_a_map_is_compared_with_its_plain_module(tmp_path: Path) -> None:
    student = ClassifierOnly(convnet().eval(), METADATA.input)
    path = tmp_path / "model.onnx"
    save_model(export_graph(student).model, replace(METADATA, outputs=Outputs("none")), path)
    report, _ = run(tmp_path, student=student, fp32=Model.load(path), int8=None, targets=None)
    assert report.passed
    assert [check.key for check in report.checks if check.passed is None] == ["fp32_map_error"]


def test_custom_gates_are_used(tmp_path: Path) -> None:
    report, _ = run(tmp_path, gates=int8_gates(map_pearson_mean=1.0))
    assert failed(report) == {"int8_map_pearson_mean"}


def test_progress_reports_each_step(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    run(tmp_path, progress=lambda *step: steps.append(step))
    last = {title: (total, done) for title, total, done in steps}
    models, studies = (
        ["Student, PyTorch", "ONNX, fp32", "ONNX, int8"],
        ["sanity checks", "faithfulness", "default class", "maps of other classes", "robustness"],
    )
    assert list(last) == models + studies
    assert all(last[title] == (len(IMAGES), len(IMAGES)) for title in models)
    assert all(total == done for total, done in last.values())


def test_quick_skips_faithfulness_and_robustness(tmp_path: Path) -> None:
    report, _ = run(tmp_path, quick=True)
    assert report.faithfulness is None and report.robustness is None and report.quick
    assert report.sanity is not None and report.calibration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": IMAGES[:0], "targets": None}, "no samples"),
        ({"targets": np.zeros(3, dtype=np.int64)}, "400 samples but 3 targets"),
        ({"names": ["one"]}, "400 samples but 1 names"),
        ({"targets": np.full(400, 4)}, "outside the 4 labels"),
        ({"labels": LABELS[:3], "targets": None}, "4 classes but the data has 3 labels"),
    ],
)
def test_mismatched_data_is_rejected(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(tmp_path, **changes)


def test_map_displacement_is_applied_to_localization_and_overlays(tmp_path: Path) -> None:
    """The toy's maps have no displacement; a stated one moves all maps but the teacher's."""
    masks = [np.eye(SIDE, dtype=np.bool_) for _ in IMAGES]
    found = {}
    for shift in (0.0, 0.75):
        outputs = replace(METADATA.outputs, display=MapDisplay(shift, -shift))
        files = {
            role: model_file(STUDENT, tmp_path / f"{role}.onnx", metadata=replace(METADATA, outputs=outputs))
            for role in ("fp32", "int8")
        }
        teacher = Toy(seed=7, stride=2)
        report, evidence = run(tmp_path, teacher=teacher, masks=masks, quick=True, **files)
        assert report.localization is not None
        found[shift] = (
            {role: report.localization.rows[role].energy_inside for role in ROLES},
            render_page(report, evidence),
        )
    (still, page), (moved, moved_page) = found.values()
    assert moved["teacher"] == still["teacher"]
    assert all(moved[role] != still[role] for role in ("student", "fp32", "int8"))
    assert moved["student"] == pytest.approx(moved["fp32"], abs=1e-4)
    drawn, moved_drawn = (set(re.findall(r'src="(data:[^"]+)"', text)) for text in (page, moved_page))
    rows = page.count('<div class="row">')
    assert len(drawn & moved_drawn) == 2 * rows  # images and the teacher's maps
    assert len(drawn - moved_drawn) >= rows


def faults_of(document: dict[str, Any]) -> list[str]:
    return [fault.message for fault in Draft202012Validator(json_schema()).iter_errors(document)]


def changed(document: dict[str, Any], place: tuple[object, ...], value: object) -> dict[str, Any]:
    """Return a copy of a report with one value changed."""
    copied: dict[str, Any] = json.loads(json.dumps(document))
    inner: Any = copied
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copied


class TestJson:
    def test_report_matches_its_schema(self, whole: Whole, tmp_path: Path) -> None:
        _, path = write_report(whole.report, whole.evidence, tmp_path / "report")
        document = json.loads(path.read_text())
        schema = json_schema()
        Draft202012Validator.check_schema(schema)
        assert faults_of(document) == []
        assert (document["schema"], document["passed"], document["samples"]) == (7, True, 400)
        assert (document["accuracy_metric"], document["accuracy_unit"]) == ("top-1", "share")
        assert document["comparisons"]["student"]["reference"] == "teacher"
        assert document["comparisons"]["int8"]["reference"] == "student"
        assert list(document["localization"]["rows"]) == [*ROLES, "center", "random", "edges"]
        assert document["robustness"]["samples"] == 96
        # Every key is described.
        assert set(document) == set(schema["properties"])
        for part, described in (("models", "model"), ("comparisons", "comparison"), ("calibration", "calibration")):
            assert set(document[part]["fp32" if part != "comparisons" else "int8"]) == set(
                schema["$defs"][described]["properties"]
            )
        for part, described in (("checks", "check"), ("classes", "class")):
            assert set(document[part][0]) == set(schema["$defs"][described]["properties"])

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (("schema",), 1),
            (("models", "student", "accuracy"), 1.5),
            (("models", "student", "accuracy"), -0.1),
            (("comparisons", "int8", "accuracy_candidate"), -0.1),
            (("comparisons", "int8", "accuracy_drop"), 2.0),
            (("faithfulness", "rows", "int8", "insertion"), 1.5),
            (("robustness", "rows", 0, "accuracy"), -0.1),
            (("accuracy_unit",), "points"),
            (("checks", 0, "outcome"), "fine"),
            (("comparisons", "int8", "intervals", "agreement"), 0.5),
            (("sanity", "rows", 0, "test"), "colour"),
        ],
    )
    def test_schema_rejects_invalid_values(self, whole: Whole, place: tuple[object, ...], value: object) -> None:
        document = whole.report.to_dict()
        assert faults_of(document) == []
        assert faults_of(changed(document, place, value))

    def test_schema_accepts_a_regression_worse_than_the_mean(self, tmp_path: Path) -> None:
        metadata = replace(METADATA, task="regression")
        files = {
            name: model_file(STUDENT, tmp_path / f"{name}.onnx", metadata=metadata, noise=noise)
            for name, noise in (("fp32", 0.0), ("int8", 0.005))
        }
        outputs = predict(STUDENT, IMAGES).logits
        document = run(tmp_path, **files, targets=-outputs, task="regression")[0].to_dict()
        r2 = 1 - (4 * outputs**2).sum(axis=0) / outputs.var(axis=0) / len(outputs)
        assert r2.mean() < 0 and document["models"]["student"]["accuracy"] == pytest.approx(r2.mean(), rel=1e-3)
        compared = document["comparisons"]["int8"]
        assert compared["accuracy_reference"] - compared["accuracy_candidate"] == pytest.approx(
            compared["accuracy_drop"]
        )
        assert min(row["accuracy"] for row in document["robustness"]["rows"]) < 0
        assert (document["accuracy_metric"], document["accuracy_unit"]) == ("R²", "variance")
        assert faults_of(document) == []
        assert faults_of(changed(document, ("models", "student", "accuracy"), 1.5))
        assert faults_of(changed(document, ("accuracy_unit",), "share"))

    def test_files_are_identified_by_size_and_checksum(self, whole: Whole) -> None:
        content = (whole.folder / "model.onnx").read_bytes()
        facts = whole.report.models["fp32"]
        assert (facts.bytes, facts.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert whole.report.models["student"].sha256 is None

    def test_non_finite_values_are_null(self, tmp_path: Path) -> None:
        broken = model_file(STUDENT, tmp_path / "broken.onnx", class_shift=1)
        report, evidence = run(tmp_path, fp32=broken, samples=IMAGES[:1], targets=None)
        maps = report.comparisons["fp32"].maps
        assert maps is not None
        assert math.isnan(maps.shuffled_pearson)
        _, path = write_report(report, evidence, tmp_path / "report")

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        document = json.loads(path.read_text(), parse_constant=refuse)
        assert document["comparisons"]["fp32"]["maps"]["shuffled_pearson"] is None
