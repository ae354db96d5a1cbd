"""All tasks, a page of them at a time: searched by a line, live where they are shown, cancelled and retried in bulk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, tzinfo
from itertools import islice

import param
from msgspec.structs import replace

from koubou_panel.core.ids import is_task_id
from koubou_panel.core.ports import TaskPage, TaskQuery
from koubou_panel.core.query import Search, matches, parse, task_query
from koubou_panel.core.records import Task, TaskId
from koubou_panel.errors import KoubouError, Refused
from koubou_panel.reactive.mirror import Changes
from koubou_panel.views.bulk import (
    MOST_CHOSEN,
    Action,
    Bulk,
    Hearer,
    Intent,
    intent_for_all,
    intent_for_chosen,
)
from koubou_panel.views.cards import Card, set_changed
from koubou_panel.views.language import _, later
from koubou_panel.views.pace import LISTS_S, Pace
from koubou_panel.views.task_rows import completions, kinds, task_row, zone_of
from koubou_panel.views.visit import Visit

Message = Mapping[str, object]

SIZES = (25, 50, 100)
USUAL = 50
FARTHEST = 10_000_000
COUNT_S = 0.04
MOST_LOOKED_AT = 2_000
TAB_CHARS = 100


class TasksPage:
    """`?page=tasks`, `&q=` what is searched for, `&size=` and `&at=` which part of it."""

    name = "tasks"
    label = later("Tasks")
    place = 10

    def __init__(self) -> None:
        """Nothing is under way. What was confirmed is carried out, whether its page is still open or not."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._by_tab: dict[str, Bulk] = {}

    def build(self, visit: Visit) -> TasksView:
        """The page for one visit."""
        return TasksView(visit, self._under_way, self._by_tab)


class TasksCard(Card):
    """A page of a list of tasks, with what it is searched by, and what may be done with all of it.

    Sends `open`. Asks `search`, `complete`, `intend`, `confirm`, `held` and `undo`. A page comes as the answer, or as a
    message where it is read anew; rows that changed come as messages. None of it is a parameter: what is set before the
    browser has reported the document as loaded may be lost.
    """

    newer = param.Integer(doc="how many have come that match and are not shown")
    bulk = param.Dict(default={}, doc="what is about to be done, or is being done; empty: nothing")
    can_act = param.Boolean(default=True)


class TasksView:
    """The list over the mirror of the visit. Under the document's lock."""

    def __init__(self, visit: Visit, under_way: set[asyncio.Task[None]], by_tab: dict[str, Bulk]) -> None:
        """Empty: the browser says what is searched for. `by_tab`: what is under way for each tab of a browser."""
        self._visit = visit
        self._shop = visit.shop
        self._search, self._query = Search(), TaskQuery()
        self._asked = ("", 0, USUAL)
        self._wrong = False
        self._zone: tzinfo = UTC
        self._turn = 0
        self._tasks: dict[TaskId, Task] = {}
        self._newest = self._seen = visit.shop.state.order
        self._newer = 0
        self._lists = Pace(LISTS_S, at_once=6)
        self._intent: Intent | None = None
        self._meant = 0
        self._by_tab = by_tab
        self._hearer = Hearer(lambda: visit.locked(self._show_bulk), self._say)
        self.bulk = Bulk(visit.shop, visit.caller, self._hearer, keep=under_way)
        asks = {
            "search": self._ask_search,
            "complete": self._ask_completions,
            "intend": self._ask_intent,
            "confirm": self._ask_begin,
            "held": self._ask_held,
            "undo": self._ask_undo,
        }
        self.root = visit.card(TasksCard, asks=asks, can_act=visit.can_act, sizing_mode="stretch_width")

    # -- what is shown ----------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Read the list anew: words may be others, and it was not looked at for a while."""
        if self._turn:
            self._visit.spawn(self._look_again())

    @property
    def owes(self) -> bool:
        """Whether there is something to show that was put off."""
        return self._lists.owes

    def update(self, changes: Changes) -> None:
        """Show what became of the tasks on the page, and how many newer ones match; of much, not all at once."""
        is_other = changes.reset or changes.shop or changes.tasks or changes.ended
        if not self._turn or not (is_other or self._lists.owes):
            return
        if not self._lists.may() and not changes.reset:
            return
        self._count_newer(is_reset=changes.reset)
        changed = [task for task in self._stands_now() if task is not self._tasks[task.task_id]]
        if changed:
            self._tasks |= {task.task_id: task for task in changed}
            self.root.send({"rows": [task_row(task) for task in changed]})

    def tick(self) -> None:
        """Once a second: what left the state before it was seen to end is read."""
        state = self._shop.state.tasks
        gone = [
            task.task_id
            for task in self._tasks.values()
            if not task.is_finished and task.task_id not in state
        ]
        if gone:
            self._visit.spawn(self._read(gone))

    def close(self) -> None:
        """Hear no more of what is under way: it is carried out all the same."""
        self.bulk.hearers.discard(self._hearer)

    def _stands_now(self) -> Iterator[Task]:
        state = self._shop.state.tasks
        for task_id, shown in self._tasks.items():
            if not shown.is_finished:
                yield state.get(task_id, shown)

    def _count_newer(self, *, is_reset: bool) -> None:
        """Look at what was submitted since the last look."""
        state = self._shop.state
        if is_reset:
            self._seen, self._newer = self._newest, 0
        if state.order > self._seen:
            since, self._seen = self._seen, state.order
            for task in islice(reversed(state.tasks.values()), MOST_LOOKED_AT):
                if task.order <= since:
                    break
                self._newer += matches(task, self._query)
        if self._newer and not self._tasks and not self._asked[1]:
            self._visit.spawn(self._look_again())  # nothing can jump where nothing is
        self._show_newer()

    async def _read(self, task_ids: list[TaskId]) -> None:
        found = [await self._shop.get(task_id) for task_id in task_ids]
        tasks = [task for task in found if task is not None and task.task_id in self._tasks]

        def show() -> None:
            self._tasks |= {task.task_id: task for task in tasks}
            self.root.send({"rows": [task_row(task) for task in tasks]})

        if tasks:
            self._visit.locked(show)

    def _told(self, page: TaskPage) -> Message:
        """A page as the browser is told of it; it is the one that is shown from now on."""
        q, at, size = self._asked
        self._tasks = {task.task_id: self._shop.state.tasks.get(task.task_id, task) for task in page.tasks}
        told = {
            "q": q,
            "at": at,
            "size": size,
            "total": page.total,
            "is_counted": page.is_counted,
            "has_more": page.cursor is not None,
            "turn": self._turn,
        }
        return {"rows": [task_row(task) for task in self._tasks.values()], "list": told}

    # -- searching --------------------------------------------------------------------------------------------

    async def _ask_search(self, message: Message) -> Message:
        q, at, size = message.get("q"), message.get("at"), message.get("size")
        q = q if isinstance(q, str) else ""
        zone = zone_of(message.get("zone"))
        self._wrong = True  # until the line has been understood
        search = parse(q, kinds=kinds())
        query = task_query(search, now=self._visit.now(), zone=zone)
        self._wrong = False
        is_same = (q, size) == (self._asked[0], self._asked[2])
        self._search, self._query, self._zone = search, query, zone
        at = min(at, FARTHEST) if isinstance(at, int) and not isinstance(at, bool) and at > 0 else 0
        self._asked = (q, at, size if isinstance(size, int) and size in SIZES else USUAL)
        if not (at and is_same and self._turn):
            self._newest = self._seen = self._shop.state.order
            self._newer = 0
        self._visit.locked(self._show_newer)
        return await self._find() or {}

    async def _look_again(self) -> None:
        """The same page of the same list; from its beginning the newest are on it."""
        if not self._asked[1]:
            self._newest = self._seen = self._shop.state.order
            self._newer = 0
        self._query = task_query(self._search, now=self._visit.now(), zone=self._zone)
        try:
            told = await self._find()
        except KoubouError as error:
            self._visit.toast(str(error))
            return

        def show() -> None:
            if told is not None:
                self.root.send({"page": told})
            self._show_newer()

        self._visit.locked(show)

    async def _find(self) -> Message | None:
        """Read the page that is asked for, and count on where that takes long. None: another was asked for."""
        self._turn += 1
        turn, (_q, at, size) = self._turn, self._asked
        asked = replace(self._query, limit=size, offset=at, cursor=f"o{self._newest + 1:x}", count_s=COUNT_S)
        page = await self._shop.find(asked)
        if turn != self._turn:
            return None
        if not page.is_counted:
            self._visit.spawn(self._count_on(asked, turn))
        return self._told(page)

    async def _count_on(self, asked: TaskQuery, turn: int) -> None:
        try:
            whole = await self._shop.find(replace(asked, limit=1, offset=0, count_s=None))
        except KoubouError:
            return
        if turn == self._turn:
            self._visit.locked(lambda: self.root.send({"total": whole.total, "turn": turn}))

    def _show_newer(self) -> None:
        set_changed(self.root, newer=self._newer)

    async def _ask_completions(self, message: Message) -> Message:
        return completions(self._shop, message.get("text"), message.get("caret"))

    # -- many at once -----------------------------------------------------------------------------------------

    async def _ask_intent(self, message: Message) -> Message:
        """Count what would be done, and keep it until it is confirmed."""
        action = self._action(message)
        chosen = message.get("ids")
        self._intent = None
        self._meant = mine = self._meant + 1
        if isinstance(chosen, list) and chosen:
            ids = [TaskId(one) for one in chosen[:MOST_CHOSEN] if isinstance(one, str) and is_task_id(one)]
            intent = await intent_for_chosen(self._shop, action, ids)
        else:
            if self._wrong or message.get("q", "") != self._asked[0]:
                raise Refused("conflict", _("What this was about has changed: look at the list again."))
            intent = await intent_for_all(self._shop, action, self._query, now=self._visit.now())
        if mine == self._meant:  # the browser waits for the last one that it asked for
            self._intent = intent
        return {"count": intent.count, "action": action}

    async def _ask_begin(self, message: Message) -> Message:
        """Begin what was counted last."""
        action = self._action(message)
        intent, self._intent = self._intent, None
        if intent is None or intent.action != action:
            raise Refused("conflict", _("What this was about has changed: look at the list again."))
        tab, bulk = message.get("tab"), self.bulk
        if not isinstance(tab, str) or not 0 < len(tab) <= TAB_CHARS:
            bulk.begin(intent)
        else:
            bulk.begin(intent, lambda: self._forget(tab, bulk))
            self._by_tab[tab] = bulk  # it is found there when the tab is loaded anew
        return {"count": intent.count}

    def _forget(self, tab: str, bulk: Bulk) -> None:
        if (
            self._by_tab.get(tab) is bulk
        ):  # a tab that was duplicated has the same name, and may have begun another
            del self._by_tab[tab]

    async def _ask_held(self, message: Message) -> Message:
        """What this tab had begun before it was loaded anew: Undo is offered on, by a duplicate of it too."""
        found = self._by_tab.get(str(message.get("tab")))
        if found is not None and self._visit.can_act and not self.bulk.told:
            self.close()
            self.bulk = found
            found.hearers.add(self._hearer)
            self._visit.locked(self._show_bulk)
        return {"held": found is not None}

    async def _ask_undo(self, _message: Message) -> Message:
        return {"undone": self.bulk.undo()}

    def _action(self, message: Message) -> Action:
        if not self._visit.can_act:
            raise Refused("forbidden", _("You may only look here."))
        action = message.get("action")
        if action != "cancel" and action != "retry":  # noqa: PLR1714 - as the type checker reads it
            raise Refused("invalid", "action must be cancel or retry", field="action")
        return action

    def _show_bulk(self) -> None:
        set_changed(self.root, bulk=self.bulk.told)

    def _say(self, text: str, is_bad: bool) -> None:  # noqa: FBT001 - as `Bulk` calls it
        (self._visit.toast if is_bad else self._visit.tell)(text)
