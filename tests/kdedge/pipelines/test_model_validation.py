"""Validation compares files with the exact weights they were exported from, or reports why it cannot."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exported_runs import change_lineage, graph_of
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import load_file
from training_toys import SIDE, VAL, Outcome, rewrite, write_scenes

from kdedge.models.run_folder import BEST
from kdedge.pipelines.exported_files import ExportedFiles
from kdedge.pipelines.model_export import export_model
from kdedge.pipelines.model_validation import validate_model
from kdedge.training.compute_device import ComputeDevice
from kdedge_export.torch_export import save_model
from kdedge_runtime import Model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.metadata import Outputs


def shift(weights: Path, by: float) -> None:
    state = load_file(weights)
    rewrite(weights, {name: value + by if value.is_floating_point() else value for name, value in state.items()})


def test_unmodified_run_passes_and_writes_both_reports(run: Path, scenes: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    validation = validate_model(str(run), progress=lambda *step: steps.append(step))
    report = validation.report
    assert report.passed
    assert report.samples == 3 * VAL and report.has_labels
    assert report.data.description == f"{scenes.name}, validation split (split by folder)"
    assert set(report.models) == {"teacher", "student", "fp32"}
    comparison = report.comparisons["fp32"]
    assert comparison.agreement == 1.0
    assert comparison.maps is not None and comparison.maps.max_relative_error <= 1e-4
    (note,) = validation.report.notes
    assert "59" in note and "familiarity" in note, "too few validation images for a threshold"
    assert validation.model == run / "model.onnx"
    assert (validation.page, validation.document) == (run / "report/report.html", run / "report/report.json")
    assert json.loads(validation.document.read_text(encoding="utf-8"))["passed"] is True
    page = validation.page.read_text(encoding="utf-8")
    assert "<html" in page and "small:resnet8" in page
    timing = "measuring latency and memory"
    assert steps[:3] == [(timing, 0, 1), (timing, 1, 1), ("reading samples", 1, 3 * VAL)]
    assert all(done <= total for _, done, total in steps)


def test_top1_of_the_report_equals_the_run(run: Path) -> None:
    report = validate_model(str(run)).report
    measured = Model.load(run / "model.onnx").metadata.metrics["val_top1"]
    assert report.models["student"].accuracy == pytest.approx(measured, abs=1e-6)
    assert report.models["fp32"].accuracy == pytest.approx(measured, abs=1e-6)


def test_int8_is_validated_with_fp32(exported_run: Path, tmp_path: Path) -> None:
    validation = validate_model(str(exported_run), output=tmp_path / "elsewhere")
    assert {"fp32", "int8"} <= set(validation.report.models)
    assert any(check.key.startswith("int8_") for check in validation.report.checks)
    assert validation.model == exported_run / "model.int8.onnx"
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["report.html", "report.json"]
    assert not (exported_run / "report").exists()


def test_int8_file_of_another_model_is_rejected(exported_run: Path, run: Path) -> None:
    changes = {"student": {"source": "another", "weights": "another", "weights_sha256": "another"}}
    change_lineage(exported_run / "model.int8.onnx", run / "model.int8.onnx", **changes)
    with pytest.raises(UsageError, match=r"model\.int8\.onnx was exported from a different model from .*model\.onnx"):
        validate_model(str(run))


def test_int8_file_with_another_method_is_rejected(exported_run: Path, run: Path) -> None:
    model = Model.load(exported_run / "model.int8.onnx")
    earlier = replace(model.metadata, outputs=replace(model.metadata.outputs, method="layercam"))
    save_model(graph_of(model.path), earlier, run / "model.int8.onnx")
    with pytest.raises(UsageError, match=r"model\.int8\.onnx was exported with another --method"):
        validate_model(str(run))


def test_broken_file_fails(run: Path) -> None:
    path = run / "model.onnx"
    metadata, model = Model.load(path).metadata, graph_of(path)
    kernel = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel)[:, ::-1].copy(), kernel.name))  # BGR
    save_model(model, metadata, path)
    report = validate_model(str(run)).report
    assert not report.passed
    assert "fp32_map_error" in {check.key for check in report.checks if check.passed is False}


def test_changed_weights_are_detected(run: Path) -> None:
    shift(run / BEST, 0.01)
    with pytest.raises(
        UsageError, match=r"model\.onnx was exported from weights that differ from those in .*best\.safetensors"
    ):
        validate_model(str(run))


def test_unexported_run_suggests_the_command(teacher_run: Path) -> None:
    with pytest.raises(UsageError, match=rf"no model file yet\. .*kdedge export {teacher_run} --quantize"):
        validate_model(str(teacher_run))
    with pytest.raises(UsageError, match=r"kdedge export MODEL -o nowhere.onnx"):
        validate_model("nowhere.onnx")
    with pytest.raises(UsageError, match=r"no run folder runs/student.*kdedge distill .* --out runs/student"):
        validate_model("runs/student")


def test_moved_images_suggest_data_option(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["data"]["source"] = "/elsewhere/scenes"
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"trained with the samples in /elsewhere/scenes, .* --data DIR"):
        validate_model(str(run))


def test_file_without_map_is_rejected(run: Path) -> None:
    metadata = replace(Model.load(run / "model.onnx").metadata, outputs=Outputs("none"))
    save_model(graph_of(run / "model.onnx"), metadata, run / "model.onnx")
    with pytest.raises(UsageError, match="--method none and has no map"):
        validate_model(str(run))


def test_file_of_a_run_outside_its_folder_is_rejected(run: Path, tmp_path: Path) -> None:
    inside, alone = run / "other.onnx", tmp_path / "alone.onnx"
    for path in (inside, alone):
        shutil.copy(run / "model.onnx", path)
    assert validate_model(str(inside)).report.passed
    with pytest.raises(UsageError, match=r"alone\.onnx was exported from the run .*, but is not in its folder"):
        validate_model(str(alone))


def test_random_weights_are_rejected(named_file: Path, scenes: Path) -> None:
    origin = {"source": "small:resnet8", "weights": None, "weights_sha256": None}
    change_lineage(named_file, named_file, student=origin)
    with pytest.raises(UsageError, match=r"random weights.*Export it with trained weights"):
        validate_model(str(named_file), data=str(scenes))


def test_named_model_needs_images(named_file: Path) -> None:
    with pytest.raises(UsageError, match=r"named\.onnx does not belong to a run.*--data DIR"):
        validate_model(str(named_file))


def test_unknown_class_folders_are_rejected(named_file: Path, tmp_path: Path) -> None:
    strange = write_scenes(tmp_path / "strange", labels=("key", "leaf", "mug"), train=1, val=1)
    with pytest.raises(DataError, match=r"class folders that the model lacks: leaf, mug\..*bottle, fish, key"):
        validate_model(str(named_file), data=str(strange))


def test_classes_without_any_label_of_a_named_model_are_no_ground_truth(named_file: Path, tmp_path: Path) -> None:
    strange = write_scenes(tmp_path / "strange", labels=("leaf", "mug"), train=1, val=1)
    report = validate_model(str(named_file), data=str(strange), quick=True).report
    assert not report.has_labels and report.models["fp32"].accuracy is None
    assert any("none of the classes of strange" in note and "leaf, mug" in note for note in report.notes)


def test_named_model_passes_with_data_option(named_file: Path, scenes: Path) -> None:
    validation = validate_model(str(named_file), data=str(scenes))
    assert validation.report.passed and validation.report.has_labels
    assert "teacher" not in validation.report.models
    assert validation.page == named_file.with_suffix(".report") / "report.html"


def test_weights_option_of_a_named_model(
    command: Callable[..., Outcome], named_file: Path, scenes: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere" / "other name.safetensors"
    elsewhere.parent.mkdir()
    (tmp_path / "weights.safetensors").rename(elsewhere)
    required = ("validate", named_file, "--data", scenes, "--quick")
    lost = command(*required)
    assert lost.code == 2 and "the weights weights.safetensors, which are neither" in lost.err
    assert "--weights FILE" in lost.err
    found = command(*required, "--weights", elsewhere)
    assert found.code == 0, found.err
    shift(elsewhere, 1e-3)
    changed = command(*required, "--weights", elsewhere)
    assert changed.code == 2 and f"weights that differ from those in {elsewhere}" in changed.err


def test_run_rejects_explicit_weights(run: Path) -> None:
    with pytest.raises(UsageError, match=r"exported from a run, which has its own weights\. Remove --weights w\.pth"):
        validate_model(str(run), weights=Path("w.pth"))


def test_classes_are_matched_by_name(run: Path, tmp_path: Path) -> None:
    """Images of two of the three classes, so that folder indices differ from label indices."""
    subset = write_scenes(tmp_path / "two", labels=("fish", "key"), train=2, val=8)
    report = validate_model(str(run), data=str(subset)).report
    model = Model.load(run / "model.onnx")
    right = 0
    for path in sorted((subset / "val").rglob("*.png")):
        prediction = model.predict(np.asarray(Image.open(path))[None])
        right += model.metadata.labels[int(prediction.logits.argmax())] == path.parent.name
    assert report.models["fp32"].accuracy == right / 16


@pytest.mark.parametrize(("method", "target_layer"), [("layercam", None), ("gradcam", "layer2"), ("hirescam", None)])
def test_file_is_compared_with_its_own_method(
    named_file: Path, scenes: Path, tmp_path: Path, method: str, target_layer: str | None
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, picture in enumerate(sorted(scenes.rglob("*.png"))):
        shutil.copy(picture, flat / f"{index}.png")
    origin, file = Model.load(named_file).metadata.lineage["student"], tmp_path / "other.onnx"
    explanation = {"method": method, "target_layer": target_layer}
    profile = load_profile("generic")
    weights = named_file.parent / origin["weights"]
    export_model(origin["source"], weights=weights, output=file, profile=profile, **explanation)
    outputs = Model.load(file).metadata.outputs
    assert outputs.method == method and target_layer in (None, outputs.target_layer)
    assert validate_model(str(file), data=str(flat)).report.passed


def test_unlabeled_images_are_evaluated_by_agreement(named_file: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "flat"
    folder.mkdir()
    for index in range(20):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    report = validate_model(str(named_file), data=str(folder)).report
    assert report.passed and not report.has_labels
    assert report.models["fp32"].accuracy is None
    assert report.data.description == "flat, all samples" and report.samples == 20


def test_unreadable_images_are_noted(run: Path, scenes: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(scenes, copy)
    next((copy / "val" / "fish").iterdir()).write_bytes(b"")
    validation = validate_model(str(run), data=str(copy))
    assert validation.report.samples == 3 * VAL - 1
    assert len(validation.report.notes) == 2 and "1 of 18" in validation.report.notes[0]


def test_validation_images_beyond_half_of_the_memory_are_subsampled(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ComputeDevice, "memory_bytes", 2 * 9 * SIDE * SIDE * 3)
    report = validate_model(str(run), quick=True).report
    assert report.samples == 9
    assert report.notes[0] == "9 of 18 validation samples, evenly spaced: more do not fit in half of the memory"
    assert [row.n for row in report.classes] == [3, 3, 3]


@pytest.mark.parametrize(("precision", "fitted"), [("int8", True), ("fp16", False)])
def test_calibration_uses_samples(named_file: Path, precision: str, fitted: bool) -> None:
    model = Model.load(named_file)
    assert not ExportedFiles(model, {}, None, None).is_fitted
    assert ExportedFiles(model, {precision: model}, None, None).is_fitted is fitted
