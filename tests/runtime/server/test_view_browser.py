"""Live view in a browser."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser, open_page
from PIL import Image
from toy_predictions import in_regions
from view_client import ABOUT, HERE, Run, a_prediction

from kdedge_runtime.feedback import FeedbackStore
from kdedge_runtime.modalities.image_region import parse_image_regions
from kdedge_runtime.model import Model
from kdedge_runtime.server import AccessPolicy, Address
from kdedge_runtime.server.live_view import Controls, Feedback, LiveView
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.settings import StreamSettings
from kdedge_runtime.stream.statistics import RunProgress

DESK = {"viewport": {"width": 1280, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


class Spots:
    """Live source: a red square on gray, whose position encodes the frame number."""

    name, live, fps, expected, dropped, unreadable, reconnects = "spots", True, 25.0, None, 0, 0, 0

    def __init__(self, ended: threading.Event) -> None:
        self._ended = ended

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while not self._ended.wait(0.04):
            rgb = np.full((180, 320, 3), 90, np.uint8)
            rgb[70:110, 110 + index % 60 : 150 + index % 60] = (255, 0, 0)
            yield Frame(index, rgb, time.monotonic(), f"spots-{index}")
            index += 1


@pytest.fixture
def watched(model: Model, controls: Controls, store: FeedbackStore) -> Iterator[LiveView]:
    """Serve a view of an ongoing run."""
    ended = threading.Event()
    with LiveView(HERE, ABOUT, controls, Feedback(store, "cd" * 32)) as view:
        thread = threading.Thread(target=run, args=(model, Spots(ended), [view], None, controls, ended))
        thread.start()
        yield view
        ended.set()
        thread.join()


def _until(true: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def _live(chromium: Any, url: str, **context: Any) -> Any:
    page = open_page(chromium, url, **context)
    page.wait_for_selector("#state.live")
    page.wait_for_selector("#pause:enabled")
    return page


def _picture(page: Any) -> np.ndarray:
    """Return the image on the page, uint8 RGB `[H, W, 3]`."""
    content = page.evaluate(
        """async () => {
            const content = await (await import("/view.js")).newest().arrayBuffer();
            return Array.from(new Uint8Array(content));
        }"""
    )
    return np.asarray(Image.open(BytesIO(bytes(content))))


def test_page_shows_the_run(chromium: Any, watched: LiveView) -> None:
    page = _live(chromium, watched.url, **DESK)
    assert page.text_content("#label") == "red"
    assert "The heat map shows the evidence for red" in page.text_content("#why")
    assert page.text_content("#about") == "colour.onnx on camera 0"
    assert page.input_value("#method") == "cam"
    page.wait_for_selector("#stages tr")
    assert [row.text_content() for row in page.query_selector_all("#stages td:first-child")][:3] == [
        "wait",
        "preprocess",
        "inference",
    ]
    _until(lambda: page.query_selector_all("#history path[style]"))
    first = _picture(page)
    _until(lambda: (_picture(page) != first).any())
    assert page.problems == []


def test_opacity_and_class_affect_the_stream(chromium: Any, watched: LiveView, controls: Controls) -> None:
    page = _live(chromium, watched.url, **DESK)

    def heat() -> float:
        """Return the heat brightness on the square, which has no green itself."""
        rows = _picture(page)[80:100, 80:240].astype(int)
        return float(rows[:, rows[..., 0].mean(axis=0) > 150, 1].mean())

    assert heat() > 60
    page.fill("#opacity", "0")
    _until(lambda: controls().opacity == 0 and heat() < 20)
    page.focus("#opacity")
    page.keyboard.press("End")
    _until(lambda: controls().opacity == 1 and heat() > 180)

    page.click("#explain")
    page.click("dialog .choices button:text-is('blue')")
    _until(lambda: "No evidence for blue in this sample" in page.text_content("#why"))
    _until(lambda: heat() < 20)
    page.click("#explain")
    page.click("dialog .choices button:text-is('top-1 class')")
    _until(lambda: heat() > 180)
    assert controls.class_name is None
    assert page.problems == []


def test_method_can_be_selected(chromium: Any, watched: LiveView, controls: Controls) -> None:
    page = _live(chromium, watched.url, **DESK)
    page.select_option("#method", "occlusion")
    _until(lambda: controls.method == "occlusion")
    page.wait_for_selector("#stages td:has-text('explanation')")
    assert page.problems == []


def test_feedback_stores_the_displayed_frame(chromium: Any, watched: LiveView, store: FeedbackStore) -> None:
    page = _live(chromium, watched.url, **DESK)
    page.click("#pause")
    page.wait_for_selector("#state.paused")
    before = _picture(page)
    time.sleep(0.5)
    assert (_picture(page) == before).all(), "the image is paused"
    page.click("[data-judgment=correct]")
    page.wait_for_selector("#message.good:has-text('red is correct')")
    page.click("[data-judgment=incorrect]")
    page.wait_for_selector("#message.good:has-text('red is wrong')")
    right, wrong = store
    assert (right.judgment, wrong.judgment) == ("correct", "incorrect")
    assert right.frame_name == wrong.frame_name
    stored = np.asarray(Image.open(BytesIO(right.content))).astype(int)
    below = slice(90, 108)  # in the square, above the caption; the visible box is outlined at 70 and 249
    edges = [np.flatnonzero(image[below, 80:240].mean(axis=0)[:, 0] > 150)[[0, -1]] for image in (stored, before)]
    assert np.abs(edges[0] - edges[1]).max() <= 2
    page.click("#pause")
    page.wait_for_selector("#state.live")
    _until(lambda: (_picture(page) != before).any())
    assert page.problems == []


def test_correct_class_can_be_searched_or_typed(chromium: Any, watched: LiveView, store: FeedbackStore) -> None:
    page = _live(chromium, watched.url, **DESK)
    page.click("[data-judgment=relabeled]")
    page.wait_for_selector("dialog input:focus")
    assert page.get_attribute("#pause", "aria-pressed") == "true", "the image is paused during the dialog"
    page.keyboard.type("BLU")
    page.keyboard.press("Enter")
    page.wait_for_selector("#message:has-text('red should be blue')")
    page.wait_for_selector("#state.live")
    page.click("[data-judgment=relabeled]")
    page.fill("dialog input", "<i>violet</i>")
    page.click("dialog .choices button")
    page.wait_for_selector("#message:has-text('<i>violet</i>')")
    page.click("[data-judgment=relabeled]")
    page.click("dialog button:text-is('Cancel')")
    page.wait_for_selector("#state.live")
    assert [verdict.true_label for verdict in store] == ["blue", "<i>violet</i>"]
    assert page.problems == []


@pytest.mark.parametrize("context", [DESK, PHONE], ids=["desk", "phone"])
def test_box_can_be_drawn(chromium: Any, watched: LiveView, store: FeedbackStore, context: dict[str, Any]) -> None:
    page = _live(chromium, watched.url, **context)
    page.click("[data-judgment=wrong_region]")
    page.wait_for_selector("#drawing:visible")
    assert page.is_disabled("#box-store"), "disabled without a box"
    frame = page.locator("#image").bounding_box()

    def to(x: float, y: float) -> None:
        page.mouse.move(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"])

    to(0.75, 0.8)
    page.mouse.down()
    to(0.5, 0.5)
    to(0.25, 0.3)
    page.mouse.up()
    page.click("#box-store")
    page.wait_for_selector("#message.good:has-text('wrong region for red')")
    page.wait_for_selector("#state.live")
    (verdict,) = store
    assert verdict.judgment == "wrong_region"
    np.testing.assert_allclose(verdict.box, (0.25, 0.3, 0.75, 0.8), atol=0.01)
    assert page.is_hidden("#drawing")
    page.click("[data-judgment=wrong_region]")
    page.click("#box-cancel")
    page.wait_for_selector("#state.live")
    assert len(store) == 1
    assert page.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone(chromium: Any, watched: LiveView, scheme: str) -> None:
    page = _live(chromium, watched.url, color_scheme=scheme, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for button in page.query_selector_all("button:visible"):
        assert button.bounding_box()["height"] >= 44, "large enough for touch"
    page.tap("[data-judgment=correct]")
    page.wait_for_selector("#message.good")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(246, 245, 248)", "dark": "rgb(18, 17, 23)"}[scheme]


def test_page_reports_end_of_run_and_reconnects(chromium: Any, model: Model, controls: Controls) -> None:
    ended = threading.Event()
    with LiveView(HERE, ABOUT, controls) as view:
        thread = threading.Thread(target=run, args=(model, Spots(ended), [view], None, controls, ended))
        thread.start()
        page = _live(chromium, view.url, **DESK)
        assert page.is_hidden("#feedback"), "no buttons without a store"
        ended.set()
        thread.join()
        page.wait_for_selector("#state.stalled")
    page.wait_for_selector("#state.lost")
    port = int(page.url.rstrip("/").rpartition(":")[2])
    ended.clear()
    with LiveView(AccessPolicy.at(Address("127.0.0.1", port)), ABOUT, controls) as view:
        thread = threading.Thread(target=run, args=(model, Spots(ended), [view], None, controls, ended))
        thread.start()
        before = _picture(page)
        page.wait_for_selector("#state.live")
        _until(lambda: (_picture(page) != before).any())
        ended.set()
        thread.join()


def test_token_can_be_entered(chromium: Any, model: Model, controls: Controls) -> None:
    ended = threading.Event()
    token = "t" * 20
    with LiveView(AccessPolicy(Address("127.0.0.1", 0), token), ABOUT, controls) as view:
        thread = threading.Thread(target=run, args=(model, Spots(ended), [view], None, controls, ended))
        thread.start()
        page = open_page(chromium, view.url.partition("?")[0], **PHONE)
        assert "Token required" in page.text_content("h1")
        page.fill("#token", token)
        page.click("button:text-is('Open')")
        page.wait_for_selector("#state.live")
        assert "token" not in page.url, "removed from the URL"
        assert page.evaluate("document.cookie") == "", "not visible to scripts"
        ended.set()
        thread.join()


def test_hidden_tab_requests_no_images(chromium: Any, watched: LiveView, tmp_path: Path) -> None:
    def is_drawn_for() -> bool:
        """Return True if images are requested several times a second."""
        return any(watched.wants_overlay or time.sleep(0.02) for _ in range(20))

    page = _live(chromium, watched.url, **DESK)
    assert is_drawn_for()
    page.close()
    _until(lambda: not is_drawn_for())


def test_long_displayed_image_accepts_feedback(
    chromium: Any, controls: Controls, store: FeedbackStore, progress: RunProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulate `--cadence on-change` without changes: frames are predicted but not drawn."""
    monkeypatch.setattr("kdedge_runtime.server.live_view.view_server.TIMEOUT_S", 0.3)
    ended, drawn = threading.Event(), []
    with LiveView(HERE, ABOUT, controls, Feedback(store, "cd" * 32)) as view:

        def predictions() -> None:
            for index in itertools.count():
                if ended.wait(0.04):
                    return
                prediction = a_prediction(index)
                if view.wants_overlay and not drawn:
                    prediction = replace(prediction, overlay=prediction.frame.sample)
                    drawn.append(prediction.frame.name)
                progress.count(prediction)
                view.write(prediction, progress)

        thread = threading.Thread(target=predictions)
        thread.start()
        try:
            page = _live(chromium, view.url, **DESK)
            page.wait_for_timeout(1500)
            page.click("[data-judgment=correct]:enabled")
            page.wait_for_selector("#message.good")
        finally:
            ended.set()
            thread.join()
    assert [verdict.frame_name for verdict in store] == drawn


def test_region_can_be_selected(
    chromium: Any, model: Model, controls: Controls, store: FeedbackStore, tmp_path: Path
) -> None:
    settings = StreamSettings(regions=parse_image_regions(["left=0,0,0.3,1", "spot=0.3,0,0.9,1"]))
    ended = threading.Event()
    with LiveView(HERE, ABOUT, controls, Feedback(store, "cd" * 32)) as view:
        thread = threading.Thread(target=run, args=(model, Spots(ended), [view], settings, controls, ended))
        thread.start()
        try:
            page = _live(chromium, view.url, **DESK)
            page.wait_for_selector("#regions button[aria-pressed=true]")
            assert [button.get_attribute("data-region") for button in page.query_selector_all("#regions button")] == [
                "left",
                "spot",
            ]
            before = page.text_content("#p")
            page.click("#regions button:has-text('spot')")
            _until(lambda: page.text_content("#p") != before)
            assert page.get_attribute("#regions button:has-text('spot')", "aria-pressed") == "true"
            page.click("#verdicts [data-judgment=correct]")
            _until(lambda: len(store) == 1)
            page.click("#verdicts [data-judgment=wrong_region]")
            page.wait_for_selector("#box-bar:visible")
            assert _picture(page).shape == (180, 192, 3), "the region without its map"
            assert page.problems == []
        finally:
            ended.set()
            thread.join()
    (verdict,) = store
    assert (verdict.label, verdict.frame_name.split()[-1]) == ("red", "spot")


def test_unknown_region_has_no_percentage(
    chromium: Any, controls: Controls, store: FeedbackStore, progress: RunProgress
) -> None:
    known = in_regions(a_prediction(0), door="open", window="shut")
    (window,) = known.further
    prediction = replace(known, further=(replace(window, unknown=True),))
    with LiveView(HERE, ABOUT, controls, Feedback(store, "cd" * 32)) as view, Run(view, progress, lambda _: prediction):
        page = _live(chromium, view.url, **DESK)
        page.wait_for_selector("#regions button[aria-pressed=true]")
        shown = [
            [part.text_content() for part in button.query_selector_all("span")]
            for button in page.query_selector_all("#regions button")
        ]
        assert shown == [["door", "open", "75%"], ["window", "unknown", ""]]
        assert page.problems == []


def test_selected_region_is_dropped_if_the_next_run_has_none(
    chromium: Any, controls: Controls, store: FeedbackStore, progress: RunProgress
) -> None:
    current = in_regions(a_prediction(0), door="open", window="shut")
    with LiveView(HERE, ABOUT, controls, Feedback(store, "cd" * 32)) as view, Run(view, progress, lambda _: current):
        page = _live(chromium, view.url, **DESK)
        page.click("#regions button:has-text('window')")
        page.wait_for_selector("#label:text-is('shut')")
        current = a_prediction(0)
        page.wait_for_selector("#label:text-is('<b>stop</b>')")
        assert page.is_hidden("#regions")
