"""Progress output: bars on a terminal, lines in a log."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from training_toys import Outcome

from kdedge.cli.progress_bar import step_progress


class Terminal(io.StringIO):
    """String buffer that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def work(seen: Callable[[], str]) -> list[str]:
    """Run two kinds of work, the first one twice, and return the output after each step."""
    stages = []
    with step_progress() as progress:
        for what, done in (("calibrating", 0), ("calibrating", 2), ("training [1]", 1), ("calibrating", 0)):
            progress(what, done, 2)
            stages.append(seen())
    return stages


def test_log_has_one_line_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    one, two, three = "calibrating …\n", "training [1] …\n", "calibrating …\n"
    assert work(log.getvalue) == [one, one, one + two, one + two + three]
    assert log.getvalue() == one + two + three, "nothing is drawn at the end"


def test_terminal_has_bars_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    work(screen.getvalue)
    assert "calibrating" in screen.getvalue(), "the bars"
    assert "…" not in screen.getvalue()


def test_export_and_validate_log_each_step(command: Callable[..., Outcome], exported_run: Path, tmp_path: Path) -> None:
    exported = command("export", exported_run, "--quantize", "-o", tmp_path / "model.onnx")
    assert exported.code == 0, exported.err
    steps = ["reading samples …", "exporting …", "calibrating …", "choosing ranges …"]
    assert exported.err.splitlines()[: len(steps)] == steps
    validated = command("validate", exported_run, "--out", tmp_path / "report")
    assert validated.code in (0, 4), validated.err
    steps = ["measuring latency and memory …", "reading samples …", "Student, PyTorch …"]
    lines = validated.err.splitlines()
    assert lines[: len(steps)] == steps
    for step in ("ONNX, fp32 …", "ONNX, int8 …", "sanity checks …", "faithfulness …", "robustness …"):
        assert lines.count(step) == 1
