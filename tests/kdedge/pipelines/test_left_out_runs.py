"""Runs without some classes: training, resuming, export with a threshold, and validation."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_toys import Listener, write_scenes

from kdedge.config.train_config import TrainConfig
from kdedge.models.run_folder import read_run
from kdedge.pipelines.model_export import export_model
from kdedge.pipelines.model_validation import validate_model
from kdedge.training.training_run import continue_run, start_run
from kdedge_export.scenes import LABELS
from kdedge_runtime import Model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import KdedgeError, UsageError

LEFT_OUT, VAL = LABELS[1], 32


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data"), train=12, val=VAL)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run on two of three classes with its exported files; read-only."""
    out = tmp_path_factory.mktemp("left-out") / "run"
    start_run(request(data), out, Listener(), "cpu")
    export_model(str(out), precisions=["int8"], profile=load_profile("generic"))
    return out


def request(data: Path, *left_out: str) -> TrainConfig:
    return TrainConfig(str(data), "small:resnet8", epochs=2, batch_size=8, leave_out=left_out or (LEFT_OUT,))


def test_run_has_the_remaining_classes(run: Path, data: Path) -> None:
    record = read_run(run)
    assert record.labels == tuple(sorted({*LABELS[:3]} - {LEFT_OUT}))
    assert record.left_out == (LEFT_OUT,) and record.request["leave_out"] == [LEFT_OUT]
    assert (record.data["train"], record.data["val"]) == (24, 2 * VAL)
    assert continue_run(request(data), run, Listener(), "cpu").labels == record.labels
    with pytest.raises(UsageError, match="leave-out"):
        continue_run(request(data, LABELS[0]), run, Listener(), "cpu")


def test_threshold_is_fitted_on_the_remaining_classes(run: Path) -> None:
    stored = Model.load(run / "model.onnx").metadata.familiarity
    assert stored is not None and stored.threshold is not None
    assert (stored.method, stored.known) == ("discriminant-cosine", 2 * VAL)
    of_int8 = Model.load(run / "model.int8.onnx").metadata.familiarity
    assert of_int8 is not None and (of_int8.known, of_int8.rejected) == (stored.known, stored.rejected)
    assert of_int8.threshold != stored.threshold, "fitted again"


def test_validation_reports_left_out_classes_and_a_folder(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other things" / "any"
    other.mkdir(parents=True)
    for index in range(5):
        noise = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(other / f"{index}.png")
    report = validate_model(str(run), unfamiliar=str(other.parent), quick=True, output=tmp_path / "report").report
    assert report.familiarity is not None and report.samples == 2 * VAL
    counts = {(row.group, row.model): row.samples for row in report.familiarity.groups}
    assert counts["left-out classes", "fp32"] == counts["left-out classes", "int8"] == VAL
    assert counts["other things", "int8"] == 5
    assert "fp32_known_rejected" in {check.key for check in report.checks}


def test_folders_of_no_class_are_unfamiliar_samples(run: Path, data: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "clips" / "bins" / "dataset"
    for label in (LABELS[0], LABELS[2]):
        shutil.copytree(data / "val" / label, dataset / label)
    for folder in (dataset / "none", tmp_path / "more" / "none"):
        shutil.copytree(data / "val" / LEFT_OUT, folder)
    (dataset / "none" / "broken.png").write_bytes(b"x")
    (dataset / "unknown").mkdir()
    for index in range(VAL - 3):
        (tmp_path / "more" / "none" / f"{index:02}.png").unlink()
    more = str(tmp_path / "more" / "none")
    for given, expected in ((None, {"none": VAL}), (more, {"none": VAL, more: 3})):
        report = validate_model(
            str(run), data=str(dataset.parent), unfamiliar=given, quick=True, output=tmp_path / "report"
        ).report
        assert report.familiarity is not None
        counts = {row.group: row.samples for row in report.familiarity.groups if row.model == "int8"}
        assert {name: counts[name] for name in counts if name != "textures and noise"} == expected


def test_empty_folder_of_unfamiliar_images_is_an_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(KdedgeError, match="empty"):
        validate_model(str(run), unfamiliar=str(tmp_path / "empty"), quick=True, output=tmp_path / "report")


def test_export_does_not_require_the_images(run: Path, tmp_path: Path, data: Path) -> None:
    moved, images = tmp_path / "run", tmp_path / "images"
    shutil.copytree(run, moved)
    text = (moved / "run.json").read_text(encoding="utf-8")
    (moved / "run.json").write_text(text.replace(str(data), str(images)), encoding="utf-8")
    stored = export_model(str(moved), profile=load_profile("generic")).metadata.familiarity
    assert stored is not None and stored.method == "energy" and stored.threshold is None
    assert stored.why_not is not None and str(images) in stored.why_not
