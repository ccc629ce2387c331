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


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("size", "factor", "positions"), [(32, 8, 8), (96, 4, 12)])
def test_map_has_the_expected_size(name: str, size: int, factor: int, positions: int) -> None:
    """A successful forward pass shows that shortcuts still match."""
    with torch.device("meta"):  # shapes without data
        model = network(name, size, factor)
        assert map_side(model, size) == positions
        assert output_strides(model, size)[0] * positions == size


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

    def test_pretrained_stem_keeps_its_kernel(self) -> None:
        whole, finer = network("resnet18", 32), network("resnet18", 32, 8, fresh=False)
        load_state(finer, whole.state_dict(), "the same network")
        assert finer.conv1.kernel_size == (7, 7)
        assert finer.conv1.stride == (1, 1)
        assert finer.maxpool.stride == 1
        assert map_side(finer, 32) == 8

    def test_factor_one_changes_nothing(self) -> None:
        assert str(network("resnet18", 224)) == str(network("resnet18", 224, 1, fresh=False))


class TestLimits:
    def test_reached_factor_is_returned(self) -> None:
        model = build_model(ModelSpec("small:resnet8", 5), 32)
        assert output_strides(model, 32) == (4, 2, 1)
        assert reduce_stride(model, 16, 32, fresh=True) == 4
        assert output_strides(model, 32) == (1,)

    def test_strides_larger_than_two_are_counted(self) -> None:
        with torch.device("meta"):
            model = network("convnext_tiny", 64)
            assert output_strides(model, 64) == (32, 8, 4, 2, 1)
            assert reduce_stride(model, 2, 64, fresh=True) == 4
            assert output_strides(model, 64) == (8, 4, 2, 1)

    @pytest.mark.parametrize(("name", "size"), [("alexnet", 32), ("vit_b_16", 64)])
    def test_too_small_image_is_rejected(self, name: str, size: int) -> None:
        with torch.device("meta"):
            model = network(name, size)
        with pytest.raises(UsageError, match=rf"does not accept images of {size} × {size} px: .*--size"):
            output_strides(model, size)

    def test_inspection_does_not_modify_the_model(self) -> None:
        model = network("mobilenet_v2", 64).train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        output_strides(model, 64)
        assert model.training
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert not any(layer._forward_pre_hooks for layer in model.modules())
