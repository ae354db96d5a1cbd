"""The settings: each with its value, where that comes from, and the file that keeps them, changed with care."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import param

from koubou_panel.config import (
    change_settings,
    in_use,
    preview_settings,
    restore_settings,
    setting_records,
)
from koubou_panel.errors import KoubouError, Refused
from koubou_panel.home import Home
from koubou_panel.reactive.mirror import Changes
from koubou_panel.settings import BY_NAME, FILE
from koubou_panel.views.cards import Card, set_changed
from koubou_panel.views.escape import line
from koubou_panel.views.language import _, later
from koubou_panel.views.settings_rows import READ_BY, diff_rows, setting_groups
from koubou_panel.views.visit import Visit

Message = Mapping[str, object]

LOOK_EVERY_S = 5
MOST_TYPED = 4_096


class SettingsPage:
    """`?page=settings`."""

    name = "settings"
    label = later("Settings")
    place = 80

    def build(self, visit: Visit) -> SettingsView:
        """The page for one visit."""
        return SettingsView(visit)


class SettingsCard(Card):
    """Every setting, and the file's change before it is written.

    Asks `preview` (changes → diff, faults, base), `save` (changes, base) and `undo`; sends `restart_service`.
    """

    groups = param.List(default=[], doc="of key, label, rows")
    file = param.String(doc="the file that keeps them")
    problem = param.String(doc="why nothing can be shown, or changed")
    hint = param.String(doc="said where there is no home whose settings could be shown")
    can_act = param.Boolean(default=False)
    can_restart = param.Boolean(default=False)
    can_undo = param.Boolean(default=False)


class SettingsView:
    """The page's one card, over the settings file of the visit's home. Under the document's lock."""

    def __init__(self, visit: Visit) -> None:
        """Empty: see `draw`."""
        self._visit = visit
        self._undo: tuple[str, str] | None = None
        self._is_reading = False
        self._ticks = 0
        home = visit.home
        self.root = visit.card(
            SettingsCard,
            file="" if home is None else line(str(home.root / FILE), 300),
            can_act=visit.can_act and home is not None,
            can_restart=visit.can_act and visit.restart_service is not None,
            asks={"preview": self.preview, "save": self.save, "undo": self.undo},
            sizing_mode="stretch_width",
        )

    def draw(self) -> None:
        """Show what the file and the environment say, as soon as they are read."""
        if self._visit.home is None:
            words = _(
                "A program holds this workshop itself and told it no home, so there is no settings file here. "
                "`koubou up` has one."
            )
            set_changed(self.root, hint=words)
        else:
            self._look()

    def update(self, changes: Changes) -> None:
        """Show what is in use now, where that changed."""
        if changes.reset or changes.services or {"min_workers", "max_workers"} & changes.shop:
            self.draw()

    def tick(self) -> None:
        """Look now and then whether someone else has changed the file."""
        self._ticks += 1
        if self._visit.home is not None and self._ticks % LOOK_EVERY_S == 0:
            self._look()

    def _look(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._visit.spawn(self.read())

    async def read(self) -> None:
        """Read the settings off the loop, and show them."""
        home, problem, records = self._home(), "", []
        try:
            visit = self._visit
            records = await asyncio.to_thread(setting_records, home, visit.environ, visit.flags)
        except (KoubouError, OSError) as error:
            problem = line(str(error), 600)
        finally:
            self._is_reading = False

        def show() -> None:
            if problem:
                set_changed(self.root, problem=problem)
            else:
                set_changed(self.root, groups=setting_groups(records, self._used()), problem="")

        self._visit.locked(show)

    async def preview(self, message: Message) -> Message:
        """What the file would say with these changes, and which of them cannot be."""
        changes = self._asked(message)
        found = await asyncio.to_thread(preview_settings, self._home(), changes, self._visit.environ)
        faults = {line(name): line(words, 300) for name, words in found.faults.items()}
        return {"diff": diff_rows(found.before, found.after), "faults": faults, "base": found.base}

    async def save(self, message: Message) -> Message:
        """Write them, if the file is the one that was looked at."""
        changes, base = self._asked(message), message.get("base")
        if not changes or not isinstance(base, str):
            raise Refused("invalid", _("There is nothing to save."))
        home, environ = self._home(), self._visit.environ
        done = await asyncio.to_thread(change_settings, home, changes, environ, base=base)
        if done.changed:
            self._undo = (done.before, done.base)
        return await self._written(done.changed)

    async def undo(self, _message: Message) -> Message:
        """Take the last save of this visit back, if nobody has changed the file since."""
        self._require_full()
        if self._undo is None:
            raise Refused("conflict", _("There is no save to take back."))
        text, base = self._undo
        changed = await asyncio.to_thread(restore_settings, self._home(), text, base=base)
        self._undo = None
        return await self._written(changed)

    async def _written(self, changed: list[str]) -> Message:
        """Show what the file says now; tell what changed, and which services read that when they are restarted."""
        await self.read()
        can_undo = self._undo is not None
        self._visit.locked(lambda: set_changed(self.root, can_undo=can_undo))
        services = {READ_BY.get(name, "") for name in changed if name not in self._visit.flags}
        return {"changed": changed, "services": sorted(services)}

    def _asked(self, message: Message) -> dict[str, object]:
        """The changes of a message: texts, or None for what is taken out of the file."""
        self._require_full()
        changes = message.get("changes")
        if not isinstance(changes, dict) or len(changes) > len(BY_NAME):
            raise Refused("invalid", _("That is no change of settings."))
        for name, value in changes.items():
            is_text = isinstance(value, str) and len(value) <= MOST_TYPED
            if not isinstance(name, str) or not (value is None or is_text):
                raise Refused("invalid", _("That is no change of settings."))
        return changes

    def _require_full(self) -> None:
        if not self._visit.can_act:
            raise Refused("forbidden", _("This visit may only look: open the page with the full token."))

    def _home(self) -> Home:
        if self._visit.home is None:
            raise Refused("not_found", _("There is no settings file here."))
        return self._visit.home

    def _used(self) -> dict[str, object]:
        try:
            return in_use(self._visit.shop.state)
        except Refused:  # the workshop is away
            return {}
