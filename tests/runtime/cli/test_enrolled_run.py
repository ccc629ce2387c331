"""Runs with enrolled classes: answers, maps, unknown images, and similarities in every output."""

import io
import json
import shlex
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from embedding_model import expected_embedding, expected_map, write_embedding_model
from PIL import Image
from reference_files import with_reference_frames, write_bundle
from toy_streams import Collector, Frames

from kdedge_runtime.cli.main import main
from kdedge_runtime.drawing import overlay
from kdedge_runtime.drawing.caption import Caption
from kdedge_runtime.enrolled_classes import EnrolledClasses
from kdedge_runtime.feedback import FeedbackStore
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.server.live_view import Controls
from kdedge_runtime.server.live_view.machine_state import MachineMonitor
from kdedge_runtime.server.live_view.prometheus import exposition
from kdedge_runtime.server.live_view.run_state import describe_prediction
from kdedge_runtime.sinks.mqtt.home_assistant import DeviceTopics, state_payload
from kdedge_runtime.sinks.status_line import StatusLine
from kdedge_runtime.sources.image_source import ImageSource
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.settings import LiveSettings
from kdedge_runtime.stream.statistics import RunProgress

AXES = {"rust": np.float32([[2, -1, -0.8]]), "leaf": np.float32([[-1, 1.5, -1]])}
"""Enrolled classes; blue images are of neither."""


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def enrolled(model: Model, threshold: float | None = 0.5) -> EnrolledClasses:
    classes = EnrolledClasses.of_model(model, threshold)
    for name, rows in AXES.items():
        classes = classes.add(name, unit(rows))
    return classes


@pytest.fixture
def file(embedding_model: Model, tmp_path: Path) -> Path:
    path = tmp_path / "classes.json"
    enrolled(embedding_model).write(path)
    return path


@pytest.fixture
def predictions(embedding_model: Model, photos: Path) -> list[Prediction]:
    """Predictions for images of red, green and blue squares."""
    sink = Collector()
    with ImageSource(photos) as source:
        run(enrolled(embedding_model).apply_to(embedding_model), source, [sink])
    return sink.predictions


def run_lines(model: Model, photos: Path, tmp_path: Path, *options: str) -> list[dict]:
    """Run on images, and return the JSON lines without the summary."""
    target = tmp_path / "out.jsonl"
    assert main([str(model.path), "--source", str(photos), "--jsonl", str(target), *options]) == 0
    return [json.loads(line) for line in target.read_text().splitlines()][:-1]


def test_images_are_answered_with_enrolled_classes(
    embedding_model: Model, file: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = run_lines(embedding_model, photos, tmp_path, "--classes", str(file))
    assert "2 enrolled classes" in capsys.readouterr().err
    directions = unit(np.concatenate(list(AXES.values())))
    images = [np.asarray(Image.open(path)) for path in sorted(photos.glob("*.png"))]
    similarities = np.stack([expected_embedding(image) for image in images]) @ directions.T
    assert [line["label"] for line in lines] == ["rust", "leaf", "rust"]
    assert [line["similarity"] for line in lines] == pytest.approx(similarities.max(axis=1).tolist(), abs=2e-5)
    assert [line["unknown"] for line in lines] == [False, False, True]
    assert [line["familiarity"] for line in lines] == [line["similarity"] for line in lines]
    assert all("p" not in line for line in lines) and lines[2]["similarity"] < 0


def test_unknown_can_be_turned_off_and_a_class_explained(
    embedding_model: Model, file: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--classes", str(file), "--no-unknown", "--class", "rust"]
    lines = run_lines(embedding_model, photos, tmp_path, *options)
    assert [(line["unknown"], line["explained"]) for line in lines] == [(False, "rust")] * 3
    assert main([str(embedding_model.path), "--source", str(photos), "--classes", str(file), "--class", "blue"]) == 2
    assert "rust, leaf" in capsys.readouterr().err


def test_map_explains_the_similarity(predictions: list[Prediction]) -> None:
    for prediction, name in zip(predictions, ("rust", "leaf", "rust"), strict=True):
        assert prediction.explained == name and prediction.saliency_map is not None
        expected = expected_map(prediction.frame.sample, AXES[name][0])
        np.testing.assert_allclose(prediction.saliency_map, expected, atol=1e-4)


def test_file_without_a_threshold_knows_everything(embedding_model: Model, photos: Path, tmp_path: Path) -> None:
    replace(enrolled(embedding_model), threshold=None).write(tmp_path / "classes.json")
    lines = run_lines(embedding_model, photos, tmp_path, "--classes", str(tmp_path / "classes.json"))
    assert not any(line["unknown"] for line in lines)


@pytest.mark.parametrize("model_name", ["colors.onnx", "my model.onnx", "bundle.zip"])
def test_command_for_missing_classes_works_as_printed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = with_reference_frames(write_embedding_model(tmp_path / "colors.onnx"))
    if model_name.endswith(".zip"):
        write_bundle(Path(model_name), file)
    else:
        file.rename(model_name)
    arguments = [model_name, "--source", str(photos), "--classes", "new folder/mine.json", "--threads", "1"]
    assert main(arguments) == 2
    suggested = shlex.split(capsys.readouterr().err.split("`")[1])
    assert suggested[:3] == ["kdedge-run", "enroll", model_name]
    assert main([str(photos) if word == "SAMPLES" else word for word in suggested[1:]]) == 0
    assert main(arguments) == 0


def test_recording_of_unknown_frames_needs_a_threshold_of_the_classes(
    embedding_model: Model, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes, recorded = tmp_path / "my classes.json", tmp_path / "unknown.db"
    replace(enrolled(embedding_model), threshold=None).write(classes)
    arguments = [str(embedding_model.path), "--source", str(photos), "--record-unknown", str(recorded)]
    assert main([*arguments, "--classes", str(classes)]) == 2
    message = capsys.readouterr().err
    assert "Export" not in message
    suggested = shlex.split(message.split("`")[1].replace(" T ", " 0.5 "))
    assert suggested[0] == "kdedge-run" and main(suggested[1:]) == 0
    assert main([*arguments, "--classes", str(classes)]) == 0
    with FeedbackStore.open_to_read(recorded) as store:
        assert len(store) == 1


@pytest.mark.parametrize("command", [[], ["soak", "--duration", "30s"]])
def test_classes_that_cannot_be_used_are_errors(
    embedding_model: Model,
    model_path: Path,
    file: Path,
    photos: Path,
    tmp_path: Path,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = write_embedding_model(tmp_path / "other.onnx", identity="b" * 16)
    for path, classes, message in (
        (embedding_model.path, tmp_path / "none.json", "does not exist"),
        (other, file, "a different model from other.onnx"),
        (model_path, file, "--task embedding"),
    ):
        arguments = [*command[:1], str(path), *command[1:], "--source", str(photos), "--classes", str(classes)]
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_soak_answers_with_enrolled_classes(
    embedding_model: Model, file: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--source", str(photos), "--classes", str(file), "--duration", "10s"]
    main(["soak", str(embedding_model.path), *options])
    assert "predictions: rust × 1, leaf × 1, unknown × 1" in capsys.readouterr().err


def test_similarity_is_never_a_percentage(
    predictions: list[Prediction], progress: RunProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[Caption] = []
    monkeypatch.setattr(overlay, "draw_overlay", lambda rgb, *rest, **_: captions.append(rest[2]) or rgb)
    renderer = predictions[0].input.renderer(moving=False, fps=None)
    terminal = io.StringIO()
    for prediction in predictions:
        renderer.render(prediction, 0.6)
        progress.count(prediction)
        with StatusLine(terminal) as line:
            line.write(prediction, progress)
    red, _, blue = predictions
    assert (captions[0].label, captions[0].score, captions[0].share) == ("rust", f"{red.score:.2f}", red.score)
    assert captions[2].score == "" and captions[2].details[0] == f"nearest: rust {blue.score:.2f}"
    assert "%" not in terminal.getvalue() and f"rust {red.score:.2f}" in terminal.getvalue()
    shown = describe_prediction(1, blue)
    assert (shown["score_name"], shown["similarity"]) == ("similarity", round(blue.score, 5)) and "p" not in shown
    assert shown["ranking"][0] == {
        "label": "rust",
        "similarity": round(blue.score, 5),
        "text": f"{blue.score:.2f}",
        "share": 0.0,
    }
    text = exposition({}, red, progress, MachineMonitor().state(), 0.0, 0)
    assert f'kdedge_score{{label="rust"}} {red.score!r}' in text and "probability" not in text.lower()


def test_home_assistant_receives_similarities(predictions: list[Prediction]) -> None:
    state = json.loads(state_payload(predictions[2], datetime(2026, 1, 1, tzinfo=UTC)))
    assert state["similarity"] == round(predictions[2].score, 4) < 0 and "p" not in state and state["unknown"] is True
    assert [set(entry) for entry in state["ranking"]] == [{"label", "similarity"}] * 2
    payloads = DeviceTopics("porch", (None, "door"), "similarity").announcements("m.onnx")
    sensors = {topic.split("/")[3]: json.loads(payload) for topic, payload in payloads.items()}
    assert set(sensors) == {
        *("snapshot", "label", "similarity", "unknown", "door_label", "door_similarity", "door_unknown")
    }
    assert "unit_of_measurement" not in sensors["similarity"]
    assert "value_json.similarity " in sensors["similarity"]["value_template"]


@pytest.fixture
def swapped(embedding_model: Model, red_spot: np.ndarray) -> Iterator[tuple[list[Prediction], Controls]]:
    """Run on 60 images whose classes are replaced while it goes on, with a black-box explainer afterwards."""
    controls = Controls(embedding_model, LiveSettings(class_index=1))
    collected = Collector()

    class Swap(Collector):
        def write(self, prediction: Prediction, progress: RunProgress) -> None:
            if len(collected.predictions) == 20:
                controls.use_model(enrolled(embedding_model).apply_to(embedding_model))
            super().write(prediction, progress)

    images = [np.roll(red_spot, shift % 3, axis=2) for shift in range(60)]
    with Frames(*images) as source:
        run(embedding_model, source, [collected, Swap()], live_settings=controls)
    yield collected.predictions, controls


def test_no_frame_mixes_old_and_new_classes(swapped: tuple[list[Prediction], Controls]) -> None:
    predictions, controls = swapped
    names = [tuple(sorted(label for label, _ in prediction.ranking)) for prediction in predictions]
    first = names.index(("leaf", "rust"))
    assert 0 < first < 60 and set(names[:first]) == {("blue", "green", "red")} and set(names[first:]) == {names[first]}
    assert {prediction.explained for prediction in predictions[:first]} == {"green"}
    assert {prediction.explained for prediction in predictions[first:]} == {"rust", "leaf"}, "green no longer exists"
    assert (controls.class_name, controls.model.metadata.labels) == (None, ("rust", "leaf"))


def test_explained_class_and_method_survive_new_classes(embedding_model: Model, red_spot: np.ndarray) -> None:
    classes = enrolled(embedding_model)
    controls = Controls(classes.apply_to(embedding_model), LiveSettings())
    controls.change({"class": "leaf", "method": "occlusion"})
    front = replace(classes, classes=classes.add("new", unit(np.float32([[0, -1, 1]]))).classes[::-1])
    controls.use_model(front.apply_to(embedding_model))
    assert (controls.class_name, controls().class_index, controls.method) == ("leaf", 1, "occlusion")
    explainer = controls().explainer
    assert explainer is not None
    maps = [explainer(red_spot, index).map for index in range(3)]
    assert all(np.ptp(each) > 0 for each in maps), "every class is explained, also the new one"
    collected = Collector(stop=threading.Event())
    with Frames(red_spot) as source:
        run(embedding_model, source, [collected], live_settings=controls)
    (prediction,) = collected.predictions
    assert (prediction.explained, prediction.label) == ("leaf", "rust")


def test_classes_enrolled_before_the_first_frame_are_used(embedding_model: Model, red_spot: np.ndarray) -> None:
    classes = enrolled(embedding_model).add("a", unit(np.float32([[0, -1, 1]]))).add("b", unit(np.float32([[1, 1, 1]])))
    controls, collected = Controls(embedding_model, LiveSettings()), Collector()
    controls.use_model(classes.apply_to(embedding_model))
    controls.change({"class": "b"})  # the model of the run has three classes only
    with Frames(red_spot) as source:
        run(embedding_model, source, [collected], live_settings=controls)
    assert [(found.label, found.explained) for found in collected.predictions] == [("rust", "b")]


def test_recorded_frames_have_their_similarity(
    embedding_model: Model, file: Path, photos: Path, tmp_path: Path
) -> None:
    run_lines(embedding_model, photos, tmp_path, "--classes", str(file), "--record", str(tmp_path / "recorded"))
    lines = [json.loads(line) for line in (tmp_path / "recorded" / "frames.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and all("similarity" in line and "p" not in line for line in lines)
    assert [line["usefulness"] for line in lines][2] == 2.0, "a change, of which nothing is known"
