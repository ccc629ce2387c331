"""Headless Chromium and servers for tests of the web pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kdedge_runtime.errors import MissingDependency
from kdedge_runtime.model import Model
from kdedge_runtime.server import AccessPolicy, Address
from kdedge_runtime.server.browser.page_server import WebServer
from kdedge_runtime.server.browser.web_runtime import onnxruntime_web


def chromium() -> str:
    """Return the path of the system's Chromium, or skip the test."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here: apt install chromium")
    return found


@contextmanager
def browser(*arguments: str) -> Iterator[Any]:
    """Yield a headless Chromium, controlled by Playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = chromium()
    # Chromium has no sandbox for root, which runs the tests in containers.
    sandbox = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=[*sandbox, *arguments])
        try:
            yield opened
        finally:
            opened.close()


def open_page(opened: Any, url: str, **context: Any) -> Any:
    """Open a page in a new context; `page.problems` collects its errors and warnings."""
    page = opened.new_context(**context).new_page()
    page.set_default_timeout(15_000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda entry: page.problems.append(entry.text) if entry.type in ("error", "warning") else None)
    page.goto(url)
    return page


def wait_until(page: Any, condition: str) -> None:
    """Wait until a JavaScript expression is true; the pages forbid Playwright's own way, which is `eval`."""
    is_true = page.evaluate(
        f"""async () => {{
            for (let i = 0; i < 300 && !({condition}); i++) await new Promise((resolve) => setTimeout(resolve, 50));
            return {condition};
        }}"""
    )
    assert is_true, condition


@contextmanager
def served(model: Model) -> Iterator[str]:
    """Serve the page of `kdedge web` for a model; skip the test without onnxruntime-web.

    Yields:
        The address of the page.
    """
    try:
        onnxruntime_web()
    except MissingDependency:
        pytest.skip("onnxruntime-web is not here: make web-assets")
    server = WebServer(AccessPolicy.at(Address("127.0.0.1", 0)), model)
    server.start("web")
    try:
        yield server.url
    finally:
        server.close()
