"""The routes of the dashboard's REST: one row a resource, documented in docs/rest.md."""

from __future__ import annotations

from typing import Any

from tornado.web import RequestHandler

from koubou_panel.servers.api.config import ConfigHandler
from koubou_panel.servers.api.handler import Api, NothingHandler
from koubou_panel.servers.api.logs import LogHandler, LogsHandler
from koubou_panel.servers.api.scripts import EnableHandler, RunHandler, ScriptHandler, ScriptsHandler
from koubou_panel.servers.api.status import StatusHandler

NAME = "([^/]+)"


def api_routes(api: Api) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """The Tornado routes, for a port with a guard before it."""
    made = {"api": api}
    return [
        (r"/api/status", StatusHandler, made),
        (r"/api/scripts", ScriptsHandler, made),
        (rf"/api/scripts/{NAME}", ScriptHandler, made),
        (rf"/api/scripts/{NAME}/run", RunHandler, made),
        (rf"/api/scripts/{NAME}/enable", EnableHandler, made | {"is_enabled": True}),
        (rf"/api/scripts/{NAME}/disable", EnableHandler, made | {"is_enabled": False}),
        (r"/api/logs", LogsHandler, made),
        (rf"/api/logs/{NAME}", LogHandler, made),
        (r"/api/config", ConfigHandler, made),
        (r"/api(?:/.*)?", NothingHandler, made),
    ]
