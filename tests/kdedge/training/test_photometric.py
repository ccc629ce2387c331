"""Photometric augmentation: equal to Pillow and torchvision for the same parameters, with the expected ranges."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from kdedge.training.augmentation import Augmentation, augment, draw_augmentation, photometric
from kdedge.training.augmentation.jpeg import compress
from kdedge.training.augmentation.photometric import PhotometricParams, change_colors, degrade, draw_photometric
from kdedge.training.augmentation.pixel_noise import uniform_noise
from kdedge_export.scenes import LABELS, render_scene

COUNT = 6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes(side: int, count: int = COUNT) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.stack([render_scene(LABELS[at], rng, side).image for at in range(count)]))


def planes(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float()


def unchanged(count: int) -> PhotometricParams:
    identity = torch.eye(3, 4).expand(count, 3, 4)
    zero = torch.zeros(count)
    return PhotometricParams(identity, zero, zero, torch.zeros(count, dtype=torch.int16), zero)


class TestDrawnParameters:
    def test_ranges_grow_with_the_strength(self) -> None:
        gray = torch.full((4000, 3, 1, 1), 100.0)
        widest = []
        for strength in (0.25, 1.0):
            drawn = draw_photometric(strength, 4000, 32, 32, seeded(0))
            # Without contrast and white balance, the mean of a gray image is multiplied by the brightness.
            widest.append(float(change_colors(gray, drawn.colors).flatten(1).mean(dim=1).std()))
            assert float(drawn.sigma.max()) <= 0.02 * 32 * strength
            assert float(drawn.noise.max()) <= 40 * strength
            assert float(drawn.quality.max()) <= 95
        assert widest[1] > 2 * widest[0] > 0

    def test_brightness_covers_dim_and_bright_scenes(self) -> None:
        """At the default strength, training sees images at 0.6 and at 1.5 times their brightness."""
        gray = torch.full((4000, 3, 1, 1), 100.0)
        drawn = draw_photometric(Augmentation().photometric, 4000, 32, 32, seeded(0))
        factors = change_colors(gray, drawn.colors).flatten(1).mean(dim=1) / 100
        assert float((factors < 0.6).float().mean()) > 0.03
        assert float((factors > 1.5).float().mean()) > 0.03

    def test_half_of_the_colors_and_a_quarter_without_degradation_stay(self) -> None:
        drawn = draw_photometric(1.0, 4000, 32, 32, seeded(0))
        kept = (drawn.colors == torch.eye(3, 4)).flatten(1).all(dim=1).float().mean()
        assert abs(float(kept) - 0.5) < 0.05
        for part, lowest in ((drawn.sigma, 0.0), (drawn.noise, 0.0), (drawn.quality, 0.0)):
            assert abs(float((part > lowest).float().mean()) - 0.25) < 0.04
        several = sum((part > 0).int() for part in (drawn.sigma, drawn.noise, drawn.quality))
        assert int(several.max()) == 1

    def test_gray_stays_gray_without_a_change_of_white_balance(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gray = torch.full((200, 3, 1, 1), 60.0)
        spread = []
        for channel in (1.4, 1.0):
            monkeypatch.setattr(photometric, "_CHANNEL", channel)
            changed = change_colors(gray, draw_photometric(1.0, 200, 32, 32, seeded(0)).colors)
            spread.append(float((changed.amax(dim=1) - changed.amin(dim=1)).max()))
        assert spread[0] > 10
        assert spread[1] < 1e-3

    def test_rows_do_not_depend_on_the_batch(self) -> None:
        images, index = scenes(40), torch.tensor([4, 1])
        view = draw_augmentation(Augmentation(photometric=1.0), COUNT, 40, 40, seeded(3))
        whole = augment(images, view)
        assert torch.equal(augment(images[index], view.take(index)), whole[index])
        assert not torch.equal(whole, augment(images, view._replace(photometric=None)))


class TestColors:
    @pytest.mark.parametrize("factor", [0.6, 1.5])
    def test_brightness_equals_torchvision(self, factor: float) -> None:
        images = scenes(32)
        colors = torch.eye(3, 4).expand(COUNT, 3, 4) * factor
        expected = reference.adjust_brightness(planes(images) / 255, factor) * 255
        assert torch.allclose(change_colors(planes(images), colors), expected, atol=1e-3)

    def test_saturation_of_zero_is_luma(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("_BRIGHTNESS", "_CONTRAST", "_CHANNEL"):
            monkeypatch.setattr(photometric, name, 1.0)
        monkeypatch.setattr(photometric, "_SATURATION", 1e9)
        colors = draw_photometric(1.0, 400, 16, 16, seeded(0)).colors
        saturation = colors[:, 0, 0] - colors[:, 1, 0]
        grayest = colors[saturation.argmin()][None].expand(COUNT, 3, 4)
        expected = reference.rgb_to_grayscale(planes(scenes(32)), num_output_channels=3)
        assert torch.allclose(change_colors(planes(scenes(32)), grayest), expected, atol=0.1)

    def test_values_are_clipped(self) -> None:
        changed = change_colors(planes(scenes(32)), 9 * torch.eye(3, 4).expand(COUNT, 3, 4))
        assert float(changed.max()) == 255


class TestDegradations:
    @pytest.mark.parametrize("static", [True, False])
    def test_only_chosen_images_change(self, static: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(photometric, "_has_static_shapes", lambda _: static)
        images = planes(scenes(40))
        chosen = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
        for change in ({"sigma": chosen}, {"noise": 20 * chosen}, {"quality": 30 * chosen}):
            after = degrade(images, unchanged(COUNT)._replace(**change))
            moved = (after - images).abs().flatten(1).amax(dim=1) > 0
            assert torch.equal(moved, chosen > 0), change

    def test_static_shapes_give_the_same_images(self, monkeypatch: pytest.MonkeyPatch) -> None:
        images, drawn = planes(scenes(40)), draw_photometric(1.0, COUNT, 40, 40, seeded(5))
        results = []
        for static in (True, False):
            monkeypatch.setattr(photometric, "_has_static_shapes", lambda _, static=static: static)
            results.append(degrade(images, drawn))
        assert torch.allclose(*results, atol=1e-3)

    @pytest.mark.parametrize("sigma", [0.4, 1.2])
    def test_blur_equals_torchvision(self, sigma: float) -> None:
        images = planes(scenes(64))
        after = degrade(images, unchanged(COUNT)._replace(sigma=torch.full((COUNT,), sigma)))
        expected = reference.gaussian_blur(images, [7, 7], [sigma, sigma])
        assert float((after - expected).abs().max()) < 0.5

    @pytest.mark.parametrize("quality", [10, 40, 75, 95])
    def test_jpeg_equals_pillow(self, quality: int) -> None:
        images = scenes(45)  # not a multiple of 8
        after = compress(planes(images), torch.full((COUNT,), float(quality))).permute(0, 2, 3, 1).round().numpy()
        errors = []
        for image, own in zip(images.numpy(), after, strict=True):
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "JPEG", quality=quality, subsampling=0)
            theirs = np.asarray(Image.open(stream)).astype(float)
            errors.append((np.abs(own - theirs).mean(), np.abs(image - theirs).mean()))
        ours, compression = np.mean(errors, axis=0)
        # libjpeg rounds to integers between the steps, which matters at high qualities.
        assert ours < max(0.2 * compression, 1.6)

    def test_noise_has_the_given_deviation_and_no_pattern(self) -> None:
        keys = torch.arange(20, dtype=torch.int16)
        noise = uniform_noise(keys, 32, 32).double()
        assert abs(float(noise.mean())) < 0.02
        assert abs(float(noise.std()) - 1) < 0.02
        assert float(torch.corrcoef(noise.flatten(1)).triu(diagonal=1).abs().max()) < 0.1
        gray = torch.full((20, 3, 32, 32), 128.0)
        noisy = degrade(gray, unchanged(20)._replace(noise=torch.full((20,), 10.0), keys=keys))
        assert abs(float(noisy.std()) - 10) < 0.3
