"""Tables of rows that users reviewed on the device."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kdedge.data import index_dataset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.reviewed_rows import write_reviewed_rows, write_unknown_rows
from kdedge.data.row_samples import RowSample
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.feedback import FeedbackSummary, Verdict
from kdedge_runtime.modalities.table_column import TableColumn, row_sample
from kdedge_runtime.modalities.tabular import TabularInput

SPEC = TabularInput((TableColumn("age", "numeric"), TableColumn("job", "categorical", categories=("clerk", "pilot"))))


def reviewed(titles: Sequence[str], cells: Sequence[str | None], judgment: str = "right", **changes: object) -> Verdict:
    values: dict[str, object] = {
        "judgment": judgment,
        "content": SPEC.encode_sample(row_sample(tuple(titles), tuple(cells))),
        "suffix": ".csv",
        "layout": "row",
        "saliency_map": None,
        "label": "good",
        "probability": 0.75,
        "explained": "good",
        "frame_name": "row",
        "model_sha256": "00",
        "at": datetime.now(UTC),
    }
    return Verdict(**values | changes)  # type: ignore[arg-type]


ROWS = [
    reviewed(["job", "age"], ["clerk, part-time", "31"]),
    reviewed(["job", "age"], ["pilot", None], "label", correct_label="bad"),
    reviewed(["job", "age"], ["pilot", "40"], "wrong"),
    reviewed(["job", "age"], ["clerk, part-time", "31"], "label", correct_label="bad"),
    reviewed(["age", "town", "answer", "job"], ["50", "Ulm", "old answer", "clerk"]),
]


def test_rows_have_their_columns_and_the_label(tmp_path: Path) -> None:
    file = tmp_path / "more.csv"
    summary = write_reviewed_rows(ROWS, file, "answer")
    assert file.read_text().splitlines() == [
        "job,age,answer,town",
        '"clerk, part-time",31,bad,',
        "pilot,,bad,",
        "clerk,50,good,Ulm",
    ]
    assert summary == FeedbackSummary({"bad": 2, "good": 1}, 0, 1, 1)


def test_table_is_read_as_training_data(tmp_path: Path) -> None:
    entries = [
        reviewed(["job", "age"], [("clerk", "pilot")[number % 2], str(number)], label=("good", "bad")[number % 2])
        for number in range(40)
    ]
    write_reviewed_rows(entries, tmp_path / "more.csv", "answer")
    found = index_dataset(str(tmp_path / "more.csv"), DatasetOptions(target="answer"))
    assert found.labels == ("bad", "good") and not found.skipped
    for sample, target in (*found.train.pairs(), *found.val.pairs()):
        assert isinstance(sample, RowSample)
        job, age, _ = sample.row.cells
        assert (job, target) == (("clerk", "pilot")[int(age or 0) % 2], 1 - int(age or 0) % 2)


def test_unit_of_the_target_must_be_that_of_the_source(tmp_path: Path) -> None:
    row = reviewed(["age", "wage [EUR]"], ["31", ""], "label", correct_label="12.5")
    write_reviewed_rows([row], tmp_path / "same.csv", "wage [EUR]")
    assert (tmp_path / "same.csv").read_text() == "age,wage [EUR]\n31,12.5\n"
    with pytest.raises(UsageError, match="EUR"):
        write_reviewed_rows([row], tmp_path / "other.csv", "wage [USD]")
    assert not (tmp_path / "other.csv").exists()


def test_unknown_rows_have_no_label(tmp_path: Path) -> None:
    unknown = reviewed(["age", "job"], ["99", "diver"], "unknown")
    assert write_unknown_rows([*ROWS, unknown], tmp_path / "new.csv") == 1
    assert (tmp_path / "new.csv").read_text() == "age,job\n99,diver\n"
    with pytest.raises(DataError, match="None of the 4 rows"):
        write_unknown_rows(ROWS, tmp_path / "none.csv")


def test_files_and_labels_are_required(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="-o FOLDER"):
        write_reviewed_rows([*ROWS, reviewed(["age"], ["1"], layout="file")], tmp_path / "new.csv", "answer")
    with pytest.raises(DataError, match="None of the 1 feedback entries"):
        write_reviewed_rows([reviewed(["age"], ["1"], "wrong")], tmp_path / "new.csv", "answer")
    assert not list(tmp_path.iterdir())
    (tmp_path / "new.csv").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        write_reviewed_rows(ROWS, tmp_path / "new.csv", "answer")
    assert (tmp_path / "new.csv").read_text() == "mine"
