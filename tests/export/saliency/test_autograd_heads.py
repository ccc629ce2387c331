"""Test heads without a closed form: target layer search and maps by autograd."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from small_nets import CHANNELS, CLASSES, POSITIONS, TAILS, Flattens, HeadNet, body, hires_cam, inputs, randomised
from small_nets import relative_error as error_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from kdedge_export.errors import HeadNotSupported
from kdedge_export.saliency import AutogradHead, CAMExplainer, autograd_head_at, find_autograd_head, make_explained
from kdedge_export.spatial_layout import SpatialLayout, grids_below, layout_of
from kdedge_runtime.errors import UsageError

TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def by_tail(model: nn.Module, tail: AutogradHead | None = None) -> CAMExplainer:
    """Return an explainer that uses autograd, even if there is a closed form."""
    explained = make_explained(model, inputs(1, 99), "hirescam", None if tail is None else tail.target_layer)
    assert isinstance(explained, CAMExplainer)
    assert isinstance(explained.head, AutogradHead)
    return explained


@pytest.mark.parametrize(
    ("name", "target", "layout", "head"),
    [
        ("flattens", "features", SpatialLayout("NCHW", POSITIONS, POSITIONS), "pool+linear+relu+linear"),
        ("pools scores", "features", SpatialLayout("NCHW", POSITIONS, POSITIONS), "conv+relu+mean"),
        ("normalizes after pooling", "features", SpatialLayout("NCHW", POSITIONS, POSITIONS), "mean+layernorm+linear"),
        (
            "convolves after pooling",
            "features",
            SpatialLayout("NCHW", POSITIONS, POSITIONS),
            "mean+conv+batchnorm+relu+linear",
        ),
        ("channels last", "norm", SpatialLayout("NHWC", POSITIONS, POSITIONS), "gelu+mean+linear"),
        (
            "class token",
            "encoder.layers.encoder_layer_1.ln_1",
            SpatialLayout("tokens", POSITIONS, POSITIONS, prefix=1),
            "attention+layernorm+…+linear+layernorm+linear",
        ),
    ],
)
def test_target_layer_is_found(name: str, target: str, layout: SpatialLayout, head: str) -> None:
    assert find_autograd_head(TAILS[name](), inputs(1, 0)) == AutogradHead(target, layout, head)


@pytest.mark.parametrize(
    ("name", "side", "target", "layout"),
    [
        ("vit_tiny_patch16_224", 224, "blocks.11.norm1", SpatialLayout("tokens", 14, 14, 1)),
        ("deit_tiny_distilled_patch16_224", 224, "blocks.11.norm1", SpatialLayout("tokens", 14, 14, 2)),
        ("mobilevit_xxs", 128, "final_conv", SpatialLayout("NCHW", 4, 4)),
        ("swin_tiny_patch4_window7_224", 224, "norm", SpatialLayout("NHWC", 7, 7)),
        ("efficientformer_l1", 224, "norm", SpatialLayout("tokens", 7, 7)),
    ],
)
def test_target_layers_of_timm_models(name: str, side: int, target: str, layout: SpatialLayout) -> None:
    tail = find_autograd_head(timm.create_model(name, num_classes=CLASSES), inputs(1, 0, side))
    assert (tail.target_layer, tail.layout) == (target, layout)


def test_zero_initialized_head_does_not_hide_the_target_layer() -> None:
    net = TAILS["class token"]()
    nn.init.zeros_(net.heads.head.weight)
    nn.init.zeros_(net.heads.head.bias)
    assert find_autograd_head(net, inputs(1, 0)).target_layer == "encoder.layers.encoder_layer_1.ln_1"
    assert not net.heads.head.weight.any() and not net.heads.head.bias.any(), "weights were not restored"


def test_find_tail_leaves_the_model_unchanged() -> None:
    net = Flattens().train()
    net.features[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    find_autograd_head(net, inputs(1, 0))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("name", TAILS)
def test_maps_match_autograd(name: str) -> None:
    net = randomised(TAILS[name]())
    explained, previous = by_tail(net), None
    layer, layout = net.get_submodule(explained.head.target_layer), explained.head.layout
    for seed in (1, 2):
        x, classes = inputs(4, seed), torch.tensor([0, 3, 7, 9])
        with torch.no_grad():
            result = explained(x)
            maps = explained.class_maps(result, classes[:, None])[:, 0]
            torch.testing.assert_close(result.logits, net(x))
        assert maps.shape == (4, POSITIONS, POSITIONS) and not maps.requires_grad and not result.logits.requires_grad
        assert error_of(maps, hires_cam(net, layer, x, classes, planes=layout.channels_first)) <= TOLERANCE
        assert previous is None or error_of(maps, previous) > 0.1, "maps do not depend on the input"
        previous = maps


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam"])
def test_closed_form_matches_autograd_tail(method: str) -> None:
    net = randomised(HeadNet(nn.Linear(CHANNELS, 16), nn.Hardswish(), nn.Linear(16, CLASSES)))
    x, classes = inputs(3, 5), torch.tensor([[1, 4], [0, 9], [2, 2]])
    with torch.no_grad():
        closed = make_explained(net, inputs(1, 99), method)
        assert closed.head_description == "GAP+Linear+hardswish+Linear"
        expected = closed.class_maps(closed(x), classes)
        # The last layer of the body returns the same tensor under another name, which has no closed form.
        tail = make_explained(net, inputs(1, 99), method, "features.5")
        maps = tail.class_maps(tail(x), classes)
    assert isinstance(tail, CAMExplainer) and isinstance(tail.head, AutogradHead)
    assert error_of(maps.flatten(0, 1), expected.flatten(0, 1)) <= TOLERANCE


@pytest.mark.parametrize("name", TAILS)
def test_map_loss_trains_body_and_head(name: str) -> None:
    """Second derivatives match autograd over the whole network in double precision."""
    net = randomised(TAILS[name]())
    explained = by_tail(net)
    x, classes = inputs(2, 3), torch.tensor([[1, 5], [8, 2]])
    result = explained(x)
    explained.class_maps(result, classes).square().sum().backward()
    measured = {key: parameter.grad for key, parameter in net.named_parameters()}

    reference = randomised(TAILS[name]()).double()
    reference.load_state_dict(net.state_dict())
    seen: list[Tensor] = []
    reference.get_submodule(explained.head.target_layer).register_forward_hook(
        lambda _module, _args, output: seen.append(output.clone()) or seen[0]
    )
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        logits, planes = reference(x.double()), explained.head.layout.channels_first
    loss = torch.zeros((), dtype=torch.float64)
    for column in range(2):
        chosen = logits.gather(1, classes[:, column : column + 1]).sum()
        (gradient,) = torch.autograd.grad(chosen, seen[0], create_graph=True)
        loss = loss + (planes(gradient) * planes(seen[0])).sum(1).square().sum()
    loss.backward()
    for key, parameter in reference.named_parameters():
        if parameter.grad is None:
            assert measured[key] is None or not measured[key].any()
            continue
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(measured[key].double(), parameter.grad, rtol=1e-3, atol=1e-4 * scale + 1e-9)


def test_map_in_training_differentiates_only_the_tail() -> None:
    net = randomised(Flattens())
    explained = by_tail(net)
    touched: list[str] = []
    for path in ("features.0", "head.0"):
        net.get_submodule(path).register_forward_hook(
            lambda _module, _args, output, path=path: output.register_hook(lambda _: touched.append(path)) and None
        )
    result = explained(inputs(2, 3))
    explained.class_maps(result, torch.tensor([[1], [5]]))
    assert touched == ["head.0"]


def test_model_without_explainer_is_unchanged() -> None:
    net = randomised(Flattens())
    x = inputs(2, 3)
    with torch.no_grad():
        before = net(x)
        explained = by_tail(net)
        again = net(x)
        assert torch.equal(again, before) and not again.requires_grad
        explained(x)
        assert not torch.is_grad_enabled(), "the gradient mode was not restored"
    logits = net(x)
    logits.sum().backward()
    assert net.features[0].weight.grad is not None, "gradients stop at the target layer"


class TestNamedLayer:
    def test_any_spatial_layer_can_be_named(self) -> None:
        net = randomised(HeadNet())
        explained = by_tail(net, autograd_head_at(net, inputs(1, 0), "features.2"))
        x, classes = inputs(3, 1), torch.tensor([1, 2, 3])
        with torch.no_grad():
            maps = explained.class_maps(explained(x), classes[:, None])[:, 0]
        assert maps.shape == (3, 16, 16)
        assert error_of(maps, hires_cam(net, net.features[2], x, classes)) <= TOLERANCE

    def test_target_layer_of_closed_form_keeps_it(self) -> None:
        assert make_explained(HeadNet(), inputs(1, 0), target_layer="features").head_description == "GAP+Linear"

    def test_unknown_layer_is_rejected_with_similar_names(self) -> None:
        with pytest.raises(UsageError, match=r"HeadNet has no layer 'feature\.4'.* features\.4"):
            make_explained(HeadNet(), inputs(1, 0), target_layer="feature.4")

    @pytest.mark.parametrize(
        ("make", "path", "why"),
        [
            (Flattens, "head.0", r"returns a tensor \[1, 24\], which has no spatial positions"),
            (TAILS["class token"], "encoder.ln", "that the logits do not depend on"),
            (TAILS["class token"], "encoder.layers.encoder_layer_0.self_attention", "does not return a tensor"),
        ],
    )
    def test_unsuitable_layer_is_rejected(self, make: Callable[[], nn.Module], path: str, why: str) -> None:
        with pytest.raises(HeadNotSupported, match=why):
            make_explained(make(), inputs(1, 0), target_layer=path)


def test_additional_model_outputs_are_rejected() -> None:
    class Twofold(Flattens):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), x

    with pytest.raises(HeadNotSupported, match=r"Twofold .* returned tuple. Expected one tensor of logits \[N, K\]"):
        make_explained(Twofold(), inputs(1, 0))


def test_model_without_spatial_layers_is_rejected() -> None:
    with pytest.raises(HeadNotSupported, match=r"none of its layers.*--target-layer.*--method none"):
        make_explained(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4)), inputs(1, 0))


class TestLayout:
    GRIDS = grids_below([(56, 28)])

    def test_merged_patches_halve_the_resolution(self) -> None:
        assert {(56, 28), (28, 14), (14, 7), (7, 4), (7, 3)} <= self.GRIDS
        assert min(min(grid) for grid in self.GRIDS) == 2

    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ((1, 9, 14, 7), SpatialLayout("NCHW", 14, 7)),
            ((1, 14, 7, 9), SpatialLayout("NHWC", 14, 7)),
            ((1, 98, 9), SpatialLayout("tokens", 14, 7)),
            ((1, 103, 9), SpatialLayout("tokens", 14, 7, prefix=5)),
            ((1, 3, 98, 98), None),
            ((1, 9), None),
        ],
    )
    def test_layout_is_inferred_from_the_shape(self, shape: tuple[int, ...], expected: SpatialLayout | None) -> None:
        assert layout_of(shape, self.GRIDS) == expected

    def test_positions_are_row_major(self) -> None:
        planes = torch.arange(2 * 3 * 14 * 7).reshape(2, 3, 14, 7)
        rows = planes.permute(0, 2, 3, 1)
        tokens = torch.cat([torch.zeros(2, 5, 3, dtype=torch.int64), rows.flatten(1, 2)], dim=1)
        assert torch.equal(SpatialLayout("NHWC", 14, 7).channels_first(rows), planes)
        assert torch.equal(SpatialLayout("tokens", 14, 7, 5).channels_first(tokens), planes)


def test_class_scores_are_not_used_as_features() -> None:
    """If the last spatial tensor holds class scores, the target layer is the one before."""
    net = nn.Sequential(body(), nn.Conv2d(CHANNELS, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert find_autograd_head(net, inputs(1, 0)).target_layer == "0"


def test_target_layers_of_squeezenet_and_vgg() -> None:
    for name, positions in (("squeezenet1_1", 7), ("vgg11", 4)):
        with torch.no_grad():  # vgg11 takes a second to initialize
            model = torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
        tail = find_autograd_head(model, F.interpolate(inputs(1, 0), 128))
        assert (tail.target_layer, tail.layout) == ("features", SpatialLayout("NCHW", positions, positions))


def test_map_loss_differentiates_hard_sigmoid() -> None:
    """PyTorch's kernel has no second derivative."""
    gated = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Hardsigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    explained = make_explained(gated, inputs(1, 99), "gradcam", "0")
    explained.class_maps(explained(inputs(2, 3)), torch.tensor([[1], [2]])).square().sum().backward()
    assert gated[0].weight.grad is not None and gated[0].weight.grad.any()


class TestDefault:
    """The default is the most faithful class-specific method of each head (benchmarks/saliency-maps.md)."""

    @pytest.mark.parametrize("name", [name for name in TAILS if "class token" not in name])
    def test_convolutional_heads_default_to_hirescam(self, name: str) -> None:
        net = randomised(TAILS[name]())
        assert make_explained(net, inputs(1, 99)).method == "hirescam"

    def test_class_token_defaults_to_gradient_attention(self) -> None:
        net = randomised(TAILS["class token"]())
        explained, x, classes = make_explained(net, inputs(1, 99)), inputs(2, 3), torch.tensor([[1, 5], [8, 2]])
        assert (explained.method, explained.target_layer) == ("gradient-attention", None)
        named = make_explained(net, inputs(1, 99), "gradient-attention")
        with torch.no_grad():
            torch.testing.assert_close(explained.class_maps(explained(x), classes), named.class_maps(named(x), classes))

    def test_named_layer_of_a_transformer_uses_hirescam(self) -> None:
        net = randomised(TAILS["class token"]())
        named = make_explained(net, inputs(1, 99), target_layer="encoder.layers.encoder_layer_1.ln_1")
        assert named.method == "hirescam"

    def test_averaged_tokens_default_to_hirescam(self) -> None:
        options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
        mean = timm.models.VisionTransformer(**options, global_pool="avg", class_token=False, reg_tokens=2)
        assert make_explained(randomised(mean), inputs(1, 99)).method == "hirescam"
        token = timm.models.VisionTransformer(**options, global_pool="token", reg_tokens=2)
        assert make_explained(randomised(token), inputs(1, 99)).method == "gradient-attention"
