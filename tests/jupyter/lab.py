"""A notebook that is open in a real JupyterLab or Notebook 7, as a test sees it."""

import json
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from koubou_panel.testing import until
from tests.browser.chromium import PATIENCE_MS

READY = "() => window.jupyterapp?.shell?.currentWidget?.context?.sessionContext?.session?.kernel?.status === 'idle'"
RUN = """(n) => {
  const notebook = window.jupyterapp.shell.currentWidget.content
  notebook.activeCellIndex = notebook.widgets.indexOf(notebook.widgets.filter((cell) => cell.model.type === "code")[n])
  window.jupyterapp.commands.execute("notebook:run-cell")
}"""
DO = "(name) => { window.jupyterapp.commands.execute(name) }"
SAVE = "() => window.jupyterapp.commands.execute('docmanager:save')"
KERNEL = "() => window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.id"
RESTART = "() => window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.restart()"
# Notebook 7's own (7.6.5): an untouched notebook logs both, also with the extension of pyviz_comms switched off, and
# JupyterLab logs neither. The shortcuts' settings are looked into before they are loaded, when another plugin's change;
# and the file browser's restoring opens the notebook's path by a command that only JupyterLab has.
FORGIVEN_IN = {"notebook": ("reading 'schema'", "'filebrowser:open-path' not registered")}


@dataclass
class Server:
    """The Jupyter server: its address, its token, and the folder of its notebooks."""

    url: str
    token: str
    folder: Path

    def ask(self, method: str, path: str) -> Any:
        """Ask its own REST interface."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=90) as answer:
            text = answer.read()
        return json.loads(text) if text else None


@dataclass
class Notebook:
    """One that is open in a browser, and what went wrong there."""

    page: Any
    context: Any
    server: Server
    name: str
    forgiven: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @classmethod
    async def open(
        cls, browser: Any, server: Server, name: str, *, where: str, **options: object
    ) -> "Notebook":
        """Open it, and wait for its kernel. Whatever asks another host is stopped, and told at the end."""
        context = await browser.new_context(**({"viewport": {"width": 1200, "height": 1100}} | options))
        context.set_default_timeout(PATIENCE_MS)
        page = await context.new_page()
        notebook = cls(page, context, server, name, FORGIVEN_IN.get(where, ()))

        async def only_here(route: Any) -> None:
            if route.request.url.startswith((server.url, "blob:", "data:")):
                await route.continue_()
            else:
                notebook.asked.append(route.request.url)
                await route.abort()

        await context.route("**/*", only_here)
        page.on("pageerror", lambda error: notebook._wrong(f"error: {error}"))
        page.on("console", notebook._note)
        path = f"lab/tree/{name}?reset&" if where == "lab" else f"notebooks/{name}?"
        await page.goto(f"{server.url}/{path}token={server.token}")
        await page.wait_for_selector(".jp-Notebook .jp-Cell")
        await page.wait_for_function(READY)
        return notebook

    def _note(self, message: Any) -> None:
        if message.type == "error":
            self._wrong(message.text)

    def _wrong(self, words: str) -> None:
        if not any(part in words for part in self.forgiven):
            self.wrong.append(words)

    def cell(self, number: int) -> Any:
        """A code cell, from 0."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(number)

    async def run(self, *numbers: int) -> None:
        """Have these cells run, one after the other; does not wait."""
        for number in numbers:
            await self.page.evaluate(RUN, number)

    async def text(self, selector: str, *, cell: int) -> str:
        """The text of the first match in a cell."""
        found = self.cell(cell).locator(selector).first
        return " ".join((await found.inner_text()).split())

    async def shows(
        self, selector: str, wanted: str, *, cell: int, limit_s: float = PATIENCE_MS / 1000
    ) -> None:
        """Wait until the first match in a cell contains `wanted`."""
        last = ""

        async def is_shown() -> bool:
            nonlocal last
            found = self.cell(cell).locator(selector)
            if await found.count():
                last = await found.first.inner_text()
            return wanted in last

        try:
            await until(is_shown, limit_s)
        except AssertionError:
            raise AssertionError(f"{selector} never showed {wanted!r}; last: {last!r}") from None

    async def done(self, cell: int, limit_s: float = PATIENCE_MS / 1000) -> str:
        """Wait until a cell has run; the number that it then has."""
        number = ""

        async def is_done() -> bool:
            nonlocal number
            number = (await self.text(".jp-InputPrompt", cell=cell)).strip("[]: ")
            return number.isdigit()

        await until(is_done, limit_s)
        return number

    async def run_anew(self, cell: int) -> None:
        """Run a cell, and wait until it has, whether it had run before or not."""
        before = await self.text(".jp-InputPrompt", cell=cell)
        await self.run(cell)

        async def is_done() -> bool:
            number = await self.text(".jp-InputPrompt", cell=cell)
            return number != before and number.strip("[]: ").isdigit()

        await until(is_done)

    async def output(self, cell: int) -> str:
        """All that a cell has printed."""
        return str(await self.cell(cell).locator(".jp-OutputArea").inner_text())

    async def saved(self, cell: int) -> list[Any]:
        """What its file holds of a code cell's outputs, saved just now."""
        await self.page.evaluate(SAVE)
        cells = nbformat.read(self.server.folder / self.name, 4).cells
        return list([one for one in cells if one.cell_type == "code"][cell].outputs)

    async def close(self) -> None:
        """End its kernel; it must have asked no other host and logged no error."""
        kernel = await self.page.evaluate(KERNEL)
        await self.context.close()
        self.server.ask("DELETE", f"kernels/{kernel}")
        assert self.asked == [], "the page asked another host"
        assert not self.wrong, f"the page logged errors: {self.wrong}"
