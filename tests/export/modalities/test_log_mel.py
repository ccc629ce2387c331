"""Log-mel features equal librosa's, in numpy, in PyTorch and in the exported graph."""

from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import onnxruntime as ort
import pytest
import torch

from kdedge.modalities.audio_defaults import make_audio_input
from kdedge.models.speech_embedding import speech_embedding_input
from kdedge_export.modalities.audio import AUDIO
from kdedge_export.modalities.log_mel import LogMel
from kdedge_export.modalities.rendered_sounds import render_sounds
from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.modalities.audio_features import dft_kernels, log_mel, mel_filters
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.sounds import read_sound

SPECS = (
    make_audio_input(8_000, 1.0),
    make_audio_input(16_000, 0.5, mel_bands=64),
    make_audio_input(44_100, 0.5),
    replace(speech_embedding_input(1.0), log_offset=1e-6),
)
CLOSE = 1e-4


def by_librosa(sound: Floats, spec: AudioInput) -> Floats:
    padded = np.pad(sound / max(np.abs(sound).max(), spec.least_peak), (spec.n_fft - spec.frame_hop) // 2)
    power = librosa.feature.melspectrogram(
        y=padded,
        sr=spec.rate_hz,
        n_fft=spec.n_fft,
        win_length=spec.win_length,
        hop_length=spec.frame_hop,
        n_mels=spec.mel_bands,
        fmin=spec.fmin_hz,
        fmax=spec.fmax_hz,
        center=False,
    )
    return np.asarray(np.log(power + spec.log_offset), dtype=np.float32)


def exported(spec: AudioInput, path: Path) -> ort.InferenceSession:
    example = (torch.from_numpy(render_sounds(spec, 2, np.random.default_rng(0))),)
    torch.onnx.export(
        LogMel(spec).eval(), example, str(path), dynamo=True, dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.rate_hz}-{spec.mel_bands}")
def test_filters_equal_librosa(spec: AudioInput) -> None:
    theirs = librosa.filters.mel(
        sr=spec.rate_hz, n_fft=spec.n_fft, n_mels=spec.mel_bands, fmin=spec.fmin_hz, fmax=spec.fmax_hz
    )
    assert np.abs(mel_filters(spec.scale) - theirs).max() < 1e-7
    assert (mel_filters(spec.scale).sum(axis=1) > 0).all()
    assert len(dft_kernels(spec.scale)[1]) < spec.n_fft // 2 + 1  # bins without a filter are not computed


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.rate_hz}-{spec.mel_bands}")
def test_features_equal_librosa(spec: AudioInput) -> None:
    sounds = render_sounds(spec, 8, np.random.default_rng(3))
    theirs = np.stack([by_librosa(sound, spec) for sound in sounds])
    assert theirs.shape == (8, spec.mel_bands, spec.frames)
    in_torch = LogMel(spec).log_energies(torch.from_numpy(sounds)).numpy()
    in_numpy = np.stack([log_mel(sound, spec.scale) for sound in sounds])
    assert np.abs(in_torch - theirs).max() < CLOSE and np.abs(in_numpy - theirs).max() < CLOSE


def test_graph_equals_pytorch_on_other_inputs_and_batches(tmp_path: Path) -> None:
    spec = replace(SPECS[0], mean=-5.0, std=2.0)
    session = exported(spec, tmp_path / "features.onnx")
    for count in (1, 3):
        sounds = render_sounds(spec, count, np.random.default_rng(count))
        (features,) = session.run(None, {session.get_inputs()[0].name: sounds})
        ours = (np.stack([by_librosa(sound, spec) for sound in sounds]) + 5) / 2
        assert features.shape == (count, 3, spec.mel_bands, spec.frames)
        assert np.abs(features - ours[:, None]).max() < CLOSE


@pytest.mark.data
def test_graph_equals_librosa_on_recordings(spoken_digits: Path, tmp_path: Path) -> None:
    spec = SPECS[0]
    session = exported(spec, tmp_path / "features.onnx")
    files = sorted(spoken_digits.glob("*/*.wav"))[::50]
    sounds = np.stack([spec.preprocess(read_sound(path, spec.rate_hz)) for path in files])
    theirs = np.stack([by_librosa(sound, spec) for sound in sounds])
    (features,) = session.run(None, {session.get_inputs()[0].name: sounds})
    in_torch = LogMel(spec).log_energies(torch.from_numpy(sounds)).numpy()
    assert len(files) == 50
    assert np.abs(features[:, 0] - theirs).max() < CLOSE and np.abs(in_torch - theirs).max() < CLOSE


def test_window_at_another_rate_has_the_same_features() -> None:
    low, high = make_audio_input(8_000, 1.0), replace(make_audio_input(16_000, 1.0), fmax_hz=3_500.0)
    times = np.arange(8_000) / 8_000
    sound = (0.3 * np.sin(2 * np.pi * (300 + 500 * times) * times)).astype(np.float32)
    twice = np.asarray(librosa.resample(sound, orig_sr=8_000, target_sr=16_000), dtype=np.float32)
    ours = AUDIO.front_end(high)(torch.from_numpy(sound[None]))
    theirs = AUDIO.front_end(high)(torch.from_numpy(twice[None]))
    assert low.samples == len(sound)
    assert float((ours - theirs).abs()[..., 5:-5].max()) < 0.2
