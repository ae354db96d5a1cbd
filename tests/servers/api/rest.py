"""The dashboard's REST on a port of its own, and a client that speaks to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

from koubou_panel.core.ports import Shop
from koubou_panel.home import Home
from koubou_panel.servers.credentials import derive_read_token
from koubou_panel.servers.dashboard import Dashboard
from koubou_panel.servers.private import PrivateServer
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.testing import open_shop

TOKEN = "the-token-of-this-test"
READ = derive_read_token(TOKEN)


class Reply:
    """An answer, its body read as the JSON that it must be."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.code
        self.headers = response.headers
        self.text = (response.body or b"").decode()
        self.body = json.loads(self.text) if self.text else None

    @property
    def error(self) -> dict:
        """What went wrong."""
        return self.body["error"]


class Client:
    """Asks a dashboard with the full token, unless told otherwise."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.dashboard = dashboard
        self.port = dashboard.port

    async def ask(self, method: str, path: str, body: object = None, *, token: str | None = TOKEN, **headers):
        """The answer; a body that is no text is sent as JSON."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, str | bytes):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        request = HTTPRequest(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            body=body,
            headers=headers,
            follow_redirects=False,
            allow_nonstandard_methods=True,
            request_timeout=30,
        )
        client = AsyncHTTPClient(force_instance=True)
        try:
            return Reply(await client.fetch(request, raise_error=False))
        finally:
            client.close()

    async def get(self, path: str, **more):
        return await self.ask("GET", path, **more)

    async def post(self, path: str, body: object = None, **more):
        return await self.ask("POST", path, body, **more)

    async def put(self, path: str, body: object, **more):
        return await self.ask("PUT", path, body, **more)

    async def delete(self, path: str, **more):
        return await self.ask("DELETE", path, **more)


@asynccontextmanager
async def open_rest(shop: Shop, folder: Path, **options) -> AsyncIterator[Client]:
    """A dashboard over `shop` whose home is `folder`, and a client of it."""
    home = Home(folder)
    home.prepare()
    made = {"home": home, "environ": {}, "sessions": folder / "sessions"} | options
    dashboard = Dashboard(shop, token=TOKEN, **made)
    try:
        yield Client(dashboard)
    finally:
        await dashboard.close()


@asynccontextmanager
async def open_everything(folder: Path, *, workers: int = 1) -> AsyncIterator[Client]:
    """A real workshop, the private link, and a dashboard over that: as `koubou up` puts them together."""
    async with open_shop(folder, workers=workers) as shop:
        private = PrivateServer(shop, shop.home.socket)
        await private.start()
        remote = await RemoteShop.connect(shop.home.socket, by="dashboard")
        try:
            async with open_rest(remote, folder) as client:
                client.shop = shop
                yield client
        finally:
            await remote.close()
            await private.close()


def script_file(folder: Path, text: str = "echo hello\n", name: str = "greet.sh") -> str:
    """A script on the disk, and its path."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)
