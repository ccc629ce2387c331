"""Verdicts in an SQLite file that never grows beyond its cap and outlives crashes and power cuts."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.feedback.verdict import Verdict, packed, unpacked

__all__ = ["FeedbackError", "FeedbackStore"]

_APPLICATION_ID = 0x6B646662  # "kdfb": tells the file from any other program's database
_SCHEMA = 1
_PAGE_BYTES = 4096
_SLACK_PAGES = 8
"""Pages that a verdict may need besides its own content: the tree's and the free list's."""
_COLUMNS = (
    "judgement, frame_jpeg, map, map_height, map_width, label, probability, explained, frame_name, model_sha256, at, "
    "correct_label, box_left, box_top, box_right, box_bottom"
)
_TABLE = """
CREATE TABLE verdict (
    id INTEGER PRIMARY KEY,
    judgement TEXT NOT NULL, frame_jpeg BLOB NOT NULL, map BLOB, map_height INTEGER, map_width INTEGER,
    label TEXT NOT NULL, probability REAL NOT NULL, explained TEXT NOT NULL, frame_name TEXT NOT NULL,
    model_sha256 TEXT NOT NULL, at TEXT NOT NULL, correct_label TEXT,
    box_left REAL, box_top REAL, box_right REAL, box_bottom REAL
)"""


class FeedbackError(KdedgeError):
    """Feedback cannot be kept or read; whatever else runs can go on without it."""


class FeedbackStore:
    """The verdicts of a device, newest last. Safe to use from several threads.

    The file and SQLite's log beside it stay within the cap together, also while a verdict is added: the oldest ones
    make room. A verdict is on the disk when `add` returns.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, cap_bytes: int) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()
        # While a verdict is added it is in the log as well: three quarters for the file, one for the log.
        self._most_pages = cap_bytes * 3 // 4 // _PAGE_BYTES
        self._most_bytes = cap_bytes // 4 - _SLACK_PAGES * _PAGE_BYTES

    @classmethod
    def open(cls, path: str | Path, cap_mb: float) -> Self:
        """Open the store in a file, or start it there.

        A run must not end because its feedback cannot be kept: catch `FeedbackError`, say it, and go on without.

        Args:
            path: the SQLite file; folders above it are made.
            cap_mb: what file and log may take together, in 10^6 bytes; 1 or more. A lower cap than before deletes the
                oldest verdicts now.

        Raises:
            UsageError: the cap is below 1 MB, or the file holds something that is no feedback.
            FeedbackError: the file is damaged, or cannot be written.
        """
        if not cap_mb >= 1:
            raise UsageError(f"A cap of {cap_mb:g} MB holds no feedback. Expected 1 or more.")
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FeedbackError(f"Feedback cannot be kept in {path}: {error.strerror}. Name another place.") from error
        with _explained(path):
            # The lock below takes the place of the check that one thread only uses the connection.
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            try:
                _prepare(path, connection)
                store = cls(path, connection, int(cap_mb * 1e6))
                store._trim()
            except BaseException:
                connection.close()
                raise
        return store

    @classmethod
    def open_to_read(cls, path: str | Path) -> Self:
        """Open a store that exists, also while a run adds to it.

        Raises:
            UsageError: there is no such file, or it holds something that is no feedback.
            FeedbackError: the file is damaged, or cannot be read.
        """
        path = Path(path)
        if not path.is_file():
            raise UsageError(f"There is no feedback in {path}. Expected the file that `kdedge-run --feedback` wrote.")
        with _explained(path):
            # Not read-only: such a connection would leave an empty log behind.
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=10)
            try:
                _check_ours(path, connection)
            except BaseException:
                connection.close()
                raise
        return cls(path, connection, 0)

    def add(self, verdict: Verdict) -> None:
        """Keep a verdict; the oldest ones are deleted where the cap asks for it.

        Raises:
            FeedbackError: the disk is full, the file is damaged, or the verdict does not fit into the cap. Nothing
                was kept then, and the verdicts from before are still there.
        """
        saliency_map = verdict.saliency_map
        content = None if saliency_map is None else packed(saliency_map)
        shape = (None, None) if saliency_map is None else saliency_map.shape
        size_bytes = len(verdict.frame_jpeg) + len(content or b"") + 4096
        if size_bytes > self._most_bytes:
            raise FeedbackError(
                f"A verdict of {size_bytes / 1e6:.1f} MB does not fit into {self.path}: a quarter of the cap is the "
                f"most for one ({max(self._most_bytes, 0) / 1e6:.1f} MB). Raise the cap."
            )
        row = (
            *(verdict.judgement, verdict.frame_jpeg, content, *shape),
            *(verdict.label, verdict.probability, verdict.explained, verdict.frame_name, verdict.model_sha256),
            *(verdict.at.isoformat(timespec="milliseconds"), verdict.correct_label),
            *(verdict.box or (None,) * 4),
        )
        with self._lock, _explained(self.path):
            with self._transaction():
                self._make_room(-(-size_bytes // (_PAGE_BYTES - 4)) + _SLACK_PAGES)
                self._connection.execute(f"INSERT INTO verdict ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)
            # The log is emptied each time, so that it never counts for more than one verdict.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def __iter__(self) -> Iterator[Verdict]:
        """The verdicts, oldest first.

        Raises:
            FeedbackError: the file is damaged.
        """
        with _explained(self.path):
            numbers = [number for (number,) in self._rows("SELECT id FROM verdict ORDER BY id")]
        for number in numbers:  # one at a time: pictures of days need not fit in memory
            with _explained(self.path):
                found = [_verdict(*row) for row in self._rows(f"SELECT {_COLUMNS} FROM verdict WHERE id = ?", number)]
            yield from found  # none where it has just made room for a newer one

    def __len__(self) -> int:
        with _explained(self.path):
            ((count,),) = self._rows("SELECT count(*) FROM verdict")
        return int(count)

    def close(self) -> None:
        """Close the file; the log beside it disappears."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:  # SQLite ends it by itself when the disk is full
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _make_room(self, needed_pages: int) -> None:
        """Delete the oldest verdicts until so many more pages fit."""
        while self._used_pages() + needed_pages > self._most_pages:
            deleted = self._connection.execute("DELETE FROM verdict WHERE id = (SELECT min(id) FROM verdict)")
            if not deleted.rowcount:
                return

    def _trim(self) -> None:
        """Bring a file that was allowed to be larger below its cap."""
        if self._number("page_count") <= self._most_pages:
            return
        with self._transaction():
            self._make_room(0)
        # A script runs the statement to its end; `execute` stops after its first page.
        self._connection.executescript("PRAGMA incremental_vacuum")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _used_pages(self) -> int:
        return self._number("page_count") - self._number("freelist_count")

    def _number(self, pragma: str) -> int:
        return int(self._connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    """Set up a new file, or check that it is one of ours."""
    if not path.stat().st_size:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    else:
        _check_ours(path, connection)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("PRAGMA synchronous = FULL")  # a power cut loses no verdict
    connection.execute("PRAGMA secure_delete = OFF")  # overwriting deleted pictures would go through the log
    if not connection.execute("PRAGMA user_version").fetchone()[0]:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLE}; PRAGMA application_id = {_APPLICATION_ID}; "
            f"PRAGMA user_version = {_SCHEMA}; COMMIT"
        )


def _check_ours(path: Path, connection: sqlite3.Connection) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    schema = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    # A crash may come between the file and its table.
    if application != _APPLICATION_ID and (tables or application or schema):
        raise UsageError(f"{path} is the database of another program. Name another file for the feedback.")
    if schema not in (0, _SCHEMA):
        raise UsageError(
            f"{path} has feedback of schema {schema}; this kdedge-runtime keeps schema {_SCHEMA}. Name another file, "
            "or install the kdedge-runtime that wrote it."
        )


def _verdict(
    judgement: Any,
    frame_jpeg: bytes,
    content: bytes | None,
    map_height: int,
    map_width: int,
    label: str,
    probability: float,
    explained: str,
    frame_name: str,
    model_sha256: str,
    at: str,
    correct_label: str | None,
    *box: float | None,
) -> Verdict:
    left, top, right, bottom = box
    return Verdict(
        judgement=judgement,
        frame_jpeg=frame_jpeg,
        saliency_map=None if content is None else unpacked(content, map_height, map_width),
        label=label,
        probability=probability,
        explained=explained,
        frame_name=frame_name,
        model_sha256=model_sha256,
        at=datetime.fromisoformat(at),
        correct_label=correct_label,
        box=None if left is None or top is None or right is None or bottom is None else (left, top, right, bottom),
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's errors as a sentence that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise FeedbackError(
                f"{path} is damaged, or no feedback ({error}). Move it away, and a new one is started: "
                f"`mv {path} {path}.damaged`."
            ) from error
        remedy = {
            sqlite3.SQLITE_FULL: "The disk is full: remove something, or lower the cap.",
            sqlite3.SQLITE_READONLY: "The file cannot be written: name another place.",
            sqlite3.SQLITE_CANTOPEN: "The file cannot be opened: name another place.",
            sqlite3.SQLITE_BUSY: "Another program holds it: end that one, or name another file.",
        }.get(code, "The disk or the file may be damaged: name another place.")
        raise FeedbackError(f"Feedback in {path} cannot be read or written ({error}). {remedy}") from error
