"""What a visitor asked to be told of, told to their browser as it happens, also while they look at something else.

A hidden page is sent nothing but this, and this only as long as its browser asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from math import inf

from msgspec import Struct

from koubou_panel.core.events import Sample, TaskCancelled, TaskCompleted, TaskFailed
from koubou_panel.core.ids import is_task_id
from koubou_panel.core.records import Task
from koubou_panel.core.state import Folded, State
from koubou_panel.views.cards import Message
from koubou_panel.views.escape import line
from koubou_panel.views.visit import Visit

MOST_AT_ONCE = 20
MOST_WATCHED = 200


class Wants(Struct, frozen=True):
    """What to be told of: a task that fails, a script whose run fails, that nothing is left to do, these tasks."""

    fails: bool = False
    scripts: bool = False
    idle: bool = False
    ids: frozenset[str] = frozenset()

    def is_for(self, task: Task) -> bool:
        """Whether this task's end is to be told."""
        if task.task_id in self.ids:
            return True
        if task.status != "failed":
            return False
        return self.fails or (self.scripts and bool(task.request.script_name))


class Bell:
    """Follows the shop while a browser asks for it. A subscriber; loop thread only.

    Args:
        visit: whose bell it is.
        send: gives a message to the browser, under the document's lock.

    """

    def __init__(self, visit: Visit, send: Callable[[Message], None]) -> None:
        """Nobody asks yet."""
        self._visit = visit
        self._send = send
        self._wants = Wants()
        self._unsubscribe: Callable[[], None] | None = None
        self._ended: list[dict[str, object]] = []
        self._left_out = 0
        self._was_busy = False
        self._is_sending = False
        #: When the last task ended that the state in force has, UTC seconds: none of a later one was told yet.
        self._last_end = inf

    async def ask(self, message: Message) -> Message:
        """Tell of these from now on; answered is what ended while nobody was told.

        That is after `since`, UTC seconds, and up to `at`, when the workshop was last heard.
        """
        self._wants = _wants(message)
        now = self._visit.now()
        heard_at = now - self._visit.shop.link.lag_s
        if self._wants == Wants():
            self.close()
            return {"ended": [], "at": heard_at}
        if self._unsubscribe is None:
            self._unsubscribe = self._visit.shop.subscribe(self)
        asked = message.get("since")
        since = float(asked) if isinstance(asked, (int, float)) else now
        missed = self._missed(self._visit.shop.state, since, self._wants.ids)
        return {"ended": [_told(task) for task in missed[-MOST_AT_ONCE:]], "at": heard_at}

    def close(self) -> None:
        """Follow no more."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
            self._was_busy, self._last_end = False, inf

    def _missed(self, state: State, since: float, whenever: Container[str] = ()) -> list[Task]:
        """What is to be told of what ended after that, or of these tasks whenever they ended; the oldest end first."""
        tasks = [
            task
            for task in state.tasks.values()
            if task.finished_at is not None
            and (task.finished_at > since or task.task_id in whenever)
            and self._wants.is_for(task)
        ]
        return sorted(tasks, key=lambda task: task.finished_at or 0.0)

    # -- as a subscriber --------------------------------------------------------------------------------------

    def on_reset(self, state: State) -> None:
        """The state was replaced, as after a crash of the workshop: gather what ended meanwhile."""
        for task in self._missed(state, self._last_end):
            self._gather(task)
        self._go_on(state)

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Nothing of it is an end."""

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Gather what is to be told, and have it sent soon."""
        for fact, _seq, record in folded:
            if isinstance(fact, (TaskCompleted, TaskFailed, TaskCancelled)) and isinstance(record, Task):
                self._gather(record)
        self._go_on(self._visit.shop.state)

    def _go_on(self, state: State) -> None:
        is_busy, self._last_end = _is_busy(state), _last_end(state)
        if self._was_busy and not is_busy and self._wants.idle:
            at = self._last_end
            self._ended.append({"key": f"idle:{at}", "kind": "idle", "at": at})
        self._was_busy = is_busy
        if self._ended and not self._is_sending:
            self._is_sending = True
            self._visit.locked(self._flush)

    def _gather(self, task: Task) -> None:
        if not self._wants.is_for(task):
            return
        if len(self._ended) < MOST_AT_ONCE:
            self._ended.append(_told(task))
        else:
            self._left_out += 1

    def _flush(self) -> None:
        ended, more = self._ended, self._left_out
        self._ended, self._left_out, self._is_sending = [], 0, False
        self._send({"bell": ended, "more": more})


def _is_busy(state: State) -> bool:
    return bool(state.counts["pending"] or state.counts["in_progress"])


def _last_end(state: State) -> float:
    return (state.tasks[state.finished[-1]].finished_at or 0.0) if state.finished else 0.0


def _told(task: Task) -> dict[str, object]:
    request = task.request
    return {
        "key": f"{task.task_id}:{task.run}:{task.status}",
        "kind": "task",
        "id": task.task_id,
        "label": line(request.name or request.summary or request.kind),
        "status": task.status,
        "why": line(task.message, 160),
        "is_script": bool(request.script_name),
        "at": task.finished_at,
    }


def _wants(message: Message) -> Wants:
    """A browser's message is a stranger's word."""
    ids = message.get("ids")
    known = ids if isinstance(ids, list) else []
    return Wants(
        fails=message.get("fails") is True,
        scripts=message.get("scripts") is True,
        idle=message.get("idle") is True,
        ids=frozenset(one for one in known[:MOST_WATCHED] if isinstance(one, str) and is_task_id(one)),
    )
