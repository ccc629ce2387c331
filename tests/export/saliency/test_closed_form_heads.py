"""Test that `find_head` recognizes closed-form heads and rejects all others with a reason."""

import pytest
import timm
import torch
import torchvision
from small_nets import CHANNELS, CLASSES, HeadNet, PoolsFunction, RectifiesInPlace, SharesItsReLU, inputs
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.vgg import VGG

from kdedge_export.errors import HeadNotSupported
from kdedge_export.saliency import ActivationLayer, ClosedFormHead, DenseHeadLayer, find_head
from kdedge_runtime.errors import UsageError


class Scaled(HeadNet):
    """Network that scales the product inside the dense layer's operation."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(self.features(x)).flatten(1)
        return torch.addmm(self.head[0].bias, pooled, self.head[0].weight.t(), alpha=2)


class Twofold(HeadNet):
    """Network that returns logits and features, as models with auxiliary outputs do."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return self.head(self.pool(features).flatten(1)), features


class Functional(HeadNet):
    """Network that scales and pools features without a module."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.features(x) * 2).mean(dim=(2, 3)))


class Concatenated(HeadNet):
    """Network with mean and max pooling."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        return self.head(torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def vgg() -> VGG:
    """Return torchvision's VGG with narrow dense layers instead of 120 million weights."""
    with torch.device("meta"):
        model = VGG(nn.Sequential(nn.Conv2d(3, 512, 3, stride=4), nn.ReLU(inplace=True)), init_weights=False)
    model.features = nn.Sequential(nn.Conv2d(3, 512, 3, stride=4), nn.ReLU(inplace=True))
    model.classifier = nn.Sequential(nn.Linear(512 * 7 * 7, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, CLASSES))
    return model


def vit() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32
    )


def test_one_dense_layer() -> None:
    assert find_head(HeadNet(), inputs(1, 0)) == ClosedFormHead(
        "features", takes_input=False, layers=(DenseHeadLayer("head.0.weight", "head.0.bias"),)
    )


def test_dense_layer_without_bias() -> None:
    head = find_head(HeadNet(nn.Linear(CHANNELS, CLASSES, bias=False)), inputs(1, 0))
    assert head.layers == (DenseHeadLayer("head.0.weight", None),)


def test_dropout_and_identity_are_ignored() -> None:
    net = HeadNet(
        nn.Dropout(),
        nn.Linear(CHANNELS, 16),
        nn.Hardswish(inplace=True),
        nn.Dropout(0.2),
        nn.Identity(),
        nn.Linear(16, 4),
    )
    head = find_head(net, inputs(1, 0))
    assert head.layers == (
        DenseHeadLayer("head.1.weight", "head.1.bias"),
        ActivationLayer("hardswish"),
        DenseHeadLayer("head.5.weight", "head.5.bias"),
    )
    assert head.name == "GAP+Linear+hardswish+Linear"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.ReLU(), "relu"),
        (nn.ReLU(inplace=True), "relu"),
        (nn.ReLU6(), "relu6"),
        (nn.ReLU6(inplace=True), "relu6"),
        (nn.Hardswish(), "hardswish"),
        (nn.SiLU(), "silu"),
        (nn.SiLU(inplace=True), "silu"),
        (nn.GELU(), "gelu"),
        (nn.Tanh(), "tanh"),
    ],
    ids=str,
)
def test_activations_are_recognized(module: nn.Module, name: str) -> None:
    head = find_head(HeadNet(nn.Linear(CHANNELS, 16), module, nn.Linear(16, 4)), inputs(1, 0))
    assert head.layers[1] == ActivationLayer(name)


@pytest.mark.parametrize(
    "pool",
    [nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((1, 1)), nn.AvgPool2d(8), nn.AvgPool2d((8, 8), stride=1)],
    ids=str,
)
def test_global_pooling_modules_are_recognized(pool: nn.Module) -> None:
    assert find_head(HeadNet(pool=pool), inputs(1, 0)).target_layer == "features"


def test_pointwise_convolutions_after_pooling_are_dense() -> None:
    net = HeadNet(
        nn.Unflatten(1, (CHANNELS, 1, 1)), nn.Conv2d(CHANNELS, 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)
    )
    assert find_head(net, inputs(1, 0)).name == "GAP+Linear+relu+Linear"


def test_channels_last_memory_format() -> None:
    net = HeadNet().to(memory_format=torch.channels_last)
    assert find_head(net, inputs(1, 0)) == find_head(HeadNet(), inputs(1, 0))


def test_target_layer_takes_its_input_from_a_function() -> None:
    assert find_head(PoolsFunction(), inputs(1, 0)) == ClosedFormHead(
        "pool", takes_input=True, layers=(DenseHeadLayer("head.weight", "head.bias"),)
    )


def test_target_layer_is_the_outermost_module() -> None:
    assert find_head(RectifiesInPlace(), inputs(1, 0)).target_layer == "features"
    flat = nn.Sequential(*HeadNet(inplace=True).features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 4))
    # The last batch normalization (4) returns the same tensor, before the ReLU (5) changes it in place.
    assert find_head(flat, inputs(1, 0)).target_layer == "5"


def test_reused_module_is_no_target_layer() -> None:
    head = find_head(SharesItsReLU(pool=nn.AdaptiveAvgPool2d(1)), inputs(1, 0))
    assert (head.target_layer, head.takes_input) == ("pool", True)
    with pytest.raises(HeadNotSupported, match="neither the input nor the output of a module that runs once"):
        find_head(SharesItsReLU(), inputs(1, 0))


@pytest.mark.parametrize(
    ("name", "target_layer", "head"),
    [
        ("mobilenetv3_small_050", "blocks", "GAP+Linear+hardswish+Linear"),
        ("tf_efficientnet_lite0", "bn2", "GAP+Linear"),
        ("resnet18", "layer4", "GAP+Linear"),
    ],
)
def test_heads_of_timm_models(name: str, target_layer: str, head: str) -> None:
    found = find_head(timm.create_model(name, num_classes=CLASSES), inputs(1, 0, 64))
    assert (found.target_layer, found.name) == (target_layer, head)


@pytest.mark.parametrize(
    ("make", "side", "operations"),
    [
        pytest.param(
            lambda: torchvision.models.squeezenet1_0(num_classes=CLASSES),
            64,
            "convolution → relu → mean",
            id="squeezenet pools its logits",
        ),
        pytest.param(vit, 32, "native_layer_norm → select → addmm", id="vit has a class token"),
        pytest.param(
            lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=CLASSES),
            32,
            "native_layer_norm → permute → addmm",
            id="convnext normalizes after pooling",
        ),
        pytest.param(vgg, 64, "adaptive_avg_pool2d → addmm → relu → addmm", id="vgg keeps 7 × 7 positions"),
        pytest.param(
            lambda: Concatenated(nn.Linear(2 * CHANNELS, CLASSES)),
            32,
            "mean → amax → cat → addmm",
            id="two pooling operations",
        ),
        pytest.param(
            lambda: HeadNet(nn.Linear(CHANNELS, CLASSES), nn.Sigmoid()), 32, "addmm → sigmoid", id="probabilities"
        ),
        pytest.param(
            lambda: HeadNet(nn.Linear(CHANNELS, 9), nn.BatchNorm1d(9), nn.Linear(9, 4)),
            32,
            "batch_norm.* → addmm",
            id="normalization in the head",
        ),
        pytest.param(
            lambda: HeadNet(nn.Linear(CHANNELS, 9), nn.GELU(approximate="tanh"), nn.Linear(9, 4)),
            32,
            "addmm → gelu → addmm",
            id="approximate gelu",
        ),
        pytest.param(
            lambda: HeadNet(pool=nn.AvgPool2d(7)),
            32,
            r"avg_pool2d → addmm does not reproduce the logits",
            id="partial pooling",
        ),
        pytest.param(Scaled, 32, "mean → addmm", id="scaled product"),
    ],
)
def test_rejected_head_lists_its_operations(make, side: int, operations: str) -> None:
    with pytest.raises(HeadNotSupported, match=operations) as refusal:
        find_head(make(), inputs(1, 0, side))
    assert "--method none" in str(refusal.value)
    assert isinstance(refusal.value, UsageError)


def test_pooling_without_a_module_is_rejected() -> None:
    with pytest.raises(HeadNotSupported, match="neither the input nor the output of a module"):
        find_head(Functional(), inputs(1, 0))


def test_additional_model_outputs_are_rejected() -> None:
    with pytest.raises(HeadNotSupported, match=r"Twofold .* returned tuple. Expected one tensor of logits \[N, K\]"):
        find_head(Twofold(), inputs(1, 0))
    with pytest.raises(HeadNotSupported, match=r"returned \(1, 12, 8, 8\)"):
        find_head(HeadNet().features, inputs(1, 0))


def test_find_head_leaves_the_model_unchanged() -> None:
    net = HeadNet(nn.Dropout(), nn.Linear(CHANNELS, CLASSES)).train()
    net.features[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    find_head(net, inputs(1, 0))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
