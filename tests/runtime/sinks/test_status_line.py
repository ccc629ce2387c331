"""Status line on the terminal."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from toy_predictions import in_regions, toy_prediction

from kdedge_runtime.sinks.status_line import StatusLine
from kdedge_runtime.sources.image_source import ImageSource
from kdedge_runtime.stream.statistics import RunProgress


def test_status_line_shows_progress_and_is_cleared(tmp_path: Path, red_spot: np.ndarray) -> None:
    for index in range(4):
        Image.fromarray(red_spot).save(tmp_path / f"{index}.png")
    terminal = io.StringIO()
    with ImageSource(tmp_path) as source:
        progress = RunProgress(source)
        with StatusLine(terminal) as sink:
            sink.write(toy_prediction(1), progress)
            sink.write(toy_prediction(2), progress)
    shown = terminal.getvalue().split("\r\x1b[2K")
    assert shown[1].startswith("frame 2/4 (50%)")
    assert "91%" in shown[1]
    assert shown[2:] == [""], "at most five updates per second, and cleared at the end"


def test_untrusted_labels_are_escaped_on_the_terminal(progress: RunProgress) -> None:
    prediction = replace(toy_prediction(), ranking=(("stop\x1b[2J\nsign\x9b1m", 0.9),))
    progress.count(prediction)
    terminal = io.StringIO()
    with StatusLine(terminal) as sink:
        sink.write(prediction, progress)
    shown = terminal.getvalue().split("\r\x1b[2K")[1]
    assert r"stop\x1b[2J\nsign\x9b1m 90%" in shown
    assert progress.summary().table().splitlines()[-1] == r"predictions: stop\x1b[2J\nsign\x9b1m × 1"


def test_every_region_is_shown(progress: RunProgress) -> None:
    terminal = io.StringIO()
    prediction = in_regions(toy_prediction(), door="open", window="shut")
    progress.count(prediction)
    with StatusLine(terminal) as sink:
        sink.write(prediction, progress)
    assert "door: open 75% · window: shut 50%" in terminal.getvalue().split("\r\x1b[2K")[1]
    assert progress.summary().table().splitlines()[-1] == "predictions: door: open × 1, window: shut × 1"


def test_less_frequent_labels_are_summed_up(progress: RunProgress) -> None:
    for number in (0, 1, 1, 2, 3, 4, 5, 6):
        progress.count(replace(toy_prediction(), ranking=((f"label {number}", 0.9),)))
    last = progress.summary().table().splitlines()[-1]
    assert last.startswith("predictions: label 1 × 2, label 0 × 1, ") and last.endswith("label 4 × 1, other labels × 2")
