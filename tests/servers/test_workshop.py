"""The workshop process by itself: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from koubou_panel.core.commands import Caller, SubmitTask
from koubou_panel.core.records import Request
from koubou_panel.home import Home
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.testing import until


class _Workshop:
    def __init__(self, home, *flags: str) -> None:
        read_end, write_end = os.pipe()
        life_read, self.life = os.pipe()
        argv = [sys.executable, "-P", "-m", "koubou_panel.servers.workshop", "--home", str(home), *flags]
        self.process = subprocess.Popen(
            [*argv, "--ready-fd", str(write_end), "--life-fd", str(life_read)],
            pass_fds=(write_end, life_read),
            start_new_session=True,
        )
        os.close(write_end)
        os.close(life_read)
        with os.fdopen(read_end) as pipe:
            self.said = json.loads(pipe.readline())

    def cut(self) -> None:
        """End the life pipe, as the supervisor's death does."""
        if self.life >= 0:
            os.close(self.life)
            self.life = -1


@pytest.fixture
def start(tmp_path):
    """`start(FLAG, …)` starts one for the test's home; none outlives the test."""
    started = []

    def begin(*flags: str) -> _Workshop:
        started.append(_Workshop(tmp_path, "--socket-port", "0", "--agents-port", "0", *flags))
        return started[-1]

    yield begin
    for workshop in started:
        workshop.process.kill()
        workshop.process.wait()
        workshop.cut()


def test_it_says_where_it_serves(start) -> None:
    """The ready line has the port, the process and the bounds of the pool."""
    workshop = start("--workers", "1:2")
    assert workshop.said["port"] > 0
    assert workshop.said["pid"] == workshop.process.pid
    assert workshop.said["workers"] == [1, 2]


def test_second_one_names_the_first(start) -> None:
    """A home that is held is exit 73 with the holder's process."""
    first = start("--workers", "1")
    second = start()
    assert second.process.wait(10) == 73
    assert second.said["exit"] == 73
    assert f"pid {first.process.pid}" in second.said["error"]


def test_it_loads_no_panel(start) -> None:
    """The process maps nothing of numpy or of a browser's world: what it does not import costs it nothing."""
    workshop = start("--workers", "1")
    with open(f"/proc/{workshop.process.pid}/maps") as maps:  # noqa: PTH123 - not a real file
        text = maps.read()
    assert "numpy" not in text
    assert "pandas" not in text


def test_signal_ends_it_with_code_0(start, tmp_path) -> None:
    """SIGTERM ends it in order: the socket is gone, the home is free."""
    workshop = start("--workers", "1", "--grace", "5")
    workshop.process.send_signal(signal.SIGTERM)
    assert workshop.process.wait(15) == 0
    assert not Home(tmp_path).socket.exists()
    Home(tmp_path).lock()


async def test_it_takes_all_the_descriptors_it_may_and_leaves_tasks_theirs(start, tmp_path) -> None:
    """Workers take four each: the workshop's limit is the hard one, that of tasks the one it was started with."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        workshop = start("--workers", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
    assert resource.prlimit(workshop.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    async with await RemoteShop.connect(Home(tmp_path).socket, by="test") as shop:
        spec = {"command": ["sh", "-c", "ulimit -Sn"]}
        task_id = await shop.do(
            SubmitTask(Request(task_id=shop.next_id(), kind="script", created_at=0.0, spec=spec)),
            Caller("test"),
        )
        await until(lambda: shop.state.tasks[task_id].is_finished)
        assert shop.state.tasks[task_id].result == "300"


async def test_its_supervisors_death_ends_it_and_what_runs(start, tmp_path) -> None:
    """When the life pipe ends, running tasks are ended without the grace, and stored as such."""
    workshop = start("--workers", "1", "--grace", "60")
    async with await RemoteShop.connect(Home(tmp_path).socket, by="test") as shop:
        spec = {"command": ["sh", "-c", "echo begun; exec sleep 300"]}
        task_id = await shop.do(
            SubmitTask(Request(task_id=shop.next_id(), kind="script", created_at=0.0, spec=spec)),
            Caller("test"),
        )
        await until(lambda: _has_begun(shop, task_id))  # one that was claimed alone would be given back
        workshop.cut()
        await until(lambda: shop.state.tasks[task_id].is_finished)
        assert shop.state.tasks[task_id].reason == "shutdown"
    await until(lambda: workshop.process.poll() is not None)
    assert workshop.process.returncode == 0


async def _has_begun(shop, task_id):
    return "begun" in (await shop.read_output(task_id, 0, 100)).text
