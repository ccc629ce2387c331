"""Audio input: preprocessing, metadata, masks, segments and statistics of maps."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdedge_runtime.drawing.spectrogram import draw_spectrogram, gray_spectrogram, time_marks
from kdedge_runtime.errors import UnreadableSample
from kdedge_runtime.modalities import parse_input
from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.util.sounds import read_sound

SPEC = AudioInput(
    rate_hz=8_000,
    samples=8_000,
    n_fft=256,
    win_length=200,
    frame_hop=80,
    mel_bands=40,
    fmin_hz=60.0,
    fmax_hz=3_800.0,
    log_offset=1e-5,
    least_peak=0.01,
    mean=-8.0,
    std=2.0,
)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def test_sounds_are_cut_and_padded_at_the_center() -> None:
    sound = noise(9_001)
    assert np.array_equal(SPEC.preprocess(sound), sound[500:8_500])
    padded = SPEC.preprocess(sound[:1_001])
    assert padded.shape == (8_000,) and np.array_equal(padded[3_499:4_500], sound[:1_001])
    assert not padded[:3_499].any() and not padded[4_500:].any()


@pytest.mark.parametrize("sound", [np.zeros(0, np.float32), np.zeros((100, 2), np.float32)])
def test_what_is_no_sound_is_refused(sound: np.ndarray) -> None:
    with pytest.raises(UnreadableSample, match="Expected PCM"):
        SPEC.preprocess(sound)


def test_integers_are_refused() -> None:
    with pytest.raises(UnreadableSample, match="int16"):
        SPEC.preprocess(np.ones(100, np.int16))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    sound = noise(8_000)
    sound[17] = value
    with pytest.raises(UnreadableSample, match="not finite"):
        SPEC.preprocess(sound)


def test_metadata_survives() -> None:
    assert parse_input(asdict(SPEC)) == SPEC
    assert parse_input(asdict(SPEC) | {"new": 1}) == SPEC
    assert (SPEC.summary, SPEC.frames, SPEC.window_s, SPEC.hop_s) == ("1 s at 8 kHz", 100, 1.0, 0.5)


@pytest.mark.parametrize(
    "changed",
    [
        {"rate_hz": 0},
        {"samples": 8_001},
        {"n_fft": 255},
        {"win_length": 300},
        {"frame_hop": 400},
        {"fmax_hz": 5_000.0},
        {"fmin_hz": 4_000.0},
        {"log_offset": 0.0},
        {"least_peak": float("nan")},
        {"std": 0.0},
        {"hop_s": -1.0},
        {"hop_s": 1.5},
        {"mel_bands": 200},
        {"mel_bands": 40.0},
        {"name": 3},
    ],
)
def test_invalid_metadata_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        parse_input(asdict(SPEC) | changed)


def test_reference_samples_are_exact_and_differ() -> None:
    first, second = SPEC.reference_sample(0), SPEC.reference_sample(1)
    assert first.dtype == np.float32 and np.abs(first).max() <= 0.5
    assert np.array_equal(first * 512, np.round(first * 512)) and not np.array_equal(first, second)


def test_full_mask_shows_and_empty_mask_silences() -> None:
    sound = noise(8_000)
    shown, hidden = SPEC.mask(sound, np.stack([np.ones((40, 100)), np.zeros((40, 100))]).astype(np.float32))
    assert np.abs(shown - sound).max() < 1e-6 and np.abs(hidden).max() < 1e-6
    (filled,) = SPEC.mask(sound, np.zeros((1, 40, 100), np.float32), noise(8_000, 1))
    assert np.abs(filled - noise(8_000, 1)).max() < 1e-6


def test_mask_removes_its_bands_and_times() -> None:
    times = np.arange(8_000) / 8_000
    sound = (0.3 * np.sin(2 * np.pi * 400 * times) + 0.3 * np.sin(2 * np.pi * 2_500 * times)).astype(np.float32)
    keep = np.ones((2, 40, 100), np.float32)
    keep[0, 25:] = 0  # above about 1.6 kHz
    keep[1, :, :50] = 0
    low, late = SPEC.mask(sound, keep)
    spectrum = np.abs(np.fft.rfft(low))
    assert spectrum[2_500] < 0.02 * spectrum[400]
    assert np.abs(late[:3_700]).max() < 0.01 and np.abs(late[4_300:] - sound[4_300:]).max() < 1e-5


@pytest.mark.parametrize("count", [1, 2, 7, 40, 200, 10_000])
def test_segments_are_numbered_without_gaps(count: int) -> None:
    segments = SPEC.segments(noise(8_000), count)
    found = np.unique(segments)
    assert segments.shape == (40, 100) and len(found) <= count
    assert np.array_equal(found, np.arange(len(found)))


def test_statistics_name_time_and_pitch() -> None:
    evidence = np.zeros((10, 25), np.float32)
    evidence[9, 20] = 1  # the highest band
    stats = SPEC.map_stats(evidence, noise(8_000), (0.0, 0.0))
    assert stats.cx == pytest.approx(20.5 / 25) and stats.cy == pytest.approx(0.05)
    # A sound of two windows: the map covers its middle half.
    assert SPEC.map_stats(evidence, noise(16_000), (0.0, 0.0)).cx == pytest.approx(0.25 + 20.5 / 50)


def test_level_does_not_change_the_features_of_loud_sounds() -> None:
    sound = noise(8_000)
    assert np.abs(SPEC.features(sound) - SPEC.features(0.1 * sound)).max() < 1e-4
    fixed = replace(SPEC, least_peak=1.0)
    assert np.abs(fixed.features(sound) - fixed.features(0.1 * sound)).min() > 1


def test_spectrogram_has_low_frequencies_at_the_bottom_and_heat_in_its_place() -> None:
    times = np.arange(8_000) / 8_000
    low = SPEC.draw_sample((0.5 * np.sin(2 * np.pi * 300 * times)).astype(np.float32))
    assert low[300, 320].mean() > 128 > low[40, 320].mean()
    heat = np.zeros((10, 25), np.float32)
    heat[0, 24] = 1  # lowest band, last time
    drawn = draw_spectrogram(SPEC.features(noise(8_000)), heat, (0.0, 1.0))
    color = drawn.astype(int)
    saturation = color.max(axis=2) - color.min(axis=2)
    row, column = np.unravel_index(saturation[:320].argmax(), (320, 640))
    assert row > 260 and column > 580


def test_encoded_sounds_are_read_again(tmp_path: Path) -> None:
    sound = 3 * noise(4_000)
    (tmp_path / f"a{SPEC.sample_suffix}").write_bytes(SPEC.encode_sample(sound))
    assert np.abs(read_sound(tmp_path / "a.wav", SPEC.rate_hz) - np.clip(sound, -1, 1)).max() < 1e-4


def test_marks_are_round_times() -> None:
    assert time_marks(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert time_marks(12.5, 13.5) == pytest.approx([12.6, 12.8, 13.0, 13.2, 13.4])
    assert len(time_marks(0.0, 500.0)) <= 9


@pytest.mark.parametrize(
    ("sound", "fault"),
    [(np.zeros(8_000, np.float32), "silent"), (noise(799), "too short"), (noise(1), "too short")],
)
def test_what_nobody_measured_is_refused(sound: np.ndarray, fault: str) -> None:
    with pytest.raises(UnreadableSample) as caught:
        SPEC.preprocess(sound)
    assert caught.value.fault == fault
    assert SPEC.preprocess(noise(800)).any()


def test_spectrogram_of_digital_silence_is_black() -> None:
    assert not gray_spectrogram(SPEC.features(np.zeros(8_000, np.float32))).any()
