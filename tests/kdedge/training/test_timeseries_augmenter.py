"""Augmentation of time series, checked by its effect on series with known values."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kdedge.config.augmentation_settings import Augmentation
from kdedge.modalities.timeseries import TIMESERIES
from kdedge.training.augmentation.timeseries_augmenter import SeriesMixing, TimeseriesAugmenter
from kdedge_runtime.modalities.timeseries import TimeseriesInput

SPEC = TimeseriesInput(("ax", "ay"), 64, (3.0, -2.0), (2.0, 0.5))
NONE = Augmentation(shift=0, flip=False, photometric=0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augmenter(**settings: float) -> TimeseriesAugmenter:
    return TimeseriesAugmenter(Augmentation(**{"shift": 0.0, "photometric": 0.0} | settings), SPEC)  # type: ignore[arg-type]


def ramp(count: int) -> Tensor:
    """Return series that rise by one per step, the second channel falling."""
    steps = torch.arange(64.0)
    return torch.stack((steps, -steps), dim=1).expand(count, -1, -1).contiguous()


def applied(count: int, series: Tensor | None = None, **settings: float) -> Tensor:
    each = augmenter(**settings)
    return each.apply(ramp(count) if series is None else series, each.draw(count, seeded()))


def test_disabled_augmentation_changes_nothing() -> None:
    assert torch.equal(applied(5), ramp(5))


def test_shift_delays_all_channels_and_repeats_the_edge() -> None:
    moved = applied(200, shift=0.125)
    delay = -moved[:, 30, 0] + 30
    assert delay.abs().max() == 8 and delay.unique().numel() == 17
    for series, steps in zip(moved, delay, strict=True):
        assert torch.equal(series[:, 0], (torch.arange(64.0) - steps).clamp(0, 63)) and torch.equal(
            series[:, 1], -series[:, 0]
        )


def test_scaling_and_jitter_have_the_stated_strength() -> None:
    series = torch.tensor((5.0, -1.0)).expand(4000, 64, 2)  # one and two standard deviations above the mean
    changed = applied(4000, series, photometric=1.0)
    deviation = (changed - torch.tensor(SPEC.mean)) / torch.tensor(SPEC.std)
    gain = deviation.mean(dim=1) / torch.tensor((1.0, 2.0))
    assert gain.log().mean().abs() < 0.01
    assert gain[:, 1].max() < 1.5 * 1.15 and gain[:, 1].min() > 1 / 1.5 / 1.15 and gain[:, 1].std() > 0.1
    noise = deviation.std(dim=1)[:, 0]
    assert noise.max() < 0.3 * 1.3 and noise.min() < 0.02 and abs(float(noise.mean()) - 0.15) < 0.01


def test_warp_keeps_the_ends_and_the_order() -> None:
    warped = applied(300, geometry=1.0)
    time = warped[..., 0]
    assert torch.allclose(time[:, 0], torch.zeros(300), atol=1e-3) and torch.allclose(
        time[:, -1], torch.full((300,), 63.0), atol=1e-3
    )
    speed = time.diff(dim=1)
    assert (speed > 0).all() and torch.allclose(warped[..., 1], -time, atol=1e-4)
    assert (speed.max(dim=1).values / speed.min(dim=1).values).max() <= 2 + 1e-3
    assert (speed.max(dim=1).values / speed.min(dim=1).values).max() > 1.7


def test_erased_stretches_hold_the_mean_in_some_channels() -> None:
    erased = applied(2000, erase=0.5)
    is_mean = (erased == torch.tensor(SPEC.mean)) & (ramp(2000) != torch.tensor(SPEC.mean))
    touched = is_mean.flatten(1).any(dim=1)
    assert abs(float(touched.float().mean()) - 0.5) < 0.05
    spans = is_mean.any(dim=2)[touched].sum(dim=1)
    assert spans.min() >= 1 and spans.max() <= 0.33 * 64 + 2
    assert torch.equal(erased[~touched], ramp(2000)[~touched])
    channels = is_mean.any(dim=1)[touched].float().mean(dim=0)
    assert (channels > 0.6).all() and (channels < 0.9).all()


def test_rows_do_not_depend_on_the_batch() -> None:
    each = augmenter(shift=0.1, photometric=0.5, geometry=0.5, erase=0.5)
    params = each.draw(16, seeded())
    whole = each.apply(ramp(16), params)
    index = torch.tensor([3, 11])
    assert torch.equal(each.apply(ramp(2), params.take(index)), whole[index])
    assert torch.equal(each.apply(ramp(16), each.draw(16, seeded())), whole)
    assert whole.dtype == torch.float32 and torch.isfinite(whole).all()


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_mixed_targets_have_the_weights_of_the_values(mixup: float, cutmix: float) -> None:
    each = augmenter(mixup=mixup, cutmix=cutmix)
    count = 2000
    mixing = each.draw_mixing(count, seeded())
    series = torch.arange(count + 1).remainder(2).float()[:, None, None].expand(-1, 64, 2).contiguous()
    targets = torch.stack((1 - series[:, 0, 0], series[:, 0, 0]), dim=1)
    mixed, blended = each.blend(series, targets, mixing)
    assert torch.allclose(mixed.mean(dim=(1, 2)), blended[:, 1], atol=1e-5)
    is_cut = ((mixed == 0) | (mixed == 1)).flatten(1).all(dim=1) & (blended[:, 1] % 1 != 0)
    share = float(is_cut.float().mean())
    assert share < 0.05 if not cutmix else share > (0.4 if mixup else 0.9)
    if cutmix and mixup:
        assert share < 0.6


def test_weights_of_mixup_and_lengths_of_cutmix_are_beta_distributed() -> None:
    stats = pytest.importorskip("scipy.stats")
    weight = augmenter(mixup=0.2).draw_mixing(4000, seeded()).weight
    assert stats.kstest(weight.numpy(), stats.beta(0.2, 0.2).cdf).pvalue > 0.001
    stretch = augmenter(cutmix=1.0).draw_mixing(4000, seeded()).stretch
    assert isinstance(stretch, Tensor)
    lengths = (stretch[:, 1] - stretch[:, 0]).numpy() / 64
    assert abs(lengths.mean() - 0.5) < 0.02 and abs(lengths.std() - math.sqrt(1 / 12)) < 0.02
    assert stretch.min() >= 0 and stretch.max() <= 64 and (np.diff(stretch.numpy()) >= 0).all()


def test_mixing_leaves_its_input_unchanged() -> None:
    series = ramp(4)
    before = series.clone()
    mixing = SeriesMixing(torch.tensor([[0, 64], [5, 9], [0, 0]]), torch.tensor([0.5, 1.0, 1.0]))
    mixed, _ = augmenter().blend(series, torch.eye(4), mixing)
    assert torch.equal(series, before) and mixed.shape == (3, 64, 2)


def test_series_are_never_mirrored() -> None:
    each = TIMESERIES.augmenter(Augmentation(shift=0, photometric=0, flip=True), SPEC)
    assert torch.equal(each.apply(ramp(50), each.draw(50, seeded())), ramp(50))
