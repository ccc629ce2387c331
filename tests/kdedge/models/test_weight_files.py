"""Weights are read without code execution, and are loaded only if they fit."""

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kdedge.models.model_source import check_weights
from kdedge.models.weight_files import load_state, read_state
from kdedge.training.checkpoint import save_checkpoint, save_weights
from kdedge_runtime.errors import UsageError


class Malicious:
    """Object that creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in nn.Linear(3, 2).state_dict().items()}


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


class TestRead:
    def test_safetensors(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
        save_file(state, tmp_path / "w.safetensors")
        assert equal(read_state(tmp_path / "w.safetensors"), state)

    @pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
    @pytest.mark.parametrize("suffix", [".pth", ".pt"])
    def test_torch_files_plain_or_wrapped(
        self, tmp_path: Path, state: dict[str, torch.Tensor], wrap: Any, suffix: str
    ) -> None:
        torch.save(wrap(state), tmp_path / f"w{suffix}")
        assert equal(read_state(tmp_path / f"w{suffix}"), state)

    def test_names_from_data_parallel_training(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
        torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "w.pth")
        assert equal(read_state(tmp_path / "w.pth"), state)

    def test_checkpoint_gives_the_model_tensors(self, tmp_path: Path) -> None:
        model = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        others = {"generator": torch.arange(3)}
        save_checkpoint(tmp_path / "last.safetensors", model, nn.Linear(2, 2), optimizer, {}, others)
        assert equal(read_state(tmp_path / "last.safetensors"), model.state_dict())

    def test_submodule_named_model_keeps_its_prefix(self, tmp_path: Path) -> None:
        """Example: a user's module around a timm model."""
        outer = nn.ModuleDict({"model": nn.Linear(3, 2)})
        save_file(outer.state_dict(), tmp_path / "w.safetensors")
        assert equal(read_state(tmp_path / "w.safetensors"), outer.state_dict())
        save_weights(tmp_path / "best.safetensors", outer, {})
        assert equal(read_state(tmp_path / "best.safetensors"), outer.state_dict())

    def test_malicious_pickle_is_rejected_and_not_executed(
        self, tmp_path: Path, state: dict[str, torch.Tensor]
    ) -> None:
        trace = tmp_path / "trace"
        torch.save(state | {"extra": Malicious(trace)}, tmp_path / "w.pth")
        with pytest.raises(UsageError, match=r"w\.pth does not contain plain weights.*execute code.*state_dict"):
            read_state(tmp_path / "w.pth")
        assert not trace.exists()
        torch.load(tmp_path / "w.pth", weights_only=False)
        assert trace.exists(), "the file is as dangerous as intended"

    def test_torch_load_uses_weights_only(
        self, tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[dict[str, Any]] = []
        load = torch.load
        monkeypatch.setattr(torch, "load", lambda *args, **options: calls.append(options) or load(*args, **options))
        torch.save(state, tmp_path / "w.pth")
        read_state(tmp_path / "w.pth")
        assert [options["weights_only"] for options in calls] == [True]

    @pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
    @pytest.mark.parametrize(
        "content", [b"", b"\x00", b"not weights", b"PK\x03\x04 half a zip", b"\x80\x02."], ids=repr
    )
    def test_damaged_files_are_rejected(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=r"Cannot read weights|does not contain plain weights"):
            read_state(tmp_path / name)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_truncated_file_is_rejected(self, tmp_path: Path, state: dict[str, torch.Tensor], suffix: str) -> None:
        file = tmp_path / f"w{suffix}"
        save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(UsageError, match="Cannot read weights"):
            read_state(file)

    @pytest.mark.parametrize("content", [[torch.ones(2)], {"weight": 3}, {0: torch.ones(2)}, torch.ones(2)], ids=str)
    def test_non_state_dict_is_rejected(self, tmp_path: Path, content: Any) -> None:
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(UsageError, match=r"plain state_dict.*torch\.save\(model\.state_dict\(\)"):
            read_state(tmp_path / "w.pth")

    def test_compressed_archive_is_rejected_before_extraction(
        self, tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """torch.save stores members uncompressed; a megabyte of deflated zeros expands to gigabytes."""
        plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
        torch.save(state, plain)
        with zipfile.ZipFile(plain) as stored, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as deflated:
            for member in stored.infolist():
                deflated.writestr(member.filename, stored.read(member))
        assert read_state(plain).keys() == state.keys()
        monkeypatch.setattr(torch, "load", None)
        with pytest.raises(UsageError, match="compressed"):
            read_state(bomb)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"is a folder.*best\.safetensors"):
            check_weights(tmp_path)
        with pytest.raises(UsageError, match=r"weights file .*nowhere\.pth does not exist"):
            read_state(tmp_path / "nowhere.pth")


class TestLoad:
    def test_matching_weights(self, state: dict[str, torch.Tensor]) -> None:
        model = nn.Linear(3, 2)
        load_state(model, state, "w.pth")
        assert equal(model.state_dict(), state)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"bias": None}, r"1 missing \(bias\)"),
            ({"gain": torch.ones(2)}, r"1 unknown \(gain\)"),
            ({"weight": torch.ones(4, 3)}, r"1 with another shape \(weight\)"),
        ],
        ids=["missing", "unknown", "shape"],
    )
    def test_mismatches_are_counted_and_named(
        self, state: dict[str, torch.Tensor], change: dict[str, Any], message: str
    ) -> None:
        model = nn.Linear(3, 2)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        changed = {name: value for name, value in (state | change).items() if value is not None}
        with pytest.raises(UsageError, match=rf"w\.pth do not fit Linear: tensors {message}\. .*--weights"):
            load_state(model, changed, "w.pth")
        assert equal(model.state_dict(), before)

    def test_only_the_classifier_may_differ_in_shape(self) -> None:
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        trained = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 7)).state_dict()
        own_head = model[1].weight.clone()
        load_state(model, trained, "w.pth", replaced=("1.weight", "1.bias"))
        assert torch.equal(model[0].weight, trained["0.weight"])
        assert torch.equal(model[1].weight, own_head)
        wider = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7)).state_dict()
        with pytest.raises(UsageError, match=r"2 with another shape \(0\.weight, 0\.bias\)"):
            load_state(model, wider, "w.pth", replaced=("1.weight", "1.bias"))

    def test_files_without_batch_counter_are_accepted(self) -> None:
        norm, old = (
            nn.BatchNorm2d(3),
            {name: torch.rand(3) for name in ("weight", "bias", "running_mean", "running_var")},
        )
        load_state(norm, old, "w.pth")
        assert all(torch.equal(norm.state_dict()[name], value) for name, value in old.items())
