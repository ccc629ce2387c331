"""Students of zero-shot teachers: classes of the data or of the user, maps, resuming, and the command."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from clip_toys import checkpoint, define_networks
from training_toys import CLASSES, Listener, Outcome, write_scenes

from kdedge.config.train_config import TrainConfig
from kdedge.models.run_folder import read_run, write_run
from kdedge.pipelines.model_export import export_model
from kdedge.pipelines.model_validation import validate_model
from kdedge.training.training_run import continue_run, start_run
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import UsageError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("tiny"), train=4, val=2)


@pytest.fixture(scope="module")
def request_for_student(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("clip")
    define_networks(folder)
    file = checkpoint("tiny-vit", folder / "clip.safetensors")
    return TrainConfig(
        str(tiny),
        "small:resnet8",
        teacher=("clip:tiny-vit",),
        teacher_weights=(str(file),),
        epochs=1,
        loss="ce:0.1,kd:0.9,mapall:20",
    )


def test_classes_of_the_data(request_for_student: TrainConfig, tmp_path: Path) -> None:
    listener = Listener()
    record = start_run(request_for_student, tmp_path / "run", listener, "cpu")
    assert record.teacher is not None
    assert record.teacher["classes"] == [label.replace("_", " ") for label in record.labels]
    assert record.teacher["prompts"] == ["a photo of a {}"]
    assert all(label in dict(listener.plan)["classes"] for label in CLASSES)
    assert "val_map_pearson" in listener.epochs[-1], "maps are compared"
    write_run(tmp_path / "run", replace(record, result=None))
    assert continue_run(request_for_student, tmp_path / "run", Listener(), "cpu").result is not None


def test_classes_of_the_user_change_the_teacher(request_for_student: TrainConfig, tmp_path: Path) -> None:
    first, second = Listener(), Listener()
    start_run(request_for_student, tmp_path / "a", first, "cpu")
    request = replace(request_for_student, classes=("cat", "dog", "empty bowl"), prompts=("a {}", "one {}"))
    record = start_run(request, tmp_path / "b", second, "cpu")
    assert record.teacher is not None and record.teacher["classes"] == ["cat", "dog", "empty bowl"]
    assert record.request["prompts"] == ["a {}", "one {}"]
    assert first.epochs[-1]["loss_kd"] != second.epochs[-1]["loss_kd"]
    changed = record.teacher | {"weights_sha256": "0" * 64}
    write_run(tmp_path / "b", replace(record, result=None, teacher=changed))
    with pytest.raises(UsageError, match="has changed since"):
        continue_run(request, tmp_path / "b", Listener(), "cpu")


def test_images_without_labels_have_the_classes_of_the_user(
    request_for_student: TrainConfig, tiny: Path, tmp_path: Path
) -> None:
    footage = tmp_path / "footage"
    footage.mkdir()
    for path in (tiny / "train").rglob("*.png"):
        (footage / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    request = replace(request_for_student, data=str(footage), loss=None)
    with pytest.raises(UsageError, match="--classes"):
        start_run(request, tmp_path / "run", Listener(), "cpu")
    names = ("cat", "dog", "empty bowl", "key")
    record = start_run(replace(request, classes=names), tmp_path / "run", Listener(), "cpu")
    assert record.labels == names and record.model.classes == 4
    assert record.result is not None and "val_top1" not in record.result["best"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("a", "b")}, r"names 2 classes, but .* has 3\. .*in this order: "),
        ({"prompts": ("no place",)}, r"prompt 'no place' needs one \{\}"),
        ({"teacher": ("small:resnet8",), "classes": ("a", "b", "c")}, "no teacher is one|do not fit"),
    ],
)
def test_invalid_classes(
    request_for_student: TrainConfig, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        start_run(replace(request_for_student, **options), tmp_path / "run", Listener(), "cpu")


def test_classes_without_a_zero_shot_teacher(
    request_for_student: TrainConfig, teacher_run: Path, tmp_path: Path
) -> None:
    request = replace(
        request_for_student, teacher=(str(teacher_run),), teacher_weights=(), classes=("a", "b", "c"), loss=None
    )
    with pytest.raises(UsageError, match=r"no teacher is one.*--teacher clip:"):
        start_run(request, tmp_path / "run", Listener(), "cpu")


@pytest.mark.slow
def test_command_export_and_validation(
    request_for_student: TrainConfig, command: Callable[..., Outcome], tiny: Path, tmp_path: Path
) -> None:
    (weights,) = request_for_student.teacher_weights
    options = ("--classes", "cat, dog,empty bowl", "--prompt", "a drawing of a {}", "--epochs", 1, "--device", "cpu")
    teacher = ("--teacher", "clip:tiny-vit", "--teacher-weights", weights, "--student", "resnet8")
    outcome = command("distill", tiny, *teacher, *options, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "cat, dog, empty bowl; in 'a drawing of a {}'" in outcome.err
    record = read_run(tmp_path / "run")
    assert record.teacher is not None and record.teacher["classes"] == ["cat", "dog", "empty bowl"]
    export_model(str(tmp_path / "run"), profile=load_profile("generic"))
    notes = validate_model(str(tmp_path / "run"), quick=True).report.notes
    assert not any("teacher is excluded" in note for note in notes), notes
    naming = ("--classes", "cat,dog,empty bowl", "--prompt", "a drawing of a {}")
    exported = command("export", "clip:tiny-vit", "--weights", weights, *naming, "-o", tmp_path / "clip.onnx")
    assert exported.code == 0 and "map matches PyTorch" in exported.err, exported.err
