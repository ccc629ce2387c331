"""Datasets of time series: archives, class folders and recordings with labels."""

import logging
from pathlib import Path
from typing import Any

import pytest

from kdedge.data import DatasetIndex, Split, index_dataset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.readers import recordings
from kdedge.data.series_samples import WindowSample
from kdedge.data.window_statistics import measure_windows
from kdedge.modalities.timeseries import TIMESERIES
from kdedge_runtime.errors import DataError, UnreadableSample, UsageError

HEADER = "@problemName Toy\n@timeStamps false\n@univariate true\n@equalLength true\n@classLabel true up down\n@data\n"


def cases(count: int, start: float = 0.0) -> str:
    return "".join(f"{start + n},2,3,4:{('up', 'down')[n % 2]}\n" for n in range(count))


def write(
    file: Path,
    labels: str,
    *,
    period_s: float = 0.5,
    header: str = "time,ax [g],ay [g],label",
    gap_at: int | None = None,
) -> Path:
    """Write rows with one letter per label; a dot is a row without one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [header]
    for number, label in enumerate(labels):
        time_s = number * period_s + (10 if gap_at is not None and number >= gap_at else 0)
        lines.append(f"{time_s},{number},{-number},{label.strip('.')}")
    file.write_text("\n".join(lines) + "\n")
    return file


def windows(dataset: DatasetIndex) -> dict[str, list[tuple[str, str]]]:
    sides = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    return {
        side: [(sample.name, dataset.labels[int(target)]) for sample, target in split.pairs()]
        for side, split in sides.items()
        if split is not None
    }


def test_archive_has_train_and_test_splits(tmp_path: Path) -> None:
    (tmp_path / "Toy_TRAIN.ts").write_text(HEADER + cases(20))
    (tmp_path / "Toy_TEST.ts").write_text(HEADER + cases(6, 100.0))
    dataset = index_dataset(tmp_path)
    assert dataset.modality == "timeseries" and dataset.labels == ("up", "down") and dataset.split == "hashed"
    assert len(dataset.train) + len(dataset.val) == 20 and len(dataset.val) and dataset.test is not None
    assert [sample.read().values[0, 0] for sample in dataset.test.samples] == [100, 101, 102, 103, 104, 105]
    assert index_dataset(tmp_path / "Toy_TRAIN.ts").fingerprint == dataset.fingerprint
    by_test = index_dataset(tmp_path / "Toy_TEST.ts")
    assert by_test.test is None and by_test.val == dataset.test and by_test.split == "official"
    assert len(by_test.train) == 20
    (tmp_path / "Toy_TRAIN.ts").unlink()
    alone = index_dataset(tmp_path / "Toy_TEST.ts")
    assert alone.split == "hashed" and len(alone.train) + len(alone.val) == 6


def test_missing_values_are_skipped_by_name(tmp_path: Path) -> None:
    (tmp_path / "Toy_TRAIN.ts").write_text(HEADER + "1,?,3,4:up\n" + cases(9))
    dataset = index_dataset(tmp_path)
    sample = next(each for each in (*dataset.train.samples, *dataset.val.samples) if each.name.endswith("/01"))
    with pytest.raises(UnreadableSample, match="missing value in the channel Toy at step 1"):
        sample.read()


def test_several_archives_in_a_folder_are_ambiguous(tmp_path: Path) -> None:
    for name in ("One", "Two"):
        (tmp_path / f"{name}_TRAIN.ts").write_text(HEADER + cases(4))
    with pytest.raises(DataError, match="One_TRAIN"):
        index_dataset(tmp_path)
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "One_TEST.ts").write_text(HEADER + cases(4))
    with pytest.raises(DataError, match="_TRAIN"):
        index_dataset(tmp_path / "only")


def test_test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Toy_TRAIN.ts").write_text(HEADER + cases(4))
    (tmp_path / "Toy_TEST.ts").write_text(HEADER + "1,2,3:up\n")
    with pytest.raises(DataError, match="4 steps"):
        index_dataset(tmp_path)


def test_archive_takes_no_window(tmp_path: Path) -> None:
    (tmp_path / "Toy_TRAIN.ts").write_text(HEADER + cases(4))
    with pytest.raises(UsageError, match="--window"):
        index_dataset(tmp_path, DatasetOptions(window="2s"))


def test_files_in_class_folders_are_windows(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path / "run" / f"{number}.csv", "....")
        write(tmp_path / "walk" / f"{number}.csv", "....", header="time,ay,ax,label")
    dataset = index_dataset(tmp_path)
    assert dataset.labels == ("run", "walk") and dataset.split == "hashed"
    for sample in dataset.train.samples:
        assert isinstance(sample, WindowSample)
        assert (sample.layout.rate_hz, sample.layout.channels, sample.layout.units) == (2, ("ax", "ay"), ("g", "g"))
        assert sample.values[3].tolist() == ([3, -3] if sample.name.startswith("run") else [-3, 3])


def test_class_folders_have_splits_of_their_own(tmp_path: Path) -> None:
    for side in ("train", "val", "test"):
        for label in ("walk", "run"):
            write(tmp_path / side / label / "1.csv", "....")
    assert {side: len(each) for side, each in windows(index_dataset(tmp_path)).items()} == {
        "train": 2,
        "val": 2,
        "test": 2,
    }


def test_files_of_several_lengths_need_a_window(tmp_path: Path) -> None:
    for name in "12":
        write(tmp_path / "walk" / f"{name}.csv", "....")
        write(tmp_path / "run" / f"{name}.csv", "......")
    with pytest.raises(DataError, match="--window"):
        index_dataset(tmp_path)
    counts = windows(index_dataset(tmp_path, DatasetOptions(window="2")))
    assert sum(map(len, counts.values())) == 2 * (3 + 5)


def test_recordings_are_cut_where_the_label_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recordings._warn_once.cache_clear()
    for name in ("monday", "tuesday", "friday"):
        write(tmp_path / f"{name}.csv", "aaaaaabbbbbb..aaaa")
    with caplog.at_level(logging.WARNING):
        dataset = index_dataset(tmp_path, DatasetOptions(window="2s"))
    found = windows(dataset)
    assert dataset.labels == ("a", "b") and dataset.split == "recordings"
    names = {side: {name.partition("#")[0] for name, _ in each} for side, each in found.items()}
    assert names["train"] and names["val"] and not names["train"] & names["val"]
    starts = {(int(name.partition("#")[2]), label) for name, label in found["train"]}
    assert starts == {(0, "a"), (2, "a"), (6, "b"), (8, "b"), (12, "a")}
    assert "3 (label)" not in caplog.text and "(label)" in caplog.text


def test_same_recordings_give_the_same_index(tmp_path: Path) -> None:
    for name in "pqrs":
        write(tmp_path / f"{name}.csv", "aaaabbbb")
    first, second = (index_dataset(tmp_path, DatasetOptions(window="4")) for _ in range(2))
    assert first.fingerprint == second.fingerprint and windows(first) == windows(second)


def test_groups_of_recordings_replace_recordings(tmp_path: Path) -> None:
    for name in ("ann1", "ann2", "bob1", "bob2", "eve1"):
        write(tmp_path / f"{name}.csv", "aaaabbbb")
    found = windows(index_dataset(tmp_path, DatasetOptions(window="4", group_by="^[a-z]+")))
    people = {side: {name[:3] for name, _ in each} for side, each in found.items()}
    assert people["val"] and not people["train"] & people["val"]


@pytest.mark.parametrize("pattern", [".*", "[^/]+$", r"\d+\D*$"])
def test_groups_never_divide_a_recording(tmp_path: Path, pattern: str) -> None:
    for name in ("1", "2", "3"):
        write(tmp_path / f"{name}.csv", "aaaabbbb" * 4)
    found = windows(index_dataset(tmp_path, DatasetOptions(window="4", group_by=pattern)))
    files = {side: {name.partition("#")[0] for name, _ in each} for side, each in found.items()}
    assert files["val"] and not files["train"] & files["val"]


def test_rows_are_not_matched_by_groups(tmp_path: Path) -> None:
    for name in ("1", "2"):
        write(tmp_path / f"{name}.csv", "aaaabbbb")
    with pytest.raises(UsageError, match=r"does not match 1\.csv\."):
        index_dataset(tmp_path, DatasetOptions(window="4", group_by=r"\d+$"))


def test_recordings_are_divided_by_fraction_and_seed(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path / f"{number}.csv", "aaaabbbb")
    options = DatasetOptions(window="4")
    halves = [index_dataset(tmp_path, options, val_fraction=0.5, seed=seed).val for seed in range(4)]
    assert {len({sample.name.partition("#")[0] for sample in half.samples}) for half in halves} == {5}
    assert len({half.samples for half in halves}) > 1
    assert len(index_dataset(tmp_path, options, val_fraction=0.2).val) < len(halves[0])


@pytest.mark.parametrize("labels", ["aaab", ".aaa", "...."])
def test_recording_of_several_labels_needs_a_window(tmp_path: Path, labels: str) -> None:
    for number, each in enumerate(("aaaa", "bbbb", labels)):
        write(tmp_path / f"{number}.csv", each)
    with pytest.raises(DataError, match=r"2\.csv.*--window"):
        index_dataset(tmp_path)


def test_recording_with_a_gap_needs_a_window(tmp_path: Path) -> None:
    for name in ("run", "walk"):
        write(tmp_path / name / "1.csv", "......")
        write(tmp_path / name / "2.csv", "......", gap_at=4 if name == "walk" else None)
    with pytest.raises(DataError, match=r"2\.csv.*gap.*--window"):
        index_dataset(tmp_path)


@pytest.mark.parametrize("content", ["", "time,ax [g],ay [g]\n0,fast,2\n", "time,ax [g],ay [g]\n0,1,2\n0.5,3,4\n"])
def test_damaged_or_short_recording_is_one_unreadable_sample(tmp_path: Path, content: str) -> None:
    for label in ("run", "walk"):
        for number in range(3):
            write(tmp_path / label / f"{number}.csv", "....")
    (tmp_path / "walk" / "0.csv").write_text(content)
    dataset = index_dataset(tmp_path, DatasetOptions(window="4"))
    (damaged,) = (each for each in (*dataset.train.samples, *dataset.val.samples) if not isinstance(each, WindowSample))
    assert damaged.name == "walk/0.csv"
    with pytest.raises(UnreadableSample, match=r"0\.csv"):
        damaged.read()
    assert measure_windows(dataset.train, "toy").length == 4


def test_recordings_of_other_units_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "aaaabbbb", header="time,ax,ay,label")
    write(tmp_path / "2.csv", "aaaabbbb", header="time,ax [g],ay [g],label")
    assert index_dataset(tmp_path, DatasetOptions(window="4")).labels == ("a", "b")
    write(tmp_path / "3.csv", "aaaabbbb", header="time,ax [g],ay [m/s²],label")
    with pytest.raises(DataError, match=r"3\.csv.*ay.*m/s²"):
        index_dataset(tmp_path, DatasetOptions(window="4"))


def test_class_in_a_single_recording_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "aaaabbbb")
    write(tmp_path / "2.csv", "aaaaaaaa")
    with pytest.raises(DataError, match=r"class b.*1\.csv"):
        index_dataset(tmp_path, DatasetOptions(window="4"))


def test_recordings_in_split_folders_stay_there(tmp_path: Path) -> None:
    write(tmp_path / "train" / "1.csv", "aaaabbbb")
    write(tmp_path / "val" / "2.csv", "bbbbaaaa")
    dataset = index_dataset(tmp_path, DatasetOptions(window="4"))
    assert dataset.split == "folders" and {name for name, _ in windows(dataset)["val"]} == {
        "val/2.csv#0000000",
        "val/2.csv#0000004",
    }
    write(tmp_path / "val" / "2.csv", "bbbbcccc")
    with pytest.raises(DataError, match="classes c"):
        index_dataset(tmp_path, DatasetOptions(window="4"))


def test_gap_is_cut_and_backwards_time_is_an_error(tmp_path: Path) -> None:
    for name in "pq":
        write(tmp_path / f"{name}.csv", "aaaaaabbbbbb", gap_at=3)
    found = windows(index_dataset(tmp_path, DatasetOptions(window="3")))
    assert {int(name.partition("#")[2]) for name, _ in found["train"]} == {0, 3, 6, 7, 8, 9}
    lines = (tmp_path / "p.csv").read_text().splitlines()
    lines[5], lines[6] = lines[6], lines[5]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"p\.csv.*row 6"):
        index_dataset(tmp_path, DatasetOptions(window="3"))


@pytest.mark.parametrize(
    ("window", "words"), [("2 seconds", "length"), ("1", "rows"), ("2.5", "rows"), ("0.5s", "1 rows"), ("0s", "0 rows")]
)
def test_invalid_windows_are_refused(tmp_path: Path, window: str, words: str) -> None:
    write(tmp_path / "1.csv", "aaaabbbb")
    with pytest.raises(UsageError, match=words):
        index_dataset(tmp_path, DatasetOptions(window=window))


def test_time_window_needs_timestamps(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("ax,label\n" + "1,a\n2,b\n" * 4)
    with pytest.raises(UsageError, match="timestamps"):
        index_dataset(tmp_path, DatasetOptions(window="2s"))


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"header": "time,ax,az,label"}, "no column ay"),
        ({"period_s": 0.25}, "rows per second"),
        ({"header": "t2,ax,ay,label"}, "timestamps"),
        ({"header": "time,ax,ay,place"}, "no column of labels"),
    ],
)
def test_recordings_that_differ_are_refused(tmp_path: Path, second: dict[str, object], words: str) -> None:
    write(tmp_path / "1.csv", "aaaabbbb")
    write(tmp_path / "2.csv", "aaaabbbb", **second)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=words):
        index_dataset(tmp_path, DatasetOptions(window="4"))


def test_folders_of_other_files_are_not_time_series(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.png").touch()
    (tmp_path / "photos" / "boxes.csv").touch()
    (tmp_path / "table").mkdir()
    write(tmp_path / "table" / "train.csv", "ab")
    for number in range(30):
        write(tmp_path / "annotated" / "boxes" / f"{number}.csv", "ab")
    (tmp_path / "annotated" / "cat").mkdir()
    (tmp_path / "annotated" / "cat" / "1.png").touch()
    for name in ("photos", "table", "annotated"):
        assert not TIMESERIES.reads(str(tmp_path / name))
    (tmp_path / "film.ts").write_bytes(b"\x47\x40\x11\x10" * 47)  # an MPEG transport stream
    assert not TIMESERIES.reads(str(tmp_path / "film.ts"))
    assert not TIMESERIES.reads(str(write(tmp_path / "single.csv", "ab"))) and not TIMESERIES.reads("absent")


def test_statistics_are_of_readable_training_windows(tmp_path: Path) -> None:
    lines = HEADER.replace("@univariate true", "@dimensions 2") + "1,3:5,5:up\n3,1:5,5:down\n?,9:9,9:up\n"
    (tmp_path / "Toy_TRAIN.ts").write_text(lines)
    dataset = index_dataset(tmp_path)
    samples = sorted((*dataset.train.samples, *dataset.val.samples), key=lambda each: each.name)
    spec = measure_windows(Split(tuple(samples), (0, 1, 0)), "toy")
    assert spec.mean == (2.0, 5.0) and spec.std == (1.0, 1.0) and spec.length == 2


def test_model_of_other_channels_or_another_order_is_refused(tmp_path: Path) -> None:
    for name in "pq":
        write(tmp_path / "one" / f"{name}.csv", "aaaabbbb")
        write(tmp_path / "other" / f"{name}.csv", "aaaabbbb", header="time,ay,ax,label")
    one, other = (index_dataset(tmp_path / name, DatasetOptions(window="4")) for name in ("one", "other"))
    spec = measure_windows(one.train, "one")
    one.require(spec, "classify", "model.onnx")
    with pytest.raises(UsageError, match=r"model\.onnx takes the columns ax, ay.*ay, ax"):
        other.require(spec, "classify", "model.onnx")


@pytest.mark.parametrize(
    ("change", "words"), [({"period_s": 0.1}, "rows per second"), ({"header": "time,ax [g],ay [m/s²],label"}, "ay.*g")]
)
def test_model_of_another_rate_or_unit_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    for name in "pq":
        write(tmp_path / "one" / f"{name}.csv", "aaaabbbb")
        write(tmp_path / "other" / f"{name}.csv", "aaaabbbb", **change)
        write(tmp_path / "unknown" / f"{name}.csv", "aaaabbbb", header="time,ax,ay,label")
    one, other, unknown = (
        index_dataset(tmp_path / name, DatasetOptions(window="4")) for name in ("one", "other", "unknown")
    )
    spec = measure_windows(one.train, "one")
    unknown.require(spec, "classify", "model.onnx")
    with pytest.raises(DataError, match=words):
        other.require(spec, "classify", "model.onnx")
