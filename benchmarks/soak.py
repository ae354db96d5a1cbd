"""A page left open, and many opened and closed: neither the browser's memory nor the server's may grow.

A page over a real workshop at 20 tasks a second: the browser's JavaScript heap (after a forced collection) and its
number of DOM nodes in the last third of the time against the first third. Then fifty pages, opened and closed: the
server's sessions and what follows the workshop are back to where they were, and its memory has grown by little since
the first ten.

    python -m benchmarks.soak [--minutes 2] [--rate 20] [--pages 50]
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from playwright.async_api import async_playwright

from koubou_panel.core.commands import Caller, SubmitTask
from koubou_panel.core.records import Request
from koubou_panel.kinds.packing import pack, pickled_arguments, pickled_function
from koubou_panel.servers.credentials import mint_code
from koubou_panel.servers.dashboard import Dashboard
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_shop, until

TOKEN = "the-token-of-this-soak"  # noqa: S105 - of a workshop that lives as long as this does
PAYLOAD = pack(pickled_function(pow), pickled_arguments((2, 10), {}), [])
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
NODES = """() => {
  let count = 0
  const look = (root) => {
    for (const node of root.querySelectorAll("*")) { count++; if (node.shadowRoot) look(node.shadowRoot) }
  }
  look(document)
  return count
}"""
WARM_PAGES = 10
PATIENCE_MS = 120_000
MOST_GROWTH = 0.10
MOST_GROWTH_MB = 20.0
MB = 1 << 20


@dataclass
class Soaked:
    """What was measured: (bytes, nodes) of the page as time went on, MB of the server, what was left or went wrong."""

    looks: list[tuple[int, int]] = field(default_factory=list)
    memory_mb: tuple[float, float] = (0.0, 0.0)
    pages: int = 50
    sessions: int = 0
    subscribers: int = 0
    wrong: list[str] = field(default_factory=list)

    def growth(self, place: int) -> float:
        """How much the last third has over the first, as a part of that."""
        third = max(1, len(self.looks) // 3)
        first, last = (
            statistics.median(look[place] for look in part)
            for part in (self.looks[:third], self.looks[-third:])
        )
        return last / first - 1

    @property
    def faults(self) -> list[str]:
        """What is not as it shall be."""
        grown_mb = self.memory_mb[1] - self.memory_mb[0]
        measured = max(1, self.pages - WARM_PAGES) / (50 - WARM_PAGES)  # of fifty
        checks = {
            f"the heap grew by {self.growth(0):.1%}": self.growth(0) >= MOST_GROWTH,
            f"the nodes grew by {self.growth(1):.1%}": self.growth(1) >= MOST_GROWTH,
            f"{self.sessions} sessions are left": self.sessions > 0,
            f"{self.subscribers} follow the workshop still": self.subscribers > 0,
            f"the server grew by {grown_mb:.1f} MB": grown_mb >= MOST_GROWTH_MB * measured,
        }
        return [*self.wrong, *(words for words, is_wrong in checks.items() if is_wrong)]

    def __str__(self) -> str:
        """The figures."""
        heaps = [look[0] / MB for look in self.looks]
        return (
            f"heap {heaps[0]:.1f} → {heaps[-1]:.1f} MB ({self.growth(0):+.1%}), "
            f"nodes {self.looks[0][1]} → {self.looks[-1][1]} ({self.growth(1):+.1%}); "
            f"server {self.memory_mb[0]:.1f} → {self.memory_mb[1]:.1f} MB, "
            f"{self.sessions} sessions and {self.subscribers} followers left"
        )


async def load(shop: LocalShop, rate: int) -> None:
    """No-op functions, at a steady rate."""
    while True:
        request = Request(
            task_id=shop.next_id(), kind="function", created_at=0.0, payload=PAYLOAD, name="pow"
        )
        await shop.do(SubmitTask(request), Caller("soak"))
        await asyncio.sleep(1 / rate)


async def stay(page, looks: list[tuple[int, int]], seconds: float) -> None:
    """Leave the page alone, but for looks at what it holds."""
    session = await page.context.new_cdp_session(page)
    every_s = max(2.0, seconds / 60)
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        await asyncio.sleep(every_s)
        await session.send("HeapProfiler.collectGarbage")
        heap = await session.send("Runtime.getHeapUsage")
        looks.append((int(heap["usedSize"]), await page.evaluate(NODES)))


def held_mb() -> float:
    """This process's memory when all that can be is given back."""
    for _ in range(3):
        gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / MB


def sessions(dashboard: Dashboard) -> int:
    """How many the page server holds."""
    contexts = dashboard._server._tornado._applications.values()  # noqa: SLF001 - it has no other door
    return sum(len(list(context.sessions)) for context in contexts)


async def come_and_go(browser, dashboard: Dashboard, shop: LocalShop, soaked: Soaked, pages: int) -> None:
    """Open pages and close them, one after the other."""
    before, warm_mb = shop.hub.subscribers, held_mb()
    visitor = await browser.new_context()  # one browser's pages: what it has once been given it keeps
    for n in range(pages):
        if n == WARM_PAGES:
            await until(lambda: sessions(dashboard) == 0, 60)
            warm_mb = held_mb()
        page = await visitor.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: soaked.wrong.append(f"error: {error}"))
        await page.goto(f"http://127.0.0.1:{dashboard.port}/overview" if n else link(dashboard))
        await page.wait_for_selector(".tile")
        await page.close()
    await visitor.close()
    await until(lambda: sessions(dashboard) == 0, 60)
    soaked.sessions, soaked.subscribers = sessions(dashboard), shop.hub.subscribers - before
    soaked.memory_mb = (warm_mb, held_mb())


def link(dashboard: Dashboard) -> str:
    """The way in, once."""
    return f"http://127.0.0.1:{dashboard.port}/login?code={mint_code(TOKEN, time.time())}"


async def soak(folder: Path, *, minutes: float, rate: int = 20, pages: int = 50) -> Soaked:
    """All of it, on a workshop in `folder`."""
    soaked = Soaked(pages=pages)
    async with open_shop(folder) as shop, async_playwright() as playwright:
        dashboard = Dashboard(shop, token=TOKEN, sessions=folder / "sessions", linger_s=1.0)
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            working = asyncio.create_task(load(shop, rate))
            page = await browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(PATIENCE_MS)
            page.on("pageerror", lambda error: soaked.wrong.append(f"error: {error}"))
            await page.goto(link(dashboard))
            await page.wait_for_selector(".tile")
            await stay(page, soaked.looks, 60 * minutes)
            await page.close()
            working.cancel()
            await until(lambda: sessions(dashboard) == 0, 60)
            await come_and_go(browser, dashboard, shop, soaked, pages)
        finally:
            await browser.close()
            await dashboard.close()
    return soaked


def main() -> int:
    """Soak, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--rate", type=int, default=20)
    parser.add_argument("--pages", type=int, default=50)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soaked = asyncio.run(soak(Path(folder), minutes=args.minutes, rate=args.rate, pages=args.pages))
    print(
        f"{args.minutes:g} min at {args.rate} tasks/s, {args.pages} pages (load average {os.getloadavg()[0]:.1f})"
    )
    print(soaked)
    for fault in soaked.faults:
        print(f"!!! {fault}")
    return 1 if soaked.faults else 0


if __name__ == "__main__":
    sys.exit(main())
