"""`kdedge demo` when it is stopped."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from training_toys import Listener

from kdedge.demo import demo_run
from kdedge_runtime.errors import KdedgeError


def test_a_demo_that_is_told_to_stop_does_not_go_on_with_what_is_half_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Path] = []

    def stopped(_request: object, out: Path, *_: object) -> SimpleNamespace:
        trained.append(out)
        return SimpleNamespace(result=None)  # as SIGTERM leaves it

    monkeypatch.setattr(demo_run, "start_run", stopped)
    monkeypatch.setattr(demo_run, "_render", lambda *_, **__: {})
    said: list[str] = []
    with pytest.raises(KdedgeError, match="SIGTERM has stopped the demo"):
        demo_run.run_demo(tmp_path / "demo", Listener(), said.append)
    assert trained == [tmp_path / "demo" / "teacher"]
    assert said[-1].startswith("2/6")
