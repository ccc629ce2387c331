"""Parts of the live view that depend on samples and task."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import browser, open_page
from view_client import ABOUT, HERE, Run, a_prediction, get, post, shown_now

from kdedge_runtime.drawing.heatmap import HeatStats
from kdedge_runtime.feedback import FeedbackStore
from kdedge_runtime.modalities.table_column import TableColumn, row_sample
from kdedge_runtime.modalities.tabular import TabularInput
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.server.live_view import Controls, Feedback, LiveView
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.settings import LiveSettings
from kdedge_runtime.stream.statistics import RunProgress

TABLE = TabularInput(
    (
        TableColumn("age", "numeric", "years", (18.0, 80.0), (), (0.4,)),
        TableColumn("job", "categorical", categories=("clerk", "pilot"), reference=(0.5, 0.5)),
    )
)
MAP = np.array([[1.5, -0.5]], np.float32)


def credit(index: int) -> Prediction:
    row = row_sample(("job", "age"), ("pilot", "31"))
    return Prediction(
        frame=Frame(index, row, time.monotonic(), f"row {index + 1}"),
        ranking=(("good", 0.75), ("bad", 0.25)),
        explained="good",
        saliency_map=MAP,
        heat=HeatStats(None, None, 0.5, 0.5),
        task="classify",
        input=TABLE,
        age_ms=1.0,
    )


def wage(index: int) -> Prediction:
    return replace(credit(index), ranking=(("wage", 120.0 + index % 2),), explained="wage", task="regression")


@pytest.fixture
def view_of(model: Model, progress: RunProgress, store: FeedbackStore) -> Iterator[Callable[..., LiveView]]:
    """Return a function that serves a run of a table for classes or a value."""
    opened: list[Any] = []

    def serve(predict: Callable[[int], Prediction], every_s: float = 0.01) -> LiveView:
        first = predict(0)
        labels = tuple(label for label, _ in first.ranking)
        metadata = replace(model.metadata, input=first.input, task=first.task, labels=labels)
        controls = Controls(replace(model, metadata=metadata), LiveSettings())
        view = LiveView(HERE, ABOUT, controls, Feedback(store, "ab" * 32))
        for each in (view, Run(view, progress, predict, every_s)):
            each.__enter__()
            opened.append(each)
        return view

    yield serve
    for each in reversed(opened):
        each.__exit__(None, None, None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


def shown_page(chromium: Any, view: LiveView) -> Any:
    page = open_page(chromium, view.url)
    page.wait_for_selector("#state.live")
    page.wait_for_selector("#pause:enabled")
    return page


def test_page_of_a_table_has_no_parts_of_images(
    chromium: Any, view_of: Callable[..., LiveView], store: FeedbackStore
) -> None:
    page = shown_page(chromium, view_of(credit))
    hidden = ("#verdict-wrong-region", "#opacity-part", ".ramp")
    assert not [part for part in hidden if page.is_visible(part)]
    assert page.is_visible("#verdict-correct") and page.is_visible("#explain-part")
    assert "blue bars against" in page.text_content("#why")
    nouns = page.eval_on_selector_all("[data-noun]", "all => all.map((each) => each.textContent)")
    assert nouns == ["Waiting for the first row.", "row age", "rows per second", "rows", "Milliseconds per row"]
    page.click("#verdict-correct")
    page.wait_for_selector("#message.good")
    assert [(entry.kind, entry.true_label) for entry in store] == [("tabular", "good")]
    assert page.problems == []


def test_page_of_a_value_takes_the_measured_one(
    chromium: Any, view_of: Callable[..., LiveView], store: FeedbackStore
) -> None:
    page = shown_page(chromium, view_of(wage))
    assert not [part for part in ("#verdict-correct", "#explain-part", "#best-bar") if page.is_visible(part)]
    assert "raise wage" in page.text_content("#why")
    page.click("[data-judgment=relabeled]")
    page.fill("dialog input[type=number]", "99.5")
    page.click("dialog button.strong")
    page.wait_for_selector("#message.good")
    assert [(entry.judgment, entry.true_label) for entry in store] == [("relabeled", "99.5")]
    page.wait_for_selector("#keys span:text-is('120 to 121')")
    # A busy machine may leave a gap between the first two values.
    height = "document.querySelector('#history .through').getBBox().height"
    page.wait_for_function(f"Math.abs({height} - 1) < 1e-6")  # values span the whole chart
    assert page.problems == []


@pytest.mark.parametrize(
    ("predict", "entry", "word"),
    [
        (credit, {"judgment": "wrong_region", "box": [0, 0, 1, 1]}, "Boxes"),
        (credit, {"judgment": "wrong_region"}, "Boxes"),
        (wage, {"judgment": "correct"}, "label"),
        (wage, {"judgment": "relabeled", "label": "much"}, "number"),
        (wage, {"judgment": "relabeled", "label": "inf"}, "number"),
        (wage, {"judgment": "relabeled", "label": "1e300"}, "number"),
    ],
)
def test_feedback_that_teaches_nothing_is_rejected(
    view_of: Callable[..., LiveView], store: FeedbackStore, predict: Callable[[int], Prediction], entry: dict, word: str
) -> None:
    view = view_of(predict)
    status, answer = post(view, "/feedback", {"serial": shown_now(view)} | entry)
    assert status == 400 and word in answer["error"] and len(store) == 0


@pytest.mark.parametrize(("typed", "stored"), [(" 1_000 ", "1000"), ("12.5", "12.5"), ("-3e2", "-300")])
def test_measured_values_are_stored_as_plain_numbers(
    view_of: Callable[..., LiveView], store: FeedbackStore, typed: str, stored: str
) -> None:
    view = view_of(wage)
    assert post(view, "/feedback", {"serial": shown_now(view), "judgment": "relabeled", "label": typed})[0] == 200
    assert [(entry.correct_label, entry.score) for entry in store] == [(stored, None)]


def test_feedback_on_another_kind_of_samples_is_refused(
    view_of: Callable[..., LiveView], view: LiveView, progress: RunProgress, store: FeedbackStore
) -> None:
    with Run(view, progress):
        assert post(view, "/feedback", {"serial": shown_now(view), "judgment": "correct"})[0] == 200
    table = view_of(credit)
    status, answer = post(table, "/feedback", {"serial": shown_now(table), "judgment": "correct"})
    assert status == 500 and "tabular" in answer["error"] and "image" in answer["error"]
    assert (len(store), store.kind) == (1, "image")


def test_hold_works_after_a_lost_poll(chromium: Any, view_of: Callable[..., LiveView]) -> None:
    page = shown_page(chromium, view_of(credit))
    page.route("**/metrics.json*", lambda route: route.abort())
    page.wait_for_selector("#state.lost")
    page.click("#pause")
    page.wait_for_selector("#pause[aria-pressed=true]")
    page.wait_for_timeout(200)
    assert page.text_content("#message") == "" and page.text_content("#label") == "good"


def test_figures_of_a_slow_run_follow_each_drawing(chromium: Any, view_of: Callable[..., LiveView]) -> None:
    page, counts = chromium.new_page(), Counter[str]()
    page.route("**/view.js", lambda route: _served(route, "POLL_MS = 400", "POLL_MS = 60_000"))
    page.on("response", lambda response: counts.update([urlsplit(response.url).path]))
    page.goto(view_of(wage, every_s=0.4).url)
    deadline = time.monotonic() + 20
    while counts["/snapshot.jpg"] < 6:
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)
    page.wait_for_timeout(300)
    assert counts["/metrics.json"] >= 5
    page.close()


def _served(route: Any, part: str, other: str) -> None:
    """Serve a script with a part replaced."""
    text = route.fetch().text()
    assert part in text
    route.fulfill(body=text.replace(part, other), content_type="text/javascript")


def test_choices_name_the_parts(view_of: Callable[..., LiveView], view: LiveView) -> None:
    def parts(served: LiveView) -> tuple[object, ...]:
        choices = json.loads(get(served, "/choices.json")[1])
        return tuple(choices[key] for key in ("sample_noun", "has_boxes", "has_overlay", "has_values"))

    assert parts(view) == ("frame", True, True, False)
    assert parts(view_of(wage)) == ("row", False, False, True)


def test_metrics_have_the_unseen_categories(view_of: Callable[..., LiveView]) -> None:
    def serve(job: str) -> LiveView:
        row = row_sample(("job", "age"), (job, "31"))
        return view_of(lambda index: replace(credit(index), frame=replace(credit(index).frame, sample=row)))

    for job, expected in (("pilot", {}), ("smith", {"job": "smith"})):
        served = serve(job)
        shown_now(served)
        assert json.loads(get(served, "/metrics.json")[1])["unseen"] == expected


def test_predictions_of_images_keep_their_boxes(view: LiveView, progress: RunProgress, store: FeedbackStore) -> None:
    with Run(view, progress, a_prediction):
        assert (
            post(view, "/feedback", {"serial": shown_now(view), "judgment": "wrong_region", "box": [0, 0, 1, 1]})[0]
            == 200
        )
    assert [entry.kind for entry in store] == ["image"]
