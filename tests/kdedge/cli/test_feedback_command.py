"""`kdedge feedback`: export of user corrections as a dataset."""

import csv
import io
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from training_toys import Outcome

from kdedge.data import index_dataset
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.feedback import FeedbackStore, Verdict, write_class_folders
from kdedge_runtime.util.images import encode_jpeg, read_image


def verdict(gray: int, label: str = "bolt", **changes: object) -> Verdict:
    values: dict[str, object] = {
        "judgment": "correct",
        "content": encode_jpeg(np.full((60, 80, 3), gray, np.uint8), 90),
        "suffix": ".jpg",
        "kind": "image",
        "saliency_map": None,
        "label": label,
        "score": 0.75,
        "explained": label,
        "frame_name": "frame",
        "model_sha256": "00",
        "at": datetime.now(UTC),
    }
    return Verdict(**values | changes)  # type: ignore[arg-type]


VERDICTS = (
    verdict(10, "bolt"),
    verdict(20, "bolt", judgment="relabeled", correct_label="nut, M4", box=(0.25, 0.5, 0.75, 1.0)),
    verdict(30, "nut, M4", judgment="wrong_region", box=(0.0, 0.0, 0.001, 0.001)),
    verdict(40, "bolt", judgment="incorrect"),
    verdict(10, "bolt", judgment="relabeled", correct_label="screw"),
    verdict(50, "bolt"),
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with FeedbackStore.open(tmp_path / "feedback.db", 5) as store:
        for item in VERDICTS:
            store.add(item)
    return tmp_path / "feedback.db"


def test_exported_folder_is_a_dataset(command: Callable[..., Outcome], database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    outcome = command("feedback", "export", str(database), "-o", str(folder))
    assert outcome.code == 0, outcome.err
    found = index_dataset(str(folder))
    assert found.labels == ("bolt", "nut, M4", "screw")
    assert not found.skipped
    targets = [*found.train.targets, *found.val.targets]
    sizes = [targets.count(index) for index in range(3)]
    assert sizes == [1, 2, 1]
    greys = sorted((path.parent.name, int(read_image(path)[0, 0, 0])) for path in folder.rglob("*.jpg"))
    kept = [("bolt", 50), ("nut, M4", 20), ("nut, M4", 30), ("screw", 10)]
    assert greys == kept, "a second review of an image replaces the first"
    assert "4 samples with 3 labels, 2 with a box" in outcome.err
    assert "1 sample without a correct label" in outcome.err
    assert f"cp -rn {folder}/. DATA/train" in outcome.err and "distill again" in outcome.err


def test_merged_exports_overwrite_no_images(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number, greys in enumerate([(10, 20), (20, 30)]):
        write_class_folders([verdict(gray) for gray in greys], tmp_path / str(number))
        shutil.copytree(tmp_path / str(number), data, dirs_exist_ok=True)
    assert sorted(int(read_image(path)[0, 0, 0]) for path in data.rglob("*.jpg")) == [10, 20, 30]


def test_boxes_are_in_pixels_of_their_files(database: Path, tmp_path: Path) -> None:
    with FeedbackStore.open_to_read(database) as store:
        written = write_class_folders(store, tmp_path / "out")
    assert written.samples == {"bolt": 1, "nut, M4": 2, "screw": 1}
    assert (written.boxes, written.excluded, written.superseded) == (2, 1, 1)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "boxes.csv").read_text())))
    corners = [tuple(int(row[key]) for key in ("x1", "y1", "x2", "y2")) for row in rows]
    assert corners == [
        (20, 30, 60, 60),
        (0, 0, 1, 1),
    ]
    for row in rows:
        assert (tmp_path / "out" / row["file"]).is_file()
        assert row["file"].startswith("nut, M4/")


@pytest.mark.parametrize("label", ["../../etc", "/etc/cron.d", "..", ".hidden", "a\\b", "nul\0", " . ", "停" * 200])
def test_labels_cannot_escape_or_hide_the_folder(label: str, tmp_path: Path) -> None:
    target = tmp_path / "in" / "out"
    write_class_folders([verdict(1, label), verdict(2, "other")], target)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert all(path.parent.parent == target for path in files)
    assert len(index_dataset(str(target)).labels) == 2


def test_colliding_labels_are_rejected_before_writing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'Bolt', 'bolt' would share a folder") as raised:
        write_class_folders(
            [verdict(1, "bolt"), verdict(2, judgment="relabeled", correct_label="Bolt")], tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()
    with FeedbackStore.open(tmp_path / "entries.db", 5) as store:
        store.add(verdict(1, "bolt"))
        store.add(verdict(2, judgment="relabeled", correct_label="Bolt"))
    way_out = str(raised.value).split('"')[1].replace("THIS", "bolt").replace("THAT", "Bolt")
    with closing(sqlite3.connect(tmp_path / "entries.db")) as connection, connection:
        connection.execute(way_out)
    with FeedbackStore.open_to_read(tmp_path / "entries.db") as store:
        assert write_class_folders(store, tmp_path / "out").samples == {"bolt": 2}


def test_reviews_without_a_label_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="None of the 1 feedback entries gives a label"):
        write_class_folders([verdict(1, judgment="incorrect")], tmp_path / "out")


def test_non_empty_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        write_class_folders([verdict(1)], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_missing_database_is_a_single_sentence_error(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command("feedback", "export", str(tmp_path / "none.db"), "-o", str(tmp_path / "out"))
    assert outcome.code == 2
    assert outcome.err.startswith("error: The feedback file")
    assert not (tmp_path / "out").exists()


def test_rows_become_one_table(command: Callable[..., Outcome], tmp_path: Path) -> None:
    rows = {"suffix": ".csv", "kind": "tabular"}
    with FeedbackStore.open(tmp_path / "rows.db", 5) as store:
        store.add(verdict(0, "yes", content=b"age,job\r\n31,pilot\r\n", **rows))
        store.add(verdict(0, "yes", content=b"age,job\r\n32,clerk\r\n", judgment="unknown", **rows))
    export = ("feedback", "export", tmp_path / "rows.db")
    outcome = command(*export, "-o", tmp_path / "more.csv", "--target", "answer", "--unknown", tmp_path / "new.csv")
    assert outcome.code == 0, outcome.err
    assert "1 sample with 1 label\n" in outcome.err and "kdedge distill DATA --target answer" in outcome.err
    assert (tmp_path / "more.csv").read_text() == "age,job,answer\n31,pilot,yes\n"
    assert (tmp_path / "new.csv").read_text() == "age,job\n32,clerk\n"
    for wrong, option in (
        (("-o", tmp_path / "other.csv"), "--target COLUMN"),
        (("-o", tmp_path / "out", "--target", "answer"), "-o FILE.csv"),
        (("-o", tmp_path / "other.csv", "--unknown", tmp_path / "out", "--target", "answer"), "--unknown FILE.csv"),
    ):
        outcome = command(*export, *wrong)
        assert outcome.code == 2 and option in outcome.err, wrong
    assert not (tmp_path / "out").exists() and not (tmp_path / "other.csv").exists()


def test_unknown_images_have_their_own_folder(command: Callable[..., Outcome], database: Path, tmp_path: Path) -> None:
    with FeedbackStore.open(database, 5) as store:
        store.add(verdict(60, "bolt", judgment="unknown"))
        store.add(verdict(50, "bolt", judgment="unknown"))  # corrects an earlier entry
    outcome = command("feedback", "export", database, "-o", tmp_path / "out", "--unknown", tmp_path / "none")
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / "none").glob("*.jpg"))) == 2 and "--unfamiliar" in outcome.err
    assert index_dataset(str(tmp_path / "out")).labels == ("nut, M4", "screw")
    again = command("feedback", "export", database, "-o", tmp_path / "new", "--unknown", tmp_path / "none")
    assert again.code == 2 and "not empty" in again.err and not (tmp_path / "new").exists()
    assert command("feedback", "export", database, "-o", tmp_path / "new", "--target", "answer").code == 2
    nothing = command("feedback", "export", database)
    assert nothing.code == 2 and "--unknown" in nothing.err


def test_labels_with_the_fewest_samples_are_summed_up(command: Callable[..., Outcome], tmp_path: Path) -> None:
    with FeedbackStore.open(tmp_path / "many.db", 5) as store:
        for number in range(102):
            store.add(verdict(0, f"class {min(number, 100):03}", content=bytes([number])))
    outcome = command("feedback", "export", tmp_path / "many.db", "-o", tmp_path / "out")
    assert outcome.code == 0 and "2  class 100" in outcome.err and "and 1 label with fewer" in outcome.err


def test_database_without_entries_is_an_error(command: Callable[..., Outcome], tmp_path: Path) -> None:
    FeedbackStore.open(tmp_path / "empty.db", 5).close()
    outcome = command("feedback", "export", tmp_path / "empty.db", "-o", tmp_path / "out")
    assert outcome.code == 2 and "no entries" in outcome.err
