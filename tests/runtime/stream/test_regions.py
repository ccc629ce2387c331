"""Main loop with several regions of each frame."""

import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from toy_streams import Collector, Frames

from kdedge_runtime.errors import UsageError
from kdedge_runtime.explainers import MapEstimate
from kdedge_runtime.feedback import Verdict
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.modalities.image_region import parse_image_regions
from kdedge_runtime.model import Model
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.schedule import ExplainSchedule
from kdedge_runtime.stream.settings import LiveSettings, StreamSettings

LEFT_RIGHT = parse_image_regions(["left=0,0,0.5,1", "right=64,0,128,64"])
SETTINGS = StreamSettings(regions=LEFT_RIGHT)


def halves(left: str, right: str) -> np.ndarray:
    """Frame of 128 × 64 px with a square of one color in each half, at (40, 20) and (80, 48)."""
    colors = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    frame = np.full((64, 128, 3), 90, np.uint8)
    frame[12:28, 32:48] = colors[left]
    frame[40:56, 72:88] = colors[right]
    return frame


@pytest.fixture
def batches(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that the model predicts."""
    sizes: list[int] = []
    predict = Model.predict

    def counted(self: Model, samples: np.ndarray, *args: Any, **named: Any) -> Any:
        sizes.append(len(samples))
        return predict(self, samples, *args, **named)

    monkeypatch.setattr(Model, "predict", counted)
    return sizes


def test_regions_are_predicted_in_one_batch_per_frame(model: Model, batches: list[int]) -> None:
    sink = Collector()
    summary = run(model, Frames(halves("red", "blue"), halves("green", "red")), [sink], SETTINGS)
    assert batches == [2, 2, 2, 2], "two warm-up passes and two frames"
    found = [[(each.region_name, each.label) for each in frame.by_region] for frame in sink.predictions]
    assert found == [[("left", "red"), ("right", "blue")], [("left", "green"), ("right", "red")]]
    assert (summary.frames, summary.explained, summary.stages["inference"].count) == (2, 2, 2)
    assert dict(summary.labels) == {"left: red": 1, "right: blue": 1, "left: green": 1, "right: red": 1}


def test_region_equals_its_crop_as_a_frame(model: Model) -> None:
    whole, frame = Collector(), halves("red", "blue")
    run(model, Frames(frame), [whole], SETTINGS)
    for prediction, crop in zip(whole.predictions[0].by_region, (frame[:, :64], frame[:, 64:]), strict=True):
        alone = Collector()
        run(model, Frames(np.ascontiguousarray(crop)), [alone])
        (expected,) = alone.predictions
        assert dict(prediction.ranking) == pytest.approx(dict(expected.ranking))
        np.testing.assert_allclose(prediction.saliency_map, expected.saliency_map, rtol=1e-5)
        assert prediction.heat == expected.heat
        np.testing.assert_array_equal(prediction.image, crop)


def test_run_without_regions_is_one_prediction_of_the_frame(model: Model, batches: list[int]) -> None:
    sink = Collector()
    run(model, Frames(halves("red", "blue")), [sink])
    (prediction,) = sink.predictions
    assert batches == [1, 1, 1]
    assert (prediction.region, prediction.region_name, prediction.by_region) == (None, None, (prediction,))
    assert prediction.sample is prediction.frame.sample


def test_change_is_tracked_for_each_region(model: Model) -> None:
    frames = [halves("red", "blue"), halves("red", "blue"), halves("red", "green"), halves("blue", "green")]
    sink = Collector(wants_overlay=True)
    settings = replace(SETTINGS, cadence=ExplainSchedule("on-change"))
    summary = run(model, Frames(*frames), [sink], settings)
    assert [[each.skip_reason for each in frame.by_region] for frame in sink.predictions] == [
        [None, None],
        ["cadence", "cadence"],
        ["cadence", None],
        [None, "cadence"],
    ]
    assert [frame.overlay is not None for frame in sink.predictions] == [True, False, True, True]
    assert [each.saliency_map is not None for each in sink.predictions[2].by_region] == [False, True]
    assert (summary.explained, summary.skipped) == (3, {"cadence": 1})


def test_cadence_counts_frames_not_regions(model: Model) -> None:
    sink = Collector()
    run(model, Frames(*[halves("red", "blue")] * 4), [sink], replace(SETTINGS, cadence=ExplainSchedule("every", 2)))
    assert [frame.frame_skip_reason for frame in sink.predictions] == [None, "cadence", None, "cadence"]


def test_budget_skips_explanations_of_all_regions(model: Model) -> None:
    def slow(sample: np.ndarray, class_index: int, progress: object = None) -> MapEstimate:
        time.sleep(0.05)
        return MapEstimate(np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32), 1, 50.0)

    sink = Collector()
    settings, live = replace(SETTINGS, min_fps=50), LiveSettings(explainer=slow)
    summary = run(model, Frames(*[halves("red", "blue")] * 20), [sink], settings, live)
    assert len(sink.predictions) == 20
    assert [each.skip_reason for each in sink.predictions[1].by_region] == ["budget", "budget"]
    assert 1 <= summary.explained <= 6
    assert summary.stages["explanation"].count == 2 * summary.explained


def test_explainer_gets_each_region(model: Model) -> None:
    requests: list[tuple[int, int]] = []

    def guess(sample: np.ndarray, class_index: int, progress: object = None) -> MapEstimate:
        requests.append((int(sample[20, 40].argmax()), class_index))
        return MapEstimate(np.eye(4, dtype=np.float32), np.zeros((4, 4), np.float32), 1, 1.0)

    run(model, Frames(halves("green", "blue")), [Collector()], SETTINGS, LiveSettings(explainer=guess))
    assert [class_index for _, class_index in requests] == [1, 2]
    assert requests[0][0] == 1, "the sample of the left region"


def test_fixed_class_is_explained_in_every_region(model: Model) -> None:
    sink = Collector()
    run(model, Frames(halves("red", "blue")), [sink], SETTINGS, LiveSettings(class_index=1))
    assert [each.explained for each in sink.predictions[0].by_region] == ["green", "green"]


def test_file_with_a_fixed_batch_runs_region_by_region(model_path: Path, tmp_path: Path) -> None:
    graph = onnx.load(str(model_path))
    for value in (graph.graph.input[0], *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, str(tmp_path / "fixed.onnx"))
    sink, free = Collector(), Collector()
    run(Model.load(tmp_path / "fixed.onnx", threads=1), Frames(halves("red", "blue")), [sink], SETTINGS)
    run(Model.load(model_path, threads=1), Frames(halves("red", "blue")), [free], SETTINGS)
    for mine, other in zip(sink.predictions[0].by_region, free.predictions[0].by_region, strict=True):
        assert mine.label == other.label
        np.testing.assert_allclose(mine.saliency_map, other.saliency_map, rtol=1e-5)


def test_model_without_map_has_regions(write_model: Callable[..., Path]) -> None:
    sink = Collector(wants_overlay=True)
    run(Model.load(write_model(method="none")), Frames(halves("red", "blue")), [sink], SETTINGS)
    (frame,) = sink.predictions
    assert [(each.label, each.saliency_map) for each in frame.by_region] == [("red", None), ("blue", None)]
    assert frame.overlay.shape[1] == 2 * frame.overlay.shape[0]


def test_region_in_pixels_beyond_the_frame_ends_the_run(model: Model) -> None:
    settings = StreamSettings(regions=parse_image_regions(["door=0,0,129,64"]))
    with pytest.raises(UsageError, match="128 × 64"):
        run(model, Frames(halves("red", "blue")), [Collector()], settings)


def test_region_that_is_mostly_cropped_is_named_once(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    regions = parse_image_regions(["wide=0,0,1,0.4", "tall=0,0,0.2,1", "square=0,0,0.5,1", "nearly=0,0,0.9,1"])
    run(model, Frames(*[halves("red", "blue")] * 3), [Collector()], StreamSettings(regions=regions))
    (wide, tall) = (record.getMessage() for record in caplog.records)
    assert "wide (128 × 26 px)" in wide and "26 × 26 px" in wide
    assert "tall (26 × 64 px)" in tall and "26 × 26 px" in tall


@pytest.mark.parametrize("resize", ["squash", "letterbox"])
def test_region_that_is_seen_whole_is_not_warned_of(
    write_model: Callable[..., Path], resize: str, caplog: pytest.LogCaptureFixture
) -> None:
    spec = ImageInput(64, 64, mean=(0.0,) * 3, std=(1.0,) * 3, resize=resize)
    regions = parse_image_regions(["wide=0,0,1,0.3"])
    run(Model.load(write_model(spec=spec)), Frames(halves("red", "blue")), [], StreamSettings(regions=regions))
    assert not caplog.records


def test_feedback_stores_the_region(model: Model) -> None:
    sink, frame = Collector(), halves("red", "blue")
    run(model, Frames(frame), [sink], SETTINGS)
    right = sink.predictions[0].of_region("right")
    verdict = Verdict.of(right, "correct", model_sha256="ab" * 32)
    stored = np.asarray(Image.open(BytesIO(verdict.content)))
    assert (verdict.label, verdict.frame_name) == ("blue", "test-0 right")
    assert stored.shape == (64, 64, 3)
    assert np.abs(stored.astype(int) - frame[:, 64:]).mean() < 8
    assert sink.predictions[0].of_region(None) is sink.predictions[0]
