"""From a change in the workshop to the page that shows it: five pages, 200 tasks a second, for each frame time.

A workshop, its dashboard and Chromium run as they do for people, each in processes of their own. Each page notes when
its "completed" tile shows which number (a MutationObserver); the workshop's facts say when each task ended, by the
same clock. So the delay of every one of the changes counts, those that a frame took together too. The share of a core
is that of the dashboard's process, and of Chromium's together.

    python benchmarks/page_latency.py [--frames 350 200 100] [--seconds 15] [--rate 200] [--pages 5]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from playwright.async_api import async_playwright

from koubou_panel.core.commands import Caller, SubmitTask
from koubou_panel.core.events import TaskCompleted
from koubou_panel.core.records import Request
from koubou_panel.home import Home
from koubou_panel.kinds.packing import pack, pickled_arguments, pickled_function
from koubou_panel.servers.credentials import load_or_create_token, mint_code
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.testing import until

PAYLOAD = pack(pickled_function(pow), pickled_arguments((2, 10), {}), [])
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
KOUBOU = str(Path(sys.executable).with_name("koubou"))
TURN_S = 0.05
DASHBOARD = (
    "import sys; from koubou_panel.views import frames; frames.FRAME_MS = int(sys.argv.pop(1)); "
    "from koubou_panel.servers.dashboard import main; sys.exit(main())"
)
WATCH = """() => {
  const deep = (root) => {
    for (const node of root.querySelectorAll("*")) {
      if (node.matches(".tile .value")) return node.closest(".tile").parentNode
      const found = node.shadowRoot && deep(node.shadowRoot)
      if (found) return found
    }
  }
  const row = deep(document), tile = row.querySelectorAll(".tile")[2].querySelector(".value")
  window.seen = []
  const note = () => {
    const count = Number(tile.textContent.replace(/\\D/g, ""))
    if (count !== seen.at(-1)?.[0]) seen.push([count, (performance.timeOrigin + performance.now()) / 1000])
  }
  new MutationObserver(note).observe(row, {subtree: true, childList: true, characterData: true})
  note()
}"""


class Ends:
    """When each task ended, in the order of the facts."""

    def __init__(self):
        self.at: list[float] = []

    def on_reset(self, state):
        """Begin with what has ended already."""
        self.before = state.counts["completed"]

    def on_facts(self, folded):
        """Note ends."""
        self.at += [fact.at for fact, _, _ in folded if isinstance(fact, TaskCompleted)]

    def on_samples(self, samples):
        """Samples do not matter here."""


@dataclass
class Figures:
    """What was measured."""

    p50_ms: float
    p95_ms: float
    changes: int
    frames_per_s: float
    dashboard: float
    browser: float

    def __str__(self) -> str:
        """One line."""
        return (
            f"p50 {self.p50_ms:4.0f} ms   p95 {self.p95_ms:4.0f} ms   {self.changes} changes seen, "
            f"{self.frames_per_s:.1f} frames/s a page   "
            f"dashboard {self.dashboard:3.0f} %   Chromium {self.browser:3.0f} % of a core"
        )


@asynccontextmanager
async def workshop(home: Home):
    """`koubou up` without its dashboard."""
    ports = ("--socket-port", "0", "--agents-port", "0", "--workers", "2:2")
    process = await asyncio.create_subprocess_exec(
        *(KOUBOU, "up", "--home", str(home.root), "--no-browser", "--no-dashboard"),
        *ports,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(home.socket.exists, 30)
        yield
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def dashboard(home: Home, frame_ms: int):
    """The dashboard's process with this frame time; gives its port and its process."""
    ready, ready_write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DASHBOARD, str(frame_ms), "--home", str(home.root), "--port", "0"),
        *("--ready-fd", str(ready_write)),
        pass_fds=(ready_write,),
    )
    os.close(ready_write)
    try:
        with os.fdopen(ready, "rb") as file:
            yield json.loads(await asyncio.to_thread(file.readline))["port"], psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


async def load(shop: RemoteShop, rate: int) -> None:
    """No-op functions, at a steady rate."""
    begun, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - begun) * rate) - sent
        if due:
            requests = [
                Request(task_id=shop.next_id(), kind="function", created_at=0.0, payload=PAYLOAD, name="pow")
                for _ in range(due)
            ]
            await shop.do_many([SubmitTask(request) for request in requests], Caller("bench"))
            sent += due
        await asyncio.sleep(TURN_S)


def cpu_s(processes: list[psutil.Process]) -> float:
    """Seconds of processor that they have used."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


async def measure(home: Home, browser, browser_pids: list[psutil.Process], frame_ms: int, args) -> Figures:
    """One frame time."""
    async with AsyncExitStack() as stack:
        port, process = await stack.enter_async_context(dashboard(home, frame_ms))
        shop = await stack.enter_async_context(await RemoteShop.connect(home.socket, by="bench"))
        token = load_or_create_token(home.runtime, environ=os.environ)
        pages = []
        for _ in range(args.pages):
            context = await browser.new_context(viewport={"width": 1440, "height": 900})
            stack.push_async_callback(context.close)
            page = await context.new_page()
            page.set_default_timeout(120_000)
            await page.goto(f"http://127.0.0.1:{port}/login?code={mint_code(token, time.time())}")
            await page.wait_for_selector(".tile")
            pages.append(page)
        ends = Ends()
        stack.callback(shop.subscribe(ends))
        working = asyncio.create_task(load(shop, args.rate))
        await asyncio.sleep(3)
        for page in pages:
            await page.evaluate(WATCH)
        chromium = [*browser_pids, *(child for one in browser_pids for child in one.children(recursive=True))]
        began, cpu, cpu_browser = time.time(), cpu_s([process]), cpu_s(chromium)
        await asyncio.sleep(args.seconds)
        took, cpu, cpu_browser = time.time() - began, cpu_s([process]) - cpu, cpu_s(chromium) - cpu_browser
        until_s = time.time()
        working.cancel()
        await asyncio.sleep(1.5)
        seen = [await page.evaluate("window.seen") for page in pages]
    delays = [one for page in seen for one in delays_of(page, ends, began, until_s)]
    cuts = statistics.quantiles(delays, n=20)
    frames = sum(began <= at <= until_s for page in seen for _, at in page) / took / len(pages)
    return Figures(
        cuts[9] * 1000, cuts[18] * 1000, len(delays), frames, 100 * cpu / took, 100 * cpu_browser / took
    )


def delays_of(seen: list[tuple[int, float]], ends: Ends, began: float, until_s: float) -> list[float]:
    """For each task that ended in this time: how long until a page's number had it in."""
    counts = [count for count, _ in seen]
    found = []
    for n, at in enumerate(ends.at, ends.before + 1):
        place = bisect_left(counts, n)
        if began <= at <= until_s and place < len(counts):
            found.append(seen[place][1] - at)
    return found


async def main(args) -> None:
    """Measure each frame time, and tell."""
    print(
        f"{args.pages} pages, {args.rate} tasks/s, {args.seconds} s each; load average {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.prepare()
        async with workshop(home), async_playwright() as playwright:
            before = set(psutil.Process().children(recursive=True))
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            pids = [one for one in psutil.Process().children(recursive=True) if one not in before]
            for frame_ms in args.frames:
                figures = await measure(home, browser, pids, frame_ms, args)
                print(
                    f"frame {frame_ms:3d} ms: {figures}   (load average {os.getloadavg()[0]:.1f})", flush=True
                )
            await browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[350, 250, 150, 100])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--pages", type=int, default=5)
    asyncio.run(main(parser.parse_args()))
