"""Windows of recordings without labels that join a dataset."""

from pathlib import Path

import pytest

from kdedge.data import UNLABELED, DatasetIndex, index_dataset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.training.unlabeled_samples import add_unlabeled
from kdedge_runtime.errors import DataError
from kdedge_runtime.util.progress import no_progress

HEADER = "time,ax [g],ay"
TS = "@problemName Toy\n@timeStamps false\n@univariate true\n@equalLength true\n@classLabel true up down\n@data\n"


def write(file: Path, rows: int, *, start: float = 0.0, header: str = HEADER, period_s: float = 0.5) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{number * period_s},{start + number},{-number}" for number in range(rows)]
    file.write_text("\n".join([header, *lines]) + "\n")
    return file


@pytest.fixture
def labeled(tmp_path: Path) -> DatasetIndex:
    for number, label in enumerate(("walk", "walk", "rest", "rest")):
        write(tmp_path / "data" / label / f"{number}.csv", 8, start=100.0 * number)
    return index_dataset(tmp_path / "data", DatasetOptions(window="4"))


def added(dataset: DatasetIndex, location: Path) -> tuple[dict[str, float], str]:
    """Return the names and the first values of the added windows, and the summary of the selection."""
    joined, part = add_unlabeled(dataset, [str(location)], None, no_progress)
    assert part is not None
    found = {each.name: each.read().values[0, 0] for each, target in joined.train.pairs() if target == UNLABELED}
    return found, part.selection.summary


def test_recordings_are_cut_as_the_dataset_is(labeled: DatasetIndex, tmp_path: Path) -> None:
    write(tmp_path / "more" / "deep" / "new.csv", 10, start=1000.0)
    write(tmp_path / "more" / "short.csv", 3)
    names, summary = added(labeled, tmp_path / "more")
    assert names == {f"more/deep/new.csv#000000{row}": 1000.0 + row for row in (0, 2, 4, 6)}
    assert "4 of 4" in summary


def test_held_out_windows_and_copies_are_dropped(labeled: DatasetIndex, tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "more" / f"copy-{number}.csv", 8, start=100.0 * number)
    write(tmp_path / "more" / "new.csv", 4, start=7.5)
    names, summary = added(labeled, tmp_path / "more")
    assert list(names.values()) == [7.5]
    assert f"{len(labeled.train)} duplicates" in summary and f"{len(labeled.val)} equal to held-out" in summary


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"header": "time,ax [m/s2],ay"}, "m/s2"),
        ({"header": "time,ax [g],az"}, "ay"),
        ({"period_s": 0.1}, "rows per second"),
    ],
)
def test_recordings_must_resemble_the_dataset(
    labeled: DatasetIndex, tmp_path: Path, changes: dict[str, object], word: str
) -> None:
    write(tmp_path / "more" / "new.csv", 8, start=1000.0, **changes)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=word):
        added(labeled, tmp_path / "more")


def test_damaged_recordings_alone_are_an_error(labeled: DatasetIndex, tmp_path: Path) -> None:
    write(tmp_path / "more" / "short.csv", 3)
    with pytest.raises(DataError, match="no readable unlabeled samples"):
        added(labeled, tmp_path / "more")
    with pytest.raises(DataError, match="no recordings"):
        added(labeled, (tmp_path / "empty").mkdir() or tmp_path / "empty")


@pytest.mark.parametrize("name", ["missing.ts", "missing", "empty"])
def test_location_without_recordings_names_what_is_taken(labeled: DatasetIndex, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"Expected a folder of recordings .*\.ts file\.$") as refused:
        added(labeled, tmp_path / name)
    assert "per class" not in str(refused.value)


def test_cases_of_an_archive_join_another_one(tmp_path: Path) -> None:
    def cases(name: str, first: int, count: int, steps: int = 4) -> Path:
        lines = (f"{','.join(str(first + n + t) for t in range(steps))}:{('up', 'down')[n % 2]}" for n in range(count))
        (tmp_path / name).write_text(TS + "\n".join(lines) + "\n")
        return tmp_path / name

    dataset = index_dataset(cases("Toy_TRAIN.ts", 0, 20))
    names, _ = added(dataset, cases("more.ts", 100, 3))
    assert list(names.values()) == [100, 101, 102]
    with pytest.raises(DataError, match="of 4 steps"):
        added(dataset, cases("long.ts", 100, 3, steps=5))
