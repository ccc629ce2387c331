"""Command `enroll`: classes from image files, their table, warnings and errors."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from embedding_model import SIDE, expected_embedding, write_embedding_model
from PIL import Image
from reference_files import with_reference_frames, write_bundle

from kdedge_runtime.cli.main import main
from kdedge_runtime.enrolled_classes import EnrolledClasses
from kdedge_runtime.enrollment import embed_sample, enrolled_samples, enrollment_table, enrollment_warnings
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.model import Model

RED, GREEN, BLUE = (220, 40, 60), (30, 200, 60), (40, 50, 230)


def photo(path: Path, *colors: tuple[int, int, int]) -> np.ndarray:
    """Write an image of vertical stripes of the model's size, which the preprocessing does not change."""
    path.parent.mkdir(exist_ok=True)
    image = np.repeat(np.uint8(colors), SIDE // len(colors), axis=0)[None].repeat(SIDE, axis=0)
    Image.fromarray(image).save(path)
    return np.asarray(image)


@pytest.fixture
def reds(tmp_path: Path) -> dict[str, np.ndarray]:
    """Images of one class in the folder `reds`."""
    colors = {"a.png": (RED,), "b.png": (RED, RED, GREEN, RED), "c.png": (RED, BLUE)}
    return {name: photo(tmp_path / "reds" / name, *parts) for name, parts in colors.items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_embedding_model(tmp_path / "colors.onnx")


def enroll(*arguments: object) -> int:
    return main(["enroll", *map(str, arguments), "--threads", "1"])


def unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))


def test_folder_becomes_a_class(
    file: Path, reds: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "classes.json"
    assert enroll(file, tmp_path / "reds", "--name", "rust", "-o", output) == 0
    found = EnrolledClasses.read(output, Model.load(file, threads=1))
    embeddings = np.stack([expected_embedding(image) for image in reds.values()])
    np.testing.assert_allclose(found.prototypes[0], embeddings.mean(axis=0), atol=1e-5)
    assert (found.names, found.classes[0].samples, found.threshold) == (("rust",), 3, 0.6)
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines()[1:4]]
    for index, (name, row) in enumerate(zip(reds, rows, strict=True)):
        others = unit(np.delete(embeddings, index, axis=0).sum(axis=0))
        assert row == [name, f"{others @ embeddings[index]:.2f}", "–"]
    assert "classes.json" in printed.out and f"--classes {output}" in printed.err


def test_second_class_is_compared_with_the_first(
    file: Path, reds: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "classes.json"
    first, second = photo(tmp_path / "1.png", GREEN), photo(tmp_path / "2.png", GREEN, BLUE)
    assert enroll(file, tmp_path / "reds", "--name", "rust", "-o", output) == 0
    capsys.readouterr()
    assert (
        enroll(file, tmp_path / "1.png", tmp_path / "2.png", "--name", "leaf", "-o", output, "--threshold", 0.25) == 0
    )
    found = EnrolledClasses.read(output, Model.load(file, threads=1))
    assert (found.names, found.threshold) == (("rust", "leaf"), 0.25)
    rust = unit(np.mean([expected_embedding(image) for image in reds.values()], axis=0))
    both = [expected_embedding(first), expected_embedding(second)]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:3]]
    expected = [
        [name, f"{both[0] @ both[1]:.2f}", f"{rust @ each:.2f}", "rust"] for name, each in zip("12", both, strict=True)
    ]
    assert rows == [[f"{row[0]}.png", *row[1:]] for row in expected]


@pytest.mark.parametrize("threshold", [-0.25, 0.4, 1.0])
def test_threshold_is_set_without_images(
    file: Path, reds: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str], threshold: float
) -> None:
    output, model = tmp_path / "classes.json", Model.load(file, threads=1)
    assert enroll(file, tmp_path / "reds", "--name", "rust", "-o", output) == 0
    before = EnrolledClasses.read(output, model)
    capsys.readouterr()
    assert enroll(file, "--threshold", threshold, "-o", output) == 0
    assert f"1 class in {output}, unknown below {threshold:.2f}" in capsys.readouterr().out
    found = EnrolledClasses.read(output, model)
    assert (before.threshold, found.threshold, found.names, found.classes[0].samples) == (0.6, threshold, ("rust",), 3)
    np.testing.assert_array_equal(found.prototypes, before.prototypes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Nothing would be changed"),
        (["--name", "rust"], "no samples of rust"),
        (["--name", "rust", "--threshold", "0.5"], "no samples of rust"),
        (["reds"], "Add --name"),
        (["--threshold", "0.5", "-o", "none.json"], "none.json does not exist"),
    ],
)
def test_images_and_name_belong_together(
    file: Path,
    reds: dict[str, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert enroll(file, "reds", "--name", "rust") == 0
    before = sorted(tmp_path.rglob("*")), (tmp_path / "classes.json").read_bytes()
    assert enroll(file, *options) == 2
    assert message in capsys.readouterr().err
    assert (sorted(tmp_path.rglob("*")), (tmp_path / "classes.json").read_bytes()) == before


@pytest.mark.parametrize("threshold", ["-1.01", "2", "nan", "high"])
def test_threshold_is_a_cosine(file: Path, capsys: pytest.CaptureFixture[str], threshold: str) -> None:
    with pytest.raises(SystemExit) as exit_code:
        enroll(file, f"--threshold={threshold}")
    assert exit_code.value.code == 2 and "not a number from -1 to 1" in capsys.readouterr().err


def test_images_can_follow_options(file: Path, reds: dict[str, np.ndarray], tmp_path: Path) -> None:
    output = tmp_path / "classes.json"
    paths = [tmp_path / "reds" / name for name in reds]
    assert enroll(file, "--name", "rust", *paths[:2], "-o", output) == 0
    assert enroll("--name", "rust", "-o", output, file, paths[2]) == 0
    assert EnrolledClasses.read(output, Model.load(file, threads=1)).classes[0].samples == 3


def test_images_are_added_by_their_counts(file: Path, reds: dict[str, np.ndarray], tmp_path: Path) -> None:
    stepwise, together = tmp_path / "stepwise.json", tmp_path / "together.json"
    paths = [tmp_path / "reds" / name for name in reds]
    assert enroll(file, paths[0], "--name", "rust", "-o", stepwise, "--threshold", 0.4) == 0
    assert enroll(file, *paths[1:], "--name", "rust", "-o", stepwise) == 0
    assert enroll(file, tmp_path / "reds", "--name", "rust", "-o", together) == 0
    model = Model.load(file, threads=1)
    found, expected = EnrolledClasses.read(stepwise, model), EnrolledClasses.read(together, model)
    assert (found.classes[0].samples, found.threshold) == (3, 0.4)
    np.testing.assert_allclose(found.prototypes, expected.prototypes, atol=1e-6)


def test_unfit_images_are_named(
    file: Path, reds: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "classes.json"
    photo(tmp_path / "leaf.png", GREEN)
    assert enroll(file, tmp_path / "leaf.png", "--name", "leaf", "-o", output) == 0
    assert "single sample" in capsys.readouterr().err
    photo(tmp_path / "reds" / "d-mistake.png", GREEN, GREEN, GREEN, RED)
    photo(tmp_path / "reds" / "e-odd.png", BLUE, BLUE, RED, BLUE)
    assert enroll(file, tmp_path / "reds", "--name", "rust", "-o", output, "--threshold", "0.1") == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 2
    assert "d-mistake.png is nearer to leaf" in warnings[0] and "e-odd.png would be unknown" in warnings[1]


def test_unreadable_images_are_skipped(
    file: Path, reds: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, broken = tmp_path / "classes.json", tmp_path / "reds" / "broken.png"
    broken.write_bytes((tmp_path / "reds" / "a.png").read_bytes()[:60])
    assert enroll(file, tmp_path / "reds" / "a.png", broken, tmp_path / "reds", "--name", "rust", "-o", output) == 0
    printed = capsys.readouterr()
    assert printed.err.count("skipped: ") == 2 and "broken.png" in printed.err
    assert EnrolledClasses.read(output, Model.load(file, threads=1)).classes[0].samples == 4
    before = output.read_bytes()
    assert enroll(file, broken, broken, "--name", "rust", "-o", output) == 5
    assert "None of the samples" in capsys.readouterr().err and output.read_bytes() == before


@pytest.mark.parametrize(
    ("photos", "options", "code", "message"),
    [
        (["missing"], [], 5, "does not exist"),
        (["reds", "empty"], [], 5, "contains no images"),
        (["reds"], ["--name", "unknown"], 2, "no class"),
        (["reds"], ["--name", "a\x1b[31m"], 2, "control character"),
        (["reds"], ["-o", "colors.onnx"], 2, "damaged"),
        (["reds"], ["-o", "empty"], 2, "cannot be read"),
        (["reds"], ["-o", "colors.onnx/classes.json"], 1, "cannot be written"),
    ],
)
def test_errors_name_the_cause(
    file: Path,
    reds: dict[str, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    photos: list[str],
    options: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert enroll(file, *photos, "--name", "rust", *options) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "classes.json").exists()


def test_video_is_not_an_image(file: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enroll(file, video, "--name", "rust", "-o", tmp_path / "classes.json") == 2
    assert "is a recording" in capsys.readouterr().err


def test_classifier_cannot_enroll(
    model_path: Path, reds: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enroll(model_path, tmp_path / "reds", "--name", "rust", "-o", tmp_path / "classes.json") == 2
    assert "--task embedding" in capsys.readouterr().err


def test_classes_of_another_model_stay_unchanged(
    file: Path, reds: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "classes.json"
    assert enroll(file, tmp_path / "reds", "--name", "rust", "-o", output) == 0
    before = output.read_bytes()
    other = write_embedding_model(tmp_path / "other.onnx", identity="a" * 16)
    assert enroll(other, tmp_path / "reds", "--name", "rust", "-o", output) == 2
    printed = capsys.readouterr().err
    assert "a different model from other.onnx" in printed and str(output) in printed
    assert output.read_bytes() == before


def test_bundle_is_accepted(
    file: Path, reds: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_bundle(tmp_path / "bundle.zip", with_reference_frames(file))
    output = tmp_path / "classes.json"
    assert enroll(bundle, tmp_path / "reds", "--name", "rust", "-o", output) == 0
    assert json.loads(output.read_text())["classes"][0]["samples"] == 3
    assert f"kdedge-run {bundle} --classes" in capsys.readouterr().err


def test_embedding_that_is_not_finite_is_an_error(
    embedding_model: Model, red_spot: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(embedding_model.predict(red_spot[None]), embedding=np.full((1, 3), np.nan, np.float32))
    monkeypatch.setattr(Model, "predict", lambda *_, **__: broken)
    with pytest.raises(ModelFileError, match="non-finite"):
        embed_sample(embedding_model, red_spot, "spot.png")


def test_similarities_of_opposite_images(embedding_model: Model) -> None:
    """Check a class whose other images cancel each other out."""
    rows = np.float32([[1, 0, 0], [0, 1, 0], [0, -1, 0]])
    classes = EnrolledClasses.of_model(embedding_model).add("odd", rows)
    images = enrolled_samples(classes, "odd", ["a" * 50, "b", "c"], rows)
    assert [each.own for each in images] == pytest.approx([0.0, -(0.5**0.5), -(0.5**0.5)], abs=5e-4)
    assert len(enrollment_table(images).splitlines()) == 4 and "a" * 40 not in enrollment_table(images)
    assert enrollment_warnings(images, None) == [] and len(enrollment_warnings(images, 0.1)) == 3
