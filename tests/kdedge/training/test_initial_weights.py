"""Runs that start from published weights: the plan, the record, resuming, and named teachers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file
from training_toys import Listener, write_scenes
from weight_server import WeightServer, publish_timm, publish_torchvision

from kdedge.config.recipe_file import load_recipe
from kdedge.config.train_config import TrainConfig
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import LAST, read_run, write_run
from kdedge.training.training_run import continue_run, start_run
from kdedge_runtime.errors import UsageError

NETWORK = "timm:test_efficientnet"
STEM = "conv_stem.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("tiny"), train=4, val=2)


def request_for(data: Path, **options: object) -> TrainConfig:
    """Request for one epoch that hardly changes the initial weights."""
    return replace(TrainConfig(str(data), NETWORK, epochs=1, size=32, lr=1e-8), **options)


def test_run_starts_from_published_weights(weight_server: WeightServer, tiny: Path, tmp_path: Path) -> None:
    published = load(publish_timm(weight_server, "test_efficientnet"))
    listener = Listener()
    record = start_run(request_for(tiny), tmp_path / "run", listener, "cpu")
    state = load_file(tmp_path / "run" / LAST)
    assert torch.allclose(state[f"model.{STEM}"], published[STEM], atol=1e-5)
    assert state["model.classifier.weight"].shape[0] == 3, "the classifier is new"
    assert record.start is not None and record.start["source"] == f"{NETWORK}.r160_in1k"
    assert record.start["license"] == "apache-2.0" and len(record.start["weights_sha256"]) == 64
    assert not record.model.fresh_stem, "the stem keeps its kernel"
    assert record.request == request_for(tiny).given, "options are recorded as typed"
    weights = dict(listener.plan)["weights"]
    assert "r160_in1k" in weights and weight_server.address in weights and "apache-2.0" in weights
    assert read_run(tmp_path / "run").start == record.start


def test_learning_rate_is_that_of_trained_weights(weight_server: WeightServer, tiny: Path, tmp_path: Path) -> None:
    publish_timm(weight_server, "test_efficientnet")
    rates = {}
    for pretrained in (None, False):
        request = request_for(tiny, lr=None, pretrained=pretrained)
        rates[pretrained] = start_run(request, tmp_path / str(pretrained), Listener(), "cpu").recipe["learning_rate"]
    assert rates[None] == load_recipe("fine-tune").learning_rate
    assert rates[False] == pytest.approx(0.1 * 12 / 128)


@pytest.mark.parametrize(
    ("options", "why"),
    [({"pretrained": False}, "as requested"), ({"model": "small:resnet8"}, "no published weights")],
)
def test_random_weights_have_a_reason(
    weight_server: WeightServer, tiny: Path, tmp_path: Path, options: dict[str, object], why: str
) -> None:
    listener = Listener()
    record = start_run(request_for(tiny, **options), tmp_path / "run", listener, "cpu")
    assert dict(listener.plan)["weights"].startswith("random") and why in dict(listener.plan)["weights"]
    assert record.start is None and weight_server.requests == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"model\.safetensors.*--weights FILE.*--no-pretrained"),
        ({"model": "small:resnet8", "pretrained": True}, r"small:resnet8 has no published weights.*--weights FILE"),
    ],
)
def test_missing_weights_are_an_error(
    weight_server: WeightServer, tiny: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        start_run(request_for(tiny, **options), tmp_path / "run", Listener(), "cpu")
    assert not (tmp_path / "run").exists()


def test_weights_selected_from_the_teacher_are_not_replaced(
    weight_server: WeightServer, tiny: Path, teacher_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"Remove --pretrained or --init"):
        request_for(tiny, teacher=(str(teacher_run),), init="teacher", pretrained=True)
    request = request_for(tiny, model="small:resnet8", teacher=(str(teacher_run),), init="teacher")
    record = start_run(request, tmp_path / "run", Listener(), "cpu")
    assert record.start is None and weight_server.requests == []


class TestResume:
    """A run that was stopped before its first checkpoint starts again from the same weights."""

    def test_same_weights(self, weight_server: WeightServer, tiny: Path, tmp_path: Path) -> None:
        publish_timm(weight_server, "test_efficientnet")
        request = request_for(tiny, lr=0.01)
        record = start_run(request, tmp_path / "run", Listener(), "cpu")
        expected = load_file(tmp_path / "run" / LAST)
        write_run(tmp_path / "run", replace(record, result=None))
        (tmp_path / "run" / LAST).unlink()
        continue_run(request, tmp_path / "run", Listener(), "cpu")
        found = load_file(tmp_path / "run" / LAST)
        assert all(torch.equal(found[name], value) for name, value in expected.items())

    def test_other_weights(self, weight_server: WeightServer, tiny: Path, tmp_path: Path) -> None:
        publish_timm(weight_server, "test_efficientnet")
        record = start_run(request_for(tiny), tmp_path / "run", Listener(), "cpu")
        assert record.start is not None
        start = record.start | {"weights_sha256": "0" * 64}
        write_run(tmp_path / "run", replace(record, result=None, start=start))
        (tmp_path / "run" / LAST).unlink()
        with pytest.raises(UsageError, match="have changed since"):
            continue_run(request_for(tiny), tmp_path / "run", Listener(), "cpu")


class TestTeacher:
    @pytest.fixture
    def request_with_teacher(
        self, weight_server: WeightServer, monkeypatch: pytest.MonkeyPatch, tiny: Path
    ) -> TrainConfig:
        """Student of SqueezeNet, whose published weights have the three classes of the data."""
        torch.manual_seed(0)
        state = build_model(ModelSpec("torchvision:squeezenet1_1", 3, fresh_stem=False), 224).state_dict()
        publish_torchvision(weight_server, monkeypatch, "squeezenet1_1", "IMAGENET1K_V1", state)
        return request_for(tiny, model="small:resnet8", teacher=("squeezenet1_1",), size=32, loss="ce:0.1,kd:0.9")

    def test_published_teacher(
        self, weight_server: WeightServer, request_with_teacher: TrainConfig, tmp_path: Path
    ) -> None:
        listener = Listener()
        record = start_run(request_with_teacher, tmp_path / "run", listener, "cpu")
        assert record.teacher is not None and record.teacher["weights"] is None
        assert record.teacher["source"] == "torchvision:squeezenet1_1.IMAGENET1K_V1"
        assert record.teacher["url"].startswith(weight_server.address)
        (of_teacher,) = [value for name, value in listener.plan if name == "weights" and "of the teacher" in value]
        assert record.teacher["url"] in of_teacher and "license not stated" in of_teacher
        write_run(tmp_path / "run", replace(record, result=None))
        assert continue_run(request_with_teacher, tmp_path / "run", Listener(), "cpu").result is not None

    def test_teacher_without_published_weights(self, tiny: Path, tmp_path: Path) -> None:
        request = request_for(tiny, model="small:resnet8", teacher=("small:resnet20",))
        with pytest.raises(UsageError, match=r"small:resnet20 has no published weights.*--teacher-weights FILE"):
            start_run(request, tmp_path / "run", Listener(), "cpu")
