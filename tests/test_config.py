"""Settings as people change them: what is in force and why, and a file that is written whole or not at all."""

from __future__ import annotations

import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.config import (
    change_settings,
    check_together,
    edited,
    find_setting,
    preview_settings,
    restore_settings,
    setting_records,
)
from koubou_panel.errors import Refused, SettingsError
from koubou_panel.home import Home
from koubou_panel.settings import TABLE, load


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with nothing in it."""
    return Home(tmp_path)


def file_of(home: Home) -> str:
    """What its settings file says."""
    return (home.root / "settings.toml").read_text(encoding="utf-8")


def test_every_setting_is_shown_with_its_source(home: Home) -> None:
    """Each row of the table, its value in force, where that comes from, and what the file says."""
    change_settings(home, {"grace_s": 5, "workers": "2:4"}, {})
    records = {record.name: record for record in setting_records(home, {"KOUBOU_GRACE_S": "7"})}
    assert list(records) == [setting.name for setting in TABLE]
    grace, workers, host = records["grace_s"], records["workers"], records["host"]
    assert (grace.value, grace.source, grace.in_file, grace.unit) == (7.0, "KOUBOU_GRACE_S", 5.0, "s")
    assert (workers.value, workers.source) == ("2:4", str(home.root / "settings.toml"))
    assert (host.value, host.source, host.in_file, host.default) == (
        "127.0.0.1",
        "default",
        None,
        "127.0.0.1",
    )
    assert (records["home"].value, records["home"].source) == (str(home.root), "--home")
    told = setting_records(home, {"KOUBOU_HOME": f"{home.root}/"})
    assert {record.name: record.source for record in told}["home"] == "KOUBOU_HOME"


def test_what_was_written_is_what_is_read(home: Home) -> None:
    """A change is in force at the next load; null takes it back."""
    change = change_settings(home, {"dashboard_port": 9000, "model": 'a "b" \\ 工房'}, {})
    assert (change.changed, change.needs_restart) == (
        ["dashboard_port", "model"],
        ["dashboard_port", "model"],
    )
    settings = load({}, {"home": home.root})
    assert (settings.dashboard_port, settings.model) == (9000, 'a "b" \\ 工房')
    assert change_settings(home, {"dashboard_port": 9000}, {}).changed == []
    assert change_settings(home, {"dashboard_port": None}, {}).changed == ["dashboard_port"]
    assert load({}, {"home": home.root}).dashboard_port == 8080


def test_comments_and_all_else_stay(home: Home) -> None:
    """Lines that are not changed are as they were, and so is the comment behind a value that is."""
    (home.root / "settings.toml").write_text(
        "# mine\n\ngrace_s = 5 # not long\nmodel = 'a # b'   # which\r\nhost = \"127.0.0.1\"\n",
        encoding="utf-8",
    )
    change_settings(home, {"grace_s": 6, "model": "c", "workers": "1:2"}, {})
    assert file_of(home).splitlines() == [
        "# mine",
        "",
        "grace_s = 6.0 # not long",
        'model = "c"   # which',
        'host = "127.0.0.1"',
        'workers = "1:2"',
    ]


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"grace": 5}, "grace", "did you mean 'grace_s'"),
        ({"grace": None}, "grace", "did you mean 'grace_s'"),
        ({"grace_s": -1}, "grace_s", "must be seconds"),
        ({"dashboard_port": 70_000}, "dashboard_port", "must be a port"),
        ({"dashboard_port": True}, "dashboard_port", "must be a port"),
        ({"workers": "4:2"}, "workers", "must be MIN:MAX"),
        ({"home": "/tmp/x"}, "home", "KOUBOU_HOME"),
        ({"token": "secret"}, "token", "unknown setting"),
        ({"host": {"a": 1}}, "host", "must be an address"),
        ({"model": "a\nb"}, "model", "must be a name"),
        ({"model": "a\udcff"}, "model", "no text"),
    ],
)
def test_what_a_setting_cannot_be_is_refused(home: Home, changes: dict, field: str, said: str) -> None:
    """With the field at fault; nothing is written, not even what would have been right."""
    with pytest.raises(Refused) as caught:
        change_settings(home, {"agents_port": 9999, **changes}, {})
    assert (caught.value.code, caught.value.field) == ("invalid", field)
    assert said in caught.value.message
    assert not (home.root / "settings.toml").exists()


def test_what_is_stronger_than_the_file_is_told(home: Home) -> None:
    """A variable that wins over the file is named."""
    change = change_settings(home, {"grace_s": 5, "model": "x"}, {"KOUBOU_GRACE_S": "7"})
    assert change.overridden == {"grace_s": "KOUBOU_GRACE_S"}


@pytest.mark.parametrize("text", ["grace_s = ", "grace_s = 1\ngrace_s = 2", "x\udcff"])
def test_a_file_that_cannot_be_read_is_left_alone(home: Home, text: str) -> None:
    """It is refused, and is as it was."""
    path = home.root / "settings.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError, match="cannot be read"):
        change_settings(home, {"model": "x"}, {})
    assert path.read_bytes() == text.encode("utf-8", "surrogateescape")


def test_a_value_over_many_lines_is_left_to_a_person(home: Home) -> None:
    """What cannot be changed line by line is refused, not guessed."""
    path = home.root / "settings.toml"
    path.write_text("model = '''\na'''\n", encoding="utf-8")
    with pytest.raises(Refused, match="by hand"):
        change_settings(home, {"model": "x"}, {})
    assert path.read_text(encoding="utf-8") == "model = '''\na'''\n"


def test_the_file_is_for_this_user_alone_and_a_link_is_followed(home: Home, tmp_path: Path) -> None:
    """It is made 0600; where it is a link to a file kept elsewhere, that file is written."""
    change_settings(home, {"model": "x"}, {})
    path = home.root / "settings.toml"
    assert path.stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "dotfiles.toml"
    path.replace(elsewhere)
    path.symlink_to(elsewhere)
    change_settings(home, {"model": "y"}, {})
    assert path.is_symlink()
    assert 'model = "y"' in elsewhere.read_text(encoding="utf-8")


def test_changes_at_the_same_time_lose_nothing(home: Home) -> None:
    """Each is read, made and written as one."""
    values = {
        "dashboard_port": 1,
        "socket_port": 2,
        "agents_port": 3,
        "agent_tasks": 4,
        "grace_s": 5.0,
        "model": "m",
    }
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda item: change_settings(home, dict([item]), {}), values.items()))
    assert tomllib.loads(file_of(home)) == values
    assert sorted(path.name for path in home.runtime.iterdir()) == ["marks", "settings.lock"]


NAMES = st.sampled_from(["model", "model_url", "grace_s", "workers"])
VALUES = st.text() | st.integers(0, 99) | st.floats(0, 99) | st.none()


@given(st.dictionaries(NAMES, st.text() | st.integers(0, 99)), st.dictionaries(NAMES, VALUES))
def test_any_value_comes_back(before: dict, changes: dict) -> None:
    """Whatever text a value is, the file says it after the change, and nothing else has changed."""
    text = edited("", before)
    wanted = {name: value for name, value in (before | changes).items() if value is not None}
    assert tomllib.loads(edited(f"# a comment\n{text}", changes)) == wanted


def test_an_unknown_setting_has_a_nearest() -> None:
    """To be shown too."""
    with pytest.raises(Refused) as caught:
        find_setting("sockets_port")
    assert (caught.value.code, caught.value.nearest) == ("not_found", "socket_port")


def test_settings_are_looked_at_together(home: Home) -> None:
    """What the workshop could not start with is not written; two changes at once may swap ports; 0 is no port."""
    for wrong, field in (({"host": "192.168.1.5"}, "host"), ({"socket_port": 8080}, "socket_port")):
        with pytest.raises(Refused) as refused:
            change_settings(home, wrong, {})
        assert (refused.value.code, refused.value.field) == ("invalid", field)
    assert not (home.root / "settings.toml").exists()
    change_settings(home, {"dashboard_port": 8766, "socket_port": 8080}, {})
    change_settings(home, {"dashboard_port": 0, "socket_port": 0, "host": "::1"}, {})
    (home.root / "settings.toml").write_text('host = "0.0.0.0"\n')
    change_settings(home, {"grace_s": 5}, {})
    change_settings(home, {"host": None}, {})
    values = {setting.name: setting.default for setting in TABLE} | {"host": "0.0.0.0"}
    with pytest.raises(SettingsError, match=r"host, by /home/settings.toml: 0.0.0.0 would"):
        check_together(values, sources={"host": "/home/settings.toml"})


def test_a_preview_is_what_a_change_then_writes(home: Home) -> None:
    """The text before and after, and nothing written; a change on its base writes that text."""
    change_settings(home, {"grace_s": 5}, {})
    before = file_of(home)
    seen = preview_settings(home, {"grace_s": "7", "model": "small"}, {})
    assert (seen.before, seen.after) == (before, 'grace_s = 7.0\nmodel = "small"\n')
    assert file_of(home) == before
    change_settings(home, {"grace_s": "7", "model": "small"}, {}, base=seen.base)
    assert file_of(home) == seen.after


def test_a_preview_says_every_fault_at_its_setting(home: Home) -> None:
    """Each value that cannot be is told by its name, what cannot be together too, and a secret is not told again."""
    values = {"grace_s": "soon", "model_url": "http://me:hunter2@host", "lunch": "noon"}
    seen = preview_settings(home, values, {})
    assert set(seen.faults) == set(values)
    assert "hunter2" not in seen.faults["model_url"]
    assert seen.after == seen.before == ""
    together = preview_settings(home, {"socket_port": 9000, "agents_port": 9000}, {})
    assert "cannot share port 9000" in together.faults["agents_port"]


def test_a_change_on_another_text_is_refused(home: Home) -> None:
    """Who looked at an older file writes nothing over the newer one."""
    seen = preview_settings(home, {"grace_s": 7}, {})
    change_settings(home, {"grace_s": 5}, {})
    with pytest.raises(Refused, match="meanwhile") as refused:
        change_settings(home, {"grace_s": 7}, {}, base=seen.base)
    assert refused.value.code == "conflict"
    assert file_of(home) == "grace_s = 5.0\n"


def test_an_earlier_text_is_put_back_whole(home: Home) -> None:
    """Comments and all, if the file is the one that is expected; else nothing is written."""
    text = "# mine\ngrace_s = 5 # patience\n"
    (home.root / "settings.toml").write_text(text)
    change_settings(home, {"grace_s": None, "model": "small"}, {})
    base = preview_settings(home, {}, {}).base
    assert restore_settings(home, text, base=base) == ["grace_s", "model"]
    assert file_of(home) == text
    with pytest.raises(Refused, match="meanwhile"):
        restore_settings(home, "", base=base)
    assert file_of(home) == text
