"""Temperature scaling: fitted on one half of the validation split, evaluated on the other."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_toys import CLASSES, Listener, write_scenes

from kdedge.config.train_config import TrainConfig
from kdedge.data import decode, index_dataset
from kdedge.models.artifacts import Artifacts
from kdedge.pipelines.model_export import export_model
from kdedge.pipelines.model_validation import validate_model
from kdedge.pipelines.temperature_fit import MIN_SAMPLES, fit_run, fitting_half
from kdedge.training.training_run import start_run
from kdedge_export.metrics.calibration import fit_temperature
from kdedge_export.metrics.torch_predictions import Predictions, predict
from kdedge_runtime import Model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.embedding import Embedding
from kdedge_runtime.metadata import Metadata

PER_CLASS = 30


@pytest.fixture(scope="module")
def calibrated_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported run with enough validation images; read-only."""
    root = tmp_path_factory.mktemp("calibrate")
    data = write_scenes(root / "scenes", train=8, val=PER_CLASS)
    start_run(TrainConfig(str(data), "small:resnet8", epochs=2, batch_size=16), root / "run", Listener(), "cpu")
    export_model(str(root / "run"), precisions=["int8"], profile=load_profile("generic"))
    return root / "run"


def metadata_of(run: Path, name: str = "model.onnx") -> Metadata:
    return Model.load(run / name).metadata


def test_halves_are_disjoint_and_cover_all_classes(calibrated_run: Path) -> None:
    side = index_dataset(calibrated_run.parent / "scenes").val
    half = fitting_half(side)
    names = {sample.name for sample in half.samples}
    assert 0.3 * len(side) < len(names) < 0.7 * len(side)
    assert set(half.targets) == set(range(len(CLASSES)))
    assert fitting_half(side) == half


def test_both_files_have_the_fitted_temperature(calibrated_run: Path) -> None:
    metadata = metadata_of(calibrated_run)
    half = fitting_half(index_dataset(calibrated_run.parent / "scenes").val)
    decoded = decode(half, metadata.input)
    logits = predict(Model.load(calibrated_run / "model.onnx"), decoded.samples).logits
    assert metadata.temperature == pytest.approx(fit_temperature(logits, decoded.targets))
    assert metadata.temperature != 1.0
    assert metadata.metrics["temperature_samples"] == len(half)
    assert metadata_of(calibrated_run, "model.int8.onnx").temperature == metadata.temperature


def test_runtime_applies_the_temperature(calibrated_run: Path) -> None:
    model = Model.load(calibrated_run / "model.onnx")
    spec = model.metadata.input
    prediction = model.predict(np.zeros((1, spec.height, spec.width, 3), dtype=np.uint8))
    scaled = np.exp(prediction.logits / model.metadata.temperature)
    np.testing.assert_allclose(prediction.scores, scaled / scaled.sum(), rtol=1e-5)


def test_calibration_error_is_measured_on_the_other_half(calibrated_run: Path) -> None:
    report = validate_model(str(calibrated_run), quick=True).report
    fitted = metadata_of(calibrated_run).metrics["temperature_samples"]
    found = report.calibration["fp32"]
    assert found.n == 3 * PER_CLASS - fitted
    assert found.temperature == metadata_of(calibrated_run).temperature


def test_other_images_are_all_used(calibrated_run: Path, tmp_path: Path) -> None:
    other = write_scenes(tmp_path / "other", train=1, val=4)
    report = validate_model(str(calibrated_run), data=str(other), quick=True).report
    assert report.calibration["fp32"].n == report.samples == 12
    assert not report.data.selected_epoch


def test_moved_images_are_recognized(calibrated_run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(calibrated_run.parent / "scenes", tmp_path / "copy")
    report = validate_model(str(calibrated_run), data=str(copy), quick=True).report
    assert report.calibration["fp32"].n < report.samples
    assert report.data.selected_epoch


def test_too_few_images_keep_temperature_one(exported_run: Path) -> None:
    fit = fit_run(Artifacts.open(exported_run), Model.load(exported_run / "model.onnx"))
    assert fit is not None and fit.temperature == 1.0 and fit.samples == 0
    assert fit.why_not is not None and f"too few, {MIN_SAMPLES} are needed" in fit.why_not
    metadata = metadata_of(exported_run)
    assert metadata.temperature == 1.0 and "temperature_samples" not in metadata.metrics


@pytest.mark.parametrize(
    ("logits", "why"),
    [
        (lambda targets: 9.0 * np.eye(3)[targets], r"all \d+ predictions are correct"),
        (lambda targets: -9.0 * np.eye(3)[targets], r"(\d+) of \1 predictions are wrong"),
        (lambda targets: 1e-4 * np.eye(3)[(targets + (np.arange(len(targets)) % 9 == 0)) % 3], r"below 0\.05"),
    ],
    ids=["all correct", "all wrong", "all equal"],
)
def test_missing_temperature_is_explained(
    calibrated_run: Path, monkeypatch: pytest.MonkeyPatch, logits: Callable[[np.ndarray], np.ndarray], why: str
) -> None:
    model = Model.load(calibrated_run / "model.onnx")
    half = fitting_half(index_dataset(calibrated_run.parent / "scenes").val)
    targets = decode(half, model.metadata.input).targets
    predictions = Predictions(logits(targets).astype(np.float32), None, targets)
    monkeypatch.setattr("kdedge.pipelines.temperature_fit.predict", lambda *_: predictions)
    fit = fit_run(Artifacts.open(calibrated_run), model)
    assert fit is not None and (fit.temperature, fit.samples) == (1.0, 0)
    assert fit.why_not is not None and re.match(why, fit.why_not.replace("the optimum is ", "")), fit.why_not


def test_named_model_has_no_temperature(calibrated_run: Path) -> None:
    assert fit_run(Artifacts.open("small:resnet8"), Model.load(calibrated_run / "model.onnx")) is None


def test_missing_images_do_not_stop_an_export(calibrated_run: Path, tmp_path: Path) -> None:
    from kdedge.models.run_folder import read_run, write_run

    moved = Path(shutil.copytree(calibrated_run, tmp_path / "moved"))
    record = read_run(moved)
    write_run(moved, replace(record, data=record.data | {"source": str(tmp_path / "gone")}))
    result = export_model(str(moved), profile=load_profile("generic"))
    assert result.metadata.temperature == 1.0
    assert result.fit is not None and result.fit.why_not is not None and "cannot be read" in result.fit.why_not


def test_similarities_are_not_calibrated(calibrated_run: Path) -> None:
    model = Model.load(calibrated_run / "model.onnx")
    metadata = replace(model.metadata, task="embedding", embedding=Embedding(8, "0" * 16))
    fit = fit_run(Artifacts.open(str(calibrated_run)), replace(model, metadata=metadata))
    assert fit is not None and (fit.temperature, fit.samples) == (1.0, 0)
    assert fit.why_not is not None and "embedding" in fit.why_not
