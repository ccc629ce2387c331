"""Test saliency formulas on small tensors of unequal sides against NumPy in double precision."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kdedge_export.saliency.methods.attention_rollout import attention_rollout
from kdedge_export.saliency.methods.cam import cam
from kdedge_export.saliency.methods.eigencam import eigencam
from kdedge_export.saliency.methods.gradcam_plus_plus import gradcam_plus_plus
from kdedge_export.saliency.methods.gradient_attention import gradient_attention
from kdedge_export.saliency.methods.integrated_gradients import STEPS, integrated_gradients, integration_path
from kdedge_export.saliency.methods.smoothgrad import NOISE_LEVEL, SAMPLES, noise_field, noisy_copies, smoothgrad
from kdedge_export.saliency.methods.xgradcam import EPSILON, xgradcam


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cam_is_positions_times_gradient() -> None:
    activations, gradients = drawn(2, 5, 3, 7), drawn(2, 4, 5, 1, 1, seed=1)
    expected = 21 * torch.einsum("nkc,nchw->nkhw", gradients[..., 0, 0], activations)
    torch.testing.assert_close(cam(activations, gradients), expected)


@pytest.mark.parametrize("shape", [(3, 4, 5, 7), (3, 40, 2, 3), (3, 6, 2, 3)])
def test_eigencam_matches_svd_per_image(shape: tuple[int, ...]) -> None:
    activations = drawn(*shape) * torch.tensor([1.0, 30.0, 0.01], dtype=torch.float64)[:, None, None, None]
    found = eigencam(activations, drawn(3, 2, shape[1], 1, 1))
    assert found.shape == (3, 2, *shape[2:])
    for image, maps in zip(activations, found, strict=True):
        positions = image.flatten(1).T.numpy()
        _, _, rows = np.linalg.svd(positions - positions.mean(axis=0))
        expected = (positions - positions.mean(axis=0)) @ rows[0]
        expected *= np.sign(expected[np.abs(expected).argmax()])
        for one in maps:
            np.testing.assert_allclose(one.flatten().numpy(), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("rest", "is_kept"), [(3.8e-3, False), (4.2e-3, True), (5.0e-3, True), (1e-3, False)])
def test_gradcam_plus_plus_skips_small_denominators(rest: float, is_kept: bool) -> None:
    """The terms are 2 and `rest` - 2, and the sum of their magnitudes is 4 - `rest`."""
    activations = torch.tensor([[[[rest - 2]]]], dtype=torch.float64)
    found = gradcam_plus_plus(activations, torch.ones(1, 1, 1, 1, 1, dtype=torch.float64))
    assert found.item() == pytest.approx((rest - 2) / rest if is_kept else 0.0)


def test_xgradcam_includes_epsilon() -> None:
    activations, gradients = EPSILON * torch.ones(1, 1, 2, 3, dtype=torch.float64), drawn(1, 1, 1, 2, 3)
    weight = gradients.sum() / 7  # six positions and epsilon
    torch.testing.assert_close(xgradcam(activations, gradients), (weight * activations)[:, :1], rtol=1e-6, atol=0)


class TestAttention:
    @pytest.mark.parametrize("blocks", [1, 3])
    def test_rollout_matches_numpy(self, blocks: int) -> None:
        attention = tuple(drawn(2, 3, 5, 5, seed=block).softmax(dim=-1) for block in range(blocks))
        expected = np.stack([np.eye(5)] * 2)
        for matrix in attention:
            expected = (0.5 * matrix.numpy().mean(axis=1) + 0.5 * np.eye(5)) @ expected
        with torch.device("meta"):  # tensors are created on the device of the attention
            found = attention_rollout(attention, ())
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy(), expected)

    def test_gradient_of_each_block_is_required(self) -> None:
        matrix = drawn(1, 2, 4, 4)
        with pytest.raises(ValueError, match="zip"):
            gradient_attention((matrix, matrix), (matrix,))


class TestPixels:
    def test_path_matches_gauss_legendre(self) -> None:
        """Polynomials are integrated exactly: ∫ (1 + 3a²) da = 2 along the path to each pixel."""
        images = drawn(2, 3, 4, 5)
        with torch.device("meta"):  # tensors are created on the device of the images
            points = integration_path(images, torch.zeros(0, device="cpu"))
            shares = (points / images)[:, :1, :1, :1, :1]
            found = integrated_gradients(points, (1 + 3 * shares**2).expand_as(points))
        assert points.shape == (STEPS + 1, 2, 3, 4, 5)
        torch.testing.assert_close(points[-1], images)
        torch.testing.assert_close(found, 2 * images.sum(dim=1))

    def test_noise_is_seeded_and_rolled_per_sample(self) -> None:
        noise = noise_field(32, 48)
        torch.testing.assert_close(noise, torch.randn(3, 32, 48, generator=torch.Generator().manual_seed(0)))
        images = drawn(2, 3, 32, 48).float()
        points = noisy_copies(images, noise)
        assert points.shape == (SAMPLES + 1, 2, 3, 32, 48)
        torch.testing.assert_close(points[-1], images)
        for sample in range(SAMPLES):
            down, across = 2 * sample, sample * 21 % 48  # 32 and 7 · 48 pixels in 16 steps
            for image, point in zip(images, points[sample], strict=True):
                moved = np.roll(noise.numpy(), (down, across), axis=(1, 2))
                expected = image.numpy() + NOISE_LEVEL * float(image.max() - image.min()) * moved
                np.testing.assert_allclose(point.numpy(), expected, rtol=1e-5, atol=1e-5)

    def test_smoothgrad_averages_samples_without_the_image(self) -> None:
        gradients = drawn(SAMPLES + 1, 2, 3, 4, 5)
        expected = gradients[:-1].numpy().mean(axis=0)
        found = smoothgrad(gradients, gradients)
        np.testing.assert_allclose(found.numpy(), np.abs(expected).max(axis=1))
