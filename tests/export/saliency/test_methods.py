"""Test saliency methods against pytorch-grad-cam, captum and the formulas of the papers."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from captum.attr import IntegratedGradients, Saliency
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction
from small_nets import CHANNELS, CLASSES, POSITIONS, SIDE, TAILS, Flattens, HeadNet, inputs, randomised, relative_error
from torch import Tensor, nn

from kdedge_export.errors import HeadNotSupported
from kdedge_export.saliency import METHODS, CAMExplainer, ClosedFormHead, ExplainedModel, make_explained
from kdedge_export.saliency.methods import AttentionMethod, CAMMethod, GradientMethod, PropagationMethod
from kdedge_export.saliency.methods.eigencam import eigencam
from kdedge_export.saliency.methods.gradcam_plus_plus import gradcam_plus_plus
from kdedge_export.saliency.methods.smoothgrad import NOISE_LEVEL, SAMPLES, noise_field, noisy_copies
from kdedge_runtime.errors import UsageError
from kdedge_runtime.saliency_methods import SALIENCY_METHODS, methods_of

TOLERANCE = 1e-4
PACKAGE = {
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "hirescam": HiResCAM,
    "layercam": LayerCAM,
    "xgradcam": XGradCAM,
}


def mlp_head() -> nn.Module:
    return HeadNet(nn.Linear(CHANNELS, 16), nn.Hardswish(), nn.Linear(16, CLASSES))


NETS: dict[str, Callable[[], nn.Module]] = {
    "closed form": HeadNet,
    "closed form with two layers": mlp_head,
    "flattens": Flattens,
    "class token": TAILS["class token"],
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    return randomised(NETS[request.param]())


def maps_of(explained: ExplainedModel, x: Tensor, classes: Tensor) -> Tensor:
    with torch.no_grad():
        return explained.class_maps(explained(x), classes[:, None])[:, 0]


def test_registry_lists_the_methods_of_each_family() -> None:
    families = {
        CAMMethod: "cam",
        GradientMethod: "gradient",
        AttentionMethod: "attention",
        PropagationMethod: "propagation",
    }
    assert tuple(METHODS) == methods_of("torch")
    assert {name: SALIENCY_METHODS[name].family for name in METHODS} == {
        name: families[type(method)] for name, method in METHODS.items()
    }


OF_ANY_HEAD = [name for name, method in METHODS.items() if isinstance(method, CAMMethod | GradientMethod)]


@pytest.mark.parametrize("name", OF_ANY_HEAD)
def test_registry_names_the_class_specific_methods(name: str) -> None:
    """Maps of two classes differ exactly if the registry calls the method class-specific."""
    x = inputs(1, 5)
    explained = make_explained(randomised(HeadNet()), x, name)
    one, other = (maps_of(explained, x, torch.tensor([index])) for index in (0, 2))
    assert torch.allclose(one, other) != SALIENCY_METHODS[name].is_class_specific


def plus_plus(activations: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Return Grad-CAM++ maps by eq. 5 and 19 of the paper in double precision."""
    a, g = activations.astype(np.float64), slopes.astype(np.float64)
    denominator = 2 * g**2 + a.sum(axis=(2, 3), keepdims=True) * g**3
    shares = np.divide(g**2, denominator, out=np.zeros_like(g), where=denominator != 0)
    return np.einsum("nc,nchw->nhw", (shares * np.maximum(g, 0)).sum(axis=(2, 3)), a)


def test_gradcam_plus_plus_matches_the_paper_at_any_scale() -> None:
    """After pooling, gradients are so small that pytorch-grad-cam's epsilon is as large as their squares."""
    torch.manual_seed(0)
    activations, slopes = torch.randn(4, 64, 16, 16).relu(), torch.randn(4, 64, 1, 1) / (8 * 256)
    expected = plus_plus(activations.numpy(), slopes.expand(4, 64, 16, 16).numpy())
    for scale in (1.0, 1e-3, 1e3):  # of the logit; the map scales with it as in the paper
        maps = gradcam_plus_plus(activations, scale * slopes[:, None])[:, 0].numpy()
        scaled = plus_plus(activations.numpy(), scale * slopes.expand(4, 64, 16, 16).numpy())
        np.testing.assert_allclose(maps, scaled, rtol=1e-4, atol=1e-5 * np.abs(scaled).max())
    package = GradCAMPlusPlus.get_cam_weights(
        None, None, None, None, activations.numpy(), slopes.expand(4, 64, 16, 16).numpy()
    )
    theirs = np.einsum("nc,nchw->nhw", package, activations.numpy())
    assert np.corrcoef(theirs.ravel(), expected.ravel())[0, 1] < 0.99, "epsilon makes no difference"


def test_gradcam_plus_plus_skips_undefined_weights() -> None:
    activations = torch.tensor([[[[-1.0, -1.0]], [[1.0, 3.0]]]])  # sums of -2 and 4
    slopes = torch.tensor([[[[[1.0, 0.5]], [[1.0, 0.0]]]]])
    # 2 + g·sum is 0 and 1 in the first channel, 6 and 2 in the second.
    expected = 0.5 / 1 * activations[0, 0] + 1 / 6 * activations[0, 1]
    torch.testing.assert_close(gradcam_plus_plus(activations, slopes)[0, 0], expected)


@pytest.mark.parametrize("method", PACKAGE)
def test_cam_methods_match_pytorch_grad_cam(net: nn.Module, method: str) -> None:
    """For Grad-CAM++ the expected map is that of the paper, since pytorch-grad-cam's epsilon is not negligible."""
    explained = make_explained(net, inputs(1, 9), method)
    assert isinstance(explained, CAMExplainer)
    layer, head = net.get_submodule(explained.head.target_layer), explained.head
    planes = (lambda activations: activations) if isinstance(head, ClosedFormHead) else head.layout.channels_first
    targets, classes = [ClassifierOutputTarget(index) for index in (2, 8, 8)], torch.tensor([2, 8, 8])
    for seed in (1, 2):
        x = inputs(3, seed)
        with PACKAGE[method](net, [layer], reshape_transform=planes) as package:
            package(x, targets)
            activations, slopes = (
                one[0].numpy()
                for one in (package.activations_and_grads.activations, package.activations_and_grads.gradients)
            )
            # The package's map before ReLU, scaling and resizing.
            raw = package.get_cam_image(x, layer, targets, activations, slopes, False)
            if method == "gradcam++":
                raw = plus_plus(activations, slopes)
        assert raw.shape == (3, POSITIONS, POSITIONS)
        assert relative_error(maps_of(explained, x, classes), torch.from_numpy(np.float32(raw))) <= TOLERANCE


def test_eigencam_matches_pytorch_grad_cam_with_sign_correction(net: nn.Module) -> None:
    explained = make_explained(net, inputs(1, 9), "eigencam")
    assert isinstance(explained, CAMExplainer)
    planes = (lambda seen: seen) if isinstance(explained.head, ClosedFormHead) else explained.head.layout.channels_first
    for seed in (1, 2):
        x = inputs(3, seed)
        with torch.no_grad():
            activations = planes(explained(x).attribution_inputs[0].detach())
        expected = torch.from_numpy(get_2d_projection_with_sign_correction(activations.numpy()))
        assert relative_error(maps_of(explained, x, torch.tensor([0, 1, 2])), expected) <= TOLERANCE


def test_cam_weights_activations_by_class() -> None:
    net = randomised(HeadNet())
    x, classes = inputs(3, 1), torch.tensor([0, 4, 9])
    with torch.no_grad():
        expected = torch.einsum("nchw,nc->nhw", net.features(x), net.head[0].weight[classes])
        maps = maps_of(make_explained(net, inputs(1, 9), "cam"), x, classes)
        logits = net(x).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(maps.mean(dim=(1, 2)) + net.head[0].bias[classes], logits)


@pytest.mark.parametrize("make", [mlp_head, *TAILS.values()])
def test_cam_without_a_linear_head_is_rejected(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(HeadNotSupported, match=r"no class activation map \(cam\).*Choose another --method"):
        make_explained(make(), inputs(1, 9), "cam")


def test_input_gradient_matches_captum(net: nn.Module) -> None:
    explained = make_explained(net, inputs(1, 9), "input-gradient")
    for seed in (1, 2):
        x, classes = inputs(3, seed), torch.tensor([1, 4, 7])
        expected = Saliency(net).attribute(x.clone(), target=classes).amax(dim=1)
        maps = maps_of(explained, x, classes)
        assert maps.shape == (3, SIDE, SIDE)
        assert relative_error(maps, expected) <= TOLERANCE


def test_integrated_gradients_match_captum(net: nn.Module) -> None:
    explained = make_explained(net, inputs(1, 9), "integrated-gradients")
    for seed in (1, 2):
        x, classes = inputs(3, seed), torch.tensor([1, 4, 7])
        expected = IntegratedGradients(net).attribute(x, target=classes, n_steps=16, method="gausslegendre").sum(dim=1)
        assert relative_error(maps_of(explained, x, classes), expected.float()) <= TOLERANCE


def test_integrated_gradients_are_complete() -> None:
    net = randomised(TAILS["class token"]())  # smooth, so that few steps suffice
    x, classes = inputs(3, 1), torch.tensor([1, 4, 7])
    total = maps_of(make_explained(net, inputs(1, 9), "integrated-gradients"), x, classes).sum(dim=(1, 2))
    with torch.no_grad():
        difference = (net(x) - net(torch.zeros_like(x))).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(total, difference, rtol=0.05, atol=0.01)


def test_smoothgrad_matches_captum_over_noisy_copies(net: nn.Module) -> None:
    explained = make_explained(net, inputs(1, 9), "smoothgrad")
    x, classes = inputs(3, 1), torch.tensor([1, 4, 7])
    copies = noisy_copies(x, noise_field(SIDE, SIDE))[:-1]
    slopes = [Saliency(net).attribute(copy.clone(), target=classes, abs=False) for copy in copies]
    expected = torch.stack(slopes).mean(dim=0).abs().amax(dim=1)
    assert relative_error(maps_of(explained, x, classes), expected) <= TOLERANCE


def test_smoothgrad_noise_is_deterministic_and_of_the_papers_level() -> None:
    x = inputs(2, 1, 64)
    copies = noisy_copies(x, noise_field(64, 64))
    assert torch.equal(copies, noisy_copies(x, noise_field(64, 64)))
    assert torch.equal(copies[-1], x) and len(copies) == SAMPLES + 1
    reach = x.amax(dim=(1, 2, 3)) - x.amin(dim=(1, 2, 3))
    noise = (copies[:-1] - x) / reach[:, None, None, None]
    assert float(noise.std()) == pytest.approx(NOISE_LEVEL, rel=0.02)
    correlation = torch.corrcoef(noise[:, 0].flatten(1)) - torch.eye(SAMPLES)
    assert correlation.abs().max() < 0.1, "noise samples are correlated"


def test_eigencam_separates_close_components() -> None:
    """The first components have almost equal norms, with both more and fewer positions than channels."""
    rng = np.random.default_rng(0)
    for channels, side in ((6, 8), (128, 5)):
        left = np.linalg.qr(rng.normal(size=(side * side, 4)) - 0)[0]
        left -= left.mean(axis=0)
        right = np.linalg.qr(rng.normal(size=(channels, 4)))[0]
        positions = left * [10, 9.8, 3, 1] @ right.T
        activations = torch.from_numpy(np.float32(positions.T.reshape(1, channels, side, side)))
        expected = torch.from_numpy(get_2d_projection_with_sign_correction(activations.numpy()))
        maps = eigencam(activations, torch.zeros(1, 1, channels, 1, 1))[:, 0]
        assert relative_error(maps, expected) <= 1e-3


class TestAttention:
    """Attention methods match timm's attention matrices and the formulas of the papers."""

    @pytest.fixture(params=[1, 2])
    def vit(self, request: pytest.FixtureRequest) -> nn.Module:
        return self.vit_with(reg_tokens=request.param - 1)

    @staticmethod
    def vit_with(**options: Any) -> nn.Module:
        """Return a small vision transformer with weights large enough for attention to differ."""
        net = timm.models.VisionTransformer(
            img_size=SIDE, patch_size=4, embed_dim=24, depth=3, num_heads=3, num_classes=CLASSES, **options
        )
        for parameter in net.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        return net.eval().requires_grad_(False)

    @staticmethod
    def matrices(vit: nn.Module, x: Tensor, classes: Tensor) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return attention and its gradient in each block from timm's unfused attention."""
        seen: list[Tensor] = []
        handles = []
        for block in vit.blocks:
            block.attn.fused_attn = False
            handles.append(block.attn.attn_drop.register_forward_pre_hook(lambda _module, args: seen.append(args[0])))
        logits = vit(x.clone().requires_grad_())
        slopes = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), seen)
        for block, handle in zip(vit.blocks, handles, strict=True):
            block.attn.fused_attn = True
            handle.remove()
        return [one.detach().double().numpy() for one in seen], [one.double().numpy() for one in slopes]

    def test_rollout(self, vit: nn.Module) -> None:
        explained = make_explained(vit, inputs(1, 9), "attention-rollout")
        prefix = vit.num_prefix_tokens
        for seed in (1, 2):
            x, classes = inputs(2, seed), torch.tensor([1, 4])
            attention, _ = self.matrices(vit, x, classes)
            maps = maps_of(explained, x, classes)
            for image in range(2):
                rollout = np.eye(64 + prefix)
                for matrix in attention:
                    with_residual = matrix[image].mean(axis=0) + np.eye(64 + prefix)
                    rollout = with_residual / with_residual.sum(axis=-1, keepdims=True) @ rollout
                expected = rollout[0, prefix:].reshape(POSITIONS, POSITIONS)
                np.testing.assert_allclose(maps[image], expected, rtol=1e-4)

    def test_gradient_attention(self, vit: nn.Module) -> None:
        explained = make_explained(vit, inputs(1, 9), "gradient-attention")
        prefix = vit.num_prefix_tokens
        for seed in (1, 2):
            x, classes = inputs(2, seed), torch.tensor([1, 4])
            attention, slopes = self.matrices(copy.deepcopy(vit).double(), x.double(), classes)
            maps = maps_of(explained, x, classes)
            for image in range(2):
                relevance = np.eye(64 + prefix)
                for matrix, slope in zip(attention, slopes, strict=True):
                    weighted = np.maximum(matrix[image] * slope[image], 0).mean(axis=0)
                    relevance = relevance + weighted @ relevance
                expected = relevance[0, prefix:].reshape(POSITIONS, POSITIONS)
                np.testing.assert_allclose(maps[image], expected, rtol=0, atol=TOLERANCE * expected.max())

    @pytest.mark.parametrize("class_token", [True, False])
    @pytest.mark.parametrize("method", ["attention-rollout", "gradient-attention"])
    def test_averaged_tokens_use_their_own_rows(self, method: str, class_token: bool) -> None:
        """Class and register tokens are excluded, since they are not pooled."""
        net = self.vit_with(class_token=class_token, reg_tokens=2, global_pool="avg")
        explained = make_explained(net, inputs(1, 9), method)
        x, classes = inputs(2, 1), torch.tensor([1, 4])
        attention, slopes = self.matrices(copy.deepcopy(net).double(), x.double(), classes)
        maps, prefix = maps_of(explained, x, classes), net.num_prefix_tokens
        for image in range(2):
            identity = np.eye(64 + prefix)
            accumulated = identity
            for matrix, slope in zip(attention, slopes, strict=True):
                if method == "attention-rollout":
                    accumulated = (matrix[image].mean(axis=0) + identity) / 2 @ accumulated
                else:
                    accumulated = accumulated + np.maximum(matrix[image] * slope[image], 0).mean(axis=0) @ accumulated
            relevance = accumulated if method == "attention-rollout" else accumulated - identity
            expected = relevance[prefix:, prefix:].mean(axis=0).reshape(POSITIONS, POSITIONS)
            np.testing.assert_allclose(maps[image], expected, rtol=0, atol=TOLERANCE * expected.max())

    def test_torchvision_transformer_is_supported(self) -> None:
        net = randomised(TAILS["class token"]())
        x = inputs(2, 1)
        maps = maps_of(make_explained(net, inputs(1, 9), "attention-rollout"), x, torch.tensor([0, 1]))
        seen: list[Tensor] = []
        for layer in net.encoder.layers:
            attend = layer.self_attention.forward
            layer.self_attention.forward = lambda q, k, v, need_weights, attend=attend: (
                (out := attend(q, k, v, need_weights=True, average_attn_weights=True)),
                seen.append(out[1].detach()),
            )[0]
        net(x)
        rollout = torch.eye(65)
        for matrix in seen:
            rollout = (matrix + torch.eye(65)) / 2 @ rollout
        torch.testing.assert_close(maps, rollout[:, 0, 1:].reshape(2, POSITIONS, POSITIONS), rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("method", ["attention-rollout", "gradient-attention"])
    def test_model_without_global_attention_is_rejected(self, method: str) -> None:
        for net in (HeadNet(), timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), img_size=64)):
            with pytest.raises(HeadNotSupported, match=f"cannot be explained by {method}.*from all tokens to all"):
                make_explained(net, inputs(1, 9, 64), method)


@pytest.mark.parametrize("method", ["input-gradient", "attention-rollout"])
def test_target_layer_is_rejected_by_methods_without_one(method: str) -> None:
    with pytest.raises(UsageError, match=f"--method {method} uses no target layer"):
        make_explained(TAILS["class token"](), inputs(1, 9), method, "encoder.ln")


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"eigencam", "attention-rollout", "cam", "deeplift"}))
def test_maps_are_class_specific(method: str) -> None:
    net = randomised(TAILS["class token"]())
    explained, x = make_explained(net, inputs(1, 9), method), inputs(2, 1)
    first, second = (maps_of(explained, x, torch.tensor(classes)) for classes in ([0, 0], [5, 5]))
    assert relative_error(first, second) > 0.01


@pytest.mark.parametrize("method", ["gradcam", "input-gradient", "integrated-gradients", "smoothgrad"])
def test_several_classes_match_single_classes(method: str) -> None:
    net = randomised(Flattens())
    explained, x = make_explained(net, inputs(1, 9), method), inputs(2, 1)
    classes = torch.tensor([[3, 5], [7, 1]])
    with torch.no_grad():
        maps = explained.class_maps(explained(x), classes)
    for column in range(2):
        torch.testing.assert_close(maps[:, column], maps_of(explained, x, classes[:, column]))


def test_unknown_method_is_rejected_with_the_available_ones() -> None:
    with pytest.raises(UsageError, match=r"There is no method 'grad-cam'\. Expected one of cam, gradcam, "):
        make_explained(randomised(HeadNet()), inputs(1, 0), "grad-cam")
