"""The five services under one supervisor: what dies, what goes on, what is told; and Ollama, by a fake of that name."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import stat
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from koubou_panel.cli.running import running
from koubou_panel.errors import SettingsError
from koubou_panel.home import Home
from koubou_panel.settings import load
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.supervising.model import Elsewhere
from koubou_panel.supervising.patience import Patience
from koubou_panel.supervising.process import Child, Program, StartFailed
from koubou_panel.supervising.status import SERVICES, status_path, wish_path
from koubou_panel.supervisor import WISH, Supervisor
from koubou_panel.testing import until

QUICK = Patience(restarts=2, window_s=60.0, first_delay_s=0.01, longest_delay_s=0.02)
START_S = 60.0

FAKE_OLLAMA = """#!{python}
# A fake Ollama: it answers /api/version, has a runner that outlives it, and ends as it is told.
import http.server, os, subprocess, sys
assert sys.argv[1:] == ["serve"]
host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{{"version": "0.0-fake"}}')
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
runner = subprocess.Popen(["sleep", "300"], start_new_session=True)
print("fake runner", runner.pid, flush=True)
open({runners!r}, "a").write(f"{{runner.pid}}\\n")
server.serve_forever()
"""


class Up:
    """A supervisor in this process, with what it says."""

    def __init__(self, home: Path, *, dashboard: bool) -> None:
        given = {"home": str(home), "socket_port": 0, "agents_port": 0, "dashboard_port": 0, "workers": "1"}
        self.home = Home(home)
        self.out, self.err = io.StringIO(), io.StringIO()
        self.supervisor = Supervisor(
            load({}, given),
            dashboard=dashboard,
            patience=QUICK,
            link=lambda port: f"http://127.0.0.1:{port}/",
            out=self.out,
            err=self.err,
        )
        self.work = asyncio.ensure_future(self.supervisor.run())

    def services(self) -> dict[str, dict]:
        """The services by name, as the file has them."""
        try:
            document = json.loads(status_path(self.home).read_text())
        except OSError:
            return {}
        return {service["name"]: service for service in document["services"]}

    def state(self, name: str) -> str:
        """How one stands."""
        return self.services().get(name, {}).get("state", "")

    async def kill(self, name: str) -> None:
        """Kill the process of a service whenever it has a new one, until it is given up."""
        killed: set[int] = set()

        def is_given_up() -> bool:
            service = self.services().get(name, {})
            pid = service.get("pid")
            if service.get("state") in ("running", "starting") and pid and pid not in killed:
                killed.add(pid)
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    return False
            return service.get("state") == "failed"

        await until(is_given_up, START_S)
        assert len(killed) >= QUICK.restarts + 1


def lives(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@asynccontextmanager
async def started(
    home: Path, *, dashboard: bool = True, wishes: Sequence[dict[str, str]] = ()
) -> AsyncIterator[Up]:
    """`koubou up` in this process, until it is ready; nothing of it is left at the end."""
    others = set(psutil.Process().children(recursive=True))  # what other tests share
    up = Up(home, dashboard=dashboard)
    for wish in wishes:
        up.supervisor._take_request(wish)
    loop = asyncio.get_running_loop()
    try:
        await until(lambda: up.work.done() or "ready in" in up.out.getvalue(), START_S)
        assert not up.work.done(), up.err.getvalue()
        below = set(psutil.Process().children(recursive=True)) - others
        yield up
        if not up.work.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(up.work, START_S)
        left = [process for process in below if lives(process.pid)]
        assert left == []
        assert not status_path(up.home).exists()
    finally:
        up.work.cancel()
        await asyncio.wait({up.work})
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, WISH):
            loop.remove_signal_handler(number)


@pytest.fixture(autouse=True)
def no_ollama(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    """A port for Ollama at which nobody answers, and a PATH without the program; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{port}")
    folders = [folder for folder in os.environ["PATH"].split(":") if not (Path(folder) / "ollama").exists()]
    monkeypatch.setenv("PATH", ":".join(folders))
    return port


@pytest.fixture
def fake_ollama(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A program `ollama` on PATH; gives the file with the pids of its runners."""
    folder, runners = tmp_path / "bin", tmp_path / "runners"
    folder.mkdir()
    program = folder / "ollama"
    program.write_text(FAKE_OLLAMA.format(python=sys.executable, runners=str(runners)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return runners


async def test_dashboard_that_dies_too_often_is_given_up_and_the_others_run_on(tmp_path: Path) -> None:
    """It is shown as failed with why; the workshop is the same process as before, and says so on the wire."""
    async with started(tmp_path) as up:
        before = up.services()["pool"]["pid"]
        await up.kill("dashboard")
        services = up.services()
        assert "it was killed by SIGKILL, 3 times in a minute" in services["dashboard"]["message"]
        assert (services["pool"]["state"], services["pool"]["pid"]) == ("running", before)
        assert not up.work.done()
        async with await RemoteShop.connect(up.home.socket, by="test") as shop:
            await until(lambda: shop.state.services["dashboard"].state == "failed")
            assert set(shop.state.services) == set(SERVICES)


async def test_workshop_that_dies_too_often_leaves_the_dashboard_and_comes_back_when_asked(
    tmp_path: Path,
) -> None:
    """Its three services fail together, the dashboard stays; a restart of one of them is the way out, with code 0."""
    async with started(tmp_path) as up:
        dashboard = up.services()["dashboard"]
        ports = {name: up.services()[name]["port"] for name in ("agents", "websocket")}
        await up.kill("pool")
        services = up.services()
        assert {services[name]["state"] for name in ("agents", "pool", "websocket")} == {"failed"}
        assert services["dashboard"] == dashboard
        found = running(up.home)
        assert found is not None
        assert found.has_failed
        wish_path(up.home).write_text("websocket")
        os.kill(os.getpid(), WISH)
        await until(lambda: up.state("pool") == "running", START_S)
        assert {name: up.services()[name]["port"] for name in ("agents", "websocket")} == ports
    assert up.work.result() == 0


async def test_a_wish_that_comes_at_the_start_waits_until_all_runs(tmp_path: Path) -> None:
    """A service that is to be restarted while it starts is restarted once, by the one who keeps it."""
    async with started(tmp_path, dashboard=False, wishes=[{"restart": "pool"}]) as up:
        await until(lambda: up.services()["pool"]["restarts"] == 1 and up.state("pool") == "running", START_S)
        pid = up.services()["pool"]["pid"]
        assert "started anew, as asked" in up.err.getvalue()
        assert "starting it again" not in up.err.getvalue()
        ours = [p for p in psutil.Process().children() if "koubou_panel.servers.workshop" in p.cmdline()]
        assert [p.pid for p in ours] == [pid]


async def test_workshop_alone_that_is_given_up_ends_everything(tmp_path: Path) -> None:
    """Without a dashboard there is nothing to go on for: exit code 1, and why."""
    async with started(tmp_path, dashboard=False) as up:
        assert list(up.services()) == ["model", "agents", "pool", "websocket"]
        killed: set[int] = set()

        def is_over() -> bool:
            pid = up.services().get("pool", {}).get("pid")
            if pid and pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            return up.work.done()

        await until(is_over, START_S)
    assert up.work.result() == 1
    assert "the workshop stays down: it was killed by SIGKILL, 3 times in a minute" in up.err.getvalue()


async def test_last_lines_of_what_failed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model server that cannot start says why; one that crashes has what it printed last in its message."""
    async with started(tmp_path, dashboard=False) as up:
        program = up.supervisor._model.program
        code = "import sys; print('the model', 'is broken'); sys.exit(3)"
        broken = type(program)([sys.executable, "-c", code], {}, message="")

        async def choose(*args: object) -> object:
            return broken

        monkeypatch.setattr("koubou_panel.supervisor.choose", choose)
        up.supervisor._take_request({"start": "model"})
        await until(lambda: up.state("model") == "failed", START_S)
        message = up.services()["model"]["message"]
        assert message == "it ended with code 3, 3 times in a minute. Its last lines:\n  the model is broken"
        assert up.services()["model"]["restarts"] == QUICK.restarts
        keepers = up.supervisor._keepers
        await until(keepers["model"].done)
        keeper = keepers["model"]
        up.supervisor._take_request({"start": "model"})  # not at once again
        assert keepers["model"] is keeper
        up.supervisor._model.died_at[-1] -= QUICK.window_s
        up.supervisor._take_request({"start": "model"})  # but later
        assert keepers["model"] is not keeper
        assert up.state("pool") == "running"


async def test_settings_that_cannot_be_read_fail_the_model_and_nothing_else(tmp_path: Path) -> None:
    """Asked for meanwhile, it fails with their words; once they are mended it is started as ever, and looked after."""
    async with started(tmp_path, dashboard=False) as up:
        file = tmp_path / "settings.toml"
        for wish in ({"start": "model"}, {"restart": "model"}):
            file.write_text("nonsense = 3\n")
            up.supervisor._take_request(wish)
            await until(lambda: up.state("model") == "failed", START_S)
            assert "unknown setting 'nonsense'" in up.services()["model"]["message"]
            assert not up.supervisor._model.is_alive
            file.unlink()
            up.supervisor._take_request({"start": "model"})
            await until(lambda: up.state("model") == "running", START_S)
        assert up.state("pool") == "running"


async def test_watch_over_the_model_outlives_settings_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on looking, and what it knew stands until it can be looked again."""
    monkeypatch.setattr("koubou_panel.supervisor.LOOK_S", 0.01)
    looks: list[object] = []

    async def choose(*args: object) -> object:
        looks.append(args)
        if len(looks) == 1:
            return Elsewhere(4711)
        raise SettingsError("nonsense", name="nonsense")

    monkeypatch.setattr("koubou_panel.supervisor.choose", choose)
    async with started(tmp_path, dashboard=False) as up:
        await until(lambda: len(looks) > 4)
        assert (up.state("model"), up.services()["model"]["port"]) == ("running", 4711)


async def test_ollama_is_started_where_it_is_installed(
    tmp_path: Path, no_ollama: int, fake_ollama: Path
) -> None:
    """It is the model service, with its own process and port; killed, it is back; its runner never outlives it."""
    async with started(tmp_path / "home", dashboard=False) as up:
        await until(lambda: up.state("model") == "running", START_S)
        model = up.services()["model"]
        assert (model["port"], model["message"], model["restarts"]) == (no_ollama, "Ollama", 0)
        assert "ollama" in " ".join(psutil.Process(model["pid"]).cmdline())
        os.kill(model["pid"], signal.SIGKILL)
        await until(
            lambda: up.services()["model"]["restarts"] == 1 and up.state("model") == "running", START_S
        )
        first, second = (int(pid) for pid in fake_ollama.read_text().split())
        assert not lives(first)
        assert lives(second)
    assert not lives(second)


async def test_ollama_that_runs_already_is_shown_and_left_alone(tmp_path: Path, no_ollama: int) -> None:
    """It has its port and no process of ours, and when it is gone the service waits again."""

    class Handler(BaseHTTPRequestHandler):
        """A fake Ollama that somebody else has started."""

        def do_GET(self) -> None:
            """Tell a version."""
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"version": "0.0-fake"}')

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", no_ollama), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        async with started(tmp_path, dashboard=False) as up:
            await until(lambda: up.state("model") == "running", START_S)
            model = up.services()["model"]
            assert (model["port"], model["pid"], model["restarts"]) == (no_ollama, None, 0)
            assert "ran already" in model["message"]
        with socket.create_connection(("127.0.0.1", no_ollama), timeout=5):
            """It still listens: it was not ended."""
    finally:
        await asyncio.get_running_loop().run_in_executor(None, server.shutdown)
        server.server_close()


def test_what_dies_five_times_in_a_minute_is_started_again_ever_more_slowly() -> None:
    """The sixth death within a minute is one too many; deaths of long ago do not count."""
    patience, died_at, delay_s = Patience(), deque[float](), 0.0
    delays = []
    for now in range(6):
        delay_s = patience.delay_after(died_at, float(now), delay_s)
        delays.append(round(delay_s, 2))
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 0.0]
    assert patience.words == "6 times in a minute"
    later, waited_s = deque([0.0, 1.0, 2.0, 3.0, 4.0]), 3.2
    assert patience.delay_after(later, 62.5, waited_s) == 5.0
    assert list(later) == [3.0, 4.0, 62.5]
    assert patience.delay_after(later, 200.0, 5.0) == 0.2


@pytest.mark.parametrize("said", [b'{"exit": 4, "error": "no"}\n', b""])
async def test_what_cannot_start_and_does_not_end_is_ended(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that says that it cannot serve, or says nothing more, is gone once its start has failed."""
    monkeypatch.setattr("koubou_panel.supervising.process.LEAVE_S", 0.1)
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "ready = int(sys.argv[sys.argv.index('--ready-fd') + 1])\n"
        f"os.write(ready, {said!r})\n"
        "os.close(ready)\n"
        "time.sleep(300)"
    )
    child = Child("model", ("model",), Program([sys.executable, "-c", code], {}), {}, lambda text: None)
    life = os.pipe()
    try:
        with pytest.raises(StartFailed) as caught:
            await child.start(life[0], lambda: None)
    finally:
        os.close(life[0])
        os.close(life[1])
    assert (caught.value.code, caught.value.is_final) == ((4, True) if said else (1, False))
    assert not child.is_alive
    assert not lives(child.pid)


async def test_death_is_noticed_while_an_orphan_holds_the_output() -> None:
    """A process that is gone counts as gone, with its last words, whatever it left behind with its output open."""
    code = (
        "import os, subprocess, sys\n"
        "orphan = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "print('left', orphan.pid, flush=True)\n"
        "os.write(int(sys.argv[sys.argv.index('--ready-fd') + 1]), b'{\"port\": 1}\\n')\n"
        "sys.exit(3)"
    )
    said: list[str] = []
    child = Child("model", ("model",), Program([sys.executable, "-c", code], {}), {}, said.append)
    life = os.pipe()
    try:
        await child.start(life[0], lambda: None)
        async with asyncio.timeout(10):
            assert await child.wait() == 3
            await child.end(1.0, 1.0, asyncio.Event())
    finally:
        os.close(life[0])
        os.close(life[1])
        os.kill(int(said[0].split()[1]), signal.SIGKILL)
    assert list(child.tail) == said
