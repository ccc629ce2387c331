"""Audio at export: samples, corruptions and drawings."""

import numpy as np
import pytest
import torch

from kdedge.modalities.audio_defaults import make_audio_input
from kdedge_export.modalities import modality_of
from kdedge_export.modalities.audio import AUDIO

SPEC = make_audio_input(8_000, 0.5)


def sound() -> np.ndarray:
    return AUDIO.display_samples(SPEC, 2)[1]


def test_samples_have_the_shape_of_the_input() -> None:
    rng = np.random.default_rng(0)
    for drawn in (
        AUDIO.random_samples(SPEC, 6, rng),
        AUDIO.display_samples(SPEC, 6),
        AUDIO.unfamiliar_samples(SPEC, 6),
        np.stack([AUDIO.smoothed(sound())] * 6),
    ):
        assert drawn.shape == (6, SPEC.samples) and drawn.dtype == np.float32
        assert np.isfinite(drawn).all() and np.abs(drawn).max() <= 1
    assert tuple(AUDIO.example(SPEC).shape) == (1, 3, SPEC.mel_bands, SPEC.frames)
    features = AUDIO.front_end(SPEC)(torch.from_numpy(AUDIO.display_samples(SPEC, 2)))
    assert features.shape == (2, 3, SPEC.mel_bands, SPEC.frames)


def test_reversed_sounds_have_reversed_features() -> None:
    ((axis, map_axis),) = AUDIO.mirrored_axes
    sounds = torch.from_numpy(AUDIO.display_samples(SPEC, 4))
    forward, backward = (AUDIO.front_end(SPEC)(each)[:, 0] for each in (sounds, sounds.flip(axis)))
    difference = (forward - backward.flip(map_axis)).abs()
    assert float(difference.median()) < 0.05  # the periodic window is one sample longer on one side


@pytest.mark.parametrize("name", AUDIO.corruptions)
def test_corruptions_are_reproducible_and_as_stated(name: str) -> None:
    clean = sound()
    corrupted = AUDIO.corruptions[name](clean, 3)
    assert corrupted.shape == clean.shape and corrupted.dtype == np.float32
    assert np.array_equal(corrupted, AUDIO.corruptions[name](clean, 3)) and not np.array_equal(corrupted, clean)
    power = float((clean.astype(np.float64) ** 2).mean())
    if name.startswith("noise"):
        ratio = 10 * np.log10(power / ((corrupted - clean).astype(np.float64) ** 2).mean())
        assert ratio == pytest.approx(float(name.split()[2]), abs=0.3)
    if name == "gain − 12 dB":
        assert np.abs(corrupted - clean * 10**-0.6).max() < 1e-6


def test_drawings_show_the_map_at_its_pitch() -> None:
    evidence = np.zeros((10, 6), np.float32)
    evidence[0, 5] = 1
    modality = modality_of(SPEC)
    plain, hot = modality.thumbnail(sound()), modality.overlay(sound(), evidence, (0.0, 0.0))
    color = hot.astype(int)
    saturation = color.max(axis=2) - color.min(axis=2)
    row, column = np.unravel_index(saturation.argmax(), saturation.shape)
    assert plain.shape == hot.shape
    assert row > 0.8 * hot.shape[0] and column > 0.8 * hot.shape[1]
