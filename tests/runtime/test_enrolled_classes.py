"""Enrolled classes: means, files, and errors of damaged or foreign ones."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_model import ID, write_embedding_model
from PIL import Image

from kdedge_runtime import enrolled_classes
from kdedge_runtime.cli.main import main
from kdedge_runtime.embedding import Embedding
from kdedge_runtime.enrolled_classes import EnrolledClasses
from kdedge_runtime.enrollment import enrolled_samples
from kdedge_runtime.errors import DataError, KdedgeError, UsageError
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import decode_prediction
from kdedge_runtime.server.live_view import ClassFile, Controls
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.settings import LiveSettings
from kdedge_runtime.util import folder_lock

RNG = np.random.default_rng(3)


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


FIRST, SECOND, OTHER = (unit(RNG.normal(size=(count, 3))) for count in (4, 3, 2))


@pytest.fixture
def classes(embedding_model: Model) -> EnrolledClasses:
    return EnrolledClasses.of_model(embedding_model).add("rust", FIRST).add("Blätter, grün", OTHER)


def test_prototype_is_the_mean_whatever_the_order(embedding_model: Model) -> None:
    none = EnrolledClasses.of_model(embedding_model)
    assert (none.names, none.threshold, none.embedding) == ((), 0.6, Embedding(3, ID, 0.6))
    mean = np.concatenate([FIRST, SECOND]).mean(axis=0)
    together = none.add("rust", np.concatenate([FIRST, SECOND]))
    stepwise = none.add("rust", SECOND[:1]).add("leaf", OTHER).add("rust", SECOND[1:]).add(" rust ", FIRST)
    for found in (together, stepwise):
        assert found.classes[0].name == "rust" and found.classes[0].samples == 7
        np.testing.assert_allclose(found.classes[0].prototype, mean, atol=1e-6)
    assert stepwise.names == ("rust", "leaf")
    np.testing.assert_allclose(stepwise.prototypes[1], OTHER.mean(axis=0), atol=1e-6)
    assert none.classes == ()


def test_file_is_read_as_written(classes: EnrolledClasses, embedding_model: Model, tmp_path: Path) -> None:
    path = tmp_path / "new" / "classes.json"
    classes.write(path)
    found = EnrolledClasses.read(path, embedding_model)
    assert (found.names, found.threshold) == (classes.names, 0.6) and found.embedding.is_of(classes.embedding)
    assert [each.samples for each in found.classes] == [4, 2]
    np.testing.assert_array_equal(found.prototypes, classes.prototypes)
    assert [entry.name for entry in path.parent.iterdir()] == ["classes.json"]
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values.keys() == {"schema", "embedding", "threshold", "classes"}
    assert values["embedding"] == {"size": 3, "id": ID}
    assert values["classes"][1].keys() == {"name", "samples", "prototype"}


def test_model_answers_with_the_classes(classes: EnrolledClasses, embedding_model: Model, red_spot: np.ndarray) -> None:
    model = classes.apply_to(embedding_model)
    assert model.metadata.labels == classes.names and model.metadata.familiarity is not None
    assert model.metadata.familiarity.threshold == 0.6
    found = model.predict(red_spot[None])
    assert found.embedding is not None
    np.testing.assert_allclose(found.logits[0], unit(classes.prototypes) @ found.embedding[0], atol=1e-6)


def test_threshold_of_the_model_is_the_default(tmp_path: Path) -> None:
    model = Model.load(write_embedding_model(tmp_path / "plain.onnx", threshold=None), threads=1)
    found = EnrolledClasses.of_model(model).add("a", FIRST)
    assert found.threshold is None and EnrolledClasses.of_model(model, 0.25).threshold == 0.25
    found.write(tmp_path / "classes.json")
    assert EnrolledClasses.read(tmp_path / "classes.json", model).threshold is None


def damaged(enrolled: EnrolledClasses, path: Path, **changes: Any) -> Path:
    """Write classes whose entries are changed; names with an underscore are those of the first class."""
    enrolled.write(path)
    values = json.loads(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        (values["classes"][0] if name.startswith("_") else values)[name.removeprefix("_")] = value
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema 2.*later"),
        ({"schema": "1"}, "damaged.*schema"),
        ({"schema": True}, "damaged.*schema"),
        ({"classes": []}, "no classes"),
        ({"classes": 3}, "damaged"),
        ({"classes": [[]]}, "damaged"),
        ({"embedding": {"size": 3}}, "damaged.*id"),
        ({"embedding": [3]}, "damaged"),
        ({"threshold": "high"}, "invalid threshold"),
        ({"threshold": 2}, "invalid threshold"),
        ({"threshold": float("nan")}, "invalid threshold"),
        ({"_name": "Blätter, grün"}, "several classes"),
        ({"_name": ""}, "damaged.*name"),
        ({"_name": "  "}, "damaged.*name"),
        ({"_name": " rust"}, "invalid name"),
        ({"_name": "a\x1bb"}, "control character"),
        ({"_name": 3}, "invalid name"),
        ({"_name": "Unknown"}, "no class"),
        ({"_samples": 0}, "rust: invalid number of samples"),
        ({"_samples": True}, "number of samples"),
        ({"_samples": 1_000_001}, "number of samples"),
        ({"_samples": 10**400}, "rust: invalid number of samples"),
        ({"_prototype": [1.0, float("nan"), 0.0]}, "3 finite numbers"),
        ({"_prototype": [1.0, float("inf"), 0.0]}, "3 finite numbers"),
        ({"_prototype": [1.0, 10**400, 0.0]}, "damaged"),
        ({"_prototype": [1e300, 0.0, 0.0]}, "zero or too large"),
        ({"_prototype": [0.0, 0.0, 0.0]}, "rust: the prototype is zero"),
        ({"_prototype": [1e-50, 0.0, 0.0]}, "prototype is zero"),
        ({"_prototype": [1.0, 0.0]}, "3 finite numbers"),
        ({"_prototype": ["1", 0, 0]}, "3 finite numbers"),
        ({"_prototype": "abc"}, "3 finite numbers"),
    ],
)
def test_damaged_file_is_an_error(
    classes: EnrolledClasses, embedding_model: Model, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = damaged(classes, tmp_path / "classes.json", **changes)
    with pytest.raises(DataError, match=message) as raised:
        EnrolledClasses.read(path, embedding_model)
    assert str(path) in str(raised.value) and "kdedge-run enroll" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null", b"{}"])
def test_file_that_is_no_json_object_is_an_error(embedding_model: Model, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "classes.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        EnrolledClasses.read(path, embedding_model)


def test_missing_file_and_folder(embedding_model: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*kdedge-run enroll"):
        EnrolledClasses.read(tmp_path / "classes.json", embedding_model)
    with pytest.raises(DataError, match="cannot be read"):
        EnrolledClasses.read(tmp_path, embedding_model)


def test_classes_of_another_model_name_both_files(
    classes: EnrolledClasses, embedding_model: Model, tmp_path: Path
) -> None:
    other = Model.load(write_embedding_model(tmp_path / "other.onnx", identity="f" * 16), threads=1)
    path = tmp_path / "classes.json"
    classes.write(path)
    with pytest.raises(DataError, match=f"{ID} instead of {'f' * 16}") as raised:
        EnrolledClasses.read(path, other)
    for part in (str(path), "other.onnx", f"kdedge-run enroll {other.path} --name"):
        assert part in str(raised.value)
    damaged(classes, path, embedding={"size": 4, "id": ID}, classes=[{"name": "a", "samples": 1, "prototype": [1] * 4}])
    with pytest.raises(DataError, match="4 values instead of 3"):
        EnrolledClasses.read(path, embedding_model)


def test_classifier_has_no_enrolled_classes(classes: EnrolledClasses, model: Model, tmp_path: Path) -> None:
    classes.write(tmp_path / "classes.json")
    with pytest.raises(UsageError, match=r"kdedge distill .* --task embedding"):
        EnrolledClasses.read(tmp_path / "classes.json", model)


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\nb", "unknown", " UNKNOWN"])
def test_unusable_names_are_rejected(classes: EnrolledClasses, name: str) -> None:
    with pytest.raises(UsageError, match="class"):
        classes.add(name, FIRST)


def test_images_without_a_mean_are_rejected(classes: EnrolledClasses) -> None:
    for embeddings in (np.stack([FIRST[0], -FIRST[0]]), np.full((2, 3), np.nan, np.float32), np.zeros((1, 3))):
        with pytest.raises(DataError, match="zero or not finite"):
            classes.add("new", embeddings)


@pytest.mark.parametrize("length", [1e-30, 1e-7, 1e30])
def test_length_of_a_stored_prototype_has_no_effect(
    classes: EnrolledClasses, embedding_model: Model, red_spot: np.ndarray, tmp_path: Path, length: float
) -> None:
    rows = [float(value) * length for value in classes.prototypes[0]]
    scaled = EnrolledClasses.read(damaged(classes, tmp_path / "classes.json", _prototype=rows), embedding_model)
    expected, found = (each.apply_to(embedding_model).predict(red_spot[None]) for each in (classes, scaled))
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-6)
    for before in (classes, scaled):
        after = before.add("new", FIRST[:2])
        (image, _) = enrolled_samples(after, "new", ["1.png", "2.png"], FIRST[:2])
        similarity = max(unit(classes.prototypes) @ FIRST[0])
        assert image.nearest_similarity == pytest.approx(similarity, abs=1e-5)
    own, _ = enrolled_samples(scaled.add("rust", FIRST[:2]), "rust", ["1.png", "2.png"], FIRST[:2])
    assert own.own is not None and -1.00001 <= own.own <= 1.00001


def test_number_of_images_is_limited(classes: EnrolledClasses, embedding_model: Model, tmp_path: Path) -> None:
    path = damaged(classes, tmp_path / "classes.json", _samples=999_999)
    full = EnrolledClasses.read(path, embedding_model).add("rust", FIRST[:1])
    assert full.classes[0].samples == 1_000_000
    full.write(path)
    with pytest.raises(DataError, match="rust would have more than 1000000 samples"):
        EnrolledClasses.read(path, embedding_model).add("rust", FIRST[:1])
    assert full.add("leaf", FIRST[:1]).names[-1] == "leaf"


def test_number_of_classes_is_limited(classes: EnrolledClasses, embedding_model: Model, tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    entries = [{"name": f"class {index}", "samples": 1, "prototype": [1, index, 0]} for index in range(10_001)]
    damaged(classes, path, classes=entries)
    with pytest.raises(DataError, match="10001 classes, expected at most 10000"):
        EnrolledClasses.read(path, embedding_model)
    damaged(classes, path, classes=entries[:-1])
    full = EnrolledClasses.read(path, embedding_model)
    with pytest.raises(UsageError, match="one more cannot be added to 10000 classes"):
        full.add("one more", FIRST)
    assert full.add("class 3", FIRST).classes[3].samples == 5
    fuller = EnrolledClasses(full.embedding, None, full.classes[1:]).add("one more", FIRST)
    assert len(fuller.classes) == 10_000


def test_file_that_cannot_be_written_leaves_the_earlier_one(classes: EnrolledClasses, tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    classes.write(path)
    before = path.read_bytes()
    with pytest.raises(KdedgeError, match="cannot be written"):
        classes.write(path / "below.json")
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


ENROLLING = """
import sys
from pathlib import Path
import numpy as np
from kdedge_runtime.enrolled_classes import EnrolledClasses
from kdedge_runtime.model import Model

path, model, name = Path(sys.argv[1]), Model.load(sys.argv[2], threads=1), sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
for row in np.eye(3, dtype=np.float32).repeat(4, axis=0):
    EnrolledClasses.update(path, model, lambda before: before.add(name, row[None]))
"""


@pytest.mark.skipif(not folder_lock.HAS_LOCKS, reason="no file locks on this system")
def test_enrollments_of_several_processes_are_all_kept(embedding_model: Model, tmp_path: Path) -> None:
    path, names = tmp_path / "new" / "classes.json", ("a", "b")
    command = [sys.executable, "-c", ENROLLING, str(path), str(embedding_model.path)]
    processes = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in names
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    found = EnrolledClasses.read(path, embedding_model)
    assert sorted((each.name, each.samples) for each in found.classes) == [("a", 12), ("b", 12)]
    np.testing.assert_allclose(found.prototypes, np.full((2, 3), 1 / 3), atol=1e-5)
    assert [entry.name for entry in path.parent.iterdir()] == ["classes.json"]


def enroll_by_command(path: Path, model: Model, image: np.ndarray) -> None:
    photo = path.parent / "photo.png"
    Image.fromarray(image).save(photo)
    assert main(["enroll", str(model.path), str(photo), "--name", "second", "-o", str(path), "--threads", "1"]) == 0


def enroll_in_view(path: Path, model: Model, image: np.ndarray) -> None:
    prediction = decode_prediction(model, Frame(0, image, 0.0, "photo"), model.predict(image[None]))
    ClassFile(path, model, Controls(model, LiveSettings())).add("second", prediction)


@pytest.mark.skipif(not folder_lock.HAS_LOCKS, reason="no file locks on this system")
@pytest.mark.parametrize("enroll", [enroll_by_command, enroll_in_view])
def test_enrollment_during_another_is_kept(
    enroll: Callable[[Path, Model, np.ndarray], None],
    classes: EnrolledClasses,
    embedding_model: Model,
    red_spot: np.ndarray,
    tmp_path: Path,
) -> None:
    """Enroll while another program has read the file and has not yet written it."""
    path = tmp_path / "classes.json"
    classes.write(path)
    thread = threading.Thread(target=enroll, args=(path, embedding_model, red_spot))

    def change(before: EnrolledClasses) -> EnrolledClasses:
        thread.start()
        thread.join(timeout=1.5)
        assert thread.is_alive(), "it waits"
        return before.add("first", FIRST)

    EnrolledClasses.update(path, embedding_model, change)
    thread.join(timeout=60)
    found = EnrolledClasses.read(path, embedding_model)
    assert found.names == (*classes.names, "first", "second")


@pytest.mark.skipif(not folder_lock.HAS_LOCKS, reason="no file locks on this system")
def test_folder_locked_by_another_program_is_an_error(
    classes: EnrolledClasses, embedding_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "classes.json"
    classes.write(path)
    before = path.read_bytes()
    monkeypatch.setattr(enrolled_classes, "_MAX_WAIT_S", 0.05)
    with (
        folder_lock.folder_lock(tmp_path, 1.0),
        pytest.raises(KdedgeError, match="unchanged: another program locked"),
    ):
        EnrolledClasses.update(path, embedding_model, lambda found: found.add("new", FIRST))
    assert path.read_bytes() == before
    assert EnrolledClasses.update(path, embedding_model, lambda found: found.add("new", FIRST)).names[-1] == "new"


@pytest.mark.parametrize("absence", ["system", "file system"])
def test_classes_are_updated_without_locks(
    classes: EnrolledClasses, embedding_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absence: str
) -> None:
    if absence == "system":
        monkeypatch.setattr(folder_lock, "HAS_LOCKS", False)
    else:
        monkeypatch.setattr(folder_lock, "try_lock", lambda descriptor: None)
    path = tmp_path / "classes.json"
    for _ in range(2):
        EnrolledClasses.update(path, embedding_model, lambda found: found.add("new", FIRST))
    assert EnrolledClasses.read(path, embedding_model).classes[0].samples == 8


def test_file_without_classes_is_not_written(embedding_model: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no classes"):
        EnrolledClasses.update(tmp_path / "classes.json", embedding_model, lambda before: before)
    assert list(tmp_path.iterdir()) == []
