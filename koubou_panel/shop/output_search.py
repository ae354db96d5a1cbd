"""A search through the output of tasks, as it is done in its thread: newest task first, until its time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from koubou_panel.archive.output import output_path
from koubou_panel.archive.search import around, search_log
from koubou_panel.archive.sqlite import Archive
from koubou_panel.core.ports import OutputHit, OutputHits, OutputSearch, TaskHits
from koubou_panel.errors import Refused
from koubou_panel.home import Home

SEARCH_S = 5.0
SEARCH_PAGE = 200
MOST_CHARS = 1_000
MOST_HITS = 1_000
MOST_CONTEXT = 10


def check_text(text: str) -> None:
    """See that a text can be searched for.

    Raises:
        Refused: `invalid`.
    """
    if not text.strip() or len(text) > MOST_CHARS or "\n" in text:
        words = f"the text to search for must be 1 to {MOST_CHARS} characters of one line"
        raise Refused("invalid", words, field="text")


def check_search(search: OutputSearch) -> None:
    """See that a search can be done.

    Raises:
        Refused: `invalid`, naming the field.
    """
    check_text(search.text)
    bounds = (("limit", 1, MOST_HITS), ("per_task", 1, MOST_HITS), ("context", 0, MOST_CONTEXT))
    for name, least, most in bounds:
        if not least <= getattr(search, name) <= most:
            words = f"{name} must be {least} to {most}, not {getattr(search, name)}"
            raise Refused("invalid", words, field=name)


class _Ended(Exception):
    """The time is over, or somebody has ended it."""


class OutputSearcher:
    """One search. It blocks: never on the loop.

    Args:
        archive: has the tasks.
        home: has their output.
        search: what for.
        is_over: whether it shall end early.
    """

    def __init__(
        self, archive: Archive, home: Home, search: OutputSearch, is_over: Callable[[], bool]
    ) -> None:
        """Nothing is read yet."""
        self._archive = archive
        self._home = home
        self._search = search
        self._is_over = is_over
        self._found: list[TaskHits] = []
        self._left = search.limit
        self._tasks = 0

    def __call__(self) -> OutputHits:
        """What is found until the time is over."""
        self._deadline = time.monotonic() + SEARCH_S
        cursor = self._search.tasks.cursor
        try:
            while True:
                query = replace(self._search.tasks, limit=SEARCH_PAGE, cursor=cursor, count_s=0.0)
                page = self._archive.find(query)
                for task in page.tasks:
                    self._tasks += 1
                    # A record of what runs, or ran when its workshop was killed, is older than its output.
                    if not task.is_finished or task.usage.output_bytes or task.reason == "lost":
                        self._look(TaskHits(task=task, hits=[]), output_path(self._home.output, task.task_id))
                    self._go_on()
                cursor = page.cursor
                if cursor is None:
                    return OutputHits(found=self._found, tasks=self._tasks)
        except _Ended:
            return OutputHits(found=self._found, tasks=self._tasks, is_cut=True)

    def _go_on(self) -> None:
        if time.monotonic() > self._deadline or self._is_over():
            raise _Ended

    def _look(self, of: TaskHits, path: Path) -> None:
        for found in search_log(path, self._search.text):
            if found is not None:
                if len(of.hits) == self._search.per_task:
                    self._found[-1] = replace(of, is_cut=True)
                    return
                if not self._left:
                    raise _Ended
                if not of.hits:
                    self._found.append(of)
                before, after = around(path, found.offset, self._search.context)
                hit = OutputHit(
                    line=found.line, offset=found.offset, text=found.text, before=before, after=after
                )
                of.hits.append(hit)
                self._left -= 1
            self._go_on()
