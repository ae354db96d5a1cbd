"""The embedded model for a workshop without a supervisor: a child of this process that ends with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Self

from koubou_panel import settings
from koubou_panel.errors import SettingsError
from koubou_panel.home import Home
from koubou_panel.kinds.model import Guide
from koubou_panel.shop.local import LocalShop
from koubou_panel.shop.prompting import Prompting, guide_of

END_LIMIT_S = 5.0


class OwnModel:
    """Tells the workers of a workshop where prompts go, and starts the model when one needs it. Loop thread only."""

    def __init__(self, home: Home, guide: Guide) -> None:
        """Nothing runs yet."""
        self.prompting = Prompting(home.root, guide, start=self.start)
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._life_fd: int | None = None
        self._hearing: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, shop: LocalShop, environ: Mapping[str, str]) -> Self:
        """For a workshop that this process holds, by the settings in force."""
        try:
            wanted = settings.load(environ, {"home": shop.home.root})
            guide = guide_of(wanted, settings.ollama_address(environ), is_supervised=True)
        except SettingsError as error:
            guide = Guide(reason=error.message)
        own = cls(shop.home, guide)
        shop.subscribe(own.prompting)
        return own

    def start(self) -> bool:
        """Start the model, unless it runs."""
        if self._process is None or self._process.poll() is not None:
            self._hang_up()
            life_fd, self._life_fd = os.pipe()
            ready_end, ready_fd = os.pipe()
            command = [
                sys.executable,
                "-P",
                "-m",
                "koubou_panel.servers.model",
                "--home",
                str(self._home.root),
            ]
            self._process = subprocess.Popen(
                [*command, "--life-fd", str(life_fd), "--ready-fd", str(ready_fd)],
                pass_fds=(life_fd, ready_fd),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            os.close(life_fd)
            os.close(ready_fd)
            self._hearing = asyncio.get_running_loop().create_task(self._hear(ready_end))
            self.prompting.offer()
        return True

    async def _hear(self, ready_end: int) -> None:
        """Tell the workers if it cannot serve."""
        line = await asyncio.get_running_loop().run_in_executor(None, partial(_read_line, ready_end))
        said = json.loads(line) if line else {"error": "it ended while it was started"}
        if "error" in said:
            self.prompting.give_up(str(said["error"]))

    def _hang_up(self) -> None:
        if self._life_fd is not None:
            os.close(self._life_fd)
            self._life_fd = None

    async def close(self) -> None:
        """End it, with all that it answers."""
        await self.prompting.close()
        self._hang_up()
        if self._process is None:
            return
        process = self._process
        wait = partial(process.wait, END_LIMIT_S)
        try:
            await asyncio.get_running_loop().run_in_executor(None, wait)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            await asyncio.get_running_loop().run_in_executor(None, process.wait)
        if self._hearing is not None:
            await self._hearing


def _read_line(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as pipe:
        return pipe.readline()
