"""Familiarity at run time: unknown predictions, their display, counts and metrics."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from reference_files import with_metadata, with_reference_frames
from toy_streams import Collector

from kdedge_runtime.cli.main import main
from kdedge_runtime.devices import load_profile
from kdedge_runtime.diagnostics.device_checks import self_test
from kdedge_runtime.diagnostics.reference_frames import ReferenceFrames
from kdedge_runtime.errors import DataError, ModelFileError
from kdedge_runtime.familiarity import Familiarity
from kdedge_runtime.feedback import FeedbackStore, Verdict, write_class_folders
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import decode_prediction
from kdedge_runtime.server.live_view.machine_state import MachineMonitor
from kdedge_runtime.server.live_view.prometheus import exposition
from kdedge_runtime.server.live_view.run_state import describe_prediction, describe_run
from kdedge_runtime.sinks.mqtt.home_assistant import state_payload
from kdedge_runtime.sinks.unknown_frames import UnknownFrames
from kdedge_runtime.sources.image_source import ImageSource
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.schedule import ExplainSchedule
from kdedge_runtime.stream.settings import StreamSettings
from kdedge_runtime.stream.statistics import RunProgress

THRESHOLD = 0.36
"""Familiarity of the toy model is the mean of red, in [0, 1]: only the image with a red square exceeds it."""


def familiar(path: Path, threshold: float | None = THRESHOLD) -> Path:
    """Add the output `familiarity` to a color model."""
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Split", ["pooled"], ["red", "green_", "blue_"], axis=1, num_outputs=3))
    model.graph.node.append(helper.make_node("Squeeze", ["red", "axes_k"], ["familiarity"]))
    model.graph.output.append(helper.make_tensor_value_info("familiarity", TensorProto.FLOAT, ["N"]))
    onnx.save(model, path)
    return with_metadata(path, familiarity=Familiarity("energy", threshold, known=100))


@pytest.fixture
def familiar_model(write_model: Callable[..., Path]) -> Model:
    return Model.load(familiar(write_model()), threads=1)


def test_predictions_below_the_threshold_are_unknown(familiar_model: Model, photos: Path) -> None:
    sink = Collector()
    with ImageSource(photos) as source:
        summary = run(familiar_model, source, [sink])
    assert [found.unknown for found in sink.predictions] == [False, True, True]
    assert [found.answer for found in sink.predictions] == ["red", "unknown", "unknown"]
    assert [found.label for found in sink.predictions] == ["red", "green", "blue"]
    assert [found.explained for found in sink.predictions] == ["red", "green", "blue"], "map of the nearest class"
    assert sink.predictions[0].familiarity is not None and sink.predictions[0].familiarity > THRESHOLD
    assert (summary.unknown, dict(summary.labels)) == (2, {"red": 1})
    assert summary.as_record()["unknown"] == 2 and "unknown × 2" in summary.table()


def test_unknown_can_be_turned_off(familiar_model: Model, photos: Path) -> None:
    sink = Collector()
    with ImageSource(photos) as source:
        summary = run(familiar_model, source, [sink], StreamSettings(unknown=False))
    assert [found.answer for found in sink.predictions] == ["red", "green", "blue"]
    assert all(found.familiarity is not None for found in sink.predictions) and summary.unknown == 0


def test_without_a_threshold_nothing_is_unknown(write_model: Callable[..., Path], red_spot: np.ndarray) -> None:
    model = Model.load(familiar(write_model(), None), threads=1)
    found = model.predict(red_spot[None])
    assert found.familiarity is not None and found.unknown is not None and not found.unknown.any()


def test_file_without_familiarity(model: Model, red_spot: np.ndarray) -> None:
    found = model.predict(red_spot[None])
    assert found.familiarity is None and found.unknown is None
    prediction = decode_prediction(model, Frame(0, red_spot, 0.0, "spot"), found)
    assert (prediction.familiarity, prediction.unknown, prediction.answer) == (None, False, "red")


def test_file_that_lacks_the_stated_output_is_rejected(write_model: Callable[..., Path]) -> None:
    with pytest.raises(ModelFileError, match="no output familiarity"):
        Model.load(with_metadata(write_model(), familiarity=Familiarity("energy")))


def test_familiarity_that_is_not_finite_is_an_error(familiar_model: Model, red_spot: np.ndarray) -> None:
    found = replace(familiar_model.predict(red_spot[None]), familiarity=np.float32([np.nan]))
    with pytest.raises(ModelFileError, match="non-finite"):
        decode_prediction(familiar_model, Frame(0, red_spot, 0.0, "spot"), found)


@pytest.mark.parametrize(
    "damage",
    [
        "8",
        "{}",
        '{"method": 1}',
        '{"method": "energy", "threshold": "low"}',
        '{"method": "energy", "threshold": NaN}',
        '{"method": "energy", "known": -1}',
        '{"method": "energy", "known": 1.5}',
        '{"method": "energy", "why_not": 3}',
    ],
)
def test_damaged_metadata_is_rejected(familiar_model: Model, damage: str) -> None:
    props = familiar_model.metadata.to_props() | {"kdedge.familiarity": damage}
    with pytest.raises(ModelFileError, match="damaged"):
        Metadata.from_props(props)


def test_metadata_of_earlier_files_has_none(familiar_model: Model) -> None:
    props = familiar_model.metadata.to_props()
    assert Metadata.from_props(props) == familiar_model.metadata
    del props["kdedge.familiarity"]
    assert Metadata.from_props(props).familiarity is None


def test_self_test_covers_familiarity(write_model: Callable[..., Path]) -> None:
    path = with_reference_frames(familiar(write_model()))
    model = Model.load(path, threads=1)
    reference = ReferenceFrames.of(model)
    assert reference.familiarity is not None and reference.familiarity.shape == (4,)
    checks = {check.name: check.passed for check in self_test(model, load_profile("generic"))}
    assert checks["familiarity"] is True
    wrong = onnx.load(path)
    (squeeze,) = (node for node in wrong.graph.node if node.op_type == "Squeeze")
    squeeze.input[0] = "green_"
    onnx.save(wrong, path)
    checks = {check.name: check.passed for check in self_test(Model.load(path, threads=1), load_profile("generic"))}
    assert checks["familiarity"] is False and checks["logits"] is True


def test_unknown_frames_are_changes_and_have_no_confidence(familiar_model: Model, photos: Path) -> None:
    for cadence, explained in (("on-change", [True, True, False]), ("low-confidence=0.01", [False, True, True])):
        sink = Collector()
        with ImageSource(photos) as source:
            run(familiar_model, source, [sink], StreamSettings(cadence=ExplainSchedule.parse(cadence)))
        assert [found.saliency_map is not None for found in sink.predictions] == explained


def test_overlay_and_metrics(familiar_model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdedge_runtime.drawing import overlay

    captions = []
    drawn = overlay.draw_overlay

    def record(*arguments: object, **more: object) -> object:
        captions.append(arguments[3])
        return drawn(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(overlay, "draw_overlay", record)
    sink = Collector(wants_overlay=True)
    with ImageSource(photos) as source:
        run(familiar_model, source, [sink])
        progress = RunProgress(source)
    assert [(caption.label, caption.score == "") for caption in captions] == [
        ("red", False),
        ("unknown", True),
        ("unknown", True),
    ]
    assert captions[1].details[0].startswith("nearest: green ")
    for found in sink.predictions:
        progress.count(found)
    last = sink.predictions[-1]
    text = exposition({}, last, progress, MachineMonitor().state(), 0.0, 0)
    assert "kdedge_unknown_total 2.0" in text
    assert 'kdedge_predictions_total{label="red"} 1.0' in text and 'label="green"} 1.0' not in text
    assert f"kdedge_familiarity {last.familiarity!r}" in text
    assert describe_run(progress)["unknown_frames"] == 2
    assert describe_prediction(1, last)["unknown"] is True


def test_regions_are_unknown_each(familiar_model: Model, red_spot: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    Image.fromarray(np.concatenate([red_spot, red_spot[..., ::-1]], axis=1)).save(folder / "wide.png")
    regions = familiar_model.metadata.input.parse_regions(["left=0,0,0.5,1.0", "right=0.5,0,1.0,1.0"])
    sink = Collector()
    with ImageSource(folder) as source:
        summary = run(familiar_model, source, [sink], StreamSettings(regions=regions))
    (found,) = sink.predictions
    assert [each.unknown for each in found.by_region] == [False, True]
    assert (summary.unknown, summary.labels) == (1, (("left: red", 1),))
    states = [json.loads(state_payload(each, datetime(2026, 1, 1, tzinfo=UTC))) for each in found.by_region]
    assert [(state["label"], state["unknown"]) for state in states] == [("red", False), ("blue", True)]
    left, right = describe_prediction(1, found)["regions"]
    assert (left["label"], left["p"]) == ("red", round(found.by_region[0].score, 5))
    assert (right["label"], right["p"]) == ("unknown", None)


def test_command_line(familiar_model: Model, photos: Path, tmp_path: Path) -> None:
    for option, expected in (((), [False, True, True]), (("--no-unknown",), [False, False, False])):
        out = tmp_path / "out.jsonl"
        assert main([str(familiar_model.path), "--source", str(photos), "--jsonl", str(out), *option]) == 0
        *lines, last = (json.loads(line) for line in out.read_text().splitlines())
        assert [line["unknown"] for line in lines] == expected
        assert all(0 <= line["familiarity"] <= 1 for line in lines)
        assert last["summary"]["unknown"] == sum(expected)


def test_unknown_frames_are_recorded_at_intervals(familiar_model: Model, photos: Path, tmp_path: Path) -> None:
    now = [0.0]
    sink = UnknownFrames(tmp_path / "unknown.db", 10, "0" * 64, clock=lambda: now[0])
    collected = Collector()
    with ImageSource(photos) as source:
        run(familiar_model, source, [collected])
        progress = RunProgress(source)
    red, green, blue = collected.predictions
    with sink:
        for at_s, prediction in ((0, green), (5, blue), (11, blue), (12, red), (13, green), (25, red), (26, green)):
            now[0] = at_s
            sink.write(prediction, progress)
    with FeedbackStore.open_to_read(tmp_path / "unknown.db") as store:
        found = list(store)
        assert write_class_folders(store, None, tmp_path / "unknown").unknown == 2, "the same image once"
        with pytest.raises(DataError):
            write_class_folders(store, tmp_path / "classes")
    assert [(each.judgment, each.label, each.true_label) for each in found] == [
        ("unknown", "green", None),
        ("unknown", "blue", None),
        ("unknown", "green", None),
    ]
    assert len(list((tmp_path / "unknown").glob("unknown-*.jpg"))) == 2


def test_flicker_between_known_and_unknown_is_recorded_at_intervals(
    familiar_model: Model, photos: Path, tmp_path: Path
) -> None:
    now = [0.0]
    collected = Collector()
    with ImageSource(photos) as source:
        run(familiar_model, source, [collected])
        progress = RunProgress(source)
    red, green, _ = collected.predictions
    with UnknownFrames(tmp_path / "unknown.db", 10, "0" * 64, clock=lambda: now[0]) as sink:
        for number in range(300):  # 20 seconds at 15 frames per second
            now[0] = number / 15
            sink.write((green, red)[number % 2], progress)
    with FeedbackStore.open_to_read(tmp_path / "unknown.db") as store:
        assert len(store) == 2


def test_record_unknown_on_the_command_line(
    familiar_model: Model, model_path: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--source", str(photos), "--record-unknown", str(tmp_path / "unknown.db")]
    assert main([str(familiar_model.path), *options]) == 0
    with FeedbackStore.open_to_read(tmp_path / "unknown.db") as store:
        assert len(store) == 1
    assert main([str(model_path), *options]) == 2 and "threshold" in capfd.readouterr().err
    assert main([str(familiar_model.path), *options, "--no-unknown"]) == 2
    assert "--no-unknown" in capfd.readouterr().err


def test_exporting_nothing_unknown_is_an_error(model: Model, red_spot: np.ndarray, tmp_path: Path) -> None:
    prediction = decode_prediction(model, Frame(0, red_spot, 0.0, "spot"), model.predict(red_spot[None]))
    entries = [Verdict.of(prediction, judgment, model_sha256="0" * 64) for judgment in ("unknown", "correct")]
    with pytest.raises(DataError, match="unknown"):
        write_class_folders(entries, None, tmp_path / "unknown")  # the later entry counts
