"""Parts of the live view that depend on samples and task."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

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
from kdedge_runtime.stream.runner import StreamSettings
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

    def serve(predict: Callable[[int], Prediction]) -> LiveView:
        first = predict(0)
        labels = tuple(label for label, _ in first.ranking)
        metadata = replace(model.metadata, input=first.input, task=first.task, labels=labels)
        controls = Controls(replace(model, metadata=metadata), StreamSettings())
        view = LiveView(HERE, ABOUT, controls, Feedback(store, "ab" * 32))
        for each in (view, Run(view, progress, predict)):
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
    page.wait_for_selector("#hold:enabled")
    return page


def test_page_of_a_table_has_no_parts_of_images(
    chromium: Any, view_of: Callable[..., LiveView], store: FeedbackStore
) -> None:
    page = shown_page(chromium, view_of(credit))
    hidden = ("#verdict-place", "#opacity-part", ".ramp")
    assert not [part for part in hidden if page.is_visible(part)]
    assert page.is_visible("#verdict-right") and page.is_visible("#explain-part")
    assert "blue bars against" in page.text_content("#why")
    nouns = page.eval_on_selector_all("[data-noun]", "all => all.map((each) => each.textContent)")
    assert nouns == ["Waiting for the first row.", "row age", "rows per second", "rows", "Milliseconds per row"]
    page.click("#verdict-right")
    page.wait_for_selector("#message.good")
    assert [(entry.layout, entry.true_label) for entry in store] == [("row", "good")]
    assert page.problems == []


def test_page_of_a_value_takes_the_measured_one(
    chromium: Any, view_of: Callable[..., LiveView], store: FeedbackStore
) -> None:
    page = shown_page(chromium, view_of(wage))
    assert not [part for part in ("#verdict-right", "#explain-part", "#best-bar") if page.is_visible(part)]
    assert "raise wage" in page.text_content("#why")
    page.click("[data-judgment=label]")
    page.fill("dialog input[type=number]", "99.5")
    page.click("dialog button.strong")
    page.wait_for_selector("#message.good")
    assert [(entry.judgment, entry.true_label) for entry in store] == [("label", "99.5")]
    page.wait_for_selector("#keys span:text-is('120 to 121')")
    heights = page.eval_on_selector("#history .through", "each => each.getBBox().height")
    assert heights == pytest.approx(1), "values span the whole chart"
    assert page.problems == []


@pytest.mark.parametrize(
    ("predict", "entry", "word"),
    [
        (credit, {"judgment": "place", "box": [0, 0, 1, 1]}, "Boxes"),
        (credit, {"judgment": "place"}, "Boxes"),
        (wage, {"judgment": "right"}, "label"),
        (wage, {"judgment": "label", "label": "much"}, "number"),
        (wage, {"judgment": "label", "label": "inf"}, "number"),
    ],
)
def test_feedback_that_teaches_nothing_is_rejected(
    view_of: Callable[..., LiveView], store: FeedbackStore, predict: Callable[[int], Prediction], entry: dict, word: str
) -> None:
    view = view_of(predict)
    status, answer = post(view, "/feedback", {"serial": shown_now(view)} | entry)
    assert status == 400 and word in answer["error"] and len(store) == 0


def test_choices_name_the_parts(view_of: Callable[..., LiveView], view: LiveView) -> None:
    def parts(served: LiveView) -> tuple[object, ...]:
        choices = json.loads(get(served, "/choices.json")[1])
        return tuple(choices[key] for key in ("sample", "has_boxes", "has_overlay", "has_classes"))

    assert parts(view) == ("frame", True, True, True)
    assert parts(view_of(wage)) == ("row", False, False, False)


def test_predictions_of_images_keep_their_boxes(view: LiveView, progress: RunProgress, store: FeedbackStore) -> None:
    with Run(view, progress, a_prediction):
        assert post(view, "/feedback", {"serial": shown_now(view), "judgment": "place", "box": [0, 0, 1, 1]})[0] == 200
    assert [entry.layout for entry in store] == ["file"]
