"""Columns of a table: kind, unit, categories, and the constants that encode a value."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.errors import UnreadableSample, UsageError

__all__ = [
    "HIDDEN",
    "LARGEST",
    "MISSING_CELLS",
    "UNKNOWN_CODE",
    "TableColumn",
    "ColumnKind",
    "find_split_title",
    "find_title",
    "join_unit",
    "row_sample",
    "split_unit",
]

ColumnKind = Literal["numeric", "categorical"]
UNKNOWN_CODE = -1.0
"""Code of a category that is missing, or that the training rows did not have."""
HIDDEN = math.inf
"""Value of a column that a mask replaces by the reference; rows of a source never have it."""
MISSING_CELLS = frozenset({"", "na", "n/a", "nan", "null", "?"})
"""Cells without a value, in lower case."""
LARGEST = 1e30
"""Largest magnitude of a number: beyond it, float32 products overflow."""
_UNIT = re.compile(r"\s*(?P<name>.*\S)\s*\[(?P<unit>[^\[\]]+)\]\s*")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def split_unit(title: str) -> tuple[str, str | None]:
    """Split the title of a column, such as `age [years]`, into its name and its unit or None."""
    found = _UNIT.fullmatch(title)
    return (title.strip(), None) if found is None else (found["name"], found["unit"].strip())


def join_unit(name: str, unit: str | None) -> str:
    """Return a title such as `age [years]`, or the name alone without a unit."""
    return name if unit is None else f"{name} [{unit}]"


def find_title(titles: Sequence[str], name: str, unit: str | None) -> int | None:
    """Return the place of a column in a header, or None; an exact title precedes one with another unit.

    Args:
        titles: names of the header, with or without units.
        name: name of the column without its unit.
        unit: expected unit; None accepts any.

    Raises:
        UsageError: the column has another unit, or several columns have the name.
    """
    return find_split_title([split_unit(title) for title in titles], name, unit)


def find_split_title(titles: Sequence[tuple[str, str | None]], name: str, unit: str | None) -> int | None:
    """Return the place of a column in a header whose titles are split into name and unit; see `find_title`."""
    units = {place: other for place, (title, other) in enumerate(titles) if title == name}
    found = [place for place in units if units[place] == unit] or list(units)
    if len(found) > 1:
        shown = " and ".join(repr(join_unit(*titles[place])) for place in found[:2])
        raise UsageError(f"The columns {shown} differ only in their units. Expected one column {name!r}.")
    if not found:
        return None
    given = units[found[0]]
    if None not in (given, unit) and given != unit:
        raise UsageError(
            f"The column {name!r} is in {given}, but {unit} is expected, as in training. Convert the values, and name "
            f"the column '{name} [{unit}]'."
        )
    return found[0]


@dataclass(frozen=True)
class TableColumn:
    """Column of a table, with the constants that encode its values.

    A numeric value is encoded piecewise linearly (Gorishniy et al., On Embeddings for Numerical Features in Tabular
    Deep Learning, NeurIPS 2022): each interval between two edges has a share of it, in [0, 1]. The first and the last
    interval extend by one width. A category is encoded as one of `categories`. All values are relative to `reference`,
    so that zero is the average training row. A missing value is encoded as zero. If the training rows lack values, one
    more number marks them.
    """

    name: str
    kind: ColumnKind
    unit: str | None = None
    edges: tuple[float, ...] = ()
    """Edges of the intervals of a numeric column, increasing: quantiles of the training rows."""
    categories: tuple[str, ...] = ()
    """Values of a categorical column, in the order of their codes."""
    reference: tuple[float, ...] = ()
    """Mean of each number of the encoding over the training rows with a value."""
    missing: float = 0.0
    """Fraction of the training rows without a value, in [0, 1]."""

    @property
    def parts(self) -> int:
        """Number of intervals or categories."""
        return max(0, len(self.edges) - 1) if self.kind == "numeric" else len(self.categories)

    @property
    def is_trained(self) -> tuple[bool, ...]:
        """True for each category of the training rows; for all if the frequencies are not known."""
        is_known = any(self.reference)
        return tuple(frequency > 0 for frequency in self.reference) if is_known else (True,) * self.parts

    @property
    def title(self) -> str:
        """Name with its unit, such as `age [years]`."""
        return join_unit(self.name, self.unit)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Parse a column of the metadata; unknown keys are ignored.

        Raises:
            KeyError, TypeError, ValueError: a value is missing or invalid.
        """
        known: dict[str, Any] = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        known |= {name: tuple(known[name]) for name in ("edges", "categories", "reference") if name in known}
        column = cls(**known)
        numbers = (*column.edges, *column.reference, column.missing)
        if not all(isinstance(text, str) for text in (column.name, *column.categories)):
            raise TypeError(f"the names of {column.name!r} are not texts")
        if column.kind not in get_args(ColumnKind) or not all(map(math.isfinite, numbers)):
            raise ValueError(f"invalid column {column.name!r}")
        is_sorted = all(low < high for low, high in zip(column.edges, column.edges[1:], strict=False))
        is_unique = len(set(column.categories)) == len(column.categories)
        if not is_sorted or not is_unique or len(column.reference) != column.parts or not 0 <= column.missing <= 1:
            raise ValueError(f"invalid constants of the column {column.name!r}")
        return column

    def value_of(self, cell: str | None) -> float:
        """Return the number that the graph takes for a cell: NaN for a missing number, or the code of a category.

        Args:
            cell: text of the cell; None without a value.

        Raises:
            UnreadableSample: the cell of a numeric column is not a finite number.
        """
        is_missing = cell is None or cell.strip().lower() in MISSING_CELLS
        if self.kind == "categorical":
            known = None if cell is None else self._code(cell.strip())
            return UNKNOWN_CODE if known is None else known
        if is_missing:
            return math.nan
        assert cell is not None
        value = float(cell) if _NUMBER.fullmatch(cell.strip()) else math.inf
        if not math.isfinite(value) or abs(value) > LARGEST:
            raise UnreadableSample(
                f"The column {self.title} has {cell.strip()[:40]!r}. Expected a finite number, or an empty cell.",
                f"no number in {self.name}",
            )
        return value

    def check_value(self, value: float) -> None:
        """Raise unless the graph takes a value of this column: a finite number, NaN, -1, or the code of a category.

        Raises:
            UnreadableSample: the value is infinite, or no code.
        """
        is_code = value in range(len(self.categories)) or value == UNKNOWN_CODE
        if math.isnan(value) or (is_code if self.kind == "categorical" else math.isfinite(value)):
            return
        expected = f"-1 or a code below {len(self.categories)}" if self.kind == "categorical" else "a finite number"
        raise UnreadableSample(
            f"The column {self.title} has {value:g}. Expected {expected}, or NaN.", f"no value of {self.name}"
        )

    def is_unseen(self, cell: str | None) -> bool:
        """Return True for a category that the training rows did not have."""
        if self.kind == "numeric" or cell is None or cell.strip().lower() in MISSING_CELLS:
            return False
        return self._code(cell.strip()) is None

    def text_of(self, value: float) -> str:
        """Return the text of a value of the graph's input, such as `rent` or `1234.5`; `missing` without one."""
        if self.kind == "categorical":
            code = int(value) if 0 <= value < math.inf else -1
            return self.categories[code] if 0 <= code < len(self.categories) else "missing"
        return f"{value:.6g}" if math.isfinite(value) else "missing"

    def _code(self, text: str) -> float | None:
        names = self.categories if text in self.categories else tuple(map(canonical_text, self.categories))
        text = text if names is self.categories else canonical_text(text)
        code = names.index(text) if text in names else None
        return float(code) if code is not None and self.is_trained[code] else None


def canonical_text(text: str) -> str:
    """Return one text for the forms of a number or truth value in CSV, JSON and Parquet, such as `1.0` for `1`."""
    if _NUMBER.fullmatch(text):
        return repr(float(text))
    return text.lower() if text.lower() in ("true", "false") else text


def row_sample(titles: tuple[str, ...], cells: tuple[str | None, ...]) -> NDArray[Any]:
    """Create the raw sample of a row.

    Args:
        titles: header, with or without units.
        cells: text of each cell; None without a value.

    Raises:
        UnreadableSample: the row has more or fewer cells than the header.
    """
    if len(titles) != len(cells):
        raise UnreadableSample(
            f"The row has {len(cells)} cells, but the header has {len(titles)}. Expected a cell for each column.",
            "another number of cells",
        )
    return np.array(cells, dtype=[(title, object) for title in titles])
