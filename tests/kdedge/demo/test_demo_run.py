"""`kdedge demo` when it is interrupted, and the file that it recommends."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from training_toys import Listener

from kdedge.cli.demo import _print_demo
from kdedge.demo import demo_run
from kdedge.demo.demo_scenario import DemoSizes
from kdedge.demo.image_demo import ImageDemo
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.precision import FP32

TINY = DemoSizes(train=16, val=2, unseen=8, teacher_epochs=1, student_epochs=1, frames=4)


def test_interrupted_demo_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Path] = []

    def stopped(_request: object, out: Path, *_: object) -> SimpleNamespace:
        trained.append(out)
        return SimpleNamespace(result=None)  # as after SIGTERM

    monkeypatch.setattr(demo_run, "start_run", stopped)
    monkeypatch.setattr(ImageDemo, "write", lambda *_, **__: {})
    headings: list[str] = []
    with pytest.raises(KdedgeError, match="stopped by SIGTERM"):
        demo_run.run_demo("image", tmp_path / "demo", Listener(), headings.append)
    assert trained == [tmp_path / "demo" / "teacher"]
    assert headings[-1].startswith("2/6")


@pytest.mark.slow
def test_file_to_run_here_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure, measured = demo_run._file_latencies, []

    def fixed(paths: Mapping[str, Path]) -> dict[str, float]:
        measured.append(measure(paths))
        return {"fp32": 1.0, "int8": 0.99}  # a gain below 5%

    monkeypatch.setattr(demo_run, "_file_latencies", fixed)
    monkeypatch.setattr(ImageDemo, "sizes", TINY)
    result = demo_run.run_demo("image", tmp_path / "demo", Listener(), lambda _: None)
    assert [list(each) for each in measured] == [["fp32", "int8"]] and min(measured[0].values()) > 0
    assert [row.title for row in result.rows if row.is_fastest] == [FP32.title]
    assert result.fastest == result.validation.fp32
    _print_demo(Console(width=200, stderr=True), result)
    printed = capsys.readouterr().err
    assert ["✓" in line for line in printed.splitlines() if "ONNX, " in line] == [True, False]
    assert f"kdedge run {result.fastest} --source" in printed
