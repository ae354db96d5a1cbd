"""Storms of output: whatever and however much a task prints, the workshop keeps its pace and its size.

Each storm is followed from two other processes, over the WebSocket and by `koubou logs -f`, and by a page's tail.
`KOUBOU_TEST_STORM_MB` says how much the largest prints.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

from koubou_panel.archive.output import QUOTA_BYTES
from koubou_panel.core.commands import Caller, SubmitTask
from koubou_panel.core.records import Limits, Request, TaskId
from koubou_panel.kinds.packing import pack, pickled_arguments, pickled_function
from koubou_panel.servers.private import PrivateServer
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import ended, open_shop, submit, until
from koubou_panel.views.output import OutputTail
from tests.servers.doors import TOKEN, open_door

pytestmark = pytest.mark.faults

MB = 1_000_000
STORM_MB = int(os.environ.get("KOUBOU_TEST_STORM_MB", "300"))
SMALL_QUOTA = 20 * MB
LIMIT_S = 100.0
TICK_S = 0.01
GROWTH_BYTES = 50 * MB
LAG_S = 0.1
# What a function can print between two looks, four a second after a silence; on top of what the log holds.
CAUGHT_BYTES = 700 * MB
PAGE_BYTES = 1 << 20
MESSAGE_BYTES = 1 << 19

LINE = b"%07d of a storm of lines that are as long as lines usually are in logs\n"
STORMS = {
    "a line of 100 MB": (100, b"x" * MB),
    "lines": (STORM_MB, b"".join(LINE % number for number in range(MB // 74))),
    "binary": (30, bytes(range(256)) * (MB // 256)),
}

FOLLOW = """
import asyncio, json, sys
from websockets.asyncio.client import connect

async def main(url, token, task_id):
    async with connect(url, additional_headers={"Authorization": "Bearer " + token}, proxy=None, max_size=None) as link:
        await link.send(json.dumps({"command": "subscribe", "channel": "output", "task_id": task_id, "since": 0}))
        print("following", flush=True)
        at = missed = largest = 0
        async for text in link:
            largest = max(largest, len(text))
            message = json.loads(text)
            if message["type"] != "output":
                continue
            data = message["data"]
            assert at == data["offset"] or at < data["start"] <= data["offset"], (at, data["offset"], data["start"])
            missed += data["offset"] - at
            at = data["end"]
            print(json.dumps([at, missed, largest]), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def storm(gate: str, megabytes: int, piece: bytes) -> None:
    """Once the gate is there, print `piece` so often: what a task does."""
    while not Path(gate).exists():
        time.sleep(0.01)
    for _ in range(megabytes):
        os.write(1, piece)


def storm_of_prints(gate: str, megabytes: int, piece: bytes) -> None:
    """The same by `sys.stdout`."""
    while not Path(gate).exists():
        time.sleep(0.01)
    text = piece.decode("latin-1")
    for _ in range(megabytes):
        sys.stdout.write(text)


@dataclass
class Watch:
    """What a storm did to this process and to a worker."""

    lags_s: list[float] = field(default_factory=list)
    own_lags_s: list[float] = field(default_factory=list)
    busy_s: float = 0.0
    rss_before: dict[int, int] = field(default_factory=dict)
    growth: dict[int, int] = field(default_factory=dict)
    logged: int = 0
    caught: int = 0
    others: int = 0
    seconds: float = 0.0

    def look(self) -> None:
        """Note how much memory there is now."""
        for pid, before in self.rss_before.items():
            with suppress(OSError):
                self.growth[pid] = max(self.growth.get(pid, 0), rss_bytes(pid) - before)

    def words(self, rate: float) -> str:
        """What it found, in short."""
        return (
            f"{rate / MB:.0f} MB/s, all {self.seconds:.1f} s, lag {max(self.lags_s) * 1_000:.0f} ms at most,"
            f" own {max(self.own_lags_s) * 1_000:.0f} ms, {p99(self.own_lags_s) * 1_000:.0f} ms at p99,"
            f" busy {self.busy_s * 1_000:.0f} ms, growth MB"
            f" {[round(growth / MB, 1) for growth in self.growth.values()]}, logs {self.logged / MB:.0f} MB,"
            f" caught {self.caught / MB:.0f} MB, {self.others} others"
        )

    def check(self, quota: int) -> None:
        """The bounds hold.

        What the loop is late for want of a free processor is the machine's; so is a single wait for its memory or disk,
        but not one after the other, and not what this process was busy with.
        """
        assert self.busy_s < LAG_S
        assert p99(self.own_lags_s) < LAG_S
        assert all(growth < GROWTH_BYTES for growth in self.growth.values())
        assert self.logged <= quota
        assert self.caught <= quota + CAUGHT_BYTES
        assert self.others


def p99(lags_s: list[float]) -> float:
    """What one in a hundred is above."""
    return sorted(lags_s)[int(len(lags_s) * 0.99)]


def waited_for_processor_s() -> float:
    """How long this thread was ready to run, ever, while others ran."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def rss_bytes(pid: int) -> int:
    """Resident memory of its own (files in the page cache apart)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1_024
    return 0


def caught_bytes(pid: int) -> int:
    """What the file takes on disk that catches what a worker prints."""
    return Path(f"/proc/{pid}/fd/1").stat().st_blocks * 512


def log_bytes(shop: LocalShop) -> int:
    """What all logs take."""
    total = 0
    for path in shop.home.output.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


@asynccontextmanager
async def watching(shop: LocalShop) -> AsyncIterator[Watch]:
    """Measure until the block ends: the loop's lag, memory, disk, and that other tasks go on."""
    watch = Watch()
    pids = [os.getpid(), *(worker.pid for worker in shop.state.workers.values() if worker.pid)]
    watch.rss_before = {pid: rss_bytes(pid) for pid in pids}
    is_over = asyncio.Event()

    async def tick() -> None:
        loop = asyncio.get_running_loop()
        while not is_over.is_set():
            due, waited_s, used_s = loop.time() + TICK_S, waited_for_processor_s(), time.process_time()
            await asyncio.sleep(TICK_S)
            watch.lags_s.append(loop.time() - due)
            watch.own_lags_s.append(watch.lags_s[-1] - (waited_for_processor_s() - waited_s))
            watch.busy_s = max(watch.busy_s, min(watch.own_lags_s[-1], time.process_time() - used_s))

    async def others() -> None:
        while not is_over.is_set():
            task_id = await submit(shop, "true")
            await ended(shop, task_id, LIMIT_S)
            watch.others += 1

    async def look() -> None:
        while not is_over.is_set():
            await asyncio.to_thread(watch.look)
            watch.logged = max(watch.logged, await asyncio.to_thread(log_bytes, shop))
            for pid in pids[1:]:
                with suppress(OSError):
                    watch.caught = max(watch.caught, caught_bytes(pid))
            await asyncio.sleep(0.05)

    began = time.monotonic()
    work = [asyncio.create_task(each()) for each in (tick, others, look)]
    try:
        yield watch
    finally:
        watch.seconds = time.monotonic() - began
        is_over.set()
        await asyncio.gather(*work)


class Followers:
    """Two processes and a page's tail that follow a task's output."""

    def __init__(self, shop: LocalShop, url: str, task_id: TaskId) -> None:
        self.shop = shop
        self.url = url
        self.task_id = task_id
        self.at = self.missed = self.largest = self.printed = self.shown = 0
        self.said = b""

    @property
    def have_ended(self) -> bool:
        """Whether both processes have come to the end of the output, or have failed."""
        task = self.shop.state.tasks[self.task_id]
        has_all = self.at == task.usage.output_bytes or self._socket.returncode is not None
        return has_all and self._work[-1].done()

    def words(self) -> str:
        """What they saw, in short."""
        return f"missed {self.missed / MB:.0f} MB, printed {self.printed / MB:.0f} MB, {self.said.decode()!r}"

    def check(self, size: int, quota: int) -> None:
        """Both have all that was held, know what was not, and nothing too large was sent."""
        assert self.at == size
        assert self.missed == 0 or size > quota
        assert self.largest < MESSAGE_BYTES
        assert self.printed == size or (size > quota and b"of earlier output were not kept" in self.said)
        assert min(size, quota // 2) <= self.printed <= size
        assert 0 < self.shown < PAGE_BYTES

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._socket = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FOLLOW, self.url, TOKEN, self.task_id, stdout=pipe
        )
        assert await self._socket.stdout.readline() == b"following\n"
        koubou = "import sys; from koubou_panel.cli import main; sys.exit(main())"
        self._logs = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            koubou,
            "logs",
            "-f",
            self.task_id,
            env=dict(os.environ) | {"KOUBOU_HOME": str(self.shop.home.root)},
            stdout=pipe,
            stderr=pipe,
        )
        self._work = [asyncio.create_task(each()) for each in (self._hear, self._page)]
        self._work.append(asyncio.create_task(self._print()))
        return self

    async def _hear(self) -> None:
        while line := await self._socket.stdout.readline():
            self.at, self.missed, self.largest = json.loads(line)

    async def _print(self) -> None:
        while data := await self._logs.stdout.read(1 << 20):
            self.printed += len(data)
        self.said = await self._logs.stderr.read()

    async def _page(self) -> None:
        tail = OutputTail(self.shop)
        while True:
            task = self.shop.state.tasks[self.task_id]
            model = SimpleNamespace(
                task_id=self.task_id,
                label="storm",
                output_bytes=task.usage.output_bytes,
                is_finished=task.is_finished,
            )
            tail.follow([model], [])
            await tail.read()
            self.shown = max(self.shown, len(json.dumps(tail.take())))
            await asyncio.sleep(0.1)

    async def __aexit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):
            self._socket.kill()
        await self._socket.wait()
        with suppress(ProcessLookupError):
            self._logs.kill()
        await self._logs.wait()
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[LocalShop]:
    """A workshop with two workers, at its private socket."""
    async with open_shop(tmp_path / "home", workers=2) as opened:
        server = PrivateServer(opened, opened.home.socket)
        await server.start()
        try:
            yield opened
        finally:
            await server.close()


async def begin(shop: LocalShop, kind: str, name: str, limits: Limits) -> TaskId:
    """Submit a storm; it waits at its gate."""
    megabytes, piece = STORMS[name]
    task_id = shop.next_id()
    gate = str(shop.home.root / "gate")
    if kind == "script":
        path = shop.home.root / "piece"
        path.write_bytes(piece)
        code = (
            "import os, time\n"
            f"while not os.path.exists({gate!r}): time.sleep(0.01)\n"
            f"piece = open({str(path)!r}, 'rb').read()\n"
            f"for _ in range({megabytes}): os.write(1, piece)"
        )
        spec = {"command": [sys.executable, "-c", code]}
        request = Request(task_id=task_id, kind="script", created_at=0, spec=spec, limits=limits)
    else:
        function = storm if kind == "function" else storm_of_prints
        payload = pack(pickled_function(function), pickled_arguments((gate, megabytes, piece), {}), [])
        request = Request(
            task_id=task_id, kind="function", created_at=0, payload=payload, limits=limits, name="storm"
        )
    await shop.do(SubmitTask(request), Caller("test"))
    await until(lambda: shop.state.tasks[task_id].status == "in_progress")
    return task_id


@pytest.mark.alone
@pytest.mark.parametrize(
    ("kind", "name", "quota"),
    [
        ("script", "a line of 100 MB", QUOTA_BYTES),
        ("script", "lines", QUOTA_BYTES),
        ("script", "binary", QUOTA_BYTES),
        ("script", "lines", SMALL_QUOTA),
        ("function", "a line of 100 MB", QUOTA_BYTES),
        ("function", "lines", QUOTA_BYTES),
        ("function", "binary", QUOTA_BYTES),
        ("prints", "lines", SMALL_QUOTA),
    ],
)
async def test_a_storm_of_output(shop, kind, name, quota, capsys):
    """The loop does not stall, nothing grows, the log keeps its quota, others go on, and the end is there."""
    megabytes, piece = STORMS[name]
    size = megabytes * len(piece)
    async with open_door("socket", shop) as door:
        task_id = await begin(shop, kind, name, Limits(output_bytes=quota))
        async with Followers(shop, door.url, task_id) as followers, watching(shop) as watch:
            (shop.home.root / "gate").touch()
            await ended(shop, task_id, LIMIT_S)
            await until(lambda: followers.have_ended, LIMIT_S)
    task = shop.state.tasks[task_id]
    with capsys.disabled():
        words = watch.words(size / (task.usage.duration_s or 1))
        sys.stdout.write(f"\n{kind}, {name}: {words}; {followers.words()}\n")
    assert (task.status, task.usage.output_bytes, task.usage.lost_output_bytes) == ("completed", size, 0)
    page = await shop.read_bytes(task_id, -1_000, 1_000)
    assert (page.data, page.end) == (piece[-1_000:], size)
    watch.check(quota)
    followers.check(size, quota)
