"""What the supervisor's children have in common: how they say that they are ready, and when they are to end.

`--ready-fd N` is a pipe on which a child writes one line of JSON: `{"port": …}` once it serves, or
`{"exit": code, "error": "…"}` when it cannot. `--life-fd N` is a pipe whose end means that the supervisor is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from koubou_panel.errors import KoubouError
from koubou_panel.settings import END_NOW, EXIT_TAKEN

SERVERS = "koubou_panel.servers."


class CannotStart(KoubouError):
    """This process cannot serve.

    Args:
        message: why, and what to do.
        exit_code: what it ends with, as in CLI.md.
    """

    def __init__(self, message: str = "", *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two descriptors to a child's command line."""
    parser.add_argument("--ready-fd", type=int, metavar="N", help="write one line of JSON there, once ready")
    parser.add_argument("--life-fd", type=int, metavar="N", help="end when this pipe does")


def announce(fd: int | None, document: dict[str, object]) -> None:
    """Write one line of JSON for the supervisor, and close the pipe; without a pipe, to stdout."""
    line = json.dumps(document) + "\n"
    if fd is None:
        sys.stdout.write(line)
        sys.stdout.flush()
        return
    with suppress(OSError):  # the supervisor is gone: the life pipe will say so
        os.write(fd, line.encode())
    os.close(fd)


def refuse(fd: int | None, error: CannotStart) -> int:
    """Say why this process cannot serve, and give its exit code."""
    if fd is None:
        print(f"koubou: {error}", file=sys.stderr)  # noqa: T201 - nobody else is there to say it
    else:
        announce(fd, {"exit": error.exit_code, "error": error.message})
    return error.exit_code


class Ending:
    """When this process is to end. Loop thread only.

    `asked` is set by the first SIGTERM or SIGINT, or by the supervisor's death; `skip` by the second signal,
    by `END_NOW`, and by the supervisor's death too: nothing is worth waiting for then.
    """

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.asked = asyncio.Event()
        self.skip = asyncio.Event()
        self.is_orphaned = False

    @classmethod
    def watch(cls, life_fd: int | None) -> Ending:
        """Watch the signals and the life pipe from the running loop."""
        ending = cls()
        loop = asyncio.get_running_loop()
        ending.hear()
        if life_fd is not None:
            os.set_blocking(life_fd, False)
            os.set_inheritable(life_fd, False)  # noqa: FBT003 - the library has no keyword
            loop.add_reader(life_fd, ending._look, loop, life_fd)
        return ending

    def hear(self) -> None:
        """Take the signals, from the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask)
        loop.add_signal_handler(END_NOW, self.ask_now)

    def ask(self) -> None:
        """Ask to end; asked twice, at once."""
        (self.skip if self.asked.is_set() else self.asked).set()

    def ask_now(self) -> None:
        """Ask to end at once."""
        self.asked.set()
        self.skip.set()

    def _look(self, loop: asyncio.AbstractEventLoop, life_fd: int) -> None:
        with suppress(BlockingIOError):
            if os.read(life_fd, 64):
                return
            loop.remove_reader(life_fd)
            self.is_orphaned = True
            self.ask_now()


def end_within(limit_s: float, last: Callable[[], None] | None = None, *, code: int = 0) -> None:
    """End this process with `code` in `limit_s` seconds, whatever still holds it: all that counts is done.

    `last` is called before that, and removes what is not to be left.

    A thread that waits for something outside (a process that does not end, a disk, a name server) would be waited for
    when the interpreter ends, and there is no limit to that.
    """

    def end() -> None:
        sys.stderr.write("something did not close in time; it is left to the system\n")
        sys.stderr.flush()
        if last is not None:
            with suppress(OSError):
                last()
        os._exit(code)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()


def bind(host: str, port: int, *, flag: str) -> socket.socket:
    """A listening TCP socket.

    Args:
        host: an address or a name.
        port: 0 takes a free one.
        flag: the flag that chooses another port, for the message.

    Raises:
        CannotStart: the port is taken (exit 73), or the address is not this machine's (exit 2).
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.create_server(address[:2], family=family, backlog=256)
        # Inherited by what is accepted. asyncio sets it only where the protocol was named, and without it an answer in
        # two pieces waits 40 ms for the reader's late acknowledgement of the first.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(taken(port, flag), exit_code=EXIT_TAKEN) from None
        if error.errno == errno.EACCES:
            raise CannotStart(
                f"port {port} needs root: choose another with {flag}", exit_code=EXIT_TAKEN
            ) from None
        raise CannotStart(f"{host} is no address of this machine: mend --host", exit_code=2) from None


def require_free(host: str, port: int, *, flag: str) -> None:
    """Raise what `bind` raises, before anything else is done for a port that cannot be had."""
    bind(host, port, flag=flag).close()


def taken(port: int, flag: str) -> str:
    """What to say of a port that is taken, with its holder if it can be told."""
    return (
        f"port {port} is taken{_holder(port)}: end that, or choose another port with {flag} (0: a free one)"
    )


def _holder(port: int) -> str:
    """` by NAME (pid N)`; that it is another user's, where the system tells no more; nothing where it tells nothing."""
    import psutil

    is_hidden = False
    with suppress(psutil.Error, OSError):
        for found in psutil.net_connections("tcp"):
            if found.status != psutil.CONN_LISTEN or not found.laddr or found.laddr[1] != port:
                continue
            if found.pid:
                return f" by {_name(found.pid)} (pid {found.pid})"
            is_hidden = True
    return " by a program of another user, whose name the system does not tell" if is_hidden else ""


def _name(pid: int) -> str:
    """What a process is called; of our own, which service it is and of which home."""
    import psutil

    process = psutil.Process(pid)
    with suppress(psutil.Error):
        argv = process.cmdline()
        module = next((word for word in argv if word.startswith(SERVERS)), None)
        if module is not None and "--home" in argv[:-1]:
            home = argv[argv.index("--home") + 1]
            return f"Koubou Panel's {module.removeprefix(SERVERS)} of the home {home}"
    with suppress(psutil.Error):
        return process.name()
    return "a program"
