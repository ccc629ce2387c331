"""Reduced output strides: the expected map resolution, unchanged weights, matching shortcuts."""

import pytest
import torch
from torch import Tensor, nn

from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.stem import output_strides, reduce_stride
from kdedge.models.weight_files import load_state
from kdedge_runtime.errors import UsageError

NETWORKS = ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5")


def network(name: str, size: int, factor: int = 1, *, fresh: bool = True) -> nn.Module:
    return build_model(ModelSpec(f"torchvision:{name}", 5, factor, fresh), size).eval()


def map_side(model: nn.Module, size: int) -> int:
    """Return the side of the last spatial activations before pooling."""
    sides: list[int] = []

    def note(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.ndim == 4 and output.shape[-1] > 1:
            sides.append(output.shape[-1])

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    assert logits.shape == (1, 5)
    return sides[-1]


def last_spatial(model: nn.Module, images: Tensor) -> Tensor:
    """Return the last spatial activations of a convolution."""
    outputs: list[Tensor] = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad():
        model(images)
    return [output for output in outputs if output.ndim == 4 and output.shape[-1] > 1][-1]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("size", "factor", "positions"), [(32, 8, 8), (96, 4, 12)])
def test_map_has_the_expected_size(name: str, size: int, factor: int, positions: int) -> None:
    """A successful forward pass shows that shortcuts still match."""
    with torch.device("meta"):  # shapes without data
        model = network(name, size, factor)
        assert map_side(model, size) == positions
        assert output_strides(model, size, fresh=True)[0] * positions == size


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5"])
def test_main_path_and_shortcut_are_changed_together(name: str) -> None:
    model = network(name, 32, 8)
    strided = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.stride[0] > 1]
    assert len(strided) == 2 * 2, "two of five levels are left, each with a shortcut"
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).isfinite().all()


class TestStem:
    def test_untrained_network_gets_a_small_stem(self) -> None:
        model = network("resnet18", 32, 8)
        assert model.conv1.kernel_size == (3, 3)
        assert model.conv1.stride == model.conv1.padding == (1, 1)
        assert isinstance(model.maxpool, nn.Identity)

    def test_factor_one_changes_nothing(self) -> None:
        assert str(network("resnet18", 224)) == str(network("resnet18", 224, 1, fresh=False))


class TestTrainedNetwork:
    """A trained network loses its last strides, and later kernels are dilated."""

    @pytest.mark.parametrize(
        "name", [*NETWORKS, "densenet121", "convnext_tiny", "timm:resnet26d", "timm:convnext_atto"]
    )
    @pytest.mark.parametrize("factor", [2, 4])
    def test_features_at_the_original_positions_stay(self, name: str, factor: int) -> None:
        name = name if ":" in name else f"torchvision:{name}"
        coarse, fine = (build_model(ModelSpec(name, 5, by, fresh_stem=False), 128).eval() for by in (1, factor))
        for module in coarse.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
        load_state(fine, coarse.state_dict(), "the same network")
        images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
        before, after = (last_spatial(model, images) for model in (coarse, fine))
        averages_positions = "efficientnet" in name or "mobilenet" in name  # squeeze-and-excitation
        tolerance = 0.05 if averages_positions else 1e-4
        difference = after[:, :, ::factor, ::factor] - before
        assert after.shape[-1] == factor * before.shape[-1]
        assert float(difference.abs().max()) < tolerance * float(before.abs().max())

    def test_shapes_of_weights_and_the_stem_stay(self) -> None:
        model = network("resnet18", 32, 8, fresh=False)
        assert (model.conv1.kernel_size, model.conv1.stride) == ((7, 7), (2, 2))
        assert model.layer4[1].conv2.dilation == (8, 8)
        assert map_side(model, 32) == 8

    def test_same_padding_of_tensorflow_is_kept(self) -> None:
        model = build_model(ModelSpec("timm:tf_efficientnet_lite0", 5, 2, fresh_stem=False), 128).eval()
        assert map_side(model, 128) == 8

    @pytest.mark.parametrize(("name", "size"), [("torchvision:inception_v3", 128), ("timm:resnetblur18", 64)])
    def test_network_with_strides_outside_of_layers_is_rejected(self, name: str, size: int) -> None:
        with pytest.raises(UsageError, match="--output-stride"):
            build_model(ModelSpec(name, 5, 4, fresh_stem=False), size)

    def test_strides_are_listed_from_the_last_level(self) -> None:
        with torch.device("meta"):
            assert output_strides(network("convnext_tiny", 64), 64, fresh=False) == (32, 16, 8, 4, 1)


class TestLimits:
    def test_reached_factor_is_returned(self) -> None:
        model = build_model(ModelSpec("small:resnet8", 5), 32)
        assert output_strides(model, 32, fresh=True) == (4, 2, 1)
        assert reduce_stride(model, 16, 32, fresh=True) == 4
        assert output_strides(model, 32, fresh=True) == (1,)

    def test_strides_larger_than_two_are_counted(self) -> None:
        with torch.device("meta"):
            model = network("convnext_tiny", 64)
            assert output_strides(model, 64, fresh=True) == (32, 8, 4, 2, 1)
            assert reduce_stride(model, 2, 64, fresh=True) == 4
            assert output_strides(model, 64, fresh=True) == (8, 4, 2, 1)

    @pytest.mark.parametrize(("name", "size"), [("alexnet", 32), ("vit_b_16", 64)])
    def test_too_small_image_is_rejected(self, name: str, size: int) -> None:
        with torch.device("meta"):
            model = network(name, size)
        with pytest.raises(UsageError, match=rf"does not accept images of {size} × {size} px: .*--size"):
            output_strides(model, size, fresh=True)

    def test_inspection_does_not_modify_the_model(self) -> None:
        model = network("mobilenet_v2", 64).train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        output_strides(model, 64, fresh=True)
        assert model.training
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert not any(layer._forward_pre_hooks for layer in model.modules())
