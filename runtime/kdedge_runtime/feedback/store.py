"""Verdicts in an SQLite file that never grows beyond its cap and outlives crashes and power cuts."""

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.feedback.verdict import Verdict, packed, unpacked

__all__ = ["FeedbackError", "FeedbackStore"]

_log = logging.getLogger(__name__)
_APPLICATION_ID = 0x6B646662  # "kdfb": tells the file from any other program's database
_SCHEMA = 1
_PAGE_BYTES = 4096
_PATIENCE_S = 10.0
"""For another program that holds the file."""
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

    def __init__(self, path: Path, cap_bytes: int | None) -> None:
        """Connect to nothing yet; see `open` and `open_to_read`."""
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._reads_only = cap_bytes is None
        # While a verdict is added it is in the log as well: three quarters for the file, one for the log.
        self._most_pages = (cap_bytes or 0) * 3 // 4 // _PAGE_BYTES
        self._most_bytes = (cap_bytes or 0) // 4 - _SLACK_PAGES * _PAGE_BYTES

    @classmethod
    def open(cls, path: str | Path, cap_mb: float) -> Self:
        """Open the store in a file, or start it there.

        A run does not end because its feedback cannot be kept. A file that is damaged or cannot be written is a warning
        in the log, and an error of every `add` until it is moved away or can be written; then the store works.

        Args:
            path: the SQLite file; folders above it are made.
            cap_mb: what file and log may take together, in 10^6 bytes; 1 or more. A lower cap than before deletes the
                oldest verdicts now.

        Raises:
            UsageError: the cap is below 1 MB, or the file is another program's database.
        """
        if not cap_mb >= 1:
            raise UsageError(f"A cap of {cap_mb:g} MB holds no feedback. Expected 1 or more.")
        store = cls(Path(path), int(cap_mb * 1e6))
        try:
            store._connected()
        except FeedbackError as error:
            _log.warning("%s", error)
        return store

    @classmethod
    def open_to_read(cls, path: str | Path) -> Self:
        """Open a store that exists, also while a run adds to it.

        Raises:
            UsageError: there is no such file, or it is another program's database.
            FeedbackError: the file is damaged, or cannot be read.
        """
        path = Path(path)
        if not path.is_file():
            raise UsageError(f"There is no feedback in {path}. Expected the file that `kdedge-run --feedback` wrote.")
        store = cls(path, None)
        store._connected()
        return store

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
        with self._lock:
            try:
                connection = self._connected()
                with _explained(self.path):
                    with _transaction(connection):
                        self._make_room(connection, -(-size_bytes // (_PAGE_BYTES - 4)) + _SLACK_PAGES)
                        connection.execute(
                            f"INSERT INTO verdict ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row
                        )
                    # The log is emptied each time, so that it never counts for more than one verdict.
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except FeedbackError:
                self.close()  # the next one tries anew: by then the file may have been moved away
                raise

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
                with _explained(self.path):
                    self._connection = _connect_to_read(self.path) if self._reads_only else self._connect_to_write()
            return self._connection

    def _connect_to_write(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FeedbackError(
                f"Feedback cannot be kept in {self.path}: {error.strerror}. Name another place."
            ) from error
        with suppress(FileExistsError):  # pictures of a camera are nobody else's; SQLite's log takes the file's mode
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        # The lock takes the place of SQLite's check that one thread only uses the connection.
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=_PATIENCE_S)
        try:
            _prepare(self.path, connection)
            self._trim(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_room(self, connection: sqlite3.Connection, needed_pages: int) -> None:
        """Delete the oldest verdicts until so many more pages fit."""
        while (
            _number(connection, "page_count") - _number(connection, "freelist_count") + needed_pages > self._most_pages
        ):
            deleted = connection.execute("DELETE FROM verdict WHERE id = (SELECT min(id) FROM verdict)")
            if not deleted.rowcount:
                return

    def _trim(self, connection: sqlite3.Connection) -> None:
        """Bring a file that was allowed to be larger below its cap."""
        if _number(connection, "page_count") <= self._most_pages:
            return
        with _transaction(connection):
            self._make_room(connection, 0)
        # A script runs the statement to its end; `execute` stops after its first page.
        connection.executescript("PRAGMA incremental_vacuum")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _connect_to_read(path: Path) -> sqlite3.Connection:
    # Not read-only: such a connection would leave an empty log behind.
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=rw", uri=True, check_same_thread=False, timeout=_PATIENCE_S
    )
    try:
        _check_ours(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite ends it by itself when the disk is full
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


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
    if not _number(connection, "user_version"):
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLE}; PRAGMA application_id = {_APPLICATION_ID}; "
            f"PRAGMA user_version = {_SCHEMA}; COMMIT"
        )


def _check_ours(path: Path, connection: sqlite3.Connection) -> None:
    application, schema = _number(connection, "application_id"), _number(connection, "user_version")
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
    except (sqlite3.Error, ValueError, TypeError) as error:  # the latter two of what stands in a damaged row
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if not isinstance(error, sqlite3.Error) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise FeedbackError(
                f"{path} is damaged, or no feedback ({error}). Move it away, and a new one is started: "
                f"`mv {path} {path}.damaged`."
            ) from error
        remedy = {
            sqlite3.SQLITE_FULL: "The disk is full: remove something.",
            sqlite3.SQLITE_READONLY: "The file cannot be written: name another place.",
            sqlite3.SQLITE_CANTOPEN: "The file cannot be opened: name another place.",
            sqlite3.SQLITE_BUSY: "Another program holds it: end that one, or name another file.",
        }.get(code, "The disk or the file may be damaged: name another place.")
        raise FeedbackError(f"Feedback in {path} cannot be read or written ({error}). {remedy}") from error
