"""Cancel or Retry for many tasks at once: counted, then held back while it can be undone, then done in pieces."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from koubou_panel.core.commands import Caller, CancelTask, Command, RetryTask
from koubou_panel.core.ports import Shop, TaskQuery
from koubou_panel.core.records import FINISHED, STATUSES, Status, TaskId
from koubou_panel.errors import KoubouError, Refused
from koubou_panel.views.escape import line
from koubou_panel.views.language import _, ngettext

UNDO_S = 8.0
PIECE = 50
MOST_CHOSEN = 1_000

Action = Literal["cancel", "retry"]
Stage = Literal["held", "doing"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intent:
    """What is meant: `queries` that name the tasks (each of one status), or their ids; `count` of them."""

    action: Action
    count: int
    queries: tuple[TaskQuery, ...] = ()
    task_ids: tuple[TaskId, ...] = ()


def statuses_of(action: Action) -> list[Status]:
    """The statuses that an action is for: what has ended is retried, what has not is cancelled."""
    return [status for status in STATUSES if (status in FINISHED) == (action == "retry")]


async def intent_for_all(shop: Shop, action: Action, query: TaskQuery, *, now: float) -> Intent:
    """The tasks that match by now and that the action is for: those that come or end later are none of them."""
    before = f"o{shop.state.order + 1:x}"
    until = now + 0.001  # what ended at this moment has ended
    queries: list[TaskQuery] = []
    total = 0
    for status in statuses_of(action):
        if query.status not in (None, status):
            continue
        ended = until if query.until is None else min(query.until, until)
        asked = replace(query, status=status, cursor=before, offset=0, limit=1, count_s=None)
        if action == "retry":
            asked = replace(asked, until=ended)
        page = await shop.find(asked)
        # What waits may have started by the time it is done, and what runs may wait again: both are asked for then.
        if page.total or action == "cancel":
            queries.append(replace(asked, limit=PIECE))
        total += page.total
    return Intent(action, total, queries=tuple(queries) if total else ())


async def intent_for_chosen(shop: Shop, action: Action, task_ids: Sequence[TaskId]) -> Intent:
    """Those of the chosen tasks that the action is for."""
    wanted, kept = set(statuses_of(action)), []
    for task_id in dict.fromkeys(task_ids):
        task = shop.state.tasks.get(task_id) or await shop.get(task_id)
        if task is not None and task.status in wanted:
            kept.append(task_id)
    return Intent(action, len(kept), task_ids=tuple(kept))


@dataclass(frozen=True, eq=False)
class Hearer:
    """Who is told of it.

    `changed` is called whenever `told` is another, `say` with how it went: (text, whether something could not be done).
    """

    changed: Callable[[], None]
    say: Callable[[str, bool], None]


class Bulk:
    """One intent at a time, from when it is confirmed until it is done. Loop thread only.

    It is carried out also when the page has closed meanwhile.

    Args:
        shop: where.
        caller: for whom.
        hearer: who is told of it: one of `hearers`. A tab may show it beside another, or after it.
        keep: where its work is kept while it lasts: what the loop alone knows may be collected.
        undo_s: how long it is held back.
    """

    def __init__(
        self,
        shop: Shop,
        caller: Caller,
        hearer: Hearer,
        *,
        keep: set[asyncio.Task[None]],
        undo_s: float = UNDO_S,
    ) -> None:
        """Nothing is meant."""
        self._shop = shop
        self._caller = caller
        self.hearers = {hearer}
        self._keep = keep
        self._undo_s = undo_s
        self._work: asyncio.Task[None] | None = None
        self._intent: Intent | None = None
        self._until = 0.0  # of the loop's clock
        self._stage: Stage = "held"
        self._done = 0
        self._why = ""  # the first refusal
        self._refused = 0
        self._number = 0

    @property
    def told(self) -> dict[str, object]:
        """What the card shows of it; empty: nothing is meant."""
        intent = self._intent
        if intent is None:
            return {}
        return {
            "id": self._number,
            "action": intent.action,
            "count": intent.count,
            "stage": self._stage,
            "done": self._done,
            "undo_s": self._undo_s,
            "left_s": max(0.0, self._until - asyncio.get_running_loop().time()),
        }

    def begin(self, intent: Intent, done: Callable[[], object] = lambda: None) -> None:
        """Hold this back for a while, then do it; `done` is called when that is over, however it went.

        Raises:
            Refused: another is not done yet, or there is nothing to do.
        """
        if self._intent is not None:
            raise Refused("conflict", _("Another change of many tasks is not done yet."))
        if not intent.count:
            raise Refused("invalid", nothing_words(intent.action))
        self._intent, self._stage, self._done = intent, "held", 0
        self._why, self._refused = "", 0
        self._number += 1
        loop = asyncio.get_running_loop()
        self._until = loop.time() + self._undo_s
        self._work = loop.create_task(self._carry_out(intent))
        self._keep.add(self._work)
        self._work.add_done_callback(self._keep.discard)
        self._work.add_done_callback(lambda _: done())
        self._changed()

    def undo(self) -> bool:
        """Have it not done; False: it has begun, or there is none."""
        if self._intent is None or self._stage != "held" or self._work is None:
            return False
        self._work.cancel()
        self._intent = None
        self._changed()
        return True

    def _changed(self) -> None:
        for hearer in tuple(self.hearers):
            hearer.changed()

    async def _carry_out(self, intent: Intent) -> None:
        await asyncio.sleep(self._undo_s)
        self._stage = "doing"
        self._changed()
        try:
            async for piece in self._pieces(intent):
                self._count(await self._shop.do_many(piece, self._caller))
                self._changed()
                await asyncio.sleep(0)
        except KoubouError as error:
            self._refuse(str(error))
        except Exception:
            log.exception("a change of many tasks ended early")
            self._refuse(_("It ended early; the log of the dashboard says more."))
        log.info("%s of %d tasks: %d done", intent.action, intent.count, self._done)
        self._intent = None
        self._changed()
        for hearer in tuple(self.hearers):
            hearer.say(self._words(intent), bool(self._refused))

    async def _pieces(self, intent: Intent) -> AsyncIterator[list[Command]]:
        for at in range(0, len(intent.task_ids), PIECE):
            yield [self._command(intent.action, task_id) for task_id in intent.task_ids[at : at + PIECE]]
        # One that starts meanwhile is found among what waits, and again among what runs.
        seen: set[TaskId] = set()
        for query in intent.queries:
            cursor = query.cursor
            while cursor is not None:
                page = await self._shop.find(replace(query, cursor=cursor, count_s=0.0))
                cursor = page.cursor
                piece = [task.task_id for task in page.tasks if task.task_id not in seen]
                seen.update(piece)
                if piece:
                    yield [self._command(intent.action, task_id) for task_id in piece]

    def _command(self, action: Action, task_id: TaskId) -> Command:
        return CancelTask(task_id) if action == "cancel" else RetryTask(task_id, self._shop.next_id())

    def _count(self, answers: Sequence[TaskId | Refused | None]) -> None:
        for answer in answers:
            if isinstance(answer, Refused):
                self._refuse(answer.message)
            else:
                self._done += 1

    def _refuse(self, why: str) -> None:
        self._refused += 1
        self._why = self._why or why

    def _words(self, intent: Intent) -> str:
        n = self._done
        if intent.action == "cancel":
            done = ngettext("Cancelled {n} task.", "Cancelled {n} tasks.", n)
        else:
            done = ngettext("Submitted {n} task again.", "Submitted {n} tasks again.", n)
        words = done.format(n=f"{n:,}")
        if not self._refused:
            return words
        left = ngettext(
            "{n} could not be changed: {why}", "{n} could not be changed, the first because: {why}", self._refused
        )  # fmt: skip
        return f"{words} {left.format(n=f'{self._refused:,}', why=line(self._why, 200))}"


def nothing_words(action: Action) -> str:
    """What is said where an action has no task."""
    if action == "cancel":
        return _("None of these tasks waits or runs, so there is nothing to cancel.")
    return _("None of these tasks has ended, so there is nothing to run again.")
