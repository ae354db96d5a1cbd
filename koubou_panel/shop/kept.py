"""What is kept of the files of large values, and for how long. The files themselves are never read here.

What an unfinished task may need is never touched: its own arguments, and the results that it is to be given. Of tasks
that have ended, results can be fetched, and arguments be used for a retry, for a time; beyond so many bytes in all
(`Retention`), the oldest of what is older than `SETTLED_S` goes before. At once goes the result of a run that did not
count.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from koubou_panel.archive.sqlite import Archive
from koubou_panel.core.records import FINISHED, Status, TaskId
from koubou_panel.kinds.spill import FileName, read_name
from koubou_panel.shop.clock import Clock
from koubou_panel.shop.hub import Hub
from koubou_panel.shop.reading import Read

LOOK_S = 5.0
AGE_LOOK_S = 3600.0
DAY_S = 86_400.0
SETTLED_S = DAY_S
RESULT = "r"

log = logging.getLogger(__name__)


class Retention(NamedTuple):
    """How long files of tasks that have ended are kept, and how much room they may take."""

    keep_s: float = 7 * DAY_S
    keep_bytes: float = 20 << 30

    @classmethod
    def of(cls, days: float, gigabytes: float) -> Retention:
        """As the settings `values_days` and `values_gb` have it."""
        return cls(days * DAY_S, gigabytes * (1 << 30))


USUAL = Retention()


class Found(NamedTuple):
    """A file: what its name says, its inode, its size, and when it was given a name last, UTC seconds."""

    path: Path
    name: FileName
    inode: int
    size_bytes: int
    named_at: float


class Kept:
    """Looks after the folder of large values while the workshop runs. Loop thread only.

    Args:
        hub: knows what unfinished tasks are to be given.
        archive: knows how tasks ended.
        folder: of the files; there may be none.
        clock: gives UTC seconds.
        read: runs a blocking function in a thread.
        retention: what is kept.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        archive: Archive,
        folder: Path,
        clock: Clock,
        read: Read,
        retention: Retention = USUAL,
    ) -> None:
        """Nothing was looked at yet."""
        self._hub = hub
        self._archive = archive
        self._folder = folder
        self._clock = clock
        self._read = read
        self._retention = retention

    async def run(self) -> None:
        """Look whenever there is something new in the folder, and once an hour, for ever."""
        seen, looked_at = 0, 0.0
        while True:
            changed = _changed_at(self._folder)
            if changed and (changed != seen or self._clock() - looked_at > AGE_LOOK_S):
                # Before the look: what changes meanwhile is looked at again.
                seen, looked_at = changed, self._clock()
                try:
                    await self.look()
                except Exception:
                    log.exception("the files of large values could not be looked after")
            await asyncio.sleep(LOOK_S)

    async def look(self) -> int:
        """Remove what nobody needs; how many files that were."""
        found, statuses = await self._read(_look, self._folder, self._archive)
        useless = useless_files(found, statuses, self._clock())
        old = old_files(found, statuses, self._clock(), self._retention)
        if old:
            wanted = self._wanted()
            useless += [file for file in old if file.name.task_id not in wanted]
        if useless:
            freed = await self._read(_remove, useless)
            log.info("%d files of large values were removed: %d MB", len(useless), freed >> 20)
        return len(useless)

    def _wanted(self) -> set[str]:
        """The tasks whose results others are yet to be given."""
        return {
            task_id
            for task in self._hub.state.tasks.values()
            if task.request.after and not task.is_finished
            for task_id in task.request.after
        }


def useless_files(found: Sequence[Found], statuses: Mapping[TaskId, Status], now: float) -> list[Found]:
    """What no one can need any more, whatever room there is."""
    last_runs: dict[str, int] = {}
    for file in found:
        if file.name.of == RESULT and not file.name.is_part:
            last_runs[file.name.task_id] = max(file.name.run, last_runs.get(file.name.task_id, 0))
    return [file for file in found if _is_useless(file, statuses, last_runs, now)]


def _is_useless(
    file: Found, statuses: Mapping[TaskId, Status], last_runs: Mapping[str, int], now: float
) -> bool:
    status = statuses.get(TaskId(file.name.task_id))
    if status is None:  # it may be about to be submitted, also again after the workshop was away
        return now - file.named_at > SETTLED_S
    if status not in FINISHED:
        return False
    if file.name.is_part:
        return True
    if file.name.of != RESULT:
        return False
    return status != "completed" or file.name.run < last_runs[file.name.task_id]


def old_files(
    found: Sequence[Found],
    statuses: Mapping[TaskId, Status],
    now: float,
    retention: Retention,
) -> list[Found]:
    """What tasks that have ended have had their time with: arguments before results, the oldest first."""
    held = {file.inode: file.size_bytes for file in found}
    names: dict[int, int] = {}
    for file in found:
        names[file.inode] = names.get(file.inode, 0) + 1
    total = sum(held.values())
    ended = [file for file in found if statuses.get(TaskId(file.name.task_id)) in FINISHED]
    old: list[Found] = []
    for file in sorted(ended, key=lambda file: (file.name.of == RESULT, file.named_at)):
        age_s = now - file.named_at
        if age_s > retention.keep_s or (total > retention.keep_bytes and age_s > SETTLED_S):
            old.append(file)
            names[file.inode] -= 1
            total -= 0 if names[file.inode] else held[file.inode]
    return old


def _look(folder: Path, archive: Archive) -> tuple[list[Found], dict[TaskId, Status]]:
    found: list[Found] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = read_name(entry.name)
            try:
                if name is not None and entry.is_file(follow_symlinks=False):
                    stat = entry.stat(follow_symlinks=False)
                    found.append(Found(Path(entry.path), name, stat.st_ino, stat.st_size, stat.st_ctime))
            except FileNotFoundError:  # what was being written has its name by now
                continue
    task_ids = {TaskId(file.name.task_id) for file in found}
    return found, archive.statuses(list(task_ids))


def _remove(files: Sequence[Found]) -> int:
    """Remove files; how much room that makes. One whose content has other names makes none."""
    freed = 0
    for file in files:
        try:
            links = file.path.stat().st_nlink
            file.path.unlink()
        except FileNotFoundError:
            continue
        freed += file.size_bytes if links == 1 else 0
    return freed


def _changed_at(folder: Path) -> int:
    """When something came into the folder or left it; 0: there is none."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0
