"""What is wrong, above every page, each with the way to where something can be done; and a demo that can be cleared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import param

from koubou_panel.core.events import SystemNoted
from koubou_panel.core.state import CRASHES
from koubou_panel.reactive.mirror import Changes
from koubou_panel.views import rows
from koubou_panel.views.cards import Card, Message, set_changed
from koubou_panel.views.escape import line
from koubou_panel.views.first import clear_demo, demo_left
from koubou_panel.views.language import _, ngettext
from koubou_panel.views.script_rows import stuck_notices
from koubou_panel.views.visit import Visit

MOST_STUCK = 3
CRASH_TOLD_S = 24 * 3600.0


class AttentionStrip(Card):
    """What is wrong; takes no room when nothing is. Asks `clear`.

    One with a stamp can be put away until its stamp is another.
    """

    items = param.List(
        default=[], doc="of key, tone (`warn`, `bad`, `note`), text, page, go, asked, ask, stamp, at"
    )


class Attention:
    """The strip over the mirror of the visit. Under the document's lock."""

    def __init__(self, visit: Visit) -> None:
        """Empty: see `draw`."""
        self._visit = visit
        self._demo = 0
        self._stuck: list[rows.Row] = []
        self._crash: list[rows.Row] = []
        self.card = visit.card(AttentionStrip, asks={"clear": self._clear})

    def draw(self) -> None:
        """Show what is wrong now."""
        mirror = self._visit.mirror
        items = self._crash + rows.notices(mirror.model, mirror.throughput) + self._stuck
        if self._demo:
            words = ngettext(
                "A demo load: {n} of its tasks has not ended.",
                "A demo load: {n} of its tasks have not ended.",
                self._demo,
            )
            text, go = words.format(n=self._demo), _("Clear it") if self._visit.can_act else ""
            items.append(
                {
                    "key": "demo",
                    "tone": "note",
                    "text": text,
                    "page": "",
                    "go": go,
                    "asked": {},
                    "ask": "clear",
                }
            )
        set_changed(self.card, items=items)

    def update(self, changes: Changes) -> None:
        """Show what changed."""
        if changes.reset or changes.shop or changes.workers or changes.seconds:
            self.draw()

    def tick(self) -> None:
        """Once a second: what is left of a demo, the schedules that cannot start anything, and the last crash."""
        state = self._visit.shop.state
        stuck = list(islice(stuck_notices(state.scripts.values()), MOST_STUCK))
        told = len(demo_left(state)), stuck, list(crash_notices(state.notes, self._visit.now()))
        if told != (self._demo, self._stuck, self._crash):
            self._demo, self._stuck, self._crash = told
            self.draw()

    async def _clear(self, _message: Message) -> Mapping[str, object]:
        return {"cancelled": await clear_demo(self._visit.shop, self._visit)}


def crash_notices(notes: Sequence[SystemNoted], now: float) -> Iterator[rows.Row]:
    """What became of the tasks in the last crash that the workshop of now knows of, for a day."""
    for note in reversed(notes):
        if note.at < now - CRASH_TOLD_S:
            return
        if note.event in CRASHES:
            yield _crash_notice(note) | {"at": note.at, "stamp": repr(note.at)}
            return


def _crash_notice(note: SystemNoted) -> rows.Row:
    if note.event != "recovered":
        words = _("The workshop came back: {what}").format(what=line(note.details))
        return rows.notice("recovered", "warn", words)
    lost, back = _told_in(note, "interrupted"), _told_in(note, "retried", "returned")
    words = _("The workshop crashed and came back: {lost} failed as lost, {back} back in the queue")
    goes = ("tasks", _("Look at them"), {"q": _search(lost, _told_in(note, "looped"))}) if lost else None
    return rows.notice("recovered", "warn", words.format(lost=lost, back=back), goes)


def _search(lost: int, looped: int) -> str:
    """What finds the tasks that failed in a crash; those of two reasons are found by the time that it is told."""
    if not looped:
        return "status:failed reason:lost"
    return "status:failed reason:crash_loop" if looped == lost else "status:failed since:1d"


def _told_in(note: SystemNoted, *names: str) -> int:
    return sum(found for name in names if isinstance(found := note.data.get(name), int))
