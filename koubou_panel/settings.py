"""Every setting, in one table, the exit codes of the commands, and what the processes signal to each other.

A flag wins over a `KOUBOU_*` variable, that over `<home>/settings.toml`, and that over the default.
"""

from __future__ import annotations

import signal
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from platformdirs import user_data_path

from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import SettingsError

PREFIX = "KOUBOU_"
FILE = "settings.toml"
# Variables that are no settings: credentials never stand in a settings file, and what a command is told of its run.
NOT_SETTINGS = frozenset(
    {"KOUBOU_TOKEN", "KOUBOU_TOKEN_FILE", "KOUBOU_TASK_ID", "KOUBOU_RUN", "KOUBOU_OUTPUT", "KOUBOU_FIRE_AT"}
)

# How a command ends, as CLI.md has it. (0: done; 2: usage; a task's own code for `koubou run`.)
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_WORKSHOP = 3
EXIT_REFUSED = 4
EXIT_DATA = 65
EXIT_TAKEN = 73

END_NOW = signal.SIGUSR2
"""What the supervisor sends a service that is to end at once: of two SIGTERM the kernel may make one."""

MAX_WORKERS = 256
MAX_PORT = 65_535
MAX_GRACE_S = 86_400.0
MAX_AGENT_TASKS = 1_000_000
MAX_DAYS = 36_500.0
MAX_GB = 1_000_000.0
EMBEDDED_MODEL = "embedded"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: how a value is read from a flag, a variable or the file, and what it means.

    `read` gives the value of a text or a TOML value, or raises ValueError with what would be right.
    """

    name: str
    type: str
    default: object
    unit: str
    help: str
    read: Callable[[object], object]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper()


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force. `sources` says for each where it came from."""

    home: Path
    host: str
    dashboard_port: int
    socket_port: int
    agents_port: int
    workers: tuple[int, int]
    grace_s: float
    agent_tasks: int
    values_days: float
    values_gb: float
    model_url: str
    model: str
    model_file: str
    sources: Mapping[str, str]


def parse_workers(text: str) -> tuple[int, int]:
    """The bounds of `MIN:MAX`, or of one number for both.

    Raises:
        SettingsError: it is not that, or out of range.
    """
    low, colon, high = text.strip().partition(":")
    try:
        bounds = (int(low), int(high if colon else low))
    except ValueError:
        raise SettingsError(f"workers must be MIN:MAX, such as 1:3, not {text!r}", name="workers") from None
    if not 0 <= bounds[0] <= bounds[1] <= MAX_WORKERS or bounds[1] < 1:
        raise SettingsError(
            f"workers must be MIN:MAX with 0 <= MIN <= MAX and MAX 1 to {MAX_WORKERS}, not {text!r}",
            name="workers",
        )
    return bounds


class SecretValue(ValueError):
    """A value that must not be shown."""


def _read_home(value: object) -> Path:
    text = str(value)
    if not text.strip() or "\0" in text:
        raise ValueError("must be a folder")
    return Path(text).expanduser().absolute()


def _read_host(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or any(c.isspace() for c in value.strip()):
        raise ValueError("must be an address, such as 127.0.0.1")
    return value.strip()


def _read_port(value: object) -> int:
    number = _integer(value)
    if number is None or not 0 <= number <= MAX_PORT:
        raise ValueError(f"must be a port from 0 (a free one) to {MAX_PORT}")
    return number


def _read_workers(value: object) -> tuple[int, int]:
    if isinstance(value, tuple):
        value = f"{value[0]}:{value[1]}"
    try:
        return parse_workers(str(value))
    except SettingsError as error:
        words = error.message.removeprefix("workers ")
        raise ValueError(words.rpartition(", not ")[0]) from None  # who asked adds what it is not


def _read_seconds(value: object) -> float:
    return _number(value, "seconds", 0.0, MAX_GRACE_S)


def _read_days(value: object) -> float:
    return _number(value, "days", 1.0, MAX_DAYS)


def _read_gb(value: object) -> float:
    return _number(value, "GB", 0.0, MAX_GB)


def _number(value: object, unit: str, least: float, most: float) -> float:
    try:
        number = (
            float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1.0
        )
    except ValueError:
        number = -1.0
    if not least <= number <= most:
        raise ValueError(f"must be {unit} from {least:g} to {most:g}")
    return number


def _read_count(value: object) -> int:
    number = _integer(value)
    if number is None or not 1 <= number <= MAX_AGENT_TASKS:
        raise ValueError(f"must be 1 to {MAX_AGENT_TASKS}")
    return number


def _read_url(value: object) -> str:
    text = value.strip().rstrip("/") if isinstance(value, str) else " "
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise SecretValue(
            "must not hold a name or a password: every surface shows it; leave out what is before the @"
        )
    if (
        text
        and text != EMBEDDED_MODEL
        and (parts.scheme not in ("http", "https") or not parts.hostname or " " in text)
    ):
        raise ValueError("must be an address, such as http://127.0.0.1:11434, or embedded")
    return text


def _read_name(value: object) -> str:
    if not isinstance(value, str) or any(ord(c) < 32 for c in value):  # noqa: PLR2004 - control characters
        raise ValueError("must be a name")
    return value.strip()


def _integer(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return int(value)
    except ValueError:
        return None


TABLE: tuple[Setting, ...] = (
    Setting("home", "folder", None, "", "the folder of the database, the output and the token", _read_home),
    Setting("host", "address", "127.0.0.1", "", "the address that every port listens on", _read_host),
    Setting("dashboard_port", "integer", 8080, "", "the dashboard's port; 0 takes a free one", _read_port),
    Setting("socket_port", "integer", 8766, "", "the WebSocket port; 0 takes a free one", _read_port),
    Setting(
        "agents_port",
        "integer",
        8765,
        "",
        "the port of MCP and REST for agents; 0 takes a free one",
        _read_port,
    ),
    Setting(
        "workers", "MIN:MAX", (1, 3), "", "how many workers there are at least and at most", _read_workers
    ),
    Setting(
        "grace_s", "number", 30.0, "s", "how long running tasks may go on when it is stopped", _read_seconds
    ),
    Setting(
        "agent_tasks",
        "integer",
        100,
        "tasks",
        "how many unfinished tasks one agent may have",
        _read_count,
    ),
    Setting(
        "values_days",
        "number",
        7.0,
        "days",
        "how long large arguments and results of tasks that have ended are kept",
        _read_days,
    ),
    Setting(
        "values_gb",
        "number",
        20.0,
        "GB",
        "how much room they may take: beyond it the oldest go before, but nothing of the last day",
        _read_gb,
    ),
    Setting(
        "model_url",
        "address",
        "",
        "",
        "the model server, such as http://127.0.0.1:11434, or embedded; empty: whichever answers on this machine",
        _read_url,
    ),
    Setting("model", "name", "", "", "the model that prompts go to; empty: the server's first", _read_name),
    Setting(
        "model_file",
        "file",
        "",
        "",
        "another model, a GGUF file, for the embedded model server; empty: the small one it comes with",
        _read_name,
    ),
)
BY_NAME: Mapping[str, Setting] = MappingProxyType({setting.name: setting for setting in TABLE})


OLLAMA_PORT = 11_434


def ollama_address(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Where Ollama is on this machine, as its own `OLLAMA_HOST` says; None: that names another machine."""
    text = environ.get("OLLAMA_HOST", "").strip().strip("\"'")
    scheme, _, rest = text.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        port = parts.port
    except ValueError:
        return None
    if port is None:
        port = {"http": 80, "https": 443}.get(scheme, OLLAMA_PORT)
    host = parts.hostname or "127.0.0.1"
    if host in ("0.0.0.0", "localhost"):  # noqa: S104 - what it listens on; it is asked on loopback
        host = "127.0.0.1"
    if host == "::":
        host = "::1"
    return (host, port) if host == "::1" or host.startswith("127.") else None


def default_home() -> Path:
    """The home where nothing names one: the platform's user data folder."""
    return user_data_path("koubou", appauthor=False)


def load(environ: Mapping[str, str], given: Mapping[str, object] | None = None) -> Settings:
    """The settings in force.

    Args:
        environ: the environment; its `KOUBOU_*` variables count.
        given: what flags say, by setting; None stands for a flag that was not given.

    Raises:
        SettingsError: an unknown setting, with the nearest name, or a value that cannot be used.
    """
    told: dict[str, tuple[object, str]] = {}
    told |= {name: (value, variable) for name, value, variable in _variables(environ)}
    told |= {name: (value, _flag(name)) for name, value in (given or {}).items() if value is not None}
    home = _value("home", told.get("home", (default_home(), "default")))
    file = Path(str(home)) / FILE
    found = {name: (value, str(file)) for name, value in _file(file).items()} | told
    found["home"] = (home, told["home"][1] if "home" in told else "default")
    values = {s.name: _value(s.name, found.get(s.name, (s.default, "default"))) for s in TABLE}
    sources = {s.name: found[s.name][1] if s.name in found else "default" for s in TABLE}
    return Settings(**values, sources=MappingProxyType(sources))  # type: ignore[arg-type]


def _value(name: str, told: tuple[object, str]) -> object:
    setting = BY_NAME.get(name)
    value, source = told
    if setting is None:
        raise SettingsError(unknown("setting", name, BY_NAME), name=name, nearest=nearest(name, BY_NAME))
    try:
        return setting.read(value)
    except ValueError as error:
        is_shown = repr(value) in str(error) or isinstance(error, SecretValue)
        shown = "" if is_shown else f", not {value!r}"
        raise SettingsError(f"{name} ({source}) {error}{shown}", name=name) from None


def _flag(name: str) -> str:
    return "--" + name.removesuffix("_s").replace("_", "-")


def _variables(environ: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Settings told by the environment; a variable that looks like a misspelt one is refused."""
    known = {setting.variable: setting.name for setting in TABLE}
    found = []
    for variable, value in environ.items():
        if variable in known:
            found.append((known[variable], value, variable))
        elif variable.startswith(PREFIX) and variable not in NOT_SETTINGS:
            near = nearest(variable.removeprefix(PREFIX).lower(), BY_NAME)
            if near is not None:
                message = (
                    f"unknown setting {variable}; did you mean {BY_NAME[near].variable}? Rename or unset it"
                )
                raise SettingsError(message, name=variable, nearest=near)
    return found


def _file(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} cannot be read ({error}): mend it or move it away") from error
    if "home" in values:
        raise SettingsError(
            f"{path} lies in the home and cannot name it: use --home or KOUBOU_HOME", name="home"
        )
    for name in values:
        if name not in BY_NAME:
            message = f"{path}: {unknown('setting', name, BY_NAME)}"
            raise SettingsError(message, name=name, nearest=nearest(name, BY_NAME))
    return values
