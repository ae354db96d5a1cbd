"""The database's tables, how one is made, and how an existing one is examined before anybody writes to it.

A file that is refused is never opened for writing, so it stays as it was found, byte for byte.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from koubou_panel.archive.loaded import load
from koubou_panel.archive.rows import standing_part
from koubou_panel.errors import KoubouError

APPLICATION_ID = 0x4B6F7562  # "Koub"
_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100

# `PRAGMA quick_check` reads everything: 0.6 s for 660 MB (a million tasks) from memory, longer from a disk. Up to
# this size the whole database is checked at every start. Beyond it the header, the size against the page count, and
# every page and record that loading touches are: SQLite tells a malformed page whenever it meets one.
WHOLE_CHECK_BYTES = 256 * 1024 * 1024

# `task` is written once, `standing` again and again: a large payload is not copied by a change of status. Large
# columns come last, so that a scan does not read their overflow pages. `status` is the place in STATUSES.
#
# All of a commit goes through the view `inbox`, as one statement. The `sqlite3` module gives up the interpreter
# lock around each step of a statement, and a busy loop lets it go again only after 5 ms: with one statement a row
# such a commit took 16 ms for 64 tasks and 2 s for 1,000; with five statements 30 ms for 128 tasks; with one, 8 ms.
_FIRST = (
    """CREATE TABLE task (
        ord INTEGER PRIMARY KEY,
        task_id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        idempotency_key TEXT,
        text TEXT NOT NULL,
        request BLOB NOT NULL,
        payload BLOB
    )""",
    "CREATE UNIQUE INDEX task_by_key ON task (idempotency_key) WHERE idempotency_key IS NOT NULL",
    """CREATE TABLE standing (
        ord INTEGER PRIMARY KEY,
        status INTEGER NOT NULL,
        finished_at REAL,
        rest BLOB NOT NULL,
        value BLOB
    )""",
    "CREATE INDEX standing_by_status ON standing (status)",
    "CREATE INDEX standing_by_end ON standing (finished_at) WHERE finished_at IS NOT NULL",
    "CREATE TABLE journal (number INTEGER PRIMARY KEY, at REAL NOT NULL, facts BLOB NOT NULL)",
    "CREATE TABLE metrics (number INTEGER PRIMARY KEY, at REAL NOT NULL, sample BLOB NOT NULL)",
    "CREATE INDEX metrics_by_time ON metrics (at)",
    "CREATE TABLE pool (only INTEGER PRIMARY KEY CHECK (only = 1), record BLOB NOT NULL)",
    """CREATE VIEW inbox (ord, task_id, kind, idempotency_key, text, request, payload,
                           status, at, blob, value)
        AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL""",
    """CREATE TRIGGER inbox_task INSTEAD OF INSERT ON inbox WHEN new.task_id IS NOT NULL BEGIN
        INSERT INTO task VALUES (new.ord, new.task_id, new.kind, new.idempotency_key,
                                 new.text, new.request, new.payload);
    END""",
    """CREATE TRIGGER inbox_standing INSTEAD OF INSERT ON inbox WHEN new.ord > 0 BEGIN
        INSERT INTO standing VALUES (new.ord, new.status, new.at, new.blob, new.value)
        ON CONFLICT (ord) DO UPDATE SET
            status = excluded.status, finished_at = excluded.finished_at, rest = excluded.rest,
            value = coalesce(excluded.value, value);
    END""",
    """CREATE TRIGGER inbox_journal INSTEAD OF INSERT ON inbox WHEN new.ord = 0 AND new.kind = 'journal' BEGIN
        INSERT INTO journal (at, facts) VALUES (new.at, new.blob);
    END""",
    """CREATE TRIGGER inbox_metrics INSTEAD OF INSERT ON inbox WHEN new.ord = 0 AND new.kind = 'metrics' BEGIN
        INSERT INTO metrics (at, sample) VALUES (new.at, new.blob);
    END""",
    """CREATE TRIGGER inbox_pool INSTEAD OF INSERT ON inbox WHEN new.ord = 0 AND new.kind = 'pool' BEGIN
        INSERT INTO pool VALUES (1, new.blob) ON CONFLICT (only) DO UPDATE SET record = excluded.record;
    END""",
)

# What a task's last run used over time. Its number comes in the column `status` of the inbox.
_CURVES = (
    "CREATE TABLE curve (ord INTEGER PRIMARY KEY, points BLOB NOT NULL)",
    """CREATE TRIGGER inbox_curve INSTEAD OF INSERT ON inbox WHEN new.ord = 0 AND new.kind = 'curve' BEGIN
        INSERT INTO curve VALUES (new.status, new.blob) ON CONFLICT (ord) DO UPDATE SET points = excluded.points;
    END""",
)

# The catalogue, and whose run each task is. A name comes in the column `text` of the inbox, a due time in `at`, a
# task's number in `status`. A due time has one run at most, whatever happens.
_SCRIPTS = (
    "CREATE TABLE script (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE script_run (ord INTEGER PRIMARY KEY, name TEXT NOT NULL, fire_at REAL)",
    "CREATE INDEX script_run_by_name ON script_run (name, ord)",
    "CREATE UNIQUE INDEX script_run_by_fire ON script_run (name, fire_at) WHERE fire_at IS NOT NULL",
    """CREATE TRIGGER inbox_script INSTEAD OF INSERT ON inbox
        WHEN new.ord = 0 AND new.kind = 'script' AND new.blob IS NOT NULL BEGIN
        INSERT INTO script VALUES (new.text, new.blob) ON CONFLICT (name) DO UPDATE SET record = excluded.record;
    END""",
    """CREATE TRIGGER inbox_script_removed INSTEAD OF INSERT ON inbox
        WHEN new.ord = 0 AND new.kind = 'script' AND new.blob IS NULL BEGIN
        DELETE FROM script WHERE name = new.text;
    END""",
    """CREATE TRIGGER inbox_script_run INSTEAD OF INSERT ON inbox WHEN new.ord = 0 AND new.kind = 'script_run' BEGIN
        INSERT INTO script_run VALUES (new.status, new.text, new.at);
    END""",
)

# Where each run stood: its worker and its start as columns, for `archive/spans.py`, which reads nothing but the index.
# The columns are the last of the table, behind large results, so nothing else should look at them. What a new column of
# the inbox needs is a new inbox: a view cannot be changed.
_SPANS = (
    "ALTER TABLE standing ADD COLUMN worker TEXT",
    "ALTER TABLE standing ADD COLUMN started_at REAL",
    """UPDATE standing SET worker = standing_part(rest, 'worker_id'), started_at = standing_part(rest, 'started_at')
        WHERE finished_at IS NOT NULL""",
    "DROP INDEX standing_by_end",
    """CREATE INDEX standing_by_end ON standing (finished_at, ord, started_at, worker, status)
        WHERE finished_at IS NOT NULL""",
    "DROP VIEW inbox",
    """CREATE VIEW inbox (ord, task_id, kind, idempotency_key, text, request, payload,
                           status, at, blob, value, worker, started_at)
        AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL""",
    *(statement for statement in _FIRST if "TRIGGER" in statement and "inbox_standing" not in statement),
    """CREATE TRIGGER inbox_standing INSTEAD OF INSERT ON inbox WHEN new.ord > 0 BEGIN
        INSERT INTO standing VALUES (new.ord, new.status, new.at, new.blob, new.value, new.worker, new.started_at)
        ON CONFLICT (ord) DO UPDATE SET
            status = excluded.status, finished_at = excluded.finished_at, rest = excluded.rest,
            value = coalesce(excluded.value, value),
            worker = excluded.worker, started_at = excluded.started_at;
    END""",
    *(statement for statement in (*_CURVES, *_SCRIPTS) if "TRIGGER" in statement),
)

# The tables stay as they are. From here on a payload or a result may say that the bulk of it is in files of the home:
# an older version, which cannot know, is to refuse the home rather than fail its tasks.
_FILES: tuple[str, ...] = ()

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _CURVES, _SCRIPTS, _SPANS, _FILES)
"""Statements that lead from version N to N + 1. Published ones are never edited: a change is a new entry."""

VERSION = len(MIGRATIONS)


class HomeRefused(KoubouError):
    """The home's data cannot be used as they are.

    Args:
        path: the file.
        trouble: what is wrong with it, to follow "PATH ".
        cure: what the person may do.

    """

    def __init__(self, path: Path, trouble: str, cure: str = "") -> None:
        cure = (
            cure or "to start afresh, move it away together with its -wal file, or use another home (--home)"
        )
        super().__init__(f"{path} {trouble}; it is kept untouched: {cure}")
        self.path: Path = path


def connect(path: Path, *, writes: bool) -> sqlite3.Connection:
    """A connection to an existing database, in autocommit mode; the caller sees to its threads."""
    mode = "rw" if writes else "ro"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=10.0,
    )
    if not writes:
        connection.execute("PRAGMA query_only = 1")
    return connection


def create(path: Path) -> None:
    """Make an empty database at `path`, which appears there complete or not at all.

    Raises:
        HomeRefused: there is no database but a write-ahead log of one: half of somebody's data.
    """
    wal = path.with_name(path.name + "-wal")
    with suppress(FileNotFoundError):
        if not wal.stat().st_size:  # a reader leaves an empty one beside a database that was refused
            wal.unlink()
    if wal.exists():
        raise HomeRefused(
            wal, f"is there without {path.name}", f"put {path.name} back beside it, or move it away too"
        )
    new = path.with_name(path.name + ".new")
    for left in ("", "-journal", "-wal", "-shm"):
        new.with_name(new.name + left).unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(connect(new, writes=True)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection)
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Bring a database to the newest version, each step in a transaction of its own."""
    connection.create_function("standing_part", 2, standing_part, deterministic=True)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, statements in enumerate(migrations[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise


def examine(path: Path, *, whole_check_bytes: int = WHOLE_CHECK_BYTES) -> None:
    """Look at an existing database without writing to it.

    Args:
        path: the database.
        whole_check_bytes: the largest database of which every page is read.

    Raises:
        HomeRefused: it is damaged, not ours, or of a newer version.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise HomeRefused(path, "is not a database" if header else "is empty")
    with refusing_damage(path), closing(connect(path, writes=False)) as connection:
        version = _examine_marks(path, connection)
        if path.stat().st_size <= whole_check_bytes:
            _examine_pages(path, connection)
        if version == VERSION:
            load(connection)


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Within it, what shows that `path` is damaged is raised as HomeRefused.

    A failure of the machine (no memory, no descriptors, no permission) is not.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # text that is not UTF-8 has none
        if code & 0xFF not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_IOERR):
            raise
        raise HomeRefused(path, f"is damaged ({error})") from error
    except (sqlite3.DatabaseError, ValueError, TypeError, IndexError) as error:
        raise HomeRefused(path, f"is damaged ({error})") from error


def _examine_marks(path: Path, connection: sqlite3.Connection) -> int:
    """The version; ours, or one that can be migrated."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise HomeRefused(path, "is a database of another program")
    if version < 1:
        raise HomeRefused(path, f"is damaged (there is no format {version})")
    if version > VERSION:
        raise HomeRefused(
            path,
            f"was written by a newer Koubou Panel (format {version}, and this one knows {VERSION})",
            "install the newer version again, or use another home (--home)",
        )
    return version


def _examine_pages(path: Path, connection: sqlite3.Connection) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise HomeRefused(path, f"is damaged ({verdict})")
