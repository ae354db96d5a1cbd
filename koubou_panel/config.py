"""The settings as people see and change them: what is in force and why, and `<home>/settings.toml` written safely."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from itertools import combinations
from pathlib import Path
from tempfile import NamedTemporaryFile

from msgspec import Struct

from koubou_panel.core.state import State
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import Refused, SettingsError
from koubou_panel.home import Home
from koubou_panel.settings import BY_NAME, FILE, TABLE, SecretValue, Setting, Settings, default_home, load

LOCK = "settings.lock"
_CHANGED_MEANWHILE = f"{FILE} was changed meanwhile by someone else: look at it again"
PORTS = {"dashboard_port": "dashboard", "socket_port": "WebSocket", "agents_port": "agents"}


class SettingRecord(Struct, frozen=True, gc=False):
    """One setting: its value at the next start, and where that comes from.

    `source` is `default`, the settings file, a variable or a flag; `in_file` what the file says, null where nothing.
    """

    name: str
    value: object
    source: str
    type: str
    default: object
    unit: str
    help: str
    variable: str
    in_file: object
    needs_restart: bool


class Change(Struct, frozen=True, gc=False):
    """What a change led to.

    `changed` are the settings whose place in the file is another now; `needs_restart` those of them that count from
    the next start on; `overridden` those that something stronger than the file says, and what. `before` is the file's
    text before it, `base` stands for the text that was written.
    """

    changed: list[str]
    needs_restart: list[str]
    overridden: dict[str, str]
    before: str = ""
    base: str = ""


class Preview(Struct, frozen=True, gc=False):
    """What a change would make of the file: its text now and then, and the `base` that stands for the text now.

    `faults` says by setting why a value cannot be; with one, `after` is the text as it is.
    """

    before: str
    after: str
    base: str
    faults: dict[str, str]


def setting_records(
    home: Home, environ: Mapping[str, str], flags: Mapping[str, object] | None = None
) -> list[SettingRecord]:
    """Every setting, in the table's order. `flags` is what flags say, by setting, where that is known.

    Raises:
        SettingsError: the file or a variable cannot be used as it stands.
    """
    settings = _load(home, environ, flags)
    _, told = _read(home.root / FILE)
    return [
        SettingRecord(
            setting.name,
            plain(getattr(settings, setting.name)),
            settings.sources[setting.name],
            setting.type,
            plain(setting.default),
            setting.unit,
            setting.help,
            setting.variable,
            told.get(setting.name),
            # Each is read once, when the workshop starts.
            needs_restart=True,
        )
        for setting in TABLE
    ]


def find_setting(name: str) -> Setting:
    """The setting of that name.

    Raises:
        Refused: `not_found`, with the nearest name.
    """
    setting = BY_NAME.get(name)
    if setting is None:
        near = nearest(name, BY_NAME)
        raise Refused("not_found", unknown("setting", name, BY_NAME), field=name[:100], nearest=near)
    return setting


def in_use(state: State) -> dict[str, object]:
    """What the workshop goes by now, where it tells: flags and `koubou scale` are stronger than the file."""
    ports = {name: service.port for name, service in state.services.items()}
    return {
        "workers": f"{state.pool.min_workers}:{state.pool.max_workers}",
        "dashboard_port": ports.get("dashboard"),
        "socket_port": ports.get("websocket"),
        "agents_port": ports.get("agents"),
    }


def preview_settings(home: Home, changes: Mapping[str, object], environ: Mapping[str, str]) -> Preview:
    """What `change_settings` would write; nothing is.

    Raises:
        Refused: `conflict`: the file is written in a way that only a person can change.
        SettingsError: the file, or a variable, cannot be used as it stands.
    """
    _load(home, environ)
    before, told = _read(home.root / FILE)
    values: dict[str, object] = {}
    faults: dict[str, str] = {}
    for name, value in changes.items():
        try:
            values[name] = _checked(name, value)
        except Refused as refused:
            faults[name] = refused.message
    after = before
    if not faults:
        try:
            after = _planned(before, told, values)[1]
        except Refused as refused:
            if refused.field is None:
                raise
            faults[refused.field] = refused.message
    return Preview(before, after, _base_of(before), faults)


def change_settings(
    home: Home, changes: Mapping[str, object], environ: Mapping[str, str], *, base: str | None = None
) -> Change:
    """Write settings to the home's file, all or none; None takes one out of it. Comments there stay.

    Args:
        home: whose settings they are.
        changes: by setting.
        environ: the environment; its variables win over the file.
        base: of the `Preview` that was looked at; None: whatever the file says now is changed.

    Raises:
        Refused: an unknown setting, or a value that it cannot have; `conflict`: the file is not the one of `base`;
            nothing was written.
        SettingsError: the file cannot be used as it stands.
    """
    values = {name: _checked(name, value) for name, value in changes.items()}
    home.prepare()
    path = home.root / FILE
    with _locked(home.runtime / LOCK):
        before, told = _read(path)
        if base is not None and base != _base_of(before):
            raise Refused("conflict", _CHANGED_MEANWHILE)
        changed, after = _planned(before, told, values)
        if changed:
            _write(path, after)
    sources = _load(home, environ).sources
    stronger = {name: sources[name] for name in values if sources[name] not in ("default", str(path))}
    return Change(changed, changed, stronger, before, _base_of(after))


def restore_settings(home: Home, text: str, *, base: str) -> list[str]:
    """Put an earlier text of the file back, whole; give the settings that it says otherwise.

    Args:
        home: whose file it is.
        text: the `before` of a `Preview`.
        base: stands for the text that is expected there now.

    Raises:
        Refused: `conflict`: the file is not the one of `base`; nothing was written.
        SettingsError: the file cannot be used as it stands.
    """
    home.prepare()
    path = home.root / FILE
    with _locked(home.runtime / LOCK):
        now, told = _read(path)
        if base != _base_of(now):
            raise Refused("conflict", _CHANGED_MEANWHILE)
        _write(path, text)
    earlier = tomllib.loads(text)
    return [setting.name for setting in TABLE if told.get(setting.name) != earlier.get(setting.name)]


def _planned(before: str, told: Mapping[str, object], values: Mapping[str, object]) -> tuple[list[str], str]:
    """Which of `values` the file does not say yet, and its text with them.

    Raises:
        Refused: the workshop could not start with them together.
    """
    changed = [name for name, value in values.items() if told.get(name) != value]
    wanted = {**told, **values}
    try:
        check_together(
            {s.name: s.default if wanted.get(s.name) is None else wanted[s.name] for s in TABLE},
            among=changed,
        )
    except SettingsError as error:
        raise Refused("invalid", error.message, field=error.name) from None
    return changed, edited(before, {name: values[name] for name in changed}) if changed else before


def _base_of(text: str) -> str:
    """What stands for a text of the file."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_together(
    values: Mapping[str, object],
    *,
    sources: Mapping[str, str] | None = None,
    among: Collection[str] | None = None,
) -> None:
    """See that the workshop can start with these settings, as far as they tell.

    Args:
        values: every setting's value.
        sources: where each comes from, to name it.
        among: the settings that were changed, where others are none of the caller's business.

    Raises:
        SettingsError: two ports are the same, or `host` is not this machine's alone.
    """

    def named(name: str) -> str:
        source = (sources or {}).get(name, "")
        if source.startswith("--"):
            return source
        return f"{name}, by {source}" if source not in ("", "default") else name

    def counts(*names: str) -> bool:
        return among is None or not {*names}.isdisjoint(among)

    host = str(values["host"])
    if counts("host") and not _is_loopback(host):
        words = (
            f"{named('host')}: {host} would send the token in the clear, and TLS is not there yet: leave it at "
            "127.0.0.1, and reach this machine by an SSH tunnel (ssh -L 8080:127.0.0.1:8080 HOST)"
        )
        raise SettingsError(words, name="host")
    for one, other in combinations(PORTS, 2):
        if values[one] == values[other] != 0 and counts(one, other):
            flag = f"--{other.replace('_', '-')}"
            told = " and ".join(named(name) for name in (one, other))
            words = f"{PORTS[one]} and {PORTS[other]} cannot share port {values[one]} ({told})"
            raise SettingsError(f"{words}: choose another with {flag}", name=other)


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"
    return bool((getattr(address, "ipv4_mapped", None) or address).is_loopback)


def plain(value: object) -> object:
    """A setting's value as JSON and TOML have it."""
    if isinstance(value, tuple):
        return ":".join(map(str, value))
    return str(value) if isinstance(value, Path) else value


def _load(home: Home, environ: Mapping[str, str], flags: Mapping[str, object] | None = None) -> Settings:
    """The settings of `home`, by the environment where that names it, else as if a flag did."""
    named = environ.get(BY_NAME["home"].variable)
    found = default_home() if named is None else BY_NAME["home"].read(named)
    return load(environ, {**(flags or {}), **({} if found == home.root else {"home": home.root})})


def _checked(name: str, value: object) -> object:
    try:
        setting = find_setting(name)
    except Refused as refused:
        raise Refused("invalid", refused.message, field=refused.field, nearest=refused.nearest) from None
    if name == "home":
        words = "home cannot be set in a file that lies in it: use --home or KOUBOU_HOME"
        raise Refused("invalid", words, field=name)
    if value is None:
        return None
    try:
        read = plain(setting.read(value))
        str(read).encode()
    except UnicodeEncodeError:
        raise Refused("invalid", f"{name} is no text that can be written down", field=name) from None
    except SecretValue as error:
        raise Refused("invalid", f"{name} {error}", field=name) from None
    except ValueError as error:
        raise Refused("invalid", f"{name} {error}, not {value!r}"[:300], field=name) from None
    if name == "model_file" and read and not Path(str(read)).expanduser().is_file():
        raise Refused("invalid", f"{name} must be a file that is there, not {value!r}"[:300], field=name)
    return read


# -- the file -------------------------------------------------------------------------------------------------


def edited(text: str, changes: Mapping[str, object]) -> str:
    """The text of a settings file with these values in it; None takes a setting out. All else stays as it is.

    Raises:
        Refused: `conflict`: a value there spans lines, or is written in another way that is not understood.
    """
    wanted: dict[str, object] = {**tomllib.loads(text), **changes}
    left = dict(changes)
    lines: list[str] = []
    for line in (
        text.removesuffix("\n").split("\n") if text else []
    ):  # splitlines would end more than TOML does
        found = re.match(r"""\s*["']?(\w+)["']?\s*=""", line)
        name = found[1] if found else ""
        if name not in left:
            lines.append(line)
        elif (value := left.pop(name)) is not None:
            lines.append(f"{name} = {_toml(value)}{_comment(line)}")
    lines += [f"{name} = {_toml(value)}" for name, value in left.items() if value is not None]
    made = "".join(f"{line}\n" for line in lines)
    try:
        is_right = tomllib.loads(made) == {n: v for n, v in wanted.items() if v is not None}
    except tomllib.TOMLDecodeError:
        is_right = False
    if not is_right:
        raise Refused(
            "conflict", f"{FILE} is written in a way that only a person can change: edit it by hand"
        )
    return made


def _comment(line: str) -> str:
    """The comment at the end of a line, with the space before it."""
    for place in (at for at, character in enumerate(line) if character == "#"):
        with suppress(tomllib.TOMLDecodeError):
            tomllib.loads(line[:place])
            return line[len(line[:place].rstrip()) :]
    return ""


def _toml(value: object) -> str:
    # A JSON text is a TOML basic string, but for a character that JSON may leave as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read(path: Path) -> tuple[str, dict[str, object]]:
    """The file's text, and what it says."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        return "", {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read ({error}): mend it or move it away") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock among all who change the file: it is read, changed and written as one."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write(path: Path, text: str) -> None:
    """Put a whole new file in the place of the old one, durably; a link is followed."""
    path = path.resolve()
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{FILE}.", delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(file.name).unlink()
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
