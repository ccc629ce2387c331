"""Recordings as a source: files, folders, hops, and what is wrong with them."""

import logging
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kdedge_runtime.errors import DataError, SourceError, UsageError
from kdedge_runtime.modalities.timeseries import TimeseriesInput

SPEC = TimeseriesInput(("ax", "ay"), 4, (0.0, 0.0), (1.0, 1.0), rate_hz=10.0, hop=2)
CLOCKLESS = replace(SPEC, rate_hz=None)


def write(file: Path, rows: int, *, header: str = "time,ay,ax", period_s: float = 0.1) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{number * period_s:.3f},{-number},{number}" for number in range(rows)]
    file.write_text("\n".join([header, *lines]) + "\n")
    return file


def starts(spec: TimeseriesInput, uri: str, **options: object) -> list[float]:
    with spec.open_source(uri, **options) as source:  # type: ignore[arg-type]
        return [float(frame.sample[0, 0]) for frame in source]


def test_recording_is_cut_at_the_hop(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", 9)
    assert starts(SPEC, str(file)) == [0, 2, 4]
    assert starts(SPEC, str(file), hop_s=0.3) == [0, 3]
    with SPEC.open_source(str(file)) as source:
        assert source.fps == 5 and not source.live and source.paths == (file,)
        frame = next(iter(source))
    assert frame.name == "a.csv-000000" and frame.sample.tolist() == [[0, 0], [1, -1], [2, -2], [3, -3]]


def test_folder_skips_unreadable_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "walk" / "1.csv", 4)
    write(tmp_path / "walk" / "2.csv", 3)
    write(tmp_path / "run" / "3.csv", 4, header="time,ay,az")
    (tmp_path / "notes.txt").write_text("")
    with caplog.at_level(logging.WARNING), SPEC.open_source(str(tmp_path)) as source:
        (frame,) = source
    assert frame.name.startswith("walk/1.csv") and source.unreadable == 2 and source.fps is None
    assert "az" in caplog.text and "no window" in caplog.text


def test_recording_in_another_unit_is_refused(tmp_path: Path) -> None:
    in_g = replace(SPEC, units=("g", "m/s²"))
    assert starts(in_g, str(write(tmp_path / "a.csv", 4, header="time,ay [m/s^2],ax"))) == [0]
    with pytest.raises(DataError, match=r"ax.*m/s²"):
        starts(in_g, str(write(tmp_path / "b.csv", 4, header="time,ay,ax [m/s²]")))


@pytest.mark.parametrize(
    ("rows", "header", "period_s", "words"),
    [
        (3, "time,ay,ax", 0.1, "no window"),
        (9, "time,ay,az", 0.1, "no column ax"),
        (9, "time,ax,ax", 0.1, "twice"),
        (9, "time,ay,ax", 0.02, "rows per second"),
    ],
)
def test_unusable_recording_is_refused(tmp_path: Path, rows: int, header: str, period_s: float, words: str) -> None:
    file = write(tmp_path / "a.csv", rows, header=header, period_s=period_s)
    with pytest.raises(SourceError, match=words):
        starts(SPEC, str(file))


def test_series_without_a_clock_has_no_times(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("\n".join(f"{number},0" for number in range(8)))
    assert starts(CLOCKLESS, str(file)) == [0, 2, 4]
    with pytest.raises(UsageError, match="--hop"):
        CLOCKLESS.open_source(str(file), hop_s=0.2)
    with pytest.raises(UsageError, match="latest"):
        CLOCKLESS.open_source(str(file), "latest")


def test_recording_is_played_in_real_time_and_looped(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", 9)
    started = time.monotonic()
    assert starts(SPEC, str(file), frames="latest") == [0, 2, 4]
    assert time.monotonic() - started > 0.35
    with SPEC.open_source(str(file), loop=True) as source:
        frames = iter(source)
        assert [float(next(frames).sample[0, 0]) for _ in range(4)] == [0, 2, 4, 0]


@pytest.mark.parametrize("uri", ["absent.csv", "absent/"])
def test_absent_source_is_named(uri: str) -> None:
    with pytest.raises(SourceError, match="absent"):
        SPEC.open_source(uri)


def test_other_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(UsageError, match=r"photo\.png"):
        SPEC.open_source(str(tmp_path / "photo.png"))
    with pytest.raises(SourceError, match="tail"):
        SPEC.open_source("tail:absent.csv")
    with pytest.raises(UsageError, match="no end"):
        SPEC.open_source("stdin", loop=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="contains no recordings"), SPEC.open_source(str(tmp_path / "empty")):
        pass
