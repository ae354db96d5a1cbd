"""A database is made whole or not at all, brought up to date, and refused untouched when it cannot be read."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koubou_panel.archive import batch as batch_module
from koubou_panel.archive import schema
from koubou_panel.archive.sqlite import Archive, Batch, HomeRefused
from koubou_panel.core.events import SystemNoted
from koubou_panel.core.records import Metrics, Pool


@pytest.fixture
def made(path, tasks):
    """A database with something in every table, properly closed."""
    archive = Archive.open(path)
    some = [tasks.make(order, payload=b"p", key=f"k{order}") for order in range(1, 30)]
    some += [tasks.finish(tasks.make(order, name="n" * 50), float(order)) for order in range(30, 60)]
    facts = [SystemNoted(1.0, "noted", "x" * 200)]
    archive.commit([tasks.batch(*some, facts=facts, metrics=[Metrics(1.0, {"a": 1})], pool=Pool(2, 3))])
    archive.close()
    return path


def everything(folder):
    """The bytes of every file of a folder, but for an empty log and SQLite's index of the log, which are no data."""
    found = {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}
    return {name: content for name, content in found.items() if content or not name.endswith("-wal")}


def refusal_of(path):
    """The message with which a database is refused; nothing may have changed."""
    before = everything(path.parent)
    with pytest.raises(HomeRefused) as refusal:
        Archive.open(path)
    assert everything(path.parent) == before
    assert "kept untouched" in str(refusal.value)
    return str(refusal.value)


def change(path, statement):
    """Do something to a database behind the archive's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    "content", [b"hello\n", b"SQLite format 3\x00", b"\x00" * 8_192, b"SQLite format 2\x00" + bytes(500)]
)
def test_what_is_no_database_is_refused(path, content):
    """A file that does not begin as a database does is named and kept."""
    path.write_bytes(content)
    assert refusal_of(path).startswith(f"{path} is not a database")


def test_an_empty_file_is_refused(path):
    """We never leave an empty file, so data may have been lost: nobody writes over the trace."""
    path.touch()
    assert "is empty" in refusal_of(path)


def test_another_programs_database_is_refused(path):
    """A sound database without our mark is somebody else's."""
    change(path, "CREATE TABLE bookmarks (url)")
    assert "another program" in refusal_of(path)


def test_a_newer_database_is_refused(made):
    """It says which format it is, which one is known, and to install the newer version."""
    change(made, f"PRAGMA user_version = {schema.VERSION + 1}")
    message = refusal_of(made)
    assert f"format {schema.VERSION + 1}" in message
    assert "install the newer version" in message


@pytest.mark.parametrize("version", [-2, 0, 1])
def test_a_version_that_it_is_not_of_is_damage(made, version):
    """Steps that it has had are not taken again; what stands in it stays."""
    change(made, f"PRAGMA user_version = {version}")
    assert "is damaged" in refusal_of(made)


def test_a_newer_version_is_seen_in_the_log_too(made, tmp_path):
    """What stands in the write-ahead log counts, although the database's own header is older."""
    with closing(sqlite3.connect(made, isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 99")
        content = everything(made.parent)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, found in content.items():
        (copy / name).write_bytes(found)
    assert (copy / f"{made.name}-wal").stat().st_size > 0
    assert "format 99" in refusal_of(copy / made.name)


def test_a_torn_database_is_refused(made):
    """A file that lost its second half is damaged."""
    content = made.read_bytes()
    made.write_bytes(content[: len(content) // 2])
    assert "is damaged" in refusal_of(made)


def test_an_overwritten_page_is_refused(made):
    """A page of noise in the middle is found before anything is written."""
    content = bytearray(made.read_bytes())
    content[8_192:12_288] = b"\xa5" * 4_096
    made.write_bytes(content)
    assert "is damaged" in refusal_of(made)


def test_a_damaged_record_is_refused(made):
    """A sound page with a record that cannot be read is damage too."""
    change(made, "UPDATE standing SET rest = x'c1' WHERE ord = 3")
    assert "is damaged" in refusal_of(made)


def test_a_missing_table_is_refused(made):
    """A database that lost a table is not mended by guessing."""
    change(made, "DROP TABLE journal")
    change(made, "DROP TABLE metrics")
    assert "is damaged" in refusal_of(made)


def test_a_large_database_is_checked_where_it_is_read(made):
    """Beyond the limit only the pages that loading touches are read: damage there is found all the same."""
    content = bytearray(made.read_bytes())
    with closing(sqlite3.connect(made)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'standing'").fetchone()
    content[(page - 1) * 4_096 : page * 4_096] = b"\xa5" * 4_096
    made.write_bytes(content)
    with pytest.raises(HomeRefused, match="is damaged"):
        schema.examine(made, whole_check_bytes=0)


def test_a_log_without_its_database_is_refused(made):
    """A write-ahead log alone is half of somebody's data; a new database beside it would be mixed with it."""
    log = made.with_name(made.name + "-wal")
    log.write_bytes(b"anything")
    made.unlink()
    message = refusal_of(made)
    assert str(log) in message
    assert "put koubou.db back" in message


def test_a_refused_database_that_was_moved_away_is_not_missed(made):
    """What looking at it left beside it keeps nobody from starting afresh."""
    change(made, "PRAGMA user_version = 99")
    refusal_of(made)
    made.rename(made.with_name("moved.db"))
    Archive.open(made).close()


def test_a_half_made_database_is_made_anew(path):
    """What a crash left of a database in the making is swept; the real one appears complete."""
    for name in ("koubou.db.new", "koubou.db.new-wal", "koubou.db.new-journal"):
        path.with_name(name).write_bytes(b"half")
    archive = Archive.open(path)
    archive.commit([Batch(pool=Pool())])
    archive.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_name_with_odd_characters_is_a_name(tmp_path):
    """Characters that mean something in an address are nothing special in a path."""
    path = tmp_path / "a?b#c%20d 工房" / "koubou.db"
    path.parent.mkdir()
    archive = Archive.open(path)
    archive.close()
    Archive.open(path).close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_migrations_are_taken_one_by_one():
    """A database of version 1 takes the steps that it lacks, in order, and only those."""
    steps = [["CREATE TABLE a (x)"], ["ALTER TABLE a ADD COLUMN y", "INSERT INTO a VALUES (1, 2)"]]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.migrate(connection, steps[:1])
        schema.migrate(connection, steps)
        schema.migrate(connection, steps)
        assert connection.execute("SELECT * FROM a").fetchall() == [(1, 2)]
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)


def test_a_home_of_version_1_is_taken_over(path, tasks):
    """A database of the first published version keeps its tasks, and takes what is new from then on."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        schema.migrate(connection, schema.MIGRATIONS[:1])
        old = tasks.finish(tasks.make(2), 7.0, worker_id="worker-1", started_at=5.0)
        for row in batch_module.inbox_rows([tasks.batch(tasks.make(1), old)]):
            columns = [None if value == batch_module.NOTHING else value for value in row[:11]]
            connection.execute(f"INSERT INTO inbox VALUES ({','.join('?' * 11)})", columns)
    archive = Archive.open(path)
    try:
        assert [task.order for task in archive.load().unfinished] == [1]
        (span,) = archive.spans(0.0, 10.0, 5).spans
        assert (span.task_id, span.worker_id, span.start, span.end) == (old.task_id, "worker-1", 5.0, 7.0)
        ended = tasks.finish(tasks.make(1), 9.0)
        archive.commit([tasks.batch(touched=[ended], curves={ended.task_id: b"points"})])
        assert archive.curve(ended.task_id) == b"points"
        assert archive.get(ended.task_id).status == "completed"
    finally:
        archive.close()


def test_a_failed_migration_changes_nothing():
    """A step that fails in its middle leaves the version before it."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.migrate(connection, [["CREATE TABLE a (x)"]])
        with pytest.raises(sqlite3.OperationalError):
            schema.migrate(connection, [[], ["CREATE TABLE b (x)", "nonsense"]])
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("a",)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_refused_or_harmless(made, data):
    """Whatever bytes are overwritten, the database is either read or refused unchanged; nothing else is raised."""
    sound = made.read_bytes()
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(sound) - 1))
        damaged[at : at + data.draw(st.integers(1, 64))] = data.draw(st.binary(min_size=1, max_size=64))
    made.write_bytes(damaged)
    try:
        Archive.open(made).close()
    except HomeRefused:
        assert made.read_bytes() == damaged
    finally:
        for left in ("-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                made.with_name(made.name + left).unlink()
        made.write_bytes(sound)
