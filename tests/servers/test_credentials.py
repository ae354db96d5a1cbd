"""What opens the doors: the token's file, login codes, cookie sessions."""

from __future__ import annotations

import multiprocessing
import os
import stat
import threading
from pathlib import Path

import pytest

from koubou_panel.errors import SettingsError
from koubou_panel.servers import credentials
from koubou_panel.servers.access import Allow, Role
from koubou_panel.servers.credentials import (
    CODE_LIFE_S,
    SESSION_IDLE_S,
    TOUCH_EVERY_S,
    Sessions,
    derive_read_token,
    load_or_create_token,
    mint_code,
    rotate_token,
)

TOKEN = "t" * 43
NOW = 1_800_000_000.0


@pytest.fixture
def runtime(tmp_path):
    """Give a runtime folder that does not exist yet."""
    return tmp_path / "home" / "runtime"


@pytest.fixture
def book(tmp_path):
    """Give the path of a sessions file that does not exist yet."""
    return tmp_path / "sessions.json"


def mode_of(path: Path) -> int:
    """Give a path's permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def names_in(folder: Path) -> list[str]:
    """Give the names in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def read_token(runtime: Path) -> str:
    """Give the token of a home whose environment says nothing."""
    return load_or_create_token(runtime, environ={})


def read_into(runtime, barrier, found):
    """Start with the others and report the token (one racing process)."""
    barrier.wait()
    found.put(load_or_create_token(runtime, environ={}))


def test_the_first_start_makes_a_token(runtime):
    """A token of 32 random bytes is made, 0600 in a 0700 folder, and kept."""
    token = read_token(runtime)
    assert len(token) == 43
    assert (mode_of(runtime), mode_of(runtime / "token")) == (0o700, 0o600)
    assert read_token(runtime) == token
    assert names_in(runtime) == ["token"]


def test_an_open_umask_does_not_open_the_file(runtime):
    """The modes hold whatever the umask is."""
    before = os.umask(0)
    try:
        read_token(runtime)
    finally:
        os.umask(before)
    assert (mode_of(runtime), mode_of(runtime / "token")) == (0o700, 0o600)


def test_processes_that_start_at_once_get_one_token(runtime):
    """Processes that race for the first start all end up with the same token, and leave no drafts."""
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(4), context.Queue()
    racers = [context.Process(target=read_into, args=(runtime, barrier, found)) for _ in range(4)]
    for racer in racers:
        racer.start()
    tokens = {found.get(timeout=60) for _ in racers}
    for racer in racers:
        racer.join()
    assert tokens == {(runtime / "token").read_text().strip()}
    assert names_in(runtime) == ["token"]


def test_threads_that_race_get_one_token(runtime):
    """A loser of the race reads the winner's token, at every interleaving that a hundred tries meet."""
    for attempt in range(100):
        folder = runtime / str(attempt)
        barrier, tokens = threading.Barrier(4), set()

        def race(folder=folder, barrier=barrier, tokens=tokens):
            barrier.wait()
            tokens.add(read_token(folder))

        threads = [threading.Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(tokens) == 1


def test_the_environment_wins_over_the_files(runtime, tmp_path):
    """KOUBOU_TOKEN comes before the token file, which comes before the home's own; neither makes one."""
    given = tmp_path / "given"
    given.write_text("from-file\n")
    given.chmod(0o600)
    assert load_or_create_token(runtime, environ={"KOUBOU_TOKEN": "from-env"}, token_file=given) == "from-env"
    assert load_or_create_token(runtime, environ={}, token_file=given) == "from-file"
    assert not runtime.exists()


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_token_is_an_error_that_says_so(empty, runtime, tmp_path):
    """Nothing empty switches access off: variable, given file and own file are refused alike."""
    given = tmp_path / "given"
    given.write_text(empty)
    given.chmod(0o600)
    own = tmp_path / "own"
    read_token(own)
    (own / "token").write_text(empty)
    for arguments in (
        {"runtime_dir": runtime, "environ": {"KOUBOU_TOKEN": empty}},
        {"runtime_dir": runtime, "environ": {}, "token_file": given},
        {"runtime_dir": own, "environ": {}},
    ):
        with pytest.raises(SettingsError, match="empty"):
            load_or_create_token(**arguments)


def test_a_missing_token_file_is_an_error(runtime, tmp_path):
    """A token file that was asked for and is not there is refused, not made."""
    with pytest.raises(SettingsError, match="is not there"):
        load_or_create_token(runtime, environ={}, token_file=tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o777, 0o610])
def test_a_token_that_others_can_open_is_refused(mode, runtime):
    """A token file with wider permissions is refused with the chmod that mends it."""
    read_token(runtime)
    (runtime / "token").chmod(mode)
    with pytest.raises(SettingsError, match=r"chmod 600 \S+token`"):
        read_token(runtime)


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702, 0o720])
def test_a_folder_that_others_can_write_is_refused(mode, runtime):
    """A folder in which others could have put a token is refused with the chmod that mends it."""
    read_token(runtime)
    runtime.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 700"):
        read_token(runtime)
    with pytest.raises(SettingsError, match="chmod 700"):
        rotate_token(runtime)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o711])
def test_a_folder_that_others_can_list_is_closed(mode, runtime):
    """A folder of ours that others could merely list is closed without a word."""
    runtime.mkdir(parents=True)
    runtime.chmod(mode)
    assert read_token(runtime)
    assert mode_of(runtime) == 0o700


def test_a_path_with_spaces_is_quoted_in_the_advice(tmp_path):
    """The line that mends a file can be pasted as it is."""
    runtime = tmp_path / "my home"
    read_token(runtime)
    (runtime / "token").chmod(0o644)
    with pytest.raises(SettingsError, match=r"chmod 600 '.*my home/token'"):
        read_token(runtime)


def test_another_owners_files_are_refused(runtime, monkeypatch):
    """A folder or file of another user is refused."""
    read_token(runtime)
    monkeypatch.setattr(credentials.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(SettingsError, match="belongs to another user"):
        read_token(runtime)


def test_a_link_or_a_pipe_in_the_tokens_place_is_refused(runtime, tmp_path):
    """What is no plain file is refused at once, not followed and not waited for."""
    (tmp_path / "elsewhere").write_text("x" * 43)
    (tmp_path / "elsewhere").chmod(0o600)
    runtime.mkdir(mode=0o700, parents=True)
    (runtime / "token").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="plain file"):
        read_token(runtime)
    (runtime / "token").unlink()
    os.mkfifo(runtime / "token", 0o600)
    with pytest.raises(SettingsError, match="plain file"):
        read_token(runtime)


def test_rotation_puts_another_token_in_place(runtime):
    """A rotated token is another one, in a file as closed as before."""
    before = read_token(runtime)
    after = rotate_token(runtime)
    assert after != before
    assert read_token(runtime) == after
    assert mode_of(runtime / "token") == 0o600
    assert names_in(runtime) == ["token"]


def test_the_read_token_follows_from_the_token():
    """The read token is the same each time, differs from the full one, and changes with it."""
    assert derive_read_token(TOKEN) == derive_read_token(TOKEN)
    assert len({TOKEN, derive_read_token(TOKEN), derive_read_token("other")}) == 3


@pytest.mark.parametrize("role", list(Role))
def test_a_code_gives_its_role_once(role, book):
    """A code is good for one use, and gives the role it was minted with."""
    sessions = Sessions(book, TOKEN)
    code = mint_code(TOKEN, NOW, role=role)
    assert sessions.redeem(code, NOW + 1) is role
    assert sessions.redeem(code, NOW + 1) is None


def test_a_used_code_stays_used_over_a_restart(book):
    """The dashboard remembers used codes in its file, until they expire by themselves."""
    code, other = mint_code(TOKEN, NOW), mint_code(TOKEN, NOW)
    Sessions(book, TOKEN).redeem(code, NOW)
    assert Sessions(book, TOKEN).redeem(code, NOW) is None
    assert Sessions(book, TOKEN).redeem(other, NOW) is Role.FULL


def test_a_code_ends_after_ten_minutes(book):
    """A code is good just before its end and not at it."""
    sessions = Sessions(book, TOKEN)
    assert sessions.redeem(mint_code(TOKEN, NOW), NOW + CODE_LIFE_S) is None
    assert sessions.redeem(mint_code(TOKEN, NOW), NOW + CODE_LIFE_S - 1) is Role.FULL


def test_a_code_with_any_character_changed_is_refused(book):
    """No single change makes another code of a code, and none raises."""
    sessions = Sessions(book, TOKEN)
    code = mint_code(TOKEN, NOW, nonce=b"\xfb\xff" * 8)
    for place in range(len(code) - 1):  # the last character carries bits that base64 leaves unused
        for character in "A-_=+/ \u00e9":
            forged = code[:place] + character + code[place + 1 :]
            assert forged == code or sessions.redeem(forged, NOW) is None
    assert sessions.redeem(code, NOW) is Role.FULL


@pytest.mark.parametrize(
    "code", ["", "A", "=", "A" * 54, "A" * 55, "\u5de5", "\ud800", "a/b+", "A" * 100_000]
)
def test_what_is_no_code_is_refused(code, book):
    """Anything may be presented as a code."""
    assert Sessions(book, TOKEN).redeem(code, NOW) is None


def test_a_code_of_another_token_is_refused(book):
    """A code is bound to the token it was minted with; the read token mints none."""
    sessions = Sessions(book, TOKEN)
    assert sessions.redeem(mint_code("other", NOW), NOW) is None
    assert sessions.redeem(mint_code(derive_read_token(TOKEN), NOW), NOW) is None


def test_used_codes_are_forgotten_when_they_end(book):
    """The memory of used codes does not grow for ever: a sign-in clears the ended ones away."""
    sessions = Sessions(book, TOKEN)
    sessions.redeem(mint_code(TOKEN, NOW), NOW)
    sessions.redeem(mint_code(TOKEN, NOW + 60), NOW + 60)
    sessions.open(Role.FULL, NOW + CODE_LIFE_S)
    assert len(sessions._book.spent) == 1


def test_a_session_outlives_a_restart(book):
    """A page's cookie is good in the next process too, with its role and name."""
    cookie = Sessions(book, TOKEN).open(Role.READ, NOW)
    found = Sessions(book, TOKEN).find(cookie, NOW + 5)
    assert isinstance(found, Allow)
    assert found.role is Role.READ
    assert found == Sessions(book, TOKEN).find(cookie, NOW + 6)


def test_the_file_holds_neither_cookies_nor_the_token(book):
    """Who reads the file can neither be a page nor hold the token; it is 0600."""
    cookie = Sessions(book, TOKEN).open(Role.FULL, NOW)
    assert cookie not in book.read_text()
    assert TOKEN not in book.read_text()
    assert mode_of(book) == 0o600


@pytest.mark.parametrize("cookie", ["", "x", "\ud800", "\u5de5\u623f"])
def test_an_unknown_cookie_is_no_session(cookie, book):
    """Anything may be presented as a cookie."""
    sessions = Sessions(book, TOKEN)
    sessions.open(Role.FULL, NOW)
    assert sessions.find(cookie, NOW) is None


def test_a_stored_hash_is_no_cookie(book):
    """The hash in the file does not work as the cookie."""
    sessions = Sessions(book, TOKEN)
    sessions.open(Role.FULL, NOW)
    assert all(sessions.find(key, NOW) is None for key in sessions._book.sessions)


def test_a_session_ends_after_seven_idle_days(book):
    """Being seen keeps a session alive; seven days unseen end it, and the next sign-in clears it away."""
    sessions = Sessions(book, TOKEN)
    cookie = sessions.open(Role.FULL, NOW)
    assert sessions.find(cookie, NOW + SESSION_IDLE_S)
    assert sessions.find(cookie, NOW + 2 * SESSION_IDLE_S)
    assert sessions.find(cookie, NOW + 3 * SESSION_IDLE_S + 1) is None
    sessions.open(Role.FULL, NOW + 3 * SESSION_IDLE_S + 1)
    assert len(sessions._book.sessions) == 1


def test_being_seen_is_stored_once_a_minute_at_most(book):
    """A page that asks often does not write often."""
    sessions = Sessions(book, TOKEN)
    cookie = sessions.open(Role.FULL, NOW)
    stored = book.stat().st_ino
    for second in range(TOUCH_EVERY_S):
        sessions.find(cookie, NOW + second)
    assert book.stat().st_ino == stored
    sessions.find(cookie, NOW + TOUCH_EVERY_S)
    assert book.stat().st_ino != stored


def test_another_token_drops_every_session(book):
    """Sessions that were opened under another token are gone, in this process and the next."""
    sessions = Sessions(book, TOKEN)
    cookie, code = sessions.open(Role.FULL, NOW), mint_code(TOKEN, NOW)
    assert Sessions(book, "other").find(cookie, NOW) is None
    sessions.rotate("other", NOW)
    assert sessions.find(cookie, NOW) is None
    assert sessions.redeem(code, NOW) is None
    assert Sessions(book, TOKEN).find(cookie, NOW) is None


def test_a_closed_session_is_over(book):
    """A sign-out ends one session for good and leaves the others."""
    sessions = Sessions(book, TOKEN)
    first, second = sessions.open(Role.FULL, NOW), sessions.open(Role.FULL, NOW)
    sessions.close(first, NOW)
    sessions.close("unknown", NOW)
    again = Sessions(book, TOKEN)
    assert again.find(first, NOW) is None
    assert again.find(second, NOW)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"token": 1}', '{"token":"","sessions":{"a":{}}}', "\x00"]
)
def test_an_unreadable_file_means_signing_in_again(text, book):
    """A broken sessions file opens nothing and stops nothing."""
    book.write_text(text)
    book.chmod(0o600)
    sessions = Sessions(book, TOKEN)
    assert sessions.find(sessions.open(Role.FULL, NOW), NOW)


def test_a_sessions_file_that_others_can_write_is_refused(book):
    """A file in which others could have put a session is refused with the chmod that mends it."""
    Sessions(book, TOKEN).open(Role.FULL, NOW)
    book.chmod(0o660)
    with pytest.raises(SettingsError, match="chmod 600"):
        Sessions(book, TOKEN)


def test_what_cannot_be_stored_opens_nothing(book, monkeypatch):
    """With the disk full no session opens and a code counts as used; who is in already stays in."""
    sessions = Sessions(book, TOKEN)
    cookie, code = sessions.open(Role.FULL, NOW), mint_code(TOKEN, NOW)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(credentials.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        sessions.open(Role.FULL, NOW)
    with pytest.raises(OSError, match="No space"):
        sessions.redeem(code, NOW)
    assert sessions.find(cookie, NOW + TOUCH_EVERY_S)
    monkeypatch.undo()
    assert len(sessions._book.sessions) == 1
    assert sessions.redeem(code, NOW) is None
    assert names_in(book.parent) == [book.name]
