"""Datasets of sounds: class folders, windows of long recordings, rates, and damaged files."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from kdedge.data import Split, decode, index_dataset, load
from kdedge.data.decoding import readable
from kdedge.data.readers.sound_folder import holds_sounds, list_unlabeled_sounds
from kdedge.data.sound_samples import SoundSample, window_starts
from kdedge.data.streaming import SampleStream
from kdedge.modalities import modality_of_dataset
from kdedge.modalities.audio_defaults import make_audio_input
from kdedge.training.unlabeled_samples import add_unlabeled
from kdedge_runtime.errors import DataError
from kdedge_runtime.util.progress import no_progress

SPEC = make_audio_input(8_000, 1.0)


def write(path: Path, seconds: float, rate_hz: int = 8_000, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = np.random.default_rng(len(path.name)).uniform(-0.5, 0.5, (round(seconds * rate_hz), channels))
    soundfile.write(path, sound.astype(np.float32), rate_hz, subtype="FLOAT")
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for label in ("no", "yes"):
        for number in range(4):
            write(tmp_path / label / f"{number}.wav", 0.7)
    return tmp_path


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (1, (0,)),
        (100, (0,)),
        (125, (0,)),
        (126, (0, 26)),
        (225, (0, 125)),
        (226, (0, 63, 126)),
        (400, (0, 100, 200, 300)),
    ],
)
def test_windows_cover_long_recordings(length: int, starts: tuple[int, ...]) -> None:
    assert window_starts(length, 100) == starts


def test_folder_of_sounds_is_read_as_audio(dataset: Path) -> None:
    assert modality_of_dataset(str(dataset)).reads(str(dataset))
    indexed = index_dataset(dataset)
    assert (indexed.modality, indexed.labels) == ("audio", ("no", "yes"))
    assert len(indexed.train) + len(indexed.val) == 8
    write(dataset / "_background_noise_" / "fan.wav", 3.0)
    again = index_dataset(dataset)
    assert again.labels == ("no", "yes") and [name for name, _ in again.skipped] == ["_background_noise_/fan.wav"]


def test_long_recording_is_cut_into_windows_on_one_side(dataset: Path) -> None:
    write(dataset / "yes" / "long.wav", 3.6, rate_hz=16_000)
    indexed = index_dataset(dataset)
    sides = [decode(split, SPEC) for split in (indexed.train, indexed.val)]
    names = [[sample.name for sample in side.stored] for side in sides]
    long = [[name for name in side if "long" in name] for side in names]
    assert sorted(map(len, long)) == [0, 4]
    assert max(long) == [f"yes/long.wav#{number}" for number in range(4)]
    side = sides[0] if long[0] else sides[1]
    rows = [row for row, sample in enumerate(side.stored) if "long" in sample.name]
    assert (side.targets[rows] == 1).all() and side.samples.shape[1:] == (8_000,)
    assert not np.array_equal(side.samples[rows[0]], side.samples[rows[1]])


def test_damaged_windows_are_counted_among_windows(tmp_path: Path) -> None:
    write(tmp_path / "yes" / "a.wav", 3.0)
    sound = np.sin(np.arange(24_000, dtype=np.float32))
    sound[8_000:16_000] = 0
    (tmp_path / "no").mkdir()
    soundfile.write(tmp_path / "no" / "b.wav", sound, 8_000)
    indexed = index_dataset(tmp_path)
    split = Split(indexed.train.samples + indexed.val.samples, (0,) * 2)
    assert str(decode(split, SPEC).problems) == "1 of 6 samples: 1 silent (b.wav#1), skipped"


def test_stream_reads_the_same_windows(dataset: Path) -> None:
    write(dataset / "yes" / "long.wav", 2.0)
    split = index_dataset(dataset).train
    decoded = decode(split, SPEC)
    stream = SampleStream(split, SPEC, workers=1)
    try:
        (batch,) = stream.batches([list(range(len(stream)))])
    finally:
        stream.close()
    assert stream.names == tuple(sample.name for sample in decoded.stored)
    assert np.array_equal(batch.numpy(), decoded.samples)


def test_unusual_files_are_converted_or_skipped_and_counted(dataset: Path) -> None:
    write(dataset / "yes" / "stereo.wav", 0.5, rate_hz=44_100, channels=2)
    path = write(dataset / "no" / "nan.wav", 0.5)
    sound, rate = soundfile.read(path, dtype="float32")
    sound[3] = np.nan
    soundfile.write(path, sound, rate, subtype="FLOAT")
    (dataset / "no" / "broken.wav").write_bytes(b"RIFF")
    soundfile.write(dataset / "no" / "muted.wav", np.zeros(8_000), 8_000)
    write(dataset / "yes" / "click.wav", 0.05)
    indexed = index_dataset(dataset)
    problems = decode(indexed.train, SPEC).problems + decode(indexed.val, SPEC).problems
    assert dict(problems.skipped) == {
        "no/nan.wav": "not finite",
        "no/broken.wav": "not a sound",
        "no/muted.wav": "silent",
        "yes/click.wav": "too short",
    }
    checked = [problem for side in (indexed.train, indexed.val) for problem in readable(side, SPEC)[1].skipped]
    assert len(checked) == 4
    assert "1 mixed to mono and converted from 44,100 Hz" in str(problems)


def test_unlabeled_sounds_add_what_is_new(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    more = tmp_path_factory.mktemp("more")
    write(more / "deep" / "new-sound.wav", 2.0)
    (more / "copy.wav").write_bytes((dataset / "yes" / "0.wav").read_bytes())
    indexed, part = add_unlabeled(index_dataset(dataset), [str(more)], None, no_progress)
    assert part is not None and part.selection.found == 2
    assert [sample.name for sample in part.selection.samples] == [f"{more.name}/deep/new-sound.wav"]
    decoded = decode(indexed.train, SPEC)
    assert [sample.name for sample in decoded.stored][-2:] == [f"{more.name}/deep/new-sound.wav#{n}" for n in (0, 1)]
    assert decoded.targets[-2:].tolist() == [-1, -1]


def test_unusable_unlabeled_sounds_are_named_with_their_folder(
    dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    silent, short = tmp_path_factory.mktemp("silent"), tmp_path_factory.mktemp("short")
    for number in range(2):
        soundfile.write(silent / f"{number}.wav", np.zeros(8_000), 8_000)
        write(short / f"{number}.wav", 0.05 + number / 1000)
    with pytest.raises(DataError, match=rf"^{re.escape(str(silent))} .*2 silent"):
        add_unlabeled(index_dataset(dataset), [str(silent)], None, no_progress)
    indexed, _ = add_unlabeled(index_dataset(dataset), [str(short)], None, no_progress)
    with pytest.raises(DataError, match=rf"unlabeled samples.*{re.escape(str(short))}.*2 of 2 samples: 2 too short"):
        load(indexed, SPEC)


def test_unlabeled_links_are_followed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    more = tmp_path_factory.mktemp("more")
    (more / "link.wav").symlink_to(dataset / "yes" / "0.wav")
    (source,) = list_unlabeled_sounds(more)
    (sample,) = source.samples
    assert sample.name == f"{more.name}/link.wav" and len(sample.read().values) == 5_600


@pytest.mark.parametrize("name", ["missing", "yes/0.wav"])
def test_unlabeled_sounds_need_a_folder_in_any_layout(dataset: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"folder of sounds .* in any layout") as refused:
        list_unlabeled_sounds(dataset / name)
    assert "per class" not in str(refused.value) and "val/" not in str(refused.value)


def test_spectrograms_beside_sounds_do_not_make_them_images(dataset: Path) -> None:
    for number in range(7):
        Image.new("L", (8, 8)).save(dataset / "no" / f"0{number}.png")
    assert holds_sounds(dataset)
    for number in range(2):
        Image.new("L", (8, 8)).save(dataset / "no" / f"1{number}.png")
    assert not holds_sounds(dataset)


def test_whole_recording_has_its_own_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 0.5, rate_hz=16_000)
    sample = SoundSample.below(tmp_path, path)
    assert len(sample.read().values) == 8_000
    (fitted,) = sample.for_input(SPEC)
    assert len(fitted.read().values) == 4_000 and fitted.name == "a.wav"
    assert fitted.for_input(SPEC) == (fitted,) and fitted.stamp() != sample.stamp()
