"""Lines of text on standard output, for files of samples."""

import json
import os
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
from kdedge_runtime.util.output_stream import OutputStream


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


def run_in_shell(arguments: list[str], redirections: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run kdedge-run in a process whose streams bash opens."""
    program = f"from kdedge_runtime.cli.main import main; raise SystemExit(main({arguments}))"
    command = f"{shlex.join([sys.executable, '-c', program])} {redirections}"
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, encoding="utf-8", check=False, env=os.environ | environment
    )


def test_run_needs_no_standard_output(model_path: Path, photos: Path, tmp_path: Path) -> None:
    arguments = [str(model_path), "--source", str(photos)]
    done = run_in_shell([*arguments, "-o", str(tmp_path / "seen")], ">&-")
    assert done.returncode == 0 and "3 frames" in done.stderr and len(list((tmp_path / "seen").iterdir())) == 3
    assert run_in_shell(arguments, ">&- 2>&-").returncode == 0
    rejected = run_in_shell([*arguments, "--jsonl", "-"], ">&-")
    assert rejected.returncode == 2 and "Standard output is closed" in rejected.stderr


def test_characters_beyond_the_encoding_are_escaped(model_path: Path, photos: Path, tmp_path: Path) -> None:
    name = "häuser 🏠.png"
    (tmp_path / name).write_bytes((photos / "1-red.png").read_bytes())
    for options, shown in (
        ([], r"h\xe4user \U0001f3e0.png  red "),
        (["--jsonl", "-"], r"h\u00e4user \ud83c\udfe0.png"),
    ):
        arguments = [str(model_path), "--source", str(tmp_path / name), *options]
        done = run_in_shell(arguments, "", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii() and shown in done.stdout
        whole = run_in_shell(arguments, "", PYTHONUTF8="1")
        assert name in whole.stdout
    assert json.loads(done.stdout.splitlines()[0])["name"] == name


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="open descriptors are listed on POSIX only")
def test_reader_that_exits_leaves_no_descriptor_open() -> None:
    descriptors, stop = [], threading.Event()
    for _ in range(3):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            OutputStream(stop, pipe).write("text")
        descriptors.append(len(list(Path("/dev/fd").iterdir())))
    assert stop.is_set() and len(set(descriptors)) == 1


def test_reader_that_exits_ends_the_run(model_path: Path, photos: Path) -> None:
    arguments = [str(model_path), "--source", str(photos)]
    program = f"from kdedge_runtime.cli.main import main; raise SystemExit(main({arguments}))"
    command = f"{shlex.join([sys.executable, '-c', program])} | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "1 of 3 frames" in done.stderr, done.stderr
