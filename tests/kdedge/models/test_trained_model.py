"""Models with weights: from a run, or by name from a file."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import BEST, LAST, read_run, write_run
from kdedge.models.trained_model import load_trained
from kdedge_runtime.errors import UsageError


def written(model: torch.nn.Module, path: Path) -> Path:
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return path


class TestRun:
    @pytest.mark.parametrize(("which", "name"), [("best", BEST), ("last", LAST)])
    def test_run_gives_the_trained_model(self, teacher_run: Path, which: str, name: str) -> None:
        trained = load_trained(str(teacher_run), which=which)
        record = read_run(teacher_run)
        assert (trained.labels, trained.input, trained.spec) == (record.labels, record.input, record.model)
        stored = load_file(teacher_run / name)
        for tensor, value in trained.model.state_dict().items():
            assert torch.equal(value, stored[f"model.{tensor}"])
        assert trained.origin["source"] == str(teacher_run)
        assert trained.origin["weights_sha256"] == hashlib.sha256((teacher_run / name).read_bytes()).hexdigest()
        assert trained.parameters == sum(parameter.numel() for parameter in trained.model.parameters())

    def test_run_rejects_explicit_weights(self, teacher_run: Path) -> None:
        with pytest.raises(UsageError, match="with its own weights"):
            load_trained(str(teacher_run), weights=teacher_run / BEST)

    def test_run_without_epoch(self, teacher_run: Path, tmp_path: Path) -> None:
        write_run(tmp_path / "run", replace(read_run(teacher_run), result=None))
        with pytest.raises(UsageError, match=r"no complete epoch yet.*--resume"):
            load_trained(str(tmp_path / "run"))

    def test_folder_without_run(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is not a run folder"):
            load_trained(str(tmp_path))

    @pytest.mark.parametrize("source", ["runs/teachr", "runs/", "nowhere/"])
    def test_missing_run(self, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError, match=f"{source} does not exist. Expected a run"):
            load_trained(source)


class TestName:
    @pytest.mark.parametrize(
        "name", ["torchvision:mobilenet_v3_small", "small:resnet8", "timm:convnext_atto", "timm:test_resnet.r160_in1k"]
    )
    def test_classes_are_counted_from_the_weights(self, name: str, tmp_path: Path) -> None:
        if name.startswith("timm:"):
            pytest.importorskip("timm")
        original = build_model(ModelSpec(name, 7, fresh_stem=False), 224)
        trained = load_trained(name, weights=written(original, tmp_path / "w.safetensors"))
        assert trained.labels == tuple("0123456")
        for tensor, value in trained.model.state_dict().items():
            assert torch.equal(value, original.state_dict()[tensor])

    def test_bare_name_is_resolved(self, tmp_path: Path) -> None:
        file = written(build_model(ModelSpec("small:resnet8", 4), 32), tmp_path / "w.safetensors")
        trained = load_trained("resnet8", weights=file)
        assert trained.spec.name == trained.origin["source"] == "small:resnet8"
        assert trained.origin["weights"] == str(file)

    def test_random_weights_must_be_requested(self) -> None:
        with pytest.raises(
            UsageError, match=r"small:resnet8 has no published weights.*--weights FILE.*--no-pretrained"
        ):
            load_trained("small:resnet8")

    def test_requested_weights_are_random(self) -> None:
        trained = load_trained("small:resnet8", pretrained=False)
        assert trained.origin == {"source": "small:resnet8", "weights": None, "weights_sha256": None}
        assert len(trained.labels) == 1000

    def test_weights_of_another_network_are_rejected(self, tmp_path: Path) -> None:
        file = written(build_model(ModelSpec("small:resnet20", 4), 32), tmp_path / "w.safetensors")
        with pytest.raises(UsageError, match=r"w\.safetensors do not fit SmallResNet: tensors \d+ unknown"):
            load_trained("small:resnet8", weights=file)

    def test_weights_of_a_run_fit_the_named_network(self, teacher_run: Path) -> None:
        trained = load_trained("small:resnet8", weights=teacher_run / BEST)
        assert len(trained.labels) == 3

    @pytest.mark.data
    @pytest.mark.parametrize("name", ["resnet20", "resnet56"])
    def test_published_weights_of_ten_classes(self, name: str) -> None:
        file = Path(__file__).parents[3].parent / "shared" / "data" / "weights" / f"cifar10_{name}.safetensors"
        if not file.is_file():
            pytest.skip(f"the reference weights {file.name} are not beside the checkout")
        trained = load_trained(f"small:{name}", weights=file)
        assert trained.labels == tuple("0123456789")
        for tensor, value in load_file(file).items():
            assert torch.equal(trained.model.state_dict()[tensor], value)

    def test_hub_name_is_not_a_folder(self) -> None:
        with pytest.raises(UsageError, match="weights that timm lists"):
            load_trained("timm:hf-hub:timm/resnet18.a1_in1k")
