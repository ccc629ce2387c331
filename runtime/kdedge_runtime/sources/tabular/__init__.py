"""Sources of rows: CSV and Parquet files, standard input, and requests."""

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.sources.looped import LoopedSource
from kdedge_runtime.sources.source import Source
from kdedge_runtime.sources.tabular.posted_rows import PostedRows
from kdedge_runtime.sources.tabular.row_source import RowSource, read_lines
from kdedge_runtime.util.file_hint import file_hint
from kdedge_runtime.util.table_rows import TABLE_SUFFIXES, read_table_rows

if TYPE_CHECKING:
    from kdedge_runtime.modalities.tabular import TabularInput

__all__ = ["open_rows"]

_GRAMMAR = (
    f"a table (*{', *'.join(TABLE_SUFFIXES)}), stdin for CSV with a header or one JSON object a line, or http for rows "
    "that are posted to the live view"
)


def open_rows(spec: "TabularInput", uri: str, stop: threading.Event | None = None, *, loop: bool = False) -> Source:
    """Create the source of a `--source` value.

    | `uri`                           | source                                                      |
    |---------------------------------|-------------------------------------------------------------|
    | `rows.csv`, `.tsv`, `.parquet`  | rows of a file                                              |
    | `stdin`                         | CSV with a header, or one JSON object a line, as it arrives |
    | `http`                          | JSON objects that are posted to `/predict` of the live view |

    Args:
        spec: input of the model, which the rows are checked against.
        uri: source to read.
        stop: event that ends waits for rows.
        loop: True restarts at the end of a file.

    Raises:
        SourceError: the file does not exist.
        UsageError: the value is invalid, or the source has no end for `loop`.
    """
    if loop and uri in ("stdin", "-", "http"):
        raise UsageError(f"--loop needs a file: {uri} cannot be read again.")
    if uri == "http":
        return PostedRows(spec, stop)
    if uri in ("stdin", "-"):
        return RowSource(spec, "stdin", lambda: read_lines(sys.stdin, "stdin"), stop=stop)
    path = Path(uri)
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise UsageError(f"--source {uri} is not a source of rows. Expected {_GRAMMAR}.")
    if not path.is_file():
        raise SourceError(f"There is no table {path}.{file_hint(path)} Expected {_GRAMMAR}.")
    source: Source = RowSource(spec, path.name, lambda: read_table_rows(path), paths=(path,), stop=stop)
    return LoopedSource(source) if loop else source
