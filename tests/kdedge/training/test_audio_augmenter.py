"""Augmentation of sounds."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from kdedge.config.augmentation_settings import Augmentation
from kdedge.modalities.audio_defaults import make_audio_input
from kdedge.modalities.image import IMAGE
from kdedge.training.augmentation.audio_augmenter import AudioAugmenter, AudioMixing
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.modalities.image import ImageInput

SPEC = make_audio_input(8_000, 1.0)
NONE = {"shift": 0.0, "flip": False, "photometric": 0.0}


def noise(count: int = 64) -> torch.Tensor:
    return 0.1 * torch.randn(count, SPEC.samples, generator=torch.Generator().manual_seed(1))


def augmented(sounds: torch.Tensor, **settings: float | str) -> torch.Tensor:
    augmenter = AudioAugmenter(Augmentation(**(NONE | settings)), SPEC)  # type: ignore[arg-type]
    return augmenter.apply(sounds, augmenter.draw(len(sounds), torch.Generator().manual_seed(0)))


def test_without_settings_sounds_stay() -> None:
    sounds = noise()
    assert torch.equal(augmented(sounds), sounds)


def test_rows_do_not_depend_on_the_batch() -> None:
    settings = Augmentation(shift=0.2, geometry=0.5, photometric=1.0, erase=1.0)
    augmenter, sounds = AudioAugmenter(settings, SPEC), noise(6)
    params = augmenter.draw(6, torch.Generator().manual_seed(0))
    index = torch.tensor([4, 1])
    together = augmenter.apply(sounds, params)[index]
    assert torch.allclose(augmenter.apply(sounds[index], params.take(index)), together, atol=1e-6)
    assert not torch.allclose(together, sounds[index], atol=1e-2)


def test_shift_moves_by_at_most_its_share() -> None:
    clicks = torch.zeros(200, SPEC.samples)
    clicks[:, 4_000] = 0.5
    places = augmented(clicks, shift=0.1).argmax(dim=1) - 4_000
    assert 700 < int(places.max()) <= 800 and -800 <= int(places.min()) < -700


def test_geometry_changes_the_pitch() -> None:
    times = torch.arange(SPEC.samples) / SPEC.rate_hz
    tones = torch.sin(2 * torch.pi * 1_000 * times).expand(200, -1) * 0.5
    pitches = torch.fft.rfft(augmented(tones, geometry=1.0)).abs()[:, 100:].argmax(dim=1) + 100
    assert 760 <= int(pitches.min()) < 820 and 1_200 < int(pitches.max()) <= 1_310


def test_gain_and_noise_keep_the_stated_ratio() -> None:
    times = torch.arange(SPEC.samples) / SPEC.rate_hz
    tones = (0.1 * torch.sin(2 * torch.pi * 500 * times)).expand(400, -1)
    found = augmented(tones, photometric=1.0)
    spectrum = torch.fft.rfft(found).abs().square()
    signal, rest = spectrum[:, 500], spectrum.sum(dim=1) - spectrum[:, 500]
    gains_db = 10 * torch.log10(signal / torch.fft.rfft(tones).abs().square()[:, 500])
    assert 10 < float(gains_db.max()) < 12.6 and -12.6 < float(gains_db.min()) < -10
    ratios_db = 10 * torch.log10(signal / rest.clamp(min=1e-9))
    noisy = ratios_db < 60
    assert 0.4 < float(noisy.float().mean()) < 0.6
    assert 9 < float(ratios_db[noisy].min()) < 12 and 38 < float(ratios_db[noisy].max()) < 42


def test_background_is_mixed_at_the_stated_ratio(tmp_path: Path) -> None:
    times = np.arange(3 * 8_000) / 8_000
    soundfile.write(tmp_path / "hum.wav", (0.2 * np.sin(2 * np.pi * 100 * times)).astype(np.float32), 8_000)
    tones = (0.1 * torch.sin(2 * torch.pi * 500 * torch.arange(SPEC.samples) / 8_000)).expand(200, -1)
    spectrum = torch.fft.rfft(augmented(tones, background=str(tmp_path))).abs().square()
    ratios_db = 10 * torch.log10(spectrum[:, 500] / spectrum[:, 100].clamp(min=1e-9))
    mixed = ratios_db < 60
    assert 0.4 < float(mixed.float().mean()) < 0.6
    assert 4 < float(ratios_db[mixed].min()) < 7 and 23 < float(ratios_db[mixed].max()) < 26
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="Expected a folder with more than 1 s"):
        augmented(tones, background=str(tmp_path / "empty"))


def test_erase_silences_a_stretch_and_a_band() -> None:
    found = augmented(noise(100), erase=1.0)
    silent = (found == 0).float().mean(dim=1)
    assert float(silent.max()) <= 0.21 and float(silent.mean()) > 0.05
    spectrum = torch.fft.rfft(noise(100)).abs() - torch.fft.rfft(found).abs()
    lost = (spectrum > 0.9 * torch.fft.rfft(noise(100)).abs()).float().mean(dim=1)
    assert float(lost.max()) > 0.1
    assert torch.equal(augmented(noise(10), erase=0.0), noise(10))


def test_mixing_weighs_targets_by_time() -> None:
    augmenter = AudioAugmenter(Augmentation(mixup=0.2, cutmix=1.0), SPEC)
    sounds = torch.stack([torch.full((SPEC.samples,), value) for value in (0.1, 0.2, 0.3)])
    mixing = AudioMixing(torch.tensor([[0, SPEC.samples], [0, 2_000]]), torch.tensor([0.5, 1.0]))
    mixed, targets = augmenter.blend(sounds, torch.eye(3), mixing)
    assert torch.allclose(mixed[0], torch.tensor(0.15)) and torch.allclose(mixed[1, :2_000], torch.tensor(0.2))
    assert torch.allclose(mixed[1, 2_000:], torch.tensor(0.3))
    assert torch.allclose(targets, torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]]))
    stretch, weight = augmenter.draw_mixing(400, torch.Generator().manual_seed(0))
    is_cut = weight == 1
    assert 0.4 < float(is_cut.float().mean()) < 0.6
    lengths = (stretch[:, 1] - stretch[:, 0]).float()[is_cut] / SPEC.samples
    assert 0.4 < float(lengths.mean()) < 0.6 and bool((stretch[~is_cut] == torch.tensor([0, SPEC.samples])).all())


def test_backgrounds_belong_to_one_modality() -> None:
    with pytest.raises(UsageError, match="mixes sounds"):
        IMAGE.augmenter(Augmentation(background="noise"), ImageInput(32, 32, (0.5,) * 3, (0.5,) * 3))
