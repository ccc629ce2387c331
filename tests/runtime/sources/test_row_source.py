"""Sources of rows: files, standard input, and what damaged rows do."""

import io
import itertools
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from kdedge_runtime.errors import DataError, SourceError, UsageError
from kdedge_runtime.modalities.table_column import TableColumn
from kdedge_runtime.modalities.tabular import TabularInput
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.util.table_rows import read_table_rows

SPEC = TabularInput(
    (
        TableColumn("a", "numeric", edges=(0.0, 1.0), reference=(0.5,)),
        TableColumn("b", "categorical", categories=("x", "y"), reference=(0.5, 0.5)),
    )
)


def read(uri: str | Path, **options: bool) -> tuple[list[Frame], int]:
    with SPEC.open_source(str(uri), **options) as source:
        frames = list(source)
    return frames, source.unreadable


def values(frames: list[Frame]) -> list[list[float]]:
    return [SPEC.preprocess(frame.sample).tolist() for frame in frames]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_any_order_delimiter_and_mark(tmp_path: Path, delimiter: str) -> None:
    lines = ["\ufeffb,more,a", "y,1,0.25", "", '"x",2,']
    frames, unreadable = read(written(tmp_path, "\r\n".join(lines).replace(",", delimiter)))
    np.testing.assert_array_equal(values(frames), [[0.25, 1], [np.nan, 0]])
    assert [frame.name for frame in frames] == ["row 1", "row 2"] and not unreadable


def test_damaged_rows_are_counted_and_the_others_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        frames, unreadable = read(written(tmp_path, "a,b\n1,x\nsoon,x\n1,x,3\ninf,y\n1\n0.5,y\n"))
    assert values(frames) == [[1, 0], [0.5, 1]] and unreadable == 4
    assert [frame.index for frame in frames] == [0, 5]
    assert sum("is skipped" in message for message in caplog.messages) == 4


def test_unseen_category_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        frames, unreadable = read(written(tmp_path, "a,b\n1,z\n2,z\n3,?\n"))
    assert [row[1] for row in values(frames)] == [-1, -1, -1] and not unreadable
    assert len(caplog.messages) == 1 and "'z'" in caplog.messages[0]


def test_log_of_unseen_categories_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(written(tmp_path, "a,b\n" + "".join(f"1,free text {number}\n" for number in range(300))))
    assert len(caplog.messages) == 100 and "not logged" in caplog.messages[-1]


def test_unclosed_quote_is_an_error_not_a_lost_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a CSV file"):
        read(written(tmp_path, 'a,b\n"1,x\n2,y\n3,y\n'))


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no header"), ("a,,b\n1,2,3\n", "without a name"), ("a,b,a\n1,x,2\n", "'a' more than once")],
)
def test_unusable_headers(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(written(tmp_path, text))


def test_missing_column_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'b'"):
        read(written(tmp_path, "a,c\n1,x\n"))


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("a,b\n1,ä\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read(path)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("b,a\nx,1\n"))
    assert values(read("stdin")[0]) == [[1, 0]]
    monkeypatch.setattr("sys.stdin", io.StringIO('\n{"a": 0.5, "b": "y"}\n[1]\n{"b": true, "a": null}\n{"a": [1]}\n'))
    frames, unreadable = read("-")
    np.testing.assert_array_equal(values(frames), [[0.5, 1], [np.nan, -1]])
    assert unreadable == 2
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a": 1, "a": 2, "b": "x"}\n{"a": 1, "b": "x"}'))
    assert (values(read("stdin")[0]), read("stdin")[1]) == ([[1, 0]], 0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a,b\n1,\xe4\n"), "utf-8"))
    with pytest.raises(DataError, match="UTF-8"):
        read("stdin")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert read("stdin") == ([], 0)


def test_object_without_a_column_is_skipped_unless_all_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ['{"a": 1}', '{"a": 0.5, "b": "y"}', '{"b": "x"}', "{", '{"b": "x", "a": 0}']
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    with caplog.at_level(logging.WARNING):
        frames, unreadable = read("stdin")
    assert values(frames) == [[0.5, 1], [0, 0]] and unreadable == 3
    assert [frame.name for frame in frames] == ["row 2", "row 5"]
    assert [message for message in caplog.messages if "row 1 " in message and "'b'" in message]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines[:1] + lines[2:4])))
    with pytest.raises(UsageError, match="'b'"):
        read("stdin")


def test_stream_of_objects_without_a_column_ends_soon(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    endless = ({"a": 1} for _ in itertools.count())
    monkeypatch.setattr("sys.stdin", map(json.dumps, endless))
    with caplog.at_level(logging.WARNING), pytest.raises(UsageError, match="'b'"):
        read("stdin")
    assert len(caplog.messages) == 1
    mixed = ['{"a": 0.5, "b": "y"}', *['{"a": 1}'] * 100, '{"a": 1, "b": "x"}']
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(mixed)))
    with caplog.at_level(logging.WARNING):
        assert len(read("stdin")[0]) == 2
    assert len(caplog.messages) == 2


def test_parquet_equals_csv(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table({"b": ["x", None, "y"], "a": [0.1, 1e-7, None]}), path)
    np.testing.assert_array_equal(values(read(path)[0]), np.float32([[0.1, 0], [1e-7, -1], [np.nan, 1]]))
    path.write_bytes(b"PAR1 damaged")
    with pytest.raises(DataError, match="Parquet"):
        list(read_table_rows(path))


def test_values_of_source(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\n1,x\n")
    with pytest.raises(SourceError, match="no table"):
        SPEC.open_source(str(tmp_path / "lost.csv"))
    for uri, options in (("0", {}), ("rtsp://camera", {}), ("stdin", {"loop": True}), (str(path), {"hop_s": 1.0})):
        with pytest.raises(UsageError):
            SPEC.open_source(uri, **options)
    with SPEC.open_source(str(path), loop=True) as source:
        assert [frame.index for frame, _ in zip(source, range(3), strict=False)] == [0, 1, 2]
