"""Models by name: libraries, suggestions for typos, and small networks from the literature."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.model_names import canonical_name, networks_of
from kdedge.models.model_registry import build_model, head_tensors, pretrained_input, pretrained_labels
from kdedge.models.model_spec import ModelSpec
from kdedge.models.resnet_layouts import RESNETS
from kdedge.models.weight_files import load_state, read_state
from kdedge_runtime.errors import MissingDependency, UsageError

WEIGHTS = Path(__file__).parents[3].parent / "shared" / "data" / "weights"


class TestNames:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("resnet18", "torchvision:resnet18"),
            ("torchvision:mobilenet_v3_small", "torchvision:mobilenet_v3_small"),
            ("resnet20", "small:resnet20"),
            ("small:resnet10w16", "small:resnet10w16"),
            ("timm:mobilenetv3_small_050", "timm:mobilenetv3_small_050"),
            ("timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k"),
        ],
    )
    def test_bare_name_is_resolved_in_torchvision_then_small(self, name: str, expected: str) -> None:
        if name.startswith("timm:"):
            pytest.importorskip("timm")
        assert canonical_name(name) == expected

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("resnet81", "torchvision:resnet18"),
            ("mobilenetv3_small", "torchvision:mobilenet_v3_small"),
            ("resnet10w61", "small:resnet10w16"),
            ("small:resnet21", "small:resnet20"),
        ],
    )
    def test_similar_name_is_suggested(self, name: str, near: str) -> None:
        with pytest.raises(UsageError, match=rf"no model '{name}'\. Did you mean .*{near}"):
            canonical_name(name)

    def test_models_without_a_classification_head_are_not_listed(self) -> None:
        assert "resnet18" in networks_of("torchvision")
        assert "fasterrcnn_resnet50_fpn" not in networks_of("torchvision")

    def test_timm_is_optional(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        assert networks_of("timm") == ()

    def test_name_in_another_library_is_suggested(self) -> None:
        pytest.importorskip("timm")
        with pytest.raises(UsageError, match=r"Did you mean timm:tf_efficientnet_lite0\?"):
            canonical_name("tf_efficientnet_lite0")

    def test_unknown_name_gets_examples(self) -> None:
        with pytest.raises(UsageError, match=r"no model 'qqqq'\. Try resnet18"):
            canonical_name("qqqq")

    @pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
    def test_trees_need_a_table(self, name: str) -> None:
        for kind, network in (("image", "resnet"), ("audio", "resnet"), ("timeseries", "series:small")):
            with pytest.raises(UsageError, match=rf"{name} .*table.*{network}"):
                TRAINING_MODALITIES[kind].check_model(name)
        TRAINING_MODALITIES["tabular"].check_model(name)

    def test_run_folder_suggests_its_weights(self, teacher_run: Path) -> None:
        weights = re.escape(str(teacher_run / "best.safetensors"))
        with pytest.raises(UsageError, match=rf"is a run folder, .* model name is expected.* --weights {weights}\."):
            canonical_name(str(teacher_run))

    def test_unknown_timm_tag_suggests_known_tags(self) -> None:
        pytest.importorskip("timm")
        with pytest.raises(
            UsageError, match=r"no model 'timm:resnet18\.a9_in1k'\. Did you mean .*timm:resnet18\.a1_in1k"
        ):
            canonical_name("timm:resnet18.a9_in1k")

    @pytest.mark.parametrize("name", ["timm:hf-hub:timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"])
    def test_hub_names_are_rejected(self, name: str) -> None:
        with pytest.raises(UsageError, match=r"weights that timm lists.*--weights FILE"):
            canonical_name(name)

    def test_unknown_library_lists_libraries(self) -> None:
        with pytest.raises(UsageError, match=r"Unknown model library 'keras'.*torchvision:, timm: or small:"):
            canonical_name("keras:resnet50")

    def test_detector_is_rejected(self) -> None:
        with pytest.raises(UsageError, match="no model"):
            canonical_name("torchvision:fasterrcnn_resnet50_fpn")

    def test_timm_name_without_timm_suggests_installation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(MissingDependency, match="pip install timm") as caught:
            canonical_name("timm:mobilenetv3_small_050")
        assert caught.value.exit_code == 3
        assert canonical_name("resnet18") == "torchvision:resnet18", "other libraries are not affected"


class TestSmallNetworks:
    @pytest.mark.parametrize(
        ("name", "classes", "parameters"),
        [
            ("resnet20", 10, 269_722),  # published as 0.27 M: He et al., CVPR 2016, table 6
            ("resnet56", 10, 853_018),  # 0.85 M
            ("resnet110", 10, 1_727_962),  # 1.7 M
            ("resnet8x4", 100, 1_233_540),  # 1.23 M: Tian et al., ICLR 2020
            ("resnet32x4", 100, 7_433_860),  # 7.43 M
        ],
    )
    def test_parameter_counts_are_as_published(self, name: str, classes: int, parameters: int) -> None:
        model = build_model(ModelSpec(f"small:{name}", classes), 32)
        assert sum(parameter.numel() for parameter in model.parameters()) == parameters

    @pytest.mark.parametrize("name", RESNETS)
    def test_one_logit_per_class(self, name: str) -> None:
        model = build_model(ModelSpec(f"small:{name}", 7), 32).eval()
        with torch.no_grad():
            assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)

    def test_narrow_network_has_output_stride_8(self) -> None:
        model = build_model(ModelSpec("small:resnet10w16", 10), 64).eval()
        assert 0.30e6 < sum(parameter.numel() for parameter in model.parameters()) < 0.32e6
        sizes: list[torch.Size] = []
        model.layer4.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape))
        with torch.no_grad():
            model(torch.randn(1, 3, 64, 64))
        assert sizes == [(1, 128, 8, 8)]


def published_resnet(x: Tensor, state: dict[str, Tensor], blocks: int) -> Tensor:
    """Compute the CIFAR network of He et al., CVPR 2016, §4.2 with shortcuts of type A from its tensors."""

    def conv_bn(x: Tensor, conv: str, bn: str, stride: int) -> Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=1)
        mean, var = (state[f"{bn}.running_{name}"][:, None, None] for name in ("mean", "var"))
        return (x - mean) / (var + 1e-5).sqrt() * state[f"{bn}.weight"][:, None, None] + state[f"{bn}.bias"][
            :, None, None
        ]

    x = conv_bn(x, "conv1", "bn1", 1).relu()
    for stage in (1, 2, 3):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            halves = stage > 1 and block == 0
            y = conv_bn(x, f"{name}.conv1", f"{name}.bn1", 2 if halves else 1).relu()
            y = conv_bn(y, f"{name}.conv2", f"{name}.bn2", 1)
            if halves:
                zeros = torch.zeros_like(x[:, : x.shape[1] // 2, ::2, ::2])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
            x = (x + y).relu()
    return x.mean(dim=(2, 3)) @ state["linear.weight"].T + state["linear.bias"]


@pytest.mark.data
@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_published_weights_give_equal_logits(name: str, blocks: int) -> None:
    file = WEIGHTS / f"cifar10_{name}.safetensors"
    if not file.is_file():
        pytest.skip(f"the reference weights {file.name} are not beside the checkout")
    state = read_state(file)
    model = build_model(ModelSpec(f"small:{name}", 10), 32)
    load_state(model, state, str(file))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model.eval()(images)
    assert torch.allclose(logits, published_resnet(images, state, blocks), rtol=1e-3, atol=1e-3)
    assert logits.std() > 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torchvision:resnet18", {"fc.weight", "fc.bias"}),
        ("torchvision:mobilenet_v3_small", {"classifier.3.weight", "classifier.3.bias"}),
        ("small:resnet20", {"linear.weight", "linear.bias"}),
        ("timm:convnext_atto", {"head.fc.weight", "head.fc.bias"}),
    ],
)
def test_classifier_tensors_are_found(name: str, expected: set[str]) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    assert set(head_tensors(name, 224)) == expected


class TestPretrained:
    def test_input_of_published_weights(self) -> None:
        spec = pretrained_input("torchvision:resnet18")
        assert (spec.height, spec.width, spec.mean, spec.std) == (
            224,
            224,
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),
        )
        assert spec.crop_fraction == pytest.approx(224 / 256)
        assert spec.interpolation == "bilinear"

    def test_input_of_timm_models(self) -> None:
        pytest.importorskip("timm")
        spec = pretrained_input("timm:tf_efficientnet_lite0")
        assert (spec.height, spec.mean, spec.std, spec.interpolation) == (224, (0.5,) * 3, (0.5,) * 3, "bicubic")

    def test_timm_tag_selects_the_input(self) -> None:
        pytest.importorskip("timm")
        ours, torchvisions = pretrained_input("timm:resnet18.a1_in1k"), pretrained_input("timm:resnet18.tv_in1k")
        assert (ours.crop_fraction, ours.interpolation) == (0.95, "bicubic")
        assert (torchvisions.crop_fraction, torchvisions.interpolation) == (0.875, "bilinear")
        assert pretrained_input("timm:test_efficientnet.r160_in1k").height == 160

    def test_1000_classes_are_imagenets(self) -> None:
        labels = pretrained_labels("torchvision:resnet18", 1000)
        assert (labels[0], labels[999]) == ("tench", "toilet tissue")
        assert pretrained_labels("torchvision:resnet18", 3) == ("0", "1", "2")
