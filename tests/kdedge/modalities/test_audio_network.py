"""Choice of the input of an audio model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from torch import nn

from kdedge.config.train_config import TrainConfig
from kdedge.data import index_dataset
from kdedge.modalities.audio import SPEECH_EMBEDDING
from kdedge.modalities.audio_defaults import make_audio_input
from kdedge.modalities.audio_network import choose_audio_network
from kdedge.models.model_spec import ModelSpec
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.models.trained_model import TrainedModel
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.modalities.audio import AudioInput


def write(root: Path, seconds: float, rate_hz: int, files: int = 4) -> Path:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(files):
            sound = rng.normal(0, 0.1, round(seconds * rate_hz)).astype(np.float32)
            soundfile.write(root / label / f"{rate_hz}-{number}.wav", sound, rate_hz)
    return root


def chosen(root: Path, model: str = "resnet8", teachers: Sequence[LoadedTeacher] = (), **options: object) -> AudioInput:
    request = TrainConfig(str(root), model, **options)  # type: ignore[arg-type]
    _, spec = choose_audio_network(request, teachers, index_dataset(root))
    return spec


@pytest.mark.parametrize(
    ("seconds", "rate_hz", "window_s", "rate"),
    [(0.4, 8_000, 0.5, 8_000), (0.9, 44_100, 1.0, 16_000), (4.5, 16_000, 5.0, 16_000), (25.0, 8_000, 3.0, 8_000)],
)
def test_rate_and_window_come_from_the_recordings(
    seconds: float, rate_hz: int, window_s: float, rate: int, tmp_path: Path
) -> None:
    spec = chosen(write(tmp_path, seconds, rate_hz, files=2))
    assert (spec.rate_hz, spec.window_s, spec.hop_s) == (rate, window_s, window_s / 2)


def test_most_frequent_rate_is_taken(tmp_path: Path) -> None:
    write(write(tmp_path, 0.4, 16_000, files=2), 0.4, 8_000, files=6)
    assert chosen(tmp_path).rate_hz == 8_000


def test_features_are_standardized(tmp_path: Path) -> None:
    spec = chosen(write(tmp_path, 0.5, 8_000))
    sound = spec.preprocess(np.random.default_rng(9).normal(0, 0.1, 4_000).astype(np.float32))
    features = (spec.features(sound) - spec.mean) / spec.std
    assert abs(float(features.mean())) < 0.5 and float(features.std()) == pytest.approx(1, abs=0.2)


def test_options_set_window_and_bands(tmp_path: Path) -> None:
    root = write(tmp_path, 0.4, 8_000)
    spec = chosen(root, window="800ms", size=20)
    assert (spec.window_s, spec.mel_bands, spec.frames) == (0.8, 20, 40)
    assert chosen(root, window="4000").window_s == 0.5
    published = chosen(root, model=SPEECH_EMBEDDING, window="1s")
    assert (published.rate_hz, published.mel_bands, published.least_peak) == (16_000, 32, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "soon"}, "--window soon is not a length"),
        ({"window": "0s"}, "is not a length"),
        ({"window": "5ms"}, "is not supported"),
        ({"window": "1000s"}, "to 600 s"),
        ({"size": 200}, "at most 128 bands"),
        ({"model": SPEECH_EMBEDDING, "window": "10ms"}, "Expected 0.4 to"),
        ({"model": SPEECH_EMBEDDING, "window": "200ms"}, "Expected 0.4 to"),
        ({"model": SPEECH_EMBEDDING, "size": 20}, "Remove --size"),
        ({"model": SPEECH_EMBEDDING, "output_stride": 4}, "Remove --size"),
        ({"flip": True}, "--flip mirrors images"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        chosen(write(tmp_path, 0.4, 8_000), **options)


def test_dataset_without_readable_sounds_is_refused(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(4):
            (tmp_path / label / f"{number}.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match="can be read"):
        chosen(tmp_path)


def teacher(window_s: float, rate_hz: int = 8_000) -> LoadedTeacher:
    spec = make_audio_input(rate_hz, window_s)
    model = TrainedModel(nn.Identity(), ModelSpec("resnet8", 2, fresh_stem=True), spec, ("a", "b"), {})
    return LoadedTeacher("big", model, {}, ("a", "b"), 2)


def test_student_has_the_window_of_all_teachers(tmp_path: Path) -> None:
    root = write(tmp_path, 0.4, 8_000)
    assert chosen(root, teachers=[teacher(1.0, 16_000)]).summary == "1 s at 8 kHz"
    assert chosen(root, teachers=[teacher(1.0)], window="1s").window_s == 1.0
    with pytest.raises(UsageError, match="--window 2s differs"):
        chosen(root, teachers=[teacher(1.0)], window="2s")
    with pytest.raises(UsageError, match="Expected equal windows"):
        chosen(root, teachers=[teacher(1.0), teacher(2.0)])


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_dataset_of_unusable_sounds_is_refused(value: float, tmp_path: Path) -> None:
    for path in write(tmp_path, 0.4, 8_000).rglob("*.wav"):
        soundfile.write(path, np.full(3_200, value), 8_000, subtype="FLOAT")
    with pytest.raises(DataError, match="not silent"):
        chosen(tmp_path)


@pytest.mark.parametrize(("rate_hz", "bands", "message"), [(30, 10, "at least 1000 Hz"), (16_000, 200, "are empty")])
def test_features_that_do_not_exist_are_refused(rate_hz: int, bands: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_audio_input(rate_hz, 1.0, mel_bands=bands)
