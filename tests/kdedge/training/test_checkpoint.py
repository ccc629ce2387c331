"""Checkpoints: complete training state in atomically written files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import SGD

from kdedge.models.weight_files import read_state
from kdedge.training import checkpoint
from kdedge.training.checkpoint import restore, save_checkpoint, save_weights
from kdedge_runtime.errors import KdedgeError, UsageError

NONE = nn.ModuleList()
"""Empty projections."""


def network(seed: int) -> tuple[nn.Module, SGD]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    model.to(memory_format=torch.channels_last)
    return model, SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)


def step(model: nn.Module, optimizer: SGD, seed: int) -> None:
    optimizer.zero_grad()
    model(torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    optimizer.step()


def test_resumed_training_equals_uninterrupted(tmp_path: Path) -> None:
    straight, optimizer = network(0)
    step(straight, optimizer, 1)
    note = {"history": [{"epoch": 1, "val_top1": 0.1 + 0.2}]}
    state = {"random": torch.get_rng_state()}
    save_checkpoint(tmp_path / "last.safetensors", straight, NONE, optimizer, note, state)
    step(straight, optimizer, 2)

    resumed, resumed_optimizer = network(99)
    restored, restored_state = restore(tmp_path / "last.safetensors", resumed, NONE, resumed_optimizer)
    assert restored == note
    assert torch.equal(restored_state["random"], state["random"])
    step(resumed, resumed_optimizer, 2)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_projections_are_resumed(tmp_path: Path) -> None:
    def learners(seed: int) -> tuple[nn.Module, nn.Module, SGD]:
        torch.manual_seed(seed)
        model, projections = nn.Linear(3, 2), nn.ModuleList([nn.Conv2d(2, 4, 1)])
        return model, projections, SGD([*model.parameters(), *projections.parameters()], lr=0.1, momentum=0.9)

    model, projections, optimizer = learners(0)
    projections[0](model(torch.ones(1, 3)).reshape(1, 2, 1, 1)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "last.safetensors", model, projections, optimizer, {}, {})
    other, other_projections, other_optimizer = learners(1)
    restore(tmp_path / "last.safetensors", other, other_projections, other_optimizer)
    assert torch.equal(projections[0].weight, other_projections[0].weight)
    momenta = [
        optimizer.state[layers[0].weight]["momentum_buffer"]
        for optimizer, layers in ((optimizer, projections), (other_optimizer, other_projections))
    ]
    assert torch.equal(*momenta)
    assert set(read_state(tmp_path / "last.safetensors")) == {"weight", "bias"}, "only the student is exported"


def test_tied_weights_are_saved_and_stay_tied(tmp_path: Path) -> None:
    def tied(seed: int) -> tuple[nn.Module, SGD]:
        torch.manual_seed(seed)
        layer = nn.Linear(3, 3)
        model = nn.Sequential(layer, nn.ReLU(), layer)
        return model, SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(model: nn.Module, optimizer: SGD) -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()

    model, optimizer = tied(0)
    step(model, optimizer)
    save_checkpoint(tmp_path / "last.safetensors", model, NONE, optimizer, {}, {})
    other, other_optimizer = tied(1)
    restore(tmp_path / "last.safetensors", other, NONE, other_optimizer)
    for train_step in ((model, optimizer), (other, other_optimizer)):
        step(*train_step)
    assert torch.equal(model[0].weight, other[0].weight) and other[0].weight is other[2].weight


def test_no_momentum_before_the_first_step(tmp_path: Path) -> None:
    model, optimizer = network(0)
    save_checkpoint(tmp_path / "last.safetensors", model, NONE, optimizer, {}, {})
    other, other_optimizer = network(1)
    restore(tmp_path / "last.safetensors", other, NONE, other_optimizer)
    assert not any("momentum_buffer" in state for state in other_optimizer.state.values())


def test_file_is_safetensors_with_a_json_note(tmp_path: Path) -> None:
    model, optimizer = network(0)
    step(model, optimizer, 1)
    save_checkpoint(tmp_path / "last.safetensors", model, NONE, optimizer, {"history": [1, 2]}, {})
    save_weights(tmp_path / "best.safetensors", model, {"epoch": 2})
    tensors = load_file(tmp_path / "last.safetensors")
    weights, parameters = set(model.state_dict()), {name for name, _ in model.named_parameters()}
    assert set(tensors) == {f"model.{name}" for name in weights} | {
        f"training.optimizer.momentum_buffer.model.{name}" for name in parameters
    }
    assert set(load_file(tmp_path / "best.safetensors")) == {f"model.{name}" for name in weights}
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["kdedge"]) == {"epoch": 2}


def half_written(error: BaseException) -> Callable[..., None]:
    """Return a `save_file` that fails halfway."""

    def save(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        save_file(tensors, path, metadata=metadata)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        raise error

    return save


@pytest.mark.parametrize("save", ["weights", "checkpoint"])
class TestFailure:
    def write(self, save: str, path: Path, model: nn.Module, optimizer: SGD) -> None:
        if save == "weights":
            save_weights(path, model, {"epoch": 1})
        else:
            save_checkpoint(path, model, NONE, optimizer, {"epoch": 1}, {})

    @pytest.mark.parametrize("there_before", [True, False])
    def test_full_disk_keeps_only_the_old_file(
        self, save: str, there_before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "weights.safetensors"
        model, optimizer = network(0)
        if there_before:
            self.write(save, file, model, optimizer)
        before = file.read_bytes() if there_before else b""
        step(model, optimizer, 1)
        monkeypatch.setattr(checkpoint, "save_file", half_written(OSError(28, "No space left on device")))
        with pytest.raises(KdedgeError, match=r"Cannot write .*No space left on device.*--resume") as caught:
            self.write(save, file, model, optimizer)
        assert caught.value.exit_code == 1
        assert [path.name for path in tmp_path.iterdir()] == ([file.name] if there_before else [])
        if there_before:
            assert file.read_bytes() == before

    @pytest.mark.parametrize("crash", [KeyboardInterrupt(), RuntimeError("a defect")])
    def test_crash_keeps_only_the_old_file(
        self, save: str, crash: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "weights.safetensors"
        model, optimizer = network(0)
        self.write(save, file, model, optimizer)
        before = file.read_bytes()
        step(model, optimizer, 1)
        monkeypatch.setattr(checkpoint, "save_file", half_written(crash))
        with pytest.raises(type(crash)):
            self.write(save, file, model, optimizer)
        assert [path.name for path in tmp_path.iterdir()] == [file.name]
        assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04."], ids=repr)
def test_damaged_checkpoint_is_rejected(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "last.safetensors").write_bytes(content)
    model, optimizer = network(0)
    with pytest.raises(UsageError, match=r"Cannot read the checkpoint .*last\.safetensors.*written by kdedge"):
        restore(tmp_path / "last.safetensors", model, NONE, optimizer)


@pytest.mark.parametrize("write", [torch.save, save_file], ids=["pickle", "safetensors"])
def test_foreign_file_is_rejected(write: Callable[..., None], tmp_path: Path) -> None:
    write({"weight": torch.ones(2)}, tmp_path / "last.safetensors")
    model, optimizer = network(0)
    with pytest.raises(UsageError, match=r"Cannot read the checkpoint|last\.safetensors do not fit Sequential"):
        restore(tmp_path / "last.safetensors", model, NONE, optimizer)
