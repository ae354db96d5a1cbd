"""The dashboard process: pages and `/ws` on one port, over a replica of the home's workshop.

`python -m koubou_panel.servers.dashboard --home DIR …` is started by the supervisor, which is told of the port, or of
what is in the way, by a line of JSON; it ends by a signal, or when the supervisor is gone. Building a page holds its
loop for some hundred milliseconds: that is why it is a process apart from the workshop's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hmac
import logging
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import panel as pn
from bokeh.server.tornado import BokehTornado
from bokeh.settings import settings as bokeh_settings
from tornado.httpclient import AsyncHTTPClient, HTTPError
from tornado.ioloop import IOLoop
from tornado.web import RedirectHandler, RequestHandler
from tornado.websocket import WebSocketClosedError

from koubou_panel.core.commands import Caller
from koubou_panel.core.ports import Shop
from koubou_panel.core.script import MAX_TEXT_BYTES
from koubou_panel.errors import Refused, SettingsError
from koubou_panel.home import Home
from koubou_panel.servers import child
from koubou_panel.servers.access import Access, Allow, Named
from koubou_panel.servers.api.handler import Api
from koubou_panel.servers.api.routes import api_routes
from koubou_panel.servers.child import CannotStart, Ending
from koubou_panel.servers.credentials import Sessions, derive_read_token, load_or_create_token
from koubou_panel.servers.feed import Feed
from koubou_panel.servers.guard import Guard, guard_application, request_verdict
from koubou_panel.servers.output import output_routes
from koubou_panel.servers.policy import PagePolicy
from koubou_panel.servers.rotation import follow_token
from koubou_panel.servers.services import Services, add_argument
from koubou_panel.servers.tornado_socket import ws_routes
from koubou_panel.settings import EXIT_NO_WORKSHOP, EXIT_TAKEN, EXIT_USAGE
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.views.session import visit
from koubou_panel.wire.replies import CLOSE_UNAUTHORIZED

PORT_FLAG = "--dashboard-port"
PAGE = "overview"
WORKSHOP_WAIT_S = 10.0
TOKEN_LIFE_S = 7 * 24 * 3600
# A page's message may hold a whole text, whose characters may be written as six each.
MESSAGE_BYTES = 8 * MAX_TEXT_BYTES
WARM_UP_S = 20.0
REST_S = 4.0  # what closing may take

log = logging.getLogger(__name__)


class Dashboard:
    """The dashboard's port over a shop. Loop thread only.

    Args:
        shop: what is shown; never closed here.
        token: the full token.
        sessions: where cookie sessions are kept.
        host: the address listened on.
        port: 0 takes a free one.
        place: a word for which workshop this is.
        label: a word for what kind of workshop it is, where it is no usual one.
        restart_service: has a service started anew; None: nobody does that here.
        insecure_no_auth: no credentials are asked for.
        linger_s: how long a page's session is kept for a browser that is gone, and may be back.
        home: whose settings REST shows and changes; None: it shows none.
        environ: the environment that those are read with; None: this process's.
        flags: what `koubou up` was told by flags, by setting.

    """

    def __init__(
        self,
        shop: Shop,
        *,
        token: str,
        sessions: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        place: str = "",
        label: str = "",
        restart_service: Callable[[str], bool] | None = None,
        insecure_no_auth: bool = False,
        linger_s: float = 15.0,
        home: Home | None = None,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
    ) -> None:
        """Listen; requests are answered as soon as the loop runs."""
        self.boot_id = secrets.token_hex(8)
        self.shop = shop
        self._place = place
        self._label = label
        self._restart_service = restart_service
        self._home = home
        self._environ = os.environ if environ is None else environ
        self._flags = flags or {}
        self._token = token
        self._linger_ms = int(linger_s * 1000)
        self.feed = Feed(shop)
        self.api = Api(lambda: shop, home=home, environ=self._environ)
        self._server = self._serve(host, port)
        self.port = int(self._server.port)
        self.access = Access(
            token=token,
            read_token=derive_read_token(token),
            port=self.port,
            bind=host,
            insecure_no_auth=insecure_no_auth,
            honours_cookies=True,
            auth_by_frame=("/ws",),
        )
        self.guard = Guard(self.access, sessions=Sessions(sessions, token))
        application = self._server._tornado  # noqa: SLF001 - it has no other door
        guard_application(application, self.guard)
        application.add_transform(PagePolicy)
        self._server.start()

    async def warm_up(self) -> None:
        """Ask for the page once, so that the first visitor does not wait for what is made only once."""
        host = next(iter(sorted(self.access.hosts)))
        headers = {"Authorization": f"Bearer {self._token}"}
        with suppress(HTTPError, OSError):
            await AsyncHTTPClient().fetch(
                f"http://{host}/{PAGE}", headers=headers, request_timeout=WARM_UP_S, raise_error=False
            )

    def rotate(self, token: str) -> None:
        """Take a new token; pages that the old one opened end, and cannot connect again."""
        self._token = token
        self.guard.rotate(token, read_token=derive_read_token(token))
        self.feed.dismiss()
        dismiss_pages(self._server._tornado)  # noqa: SLF001 - it has no other door

    def name(self, named: Named) -> None:
        """Let in agents by these tokens, and by no others; of their connections, those of a token that ended end."""
        is_revoked = not named.keys() >= self.guard.access.named.keys()
        self.guard.name(named)
        if is_revoked:  # whose it was is not known: all others come back by themselves
            self.feed.dismiss(reason="a token was revoked")

    async def close(self) -> None:
        """Serve no more."""
        await self.feed.close()
        self._server.stop(wait=False)
        self._server.unlisten()

    def _serve(self, host: str, port: int) -> Any:
        # A page must ask nothing of any other host, whatever the environment says.
        bokeh_settings.resources.set_value("server")
        return pn.serve(
            {PAGE: self._page},
            address=host,
            port=port,
            title="工房 Koubou",
            start=False,
            show=False,
            verbose=False,
            threaded=False,
            location=False,
            loop=IOLoop.current(),
            extra_patterns=[
                (r"/", RedirectHandler, {"url": f"/{PAGE}", "permanent": False}),
                (r"/healthz", HealthHandler, {"dashboard": self}),
                *ws_routes(lambda: self.feed, lambda: self.guard),
                *api_routes(self.api),
                *output_routes(lambda: self.shop),
            ],
            secret_key=page_key(self._token),
            sign_sessions=True,
            include_headers=[],
            include_cookies=[],
            session_token_expiration=TOKEN_LIFE_S,
            websocket_max_message_size=MESSAGE_BYTES,
            unused_session_lifetime_milliseconds=self._linger_ms,
            check_unused_sessions_milliseconds=self._linger_ms,
        )

    def _page(self) -> pn.Template:
        document: Any = pn.state.curdoc
        verdict = request_verdict(document.session_context.request)
        if not isinstance(verdict, Allow):  # the guard lets nobody else through
            raise Refused("unauthorized", "this page needs credentials")
        caller = Caller("dashboard", verdict.role.value)
        return visit(
            self.shop,
            caller=caller,
            boot_id=self.boot_id,
            place=self._place,
            label=self._label,
            restart_service=self._restart_service,
            home=self._home,
            environ=self._environ,
            flags=self._flags,
        )


class HealthHandler(RequestHandler):
    """`/healthz`: which process this is, and how fresh what it shows is."""

    def initialize(self, dashboard: Dashboard) -> None:
        """Keep whose health it is."""
        self._dashboard = dashboard

    def get(self) -> None:
        """Tell."""
        link = self._dashboard.shop.link
        self.set_header("Cache-Control", "no-store")
        self.finish(
            {
                "boot": self._dashboard.boot_id,
                "status": "ok",
                "link": link.status,
                "lag_s": round(link.lag_s, 1),
            }
        )


def dismiss_pages(application: BokehTornado) -> None:
    """Cut every page's connection, as when what let it in no longer does: it asks again, and is refused."""
    for connection in tuple(application._clients):  # noqa: SLF001 - it has no other door
        connection._socket.close(CLOSE_UNAUTHORIZED, "the token was changed")  # noqa: SLF001


def page_key(token: str) -> str:
    """What signs the pages' session tokens: as long-lived and as secret as the token that it comes from."""
    return hmac.digest(token.encode(), b"koubou page sessions v1", "sha256").hex()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until asked to end; gives the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="dashboard: %(levelname)s: %(message)s")
    # A browser that leaves in mid-sentence is no news.
    for name in ("panel", "tornado.access", "bokeh.server.views.ws"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return asyncio.run(_serve(args))
    except CannotStart as error:
        return child.refuse(args.ready_fd, error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m koubou_panel.servers.dashboard")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(PORT_FLAG, "--port", dest="port", type=int, default=8080)
    parser.add_argument("--insecure-no-auth", action="store_true")
    parser.add_argument("--label", default="", help="a word for what kind of workshop this is")
    parser.add_argument(
        "--given", action="append", default=[], metavar="SETTING=VALUE", help="a flag of `up`"
    )
    child.add_arguments(parser)
    add_argument(parser)
    return parser


async def _serve(args: argparse.Namespace) -> int:
    home = Home(args.home)
    try:
        home.prepare()
        token = load_or_create_token(home.runtime, environ=os.environ)
        child.require_free(args.host, args.port, flag=PORT_FLAG)
        shop = await RemoteShop.connect(home.socket, by="dashboard", wait_s=WORKSHOP_WAIT_S)
    except SettingsError as error:
        raise CannotStart(error.message, exit_code=EXIT_USAGE) from error
    except Refused as error:
        raise CannotStart(error.message, exit_code=EXIT_NO_WORKSHOP) from error
    asyncio.get_running_loop().set_exception_handler(_mind)
    async with shop:
        services = await Services.attach(args.services_fd, shop.note_service)
        dashboard = _open(args, home, token, shop, services)
        # After the page server: it takes SIGINT for itself when it is made.
        ending = Ending.watch(args.life_fd)
        following = asyncio.create_task(
            follow_token(home.runtime, os.environ, dashboard.rotate, on_named=dashboard.name)
        )
        await dashboard.warm_up()
        child.announce(args.ready_fd, {"port": dashboard.port, "pid": os.getpid()})
        gc.collect()
        gc.freeze()
        await ending.asked.wait()
        child.end_within(REST_S)
        following.cancel()
        services.close()
        await dashboard.close()
    return 0


def _open(
    args: argparse.Namespace, home: Home, token: str, shop: RemoteShop, services: Services
) -> Dashboard:
    try:
        return Dashboard(
            shop,
            token=token,
            sessions=home.runtime / "sessions",
            host=args.host,
            port=args.port,
            place=place_of(home),
            label=args.label,
            restart_service=services.restart if services.is_supervised else None,
            home=home,
            flags=dict(given.split("=", 1) for given in args.given),
            insecure_no_auth=args.insecure_no_auth,
        )
    except SettingsError as error:
        raise CannotStart(error.message, exit_code=EXIT_USAGE) from error
    except OSError as error:
        raise CannotStart(child.taken(args.port, PORT_FLAG), exit_code=EXIT_TAKEN) from error


def _mind(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a task died of, unless it was writing to a browser that had just left."""
    if not isinstance(context.get("exception"), WebSocketClosedError):
        loop.default_exception_handler(context)


def place_of(home: Home) -> str:
    """The home's folder as people write it."""
    with suppress(ValueError):
        return f"~/{home.root.relative_to(Path.home())}"
    return str(home.root)


if __name__ == "__main__":
    sys.exit(main())
