"""Tables of rows that users reviewed on the device."""

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kdedge.data import index_dataset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.reviewed_rows import write_reviewed_rows
from kdedge.data.row_samples import RowSample
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.feedback import FeedbackSummary, Verdict
from kdedge_runtime.modalities.table_column import TableColumn, row_sample
from kdedge_runtime.modalities.tabular import TabularInput

SPEC = TabularInput((TableColumn("age", "numeric"), TableColumn("job", "categorical", categories=("clerk", "pilot"))))


def reviewed(
    titles: Sequence[str], cells: Sequence[str | None], judgment: str = "correct", **changes: object
) -> Verdict:
    values: dict[str, object] = {
        "judgment": judgment,
        "content": SPEC.encode_sample(row_sample(tuple(titles), tuple(cells))),
        "suffix": ".csv",
        "kind": "tabular",
        "saliency_map": None,
        "label": "good",
        "score": 0.75,
        "explained": "good",
        "frame_name": "row",
        "model_sha256": "00",
        "at": datetime.now(UTC),
    }
    return Verdict(**values | changes)  # type: ignore[arg-type]


ROWS = [
    reviewed(["job", "age"], ["clerk, part-time", "31"]),
    reviewed(["job", "age"], ["pilot", None], "relabeled", correct_label="bad"),
    reviewed(["job", "age"], ["pilot", "40"], "incorrect"),
    reviewed(["job", "age"], ["clerk, part-time", "31"], "relabeled", correct_label="bad"),
    reviewed(["age", "town", "answer", "job"], ["50", "Ulm", "bad", "clerk"]),
]


def test_rows_have_their_columns_and_the_label_last(tmp_path: Path) -> None:
    file = tmp_path / "more.csv"
    summary = write_reviewed_rows(ROWS, file, None, "answer")
    assert file.read_text().splitlines() == [
        "job,age,town,answer",
        '"clerk, part-time",31,,bad',
        "pilot,,,bad",
        "clerk,50,Ulm,good",
    ]
    assert summary == FeedbackSummary({"bad": 2, "good": 1}, boxes=0, unknown=0, excluded=1, superseded=1)


def test_table_is_read_as_training_data(tmp_path: Path) -> None:
    entries = [
        reviewed(["job", "age"], [("clerk", "pilot")[number % 2], str(number)], label=("good", "bad")[number % 2])
        for number in range(40)
    ]
    write_reviewed_rows(entries, tmp_path / "more.csv", None, "answer")
    found = index_dataset(str(tmp_path / "more.csv"), DatasetOptions(target="answer"))
    assert found.labels == ("bad", "good") and not found.skipped
    for sample, target in (*found.train.pairs(), *found.val.pairs()):
        assert isinstance(sample, RowSample)
        job, age, _ = sample.row.cells
        assert (job, target) == (("clerk", "pilot")[int(age or 0) % 2], 1 - int(age or 0) % 2)


def test_columns_of_several_sources_are_joined_by_name(tmp_path: Path) -> None:
    rows = [
        reviewed(["age", "wage [EUR]"], ["31", "9"], "relabeled", correct_label="12.5"),
        reviewed(["age [years]"], ["32"], "relabeled", correct_label="13"),
        reviewed(["wage", "age"], ["", "33"], "relabeled", correct_label="14"),
    ]
    write_reviewed_rows(rows, tmp_path / "more.csv", None, "wage [EUR]")
    assert (tmp_path / "more.csv").read_text() == "age [years],wage [EUR]\n31,12.5\n32,13\n33,14\n"
    with pytest.raises(UsageError, match="EUR"):
        write_reviewed_rows(rows, tmp_path / "other.csv", None, "wage [USD]")
    with pytest.raises(UsageError, match="months"):
        write_reviewed_rows([*rows, reviewed(["age [months]"], ["400"]), rows[1]], tmp_path / "other.csv", None, "y")
    assert not (tmp_path / "other.csv").exists()


@pytest.mark.parametrize("title", ["income; gross", "a\tb", "two\nlines", 'a "quoted" one', "停"])
def test_titles_may_have_any_characters(tmp_path: Path, title: str) -> None:
    write_reviewed_rows([reviewed([title, "b"], ["1", "2"])], tmp_path / "more.csv", None, "answer")
    with (tmp_path / "more.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [[title, "b", "answer"], ["1", "2", "good"]]


def test_target_must_have_the_labels_as_values(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'age' .*'31'"):
        write_reviewed_rows(ROWS, tmp_path / "more.csv", None, "age")
    write_reviewed_rows([reviewed(["age", "answer"], ["31", "good"])], tmp_path / "more.csv", None, "answer")
    assert (tmp_path / "more.csv").read_text() == "age,answer\n31,good\n"


def test_unknown_rows_have_no_target(tmp_path: Path) -> None:
    unknown = reviewed(["age", "answer", "job"], ["99", "good", "diver"], "unknown")
    summary = write_reviewed_rows([*ROWS, unknown], tmp_path / "more.csv", tmp_path / "new.csv", "answer")
    assert (tmp_path / "new.csv").read_text().splitlines() == ["job,age,town", "diver,99,"]
    assert (summary.unknown, summary.excluded, sum(summary.samples.values())) == (1, 1, 3)


@pytest.mark.parametrize(
    ("verdicts", "outputs", "error", "word"),
    [
        ([reviewed(["age"], ["1"], "incorrect")], ("a.csv", None), DataError, "None of the 1 feedback entries"),
        (ROWS, ("a.csv", "b.csv"), DataError, "None of the 4 samples"),
        (ROWS, ("a.csv", "a.csv"), UsageError, "two files"),
        (ROWS, ("folder", None), UsageError, "-o FILE.csv"),
        (ROWS, ("a.csv", "folder"), UsageError, "--unknown FILE.csv"),
        (ROWS, ("mine.csv", None), UsageError, "exists"),
    ],
)
def test_nothing_is_written_if_an_output_is_not_possible(
    tmp_path: Path, verdicts: list[Verdict], outputs: tuple[str | None, str | None], error: type[Exception], word: str
) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    file, unknown = (None if name is None else tmp_path / name for name in outputs)
    with pytest.raises(error, match=word):
        write_reviewed_rows(verdicts, file, unknown, "answer")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("mine.csv", "mine")]
