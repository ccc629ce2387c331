"""Locations and names, resolved once: run folders, model files, model names."""

from pathlib import Path

import pytest

from kdedge.models import run_folder
from kdedge.models.artifacts import Artifacts
from kdedge.models.run_folder import read_run
from kdedge.pipelines.model_export import export_model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import DataError, UsageError


def test_run_folder_comes_with_its_record(teacher_run: Path) -> None:
    artifacts = Artifacts.open(str(teacher_run))
    assert artifacts.run == teacher_run
    assert artifacts.record == read_run(teacher_run)
    assert artifacts.dataset() == read_run(teacher_run).data["source"]
    artifacts.check_trainable()


def test_model_name_has_no_run() -> None:
    artifacts = Artifacts.open("small:resnet8")
    assert (artifacts.run, artifacts.record, artifacts.dataset()) == (None, None, None)
    artifacts.check_trainable()


def test_opened_artifacts_are_opened_once(teacher_run: Path) -> None:
    artifacts = Artifacts.open(teacher_run)
    assert Artifacts.open(artifacts) is artifacts


def test_fp32_file_is_that_of_the_run_or_the_file_itself(exported_run: Path, tmp_path: Path) -> None:
    file = exported_run / "model.onnx"
    assert Artifacts.open(exported_run).fp32_file() == file
    assert Artifacts.open(file).fp32_file() == file
    for missing in (tmp_path / "missing.onnx", tmp_path / "missing"):
        with pytest.raises(UsageError, match="missing"):
            Artifacts.open(missing).fp32_file()


def test_missing_files_have_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "model.onnx").touch()
    for typed, meant in (("studnet", "student"), ("modle.onnx", "model.onnx")):
        with pytest.raises(UsageError, match=rf"Did you mean \S*{meant}\?"):
            Artifacts.open(tmp_path / typed).fp32_file()


def test_own_weights_of_a_run_are_not_replaced(teacher_run: Path) -> None:
    with pytest.raises(UsageError, match="own weights"):
        Artifacts.open(teacher_run).check_trainable(teacher_run / "best.safetensors")


@pytest.mark.parametrize("source", ["no-such-net", "runs/none"])
def test_unknown_model_is_rejected(source: str) -> None:
    with pytest.raises(UsageError):
        Artifacts.open(source).check_trainable()


def test_missing_dataset_is_reported(teacher_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = Artifacts.open(teacher_run)
    assert artifacts.record is not None
    monkeypatch.setitem(artifacts.record.data, "source", "gone")
    with pytest.raises(DataError, match="--data"):
        artifacts.dataset()


def test_record_is_read_once_in_an_export(teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[object] = []
    checked = run_folder._require_schema
    monkeypatch.setattr(run_folder, "_require_schema", lambda values: reads.append(checked(values)))
    export_model(teacher_run, output=tmp_path / "model.onnx", profile=load_profile("generic"))
    assert len(reads) == 1
