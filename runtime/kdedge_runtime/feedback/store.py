"""Feedback store: an SQLite file with a size limit that survives crashes and power failures."""

import logging
import math
import sqlite3
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdedge_runtime.errors import UsageError
from kdedge_runtime.feedback.database import (
    PAGE_BYTES,
    FeedbackError,
    connect_to_read,
    connect_to_write,
    pragma_number,
    sqlite_errors,
    transaction,
)
from kdedge_runtime.feedback.verdict import Verdict, pack_map, unpack_map
from kdedge_runtime.util.file_hint import file_hint

__all__ = ["FeedbackStore"]

_log = logging.getLogger(__name__)
_SLACK_PAGES = 8
"""Pages needed by an entry in addition to its content, for the B-tree and the free list."""
_COLUMNS = (
    "judgment, content, suffix, kind, map, map_height, map_width, label, score, explained, frame_name, "
    "model_sha256, at, correct_label, box_left, box_top, box_right, box_bottom"
)


class FeedbackStore:
    """Feedback entries of a device, oldest first. Thread-safe.

    The file and SQLite's write-ahead log together stay within the limit, also during writes. The oldest entries are
    deleted to make room: first those of unknown frames, which are recorded without anyone watching. An unknown frame
    deletes no other feedback. Entries are on disk when `add` returns.
    """

    def __init__(self, path: Path, cap_bytes: int | None) -> None:
        """Create a store without connecting; see `open` and `open_to_read`."""
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._reads_only = cap_bytes is None
        # A new entry is in the file and the log at the same time: three quarters of the limit are for the file, one for
        # the log.
        self._most_pages = (cap_bytes or 0) * 3 // 4 // PAGE_BYTES
        self._most_bytes = (cap_bytes or 0) // 4 - _SLACK_PAGES * PAGE_BYTES

    @classmethod
    def open(cls, path: str | Path, cap_mb: float) -> Self:
        """Open a store, creating it if needed.

        A run should not end because feedback cannot be stored. A damaged or read-only file is logged as a warning, and
        every `add` fails until the file is moved away or writable.

        Args:
            path: SQLite file; missing parent folders are created.
            cap_mb: limit of file and log together in MB (10^6 bytes), at least 1. A lower limit than before deletes the
            oldest entries.

        Raises:
            UsageError: the limit is below 1 MB or not finite, or the file is a database of another program.
        """
        cap_bytes = cap_mb * 1e6
        if not 1e6 <= cap_bytes < math.inf:
            raise UsageError(f"A limit of {cap_mb:g} MB is invalid for feedback. Expected a finite number, 1 or more.")
        store = cls(Path(path), int(cap_bytes))
        try:
            store._connected()
        except FeedbackError as error:
            _log.warning("%s", error)
        return store

    @classmethod
    def open_to_read(cls, path: str | Path) -> Self:
        """Open an existing store for reading, also while a run writes to it.

        Raises:
            UsageError: the file does not exist, or is a database of another program.
            FeedbackError: the file is damaged or cannot be read.
        """
        path = Path(path)
        if not path.is_file():
            raise UsageError(
                f"The feedback file {path} does not exist.{file_hint(path)} Expected a file written by "
                "`kdedge-run --feedback`."
            )
        store = cls(path, None)
        store._connected()
        return store

    def add(self, verdict: Verdict) -> None:
        """Add an entry, deleting the oldest ones if necessary.

        Raises:
            FeedbackError: the disk is full, the file is damaged or has samples of another modality, the entry is too
            large, or an unknown frame would delete other feedback. The entry is not stored; earlier ones are kept.
        """
        saliency_map = verdict.saliency_map
        packed = None if saliency_map is None else pack_map(saliency_map)
        shape = (None, None) if saliency_map is None else saliency_map.shape
        size_bytes = len(verdict.content) + len(packed or b"") + 4096
        if size_bytes > self._most_bytes:
            raise FeedbackError(
                f"A feedback entry of {size_bytes / 1e6:.1f} MB does not fit into {self.path}: one entry may use a "
                f"quarter of the limit ({max(self._most_bytes, 0) / 1e6:.1f} MB). Raise the limit."
            )
        row = (
            *(verdict.judgment, verdict.content, verdict.suffix, verdict.kind, packed, *shape),
            *(verdict.label, verdict.score, verdict.explained, verdict.frame_name, verdict.model_sha256),
            *(verdict.at.isoformat(timespec="milliseconds"), verdict.correct_label),
            *(verdict.box or (None,) * 4),
        )
        with self._lock:
            try:
                connection = self._connected()
                with sqlite_errors(self.path):
                    with transaction(connection):
                        self._check_kind(connection, verdict.kind)
                        needed = -(-size_bytes // (PAGE_BYTES - 4)) + _SLACK_PAGES
                        self._make_room(connection, needed, only_unknown=verdict.judgment == "unknown")
                        connection.execute(
                            f"INSERT INTO feedback ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row
                        )
                    # The log is truncated after each entry, so that it never contains more than one.
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except FeedbackError:
                self.close()  # the next call reconnects, because the file may have been moved away
                raise

    @property
    def kind(self) -> str | None:
        """Modality of the samples, such as `image`; None without entries.

        Raises:
            FeedbackError: the file is damaged.
        """
        with sqlite_errors(self.path):
            found = self._rows("SELECT kind FROM feedback LIMIT 1")
        return str(found[0][0]) if found else None

    def __iter__(self) -> Iterator[Verdict]:
        """Iterate over the entries, oldest first.

        Raises:
            FeedbackError: the file is damaged.
        """
        with sqlite_errors(self.path):
            numbers = [number for (number,) in self._rows("SELECT id FROM feedback ORDER BY id")]
        for number in numbers:  # one at a time, because all samples may not fit in memory
            with sqlite_errors(self.path):
                found = [_verdict(*row) for row in self._rows(f"SELECT {_COLUMNS} FROM feedback WHERE id = ?", number)]
            yield from found  # empty if the entry was just deleted to make room

    def __len__(self) -> int:
        with sqlite_errors(self.path):
            ((count,),) = self._rows("SELECT count(*) FROM feedback")
        return int(count)

    def close(self) -> None:
        """Close the file. SQLite removes its log."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connected().execute(query, values).fetchall()

    def _connected(self) -> sqlite3.Connection:
        with self._lock:
            if self._connection is None:
                with sqlite_errors(self.path):
                    self._connection = connect_to_read(self.path) if self._reads_only else self._connect_to_write()
            return self._connection

    def _connect_to_write(self) -> sqlite3.Connection:
        connection = connect_to_write(self.path)
        try:
            self._trim(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_kind(self, connection: sqlite3.Connection, kind: str) -> None:
        other = connection.execute("SELECT kind FROM feedback WHERE kind != ? LIMIT 1", (kind,)).fetchone()
        if other is not None:
            raise FeedbackError(
                f"{self.path} has feedback about samples of the kind {other[0]}, but this sample is of the kind "
                f"{kind}. Use another file."
            )

    def _make_room(self, connection: sqlite3.Connection, needed_pages: int, *, only_unknown: bool) -> None:
        """Delete the oldest entries until the given number of pages fits, or only those of unknown frames."""
        while (
            pragma_number(connection, "page_count") - pragma_number(connection, "freelist_count") + needed_pages
            > self._most_pages
        ):
            if _delete_oldest(connection, "WHERE judgment = 'unknown'"):
                continue
            if only_unknown:
                raise FeedbackError(
                    f"{self.path} is full of other feedback, which unknown frames do not replace. Export the feedback "
                    "and move the file away, or give --record-unknown another file."
                )
            if not _delete_oldest(connection):
                return

    def _trim(self, connection: sqlite3.Connection) -> None:
        """Shrink a file to a limit that was lowered."""
        if pragma_number(connection, "page_count") <= self._most_pages:
            return
        with transaction(connection):
            self._make_room(connection, 0, only_unknown=False)
        # A script runs the statement to completion; `execute` stops after the first page.
        connection.executescript("PRAGMA incremental_vacuum")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _delete_oldest(connection: sqlite3.Connection, condition: str = "") -> bool:
    """Delete the oldest entry that meets an SQL condition; False if there is none."""
    oldest = f"SELECT id FROM feedback {condition} ORDER BY id LIMIT 1"
    return connection.execute(f"DELETE FROM feedback WHERE id = ({oldest})").rowcount > 0


def _verdict(
    judgment: Any,
    content: bytes,
    suffix: str,
    kind: str,
    packed: bytes | None,
    map_height: int,
    map_width: int,
    label: str,
    score: float | None,
    explained: str,
    frame_name: str,
    model_sha256: str,
    at: str,
    correct_label: str | None,
    *box: float | None,
) -> Verdict:
    left, top, right, bottom = box
    return Verdict(
        judgment=judgment,
        content=content,
        suffix=suffix,
        kind=kind,
        saliency_map=None if packed is None else unpack_map(packed, map_height, map_width),
        label=label,
        score=score,
        explained=explained,
        frame_name=frame_name,
        model_sha256=model_sha256,
        at=datetime.fromisoformat(at),
        correct_label=correct_label,
        box=None if left is None or top is None or right is None or bottom is None else (left, top, right, bottom),
    )
