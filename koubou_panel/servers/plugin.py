"""The dashboard under `panel serve`: the same page, `/ws` and the guard, over the running workshop of the home.

    panel serve apps/dashboard.py --port 8080 --address 127.0.0.1 --plugins koubou_panel.servers.plugin

`panel serve` asks a plug-in for `ROUTES` before it makes its server; that is when the guard is put before every
application of this process. Without the plug-in `page` checks each visitor itself, and there is no `/ws`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

import panel as pn
from bokeh.document import Document
from bokeh.server.tornado import BokehTornado
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

from koubou_panel import settings
from koubou_panel.core.commands import Caller
from koubou_panel.errors import KoubouError, Refused
from koubou_panel.home import Home
from koubou_panel.servers.access import Access, Allow, Named, Request
from koubou_panel.servers.api.handler import Api
from koubou_panel.servers.api.routes import api_routes
from koubou_panel.servers.credentials import Sessions, derive_read_token, load_or_create_token
from koubou_panel.servers.dashboard import MESSAGE_BYTES, TOKEN_LIFE_S, dismiss_pages, page_key, place_of
from koubou_panel.servers.feed import Feed
from koubou_panel.servers.guard import Guard, guard_application, request_verdict
from koubou_panel.servers.output import output_routes
from koubou_panel.servers.policy import PagePolicy
from koubou_panel.servers.rotation import follow_token
from koubou_panel.servers.tornado_socket import SocketHandler
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.views.opening import language_asked
from koubou_panel.views.page import closed_page, one_line, waiting_page
from koubou_panel.views.session import visit

HOW = "panel serve apps/dashboard.py --port 8080 --address 127.0.0.1 --plugins koubou_panel.servers.plugin"
PANEL_PORT = 5006
TRY_AGAIN_S = 1.0
_KEY = "koubou attachment"

log = logging.getLogger(__name__)


class Attachment:
    """What this process is attached to: the home's workshop, once it answers. Loop thread only.

    Args:
        home: whose workshop.
        token: the full token.

    """

    def __init__(self, home: Home, token: str) -> None:
        """Not attached yet: see `begin`."""
        self.home = home
        self.token = token
        self.boot_id = secrets.token_hex(8)
        self.shop: RemoteShop | None = None
        self.feed: Feed | None = None
        self.guard: Guard | None = None
        self.applications: list[BokehTornado] = []
        self.pages: WeakSet[Document] = WeakSet()
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Attach, as soon as a workshop answers, and follow the token."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            following = follow_token(self.home.runtime, os.environ, self.rotate, on_named=self.name)
            self._tasks = [loop.create_task(self._attach()), loop.create_task(following)]

    def rotate(self, token: str) -> None:
        """Take a new token; what the old one opened ends, and cannot be opened again."""
        self.token = token
        if self.guard is not None:
            self.guard.rotate(token, read_token=derive_read_token(token))
        if self.feed is not None:
            self.feed.dismiss()
        for application in self.applications:
            dismiss_pages(application)
        for document in self.pages if self.guard is None else ():
            # Nothing stands before the port to keep its browser from coming back: it finds nothing.
            document.add_next_tick_callback(document.clear)

    def name(self, named: Named) -> None:
        """Let in agents by these tokens, and by no others."""
        if self.guard is not None:
            is_revoked = not named.keys() >= self.guard.access.named.keys()
            self.guard.name(named)
            if is_revoked and self.feed is not None:
                self.feed.dismiss(reason="a token was revoked")

    async def _attach(self) -> None:
        while self.shop is None:
            try:
                self.shop = await RemoteShop.connect(self.home.socket, by="panel serve")
            except Refused as refusal:
                log.debug("%s", refusal)
                await asyncio.sleep(TRY_AGAIN_S)
        self.feed = Feed(self.shop)


def attachment() -> Attachment:
    """This process's one, made when it is first asked for.

    Raises:
        SettingsError: a setting or the token's file cannot be used as it stands.

    """
    found = pn.state.cache.get(_KEY)
    if found is None:
        home = Home(settings.load(os.environ).home)
        home.prepare()
        found = pn.state.cache[_KEY] = Attachment(
            home, load_or_create_token(home.runtime, environ=os.environ)
        )
    assert isinstance(found, Attachment)  # noqa: S101 - the key is ours
    return found


def page() -> pn.Template:
    """The page for the visitor whose session this is called in, or one line that says what to do."""
    document: Any = pn.state.curdoc
    request: HTTPServerRequest = document.session_context.request
    try:
        here = attachment()
    except KoubouError as error:
        return one_line(error.message)
    # What Bokeh hands on stands before the request itself, and holds its headers as a plain dict.
    request = getattr(request, "_request", request)
    verdict = request_verdict(request) or own_check(here, request)
    if not isinstance(verdict, Allow):
        return closed_page(HOW, language_asked(request))
    if here.shop is None:
        here.begin()
        return waiting_page(place_of(here.home), language_asked(request))
    here.pages.add(document)
    caller = Caller("dashboard", verdict.role.value)
    return visit(here.shop, caller=caller, boot_id=here.boot_id, place=place_of(here.home))


def own_check(here: Attachment, request: HTTPServerRequest) -> Allow | None:
    """What the guard would say, where none stands before the port: peer, Host and credentials of this visit."""
    try:
        sock = request.connection.stream.socket  # type: ignore[union-attr]
        peer, port = sock.getpeername()[0], sock.getsockname()[1]
    except (AttributeError, OSError):
        return None
    access = Access(token=here.token, read_token=derive_read_token(here.token), port=port)
    verdict = access.check(
        Request(
            method=request.method or "",
            path=request.path,
            host=tuple(request.headers.get_list("Host")),
            peer=peer,
            origin=tuple(request.headers.get_list("Origin")),
            authorization=tuple(request.headers.get_list("Authorization")),
        )
    )
    return verdict if isinstance(verdict, Allow) else None


class HealthHandler(RequestHandler):
    """`/healthz`: which process this is, and how fresh what it shows is."""

    def get(self) -> None:
        """Tell."""
        here = attachment()
        link = here.shop.link if here.shop is not None else None
        self.set_header("Cache-Control", "no-store")
        self.finish(
            {
                "boot": here.boot_id,
                "status": "ok",
                "link": link.status if link else "reconnecting",
                "lag_s": round(link.lag_s, 1) if link else None,
            }
        )


class AttachedSocketHandler(SocketHandler):
    """`/ws`, once there is a workshop to speak of."""

    def prepare(self) -> None:
        """Refuse as long as there is none."""
        if attachment().feed is None:
            self.set_status(503)
            self.finish("No workshop answers yet: `koubou up` starts it.\n")


def routes(argv: Sequence[str]) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """Guard every application of this process, and give the routes beside the page.

    Args:
        argv: the command line of `panel serve`, for its port and address.

    Raises:
        SettingsError: the address needs more than `panel serve` gives, or the token cannot be read.

    """
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--port", type=int, default=PANEL_PORT)
    flags.add_argument("--address", default="127.0.0.1")
    flags.add_argument("--num-procs", type=int, default=1)
    told, _ = flags.parse_known_args(argv)
    if told.num_procs != 1:
        raise Refused("invalid", "the dashboard runs in one process: leave out --num-procs")
    here = attachment()
    access = Access(
        token=here.token,
        read_token=derive_read_token(here.token),
        port=told.port,
        bind=told.address,
        honours_cookies=True,
        auth_by_frame=("/ws",),
    )
    guard = Guard(access, sessions=Sessions(here.home.runtime / f"sessions-{told.port}", here.token))
    here.guard = guard
    guard_application(BokehTornado, guard)
    harden(BokehTornado, here.token, on_made=here.applications.append)
    IOLoop.current().add_callback(here.begin)
    socket = {"feed": lambda: attachment().feed, "guard": lambda: guard, "limits": None}
    sys.stderr.write(
        f"koubou: open http://127.0.0.1:{told.port}{login_path(here.token)} (once, within ten minutes)\n"
    )
    api = Api(lambda: attachment().shop, home=here.home, environ=os.environ)
    return [
        (r"/ws", AttachedSocketHandler, socket),
        (r"/healthz", HealthHandler, {}),
        *api_routes(api),
        *output_routes(lambda: attachment().shop),
    ]


def login_path(token: str) -> str:
    """A one-time way in."""
    from koubou_panel.servers.credentials import mint_code

    return f"/login?code={mint_code(token, time.time())}"


def harden(
    target: type[BokehTornado], token: str, *, on_made: Callable[[BokehTornado], None]
) -> Callable[[], None]:
    """Sign every page session, keep headers and cookies out of pages, and put the script policy on them.

    Calls `on_made` with each application that is made; gives what undoes it.
    """
    build = target.__init__
    own = {
        "secret_key": page_key(token).encode(),
        "sign_sessions": True,
        "include_headers": [],
        "include_cookies": [],
        "session_token_expiration": TOKEN_LIFE_S,
        "websocket_max_message_size_bytes": MESSAGE_BYTES,
    }

    def __init__(self: BokehTornado, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it stands in for one
        build(self, *args, **(kwargs | own))
        self.add_transform(PagePolicy)
        on_made(self)

    setattr(target, "__init__", __init__)  # noqa: B010 - a checker refuses an assignment to a method

    def restore() -> None:
        setattr(target, "__init__", build)  # noqa: B010

    return restore


def __getattr__(name: str) -> Any:
    if name == "ROUTES":
        return routes(sys.argv[1:])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
