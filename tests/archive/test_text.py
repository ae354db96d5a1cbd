"""Texts on the disk: saved whole or not at all, with what they replace kept."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.archive.text import (
    KEEP_REFUSED,
    KEEP_VERSIONS,
    OURS,
    TextStore,
    encoded,
    folder_of,
    inline_path,
    read_file,
    version_of,
    write_file,
)
from koubou_panel.core.script import MAX_TEXT_BYTES
from koubou_panel.errors import Refused


@pytest.fixture
def store(tmp_path):
    """A store in a folder of its own."""
    return TextStore(tmp_path / "scripts")


@pytest.fixture
def file(tmp_path):
    """Somebody's own script."""
    path = tmp_path / "own" / "run.sh"
    path.parent.mkdir()
    path.write_text("one\n")
    return path


def version(text):
    """The version that a text is."""
    return version_of(text.encode())


# -- saving ---------------------------------------------------------------------------------------------------


def test_a_save_keeps_what_it_replaces(store, file):
    """The file has the new text, and both are versions, newest first."""
    assert store.save("s", file, "two\n", version("one\n"), "ann") == (version("two\n"), b"one\n")
    assert file.read_text() == "two\n"
    listed = store.list("s", file)
    assert [(one.version, one.by, one.is_current) for one in listed] == [
        (version("two\n"), "ann", True),
        (version("one\n"), "", False),
    ]


def test_an_earlier_version_is_read_by_its_beginning(store, file):
    """It can be saved again, and what it replaces is kept too."""
    store.save("s", file, "two\n", version("one\n"), "ann")
    found, text, _, is_current = store.read("s", file, version("one\n")[:6])
    assert (found, text, is_current) == (version("one\n"), "one\n", False)
    store.save("s", file, text, version("two\n"), "bob")
    assert file.read_text() == "one\n"
    assert [one.is_current for one in store.list("s", file)] == [True, False, False]


def test_an_edit_on_a_stale_copy_overwrites_nothing(store, file):
    """Both texts are kept; the refused one is marked."""
    store.save("s", file, "two\n", version("one\n"), "ann")
    with pytest.raises(Refused, match="changed meanwhile") as refusal:
        store.save("s", file, "three\n", version("one\n"), "bob")
    assert (refusal.value.code, refusal.value.field) == ("conflict", "base")
    assert file.read_text() == "two\n"
    kept = {one.version: (one.by, one.is_refused) for one in store.list("s", file)}
    assert kept[version("three\n")] == ("bob", True)
    assert kept[version("two\n")] == ("ann", False)
    assert store.read("s", file, version("three\n"))[1] == "three\n"


def test_what_an_outside_editor_did_is_noticed_and_kept(store, file):
    """The file is asked, not what was saved last."""
    store.save("s", file, "two\n", version("one\n"), "ann")
    file.write_text("outside\n")
    with pytest.raises(Refused) as refusal:
        store.save("s", file, "three\n", version("two\n"), "ann")
    assert version("outside\n") in refusal.value.message
    assert file.read_text() == "outside\n"
    assert version("outside\n") in [one.version for one in store.list("s", file)]
    store.save("s", file, "four\n", version("outside\n"), "ann")
    assert version("outside\n") in [one.version for one in store.list("s", file)]


def test_what_is_read_or_listed_is_kept_from_then_on(store, file):
    """Once, however often and by however many at a time; a version that is asked for displaces none."""
    with ThreadPoolExecutor(8) as readers:
        for text in ("one\n", "two\n", "three\n"):
            file.write_text(text)
            looks = [store.list, lambda *args: store.read(*args, None), store.note] * 8
            for done in [readers.submit(look, "s", file) for look in looks]:
                done.result()
    kept = store.versions("s").list()
    assert [one.number for one in kept] == [3, 2, 1]
    assert [one.record.version for one in kept] == [version(f"{text}\n") for text in ("three", "two", "one")]
    for number in range(KEEP_VERSIONS + 20):
        file.write_text(f"{number}\n")
        store.list("s", file)
    oldest = store.list("s", file)[KEEP_VERSIONS - 1]
    file.write_text("outside\n")
    assert store.read("s", file, oldest.version)[0] == oldest.version
    assert len(store.list("s", file)) == len(store.versions("s").list()) == KEEP_VERSIONS


def test_a_late_reader_puts_no_old_text_on_top(store, file):
    """What was saved since stays the newest."""
    seen = read_file(file)
    store.save("s", file, "two\n", version("one\n"), "ann")
    store.versions("s").note(seen[0], at=seen[1])
    assert [one.version for one in store.list("s", file)] == [version("two\n"), version("one\n")]


def test_what_is_no_text_or_too_long_is_not_kept_by_a_look(store, file, tmp_path):
    """Nothing is written for it."""
    for data in (b"\xff", b"x" * (MAX_TEXT_BYTES + 1)):
        file.write_bytes(data)
        store.note("s", file)
        store.list("s", file)
    file.unlink()
    store.note("s", file)
    assert store.list("s", file) == []
    assert not (tmp_path / "scripts").exists()


def test_a_look_needs_no_room_on_the_disk(file, tmp_path):
    """A home that takes nothing keeps nobody from reading."""
    (tmp_path / "scripts").write_text("in the way")
    store = TextStore(tmp_path / "scripts")
    assert store.read("s", file, None)[1] == "one\n"
    assert [(one.version, one.is_current) for one in store.list("s", file)] == [(version("one\n"), True)]


def test_a_save_that_is_sent_again_is_one(store, file):
    """Where the link was cut, nobody knows whether it arrived."""
    first = store.save("s", file, "two\n", version("one\n"), "ann")
    again = store.save("s", file, "two\n", version("one\n"), "ann")
    assert first[0] == again[0]
    assert len(store.list("s", file)) == 2


def test_a_save_is_undone_unless_somebody_saved_since(store, file):
    """The file is as it was, or as they left it."""
    made, before = store.save("s", file, "two\n", None, "ann")
    store.put_back(file, made, before)
    assert file.read_text() == "one\n"
    made, before = store.save("s", file, "three\n", None, "ann")
    file.write_text("theirs\n")
    store.put_back(file, made, before)
    assert file.read_text() == "theirs\n"
    file.unlink()
    store.put_back(file, *store.save("s", file, "four\n", None, "ann"))
    assert not file.exists()


def test_a_missing_file_is_made_when_that_is_what_was_meant(store, file):
    """An edit that began from a text is refused."""
    file.unlink()
    with pytest.raises(Refused, match="is gone"):
        store.save("s", file, "two\n", version("one\n"), "ann")
    store.save("s", file, "three\n", "", "ann")
    assert file.read_text() == "three\n"


def test_mode_and_link_of_a_file_stay(store, file, tmp_path):
    """A link goes on to lead to the file; what could be run can be."""
    file.chmod(0o754)
    link = tmp_path / "link.sh"
    link.symlink_to(file)
    store.save("s", link, "two\n", version("one\n"), "ann")
    assert link.is_symlink()
    assert file.read_text() == "two\n"
    assert file.stat().st_mode & 0o7777 == 0o754
    assert [path.name for path in file.parent.iterdir()] == ["run.sh"]


def test_carriage_returns_and_a_missing_end_stay(store, file):
    """A text is stored as it was given."""
    store.save("s", file, "a\r\nb", version("one\n"), "ann")
    assert file.read_bytes() == b"a\r\nb"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_cannot_be_written_is_refused_by_an_ordinary_user(store, file):
    """Nothing is left behind."""
    file.parent.chmod(0o500)
    with pytest.raises(Refused) as refusal:
        store.save("s", file, "two\n", version("one\n"), "ann")
    assert refusal.value.code == "forbidden"
    file.parent.chmod(0o700)
    assert file.read_text() == "one\n"


def test_a_home_that_takes_no_folder_is_told(file, tmp_path):
    """Nothing of the script's own file is touched."""
    (tmp_path / "scripts").write_text("in the way")
    with pytest.raises(Refused, match="cannot be made") as refusal:
        TextStore(tmp_path / "scripts").save("s", file, "two\n", None, "ann")
    assert (refusal.value.code, file.read_text()) == ("storage", "one\n")


def test_a_folder_that_is_gone_is_told(store, tmp_path):
    """With the reason of the system."""
    with pytest.raises(Refused, match="No such file or directory"):
        store.save("s", tmp_path / "gone" / "run.sh", "x", "", "ann")


@pytest.mark.parametrize(
    ("text", "code"), [("x" * (MAX_TEXT_BYTES + 1), "too_large"), ("a\0b", "invalid"), ("\ud800", "invalid")]
)
def test_what_is_no_text_is_refused(text, code):
    """Before anything is written."""
    with pytest.raises(Refused) as refusal:
        encoded(text)
    assert (refusal.value.code, refusal.value.field) == (code, "text")


def test_so_many_versions_are_kept(store, file):
    """The oldest go; the present text stays."""
    for number in range(KEEP_VERSIONS + 20):
        store.save("s", file, f"{number}\n", None, "ann")
    listed = store.list("s", file)
    assert len(listed) == KEEP_VERSIONS
    assert listed[0].is_current
    assert listed[-1].version == version("20\n")


def test_refused_edits_displace_no_version(store, file):
    """However many there are of them; of those too only the last are kept."""
    store.save("s", file, "two\n", version("one\n"), "ann")
    for number in range(KEEP_VERSIONS + 20):
        with pytest.raises(Refused):
            store.save("s", file, f"{number}\n", "stale", "bob")
    listed = store.list("s", file)
    assert [one.version for one in listed if not one.is_refused] == [version("two\n"), version("one\n")]
    assert sum(one.is_refused for one in listed) == KEEP_REFUSED


def test_what_a_killed_writer_left_behind_is_removed_in_time(tmp_path):
    """By the next save of that file; what is fresh may be somebody's."""
    path = tmp_path / "run.sh"
    old, fresh, other = (tmp_path / name for name in (".run.sh.koubou-1", ".run.sh.koubou-2", ".x.koubou-3"))
    for left in (old, fresh, other):
        left.write_text("half")
    for left in (old, other):
        os.utime(left, (0, 0))
    write_file(path, b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([fresh, other, path])


def test_a_version_that_is_not_one_is_told(store, file):
    """Too short a beginning is none."""
    store.save("s", file, "two\n", version("one\n"), "ann")
    for wanted in ("ffffffff", version("one\n")[:2], "../../etc/passwd"):
        with pytest.raises(Refused) as refusal:
            store.read("s", file, wanted)
        assert (refusal.value.code, refusal.value.field) == ("not_found", "version")


def test_names_of_savers_may_be_anything(store, file):
    """They are part of a file's name."""
    store.save("s", file, "two\n", version("one\n"), "ws:[::1]/ä.b" + "x" * 300)
    (newest, _) = store.list("s", file)
    assert newest.by.startswith("ws:[::1]/ä.bx")


# -- reading --------------------------------------------------------------------------------------------------


def test_what_is_no_file_is_refused(store, tmp_path):
    """A folder, a pipe, bytes that are no text; nobody waits for a writer."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff")
    for path, words in (
        (tmp_path, "is no file"),
        (tmp_path / "pipe", "is no file"),
        (tmp_path / "bytes", "UTF-8"),
    ):
        with pytest.raises(Refused, match=words):
            store.read("s", path, None)
    with pytest.raises(Refused) as refusal:
        read_file(tmp_path / "gone")
    assert refusal.value.code == "not_found"


# -- where texts are ------------------------------------------------------------------------------------------


@given(st.lists(st.text(min_size=1, max_size=60), min_size=2, max_size=8, unique=True))
def test_folders_of_different_scripts_are_different(names):
    """On every file system: also where case does not count."""
    folders = [folder_of(Path("/r"), name) for name in names]
    assert len({str(folder).lower() for folder in folders}) == len(names)
    assert all(folder.parent == Path("/r") and str(folder).isascii() for folder in folders)


@given(st.text(max_size=80))
def test_a_file_of_the_home_stays_there(wanted):
    """Whatever its owner calls it."""
    path = inline_path(Path("/r"), "s", wanted)
    assert path.parent == folder_of(Path("/r"), "s")
    assert path.name not in ("", ".", "..", *OURS)
    assert "/" not in path.name


def test_the_ending_of_a_name_stays():
    """It says what runs the file."""
    assert inline_path(Path("/r"), "s", "../../x y/träin.py").name == "tr-in.py"
    assert {inline_path(Path("/r"), "s", name).name for name in OURS} == {"script"}


# -- crashes --------------------------------------------------------------------------------------------------


def test_a_writer_that_is_killed_leaves_the_old_text_or_the_new(tmp_path):
    """Never half of one: killed at random moments, again and again."""
    path = tmp_path / "run.sh"
    write_file(path, b"a" * 100_000)
    code = (
        "import sys, pathlib; from koubou_panel.archive.text import write_file\n"
        "print('x', flush=True)\n"
        "while True:\n"
        "    for c in b'ab': write_file(pathlib.Path(sys.argv[1]), bytes([c]) * 100_000)\n"
    )
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        process.kill()
        process.communicate()
        assert path.read_bytes() in (b"a" * 100_000, b"b" * 100_000)
