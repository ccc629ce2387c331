"""Defaults of a run: input size, output stride, batch size and epochs."""

import pytest
import torch

from kdedge.config.defaults import (
    SIZES,
    check_map_size,
    choose_batch_size,
    choose_epochs,
    choose_size,
    requested_stride_factor,
    stride_factor,
)
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.stem import output_strides
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.image import ImageInput

SPEC = ImageInput(64, 64, (0.5,) * 3, (0.25,) * 3)


class TestSize:
    @pytest.mark.parametrize(
        ("typical", "gpu", "cpu"),
        [(10, 32, 32), (32, 32, 32), (33, 48, 32), (60, 64, 48), (64, 64, 64), (65, 96, 64), (224, 224, 64)],
    )
    def test_size_is_larger_on_a_gpu_than_on_a_cpu(self, typical: int, gpu: int, cpu: int) -> None:
        assert choose_size(typical, on_cpu=False) == gpu
        assert choose_size(typical, on_cpu=True) == cpu

    @pytest.mark.parametrize("on_cpu", [True, False])
    def test_large_photos_get_the_largest_size(self, on_cpu: bool) -> None:
        assert choose_size(4000, on_cpu=on_cpu) == (64 if on_cpu else 224)


def powers_of_two(own_stride: int) -> list[int]:
    return [own_stride >> shift for shift in range(own_stride.bit_length())]


class TestStride:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("own_stride", [4, 8, 16, 32])
    def test_map_is_the_smallest_of_at_least_7x7(self, size: int, own_stride: int) -> None:
        factor = stride_factor(size, powers_of_two(own_stride))
        assert size * factor // own_stride >= 7
        assert factor == 1 or size * (factor // 2) // own_stride < 7

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("name", ["small:resnet8x4", "small:resnet10w16", "torchvision:convnext_tiny"])
    def test_real_networks_reach_the_stride(self, name: str, size: int) -> None:
        with torch.device("meta"):  # shapes without data
            strides = output_strides(build_model(ModelSpec(name, 5), size), size, fresh=True)
            factor = stride_factor(size, strides)
            (reached, *_) = output_strides(build_model(ModelSpec(name, 5, factor), size), size, fresh=True)
        assert size // reached >= 7
        assert reached == strides[0] // factor

    def test_stride_reduction_is_limited(self) -> None:
        assert stride_factor(32, [32, 16]) == 2

    def test_requested_stride(self) -> None:
        strides = powers_of_two(32)
        assert [requested_stride_factor(wanted, strides) for wanted in (1, 2, 4, 8, 16, 32)] == [32, 16, 8, 4, 2, 1]

    @pytest.mark.parametrize("wanted", [0, -4, 3, 12, 64])
    def test_unsupported_stride_is_rejected(self, wanted: int) -> None:
        with pytest.raises(UsageError, match=rf"32.*cannot be changed to {wanted}\. .*32, 16, 8, 4, 2, 1"):
            requested_stride_factor(wanted, powers_of_two(32))

    def test_unsupported_stride_of_a_patch_network_is_rejected(self) -> None:
        with torch.device("meta"):
            strides = output_strides(build_model(ModelSpec("torchvision:convnext_tiny", 5), 224), 224, fresh=True)
        with pytest.raises(
            UsageError, match=r"cannot be changed to 16\. Expected an --output-stride of 32, 8, 4, 2, 1\."
        ):
            requested_stride_factor(16, strides)

    def test_too_coarse_map_is_rejected(self) -> None:
        check_map_size((4, 4), SPEC)
        check_map_size(None, SPEC)
        with pytest.raises(UsageError, match=r"only 3 × 4.*--size"):
            check_map_size((3, 4), SPEC)


class TestEpochs:
    @pytest.mark.parametrize("steps", [1, 7, 30, 100, 1000, 10_000])
    def test_gpu_trains_about_4000_steps(self, steps: int) -> None:
        epochs = choose_epochs(4000, steps, 0.0, on_cpu=False, fine_tuning=False)
        assert 30 <= epochs <= 300
        if 30 < epochs < 300:
            assert 0.8 * 4000 <= epochs * steps <= 4000

    @pytest.mark.parametrize("seconds", [0.01, 0.5, 3, 17, 60, 200, 449])
    def test_cpu_trains_at_most_15_minutes(self, seconds: float) -> None:
        epochs = choose_epochs(4000, 10, seconds, on_cpu=True, fine_tuning=False)
        assert 2 <= epochs <= 300
        assert epochs * seconds <= 15 * 60
        if epochs < 300:
            assert (epochs + 1) * 1.25 * seconds > 15 * 60, "uses most of the limit"

    def test_slowest_machine_trains_two_epochs(self) -> None:
        assert choose_epochs(4000, 10, 3600, on_cpu=True, fine_tuning=False) == 2

    def test_epochs_decrease_with_epoch_time(self) -> None:
        chosen = [
            choose_epochs(4000, 10, seconds / 10, on_cpu=True, fine_tuning=False) for seconds in range(1, 5000, 7)
        ]
        assert chosen == sorted(chosen, reverse=True)

    def test_epochs_are_robust_to_measurement_noise(self) -> None:
        assert (
            len(
                {
                    choose_epochs(4000, 10, 10 * (1 + noise / 100), on_cpu=True, fine_tuning=False)
                    for noise in range(-5, 6)
                }
            )
            <= 2
        )


def test_batch_size_grows_with_the_dataset() -> None:
    sizes = [choose_batch_size(images) for images in (1, 100, 999, 1000, 7999, 8000, 1_000_000)]
    assert sizes == [32, 32, 32, 64, 64, 128, 128]
