"""REST as people get it: over `koubou up`, and under `panel serve`."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from websockets.asyncio.client import connect

from koubou_panel.home import Home
from koubou_panel.servers.credentials import load_or_create_token
from koubou_panel.testing import until
from tests.cli.conftest import Shell, end
from tests.servers.api.rest import script_file
from tests.servers.test_plugin import PLUGIN, get, open_home, panel_serve


def call(port: int, token: str, method: str, path: str, body: object = None) -> dict:
    """What a plain client of the standard library is answered."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=90) as reply:
        return json.load(reply)


async def test_an_old_client_works_over_koubou_up(tmp_path: Path) -> None:
    """Add by the six fields, run, see it live on `/ws` without subscribing, read its log, remove."""
    koubou = Shell(tmp_path / "home")
    process = koubou.up()
    try:
        token = load_or_create_token(Home(koubou.home).runtime, environ={})
        services = {s["name"]: s for s in json.loads(koubou("status", "--json").stdout)["services"]}
        port = services["dashboard"]["port"]

        def ask(method: str, path: str, body: object = None) -> dict:
            return call(port, token, method, path, body)

        bearer = {"Authorization": f"Bearer {token}"}
        async with connect(f"ws://127.0.0.1:{port}/ws", additional_headers=bearer, max_size=None) as ws:
            state = json.loads(await ws.recv())
            assert {service["name"] for service in state["data"]["services"]} >= {"pool", "dashboard"}
            body = {"name": "greet", "path": script_file(tmp_path), "interval": 3600}
            body |= {"enabled": True, "max_log_lines": 10, "timeout": 20}
            added = ask("POST", "/api/scripts", body)
            assert {name: added[name] for name in body} == body
            run = ask("POST", "/api/scripts/greet/run")
            statuses = []
            while statuses[-1:] != ["completed"]:
                message = json.loads(await ws.recv())
                if message["type"] == "script_status":
                    assert message["data"]["task_id"] == run["task_id"]
                    statuses.append(message["data"]["status"])
            assert statuses == ["starting", "running", "completed"]
        log = ask("GET", "/api/logs/greet")
        assert (log["run"], log["lines"]) == (run["task_id"], ["hello"])
        status = ask("GET", "/api/status")
        assert (status["status"], status["total_executions"], status["scripts"]["total"]) == ("ok", 1, 1)
        settings = {record["name"]: record for record in ask("GET", "/api/config")["settings"]}
        assert settings["dashboard_port"]["in_use"] == port
        assert ask("DELETE", "/api/scripts/greet")["removed"] == "greet"
        assert ask("GET", "/api/scripts")["total"] == 0
    finally:
        assert end(process) == 0


async def test_panel_serve_has_it_too(tmp_path: Path) -> None:
    """With the plug-in the same routes are on its port, behind the same guard."""
    async with open_home(tmp_path) as home, panel_serve(home, *PLUGIN) as (port, _):
        bearer = {"Authorization": f"Bearer {load_or_create_token(home.runtime, environ={})}"}
        assert (await get(port, "/api/status")).code == 401

        async def is_attached() -> bool:
            return (await get(port, "/api/status", **bearer)).code == 200

        await until(is_attached)
        assert json.loads((await get(port, "/api/scripts", **bearer)).body) == {"scripts": [], "total": 0}
        assert (await get(port, "/api/nothing", **bearer)).code == 404
        assert json.loads((await get(port, "/api/config", **bearer)).body)["settings"]


async def test_panel_serve_without_a_workshop_says_so(tmp_path: Path) -> None:
    """As long as none answers it is 503, in JSON."""
    home = Home(tmp_path)
    home.prepare()
    async with panel_serve(home, *PLUGIN) as (port, _):
        bearer = {"Authorization": f"Bearer {load_or_create_token(home.runtime, environ={})}"}
        refused = await get(port, "/api/status", **bearer)
        assert refused.code == 503
        assert json.loads(refused.body)["error"]["code"] == "unavailable"
