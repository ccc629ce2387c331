"""`kdedge web`: messages, served pages and shutdown."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from training_toys import Outcome

from kdedge_runtime.errors import MissingDependency
from kdedge_runtime.server.browser import web_runtime


def test_missing_onnxruntime_web_exits_with_3(
    command: Callable[..., Outcome], exported_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "kdedge_runtime.server.browser.page_server.onnxruntime_web", lambda: web_runtime.onnxruntime_web(tmp_path)
    )
    done = command("web", exported_run / "model.int8.onnx", "--listen", "0")
    assert done.code == 3
    assert "make web-assets" in done.err
    assert "fp32 faster" in done.err, "int8 is reported before anything else"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "nonsense"], "--listen 'nonsense' is not a valid address"),
        (["--listen", "0.0.0.0:0", "--token", "short"], "at least 16"),
        (["--cert", "missing.pem"], "--cert missing.pem"),
    ],
)
def test_invalid_options_are_usage_errors(
    command: Callable[..., Outcome], exported_run: Path, arguments: list[str], words: str
) -> None:
    done = command("web", exported_run / "model.onnx", *arguments)
    assert done.code == 2
    assert words in done.err


def test_serves_until_stopped(exported_run: Path) -> None:
    try:
        web_runtime.onnxruntime_web()
    except MissingDependency:
        pytest.skip("onnxruntime-web is not here: make web-assets")
    model = exported_run / "model.onnx"
    command = [sys.executable, "-m", "kdedge", "web", str(model), "--listen", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as run:
        url = run.stdout.readline().strip()
        assert b"Images are not uploaded" in urllib.request.urlopen(url, timeout=10).read()
        assert len(urllib.request.urlopen(f"{url}model.onnx", timeout=10).read()) > model.stat().st_size / 2
        run.send_signal(signal.SIGINT)
        assert run.wait(10) == 0
