"""SQLite file of the feedback: format, connections, and errors with a remedy."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kdedge_runtime.errors import KdedgeError, UsageError

__all__ = [
    "PAGE_BYTES",
    "FeedbackError",
    "connect_to_read",
    "connect_to_write",
    "pragma_number",
    "sqlite_errors",
    "transaction",
]

PAGE_BYTES = 4096
"""Size of a page of a new file."""
_APPLICATION_ID = 0x6B646662  # "kdfb": identifies the file format
_SCHEMA = 3
_TIMEOUT_S = 10.0
"""Time in seconds to wait for a lock held by another program."""
_TABLE = """
CREATE TABLE feedback (
    id INTEGER PRIMARY KEY,
    judgment TEXT NOT NULL, content BLOB NOT NULL, suffix TEXT NOT NULL, kind TEXT NOT NULL,
    map BLOB, map_height INTEGER, map_width INTEGER,
    label TEXT NOT NULL, score REAL, explained TEXT NOT NULL, frame_name TEXT NOT NULL,
    model_sha256 TEXT NOT NULL, at TEXT NOT NULL, correct_label TEXT,
    box_left REAL, box_top REAL, box_right REAL, box_bottom REAL
)"""


class FeedbackError(KdedgeError):
    """Feedback that cannot be stored or read. The run can continue."""


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open an existing file.

    Raises:
        UsageError: the file is a database of another program or version.
    """
    # Not read-only, because such a connection would leave an empty log behind.
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=rw", uri=True, check_same_thread=False, timeout=_TIMEOUT_S
    )
    try:
        _check_ours(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_write(path: Path) -> sqlite3.Connection:
    """Open a file, creating it with its parent folders if needed.

    Raises:
        FeedbackError: the folder or the file cannot be created.
        UsageError: the file is a database of another program or version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # camera images are private; SQLite's log inherits the file mode
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        is_new = not path.stat().st_size
    except OSError as error:
        raise FeedbackError(f"Feedback cannot be stored in {path}: {error.strerror}. Use another path.") from error
    # The store's lock replaces SQLite's single-thread check.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_TIMEOUT_S)
    try:
        _prepare(path, connection, is_new)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the changes of a block, or roll them back if it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite rolls back by itself when the disk is full
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def pragma_number(connection: sqlite3.Connection, pragma: str) -> int:
    """Return the value of a numeric pragma, such as `page_count`."""
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _prepare(path: Path, connection: sqlite3.Connection, is_new: bool) -> None:
    """Initialize a new file, or check that it is a feedback file."""
    if is_new:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    else:
        _check_ours(path, connection)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("PRAGMA synchronous = FULL")  # no entry is lost on a power failure
    connection.execute("PRAGMA secure_delete = OFF")  # overwriting deleted samples would fill the log
    if not pragma_number(connection, "user_version"):
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLE}; PRAGMA application_id = {_APPLICATION_ID}; "
            f"PRAGMA user_version = {_SCHEMA}; COMMIT"
        )


def _check_ours(path: Path, connection: sqlite3.Connection) -> None:
    application, schema = pragma_number(connection, "application_id"), pragma_number(connection, "user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    # A crash may occur after the file is created and before its table is.
    if application != _APPLICATION_ID and (tables or application or schema):
        raise UsageError(f"{path} is a database of another program. Use another file for the feedback.")
    if schema not in (0, _SCHEMA):
        raise UsageError(
            f"{path} has feedback schema {schema}; this kdedge-runtime uses schema {_SCHEMA}. Use another file, or "
            "install the kdedge-runtime that wrote it."
        )


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Convert SQLite errors to `FeedbackError` with a remedy."""
    try:
        yield
    except (sqlite3.Error, ValueError, TypeError) as error:  # ValueError and TypeError come from damaged rows
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if not isinstance(error, sqlite3.Error) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise FeedbackError(
                f"{path} is damaged or not a feedback file ({error}). Expected a file of `kdedge-run --feedback`. If "
                f"it is one, move it away to start a new one: `mv {path} {path}.damaged`."
            ) from error
        remedy = {
            sqlite3.SQLITE_FULL: "The disk is full: free some space.",
            sqlite3.SQLITE_READONLY: "The file cannot be written: use another path.",
            sqlite3.SQLITE_CANTOPEN: "The file cannot be opened: use another path.",
            sqlite3.SQLITE_BUSY: "Another program has locked it: end that program, or use another file.",
        }.get(code, "The disk or the file may be damaged: use another path.")
        raise FeedbackError(f"Feedback in {path} cannot be read or written ({error}). {remedy}") from error
