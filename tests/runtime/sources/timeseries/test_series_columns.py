"""Columns of tables: titles, units, times and delimiters; rows of CSV, Parquet and JSON."""

import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.timeseries.columns import SeriesColumn, is_header, parse_time_s, plan_columns, split_line
from kdedge_runtime.sources.timeseries.row_parser import RowParser
from kdedge_runtime.sources.timeseries.series_rows import iterate_rows, read_plan


@pytest.mark.parametrize(
    ("title", "name", "unit"),
    [("ax", "ax", ""), ("ax [m/s²]", "ax", "m/s²"), ("ax (g)", "ax", "g"), (" ax ", "ax", ""), ("[g]", "[g]", "")],
)
def test_titles_have_units(title: str, name: str, unit: str) -> None:
    assert SeriesColumn.parse(title) == SeriesColumn(name, unit)


@pytest.mark.parametrize(
    ("title", "unit_s"),
    [
        ("time", 1.0),
        ("Timestamp", 1.0),
        ("time_ms", 1e-3),
        ("t [us]", 1e-6),
        ("time [s]", 1.0),
        ("time [min]", 60.0),
        ("t (h)", 3600.0),
        ("time_sec", 1.0),
        ("timestamp [UTC]", 1.0),
        ("ax", None),
        ("rate_ms", None),
    ],
)
def test_times_have_units(title: str, unit_s: float | None) -> None:
    assert SeriesColumn.parse(title).time_unit_s == unit_s


def test_unknown_unit_of_times_is_refused() -> None:
    with pytest.raises(SourceError, match="fortnights"):
        plan_columns(["time [fortnights]", "ax"], None, "table")
    plan_columns(["t [°C]", "ax"], ("t", "ax"), "table")  # a channel


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="needs time zones of POSIX")
def test_dates_without_a_zone_are_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")  # daylight saving time ends between the two
    time.tzset()
    try:
        hours = [parse_time_s(f"2026-10-25T0{hour}:30:00", 1.0) for hour in (1, 3)]
        assert hours[1] - hours[0] == 7200
        assert parse_time_s("2026-11-30", 1.0) == datetime(2026, 11, 30, tzinfo=UTC).timestamp()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_times_are_seconds_or_dates() -> None:
    assert parse_time_s("1500", 1e-3) == 1.5
    date = parse_time_s("2026-11-30T18:00:00.250+00:00", 1.0)
    assert date == datetime(2026, 11, 30, 18, 0, 0, 250_000, UTC).timestamp()
    for text in ("noon", "nan", "inf", "1e400", "1_000", ""):
        with pytest.raises(ValueError, match=r"time|convert"):
            parse_time_s(text, 1.0)


@pytest.mark.parametrize("line", ["1,2,3", "1;2;3", "1\t2\t3", "1 2  3", ' "1", "2", "3"\n'])
def test_lines_are_split_at_their_delimiter(line: str) -> None:
    assert split_line(line) == ["1", "2", "3"]


def test_delimiters_in_quotes_do_not_count() -> None:
    assert split_line('0,1,"walk; fast, uphill"') == ["0", "1", "walk; fast, uphill"]
    assert split_line('0;"a ""b"""') == ["0", 'a "b"']
    assert len(split_line('1,"2\r3",\r4')) in (1, 3)


def test_headers_have_titles() -> None:
    assert is_header(["time", "ax"]) and is_header(["1", "ax"])
    assert not is_header(["1", "-2e3", "", "nan"]) and not is_header(["2026-11-30 18:00:00", "1"])


def test_columns_are_found_by_name_in_any_order() -> None:
    plan = plan_columns(["label", "ay", "extra", "time_ms", "ax [g]"], ("ax", "ay"), "table")
    assert plan.channel_at == (4, 1) and (plan.time_at, plan.label_at, plan.time_unit_s) == (3, 0, 1e-3)
    everything = plan_columns(["label", "ay", "extra", "time_ms", "ax [g]"], None, "table")
    assert [column.name for column in everything.channels] == ["ay", "extra", "ax"]


@pytest.mark.parametrize(
    ("titles", "words"),
    [(["time", "ax"], "ay"), (["time", "ax", "ay", "ax"], "twice"), ([], "ax")],
)
def test_missing_or_doubled_columns_are_named(titles: list[str], words: str) -> None:
    with pytest.raises(SourceError, match=words):
        plan_columns(titles, ("ax", "ay"), "table")


def test_channel_may_be_named_like_a_time() -> None:
    plan = plan_columns(["time", "t"], ("t",), "table")
    assert plan.channel_at == (1,) and plan.time_at == 0


def test_csv_and_parquet_have_the_same_rows(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    csv = tmp_path / "a.csv"
    csv.write_text("\ufefftime,ax,ay,label\n0,1,2,walk\n0.1,,4,walk\n\n0.2,5,6,run\n", encoding="utf-8")
    table = pa.table(
        {"time": [0.0, 0.1, 0.2], "ax": [1.0, None, 5.0], "ay": [2, 4, 6], "label": ["walk", "walk", "run"]}
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    read = [list(iterate_rows(path, read_plan(path, ("ay", "ax")))) for path in (csv, tmp_path / "a.parquet")]
    for one, other in zip(*read, strict=True):
        assert (one.time_s, one.label) == (other.time_s, other.label)
        assert np.array_equal(one.values, other.values, equal_nan=True)
    assert np.isnan(read[0][1].values[1]) and read[0][2].values == (6, 5)


def test_parquet_timestamps_are_seconds(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    dates = [datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in range(3)]
    parquet.write_table(pa.table({"timestamp": dates, "ax": [1.0, 2.0, 3.0]}), tmp_path / "a.parquet")
    rows = list(iterate_rows(tmp_path / "a.parquet", read_plan(tmp_path / "a.parquet", None)))
    assert [row.time_s for row in rows] == [date.timestamp() for date in dates]


@pytest.mark.parametrize("content", ["", "time,ax\n0,1,2\n", "time,ax\n0,fast\n", "time,ax\nnoon,1\n"])
def test_damaged_tables_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(SourceError, match=r"a\.csv"):
        list(iterate_rows(tmp_path / "a.csv", read_plan(tmp_path / "a.csv", None)))


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(SourceError, match="Parquet"):
        read_plan(tmp_path / "a.parquet", None)


def test_lines_of_a_sensor_have_a_header_numbers_or_json() -> None:
    parser = RowParser(("ax", "ay"), "sensor")
    assert parser.parse("1,2") is not None and parser.parse("\n") is None
    assert parser.parse("time_ms;ay;ax") is None
    row = parser.parse("1500;2;3")
    assert row is not None and row.time_s == 1.5 and row.values == (3, 2)
    assert parser.parse("place;time_ms;ax;ay") is None
    row = parser.parse("kitchen;1000;5;6")
    assert row is not None and row.time_s == 1 and row.values == (5, 6)
    row = parser.parse('{"ay": 4, "timestamp": "2026-01-01T00:00:00+00:00", "ax": null, "room": "x"}')
    assert row is not None and row.time_s == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert np.isnan(row.values[0]) and row.values[1] == 4
    row = parser.parse("[7, 8.5]")
    assert row is not None and row.values == (7, 8.5)


@pytest.mark.parametrize(
    "line", ["1,2,3", "booting", "{", '{"ax": 1}', "[1]", '{"ax": "1", "ay": 2}', "[true, 1]", "a,b"]
)
def test_lines_without_a_row_are_refused(line: str) -> None:
    with pytest.raises(SourceError):
        RowParser(("ax", "ay"), "sensor").parse(line)


def test_damaged_lines_are_rows_or_refused() -> None:
    """A parser that meets noise on a wire never fails otherwise, and never invents a number."""
    rng = np.random.default_rng(0)
    seeds = [
        "1.5,-2",
        '{"ax": 1, "ay": -2.5, "time": 3}',
        "[1, 2]",
        "time,ax,ay",
        "2026-01-01 00:00:00,1,2",
        "1;2",
        "\x00\xff,1",
    ]
    alphabet = "0123456789.,;-+eE_[]{}:\"' \tnaifN\x00é\u2028"
    refused = rows = 0
    for _ in range(4000):
        text = list(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(0, 4)):
            at = int(rng.integers(0, len(text) + 1))
            text[at : at + int(rng.integers(0, 2))] = alphabet[rng.integers(len(alphabet))]
        try:
            row = RowParser(("ax", "ay"), "sensor").parse("".join(text))
        except SourceError:
            refused += 1
        else:
            rows += row is not None
            assert row is None or (len(row.values) == 2 and (row.time_s is None or np.isfinite(row.time_s)))
    assert refused > 500 and rows > 500


@pytest.mark.parametrize(
    ("line", "first"), [("1e999,0", np.inf), ('{"ax": 1' + "0" * 400 + ', "ay": 0}', np.inf), ("[NaN, 0]", np.nan)]
)
def test_numbers_beyond_floats_are_not_finite(line: str, first: float) -> None:
    row = RowParser(("ax", "ay"), "sensor").parse(line)
    assert row is not None and np.array_equal(row.values, (first, 0), equal_nan=True)
