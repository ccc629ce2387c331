"""Advice about files that do not exist."""

from pathlib import Path

import pytest

from kdedge_runtime import Model, predict_file
from kdedge_runtime.cli.main import main
from kdedge_runtime.errors import KdedgeError, SourceError
from kdedge_runtime.util.file_hint import file_hint


def test_most_similar_name_is_suggested(tmp_path: Path) -> None:
    for name in ("model.onnx", "model.int8.onnx", "applicants.csv"):
        (tmp_path / name).touch()
    for typed, meant in (("modle.onnx", "model.onnx"), ("model", "model.onnx"), ("model.int8.onx", "model.int8.onnx")):
        assert file_hint(tmp_path / typed) == f" Did you mean {tmp_path / meant}?"
    for path in (tmp_path / "photo.png", tmp_path / "model.onnx", tmp_path / "gone" / "model.onnx", tmp_path):
        assert file_hint(path) == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["{}/modle.onnx", "--source", "0"],
        ["self-test", "{}/modle.onnx"],
        ["bench", "{}/modle.onnx"],
        ["{}/bundel.zip", "--source", "0"],
    ],
)
def test_missing_model_of_a_command_has_a_suggestion(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("model.onnx", "bundle.zip"):
        (tmp_path / name).touch()
    assert main([text.format(tmp_path) for text in arguments]) == 2
    meant = "bundle.zip" if "zip" in arguments[0] else "model.onnx"
    assert f"Did you mean {tmp_path / meant}?" in capfd.readouterr().err


def test_missing_files_of_a_program_have_a_suggestion(model: Model, photos: Path, model_path: Path) -> None:
    with pytest.raises(KdedgeError, match=rf"Did you mean \S*{model_path.name}\?"):
        Model.load(model_path.with_suffix(".onx"))
    with pytest.raises(SourceError, match=r"Did you mean \S*3-blue\.png\?"):
        predict_file(model, photos / "3-bleu.png")
