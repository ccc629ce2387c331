"""Fixtures: a folder of tiny images and a teacher trained on it, shared by all tests of kdedge."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from training_toys import CLASSES, Listener, Outcome, write_squares
from weight_server import WeightServer, serving

from kdedge.cli import main
from kdedge.config.train_config import TrainConfig
from kdedge.pipelines.model_export import export_model
from kdedge.training.training_run import start_run
from kdedge_runtime.devices import load_profile

# No test may use the network, or the weights that a user has downloaded. Subprocesses inherit these.
os.environ["HTTPS_PROXY"] = "http://127.0.0.1:9"
os.environ["TORCH_HOME"] = os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="pytest-weights-")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread, as in `training_toys.kdedge`, so that sums have the same order."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def quick_exports(networks_exported_once: None) -> None:
    """Use fast exports for all networks."""


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset of three classes, with 16 training and 6 validation images each, 32 px; read-only."""
    return write_squares(tmp_path_factory.mktemp("scenes"), CLASSES)


@pytest.fixture(scope="session")
def teacher_run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Complete run of `small:resnet8` after four epochs on `scenes`; read-only."""
    out = tmp_path_factory.mktemp("runs") / "teacher"
    start_run(TrainConfig(str(scenes), "small:resnet8", epochs=4, batch_size=16), out, Listener(), "cpu")
    return out


@pytest.fixture(scope="session")
def exported_run(scenes: Path, teacher_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Student of `teacher_run` after two epochs, with its fp32 and int8 files; read-only."""
    out = tmp_path_factory.mktemp("exported") / "student"
    request = TrainConfig(str(scenes), "small:resnet8", teacher=(str(teacher_run),), epochs=2, batch_size=16)
    start_run(request, out, Listener(), "cpu")
    export_model(str(out), precisions=["int8"], profile=load_profile("generic"))
    return out


@pytest.fixture
def weight_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightServer]:
    """Server of published weights on the loopback interface, with empty caches of both libraries."""
    from huggingface_hub import constants

    with serving() as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + template)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        yield server


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call the command's entry point in this process."""

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
