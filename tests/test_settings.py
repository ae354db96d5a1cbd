"""Settings: which source wins, and what is said about a value that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from koubou_panel.errors import SettingsError
from koubou_panel.settings import BY_NAME, TABLE, default_home, load, ollama_address, parse_workers


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    """With only a home given, every other setting has the default that CLI.md names."""
    settings = load({"KOUBOU_HOME": str(tmp_path)})
    assert (settings.home, settings.host) == (tmp_path, "127.0.0.1")
    assert (settings.dashboard_port, settings.socket_port) == (8080, 8766)
    assert (settings.workers, settings.grace_s) == ((1, 3), 30.0)
    assert settings.sources["home"] == "KOUBOU_HOME"
    assert settings.sources["host"] == "default"


def test_home_is_the_users_data_folder_unless_told() -> None:
    """Without a flag or a variable the home is the platform's user data folder."""
    assert load({}).home == default_home()


def test_flags_win_over_variables_over_the_file(tmp_path: Path) -> None:
    """The nearest source to the person wins: flag, then variable, then file."""
    (tmp_path / "settings.toml").write_text(
        'socket_port = 1\ndashboard_port = 2\nworkers = "2:4"\ngrace_s = 5\n'
    )
    settings = load(
        {"KOUBOU_HOME": str(tmp_path), "KOUBOU_SOCKET_PORT": "10", "KOUBOU_DASHBOARD_PORT": "20"},
        {"dashboard_port": 200, "socket_port": None},
    )
    assert settings.dashboard_port == 200
    assert settings.socket_port == 10
    assert settings.workers == (2, 4)
    assert settings.grace_s == 5.0
    assert settings.sources["workers"].endswith("settings.toml")
    assert settings.sources["dashboard_port"] == "--dashboard-port"


def test_flag_names_the_home_whose_file_is_read(tmp_path: Path) -> None:
    """The settings file is that of the home in force, not of the variable's."""
    (tmp_path / "settings.toml").write_text("grace_s = 7")
    assert load({"KOUBOU_HOME": "/nowhere"}, {"home": tmp_path}).grace_s == 7.0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("socket_port", "http", "socket_port (KOUBOU_SOCKET_PORT) must be a port from 0"),
        ("socket_port", "70000", "must be a port"),
        ("dashboard_port", "-1", "must be a port"),
        ("workers", "3:1", "MIN <= MAX"),
        ("workers", "many", "such as 1:3"),
        ("grace_s", "soon", "must be seconds"),
        ("grace_s", "nan", "must be seconds"),
        ("host", "", "must be an address"),
        ("home", " ", "must be a folder"),
    ],
)
def test_bad_value_is_refused_with_what_would_be_right(name: str, value: str, said: str) -> None:
    """A value that cannot be used is refused, naming the setting, where it came from and what would do."""
    with pytest.raises(SettingsError) as caught:
        load({BY_NAME[name].variable: value})
    assert said in caught.value.message
    assert caught.value.name == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sockt_port = 1", "did you mean 'socket_port'"),
        ("home = '/x'", "--home or KOUBOU_HOME"),
        ("socket_port = true", "must be a port"),
        ("workers = [1, 3]", "must be MIN:MAX"),
        ("= 1", "cannot be read"),
        (f"x = {'[' * 5000}", "cannot be read"),
        ("x = '\udcff'", "cannot be read"),
    ],
)
def test_bad_file_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    """A settings file with an unknown name, a wrong type or broken TOML is refused and named."""
    (tmp_path / "settings.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError) as caught:
        load({"KOUBOU_HOME": str(tmp_path)})
    assert said in caught.value.message
    assert "settings.toml" in caught.value.message


@pytest.mark.parametrize("url", ["http://user:hush@h:1", "http://hush@h", "https://:hush@h/v1"])
def test_password_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    """A model server's address holds no name or password, since every surface shows it; so does not the refusal."""
    with pytest.raises(SettingsError, match="must not hold a name or a password") as caught:
        load({"KOUBOU_MODEL_URL": url})
    assert caught.value.name == "model_url"
    assert "hush" not in caught.value.message


def test_misspelt_variable_is_refused_with_the_nearest() -> None:
    """A variable that looks like a setting but is none is refused; the token's and others are let be."""
    with pytest.raises(SettingsError) as caught:
        load({"KOUBOU_SOCKET_PORTS": "1"})
    assert caught.value.nearest == "socket_port"
    load({"KOUBOU_TOKEN": "x", "KOUBOU_XYZZY": "1"})


def test_one_number_of_workers_is_both_bounds() -> None:
    """`--workers 4` means four, no more and no fewer."""
    assert parse_workers("4") == (4, 4)
    assert parse_workers(" 0:2 ") == (0, 2)


@pytest.mark.parametrize("text", ["", ":", "1:", "0", "0:0", "2:1", "-1:2", "1:300", "a:b", "1:2:3"])
def test_bad_workers_are_refused(text: str) -> None:
    """Whatever is not MIN:MAX in range is a SettingsError."""
    with pytest.raises(SettingsError):
        parse_workers(text)


def test_every_setting_has_help_and_a_variable() -> None:
    """The table is complete: each row has words for people and a variable's name."""
    for setting in TABLE:
        assert setting.help
        assert setting.variable == "KOUBOU_" + setting.name.upper()


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (None, ("127.0.0.1", 11434)),
        ("", ("127.0.0.1", 11434)),
        ("127.0.0.1:11500", ("127.0.0.1", 11500)),
        (":11500", ("127.0.0.1", 11500)),
        ("0.0.0.0", ("127.0.0.1", 11434)),
        ("http://localhost", ("127.0.0.1", 80)),
        ("[::]:11500", ("::1", 11500)),
        ("gpu-box:11434", None),
        ("127.0.0.1:eleven", None),
    ],
)
def test_ollama_is_looked_for_where_its_own_variable_says(said, found) -> None:
    """`OLLAMA_HOST` is read as Ollama reads it; one that names another machine is no business of ours."""
    assert ollama_address({} if said is None else {"OLLAMA_HOST": said}) == found
