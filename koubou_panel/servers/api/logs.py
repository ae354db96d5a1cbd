"""`/api/logs`: what the runs of scripts printed."""

from __future__ import annotations

import asyncio

from msgspec import Struct
from msgspec.structs import asdict

from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.records import Task, TaskId
from koubou_panel.core.script import find_entry
from koubou_panel.errors import Refused
from koubou_panel.servers.api.fault import Nothing, read_as
from koubou_panel.servers.api.handler import ApiHandler
from koubou_panel.wire.records import iso

SCRIPTS = 100
MOST_SCRIPTS = 1_000
RUNS = 20
MOST_RUNS = 1_000
MOST_LISTED = 10_000
LINES = 1_000
MOST_LINES = 1_000_000
MATCHES = 100
MOST_MATCHES = 1_000
PIECE_BYTES = 256 * 1024
MOST_BYTES = 8 << 20


class LogRecord(Struct, gc=False):
    """One run's output: how large, and when; `run` is the id of its task."""

    run: str
    status: str
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    exit_code: int | None
    size_bytes: int


class LogsHandler(ApiHandler):
    """`GET`: the scripts, and the sizes and times of their last runs' output."""

    async def get(self) -> None:
        """List logs by the scripts' names."""
        self.check_query("limit", "offset", "runs")
        limit = self.number("limit", usual=SCRIPTS, most=MOST_SCRIPTS)
        offset = self.number("offset", usual=0, most=1_000_000, least=0)
        runs = self.number("runs", usual=RUNS, most=MOST_RUNS)
        if limit * runs > MOST_LISTED:
            raise Refused("invalid", f"limit times runs must be at most {MOST_LISTED}", field="runs")
        shop = self.api.shop
        names = sorted(shop.state.scripts)
        logs = []
        for name in names[offset : offset + limit]:
            page = await self.ask(shop.find(TaskQuery(script=name, limit=runs)))
            held = await self.ask(shop.held_output([task.task_id for task in page.tasks]))
            records = [log_record(task, size) for task, size in zip(page.tasks, held, strict=True)]
            size_bytes = sum(record.size_bytes for record in records)
            logs.append({"name": name, "runs": page.total, "size_bytes": size_bytes, "outputs": records})
        self.answer({"logs": logs, "total": len(names)})


class LogHandler(ApiHandler):
    """`GET`: the end of one run's output, or what a search finds; `DELETE`: it is removed."""

    async def get(self, name: str) -> None:
        """Show a log of a script, also of one that has left the catalogue."""
        self.check_query("lines", "run", "search", "limit")
        search, run = self.one("search"), self.one("run")
        if search is not None and run is None:
            await self._search(name, search)
            return
        task = await self._run_of(name, run)
        if task is None:
            self.answer({"name": name, "run": None, "lines": [], "is_cut": False})
            return
        entry = self.api.shop.state.scripts.get(name)
        usual = LINES if entry is None else entry.script.max_log_lines
        wanted = self.number("lines", usual=usual, most=MOST_LINES)
        lines, is_cut = await self._last_lines(task.task_id, MOST_LINES if search else wanted)
        if search:
            lines = await asyncio.to_thread(with_text, lines, search, wanted)
        (size_bytes,) = await self.ask(self.api.shop.held_output([task.task_id]))
        shown = {"name": name, **asdict(log_record(task, size_bytes)), "lines": lines, "is_cut": is_cut}
        await self.answer_aside(lambda: shown)

    async def delete(self, name: str) -> None:
        """Remove the output of every run that has ended; the records of the runs stay."""
        self.check_query()
        read_as(self.body(), Nothing)
        removed = await self.ask(self.api.shop.remove_output(name, self.caller))
        self.answer({"name": name, "runs": removed.runs, "size_bytes": removed.size_bytes})

    async def _search(self, name: str, text: str) -> None:
        if not text:
            raise Refused("invalid", "search must have a text to look for", field="search")
        limit = self.number("limit", usual=MATCHES, most=MOST_MATCHES)
        await self._known(name)
        found = await self.ask(self.api.shop.search_output(name, text, limit))
        matches = [
            {"run": match.task_id, "line": match.line, "offset": match.offset, "text": match.text}
            for match in found.matches
        ]
        self.answer({"name": name, "matches": matches, "runs": found.runs, "is_cut": found.is_cut})

    async def _known(self, name: str) -> Task | None:
        """The newest run of a script, None if it never ran.

        Raises:
            Refused: `not_found`: there is no such script, and there never was.
        """
        page = await self.ask(self.api.shop.find(TaskQuery(script=name, limit=1)))
        if not page.tasks:
            find_entry(self.api.shop.state.scripts, name)
            return None
        return page.tasks[0]

    async def _run_of(self, name: str, run: str | None) -> Task | None:
        newest = await self._known(name)
        if run is None:
            return newest
        task = await self.ask(self.api.shop.get(TaskId(run)))
        if task is None or task.request.script_name != name:
            raise Refused("not_found", f"script {name!r} has no run {run[:64]!r}", field="run")
        return task

    async def _last_lines(self, task_id: TaskId, count: int) -> tuple[list[str], bool]:
        """The last `count` lines that are held, and whether there are more before them."""
        shop = self.api.shop
        page = await self.ask(shop.read_output(task_id, -PIECE_BYTES, PIECE_BYTES + PIECE_BYTES))
        texts, offset, start, size = [page.text], page.offset, page.start, page.size
        held = page.text.count("\n")
        while offset > start and held <= count and size - offset < MOST_BYTES:
            begin = max(start, offset - PIECE_BYTES)
            before = await self.ask(shop.read_output(task_id, begin, offset - begin))
            if before.start > start or before.offset >= offset:
                break  # the oldest was removed meanwhile
            texts.append(before.text)
            held, offset = held + before.text.count("\n"), before.offset
        return await asyncio.to_thread(last_lines, texts, count, is_cut=offset > 0)


def last_lines(texts: list[str], count: int, *, is_cut: bool) -> tuple[list[str], bool]:
    """The last `count` lines of pieces that come last first, and whether there are more before them."""
    text = "".join(reversed(texts))
    lines = text.splitlines() if "\n" not in text else text.removesuffix("\n").split("\n")
    if is_cut and len(lines) <= count:
        lines = lines[1:]  # the first one is a piece of a line
    return lines[-count:], is_cut or len(lines) > count


def with_text(lines: list[str], text: str, most: int) -> list[str]:
    """The last `most` lines that have a text, in upper or lower case."""
    wanted = text.lower()
    return [line for line in lines if wanted in line.lower()][-most:]


def log_record(task: Task, size_bytes: int) -> LogRecord:
    """A run's output, of which so much is held."""
    return LogRecord(
        task.task_id,
        task.status,
        iso(task.request.created_at),
        iso(task.started_at),
        iso(task.finished_at),
        task.exit_code,
        size_bytes,
    )
