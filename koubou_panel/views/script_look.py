"""What is read of scripts' runs for the page: the last ones, and what is held of their output."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from koubou_panel.core.ports import Shop, TaskQuery
from koubou_panel.core.script import Entry
from koubou_panel.views.script_rows import SHOWN_RUNS, Looked

#: Of how many runs at most the held output is counted: as many as one question may be about.
MOST_RUNS = 1_000

#: What is held is counted anew no more often, and then once more after its last change.
COUNT_EVERY_S = 10.0

_Key = tuple[object, ...]


class _Known(NamedTuple):
    """What was read, for which state of the script's runs, and for which of them and when its output was counted."""

    key: _Key
    looked: Looked
    counted: _Key
    counted_at: float


class Looker:
    """The runs of the scripts that are shown, read when they changed. Loop thread only."""

    def __init__(self, shop: Shop, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is read. `clock` gives seconds."""
        self._shop = shop
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._wanted: dict[str, Entry] = {}

    @property
    def is_wanting(self) -> bool:
        """Whether there is something to read."""
        return bool(self._wanted)

    @property
    def is_due(self) -> bool:
        """Whether what changed a while ago is to be counted by now: have it wanted again."""
        return any(map(self._is_due, self._known.values()))

    def of(self, name: str) -> Looked | None:
        """What was read last; None: nothing yet."""
        known = self._known.get(name)
        return known.looked if known else None

    def want(self, entries: Iterable[Entry]) -> None:
        """Have the runs of these read; what is not among them is forgotten."""
        known = {entry.name: entry for entry in entries}
        for gone in self._known.keys() - known.keys():
            del self._known[gone]
        self._wanted = {
            name: entry
            for name, entry in known.items()
            if name not in self._known
            or self._known[name].key != _key(entry)
            or self._is_due(self._known[name])
        }

    def forget(self, name: str) -> None:
        """Have this one read again: its output was removed."""
        self._known.pop(name, None)

    async def read(self) -> None:
        """Read until nothing is wanted.

        Raises:
            KoubouError: the workshop is away.
        """
        while self._wanted:
            name = next(iter(self._wanted))
            entry = self._wanted.pop(name)
            self._known[name] = await self._look(entry, self._known.get(name))

    def _is_due(self, known: _Known) -> bool:
        return known.counted != known.key and self._clock() - known.counted_at >= COUNT_EVERY_S

    async def _look(self, entry: Entry, known: _Known | None) -> _Known:
        now = self._clock()
        if known is not None and now - known.counted_at < COUNT_EVERY_S:
            page = await self._shop.find(TaskQuery(script=entry.name, limit=SHOWN_RUNS))
            return known._replace(key=_key(entry), looked=known.looked._replace(runs=page.tasks))
        most = min(MOST_RUNS, max(SHOWN_RUNS, entry.script.keep_runs + len(entry.active)))
        page = await self._shop.find(TaskQuery(script=entry.name, limit=most))
        held = await self._shop.held_output([task.task_id for task in page.tasks])
        looked = Looked(page.tasks[:SHOWN_RUNS], sum(held), sum(size > 0 for size in held))
        return _Known(_key(entry), looked, _key(entry), now)


def _key(entry: Entry) -> _Key:
    """What a script's runs have changed by."""
    return entry.runs, entry.active, entry.last_task, entry.last_status, entry.created_at
