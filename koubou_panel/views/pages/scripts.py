"""The scripts of the catalogue: what each is, when it runs, how its runs went; its definition, its text, its output."""

from __future__ import annotations

import hashlib

import param

from koubou_panel.errors import KoubouError
from koubou_panel.reactive.mirror import Changes
from koubou_panel.views.cards import Card, Message, set_changed
from koubou_panel.views.language import later
from koubou_panel.views.script_asks import ScriptAsks
from koubou_panel.views.script_look import Looker
from koubou_panel.views.script_rows import script_detail, script_row
from koubou_panel.views.visit import Visit

PAGE_ROWS = 50
FIND_CHARS = 200


class ScriptsCard(Card):
    """The catalogue; in its place one script, or its editor, as the address says.

    Sends `see` (which script is open, what is looked for, which page of the list); asks what `ScriptAsks` answers.
    """

    rows = param.List(default=[], doc="see `script_row`")
    total = param.Integer(default=0, doc="how many scripts match what is looked for")
    all = param.Integer(default=0, doc="how many there are")
    detail = param.Dict(default={}, doc="see `script_detail`; `gone`: there is no such script")
    role = param.String(default="read")
    home = param.String(doc="names the home: drafts are kept by it")
    editor = param.String(doc="where the editor's files are, beside this card's own")


class ScriptsPage:
    """`?page=scripts`, with `&script=NAME`, and with `&edit=1`; `&add=1` for a new one."""

    name = "scripts"
    label = later("Scripts")
    place = 30

    def build(self, visit: Visit) -> ScriptsView:
        """The page for one visit."""
        return ScriptsView(visit)


class ScriptsView:
    """The page's one card, over the catalogue of the shop."""

    def __init__(self, visit: Visit) -> None:
        """Empty: see `draw`."""
        self._visit = visit
        self._find, self._page, self._open = "", 0, ""
        self._drawn: dict[str, object] = {}
        self._looker = Looker(visit.shop)
        self._looking = False
        self.root = visit.card(
            ScriptsCard,
            on_message=self._take,
            asks=ScriptAsks(visit, on_removed=self._removed).answers,
            role=visit.caller.role,
            home=_home_of(visit),
            editor=_editor_files(),
            sizing_mode="stretch_width",
        )

    def draw(self) -> None:
        """Show what the catalogue holds."""
        scripts = self._visit.shop.state.scripts
        self._drawn = dict(scripts)
        found = [scripts[name] for name in self._found()]
        shown = found[self._page * PAGE_ROWS :][:PAGE_ROWS]
        set_changed(
            self.root,
            rows=[script_row(entry, self._looker.of(entry.name)) for entry in shown],
            total=len(found),
            all=len(scripts),
            detail=self._detail(),
        )
        self._look([entry.name for entry in shown])

    def update(self, changes: Changes) -> None:
        """Show what changed. An entry that changed is another."""
        scripts = self._visit.shop.state.scripts
        drawn = self._drawn
        if (
            changes.reset
            or len(scripts) != len(drawn)
            or any(drawn.get(name) is not entry for name, entry in scripts.items())
        ):
            self.draw()

    def tick(self) -> None:
        """Once a second: count what is held of output some time after it changed. The browser counts time itself."""
        if self._looker.is_due:
            self.draw()

    def _found(self) -> list[str]:
        """The names of what is looked for, in order."""
        scripts, wanted = self._visit.shop.state.scripts, self._find.casefold()
        names = sorted(scripts, key=str.casefold)
        if not wanted:
            return names
        return [
            name
            for name in names
            if wanted in name.casefold() or wanted in scripts[name].script.description.casefold()
        ]

    def _detail(self) -> dict[str, object]:
        if not self._open:
            return {}
        entry = self._visit.shop.state.scripts.get(self._open)
        if entry is None:
            return {"name": self._open, "gone": True}
        return script_detail(entry, self._looker.of(entry.name), shows_env=self._visit.can_act)

    # -- what the browser sends -------------------------------------------------------------------------------

    def _take(self, kind: str, message: Message) -> None:
        if kind != "see":
            self._visit.act(kind, message)
            return
        name, find, page = message.get("script"), message.get("find"), message.get("page")
        self._open = name if isinstance(name, str) and len(name) <= FIND_CHARS else ""
        self._find = find.strip() if isinstance(find, str) and len(find) <= FIND_CHARS else ""
        self._page = page if isinstance(page, int) and 0 <= page <= len(self._drawn) // PAGE_ROWS else 0
        self.draw()

    # -- what is read beside the state ------------------------------------------------------------------------

    def _look(self, names: list[str]) -> None:
        """Read the runs of those whose runs changed, one script at a time, and show them."""
        scripts = self._visit.shop.state.scripts
        names = [self._open, *names] if self._open in scripts else names
        self._looker.want([scripts[name] for name in names if name in scripts])
        if self._looker.is_wanting and not self._looking:
            self._looking = True
            self._visit.spawn(self._read())

    def _removed(self, name: str) -> None:
        self._looker.forget(name)
        self._visit.locked(self.draw)

    async def _read(self) -> None:
        try:
            await self._looker.read()
        except KoubouError:  # the workshop is away: what it changes next is looked at again
            return
        finally:
            self._looking = False
        self._visit.locked(self.draw)


def _home_of(visit: Visit) -> str:
    root = "" if visit.home is None else str(visit.home.root)
    return hashlib.sha256(root.encode(errors="surrogateescape")).hexdigest()[:12]


def _editor_files() -> str:
    """Where Panel keeps the Ace editor that it brings along, below its folder of static files."""
    from panel.models.ace import AcePlot

    return f"bundled/{AcePlot.__name__.lower()}/{AcePlot.__tarball__['dest']}"
