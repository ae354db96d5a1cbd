"""Pictures of every page: dark and light, on a desktop and on a phone, over a real workshop with work in it.

    python -m tests.browser.screenshots FOLDER [--only PAGE …] [--warm SECONDS]

Not a test: `make screenshots` runs it. Each registered page is in it, what opens over the first, and a task. The longer
the workshop was at work before (`--warm`), the more the charts have to show.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from PIL import Image
from playwright.async_api import async_playwright

from koubou_panel.core.commands import Caller, SubmitTask
from koubou_panel.core.records import Request
from koubou_panel.home import Home
from koubou_panel.kinds.packing import pack, pickled_arguments, pickled_function
from koubou_panel.servers.credentials import load_or_create_token, mint_code
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.testing import until
from tests.browser.busy import Busy, ask_for, fill
from tests.browser.chromium import CHROMIUM, FLAGS
from tests.browser.pages import DESKTOP, PHONE, Watch
from tests.browser.tour import PAGES, stops

KOUBOU = str(Path(sys.executable).with_name("koubou"))
SIZES = {"desktop": DESKTOP, "phone": PHONE}
THEMES = ("dark", "light")
WARM_S = 25.0  # until the charts have something to show
LONGER = (
    ("convert 40 videos", 6, 0),
    ("index the archive", 3, 0),
    ("mail the invoices", 2, 1),
    ("compress logs", 8, 0),
    ("sync the mirror", 4, 0),
)
# What was clicked last has a ring around it, which is none of the picture.
BLUR = """() => {
  let node = document.activeElement
  while (node?.shadowRoot?.activeElement) node = node.shadowRoot.activeElement
  if (node && !node.closest("dialog")) node.blur()
}"""


@asynccontextmanager
async def workshop(home: Home) -> AsyncIterator[tuple[RemoteShop, int]]:
    """`koubou up` as people start it, and its dashboard's port."""
    ports = [part for flag in ("--dashboard-port", "--socket-port", "--agents-port") for part in (flag, "0")]
    process = await asyncio.create_subprocess_exec(
        *(KOUBOU, "up", "--home", str(home.root), "--no-browser", "--workers", "5:5", *ports),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        said = (await process.stdout.readline()).decode()
        port = int(said.partition("127.0.0.1:")[2].partition("/")[0])
        async with await RemoteShop.connect(home.socket, by="pictures") as shop:
            yield shop, port
    finally:
        process.terminate()
        await process.wait()


async def stir(shop: RemoteShop) -> None:
    """Short functions all the while, a few of which fail; and now and then a longer command."""
    for n in range(10_000):
        if n % 4 == 0:
            name, seconds, code = LONGER[n // 4 % len(LONGER)]
            await ask_for(shop, name, "sh", "-c", f"echo {name}; sleep {seconds}; exit {code}")
        base = 2 if n % 19 else "two"
        payload = pack(pickled_function(pow), pickled_arguments((base, n), {}), [])
        request = Request(
            task_id=shop.next_id(), kind="function", created_at=0.0, payload=payload, name="pow"
        )
        await shop.do(SubmitTask(request), Caller("notebook"))
        await asyncio.sleep(0.05 + 0.4 * abs((n // 15) % 10 - 5) / 5)


async def add_prompt(shop: RemoteShop) -> None:
    """A prompt, where a model is installed; it may as well fail."""
    spec = {"prompt": "Name three tools of a carpenter, in one line.", "max_tokens": 60}
    request = Request(task_id=shop.next_id(), kind="prompt", created_at=0.0, spec=spec, name="three tools")
    await shop.do(SubmitTask(request), Caller("mcp"))


async def take(
    browser: object, way_in: str, busy: Busy, *, folder: Path, only: list[str], size: str, theme: str
) -> None:
    """All pictures of one size and theme."""
    context = await browser.new_context(**SIZES[size], color_scheme=theme, reduced_motion="reduce")
    page = await context.new_page()
    await page.goto(way_in)
    await page.wait_for_selector(".tile")
    tasks, pages = 0, [name for name in PAGES if not only or (name or "overview") in only]
    async for place in stops(Watch(page), (busy.running, busy.failed), pages):
        await page.wait_for_timeout(700)  # figures are drawn a moment after their data came
        name = "".join(c if c.isalnum() else "-" for c in place.lower()).strip("-")
        tasks += place == "task"
        name = "task-failed" if tasks == 2 else name
        file = folder / f"{name}-{size}-{theme}.png"
        await page.evaluate(BLUR)
        await page.mouse.move(0, 0)
        await page.screenshot(path=file)
        with Image.open(file) as picture:
            plain = picture.convert("RGB")
        plain.save(file, optimize=True)
        print(file, flush=True)  # noqa: T201 - a tool tells what it has made
    await context.close()


async def main(folder: Path, only: list[str], warm_s: float) -> None:
    """Make all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="koubou-") as place:
        home = Home(Path(place))
        home.prepare()
        async with workshop(home) as (shop, port), async_playwright() as playwright:
            token = load_or_create_token(home.runtime, environ=os.environ)
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            stirring = asyncio.create_task(stir(shop))
            busy = await fill(shop, pace_s=2.0 + warm_s / 60)
            await add_prompt(shop)
            warm_at = time.monotonic() + warm_s
            await until(lambda: time.monotonic() > warm_at, 2 * warm_s + 1)
            for size in SIZES:
                for theme in THEMES:
                    way_in = f"http://127.0.0.1:{port}/login?code={mint_code(token, time.time())}"
                    await take(browser, way_in, busy, folder=folder, only=only, size=size, theme=theme)
            stirring.cancel()
            await browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--warm", type=float, default=WARM_S)
    args = parser.parse_args()
    asyncio.run(main(args.folder, args.only, args.warm))
