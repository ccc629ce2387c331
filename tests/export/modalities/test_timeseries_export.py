"""Time series at export: standardization in the graph, corruptions, and plots for the report."""

import numpy as np
import pytest
import torch

from kdedge_export.modalities import modality_of
from kdedge_export.modalities.standardize import Standardize
from kdedge_export.modalities.timeseries import TIMESERIES
from kdedge_runtime.modalities.timeseries import TimeseriesInput

SPEC = TimeseriesInput(("ax", "ay"), 40, (3.0, -2.0), (2.0, 0.5))


def window(seed: int = 0) -> np.ndarray:
    return np.asarray(TIMESERIES.random_samples(SPEC, 1, np.random.default_rng(seed))[0])


def test_front_end_standardizes_and_moves_channels_to_rows() -> None:
    samples = np.stack([window(seed) for seed in (1, 2)])
    features = TIMESERIES.front_end(SPEC)(torch.from_numpy(samples))
    assert isinstance(TIMESERIES.front_end(SPEC), Standardize) and features.shape == (2, 1, 2, 40)
    expected = (samples.astype(np.float64) - SPEC.mean) / SPEC.std
    assert np.allclose(features[:, 0].numpy(), expected.transpose(0, 2, 1), atol=1e-5)
    assert TIMESERIES.example(SPEC).shape == (1, 1, 2, 40)


def test_random_samples_have_the_statistics_of_the_input() -> None:
    values = TIMESERIES.random_samples(SPEC, 200, np.random.default_rng(0))
    assert values.dtype == np.float32 and np.allclose(values.mean(axis=(0, 1)), SPEC.mean, atol=0.1)
    assert np.allclose(values.std(axis=(0, 1)), SPEC.std, rtol=0.05)


def test_smoothed_window_has_no_details() -> None:
    sample = window()
    smooth = TIMESERIES.smoothed(sample)
    assert smooth.shape == sample.shape and smooth.dtype == np.float32
    assert (np.abs(np.diff(smooth, axis=0)).mean(axis=0) < 0.3 * np.abs(np.diff(sample, axis=0)).mean(axis=0)).all()
    assert np.allclose(smooth[20], sample[16:25].mean(axis=0), atol=1e-5)
    constant = np.full((40, 2), 7, np.float32)
    assert np.allclose(TIMESERIES.smoothed(constant), constant)


@pytest.mark.parametrize("name", list(TIMESERIES.corruptions))
def test_corruptions_are_deterministic_and_change_the_window(name: str) -> None:
    corrupt, sample = TIMESERIES.corruptions[name], window()
    before = sample.copy()
    first, again = corrupt(sample, 3), corrupt(sample, 3)
    assert first.dtype == np.float32 and first.shape == sample.shape and np.isfinite(first).all()
    assert np.array_equal(first, again) and not np.array_equal(first, sample) and np.array_equal(sample, before)


def test_corruptions_are_what_their_names_state() -> None:
    named, sample = dict(TIMESERIES.corruptions), window()
    std = sample.std(axis=0)
    noise = [(named["noise, σ = 0.3 of the channel's"](sample, seed) - sample) / std for seed in range(50)]
    assert abs(np.std(noise) - 0.3) < 0.01
    drifted = named["drift of one σ"](sample, 0) - sample
    assert np.allclose(drifted[0], 0, atol=1e-6) and np.allclose(drifted[-1], std, atol=1e-4)
    late = named["delay of 5% of the window"](sample, 0)
    assert np.array_equal(late[2:], sample[:-2]) and (late[:2] == sample[0]).all()
    stopped = named["one channel stops halfway"](sample, 1)
    assert np.ptp(stopped[20:, 1]) == 0 and np.array_equal(stopped[:, 0], sample[:, 0])


def test_unfamiliar_samples_have_the_scale_of_the_input() -> None:
    drawn = TIMESERIES.unfamiliar_samples(SPEC, 30)
    assert drawn.shape == (30, 40, 2) and drawn.dtype == np.float32 and np.isfinite(drawn).all()
    deviation = np.abs((drawn - SPEC.mean) / SPEC.std)
    assert deviation.max() < 10 and deviation.std() > 0.3
    assert np.array_equal(drawn, TIMESERIES.unfamiliar_samples(SPEC, 30))


def test_amplitude_is_a_map_of_the_input_alone() -> None:
    sample = np.tile(np.float32(SPEC.mean), (1, 40, 1))
    sample[0, 7, 1] += 2
    (amplitude,) = TIMESERIES.baseline_maps(SPEC, sample)["amplitude"]
    assert amplitude.shape == (2, 40) and amplitude[1, 7] == 4 and amplitude.sum() == 4


def test_overlay_differs_from_the_thumbnail_where_the_map_is_hot() -> None:
    heat = np.zeros((2, 10), np.float32)
    heat[1, 9], heat[0, 0] = 1, np.nan
    plain, hot = TIMESERIES.thumbnail(window()), TIMESERIES.overlay(window(), heat, (0.0, 0.0))
    assert plain.shape == hot.shape and plain.dtype == np.uint8
    rows, columns = np.nonzero(np.abs(plain.astype(int) - hot).sum(axis=2) > 60)
    assert rows.min() > plain.shape[0] / 2 and columns.min() > plain.shape[1] / 2


def test_constant_channel_is_drawn() -> None:
    assert TIMESERIES.thumbnail(np.zeros((40, 2), np.float32)).any()


def test_modality_is_found_by_the_input() -> None:
    assert modality_of(SPEC) is TIMESERIES
