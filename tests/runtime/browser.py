"""A real browser for the tests of the pages, or the reason why there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


def chromium() -> str:
    """The path of the system's Chromium; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here: apt install chromium")
    return found


@contextmanager
def browser(*arguments: str) -> Iterator[Any]:
    """Playwright's handle of a headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright to drive a browser with")
    path = chromium()
    # Chromium refuses to make its sandbox for root, who runs the tests in a container.
    sandbox = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=[*sandbox, *arguments])
        try:
            yield opened
        finally:
            opened.close()


def open_page(opened: Any, url: str, **context: Any) -> Any:
    """A page in a context of its own; whatever it complains of is in `page.complaints`."""
    page = opened.new_context(**context).new_page()
    page.set_default_timeout(15_000)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda said: page.complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.goto(url)
    return page
