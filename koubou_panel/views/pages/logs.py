"""What runs print: a search through the output of all tasks, and the live end of what runs now."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import panel as pn
import param
from msgspec.structs import replace
from panel.viewable import Viewable

from koubou_panel.core.ports import OutputHit, OutputHits, OutputSearch, TaskHits
from koubou_panel.core.query import parse, task_query
from koubou_panel.errors import KoubouError, Refused
from koubou_panel.reactive.mirror import Changes
from koubou_panel.reactive.models import label_of
from koubou_panel.views.cards import Card, set_changed
from koubou_panel.views.escape import block, line
from koubou_panel.views.language import _, later
from koubou_panel.views.output import OutputTail, ended_of
from koubou_panel.views.pace import LISTS_S, Pace
from koubou_panel.views.rows import Row
from koubou_panel.views.task_rows import completions, kinds, task_row, zone_of
from koubou_panel.views.visit import Visit

Message = Mapping[str, object]

MOST_HITS = 200
OF_ONE = 20
CONTEXT = 2
LINE = 320


class LogsPage:
    """`?page=logs`, `&q=` what is searched for."""

    name = "logs"
    label = later("Logs")
    place = 50

    def build(self, visit: Visit) -> LogsView:
        """The page for one visit."""
        return LogsView(visit)


class LogsCard(Card):
    """A search through output. Sends `open`; asks `search` and `complete`.

    An answer has `groups`, the tasks with their lines, and `about`: q, text, hits, tasks, is_cut.
    """


class LogTailCard(Card):
    """The last lines of what runs, by how bad they are. Sends `ready`; takes lines as messages."""

    title = param.String(default="Live output")


class LogsView:
    """The page's two cards over the mirror of the visit. Under the document's lock."""

    def __init__(self, visit: Visit) -> None:
        """Nothing was searched for."""
        self._visit = visit
        self._mirror = visit.mirror
        self._by = secrets.token_hex(8)  # a newer search ends the one before
        self._turn = 0
        self._tail = OutputTail(visit.shop)
        self._reading = False
        self._lists = Pace(LISTS_S, at_once=6)
        asks = {"search": self._ask_search, "complete": self._ask_completions}
        own: Any = {"sizing_mode": "stretch_width", "styles": {"height": "auto", "flex": "none"}}
        self.search = visit.card(LogsCard, asks=asks, **own)
        self.tail = visit.card(LogTailCard, on_message=self._on_message, **own)
        self.root: Viewable = pn.Column(
            self.search, self.tail, sizing_mode="stretch_width", margin=0, styles={"gap": "12px"}
        )

    def draw(self) -> None:
        """Show everything anew."""
        self._tail.hint = _("What running tasks print appears here as it is printed.")
        set_changed(self.tail, title=_("Live output"))
        self._send_all()
        self._read_on()

    @property
    def owes(self) -> bool:
        """Whether there is something to show that was put off."""
        return self._lists.owes and self._tail.is_new

    def update(self, changes: Changes) -> None:
        """Show what was printed since; when much is, not each time."""
        if changes.reset or changes.tasks or changes.ended or "running" in changes.shop or self.owes:
            self._read_on()

    def tick(self) -> None:
        """Nothing changes with time alone: the browser counts by itself."""

    def _on_message(self, kind: str, message: Message) -> None:
        if kind == "ready":
            self._send_all()
        else:
            self._visit.act(kind, message)

    # -- the end of what runs ---------------------------------------------------------------------------------

    def _send_all(self) -> None:
        self.tail.send(self._tail.all())

    def _read_on(self) -> None:
        running, ended = self._mirror.model.running, ended_of(self._mirror.recent)
        if self._tail.follow(running, ended) and not self._reading:
            self._reading = True
            self._visit.spawn(self._read())
        elif self._tail.is_new and self._lists.may():
            self.tail.send(self._tail.take())

    async def _read(self) -> None:
        try:
            await self._tail.read()
        except KoubouError:
            return  # the pill says that the workshop is away
        finally:
            self._reading = False
        self._visit.locked(self._read_on)

    # -- searching --------------------------------------------------------------------------------------------

    async def _ask_search(self, message: Message) -> Message:
        """Search; a newer search ends this one, whose answer nobody sees."""
        self._turn += 1
        turn, q = self._turn, message.get("q")
        q = q if isinstance(q, str) else ""
        search = parse(q, kinds=kinds())
        tasks = task_query(
            replace(search, words=()), now=self._visit.now(), zone=zone_of(message.get("zone"))
        )
        text = " ".join(search.words)
        hits: OutputHits | None = None
        if text:
            asked = OutputSearch(
                text=text, tasks=tasks, limit=MOST_HITS, per_task=OF_ONE, context=CONTEXT, by=self._by
            )
            hits = await self._visit.shop.search_logs(asked)
        elif q.strip():
            raise Refused(
                "invalid", _("Type a text to look for, beside what the tasks are chosen by."), field="q"
            )
        if hits is None or turn != self._turn:
            return {"groups": [], "about": {}}
        about = {
            "q": line(q, LINE),
            "text": line(text, LINE),
            "hits": sum(len(one.hits) for one in hits.found),
            "tasks": hits.tasks,
            "is_cut": hits.is_cut,
        }
        return {"groups": [group_row(one) for one in hits.found], "about": about}

    async def _ask_completions(self, message: Message) -> Message:
        return completions(self._visit.shop, message.get("text"), message.get("caret"))


def group_row(found: TaskHits) -> Row:
    """The lines that were found of one task."""
    row = task_row(found.task)
    told = {name: row[name] for name in ("id", "mark", "word", "full", "created_at", "finished_at")}
    label = line(label_of(found.task), 80)
    return {**told, "label": label, "hits": [hit_row(hit) for hit in found.hits], "is_cut": found.is_cut}


def hit_row(hit: OutputHit) -> Row:
    """One line that was found, with those around it."""
    return {
        "line": hit.line,
        "text": block(hit.text),
        "before": [block(text) for text in hit.before],
        "after": [block(text) for text in hit.after],
    }
