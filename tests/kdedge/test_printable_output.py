"""Untrusted text is escaped in terminal output, in lines and tables."""

import io
import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from rich.table import Table
from training_toys import Outcome

from kdedge.cli.console import PrintableConsole, flagged
from kdedge_runtime.feedback import FeedbackStore, Verdict
from kdedge_runtime.util.images import encode_jpeg

STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
EVIL = "a\x1b[2J\x9b1m"


@pytest.fixture
def hostile(exported_run: Path, tmp_path: Path) -> Path:
    """Model file whose labels, method and first node name contain escape sequences."""
    model = onnx.load(exported_run / "model.onnx")
    model.graph.node[0].name = EVIL
    for entry in model.metadata_props:
        if entry.key == "kdedge.labels":
            entry.value = json.dumps([f"{EVIL}{number}" for number in range(len(json.loads(entry.value)))])
        if entry.key == "kdedge.outputs":
            entry.value = json.dumps(json.loads(entry.value) | {"method": EVIL})
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize(("verb", "output"), [("inspect", "page.html"), ("explain", "out")])
def test_model_file_text_is_escaped(
    verb: str, output: str, command: Callable[..., Outcome], hostile: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "photo.png")
    outcome = command(verb, hostile, tmp_path / "photo.png", "-o", tmp_path / output)
    assert outcome.code == 0, outcome.err
    assert not STEERING.search(outcome.out + outcome.err)
    assert r"\x1b[2J" in outcome.out
    outcome = command("explain", hostile, tmp_path / "photo.png", "--class", EVIL, "-o", tmp_path / "out")
    assert outcome.code == 2
    assert not STEERING.search(outcome.out + outcome.err)


def test_feedback_text_is_escaped(command: Callable[..., Outcome], tmp_path: Path) -> None:
    with FeedbackStore.open(tmp_path / "feedback.db", 5) as store:
        store.add(
            Verdict(
                judgment="relabeled",
                content=encode_jpeg(np.full((60, 80, 3), 9, np.uint8), 90),
                suffix=".jpg",
                kind="image",
                saliency_map=None,
                label="bolt",
                score=0.75,
                explained="bolt",
                frame_name="frame",
                model_sha256="00",
                at=datetime.now(UTC),
                correct_label="nu\x9bt",
            )
        )
    outcome = command("feedback", "export", tmp_path / "feedback.db", "-o", tmp_path / "out")
    assert not STEERING.search(outcome.out + outcome.err)


def test_run_record_text_is_escaped(command: Callable[..., Outcome], teacher_run: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        shutil.copytree(teacher_run, tmp_path / name)
        record = json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8"))
        record["data"]["source"] = f"{EVIL}{name}"
        (tmp_path / name / "run.json").write_text(json.dumps(record), encoding="utf-8")
    outcome = command("compare", tmp_path / "one", tmp_path / "other", "-o", tmp_path / "page.html")
    assert not STEERING.search(outcome.out + outcome.err)


def test_lines_positions_and_warnings_are_escaped_and_styles_kept() -> None:
    stream = io.StringIO()
    console = PrintableConsole(file=stream, force_terminal=False, width=200)
    table = Table(f"head {EVIL}")
    table.add_row(f"cell {EVIL}")
    console.print(f"line {EVIL}")
    console.print(table)
    console.print(flagged("note", f"text {EVIL}"))
    assert not STEERING.search(stream.getvalue())
    assert stream.getvalue().count(r"a\x1b[2J\x9b1m") == 4
    terminal = io.StringIO()
    PrintableConsole(file=terminal, force_terminal=True, width=80).print("bold", style="bold")
    assert "\x1b[1mbold" in terminal.getvalue()
