"""Rotation of what the runs of scripts printed: by count, age and size, oldest first. Loop thread only.

The records of the runs stay. A run that goes on is never touched; neither is the last that ended, for its size.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from koubou_panel.archive.output import held_bytes, output_path, remove_output
from koubou_panel.archive.sqlite import Archive
from koubou_panel.archive.text import folder_of, make_folder, write_file
from koubou_panel.core.events import Sample, ScriptRan, ScriptSaved
from koubou_panel.core.ports import OutputBytes, OutputRemoved
from koubou_panel.core.quantity import size_text
from koubou_panel.core.records import Task, TaskId
from koubou_panel.core.script import Entry, Script
from koubou_panel.core.state import Folded, State
from koubou_panel.home import Home
from koubou_panel.shop.clock import Clock
from koubou_panel.shop.hub import Hub
from koubou_panel.shop.reading import Read

TOGETHER_S = 2.0
DAY_S = 86_400.0
MARK_RUNS = 1_000

log = logging.getLogger(__name__)


class Rotated(NamedTuple):
    """What one look at a script's output did: runs removed, bytes freed, and the run up to which nothing is left."""

    runs: int
    size_bytes: int
    done: int


class Rotation:
    """Removes old output after runs have ended, a little later and together; and of all scripts when asked.

    Args:
        hub: is followed.
        archive: has the runs.
        home: has the output.
        clock: gives UTC seconds.
        read: runs a blocking function on a thread of its own.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        archive: Archive,
        home: Home,
        clock: Clock,
        read: Read,
    ) -> None:
        """Follow from now on, and look at every script once; `close` ends it."""
        self._hub = hub
        self._archive = archive
        self._home = home
        self._clock = clock
        self._read = read
        self._loop = asyncio.get_running_loop()
        self._wanted: set[str] = set()
        self._done: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[None] | None = None
        self._unsubscribe = hub.subscribe(self)

    async def close(self) -> None:
        """Look no more."""
        self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    def look_at_all(self) -> None:
        """Look at every script soon: with time, output grows old."""
        for name in self._hub.state.scripts:
            self._want(name)

    def on_reset(self, state: State) -> None:
        """Look at every script of a new state."""
        for name in state.scripts:
            self._want(name)

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Look at the scripts of which a run ended, or whose definition may keep less."""
        for fact, _, _ in folded:
            if type(fact) is ScriptRan and fact.is_final:
                self._want(fact.name)
            elif type(fact) is ScriptSaved:
                # One that keeps more has nothing more, and one that keeps less begins at the same place.
                self._want(fact.script.name)

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """A sample ends nothing."""

    def _want(self, name: str) -> None:
        self._wanted.add(name)
        if self._timer is None:
            self._timer = self._loop.call_later(TOGETHER_S, self._begin)

    def _begin(self) -> None:
        if self._work is not None and not self._work.done():
            self._timer = self._loop.call_later(TOGETHER_S, self._begin)
            return
        self._timer = None
        wanted, self._wanted = self._wanted, set()
        self._work = self._loop.create_task(self._rotate(wanted))

    async def _rotate(self, names: set[str]) -> None:
        for name in sorted(names):
            entry = self._hub.state.scripts.get(name)
            if entry is None:
                continue
            try:
                rotated = await self._read(
                    rotate, self._archive, self._home, entry, self._done.get(name), self._clock()
                )
            except Exception:
                log.exception("the output of script %s could not be rotated", name)
                continue
            self._done[name] = rotated.done
            if rotated.runs:
                log.info("script %s: the output of %d runs was removed", name, rotated.runs)


def rotate(archive: Archive, home: Home, entry: Entry, done: int | None, now: float) -> Rotated:
    """Remove what `entry` is not to keep any more, of the runs above `done` in the order. Blocks.

    With `done` None they begin above the mark that an earlier look left.
    """
    script = entry.script
    mark = _Mark(home, script.name)
    if done is None:
        done = mark.read()
    runs, unended = archive.ended_runs(script.name, done)
    held_from = now - script.keep_days * DAY_S if script.keep_days is not None else 0.0
    kept_bytes = 0
    old: list[bool] = []
    for number, run in enumerate(runs):
        is_old = number >= script.keep_runs or run.finished_at < held_from
        if not is_old and script.keep_bytes is not None:
            kept_bytes += held_bytes(output_path(home.output, run.task_id))
            is_old = kept_bytes > script.keep_bytes and number > 0
        old.append(is_old)
    freed = count = 0
    is_all_gone = True
    for run, is_old in zip(reversed(runs), reversed(old), strict=True):
        # The oldest first: whatever stops this, no newer one has gone before it.
        if is_old:
            size_bytes = remove_output(output_path(home.output, run.task_id))
            freed += size_bytes
            count += bool(size_bytes)
        is_all_gone = is_all_gone and is_old and (unended is None or run.order < unended)
        done = run.order if is_all_gone else done
    mark.note(done)
    return Rotated(count, freed, done)


def remove_ended(archive: Archive, home: Home, name: str) -> OutputRemoved:
    """Remove the output of all ended runs of the script `name`, oldest first. Blocks."""
    runs, _ = archive.ended_runs(name, 0)
    freed = [remove_output(output_path(home.output, run.task_id)) for run in reversed(runs)]
    return OutputRemoved(runs=sum(map(bool, freed)), size_bytes=sum(freed))


def held_each(home: Home, task_ids: Sequence[TaskId]) -> list[int]:
    """How many bytes of output are held of each of these tasks. Blocks."""
    return [held_bytes(output_path(home.output, task_id)) for task_id in task_ids]


class _Mark:
    """Up to which run a script has nothing left, in a file: it spares a start a look at every run that ever was."""

    def __init__(self, home: Home, name: str) -> None:
        self._path = folder_of(home.scripts, name) / "rotated"
        # Another database has another order.
        self._database = str(home.database.stat().st_ino)

    def read(self) -> int:
        """The mark, 0 where there is none that counts."""
        try:
            order, database = self._path.read_text(encoding="ascii").split()
            return int(order) if database == self._database else 0
        except (OSError, ValueError):
            return 0

    def note(self, done: int) -> None:
        """Store it, if it has moved far."""
        if done - self.read() >= MARK_RUNS:
            make_folder(self._path.parent)
            write_file(self._path, f"{done} {self._database}\n".encode("ascii"))


def removal(task: Task | None, script: Script | None, offset: int, limit: int) -> OutputBytes:
    """What is read in the place of a log that is not there: a line that says so, if the task had printed anything."""
    if task is None or not task.is_finished or not task.usage.output_bytes:
        return OutputBytes(b"", 0, 0, 0)
    why = ""
    if script is not None:
        parts = [
            f"of {script.keep_runs} runs",
            f"of {script.keep_days:g} days" if script.keep_days is not None else "",
            f"up to {size_text(script.keep_bytes)}" if script.keep_bytes is not None else "",
        ]
        why = f": script {script.name} keeps that {', '.join(part for part in parts if part)}"
    size = size_text(task.usage.output_bytes)
    data = f"[koubou] the output of this run ({size}) was removed{why}\n".encode()
    begin = min(offset, len(data)) if offset >= 0 else max(0, len(data) + offset)
    piece = data[begin : begin + max(0, limit)]
    return OutputBytes(piece, begin, begin + len(piece), len(data))
