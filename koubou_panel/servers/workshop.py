"""The workshop process: the pool, the archive, the WebSocket port and the private link. It loads no Panel.

`python -m koubou_panel.servers.workshop --home DIR …` is started by the supervisor, which is told of the port, or of
what is in the way, by a line of JSON; it ends by a signal, or when the supervisor is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from koubou_panel.archive.schema import HomeRefused
from koubou_panel.errors import KoubouError, SettingsError
from koubou_panel.home import Home, HomeTaken
from koubou_panel.servers import child
from koubou_panel.servers.access import Access, Named, loopback_origins
from koubou_panel.servers.agents.server import AgentsServer
from koubou_panel.servers.child import CannotStart, Ending
from koubou_panel.servers.credentials import derive_read_token, load_or_create_token
from koubou_panel.servers.private import PrivateServer
from koubou_panel.servers.rotation import follow_token
from koubou_panel.servers.services import ServiceNotes, Services, add_argument
from koubou_panel.servers.socket import SocketServer
from koubou_panel.settings import (
    EXIT_DATA,
    EXIT_TAKEN,
    EXIT_USAGE,
    load,
    ollama_address,
    parse_workers,
)
from koubou_panel.shop.idle import until_removed
from koubou_panel.shop.kept import Retention
from koubou_panel.shop.local import LocalShop
from koubou_panel.shop.prompting import SERVICE, Prompting, guide_of

SOCKET_FLAG = "--socket-port"
AGENTS_FLAG = "--agents-port"
REST_S = 5.0  # what closing the doors may take once all is stored

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until asked to end; gives the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="workshop: %(levelname)s: %(message)s")
    open_files = raise_open_files()
    try:
        return asyncio.run(_serve(args, open_files))
    except CannotStart as error:
        return child.refuse(args.ready_fd, error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m koubou_panel.servers.workshop")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(SOCKET_FLAG, type=int, default=8766)
    parser.add_argument(AGENTS_FLAG, type=int, default=8765)
    parser.add_argument(
        "--agent-tasks", type=int, default=100, help="how many unfinished ones an agent may have"
    )
    parser.add_argument("--values-days", type=float, default=7.0, help="how long large values are kept")
    parser.add_argument("--values-gb", type=float, default=20.0, help="how much room they may take")
    parser.add_argument("--dashboard-port", type=int, default=0, help="whose pages may use the WebSocket")
    parser.add_argument("--workers", metavar="MIN:MAX", help="the stored bounds unless given")
    parser.add_argument("--grace", type=float, default=30.0, metavar="S")
    parser.add_argument("--insecure-no-auth", action="store_true")
    child.add_arguments(parser)
    add_argument(parser)
    return parser


def raise_open_files() -> int:
    """Let this process have as many files open as it may: each worker takes four. Gives how many it was before."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS knows another bound
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return max(0, before)


async def _serve(args: argparse.Namespace, open_files: int) -> int:
    ending = Ending.watch(args.life_fd)
    home = Home(args.home)
    async with AsyncExitStack() as stack:
        try:
            shop, ports = await _open(args, home, stack, open_files=open_files)
        except HomeTaken as error:
            raise CannotStart(error.message, exit_code=EXIT_TAKEN) from error
        except HomeRefused as error:
            raise CannotStart(error.message, exit_code=EXIT_DATA) from error
        except SettingsError as error:
            raise CannotStart(error.message, exit_code=EXIT_USAGE) from error
        pool = shop.state.pool
        workers = [pool.min_workers, pool.max_workers]
        said = {"port": ports["websocket"], "ports": ports, "pid": os.getpid(), "workers": workers}
        child.announce(args.ready_fd, said)
        # What lives from here to the end is not looked at again by the collector: its pauses stop the loop.
        gc.collect()
        gc.freeze()
        code = await _until_end(shop, ending, args.grace)
        # Closed first: followers are to see what becomes of their tasks. Then the doors, by the stack.
        await shop.close(args.grace, ending.skip)
        child.end_within(REST_S, partial(_forget_socket, home), code=code)
    return code


async def _until_end(shop: LocalShop, ending: Ending, grace_s: float) -> int:
    """Wait until the workshop is to end, be it that its folder was removed; the exit code."""
    removed = asyncio.create_task(until_removed(shop.home))
    removed.add_done_callback(lambda _: ending.asked.set())
    await ending.asked.wait()
    if removed.done():
        if shop.state.counts["in_progress"]:
            log.warning(
                "%s was removed while it was open: what runs may go on for %g s", shop.home.root, grace_s
            )
        return EXIT_DATA
    removed.cancel()
    return 0


def _forget_socket(home: Home) -> None:
    if home.is_in_place():  # else it is another's
        home.socket.unlink(missing_ok=True)


async def _open(
    args: argparse.Namespace, home: Home, stack: AsyncExitStack, *, open_files: int
) -> tuple[LocalShop, dict[str, int]]:
    """The shop with its doors open, and their ports by service; the stack closes the doors and lets the home go."""
    workers = parse_workers(args.workers) if args.workers else None
    try:
        home.prepare()
    except OSError as error:
        raise CannotStart(
            f"the home {home.root} cannot be made ({error.strerror}); name another with --home",
            exit_code=EXIT_USAGE,
        ) from error
    home.lock()
    stack.callback(home.unlock)
    token = load_or_create_token(home.runtime, environ=os.environ)
    access = _access(args, token)
    child.require_free(args.host, args.socket_port, flag=SOCKET_FLAG)
    child.require_free(args.host, args.agents_port, flag=AGENTS_FLAG)
    shop = await LocalShop.open(
        home,
        workers=workers,
        open_files=open_files,
        agent_tasks=args.agent_tasks,
        retention=Retention.of(args.values_days, args.values_gb),
    )
    try:
        services = await _attach_services(args, shop, stack)
        _serve_prompts(shop, services, stack)
        ports = await _open_doors(args, shop, access, stack)
    except BaseException:
        await shop.close()
        raise
    return shop, ports


async def _attach_services(args: argparse.Namespace, shop: LocalShop, stack: AsyncExitStack) -> Services:
    """The line to the supervisor; what it tells is noted as facts."""
    notes = ServiceNotes(shop.hub, shop.clock)
    services = await Services.attach(args.services_fd, notes.note)
    stack.callback(notes.close)
    stack.callback(services.close)
    return services


def _serve_prompts(shop: LocalShop, services: Services, stack: AsyncExitStack) -> None:
    """Tell the workers where prompts go, and have the model started when one needs it."""
    wanted = load(os.environ, {"home": shop.home.root})
    guide = guide_of(wanted, ollama_address(os.environ), is_supervised=services.is_supervised)
    prompting = Prompting(shop.home.root, guide, start=partial(services.start, SERVICE))
    stack.push_async_callback(prompting.close)
    stack.callback(shop.subscribe(prompting))


async def _open_doors(
    args: argparse.Namespace, shop: LocalShop, access: Access, stack: AsyncExitStack
) -> dict[str, int]:
    home = shop.home
    private = PrivateServer(shop, home.socket, home.is_in_place)
    await private.start()
    stack.push_async_callback(private.close)
    sockets = SocketServer(shop, access, host=args.host, port=args.socket_port)
    try:
        port = await sockets.start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise KoubouError(f"port {args.socket_port} cannot be opened: {error}") from error
        raise CannotStart(child.taken(args.socket_port, SOCKET_FLAG), exit_code=EXIT_TAKEN) from error
    stack.push_async_callback(sockets.close)
    agents = AgentsServer(
        shop,
        replace(access, auth_by_frame=()),
        host=args.host,
        port=args.agents_port,
        agent_tasks=args.agent_tasks,
    )
    agents_port = await agents.start()
    settling = asyncio.create_task(_settle(agents.ready))
    stack.callback(settling.cancel)
    stack.push_async_callback(agents.close)

    def renew(new: str) -> None:
        agents.guard.rotate(new, read_token=derive_read_token(new))
        sockets.guard.rotate(new, read_token=derive_read_token(new))
        if sockets.feed is not None:
            sockets.feed.dismiss()

    def name(named: Named) -> None:
        is_revoked = not named.keys() >= sockets.guard.access.named.keys()
        agents.guard.name(named)
        sockets.guard.name(named)
        if (
            is_revoked and sockets.feed is not None
        ):  # whose it was is not known: all others come back by themselves
            sockets.feed.dismiss(reason="a token was revoked")

    following = asyncio.create_task(follow_token(home.runtime, os.environ, renew, on_named=name))
    stack.callback(following.cancel)
    return {"websocket": port, "agents": agents_port}


async def _settle(ready: asyncio.Event) -> None:
    """Have the collector pass over what the agents' port has loaded, too: looking at it stops the loop for 100 ms."""
    await ready.wait()
    gc.freeze()


def _access(args: argparse.Namespace, token: str) -> Access:
    origins = loopback_origins(args.dashboard_port) if args.dashboard_port else frozenset[str]()
    return Access(
        token=token,
        read_token=derive_read_token(token),
        port=args.socket_port,
        bind=args.host,
        extra_origins=tuple(sorted(origins)),
        insecure_no_auth=args.insecure_no_auth,
        auth_by_frame=("*",),
    )


if __name__ == "__main__":
    sys.exit(main())
