"""Exports of published weights by name, their lineage and validation; random weights only on request."""

from collections.abc import Callable
from pathlib import Path

import pytest
from training_toys import Outcome
from weight_server import WeightServer, publish_timm

from kdedge.models.artifacts import Artifacts
from kdedge.pipelines.exported_files import open_files
from kdedge_runtime import Model

NETWORK = "timm:test_efficientnet"


def test_published_weights_are_exported(
    weight_server: WeightServer, command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_timm(weight_server, "test_efficientnet")
    monkeypatch.chdir(tmp_path)
    outcome = command("export", NETWORK)
    assert outcome.code == 0, outcome.err
    for part in ("r160_in1k of timm", weight_server.address, "license apache-2.0", "kdedge validate test_efficientnet"):
        assert part in outcome.err, part
    assert "--weights" not in outcome.err, "published weights are found by name"
    lineage = Model.load(tmp_path / "test_efficientnet.onnx").metadata.lineage["student"]
    assert (lineage["source"], lineage["license"]) == (f"{NETWORK}.r160_in1k", "apache-2.0")
    assert lineage["url"].startswith(weight_server.address) and "/" not in lineage["weights"]
    files = open_files(Artifacts.open("test_efficientnet.onnx"))
    assert files.student is not None and files.student.origin["weights_sha256"] == lineage["weights_sha256"]


def test_failed_download_is_one_sentence(
    weight_server: WeightServer, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = command("export", NETWORK, "-o", tmp_path / "m.onnx")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert all(part in outcome.err for part in ("model.safetensors", str(tmp_path / "hub"), "--weights FILE"))
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("options", [(), ("--pretrained",)])
def test_network_without_published_weights(
    command: Callable[..., Outcome], tmp_path: Path, options: tuple[str, ...]
) -> None:
    outcome = command("export", "small:resnet8", *options, "-o", tmp_path / "m.onnx")
    assert outcome.code == 2 and "small:resnet8 has no published weights" in outcome.err
    assert "--weights FILE" in outcome.err and "pretrained" in outcome.err
    assert not (tmp_path / "m.onnx").exists()


def test_random_weights_on_request(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command("export", NETWORK, "--no-pretrained", "-o", tmp_path / "m.onnx")
    assert outcome.code == 0 and "weights are random" in outcome.err


@pytest.mark.parametrize("option", ["--pretrained", "--no-pretrained"])
def test_runs_and_foreign_files_have_their_own_weights(
    command: Callable[..., Outcome], exported_run: Path, tmp_path: Path, option: str
) -> None:
    for source in (exported_run, exported_run / "model.onnx"):
        outcome = command("export", source, option, "-o", tmp_path / "m.onnx")
        assert outcome.code == 2 and f"Remove {option}" in outcome.err, outcome.err
    assert not (tmp_path / "m.onnx").exists()


def test_lineage_of_a_run_names_its_initial_weights(
    weight_server: WeightServer, command: Callable[..., Outcome], scenes: Path, tmp_path: Path
) -> None:
    publish_timm(weight_server, "test_efficientnet")
    options = ("--epochs", 1, "--size", 32, "--device", "cpu", "--samples-per-class", 4)
    outcome = command("train", scenes, "--model", NETWORK, *options, "--out", tmp_path / "run")
    assert outcome.code == 0 and "license apache-2.0" in outcome.err, outcome.err
    assert command("export", tmp_path / "run").code == 0
    start = Model.load(tmp_path / "run" / "model.onnx").metadata.lineage["start"]
    assert (start["name"], start["license"]) == (f"{NETWORK}.r160_in1k", "apache-2.0")
    assert start["url"].startswith(weight_server.address) and len(start["weights_sha256"]) == 64
