"""`/output/{task}`: all that a task printed, as a file to keep. On the dashboard's port, behind its guard."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from koubou_panel.core.ids import is_task_id
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import Task, TaskId
from koubou_panel.errors import KoubouError, Refused

PIECE_BYTES = 1 << 18
MOST_AT_ONCE = 8
STUCK_S = 60.0  # how long one piece may take to be sent
_CHANGED = "The output changed while it was read: try again."
_NAME_CHARS = 60
_UNSAFE = re.compile(r"[^0-9A-Za-z._-]+")


def output_routes(shop: Callable[[], Shop | None]) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """The Tornado route, for a port with a guard before it; `shop` gives the workshop, None while none answers."""
    return [(r"/output/([^/]+)", OutputHandler, {"shop": shop, "running": set()})]


class OutputHandler(RequestHandler):
    """One task's output, as it was printed, piece by piece."""

    def initialize(self, shop: Callable[[], Shop | None], running: set[object]) -> None:
        """Keep where to read, and who else reads."""
        self._shop = shop
        self._running = running

    async def get(self, task_id: str) -> None:
        """Send what there is at this moment."""
        try:
            await self._send(task_id)
        except StreamClosedError:
            """Who asked has gone."""
        except TimeoutError:
            self._cut()
        except Refused as refused:
            self._refuse(404 if refused.code == "not_found" else 503, refused.message)
        except KoubouError as error:
            self._refuse(503, str(error))

    async def head(self, task_id: str) -> None:
        """The same without the output."""
        await self.get(task_id)

    async def _send(self, task_id: str) -> None:
        shop = self._shop()
        if shop is None:
            raise Refused("unavailable", "No workshop answers yet: `koubou up` starts it.")
        task = await shop.get(TaskId(task_id)) if is_task_id(task_id) else None
        if task is None:
            raise Refused("not_found", "There is no such task here.")
        if len(self._running) >= MOST_AT_ONCE:
            raise Refused("limit", f"{MOST_AT_ONCE} outputs are downloaded already: try again later.")
        self._running.add(self)
        try:
            await self._send_all(shop, task)
        finally:
            self._running.discard(self)

    async def _send_all(self, shop: Shop, task: Task) -> None:
        page = await shop.read_bytes(task.task_id, 0, PIECE_BYTES)
        end = page.size
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{file_name(task)}"')
        self.set_header("Cache-Control", "no-store")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        if self.request.method == "HEAD":
            return
        if end and not page.data:
            raise Refused("unavailable", _CHANGED)
        while page.data:
            self.write(page.data[: end - page.offset])
            # Waits until the reader has taken it: nothing piles up.
            await asyncio.wait_for(self.flush(), STUCK_S)
            at = page.end
            if at >= end:
                return
            page = await shop.read_bytes(task.task_id, at, min(PIECE_BYTES, end - at))
            if (
                page.offset != at or page.size < end or not page.data
            ):  # its beginning was dropped, or all of it
                raise Refused("unavailable", _CHANGED)

    def _refuse(self, status: int, words: str) -> None:
        if self._headers_written:  # too late for words
            self._cut()
            return
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{words}\n")

    def _cut(self) -> None:
        """Close the connection: what is cut off must not look whole."""
        self.request.connection.stream.close()  # type: ignore[union-attr]

    def compute_etag(self) -> None:
        """No hash of what is sent in pieces."""


def file_name(task: Task) -> str:
    """What the file is called: the task's name as far as any system takes it, and its id."""
    name = _UNSAFE.sub("-", task.request.name or task.request.kind)[:_NAME_CHARS].strip("-.")
    return f"{name}-{task.task_id}.log" if name else f"{task.task_id}.log"
