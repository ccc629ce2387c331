"""A modality and a task that are defined here alone go through every step of the product."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from toy_export import SIGNAL
from toy_runtime import LABELS, TASK, SignalInput, bits_of, write_signals

import kdedge
from kdedge.cli.web import web
from kdedge.data import index_dataset
from kdedge.losses import LOSS_TERMS
from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.run_folder import BEST
from kdedge.pipelines.model_inspection import inspect_model
from kdedge.pipelines.run_comparison import compare_runs
from kdedge.pipelines.training_pipeline import Run
from kdedge.reports.comparison_page import render_page
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.compute_device import ComputeDevice
from kdedge.training.run_callback import RunCallback
from kdedge.training.unlabeled_samples import add_unlabeled
from kdedge_export.modalities import EXPORT_MODALITIES
from kdedge_export.tasks import EXPORT_TASKS
from kdedge_runtime import Model
from kdedge_runtime.cli.main import main
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.explainers import make_explainer
from kdedge_runtime.feedback import FeedbackStore, Verdict, write_class_folders
from kdedge_runtime.modalities import INPUT_SPECS
from kdedge_runtime.prediction import decode_prediction
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.progress import no_progress

ENTRY_POINTS = """
[kdedge_runtime.modalities]
signal = toy_runtime:SignalInput
[kdedge_runtime.tasks]
multilabel = toy_runtime:MULTILABEL
[kdedge_export.modalities]
signal = toy_export:SIGNAL
[kdedge_export.tasks]
multilabel = toy_export:MULTILABEL
[kdedge.modalities]
signal = toy_training:SIGNAL
[kdedge.tasks]
multilabel = toy_training:MULTILABEL
[kdedge.losses]
bce = toy_training:BCE
bkd = toy_training:BKD
"""


@pytest.fixture(scope="module")
def seams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the toys as a package with entry points, also for child processes."""
    site = tmp_path_factory.mktemp("site")
    package = site / "toys-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield
    registries = INPUT_SPECS, TASKS, EXPORT_MODALITIES, EXPORT_TASKS, TRAINING_MODALITIES, TRAINING_TASKS, LOSS_TERMS
    for registry in registries:  # other tests of this process list what is built in
        for name in ("signal", TASK, "bce", "bkd"):
            registry._loaded.pop(name, None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_signals(tmp_path_factory.mktemp("signals"), {"train": 320, "val": 160})


@pytest.fixture(scope="module")
def teacher(seams: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = tmp_path_factory.mktemp("runs") / "teacher"
    return kdedge.train(data, "signal:wide", output=output, epochs=12, device="cpu")


@pytest.fixture(scope="module")
def student(teacher: Run, data: Path) -> Run:
    output = teacher.folder.parent / "student"
    return kdedge.distill(data, teacher, "signal:narrow", output=output, epochs=12, device="cpu")


@pytest.fixture(scope="module")
def files(student: Run) -> Path:
    kdedge.export(student, precisions=["fp16", "int8"])
    return student.folder


def test_teacher_learns(teacher: Run) -> None:
    assert teacher.record.task == TASK and isinstance(teacher.record.input, SignalInput)
    assert teacher.record.result is not None
    assert teacher.record.result["best"]["val_labels"] > 0.9


def test_student_is_distilled_with_maps(student: Run) -> None:
    assert set(student.record.recipe["loss"]) == {"bce", "bkd", "mapall"}
    assert student.record.result is not None
    best = student.record.result["best"]
    assert best["val_labels"] > 0.85 and best["val_agreement"] > 0.85 and best["val_map_pearson"] > 0.5


class _Interrupt(RunCallback):
    """Callback that interrupts training after an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch(self, metrics: dict[str, float]) -> None:
        if metrics["epoch"] == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("seams")
def test_streamed_run_that_is_resumed_equals_an_uninterrupted_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"epochs": 3, "device": "cpu", "seed": 1}
    kept = kdedge.train(data, "signal:narrow", output=tmp_path / "kept", **options)
    monkeypatch.setattr(ComputeDevice, "memory_bytes", 0)
    with pytest.raises(KeyboardInterrupt):
        kdedge.train(data, "signal:narrow", output=tmp_path / "streamed", callback=_Interrupt(2), **options)
    streamed = kdedge.train(data, "signal:narrow", output=tmp_path / "streamed", resume=True, **options)
    ours, theirs = (load_file(run.folder / BEST) for run in (streamed, kept))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_file_predicts_labels_and_explains_them(files: Path, data: Path) -> None:
    model = Model.load(files / "model.onnx")
    assert model.metadata.task == TASK and model.metadata.labels == LABELS
    names = sorted((data / "val").glob("*.npy"))
    explanation = model.predict(np.stack([np.load(name) for name in names]))
    values = np.array([int(name.name.partition("-")[0]) for name in names])
    assert ((explanation.scores > 0.5) == bits_of(values, len(LABELS))).mean() > 0.85
    assert explanation.saliency_map is not None and explanation.saliency_map.shape == (len(names), 1, 16)


def test_spike_is_explained_at_its_time(files: Path) -> None:
    signal = np.zeros((64, 2), np.float32)
    signal[44] = 4
    explanation = Model.load(files / "model.onnx").predict(signal[None], class_index=LABELS.index("spike"))
    assert explanation.saliency_map is not None
    assert abs(int(explanation.saliency_map[0, 0].argmax()) - 44 // 4) <= 1


def test_runs_of_a_task_without_class_or_value_are_compared_by_their_records(teacher: Run, student: Run) -> None:
    comparison = compare_runs([teacher.folder, student.folder])
    (note,) = comparison.notes
    assert TASK in note and "kdedge validate" in note
    assert comparison.predictions == () and "<h2>Runs" in render_page(comparison)


def test_validation_compares_all_files(files: Path) -> None:
    validation = kdedge.validate(files)
    report = json.loads(validation.document.read_text(encoding="utf-8"))
    assert set(report["models"]) == {"teacher", "student", "fp32", "fp16", "int8"}
    failed = [check.key for check in validation.report.checks if check.outcome == "failed"]
    assert not failed
    assert validation.report.comparisons["fp32"].agreement == 1.0
    assert validation.report.comparisons["fp16"].agreement == 1.0
    assert validation.report.comparisons["int8"].agreement > 0.95
    assert {row.corruption for row in validation.report.robustness.rows} == set(SIGNAL.corruptions)  # type: ignore[union-attr]
    assert validation.report.classes == () and validation.report.calibration == {}
    assert "data:image/jpeg" in validation.page.read_text(encoding="utf-8")


def test_changed_weights_fail_validation(files: Path, tmp_path: Path) -> None:
    run = shutil.copytree(files, tmp_path / "run")
    graph = onnx.load(run / "model.onnx")
    weights = next(item for item in graph.graph.initializer if item.dims[:] == [8, 2, 1, 5])
    values = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(0.9), weights.name))
    onnx.save(graph, run / "model.onnx")
    (run / "model.int8.onnx").unlink()
    (run / "model.fp16.onnx").unlink()
    report = kdedge.validate(run, quick=True).report
    assert "fp32_logits_error" in {check.key for check in report.checks if check.outcome == "failed"}


def test_modality_without_regions_rejects_them(files: Path, data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(files / "model.onnx"), "--source", str(data / "val"), "--crop", "0,0,1,1"]) == 2
    assert "--crop needs images" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["model.onnx", "model.fp16.onnx", "model.int8.onnx"])
def test_device_runs_all_files(files: Path, data: Path, name: str, tmp_path: Path) -> None:
    lines = tmp_path / "predictions.jsonl"
    overlays = tmp_path / "overlays"
    options = ["--source", str(data / "val"), "--jsonl", str(lines), "-o", str(overlays)]
    assert main([str(files / name), *options]) == 0
    *predictions, summary = map(json.loads, lines.read_text(encoding="utf-8").splitlines())
    assert summary["summary"]["frames"] == len(predictions) == 160
    assert {line["label"] for line in predictions} == {*LABELS, "none"}
    assert all(line["heat"]["cx"] is None or 0 <= line["heat"]["cx"] <= 1 for line in predictions)
    assert len(list(overlays.iterdir())) == 160


def test_feedback_stores_the_signal(files: Path, tmp_path: Path) -> None:
    model, signal = Model.load(files / "model.onnx"), np.zeros((64, 2), np.float32)
    prediction = decode_prediction(model, Frame(0, signal, 0.0, "signal"), model.predict(signal[None]))
    verdict = Verdict.of(prediction, "incorrect", model_sha256="0" * 64)
    with FeedbackStore.open(tmp_path / "feedback.db", 1) as store:
        store.add(replace(verdict, judgment="relabeled", correct_label="slow"))
        write_class_folders(store, tmp_path / "out")
    (written,) = (tmp_path / "out" / "slow").iterdir()
    np.testing.assert_array_equal(np.load(written), signal)


def test_self_test_passes(files: Path) -> None:
    assert main(["self-test", str(files / "model.int8.onnx"), "--device", "generic"]) == 0


@pytest.mark.parametrize("method", ["occlusion", "rise", "lime", "shap"])
def test_black_box_explainers_find_the_spike(files: Path, method: str) -> None:
    model = Model.load(files / "model.onnx")
    signal = np.zeros((64, 2), np.float32)
    signal[44] = 4
    estimate = make_explainer(model, method, segments=8 if method in ("lime", "shap") else None)(
        signal, LABELS.index("spike")
    )
    place = estimate.map.mean(axis=0).argmax() / estimate.map.shape[1]
    assert abs(place - 44 / 64) <= 0.15


def test_samples_are_explained_in_files(files: Path, data: Path, tmp_path: Path) -> None:
    done = kdedge.explain(files / "model.onnx", [data / "val"], tmp_path / "out")
    assert len(done) == 160 and {item.prediction.explained for item in done} == set(LABELS)
    with Image.open(done[0].written) as drawn:
        assert (drawn.width, drawn.mode) == (64, "RGB") and drawn.height > 4 * 8, "channels, the map and a caption"


def test_layers_of_any_modality_are_listed(files: Path, data: Path) -> None:
    inspected = inspect_model(str(files / "model.onnx"))
    assert inspected.labels == LABELS and inspected.structure.macs > 0
    with pytest.raises(UsageError, match="kdedge explain"):
        inspect_model(str(files / "model.onnx"), data / "val" / "1-0001.npy")


def test_browser_page_refuses_other_samples(files: Path) -> None:
    with pytest.raises(UsageError, match="--view"):
        web(files / "model.onnx")


def test_file_of_any_modality_teaches(files: Path, data: Path, tmp_path: Path) -> None:
    teacher, loss = files / "model.onnx", "bce:0.1,bkd:0.9,map:1"
    run = kdedge.distill(data, teacher, "signal:narrow", output=tmp_path / "run", loss=loss, epochs=4, device="cpu")
    assert run.record.teacher is not None and "modality" not in run.record.teacher
    assert run.record.result is not None and run.record.result["best"]["val_agreement"] > 0.7
    kdedge.export(run)
    assert "teacher" in json.loads(kdedge.validate(run, quick=True).document.read_text(encoding="utf-8"))["models"]


def test_file_of_another_framework_teaches_with_images_only(files: Path, data: Path, tmp_path: Path) -> None:
    graph = onnx.load(files / "model.onnx")
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "theirs.onnx")
    with pytest.raises(ModelFileError, match="no metadata"):
        kdedge.distill(data, tmp_path / "theirs.onnx", "signal:narrow", output=tmp_path / "run", device="cpu")


@pytest.mark.usefixtures("seams")
def test_unlabeled_samples_of_another_modality_are_refused(data: Path, tmp_path: Path) -> None:
    for side, label in ((side, label) for side in ("train", "val") for label in ("a", "b")):
        (tmp_path / "photos" / side / label).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "photos" / side / label / "1.png")
    with pytest.raises(UsageError, match="signal samples, but the dataset has image"):
        add_unlabeled(index_dataset(tmp_path / "photos"), [str(data)], None, no_progress)


@pytest.mark.usefixtures("seams")
def test_task_without_unlabeled_targets_refuses_unlabeled_samples(teacher: Run, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{TASK} needs the label"):
        kdedge.distill(data, teacher, "signal:narrow", output=tmp_path / "run", unlabeled=data, device="cpu")
    assert not (tmp_path / "run").exists()
