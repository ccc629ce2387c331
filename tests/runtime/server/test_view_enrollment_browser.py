"""Enrollment in a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser, open_page
from enrolling_view import Site

from kdedge_runtime.model import Model


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture
def site(embedding_model: Model, tmp_path: Path, red_spot: np.ndarray) -> Iterator[Site]:
    with Site(embedding_model, tmp_path / "classes.json", [red_spot, np.roll(red_spot, 1, axis=2)]) as opened:
        yield opened


def _live(chromium: Any, url: str) -> Any:
    page = open_page(chromium, url, viewport={"width": 1280, "height": 860})
    page.wait_for_selector("#state.live")
    page.wait_for_selector("#enroll button:enabled")
    return page


def test_shown_frame_is_enrolled_and_recognized(chromium: Any, site: Site) -> None:
    page, other = _live(chromium, site.view.url), _live(chromium, site.view.url)
    page.wait_for_selector("#label:text-is('red')")
    page.click("#pause")
    page.wait_for_selector("#state.paused")
    site.source.index = 1
    site.until(label="green")
    page.fill("#enroll-name", "rust <1>")
    page.keyboard.press("Enter")
    page.wait_for_selector("#message.good:has-text('rust <1> has 1 sample.')")
    np.testing.assert_allclose(
        site.classes.prototypes, site.model.predict(site.source.images[0][None]).embedding, atol=1e-6
    )
    other.wait_for_selector("#label:text-is('unknown')")
    assert "%" not in other.text_content("#others") and other.text_content("#others .number") == "-0.50"
    assert other.text_content("#past-title") == "Similarity over the last minute"
    page.click("#pause")
    page.wait_for_selector("#label:text-is('unknown')")
    page.fill("#enroll-name", "leaf")
    page.click("#enroll button")
    page.wait_for_selector("#message.good:has-text('leaf has 1 sample.')")
    page.click("#enroll button")
    page.wait_for_selector("#message.good:has-text('leaf has 2 samples.')")
    page.wait_for_selector("#label:text-is('leaf')")
    assert page.text_content("#p") == "1.00"
    other.click("#explain")
    other.click("dialog .choices button:text-is('rust <1>')")
    other.wait_for_selector("#why:has-text('rust <1>')")
    names = [option.get_attribute("value") for option in other.query_selector_all("#enroll-names option")]
    assert names == ["rust <1>", "leaf"] == list(site.classes.names)
    site.source.index = 0
    page.wait_for_selector("#label:text-is('rust <1>')")
    assert page.problems == other.problems == []


def test_errors_are_shown(chromium: Any, site: Site) -> None:
    page = _live(chromium, site.view.url)
    page.fill("#enroll-name", "unknown")
    page.click("#enroll button")
    page.wait_for_selector("#message.bad:has-text('cannot be named unknown')")
    site.path.write_text("{")
    page.fill("#enroll-name", "rust")
    page.click("#enroll button")
    page.wait_for_selector("#message.bad:has-text('damaged')")
    assert page.text_content("#label") == "red"
