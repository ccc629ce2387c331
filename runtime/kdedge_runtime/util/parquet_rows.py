"""Rows of Parquet files as texts, read by pyarrow."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdedge_runtime.errors import DataError
from kdedge_runtime.util.optional_package import needs_package

__all__ = ["cell_text", "parquet_rows", "parquet_titles"]


def parquet_titles(path: Path) -> tuple[str, ...]:
    """Return the names of the columns of a Parquet file.

    Raises:
        DataError: the file cannot be read.
        MissingDependency: pyarrow is not installed.
    """
    with _opened(path) as file:
        return tuple(str(title).strip() for title in file.schema_arrow.names)


def parquet_rows(path: Path) -> Iterator[tuple[str | None, ...]]:
    """Iterate over the rows of a Parquet file as texts; None for a cell without a value.

    Raises:
        DataError: the file cannot be read.
        MissingDependency: pyarrow is not installed.
    """
    with _opened(path) as file:
        for batch in file.iter_batches():
            columns = [column.to_pylist() for column in batch.columns]
            for cells in zip(*columns, strict=True):
                yield tuple(map(cell_text, cells))


def cell_text(value: Any) -> str | None:
    """Return the text of a value of JSON or Parquet; None for null and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    # A number of NumPy has another representation, such as `np.float64(1.5)`.
    return repr(float(value)) if isinstance(value, float) else str(value)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with needs_package(str(path), "pyarrow", "`pip install pyarrow`, or convert the file to CSV"):
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    try:
        with ParquetFile(path) as file:
            yield file
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {str(error)[:120]}. Expected a Parquet file.") from error
