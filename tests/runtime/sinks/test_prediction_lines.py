"""Lines of text on standard output, for files of samples."""

import shlex
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from toy_predictions import in_regions, toy_prediction

from kdedge_runtime.cli.main import main
from kdedge_runtime.sinks.prediction_lines import PredictionLines
from kdedge_runtime.stream.statistics import RunProgress


def test_samples_are_printed_with_label_and_score(
    model_path: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model_path), "--source", str(photos)]) == 0
    lines = [line.split("  ") for line in capfd.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == ["1-red.png", "2-green.png", "3-blue.png"]
    labels, scores = zip(*(answer.split() for _, answer in lines), strict=True)
    assert labels == ("red", "green", "blue") and all(score.endswith("%") for score in scores)


@pytest.mark.parametrize("options", [("--jsonl", "lines.jsonl"), ("--loop", "--max-frames", "4")], ids=str)
def test_other_lines_and_endless_sources_have_none(
    model_path: Path,
    photos: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(model_path), "--source", str(photos), *options]) == 0
    assert capfd.readouterr().out == ""


def test_frames_of_a_video_are_not_printed(model_path: Path, video: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(model_path), "--source", str(video)]) == 0
    assert capfd.readouterr().out == ""


def test_regions_and_unknown_samples(progress: RunProgress, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = replace(toy_prediction(), unknown=True, ranking=(("cat\x1b[2J", 0.9),))
    with PredictionLines(threading.Event()) as sink:
        sink.write(unknown, progress)
        sink.write(in_regions(toy_prediction(), door="open", window="shut"), progress)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(r"  unknown (nearest: cat\x1b[2J 90%)")
    assert second.endswith("  door: open 75%  window: shut 50%")


def test_reader_that_exits_ends_the_run(model_path: Path, photos: Path) -> None:
    arguments = [str(model_path), "--source", str(photos)]
    program = f"from kdedge_runtime.cli.main import main; raise SystemExit(main({arguments}))"
    command = f"{shlex.join([sys.executable, '-c', program])} | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "1 of 3 frames" in done.stderr, done.stderr
