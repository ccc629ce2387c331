"""Sound files: formats, rates, channels, parts, and files that are damaged or lie."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sound_files import tone, write_lying_wav, write_unfinished_wav

from kdedge_runtime.errors import UnreadableSample
from kdedge_runtime.util.sounds import is_sound_file, read_blocks, read_sound, sound_info


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_formats_are_decoded(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(0.5, 8_000), 8_000)
    info = sound_info(path)
    assert (info.rate_hz, info.frames, info.channels) == (8_000, 4_000, 1)
    assert is_sound_file(path) and not is_sound_file(tmp_path / "._a.wav")
    assert np.abs(read_sound(path) - tone(0.5, 8_000)).max() < (0.1 if suffix == "ogg" else 1e-4)


def test_stereo_file_of_another_rate_becomes_mono_at_the_requested_rate(tmp_path: Path) -> None:
    left = tone(1.0, 44_100)
    soundfile.write(tmp_path / "a.wav", np.stack([left, np.zeros_like(left)], axis=1), 44_100, subtype="FLOAT")
    found = read_sound(tmp_path / "a.wav", 16_000)
    assert found.shape == (16_000,) and found.dtype == np.float32
    assert np.abs(found[500:-500] - 0.5 * tone(1.0, 16_000)[500:-500]).max() < 1e-3


def test_part_equals_the_part_of_the_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", rng.uniform(-0.5, 0.5, 44_100).astype(np.float32), 44_100, subtype="FLOAT")
    whole = read_sound(tmp_path / "a.wav", 16_000)
    part = read_sound(tmp_path / "a.wav", 16_000, start=5_000, count=4_000)
    assert part.shape == (4_000,)
    assert np.abs(part - whole[5_000:9_000]).max() < 1e-3
    assert np.array_equal(read_sound(tmp_path / "a.wav", start=100, count=50), read_sound(tmp_path / "a.wav")[100:150])


def test_blocks_equal_the_whole(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(25.0, 8_000), 8_000, subtype="FLOAT")
    for rate in (8_000, 16_000):
        blocks = list(read_blocks(tmp_path / "a.wav", rate))
        joined = np.concatenate(blocks)
        assert len(blocks) == 3 and len(joined) == 25 * rate
        assert np.abs(joined - read_sound(tmp_path / "a.wav", rate)).max() < 1e-5


def test_file_that_ends_before_its_length_is_truncated(tmp_path: Path) -> None:
    path = write_lying_wav(tmp_path / "a.wav", announced=8_000, present=3_000)
    for read in (sound_info, read_sound, lambda path: list(read_blocks(path, 8_000))):
        with pytest.raises(UnreadableSample, match=r"3,000 samples.*announces 8,000") as raised:
            read(path)
        assert raised.value.fault == "truncated"


def test_file_without_a_length_has_the_samples_that_are_there(tmp_path: Path) -> None:
    sound = tone(0.25, 8_000)
    path = write_unfinished_wav(tmp_path / "a.wav", sound, 8_000)
    assert np.abs(read_sound(path) - sound).max() < 1e-4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    sound = tone(0.25, 8_000)
    sound[100] = value
    soundfile.write(tmp_path / "a.wav", sound, 8_000, subtype="FLOAT")
    with pytest.raises(UnreadableSample, match="NaN") as raised:
        read_sound(tmp_path / "a.wav", 16_000)
    assert raised.value.fault == "not finite"


def test_files_without_sound_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound", encoding="utf-8")
    soundfile.write(tmp_path / "short.wav", np.zeros(0, np.float32), 8_000)
    faults = {}
    for path in (*sorted(tmp_path.iterdir()), tmp_path / "missing.wav"):
        with pytest.raises(UnreadableSample) as raised:
            read_sound(path)
        faults[path.stem] = raised.value.fault
    assert faults == {"empty": "empty", "short": "empty", "text": "not a sound", "missing": "unreadable"}


@pytest.mark.parametrize(
    ("suffix", "format_name"),
    [
        ("aiff", "AIFF"),
        ("wav", "RF64"),
        ("wav", "WAVEX"),
        ("au", "AU"),
        ("ogg", "OGG"),
        ("flac", "FLAC"),
        ("mp3", "MP3"),
    ],
)
def test_half_a_file_is_refused_in_every_format(suffix: str, format_name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 30_000), 8_000, format=format_name)
    assert len(read_sound(path)) == pytest.approx(30_000, rel=0.1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableSample):
        read_sound(path)


def test_announced_length_of_a_chunk_is_not_read(tmp_path: Path) -> None:
    path = write_lying_wav(tmp_path / "a.wav", announced=100, present=100)
    content = path.read_bytes()
    with path.open("wb") as file:
        file.write(content[:12] + b"junk" + (3_000_000_000).to_bytes(4, "little"))
        file.truncate(2_000_000_000)  # a sparse file
    tracemalloc.start()
    with pytest.raises(UnreadableSample):
        sound_info(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
