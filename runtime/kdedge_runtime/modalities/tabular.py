"""Tables: rows of named columns, numeric or categorical."""

import csv
import io
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from kdedge_runtime.errors import SourceError, UnreadableSample, UsageError
from kdedge_runtime.modalities.input_spec import InputSpec, Renderer, Sample
from kdedge_runtime.modalities.table_column import HIDDEN, TableColumn, find_split_title, row_sample, split_unit
from kdedge_runtime.util.arrays import Floats, Integers, Pixels
from kdedge_runtime.util.counts import counted

if TYPE_CHECKING:
    from kdedge_runtime.drawing.heatmap import HeatStats
    from kdedge_runtime.prediction import Prediction
    from kdedge_runtime.sources.source import Source

__all__ = ["TabularInput"]

_ALWAYS_ENOUGH = 4
"""Number of map positions that no check rejects: each column has one of its own."""


@dataclass(frozen=True)
class TabularInput(InputSpec):
    """Input specification of a table: its columns in the order of the graph input.

    A raw sample is a row by column name, a structured array of texts without dimensions (see `row_sample`). The graph
    takes float32 `[N, columns]`: numbers as they are, NaN where missing, and codes of categories, -1 where missing.
    """

    features: tuple[TableColumn, ...]
    """Columns in the order of the graph input."""
    scale: tuple[float, float] | None = None
    """Mean and standard deviation of the target of a regression, over the training rows; None for classes."""
    name: str = "tabular"
    kind: Literal["tabular"] = "tabular"

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns in their order."""
        return tuple(column.name for column in self.features)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of columns."""
        return (len(self.features),)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the values, float32."""
        return np.dtype(np.float32)

    @property
    def summary(self) -> str:
        """Number of columns, such as `20 columns`."""
        return counted(len(self.features), "column")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Parse the metadata of a model file; see `InputSpec`."""
        columns = tuple(TableColumn.from_json(column) for column in values["features"])
        if not columns or len({column.name for column in columns}) != len(columns):
            raise ValueError("the columns have no names, or the same name twice")
        name = values.get("name", "tabular")
        if not isinstance(name, str):
            raise TypeError(f"expected str, got {type(name).__name__}")
        scale = None if values.get("scale") is None else (float(values["scale"][0]), float(values["scale"][1]))
        if scale is not None and not (all(map(math.isfinite, scale)) and scale[1] > 0):
            raise ValueError(f"invalid scale {scale}")
        return cls(columns, scale, name)

    def preprocess(self, sample: Sample) -> Floats:
        """Match the cells of a row by the names of the columns, in any order.

        Args:
            sample: row by column name, or values that are already in the order of the columns.

        Raises:
            UsageError: a column is missing, or has another unit.
            UnreadableSample: values have another number or type, a cell of a numeric column is not a finite number, or
                a code has no category.
        """
        if sample.dtype.names is None:
            if not np.issubdtype(sample.dtype, np.number) or sample.shape != self.shape:
                raise UnreadableSample(
                    f"A row has the shape {sample.shape} and the type {sample.dtype}. Expected "
                    f"{self.shape[0]} numbers: {self._names()}.",
                    "wrong shape",
                )
            values: Floats = np.asarray(sample, np.float32)
            for column, value in zip(self.features, values.tolist(), strict=True):
                column.check_value(value)
            return values
        places = self.places(sample.dtype.names)
        cells = sample.item()
        row = [column.value_of(cells[place]) for column, place in zip(self.features, places, strict=True)]
        return np.array(row, np.float32)

    def places(self, titles: tuple[str, ...]) -> tuple[int, ...]:
        """Return the place of each column in a header.

        Args:
            titles: names of the header in any order, with or without units; more columns are ignored.

        Raises:
            UsageError: a column is missing or ambiguous, or its unit differs from training.
        """
        split = [split_unit(title) for title in titles]  # once, because a wide table has thousands of pairs
        found = {column.name: find_split_title(split, column.name, column.unit) for column in self.features}
        missing = [name for name, place in found.items() if place is None]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            close = get_close_matches(missing[0], [name for name, _ in split], 1)
            raise UsageError(
                f"The rows have no column {', '.join(map(repr, missing[:5]))}{more}. "
                f"{f'There is {close[0]!r}. ' if close else ''}Expected the columns {self._names()}, in any order. A "
                "column whose values are unknown needs empty cells, or null in JSON."
            )
        return tuple(place for place in found.values() if place is not None)

    def as_sample(self, value: Any) -> Sample:
        """Convert a value for each column, by name, to a row, and log categories that the training rows did not have.

        Raises:
            UsageError: a column is missing, or has another unit.
            UnreadableSample: a value is no text, number, boolean or None.
        """
        if not isinstance(value, Mapping):
            return super().as_sample(value)
        from kdedge_runtime.sources.tabular.unseen_categories import UnseenCategories
        from kdedge_runtime.util.table_rows import row_of_values

        row = row_of_values(value, 1)
        sample = row_sample(row.titles, row.cells)
        UnseenCategories().warn(self.unseen(sample))
        return sample

    def unseen(self, sample: Sample) -> dict[str, str]:
        """Return the categories of a row that the model does not have, by column; empty for preprocessed rows."""
        if sample.dtype.names is None:
            return {}
        cells = sample.item()
        pairs = zip(self.features, self.places(sample.dtype.names), strict=True)
        return {column.name: cells[place].strip() for column, place in pairs if column.is_unseen(cells[place])}

    @property
    def preprocessing_id(self) -> str:
        """Hash of the names and categories; the encoding is part of the graph."""
        names = [(column.name, column.kind, column.unit, column.categories) for column in self.features]
        return sha256(repr(names).encode()).hexdigest()

    def reference_sample(self, seed: int) -> Floats:
        """Generate a row with an edge of each numeric column and a category of each categorical one."""
        row = []
        for place, column in enumerate(self.features):
            choices = column.edges if column.kind == "numeric" else range(len(column.categories))
            row.append(float(choices[(seed + 3 * place) % len(choices)]) if len(choices) else 0.0)
        return np.array(row, np.float32)

    def map_stats(self, saliency_map: Floats, sample: Sample, shift: tuple[float, float]) -> "HeatStats":
        """Compute the spread of the positive contributions; columns have no location."""
        from kdedge_runtime.drawing.heatmap import HeatStats

        evidence = np.maximum(saliency_map[0].astype(np.float64), 0)
        total = float(evidence.sum())
        if not total > 0:
            return HeatStats(None, None, 0.0, None)
        shares = evidence[evidence > 0] / total
        entropy = abs(float((shares * np.log(shares)).sum())) / max(float(np.log(len(evidence))), 1e-9)
        return HeatStats(None, None, float((evidence > evidence.max() / 2).mean()), entropy)

    def renderer(self, *, moving: bool, fps: float | None) -> Renderer:
        """Create a renderer of waterfalls; see `InputSpec`."""
        from kdedge_runtime.drawing.waterfall import WaterfallRenderer

        return WaterfallRenderer(self)

    def draw_explanation(self, prediction: "Prediction", opacity: float) -> Pixels:
        """Draw the waterfall of a row; without a map the row with its values. See `InputSpec`."""
        from kdedge_runtime.drawing.waterfall import draw_prediction

        return draw_prediction(self, prediction)

    def draw_sample(self, sample: Sample) -> Pixels:
        """Draw the columns of a row with their values."""
        from kdedge_runtime.drawing.waterfall import draw_row

        return draw_row(self, self.preprocess(sample))

    @property
    def sample_suffix(self) -> str:
        """Suffix of CSV files."""
        return ".csv"

    @property
    def sample_noun(self) -> str:
        """Row."""
        return "row"

    @property
    def has_overlay(self) -> bool:
        """False, since a waterfall is a chart."""
        return False

    def evidence_legend(self, *, has_values: bool) -> str:
        """Return the meaning of the colors of a waterfall; see `InputSpec`."""
        if has_values:
            return "Orange bars raise {}, blue bars lower it."
        return "Orange bars are evidence for {}, blue bars against it."

    def encode_sample(self, sample: Sample) -> bytes:
        """Encode a row as CSV with its header; a preprocessed row has the columns of the model."""
        if sample.dtype.names is None:
            titles: tuple[str, ...] = tuple(column.title for column in self.features)
            pairs = zip(self.features, sample.tolist(), strict=True)
            cells = [None if (value := _json_value(*pair)) is None else str(value) for pair in pairs]
        else:
            titles, cells = sample.dtype.names, list(sample.item())
        text = io.StringIO(newline="")
        csv.writer(text).writerows([titles, cells])
        return text.getvalue().encode()

    @classmethod
    def decode_sample(cls, content: bytes) -> Sample:
        """Decode a row that `encode_sample` encoded; cells without a value are empty texts.

        Raises:
            ValueError: the content is not such a row.
        """
        titles, cells = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
        return row_sample(tuple(titles), tuple(cells))

    @property
    def mask_size(self) -> tuple[int, int]:
        """One row of columns."""
        return 1, len(self.features)

    def positions(self, map_size: tuple[int, int]) -> int:
        """Return a number that suffices for a map, since a table has few columns and each has its own position."""
        return max(map_size[1], _ALWAYS_ENOUGH)

    def mask(self, sample: Floats, keep: Floats, fill: Floats | None = None) -> Floats:
        """Replace hidden columns by the reference, the average training row, or by `fill`; see `InputSpec`.

        A column is hidden below a visibility of 1/2, since categories do not blend.
        """
        hidden = np.float32(HIDDEN) if fill is None else fill
        return np.where(keep[:, 0, :] >= 0.5, sample, hidden).astype(np.float32)

    def segments(self, sample: Floats, count: int) -> Integers:
        """Return the columns, in groups of neighbors if there are more than `count`."""
        places = np.arange(len(self.features), dtype=np.int64)
        return (places * min(count, len(places)) // len(places))[None]

    def check_sample_file(self, path: Path) -> None:
        """Raise unless a file is a table; see `InputSpec`."""
        from kdedge_runtime.util.table_rows import TABLE_SUFFIXES

        if path.is_dir() or path.suffix.lower() not in TABLE_SUFFIXES:
            raise SourceError(f"{path} is not a table. Expected a file with a header (*{', *'.join(TABLE_SUFFIXES)}).")

    def open_source(
        self,
        uri: str,
        frames: Literal["all", "latest"] | None = None,
        stop: threading.Event | None = None,
        *,
        loop: bool = False,
        hop_s: float | None = None,
    ) -> "Source":
        """Create a source of rows: a CSV or Parquet file, `stdin`, or `http`; see `open_rows`."""
        from kdedge_runtime.sources.tabular import open_rows

        if hop_s is not None:
            raise UsageError("--hop sets the interval of windows, but rows of a table have none. Remove --hop.")
        return open_rows(self, uri, stop, loop=loop)

    def reasons(self, sample: Sample, saliency_map: Floats, count: int) -> list[dict[str, Any]]:
        """Return the columns with the largest contributions, with value, unit and contribution; see `InputSpec`."""
        values, contributions = self.preprocess(sample), saliency_map[0]
        order = np.argsort(-np.abs(contributions), kind="stable")[:count]
        return [
            {
                "column": self.features[place].name,
                "value": _json_value(self.features[place], float(values[place])),
                **({} if self.features[place].unit is None else {"unit": self.features[place].unit}),
                "contribution": round(float(contributions[place]), 5),
            }
            for place in order.tolist()
        ]

    def _names(self) -> str:
        names = [column.name for column in self.features]
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _json_value(column: TableColumn, value: float) -> str | float | None:
    if column.kind == "categorical":
        return column.categories[int(value)] if value in range(len(column.categories)) else None
    return float(str(np.float32(value))) if math.isfinite(value) else None
