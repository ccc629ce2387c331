"""Live view over HTTP: feedback on predictions."""

import json
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_predictions import in_regions
from view_client import ABOUT, HERE, MAP, Run, a_prediction, get, post, shown_now

from kdedge_runtime.feedback import FeedbackStore
from kdedge_runtime.server.live_view import Controls, Feedback, LiveView
from kdedge_runtime.server.live_view.sent_frames import SentFrames
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.statistics import RunProgress


def test_feedback_refers_to_the_displayed_frame(view: LiveView, progress: RunProgress, store: FeedbackStore) -> None:
    with Run(view, progress):
        serial = shown_now(view)
        time.sleep(0.2)  # the run continues
        status, prediction = post(view, "/feedback", {"serial": serial, "judgment": "correct"})
    assert (status, prediction) == (200, {"label": "<b>stop</b>", "kept": 1})
    (verdict,) = store
    assert verdict.frame_name == f"#{serial - 1}"
    assert (verdict.judgment, verdict.true_label, verdict.explained) == ("correct", "<b>stop</b>", "tree")
    assert verdict.model_sha256 == "ab" * 32
    np.testing.assert_array_equal(verdict.saliency_map, MAP)
    assert np.asarray(Image.open(BytesIO(verdict.content))).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("entry", "judgment", "label", "box"),
    [
        ({"judgment": "incorrect"}, "incorrect", None, None),
        ({"judgment": "relabeled", "label": " a <new> class "}, "relabeled", "a <new> class", None),
        ({"judgment": "wrong_region", "box": [0.1, 0.2, 0.5, 1]}, "wrong_region", "<b>stop</b>", (0.1, 0.2, 0.5, 1.0)),
    ],
)
def test_every_judgment_is_stored(
    view: LiveView,
    progress: RunProgress,
    store: FeedbackStore,
    entry: dict,
    judgment: str,
    label: str | None,
    box: object,
) -> None:
    with Run(view, progress):
        assert post(view, "/feedback", {"serial": shown_now(view)} | entry)[0] == 200
    (verdict,) = store
    assert (verdict.judgment, verdict.true_label, verdict.box) == (judgment, label, box)


@pytest.mark.parametrize(
    "entry",
    [
        {"judgment": "maybe"},
        {"judgment": ["correct"]},
        {},
        {"judgment": "relabeled"},
        {"judgment": "relabeled", "label": "x" * 500},
        {"judgment": "relabeled", "label": 3},
        {"judgment": "relabeled", "label": "\ud800"},
        {"judgment": "wrong_region", "box": [0, 0, 2, 1]},
        {"judgment": "wrong_region", "box": [0, 0, 1]},
        {"judgment": "wrong_region", "box": [0, 0, 1, 10**400]},
        {"judgment": "wrong_region", "box": "all"},
        {"judgment": "correct", "serial": "1"},
        {"judgment": "correct", "serial": 10**9},
    ],
)
def test_invalid_feedback_is_rejected(view: LiveView, progress: RunProgress, store: FeedbackStore, entry: dict) -> None:
    with Run(view, progress):
        status, prediction = post(view, "/feedback", {"serial": shown_now(view)} | entry)
    assert status == 400
    assert prediction["error"]
    assert len(store) == 0


def test_held_frame_is_kept(view: LiveView, progress: RunProgress, store: FeedbackStore) -> None:
    with Run(view, progress):
        serial = shown_now(view)
        status, prediction = post(view, "/pause", {"serial": serial})
        assert (status, prediction["serial"], prediction["label"]) == (200, serial, "<b>stop</b>")
        body = get(view, f"/frame.jpg?serial={serial}")[1]
        assert np.asarray(Image.open(BytesIO(body))).shape == (48, 64, 3)
    shown = SentFrames()
    large = replace(a_prediction(0), frame=Frame(0, np.zeros((2000, 2000, 3), np.uint8), 0.0, ""))
    for number in range(1, 40):
        shown.add(number, large)
        shown.hold(number)
    assert [number for number in range(1, 40) if shown.find(number)] == list(range(32, 40)), "memory is bounded"
    assert get(view, "/frame.jpg?serial=999999")[0].status == 410


def test_feedback_without_store_is_rejected(controls: Controls, progress: RunProgress) -> None:
    with LiveView(HERE, ABOUT, controls) as view, Run(view, progress):
        assert json.loads(get(view, "/metrics.json")[1])["feedback"] is None
        status, prediction = post(view, "/feedback", {"serial": shown_now(view), "judgment": "correct"})
        assert status == 400
        assert "--feedback FILE" in prediction["error"]


def test_unusable_store_is_reported_and_view_continues(
    controls: Controls, progress: RunProgress, tmp_path: Path
) -> None:
    (tmp_path / "feedback.sqlite").write_bytes(b"damaged" * 1000)
    with (
        FeedbackStore.open(tmp_path / "feedback.sqlite", cap_mb=10) as store,
        LiveView(HERE, ABOUT, controls, Feedback(store, "ab" * 32)) as view,
        Run(view, progress) as run,
    ):
        serial = shown_now(view)
        status, prediction = post(view, "/feedback", {"serial": serial, "judgment": "correct"})
        assert status == 500
        assert "feedback.sqlite" in prediction["error"]
        assert json.loads(get(view, "/metrics.json")[1])["feedback"] == {"kept": None}
        before = run.written
        time.sleep(0.2)
        assert run.written > before


def test_regions_have_their_own_figures_frames_and_feedback(
    view: LiveView, progress: RunProgress, store: FeedbackStore
) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, 32:] = 200
    plain = replace(a_prediction(0), frame=Frame(0, frame, time.monotonic(), "#0"), overlay=frame)
    prediction = in_regions(plain, door="open", window="shut")
    progress.count(prediction)
    view.write(prediction, progress)
    serial = shown_now(view)
    first = json.loads(get(view, f"/metrics.json?serial={serial}")[1])
    second = json.loads(get(view, f"/metrics.json?serial={serial}&region=window")[1])
    assert (first["region"], first["label"], second["region"], second["label"]) == ("door", "open", "window", "shut")
    assert first["regions"] == [
        {"name": "door", "label": "open", "p": 0.75, "text": "75%"},
        {"name": "window", "label": "shut", "p": 0.5, "text": "50%"},
    ]
    assert ({point[1] for point in first["history"]}, {point[1] for point in second["history"]}) == (
        {"open"},
        {"shut"},
    )
    response, body = get(view, f"/frame.jpg?serial={serial}&region=window")
    crop = np.asarray(Image.open(BytesIO(body)))
    assert (response.status, crop.shape) == (200, (48, 32, 3))
    assert crop.mean() == pytest.approx(200, abs=2)
    assert post(view, "/pause", {"serial": serial, "region": "window"})[1]["label"] == "shut"
    entry = {"serial": serial, "judgment": "correct"}
    assert post(view, "/feedback", entry | {"region": 1})[0] == 400
    assert post(view, "/feedback", entry | {"region": "window"})[1]["label"] == "shut"
    (verdict,) = store
    assert (verdict.label, verdict.frame_name) == ("shut", "#0 window")
