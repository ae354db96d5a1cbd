"""`ollama serve` on a leash: a process above it that speaks as the supervisor's other children do.

Ollama knows nothing of a ready line or a life pipe. This process starts it, says when it answers, ends it when it is
to end, and kills what is left of it (its runners too) when the supervisor is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from koubou_panel.engines.guard import become_subreaper, kill_below
from koubou_panel.servers import child
from koubou_panel.servers.child import CannotStart, Ending
from koubou_panel.settings import PREFIX

ANSWER_S = 2.0
LOOK_S = 0.1
START_S = 60.0
END_S = 3.0
MOST_BYTES = 1 << 16


async def is_ollama(host: str, port: int) -> bool:
    """Whether Ollama answers there."""
    try:
        async with asyncio.timeout(ANSWER_S):
            body = await _get(host, port, "/api/version")
        return isinstance(json.loads(body)["version"], str)
    except (OSError, TimeoutError, ValueError, KeyError, TypeError, RecursionError):
        return False


async def listens(host: str, port: int) -> bool:
    """Whether anything listens there."""
    try:
        async with asyncio.timeout(ANSWER_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError, ValueError):
        return False
    writer.close()
    return True


async def _get(host: str, port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {_at(host, port)}\r\nConnection: close\r\n\r\n".encode())
        answer = bytearray()
        while len(answer) < MOST_BYTES and (data := await reader.read(MOST_BYTES)):
            answer += data
    finally:
        writer.close()
    return bytes(answer).partition(b"\r\n\r\n")[2]


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def main(argv: Sequence[str] | None = None) -> int:
    """Hold `ollama serve` until asked to end, or until it ends; gives the exit code."""
    args = _parser().parse_args(argv)
    try:
        return asyncio.run(_serve(args))
    except CannotStart as error:
        return child.refuse(args.ready_fd, error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m koubou_panel.servers.ollama")
    parser.add_argument("--program", required=True, help="where ollama is")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=11_434)
    child.add_arguments(parser)
    return parser


async def _serve(args: argparse.Namespace) -> int:
    ending = Ending.watch(args.life_fd)
    become_subreaper()
    # Our own variables, a token among them, are none of a foreign program's business.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment["OLLAMA_HOST"] = _at(args.host, args.port)
    try:
        process = await asyncio.create_subprocess_exec(
            args.program, "serve", stdin=subprocess.DEVNULL, env=environment
        )
    except OSError as error:
        raise CannotStart(f"{args.program} cannot be started ({error}): install Ollama anew") from error
    ended = asyncio.create_task(process.wait())
    asked = asyncio.create_task(ending.asked.wait())
    try:
        if await _answers(args.host, args.port, until={ended, asked}):
            child.announce(args.ready_fd, {"port": args.port, "holds": process.pid})
        elif not (ended.done() or asked.done()):
            raise CannotStart(f"`ollama serve` does not answer after {START_S:g} s: try it in a terminal")
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await _end(process, ended, ending)
            return 0
        return _code(ended.result())
    finally:
        kill_below(os.getpid(), waited=process.pid)


async def _answers(host: str, port: int, *, until: set[asyncio.Task[object]]) -> bool:
    """Wait until it answers; False: one of `until` came first, or it took too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_S
    while loop.time() < deadline and not any(task.done() for task in until):
        if await is_ollama(host, port):
            return True
        await asyncio.wait(until, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    return False


async def _end(process: asyncio.subprocess.Process, ended: asyncio.Task[int], ending: Ending) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    skip = asyncio.create_task(ending.skip.wait())
    await asyncio.wait({ended, skip}, timeout=END_S, return_when=asyncio.FIRST_COMPLETED)
    skip.cancel()


def _code(ended: int) -> int:
    """The exit code that tells how it ended."""
    if ended >= 0:
        return ended or 1  # it was not asked to
    sys.stderr.write(f"ollama serve was killed by {signal.Signals(-ended).name}\n")
    return 128 - ended


if __name__ == "__main__":
    sys.exit(main())
