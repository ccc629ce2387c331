"""Predictions as JSON lines."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from toy_predictions import in_regions, toy_prediction, undrawn_prediction

from kdedge_runtime.drawing.heatmap import HeatStats
from kdedge_runtime.errors import UsageError
from kdedge_runtime.sinks.json_lines import JsonLinesFile, record
from kdedge_runtime.sources.source import GroundTruth
from kdedge_runtime.stream.statistics import RunProgress

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def test_record_contains_prediction_and_capture_time() -> None:
    assert record(toy_prediction(7, "cam #7"), age_now_s=1.5, now=NOW) == {
        "frame": 7,
        "name": "cam #7",
        "time": "2026-03-01T11:59:58.500+00:00",
        "age_ms": 12.35,
        "label": "sign, “stop”",
        "p": 0.91234,
        "familiarity": None,
        "unknown": False,
        "explained": "tree",
        "skip_reason": None,
        "heat": {"cx": 0.5123, "cy": 0.25, "area": 0.125, "entropy": 0.5},
    }


def test_each_region_has_its_line(tmp_path: Path, progress: RunProgress) -> None:
    target = tmp_path / "out.jsonl"
    prediction = in_regions(toy_prediction(3), door="open", window="shut")
    progress.count(prediction)
    with JsonLinesFile(str(target), threading.Event()) as sink:
        sink.write(prediction, progress)
    *lines, last = (json.loads(line) for line in target.read_text(encoding="utf-8").splitlines())
    assert [(line["frame"], line["region"], line["label"], line["p"]) for line in lines] == [
        (3, "door", "open", 0.75),
        (3, "window", "shut", 0.5),
    ]
    assert last["summary"]["frames"] == 1
    assert "region" not in record(toy_prediction(), 0, NOW)


def test_window_has_its_start_and_end() -> None:
    prediction = toy_prediction(3)
    frame = replace(prediction.frame, span_s=(0.75, 1.7504))
    line = record(replace(prediction, frame=frame), 0, NOW)
    assert (line["start"], line["end"]) == (0.75, 1.75)


def test_missing_map_and_evidence_are_null() -> None:
    assert record(replace(toy_prediction(), heat=None), 0, NOW)["heat"] is None
    nowhere = record(replace(toy_prediction(), heat=HeatStats(None, None, 0.0, None)), 0, NOW)["heat"]
    assert nowhere == {"cx": None, "cy": None, "area": 0.0, "entropy": None}


def test_lines_are_flushed_immediately(tmp_path: Path, progress: RunProgress) -> None:
    target = tmp_path / "new" / "out.jsonl"
    with JsonLinesFile(str(target), threading.Event()) as sink:
        for index in range(3):
            sink.write(toy_prediction(index), progress)
            lines = target.read_text(encoding="utf-8").splitlines()
            assert [json.loads(line)["frame"] for line in lines] == list(range(index + 1))
    assert datetime.fromisoformat(json.loads(lines[0])["time"]).utcoffset() == timedelta(0)


def test_stdout_stays_open(capsys: pytest.CaptureFixture[str], progress: RunProgress) -> None:
    with JsonLinesFile("-", threading.Event()) as sink:
        sink.write(toy_prediction(), progress)
    print("still open")
    prediction, summary, after = capsys.readouterr().out.splitlines()
    assert json.loads(prediction)["label"] == "sign, “stop”"
    assert list(json.loads(summary)) == ["summary"]
    assert after == "still open"


def test_unwritable_path_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--jsonl cannot write"):
        JsonLinesFile(str(tmp_path / "file" / "out.jsonl"), threading.Event()).__enter__()


def test_last_line_is_the_summary(tmp_path: Path, progress: RunProgress) -> None:
    with JsonLinesFile(str(tmp_path / "a"), threading.Event()) as sink:
        for prediction in (toy_prediction(0), undrawn_prediction(1)):
            progress.count(prediction)
            sink.write(prediction, progress)
    first, second, last = map(json.loads, (tmp_path / "a").read_text().splitlines())
    assert (first["explained"], first["skip_reason"]) == ("tree", None)
    assert (second["explained"], second["skip_reason"], second["heat"]) == (None, "cadence", None)
    figures = last["summary"]
    assert (figures["frames"], figures["explained"], figures["skipped"]) == (2, 1, {"cadence": 1})
    assert figures["reconnects"] == 0
    assert set(figures["latency_ms"]["age"]) == {"p50", "p95", "p99"}


def test_synthetic_frames_have_ground_truth() -> None:
    prediction = toy_prediction()
    frame = replace(prediction.frame, truth=GroundTruth("stop", (16, 12, 48, 48)))
    assert record(replace(prediction, frame=frame), 0, NOW)["truth"] == {
        "label": "stop",
        "box": [0.25, 0.25, 0.75, 1.0],
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes need POSIX")
def test_named_pipe_is_supported(tmp_path: Path, progress: RunProgress) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend((tmp_path / "pipe").read_text().splitlines()))
    reader.start()
    with JsonLinesFile(str(tmp_path / "pipe"), threading.Event()) as sink:
        sink.write(toy_prediction(3), progress)
    reader.join(5)
    assert [json.loads(line).get("frame") for line in read] == [3, None]


def test_full_disk_leaves_complete_lines(tmp_path: Path) -> None:
    program = (
        "import resource, sys, threading\n"
        "from pathlib import Path\n"
        "from toy_predictions import toy_prediction\n"
        "from kdedge_runtime.errors import KdedgeError\n"
        "from kdedge_runtime.sinks.json_lines import JsonLinesFile\n"
        "from kdedge_runtime.sources.image_source import ImageSource\n"
        "from kdedge_runtime.stream.statistics import RunProgress\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "progress = RunProgress(ImageSource(Path('.')))\n"
        "try:\n"
        "    with JsonLinesFile('a.jsonl', threading.Event()) as sink:\n"
        "        for index in range(100):\n"
        "            sink.write(toy_prediction(index), progress)\n"
        "except KdedgeError as error:\n"
        "    print(error)"
    )
    pytest.importorskip("resource", reason="resource limits need POSIX")
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert "a.jsonl of --jsonl cannot be written: File too large" in done.stdout
    assert "Traceback" not in done.stderr
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(len(lines)))
    assert 2 <= len(lines) < 10
