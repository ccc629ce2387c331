"""`kdedge demo` when it is interrupted."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from training_toys import Listener

from kdedge.demo import demo_run
from kdedge_runtime.errors import KdedgeError


def test_interrupted_demo_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Path] = []

    def stopped(_request: object, out: Path, *_: object) -> SimpleNamespace:
        trained.append(out)
        return SimpleNamespace(result=None)  # as after SIGTERM

    monkeypatch.setattr(demo_run, "start_run", stopped)
    monkeypatch.setattr(demo_run, "_render", lambda *_, **__: {})
    headings: list[str] = []
    with pytest.raises(KdedgeError, match="stopped by SIGTERM"):
        demo_run.run_demo(tmp_path / "demo", Listener(), headings.append)
    assert trained == [tmp_path / "demo" / "teacher"]
    assert headings[-1].startswith("2/6")
