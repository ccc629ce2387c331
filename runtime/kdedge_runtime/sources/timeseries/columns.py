"""Columns of a table with time series: the time, the channels and the label, found by their names."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kdedge_runtime.errors import DataError, SourceError

__all__ = [
    "ColumnPlan",
    "SeriesColumn",
    "check_units",
    "is_header",
    "parse_number",
    "parse_time_s",
    "plan_columns",
    "split_line",
]

_TIME_NAMES = {"t", "time", "timestamp", "datetime", "date"}
_TIME_UNITS = (
    dict.fromkeys(("s", "sec", "second", "seconds"), 1.0)
    | dict.fromkeys(("ms", "msec", "milliseconds"), 1e-3)
    | dict.fromkeys(("us", "\u00b5s", "\u03bcs", "microseconds"), 1e-6)
    | {"ns": 1e-9, "min": 60.0, "minutes": 60.0, "h": 3600.0, "hours": 3600.0}
    | dict.fromkeys(("", "utc", "iso", "iso 8601"), 1.0)
)
_LABEL_NAMES = {"label", "class", "activity", "target"}
_MISSING = {"", "nan", "na", "n/a", "null", "none", "?"}
_UNIT = re.compile(r"^(?P<name>.*?)\s*[\[(](?P<unit>[^\[\]()]*)[\])]$")
_QUOTED = re.compile(r'"[^"]*"')
_DELIMITERS = (";", "\t", ",")
"""Delimiters in order of preference: a line with semicolons may have commas in its numbers or names."""


@dataclass(frozen=True)
class SeriesColumn:
    """Column of a table with time series."""

    name: str
    """Name without its unit."""
    unit: str = ""
    """Unit in brackets behind the name, such as `m/s²` in `ax [m/s²]`; empty for none."""

    @classmethod
    def parse(cls, text: str) -> "SeriesColumn":
        """Parse the title of a column."""
        title = text.strip().strip("\ufeff")
        found = _UNIT.match(title)
        if found is None or not found["name"]:
            return cls(title)
        return cls(found["name"], found["unit"].strip())

    @property
    def time_unit_s(self) -> float | None:
        """Seconds per unit of a column of times; None for other columns.

        Raises:
            SourceError: the unit of the times is unknown.
        """
        name = self.name.lower()
        base, _, suffix = name.rpartition("_")
        if base in _TIME_NAMES and suffix and suffix in _TIME_UNITS:
            return _TIME_UNITS[suffix]
        if name not in _TIME_NAMES:
            return None
        if self.unit.lower() not in _TIME_UNITS:
            raise SourceError(
                f"The column {self.name} has times in {self.unit}. Expected s, ms, us, ns, min, h or ISO 8601; rename "
                "the column if it has no times."
            )
        return _TIME_UNITS[self.unit.lower()]

    @property
    def is_label(self) -> bool:
        """True for a column of class names."""
        return self.name.lower() in _LABEL_NAMES


@dataclass(frozen=True)
class ColumnPlan:
    """Positions of the columns that are read from every row."""

    channels: tuple[SeriesColumn, ...]
    channel_at: tuple[int, ...]
    """Position of every channel."""
    time_at: int | None = None
    """Position of the time; None for a table without one."""
    time_unit_s: float = 1.0
    label_at: int | None = None
    """Position of the class name; None for a table without one."""
    width: int = 0
    """Number of columns of a row."""


def plan_columns(titles: Sequence[str], wanted: Sequence[str] | None, name: str) -> ColumnPlan:
    """Find the columns by their titles; further ones are ignored if channels are wanted.

    Args:
        titles: titles of all columns.
        wanted: channel names of a model in their order; None takes all columns besides time and label.
        name: name of the table in errors.

    Raises:
        SourceError: A channel is missing, or a title occurs twice.
    """
    columns = [SeriesColumn.parse(title) for title in titles]
    names = [column.name for column in columns]
    twice = sorted({each for each in names if names.count(each) > 1 and (wanted is None or each in wanted)})
    if twice:
        raise SourceError(f"{name} has the column {twice[0]} twice. Expected one of each.")
    # A channel of the model may be named like a time or a label.
    others = [at for at, column in enumerate(columns) if wanted is None or column.name not in wanted]
    time_at = next((at for at in others if columns[at].time_unit_s is not None), None)
    label_at = next((at for at in others if columns[at].is_label and at != time_at), None)
    if wanted is None:
        channel_at = tuple(at for at in others if at not in (time_at, label_at))
    else:
        missing = [each for each in wanted if each not in names]
        if missing:
            raise SourceError(
                f"{name} has no column {', '.join(missing)}, only {', '.join(names)}. Expected the channels "
                f"{', '.join(wanted)}."
            )
        channel_at = tuple(names.index(each) for each in wanted)
    if not channel_at:
        raise SourceError(f"{name} has no channels, only {', '.join(names)}. Expected a column of numbers for each.")
    unit_s = 1.0 if time_at is None else columns[time_at].time_unit_s or 1.0
    return ColumnPlan(tuple(columns[at] for at in channel_at), channel_at, time_at, unit_s, label_at, len(columns))


def check_units(columns: Sequence[SeriesColumn], expected: Mapping[str, str], name: str) -> None:
    """Raise if the unit of a channel differs from the expected one; unknown ones fit any.

    Args:
        columns: columns of the channels.
        expected: units by channel name.
        name: name of the table in the error.

    Raises:
        DataError: A unit differs.
    """
    for column in columns:
        other = expected.get(column.name, "")
        if column.unit and other and _plain(column.unit) != _plain(other):
            raise DataError(
                f"{name} has the channel {column.name} in {column.unit}, but {other} is expected. Convert the values, "
                "or correct the unit in the header."
            )


def _plain(unit: str) -> str:
    return unit.replace("^2", "²").replace(" ", "")


def split_line(line: str) -> list[str]:
    """Split a line of a table at semicolons, tabs or commas, the first that it has; else at white space.

    Delimiters in quotes do not count.
    """
    text = line.strip()
    bare = _QUOTED.sub("", text)
    delimiter = next((each for each in _DELIMITERS if each in bare), None)
    if '"' not in text or delimiter is None:
        return [part.strip().strip('"') for part in text.split(delimiter)]
    try:
        return [part.strip() for part in next(csv.reader([text], delimiter=delimiter, skipinitialspace=True))]
    except csv.Error:  # noise on a wire
        return [text]


def is_header(fields: Sequence[str]) -> bool:
    """Return True if fields are titles: at least one is neither a number nor a time nor missing."""
    return any(not _is_value(field) for field in fields)


def _is_value(text: str) -> bool:
    try:
        parse_number(text)
        return True
    except ValueError:
        return _parse_date_s(text) is not None


def parse_number(text: str) -> float:
    """Parse a number; NaN for a missing one.

    Raises:
        ValueError: the text is not a number.
    """
    return math.nan if text.strip().lower() in _MISSING else _float(text)


def parse_time_s(text: str, unit_s: float) -> float:
    """Parse a number of units, or a date in ISO 8601, to seconds.

    Raises:
        ValueError: the text is neither, or not finite.
    """
    if (date_s := _parse_date_s(text)) is not None:
        return date_s
    time_s = _float(text) * unit_s
    if not math.isfinite(time_s):
        raise ValueError(f"{text.strip()!r} is not a time")
    return time_s


def _float(text: str) -> float:
    if "_" in text:  # a digit separator of Python
        raise ValueError(f"could not convert string to float: {text.strip()!r}")
    return float(text)


def _parse_date_s(text: str) -> float | None:
    """Return the seconds since 1970 of a date in ISO 8601; None if the text is none, such as a plain number.

    Without a zone it is in UTC, so that no hour is missing or twice.
    """
    if "-" not in text[1:]:
        return None
    try:
        date = datetime.fromisoformat(text.strip())
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):  # the latter two of years out of range
        return None
