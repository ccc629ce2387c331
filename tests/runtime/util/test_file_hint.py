"""Advice about files that do not exist."""

import difflib
import random
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


def test_suggestion_is_that_of_the_standard_library(tmp_path: Path) -> None:
    rng = random.Random(0)
    names = ["".join(rng.choices("abc", k=rng.randint(4, 12))) for _ in range(150)]
    for name in names:
        (tmp_path / name).touch()
    missing = ["".join(rng.choices("abcd", k=rng.randint(4, 12))) for _ in range(100)]
    for name in set(missing).difference(names):
        near = difflib.get_close_matches(name, set(names), n=1)
        assert file_hint(tmp_path / name) == (f" Did you mean {tmp_path / near[0]}?" if near else "")


def test_comparisons_of_long_names_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[int] = []

    class Counting(difflib.SequenceMatcher[str]):
        def ratio(self) -> float:
            pairs.append(len(self.a) * len(self.b))
            return super().ratio()

    rng = random.Random(0)
    names = [f"{''.join(rng.choices('ab', k=180))}.png" for _ in range(600)]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(difflib, "SequenceMatcher", Counting)
    typed = names[77][:90] + names[77][91:]
    assert file_hint(tmp_path / typed) == f" Did you mean {tmp_path / names[77]}?"
    assert 0 < sum(pairs) <= 400_000
    pairs.clear()
    file_hint(tmp_path / f"{''.join(rng.choices('ab', k=180))}.png")
    assert 0 < sum(pairs) <= 400_000


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
