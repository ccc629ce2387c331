"""A folder of tiny pictures and a teacher trained on it, shared by all tests of the workbench."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_toys import Listener, Outcome, write_scenes

from kdedge.cli import main
from kdedge.pipelines.model_export import export_model
from kdedge.training.training_run import Request, start_run
from kdedge_runtime.devices import load_profile


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As the commands of `training_toys.kdedge`, so that sums come out in the same order."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def quick_exports(operators_listed_once: None) -> None:
    """Of all the networks here."""


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, 16 pictures each to train on and 6 to validate, 32 px; tests must not change it."""
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def teacher_run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: `small:resnet8` after four epochs on `scenes`; tests must not change it."""
    out = tmp_path_factory.mktemp("runs") / "teacher"
    start_run(Request(str(scenes), "small:resnet8", epochs=4, batch_size=16), out, Listener(), "cpu")
    return out


@pytest.fixture(scope="session")
def exported_run(scenes: Path, teacher_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of `teacher_run` after two epochs, with its fp32 and int8 files; tests must not change it."""
    out = tmp_path_factory.mktemp("exported") / "student"
    request = Request(str(scenes), "small:resnet8", teacher=(str(teacher_run),), epochs=2, batch_size=16)
    start_run(request, out, Listener(), "cpu")
    export_model(str(out), with_int8=True, profile=load_profile("generic"))
    return out


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call the command's own entry point, in this process."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["kdedge", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as done:
            code = done.code or 0
        assert isinstance(code, int)
        return Outcome(code, *capfd.readouterr())

    return call
