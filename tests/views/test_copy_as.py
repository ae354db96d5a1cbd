"""A task as a line for another program: each is really run, and asks for the same again."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from koubou_panel.core.commands import Caller, RunScript, SaveScript, SubmitTask
from koubou_panel.core.parameter import Parameter
from koubou_panel.core.records import Limits, Request, Service, TaskId
from koubou_panel.core.script import Script
from koubou_panel.servers.private import PrivateServer
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_shop, submit, until
from koubou_panel.views.copy_as import AGENTS_PORT, SOCKET_PORT, Doors, copies
from tests.servers import doors
from tests.servers.agents import rest_door

MB = 1 << 20
SAY = ["sh", "-c", """echo 'it'"'"'s' "$0" $HOME""", "a \\ b", "h\u00e9llo \u5de5\u623f"]
LIKE = ("kind", "spec", "priority", "script_name", "parameters")


@dataclass
class Place:
    """A workshop that is asked by every door."""

    shop: LocalShop
    ports: Doors
    socket: doors.Door

    def text(self, task_id: TaskId, name: str) -> str:
        """What is copied for a task."""
        request = self.shop.state.tasks[task_id].request
        return next(copy.text for copy in copies(request, self.ports) if copy.name == name)

    async def run(self, task_id: TaskId, name: str) -> Request:
        """Run what is copied; what it asked for."""
        before = set(self.shop.state.tasks)
        await {"Python": self._python, "curl": self._curl, "WebSocket": self._socket, "MCP": self._mcp}[name](
            self.text(task_id, name)
        )
        (new,) = set(self.shop.state.tasks) - before
        return self.shop.state.tasks[new].request

    async def _python(self, text: str) -> None:
        await self._process(sys.executable, "-c", text)

    async def _curl(self, text: str) -> None:
        said = json.loads(await self._process("bash", "-c", text))
        assert said["status"] == "delegated", said

    async def _process(self, *command: str) -> bytes:
        env = os.environ | {"KOUBOU_TOKEN": rest_door.TOKEN}
        process = await asyncio.create_subprocess_exec(
            *command, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, wrong = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, wrong.decode()
        return out

    async def _socket(self, text: str) -> None:
        async with self.socket.client() as client:
            await client.connection.send(text)
            assert (await client.next("submitted"))["task_id"]

    async def _mcp(self, text: str) -> None:
        headers = {"Authorization": f"Bearer {rest_door.TOKEN}"}
        call = json.loads(text)
        async with (
            httpx2.AsyncClient(headers=headers, timeout=90, trust_env=False) as http,
            Client(
                streamable_http_client(f"http://127.0.0.1:{self.ports.agents}/mcp", http_client=http)
            ) as client,
        ):
            answer = await client.call_tool(call["name"], call["arguments"])
            assert not answer.is_error, answer.content


@asynccontextmanager
async def open_place(folder: Path) -> AsyncIterator[Place]:
    """A real workshop with all its doors."""
    async with open_shop(folder, workers=1) as shop:
        private = PrivateServer(shop, shop.home.socket)
        await private.start()
        try:
            async with rest_door.open_door(shop) as agents, doors.open_door("socket", shop) as socket:
                yield Place(shop, Doors(str(shop.home.root), agents.port, socket.port), socket)
        finally:
            await private.close()


def told(request: Request) -> dict[str, object]:
    """What must come out alike."""
    return {name: getattr(request, name) for name in LIKE}


async def test_a_command_is_asked_for_again_by_every_door(tmp_path: Path) -> None:
    """Python, curl, the WebSocket and MCP each submit the command, with its folder, name and options."""
    async with open_place(tmp_path) as place:
        task_id = await submit(
            place.shop,
            spec={"command": SAY, "cwd": str(tmp_path)},
            name='say "it" \u5de5',
            priority=7,
            retries=1,
            timeout_s=30.5,
            labels={"team": "a'b"},
            limits=Limits(memory_bytes=512 * MB),
        )
        first = place.shop.state.tasks[task_id].request
        for name in ("Python", "curl", "WebSocket", "MCP"):
            again = await place.run(task_id, name)
            assert told(again) == told(first), name
            assert (again.name, again.retries, again.timeout_s, again.labels) == (
                first.name,
                first.retries,
                first.timeout_s,
                first.labels,
            )
            assert (again.limits == first.limits) is (name != "curl")
        await until(lambda: all(task.is_finished for task in place.shop.state.tasks.values()))
        page = await place.shop.read_output(task_id, 0, 1_000)
        assert page.text.startswith("it's a \\ b")


async def test_a_script_is_run_again_by_its_name(tmp_path: Path) -> None:
    """A run of a registered script is copied as its name and its parameters; Python runs its command."""
    async with open_place(tmp_path) as place:
        path = tmp_path / "nightly.py"
        path.write_text("import sys; print('depth', sys.argv[1:])")
        depth = Parameter(name="depth", type="integer", default=1, flag="--depth")
        script = Script(name="nightly", path=str(path), interpreter=(sys.executable,), parameters=(depth,))
        await place.shop.do(SaveScript(script), Caller("test"))
        run = RunScript(name="nightly", task_id=place.shop.next_id(), parameters={"depth": 3}, priority=6)
        task_id = await place.shop.do(run, Caller("test"))
        first = place.shop.state.tasks[task_id].request
        for name in ("curl", "WebSocket", "MCP"):
            again = await place.run(task_id, name)
            assert told(again) == told(first), name
        again = await place.run(task_id, "Python")
        assert again.spec["command"] == first.spec["command"]


async def test_a_prompt_is_asked_again(tmp_path: Path) -> None:
    """A prompt is copied with all that was said of it; a conversation where a door takes one."""
    async with open_place(tmp_path) as place:
        spec = {"prompt": 'Say "it\'s".\nTwice.', "system": "Be short.", "max_tokens": 9, "seed": 3}
        task_id = await ask(place.shop, spec)
        first = place.shop.state.tasks[task_id].request
        for name in ("curl", "WebSocket"):
            assert told(await place.run(task_id, name)) == told(first), name
        again = await place.run(task_id, "MCP")
        assert (again.spec["prompt"], again.spec["system"]) == (spec["prompt"], spec["system"])
        nobody = await ask(place.shop, spec | {"url": "http://127.0.0.1:9"})
        text = place.text(nobody, "Python").replace(".result()", ".exception()")
        before = set(place.shop.state.tasks)
        await place._python(text)
        (new,) = set(place.shop.state.tasks) - before
        assert told(place.shop.state.tasks[new].request) == told(place.shop.state.tasks[nobody].request)
        talk = {"messages": [{"role": "user", "content": "Hello"}]}
        request = Request(task_id=TaskId("t"), kind="prompt", created_at=0.0, spec=talk)
        texts = {copy.name: (bool(copy.text), copy.note) for copy in copies(request, place.ports)}
        assert [has for has, _ in texts.values()] == [True, False, True, False]
        assert all(note for has, note in texts.values() if not has)


async def ask(shop: LocalShop, spec: dict[str, object]) -> TaskId:
    """Submit a prompt."""
    request = Request(task_id=shop.next_id(), kind="prompt", created_at=0.0, spec=spec)
    await shop.do(SubmitTask(request), Caller("test"))
    return request.task_id


async def test_a_function_is_for_python_alone(tmp_path: Path) -> None:
    """For a function the other doors say so, and run the ended one again."""
    async with open_place(tmp_path) as place:
        await place._python(
            f"from koubou_panel import Workshop\nimport operator\nwith Workshop({str(tmp_path)!r}) as shop:\n"
            "    print(shop.submit(operator.add, 1, 2).result())"
        )
        (task_id,) = place.shop.state.tasks
        found = {copy.name: copy for copy in copies(place.shop.state.tasks[task_id].request, place.ports)}
        assert found["curl"].text == ""
        assert "shop.submit(" in found["Python"].text
        for name in ("WebSocket", "MCP"):
            assert "Only Python can submit a function" in found[name].note
            assert (await place.run(task_id, name)).rerun_of == task_id


def test_no_secret_is_in_what_is_copied() -> None:
    """Values of the environment are left out, which is said with their names; tokens are read where the line is run."""
    spec = {"command": ["true"], "env": {"API_KEY": "hunter2"}, "pty": True}
    request = Request(task_id=TaskId("t"), kind="script", created_at=0.0, spec=spec)
    found = copies(request, Doors())
    assert "hunter2" not in str(found)
    assert all("API_KEY" in copy.note for copy in found)
    assert "$KOUBOU_TOKEN" in found[1].text.replace("{", "").replace(":-", "")


@pytest.mark.parametrize("services", [{}, {"agents": Service("agents", "failed")}])
def test_ports_that_nobody_tells_are_the_usual_ones(services: dict[str, Service]) -> None:
    """Where no supervisor says it, the ports are those of the documentation."""
    ports = Doors.of(None, services)
    assert (ports.home, ports.agents, ports.socket) == (None, AGENTS_PORT, SOCKET_PORT)
    told_by = {"agents": Service("agents", "running", 1), "websocket": Service("websocket", "running", 2)}
    assert Doors.of(Path("/home"), told_by) == Doors("/home", 1, 2)
