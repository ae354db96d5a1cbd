"""`/api/scripts`: the catalogue. Fields that are left out of a change stay as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Raw, Struct

from koubou_panel.archive.text import encoded, version_of
from koubou_panel.core.commands import EnableScript, RemoveScript, RunScript, SaveScript
from koubou_panel.core.records import OnCrash, TaskId
from koubou_panel.core.script import Entry, Script, find_entry
from koubou_panel.core.state import State
from koubou_panel.errors import Refused
from koubou_panel.servers.api.fault import Conflict, Nothing, read_as
from koubou_panel.servers.api.handler import ApiHandler
from koubou_panel.servers.api.script_fields import ScriptFields, definition, merged, read_fields
from koubou_panel.wire.commands import After, Id, Labels, Priority, Retries, Seconds, Spec
from koubou_panel.wire.messages import encode
from koubou_panel.wire.script import script_record

TRIES = 3
SCRIPTS = 1_000
MAX_SCRIPTS = 10_000


class RunFields(Struct, frozen=True):
    """What a run may be given; the rest is as the script says."""

    parameters: Spec | None = None
    priority: Priority | None = None
    timeout: Seconds | None = None
    retries: Retries | None = None
    on_crash: OnCrash | None = None
    labels: Labels | None = None
    idempotency_key: Id | None = None
    after: After | None = None


class CatalogueHandler(ApiHandler):
    """Scripts in general, one script in particular."""

    def entry(self, name: str) -> Entry:
        """The script of that name.

        Raises:
            Refused: `not_found`, with the nearest name.
        """
        return find_entry(self.api.shop.state.scripts, name)

    def show(self, entry: Entry, more: Mapping[str, object] | None = None, *, status: int = 200) -> None:
        """Answer with a script in full."""
        shows_env = self.verdict.role.value == "full"
        self.set_header("Etag", f'"{entry.revision}"')
        self.answer(shown(entry, shows_env=shows_env) | dict(more or {}), status)

    def expected(self, told: ScriptFields) -> int | None:
        """The revision that a change is made on; None where it does not matter."""
        header = self.request.headers.get("If-Match")
        if header is None or header.strip() == "*":
            return None if told.revision is UNSET else told.revision
        found = re.fullmatch(r'\s*(?:W/)?"?(\d{1,15})"?\s*', header)
        if found is None:
            words = 'If-Match must be the Etag that the script was shown with, such as "3"'
            raise Refused("invalid", words, field="If-Match")
        return int(found[1])

    def check_revision(self, entry: Entry, expected: int | None) -> None:
        """Refuse a change made on a stale copy, and tell both sides.

        Raises:
            Conflict: 412 where If-Match said the revision, else 409.
        """
        if expected is None or expected == entry.revision:
            return
        words = (
            f"script {entry.name!r} was changed meanwhile: yours is revision {expected}, "
            f"the present one {entry.revision}"
        )
        sides = {"yours": expected, "current": entry.revision, "script": script_record(entry)}
        code = "stale" if "If-Match" in self.request.headers else "conflict"
        raise Conflict(words, sides=sides, field="revision", code=code)

    async def change(self, name: str, told: ScriptFields) -> None:
        """Change the script as it stands, its text too; again where another came between and does not matter."""
        expected = self.expected(told)
        for _ in range(TRIES - 1):
            try:
                await self._change_once(name, told, expected)
            except Refused as refused:
                if isinstance(refused, Conflict) or refused.field != "revision":
                    raise
            else:
                return
        await self._change_once(name, told, expected)

    async def _change_once(self, name: str, told: ScriptFields, expected: int | None) -> None:
        entry = self.entry(name)
        self.check_revision(entry, expected)
        script = merged(entry.script, told)
        if told.text is UNSET:
            await self.carry_out(SaveScript(script, entry.revision))
        else:
            if script.path != entry.script.path:
                words = (
                    "a text is saved to the file that the script has: change its path first, then the text"
                )
                raise Refused("invalid", words, field="path")
            await self._change_both(SaveScript(script, entry.revision, text=told.text), told)
        revision = entry.revision + (script != entry.script)
        await self.see(lambda state: has(state, name, revision))

    async def _change_both(self, command: SaveScript, told: ScriptFields) -> None:
        """Save a text and its definition: both, or neither."""
        name = command.script.name
        base = await self._present(name) if told.version is UNSET else told.version
        try:
            await self.carry_out(msgspec.structs.replace(command, base=base))
        except Refused as refused:
            if refused.code != "conflict" or refused.field != "base":
                raise
            sides = {"yours": base, "current": await self._present(name)}
            raise Conflict(refused.message, sides=sides, field="version") from None

    async def _present(self, name: str) -> str:
        try:
            return (await self.ask(self.api.shop.read_script(name))).version
        except Refused as refused:
            if refused.code != "not_found":
                raise
            return ""


class ScriptsHandler(CatalogueHandler):
    """`GET` lists the catalogue, `POST` adds to it."""

    async def get(self) -> None:
        """List scripts by name."""
        self.check_query("limit", "offset")
        limit = self.number("limit", usual=SCRIPTS, most=MAX_SCRIPTS)
        offset = self.number("offset", usual=0, most=MAX_SCRIPTS, least=0)
        entries = list(self.api.shop.state.scripts.values())

        def listed() -> dict[str, object]:
            page = sorted(entries, key=lambda entry: entry.name)[offset : offset + limit]
            return {"scripts": [Raw(encode(script_record(entry))) for entry in page], "total": len(entries)}

        await self.answer_aside(listed)

    async def post(self) -> None:
        """Add a script: a file by its path, or a text that is kept in the home."""
        self.check_query()
        told = read_fields(self.body())
        if told.name is UNSET:
            raise Refused("invalid", "name is missing", field="name")
        if told.path is UNSET and told.text is UNSET:
            raise Refused("invalid", "path is missing (or text, to keep the script here)", field="path")
        path = "" if told.path is UNSET else told.path
        if told.text is not UNSET and "/" in path:
            words = "a script with a text is kept in the home: leave path out, or give a file's name alone"
            raise Refused("invalid", words, field="path")
        # No limit, where it was said, is not to be made good by what the script's header has.
        is_unlimited = told.timeout is not UNSET and not told.timeout
        given = ("timeout_s",) if is_unlimited else ()
        script = merged(Script(name=told.name, path=path, given=given), told)
        text = None if told.text is UNSET else told.text
        await self.carry_out(SaveScript(script, text=text))
        await self.see(lambda state: script.name in state.scripts)
        entry = self.entry(script.name)
        self.set_header("Location", f"/api/scripts/{quoted(entry.name)}")
        self.show(entry, status=201)


class ScriptHandler(CatalogueHandler):
    """`GET` shows a script, `PUT` changes it, `DELETE` takes it out of the catalogue."""

    async def get(self, name: str) -> None:
        """Show a script; with `text=1` its text and the version of that."""
        self.check_query("text")
        entry = self.entry(name)
        more: dict[str, object] = {}
        if self.one("text") not in (None, "0"):
            text = await self.ask(self.api.shop.read_script(name))
            more = {"text": text.text, "version": text.version}
        self.show(entry, more)

    async def put(self, name: str) -> None:
        """Change a script, its text, or both."""
        self.check_query()
        told = read_fields(self.body())
        if told.name not in (UNSET, name):
            words = "a script keeps its name: add it anew under another, and remove this one"
            raise Refused("invalid", words, field="name")
        await self.change(name, told)
        more: dict[str, object] = {}
        if told.text is not UNSET:
            more = {"version": version_of(encoded(told.text))}
        self.show(self.entry(name), more)

    async def delete(self, name: str) -> None:
        """Remove a script; its file, its runs and their output stay."""
        self.check_query()
        entry = self.entry(name)
        self.check_revision(entry, self.expected(read_as(self.body(), ScriptFields)))
        await self.carry_out(RemoveScript(name))
        await self.see(lambda state: name not in state.scripts)
        self.answer({"removed": name, "script": script_record(entry)})


class RunHandler(CatalogueHandler):
    """`POST` submits a run."""

    runs_only = True

    async def post(self, name: str) -> None:
        """Submit a run, and answer once it is durable."""
        self.check_query()
        told = read_as(self.body(), RunFields)
        self.entry(name)
        shop = self.api.shop
        command = RunScript(
            name,
            shop.next_id(),
            told.parameters or {},
            priority=told.priority,
            timeout_s=told.timeout or None,
            retries=told.retries,
            on_crash=told.on_crash,
            labels=told.labels or {},
            idempotency_key=told.idempotency_key,
            after=tuple(map(TaskId, told.after or ())),
        )
        task_id = await self.carry_out(command)
        task = shop.state.tasks.get(TaskId(task_id or "")) or await self.ask(shop.get(TaskId(task_id or "")))
        self.answer({"task_id": task_id, "status": task.status if task else "pending"}, 202)


class EnableHandler(CatalogueHandler):
    """`POST` lets the schedule run the script, or no more."""

    def initialize(self, api: object, *, is_enabled: bool) -> None:  # type: ignore[override]
        """Keep which of the two."""
        super().initialize(api)  # type: ignore[arg-type]
        self._is_enabled = is_enabled

    async def post(self, name: str) -> None:
        """Do it; a second time it changes nothing."""
        self.check_query()
        read_as(self.body(), Nothing)
        self.entry(name)
        await self.carry_out(EnableScript(name, self._is_enabled))
        await self.see(lambda state: is_as_said(state, name, is_enabled=self._is_enabled))
        self.show(self.entry(name))


def has(state: State, name: str, revision: int) -> bool:
    """Whether a script is that revision, or beyond; or is no more."""
    entry = state.scripts.get(name)
    return entry is None or entry.revision >= revision


def is_as_said(state: State, name: str, *, is_enabled: bool) -> bool:
    """Whether a script's schedule runs it, or not; or it is no more."""
    entry = state.scripts.get(name)
    return entry is None or entry.script.is_enabled == is_enabled


def shown(entry: Entry, *, shows_env: bool) -> dict[str, object]:
    """A script in full: its record, and what the record leaves out."""
    return msgspec.structs.asdict(script_record(entry)) | definition(entry.script, shows_env=shows_env)


def quoted(name: str) -> str:
    """A script's name as it stands in an address."""
    return quote(name, safe="")
