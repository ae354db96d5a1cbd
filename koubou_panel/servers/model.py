"""The embedded model server: llama.cpp's own HTTP server with a small model, for this machine's prompts alone.

`python -m koubou_panel.servers.model --home DIR …` is started by the supervisor when the first prompt finds no other
server. It listens on a loopback address alone, opens to nobody without a key that it draws at random, and leaves word
of both in `<home>/runtime/model.json` for as long as it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit

from koubou_panel import settings
from koubou_panel.errors import SettingsError
from koubou_panel.home import Home
from koubou_panel.kinds.model import (
    Embedded,
    NoModel,
    embedded_file,
    forget_embedded,
    leave_word,
    model_name,
    take_back,
)
from koubou_panel.servers import child
from koubou_panel.servers.child import CannotStart, Ending
from koubou_panel.settings import END_NOW, EXIT_FAILED, EXIT_USAGE

HOST = "127.0.0.1"
SLOTS = 4
SLOT_TOKENS, LEAST_SLOT_TOKENS = 4_096, 2_048
# Below this much free memory each slot has the least that is useful.
PLENTY_BYTES = 2 << 30
# Of the host's memory, for beginnings of prompts that were read before; llama.cpp itself takes up to 8 GB.
CACHE_MIB = 128
KEY_BYTES = 24
MOST_THREADS = 8
# A prompt is read in pieces of so many tokens; only between two of them is it seen that nobody waits any more, or that
# another prompt does. The library's own 2,048 held a cancelled prompt's slot for a minute, and are no faster here.
PIECE_TOKENS = 64
SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG
SERIOUS = 1  # llama.cpp's verbosity: errors alone


class Running(Protocol):
    """A server that serves from a thread of its own until nobody holds it."""

    listening_address: str


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until asked to end; gives the exit code."""
    args = _parser().parse_args(argv)
    try:
        asyncio.run(_serve(args))
    except CannotStart as error:
        return child.refuse(args.ready_fd, error)


def _leave() -> NoReturn:
    """End at once: threads that load, or are in the middle of a token, are not worth waiting for.

    Not by returning: the library's server waits for its threads when nobody holds it any more, and they wait for each
    other for ever where it is ended as soon as it serves.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m koubou_panel.servers.model")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument(
        "--host", default=HOST, help="taken for the other services' sake: it is always loopback"
    )
    parser.add_argument("--port", type=int, default=0)
    child.add_arguments(parser)
    return parser


async def _serve(args: argparse.Namespace) -> NoReturn:
    ending = Ending.watch(args.life_fd)
    home = Home(args.home)
    home.prepare()
    forget_embedded(home.root)
    path = _model_file(home)
    if args.port:
        child.require_free(HOST, args.port, flag="--port")
    key = secrets.token_urlsafe(KEY_BYTES)
    name = model_name(path)
    loop, has_come = asyncio.get_running_loop(), asyncio.Event()
    _end_by_kernel(is_on=True)
    loading = loop.run_in_executor(None, load, path, name, key, args.port)
    asked = asyncio.ensure_future(ending.asked.wait())
    loading.add_done_callback(lambda _: has_come.set())
    await asyncio.wait({asked, asyncio.ensure_future(has_come.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        _leave()  # nothing is served yet, and a large file on a slow disk may take minutes
    _end_by_kernel(is_on=False)
    ending.hear()
    server = loading.result()
    address = server.listening_address
    leave_word(home.root, Embedded.here(address, key, name))
    try:
        child.announce(args.ready_fd, {"port": urlsplit(address).port, "pid": os.getpid(), "model": name})
        await asked
    finally:
        take_back(home.root)
    _leave()


def _end_by_kernel(*, is_on: bool) -> None:
    """While the model loads, let the kernel end this process: the library lets no Python run until it has loaded."""
    if is_on:
        for number in (signal.SIGTERM, signal.SIGINT, END_NOW):
            signal.signal(number, signal.SIG_DFL)
    with suppress(AttributeError, OSError):  # Linux alone can end it with its supervisor
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL if is_on else 0, 0, 0, 0)


def _model_file(home: Home) -> Path:
    """The model to load.

    Raises:
        CannotStart: there is none, or the settings cannot be read.
    """
    try:
        wanted = settings.load(os.environ, {"home": home.root})
        return embedded_file(wanted.model_file)
    except SettingsError as error:
        raise CannotStart(error.message, exit_code=EXIT_USAGE) from error
    except NoModel as error:
        raise CannotStart(error.message) from error


def load(path: Path, name: str, key: str, port: int) -> Running:
    """Load a model and serve it; takes as long as the loading does. Any thread.

    Raises:
        CannotStart: it cannot be loaded.
    """
    # Read when the library is loaded. Its threads wait for each other at every token: beside tasks that use the
    # processor, those that spin meanwhile wrote 3 to 7 tokens a second here, and those that sleep 40.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import xllamacpp

    params: Any = xllamacpp.CommonParams()
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads()
    params.model.path = str(path)
    params.model_alias = {name}
    params.hostnames = [HOST]
    params.port = port
    params.api_keys = [key]
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * slot_tokens()
    params.n_batch = params.n_ubatch = PIECE_TOKENS
    params.cache_ram_mib = CACHE_MIB
    params.endpoint_slots = params.endpoint_metrics = True
    params.ui = False
    params.verbosity = SERIOUS
    try:
        server: Running = xllamacpp.Server(params)
    except Exception as error:
        words = f"the model {path} cannot be loaded: {str(error).rstrip('.')}"
        raise CannotStart(words, exit_code=EXIT_FAILED) from error
    return server


def threads() -> int:
    """How many cores write: one is left for the tasks and the workshop."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_THREADS, max(1, cores - 1))


def slot_tokens() -> int:
    """How many tokens a prompt and its answer may have."""
    import psutil

    return SLOT_TOKENS if psutil.virtual_memory().available >= PLENTY_BYTES else LEAST_SLOT_TOKENS


if __name__ == "__main__":
    sys.exit(main())
