"""Published weights of a model may differ in preprocessing; it is selected by the weights file."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import save_file
from torchvision.models import get_model_weights
from training_toys import Outcome

from kdedge.models import pretrained as module
from kdedge.models.model_names import canonical_name, networks_of
from kdedge.models.model_registry import build_model, pretrained_input
from kdedge.models.model_spec import ModelSpec
from kdedge.models.pretrained import assumed_input, published_name, torchvision_tags
from kdedge.models.trained_model import load_trained
from kdedge_runtime import Model
from kdedge_runtime.errors import UsageError


def touched(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.parametrize(
    ("name", "size", "shorter_side", "interpolation"),
    [
        ("resnet50.IMAGENET1K_V1", 224, 256, "bilinear"),
        ("resnet50.IMAGENET1K_V2", 224, 232, "bilinear"),
        ("vit_b_16.IMAGENET1K_V1", 224, 256, "bilinear"),
        ("vit_b_16.IMAGENET1K_SWAG_LINEAR_V1", 224, 224, "bicubic"),
        ("vit_b_16.IMAGENET1K_SWAG_E2E_V1", 384, 384, "bicubic"),
        ("vit_b_16", 224, 256, "bilinear"),
        ("vit_h_14", 224, 224, "bicubic"),
    ],
)
def test_tag_selects_the_input(name: str, size: int, shorter_side: int, interpolation: str) -> None:
    assert canonical_name(name) == f"torchvision:{name}"
    spec = pretrained_input(canonical_name(name))
    assert (spec.height, spec.width, spec.interpolation) == (size, size, interpolation)
    assert spec.crop_fraction == pytest.approx(size / shorter_side)


def test_unknown_tag_is_rejected() -> None:
    with pytest.raises(UsageError, match=r"no model 'resnet50\.IMAGENET1K_V3'.*torchvision:resnet50\.IMAGENET1K_V"):
        canonical_name("resnet50.IMAGENET1K_V3")


def test_network_is_built_without_the_tag() -> None:
    tagged = build_model(ModelSpec("torchvision:mobilenet_v2.IMAGENET1K_V1", 3), 64).state_dict()
    assert tagged.keys() == build_model(ModelSpec("torchvision:mobilenet_v2", 3), 64).state_dict().keys()


class TestRecognising:
    def test_published_files_are_recognized_by_the_hash_in_their_name(self, tmp_path: Path) -> None:
        tagged = [f"{network}.{tag}" for network in networks_of("torchvision") for tag in torchvision_tags(network)]
        assert len(tagged) > 100 and "resnet50.IMAGENET1K_V1" in tagged
        for name in tagged:
            network, _, tag = name.partition(".")
            url = next(weights.url for weights in get_model_weights(network) if weights.name == tag)
            file = touched(tmp_path / url.rpartition("/")[2])
            assert published_name(f"torchvision:{network}", file) == f"torchvision:{name}"

    def test_converted_file_is_recognized_by_the_hash_in_its_name(self, tmp_path: Path) -> None:
        file = touched(tmp_path / "resnet50-0676ba61.safetensors")
        assert published_name("torchvision:resnet50", file) == "torchvision:resnet50.IMAGENET1K_V1"

    def test_renamed_file_is_recognized_by_its_digest(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "w.pth"
        file.write_bytes(b"weights")
        url = f"https://download.pytorch.org/models/resnet50-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
        weights = {"V1": SimpleNamespace(url="…/resnet50-00000000.pth"), "V2": SimpleNamespace(url=url)}
        monkeypatch.setattr(module, "torchvision_weights", lambda network: weights)
        assert published_name("torchvision:resnet50", file) == "torchvision:resnet50.V2"
        file.write_bytes(b"others")
        assert published_name("torchvision:resnet50", file) == "torchvision:resnet50"

    @pytest.mark.parametrize("name", ["timm:resnet50", "small:resnet20", "torchvision:resnet50.IMAGENET1K_V2"])
    def test_other_libraries_and_explicit_tags_are_unchanged(self, name: str, tmp_path: Path) -> None:
        assert published_name(name, touched(tmp_path / "resnet50-0676ba61.pth")) == name
        assert published_name("torchvision:resnet50", None) == "torchvision:resnet50"


class TestUnknownWeights:
    def test_assumption_is_reported_with_alternatives(self) -> None:
        assert assumed_input("torchvision:resnet50") == (
            "assumed as for IMAGENET1K_V2, 224 of 232 px, bilinear; to change it, use a model name with tag: "
            "torchvision:resnet50.IMAGENET1K_V1 for 224 of 256 px, bilinear"
        )

    @pytest.mark.parametrize("name", ["torchvision:resnet50.IMAGENET1K_V1", "torchvision:resnet18", "small:resnet20"])
    def test_nothing_is_reported_without_assumption(self, name: str) -> None:
        assert assumed_input(name) is None

    def test_export_records_and_prints_the_assumption(
        self, command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        save_file(build_model(ModelSpec("torchvision:mobilenet_v2", 3), 224).state_dict(), tmp_path / "w.safetensors")

        outcome = command("export", "mobilenet_v2", "--weights", "w.safetensors", "--method", "none", "-o", "m.onnx")
        assert outcome.code == 0, outcome.err
        assert "preprocessing: assumed as for IMAGENET1K_V2, 224 of 232 px, bilinear" in outcome.err
        assert Model.load("m.onnx").metadata.input.crop_fraction == pytest.approx(224 / 232)
        stated = load_trained("torchvision:mobilenet_v2.IMAGENET1K_V1", weights=tmp_path / "w.safetensors")
        (tmp_path / "w.safetensors").rename(tmp_path / "mobilenet_v2-b0353104.safetensors")
        known = load_trained("mobilenet_v2", weights=tmp_path / "mobilenet_v2-b0353104.safetensors")
        for model in (stated, known):
            assert model.assumed_input is None
            assert model.input.crop_fraction == pytest.approx(224 / 256)
            assert model.origin["source"] == "torchvision:mobilenet_v2.IMAGENET1K_V1"

    def test_random_weights_have_no_assumption(self) -> None:
        assert load_trained("torchvision:mobilenet_v2", pretrained=False).assumed_input is None
