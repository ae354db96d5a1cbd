"""What the page asks about a script, and has done with it; each answer is data for JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice

from koubou_panel.core.commands import EnableScript, RemoveScript, SaveScript
from koubou_panel.core.decide import check_role
from koubou_panel.core.ports import ScriptText
from koubou_panel.core.schedule import check_schedule
from koubou_panel.core.script import MAX_TEXT_BYTES, Entry, Schedule, Script, find_entry
from koubou_panel.errors import Refused
from koubou_panel.views.cards import Message
from koubou_panel.views.faults import all_faults
from koubou_panel.views.language import _
from koubou_panel.views.script_diff import diff_of
from koubou_panel.views.script_faults import at_field, changed_script, check_form, mended, new_script
from koubou_panel.views.script_form import schedule_of, text_in
from koubou_panel.views.script_rows import NEXT_DUES, dues, match_row, version_rows
from koubou_panel.views.visit import Ask, Visit
from koubou_panel.views.words import size

MATCHES = 100
#: What stands for the text in the browser where two texts are compared.
MINE = "mine"
_ANY = SaveScript(Script(name="", path=""))

Answer = Mapping[str, object]


class ScriptAsks:
    """The answers of one visit. Loop thread only.

    Args:
        visit: whose.
        on_removed: called with the name of a script whose output was removed.

    """

    def __init__(self, visit: Visit, *, on_removed: Callable[[str], None]) -> None:
        """For this visitor."""
        self._visit = visit
        self._on_removed = on_removed
        self._shop = visit.shop
        self._comparing = asyncio.Lock()

    @property
    def answers(self) -> dict[str, Ask]:
        """By what is asked."""
        return {
            "dues": self._dues,
            "add": self._add,
            "save": self._save,
            "enable": self._enable,
            "remove": self._remove,
            "text": self._text,
            "save_text": self._save_text,
            "versions": self._versions,
            "restore": self._restore,
            "diff": self._diff,
            "search": self._search,
            "remove_output": self._remove_output,
        }

    def _entry(self, message: Message) -> Entry:
        return find_entry(self._shop.state.scripts, text_in(message, "name", most=200))

    def _changed(self, message: Message) -> str:
        """The name of a script, for who may change it."""
        name = self._entry(message).name
        check_role(RemoveScript(name), self._visit.caller.role)
        return name

    # -- the catalogue ----------------------------------------------------------------------------------------

    async def _dues(self, message: Message) -> Answer:
        """The next times of a schedule that is being typed."""
        schedule = schedule_of(message)
        if schedule is None:
            return {"dues": []}
        entry = self._shop.state.scripts.get(text_in(message, "name", most=200))
        return {"dues": await asyncio.to_thread(_next_times, schedule, entry, self._visit.now())}

    async def _add(self, message: Message) -> Answer:
        """Put a script into the catalogue: a file by its path, or a text that the home keeps."""
        given = {name: message.get(name) for name in ("name", "inline", "text", "language")}
        form = {name: value for name, value in given.items() if value is not None} | dict(_form(message))
        await self._do(new_script, form)
        return {"name": text_in(form, "name").strip()}

    async def _save(self, message: Message) -> Answer:
        """Change a definition."""
        entry, revision = self._entry(message), message.get("revision")
        if isinstance(revision, bool) or not isinstance(revision, int):
            raise Refused("invalid", _("there is no such revision"), field="revision")
        await self._do(partial(changed_script, entry.script, revision), _form(message))
        return {}

    async def _do(self, command_of: Callable[[Message], SaveScript], form: Message) -> None:
        """Do what a form asks for, or tell all that is wrong with it."""
        check_role(_ANY, self._visit.caller.role)  # before anything on this machine is looked at
        try:
            await self._shop.do(command_of(form), self._visit.caller)
        except Refused as refused:
            if refused.field == "revision":
                raise
            check = partial(check_form, command_of, self._shop.state, self._visit.now())
            raise await asyncio.to_thread(all_faults, at_field(refused), check, form, mended) from None

    async def _enable(self, message: Message) -> Answer:
        """Let its schedule run it, or no more."""
        await self._shop.do(
            EnableScript(self._entry(message).name, message.get("on") is True), self._visit.caller
        )
        return {}

    async def _remove(self, message: Message) -> Answer:
        """Take it out of the catalogue."""
        await self._shop.do(RemoveScript(self._entry(message).name), self._visit.caller)
        return {}

    # -- texts ------------------------------------------------------------------------------------------------

    async def _text(self, message: Message) -> Answer:
        """Its text, or an earlier version of that. A file that is gone is an empty text to begin from."""
        name, version = self._entry(message).name, text_in(message, "version", most=64) or None
        try:
            found = await self._shop.read_script(name, version)
        except Refused as refused:
            if refused.code != "not_found" or version is not None:
                raise
            return {"text": "", "version": "", "at": None, "note": refused.message}
        return {"text": found.text, "version": found.version, "at": found.saved_at, "note": ""}

    async def _save_text(self, message: Message) -> Answer:
        """Save a text that was made from the version `base`."""
        name, base = self._changed(message), text_in(message, "base", most=64)
        text = message.get("text")
        if not isinstance(text, str):
            raise Refused("invalid", _("there is no text"), field="text")
        version = await self._shop.save_script_text(name, text, base, self._visit.caller)
        return {"version": version, "at": self._visit.now()}

    async def _versions(self, message: Message) -> Answer:
        """The texts that are kept of it."""
        return {"versions": version_rows(await self._shop.script_versions(self._entry(message).name))}

    async def _restore(self, message: Message) -> Answer:
        """Make a kept version the present text again."""
        name, version = self._changed(message), text_in(message, "version", most=64)
        base = text_in(message, "base", most=64)
        return {"version": await self._shop.restore_script(name, version, base, self._visit.caller)}

    async def _diff(self, message: Message) -> Answer:
        """What differs between two versions, or a version and the text that came along."""
        name = self._entry(message).name
        old, new = [await self._side(name, message, side) for side in ("old", "new")]
        async with self._comparing:  # it takes a processor for seconds
            return await asyncio.to_thread(diff_of, old, new)

    async def _side(self, name: str, message: Message, side: str) -> str:
        version = text_in(message, side, most=64)
        if version == MINE:
            return text_in(message, "text", most=MAX_TEXT_BYTES)
        try:
            found: ScriptText = await self._shop.read_script(name, version or None)
        except Refused as refused:
            if refused.code != "not_found" or version:
                raise
            return ""
        return found.text

    # -- output -----------------------------------------------------------------------------------------------

    async def _search(self, message: Message) -> Answer:
        """Lines of the output of its runs."""
        found = await self._shop.search_output(
            self._entry(message).name, text_in(message, "text", most=1_000), MATCHES
        )
        return {
            "matches": [match_row(one) for one in found.matches],
            "runs": found.runs,
            "is_cut": found.is_cut,
        }

    async def _remove_output(self, message: Message) -> Answer:
        """Remove what its ended runs printed."""
        name = self._changed(message)
        removed = await self._shop.remove_output(name, self._visit.caller)
        self._on_removed(name)
        return {"runs": removed.runs, "size": size(removed.size_bytes)}


def _form(message: Message) -> Message:
    form = message.get("form", {})
    return form if isinstance(form, Mapping) else {}


def _next_times(schedule: Schedule, entry: Entry | None, now: float) -> list[float]:
    """When a schedule is next due, as it would be if it were saved now. It may take long: some are seldom due."""
    check_schedule(schedule)
    if schedule.at is not None and schedule.at <= now:
        raise Refused("invalid", _("this is over: choose a moment to come"), field="at")
    if entry is not None and entry.script.schedule == schedule and entry.next_at is not None:
        return list(islice(dues(entry), NEXT_DUES))
    script = Script(name="x", path="/x", schedule=schedule)
    typed = Entry(script=script, created_at=now, changed_at=now, anchor=now, next_at=now)
    return list(islice(dues(typed), 1, NEXT_DUES + 1))
