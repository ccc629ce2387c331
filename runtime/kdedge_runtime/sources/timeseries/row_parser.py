"""Rows in lines of text, as sensors and MQTT topics send them: comma-separated numbers, or JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.timeseries.columns import (
    ColumnPlan,
    SeriesColumn,
    check_units,
    is_header,
    parse_time_s,
    plan_columns,
    split_line,
)
from kdedge_runtime.sources.timeseries.series_rows import SeriesRow, row_of, unnamed_plan

__all__ = ["RowParser"]


class RowParser:
    """Parser of lines, which may begin with a header.

    Without a header a line has the channels in their order. A JSON object has them by name, and an array in order.
    """

    def __init__(self, channels: Sequence[str], name: str, units: Mapping[str, str] = MappingProxyType({})) -> None:
        """Start before the first line.

        Args:
            channels: channel names of the model in their order.
            name: name of the source in errors.
            units: units of the model by channel; those of a header are compared with them.
        """
        self._units = units
        self._channels = tuple(channels)
        self._name = name
        self._plan: ColumnPlan | None = None

    def parse(self, line: str) -> SeriesRow | None:
        """Parse a line; None for an empty one or a header.

        Raises:
            SourceError: the line has no row of the model's channels.
            DataError: The unit of a channel differs from that of the model.
        """
        text = line.strip()
        if not text:
            return None
        if text[0] in "{[":
            return self._parse_json(text)
        fields = split_line(text)
        if is_header(fields) and not self._is_row(fields):
            plan = plan_columns(fields, self._channels, self._name)
            check_units(plan.channels, self._units, self._name)
            self._plan = plan
            return None
        plan = self._plan or unnamed_plan(len(fields), self._channels, self._name)
        return row_of(fields, plan, self._name)

    def _is_row(self, fields: Sequence[str]) -> bool:
        """Return True for a line below a header, in which only columns that are not read have text."""
        plan = self._plan
        if plan is None or len(fields) != plan.width:
            return False
        read_at = plan.channel_at if plan.time_at is None else (*plan.channel_at, plan.time_at)
        return not is_header([fields[at] for at in read_at])

    def _parse_json(self, text: str) -> SeriesRow:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{self._name}: invalid JSON ({error}). Expected {self._form}.") from error
        if isinstance(content, list):
            if len(content) != len(self._channels):
                raise SourceError(f"{self._name}: an array of {len(content)} values. Expected {self._form}.")
            return SeriesRow(None, tuple(self._number(value) for value in content))
        missing = [each for each in self._channels if each not in content]
        if missing:
            raise SourceError(f"{self._name}: no value of {', '.join(missing)}. Expected {self._form}.")
        values = tuple(self._number(content[each]) for each in self._channels)
        return SeriesRow(self._time_s(content), values)

    def _time_s(self, content: dict[str, Any]) -> float | None:
        for key, value in content.items():
            unit_s = None if key in self._channels else SeriesColumn.parse(key).time_unit_s
            if unit_s is None or value is None:
                continue
            try:
                return parse_time_s(str(value), unit_s)
            except ValueError as error:
                raise SourceError(f"{self._name}: {error}. Expected a time in seconds or ISO 8601.") from error
        return None

    def _number(self, value: Any) -> float:
        if value is None:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SourceError(f"{self._name}: {value!r} is not a number. Expected {self._form}.")
        try:
            return float(value)
        except OverflowError:
            return math.inf

    @property
    def _form(self) -> str:
        return f"the channels {', '.join(self._channels)} as an object, or their values in this order as an array"
