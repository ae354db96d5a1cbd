"""The shell behind the catalogue: texts and their versions, what a definition is completed with, searches.

What the catalogue holds is decided in the core. Here are the files: everything that blocks runs in the readers'
threads, and one text is written at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from koubou_panel.archive.output import output_path
from koubou_panel.archive.search import search_log
from koubou_panel.archive.sqlite import Archive
from koubou_panel.archive.text import TextStore, encoded, inline_path, version_of
from koubou_panel.core.catalogue import save_script
from koubou_panel.core.commands import Caller, RemoveScript, SaveScript
from koubou_panel.core.decide import check_role
from koubou_panel.core.events import ScriptEdited
from koubou_panel.core.ports import (
    OutputMatch,
    OutputMatches,
    OutputRemoved,
    ScriptText,
    ScriptVersion,
    TaskQuery,
)
from koubou_panel.core.records import TaskId
from koubou_panel.core.script import Script, find_entry
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.shop.clock import Clock
from koubou_panel.shop.definition import (
    ask_help,
    completed,
    is_executable,
    is_to_be_read,
    text_of,
    wants_help,
    with_given,
)
from koubou_panel.shop.hub import Hub
from koubou_panel.shop.rotation import remove_ended
from koubou_panel.shop.step import Ask, Reply

T = TypeVar("T")
Settle = Callable[[Reply, TaskId | Refused | None], None]

SEARCH_S = 5.0
SEARCH_PAGE = 200
MOST_MATCHES = 1_000
MOST_CHARS = 1_000
TRIES = 5


class Scripts:
    """The files of a catalogue. Loop thread only.

    Args:
        hub: has the catalogue.
        archive: has the runs.
        home: has the texts and the output.
        clock: gives UTC seconds.
        read: runs a blocking function in a thread.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        archive: Archive,
        home: Home,
        clock: Clock,
        read: Callable[..., Awaitable[object]],
    ) -> None:
        """Nothing is read yet."""
        self._hub = hub
        self._archive = archive
        self._home = home
        self._clock = clock
        self._read = read
        self._texts = TextStore(home.scripts)
        self._writing = asyncio.Lock()
        self._undos: set[asyncio.Task[None]] = set()

    async def _in_thread(self, function: Callable[..., T], *args: object) -> T:
        return await self._read(function, *args)  # type: ignore[return-value]

    # -- texts ------------------------------------------------------------------------------------------------

    async def read_text(self, name: str, version: str | None) -> ScriptText:
        """A script's text; see `core.ports.Shop.read_script`."""
        path = find_entry(self._hub.state.scripts, name).script.path
        found, text, saved_at, is_current = await self._in_thread(self._texts.read, name, Path(path), version)
        return ScriptText(
            name=name, version=found, text=text, path=path, saved_at=saved_at, is_current=is_current
        )

    async def versions(self, name: str) -> list[ScriptVersion]:
        """The kept texts of a script, newest first."""
        path = find_entry(self._hub.state.scripts, name).script.path
        return await self._in_thread(self._texts.list, name, Path(path))

    async def save_text(self, name: str, text: str, base: str, caller: Caller) -> str:
        """Save a text; see `core.ports.Shop.save_script_text`."""
        script = find_entry(self._hub.state.scripts, name).script
        check_role(SaveScript(script), caller.role)
        path = Path(script.path)
        await self._in_thread(_said, script, text)
        async with self._writing:
            version, before = await self._in_thread(self._texts.save, name, path, text, base, caller.by)
        if before is None or version_of(before) != version:
            self._hub.note(ScriptEdited(self._clock(), name, version, caller.by))
            await self._follow_text(name, text, caller)
        return version

    async def _follow_text(self, name: str, text: str, caller: Caller) -> None:
        """Have the definition say what the text now says. Whoever changes it meanwhile goes first."""
        for _ in range(TRIES):
            entry = self._hub.state.scripts.get(name)
            if entry is None:
                return
            script = await self._completed(entry.script, text)
            if script == entry.script:
                return
            answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            command = SaveScript(script, revision=entry.revision)
            self._hub.ask(Ask(command, caller, answered.set_result))
            if not isinstance(await answered, Refused):
                return

    async def _completed(self, script: Script, text: str | None) -> Script:
        """A definition with all that its text says; its file is on the disk."""
        script = await self._in_thread(_said, script, text)
        if wants_help(script, text):
            script = replace(script, parameters=await self._in_thread(ask_help, script))
        return script

    async def restore(self, name: str, version: str, base: str, caller: Caller) -> str:
        """Save a kept version as the present text."""
        kept = await self.read_text(name, version)
        if kept.is_current:
            return kept.version
        return await self.save_text(name, kept.text, base, caller)

    # -- definitions ------------------------------------------------------------------------------------------

    async def prepared(self, command: SaveScript, caller: Caller) -> tuple[SaveScript, Settle]:
        """The command as it is to be decided, its text on the disk; and what is to be done with the answer.

        Raises:
            Refused: it would be refused now; nothing was written.
        """
        check_role(command, caller.role)
        entry = self._hub.state.scripts.get(command.script.name)
        before = None if entry is None or command.revision is None else entry.script
        command = self._placed(command, before)
        script, text = command.script, command.text
        # Whatever is wrong with it is told before anything is written.
        save_script(self._hub.state, command, self._clock(), caller.by)
        is_read = text is not None or is_to_be_read(script, before)
        if is_read:
            text = await self._in_thread(text_of, Path(script.path)) if text is None else text
            await self._in_thread(_said, script, text)
        if command.revision is None:
            fired_at = await self._in_thread(self._archive.last_fire, script.name)
            command = replace(command, fired_at=fired_at)
        settle = _passed_on if command.text is None else await self._written(command, caller)
        script = await self._completed(script, text) if is_read else script
        return replace(command, script=script), settle

    def _placed(self, command: SaveScript, before: Script | None) -> SaveScript:
        """The command with the place of its text, and with what its owner gave."""
        script = command.script
        if command.text is not None:
            encoded(command.text)
            path = inline_path(self._home.scripts, script.name, script.path)
            script = replace(script, path=str(path), is_inline=True)
        return replace(command, script=with_given(script, before))

    async def _written(self, command: SaveScript, caller: Caller) -> Settle:
        """Put the text of an inline script on the disk; what is to be done once its definition is decided."""
        name, path = command.script.name, Path(command.script.path)
        async with self._writing:
            version, held = await self._in_thread(
                self._texts.save, name, path, command.text or "", None, caller.by
            )

        def settle(reply: Reply, answer: TaskId | Refused | None) -> None:
            if isinstance(answer, Refused):
                self._put_back(path, version, held)
            else:
                self._hub.note(ScriptEdited(self._clock(), name, version, caller.by))
            reply(answer)

        return settle

    def _put_back(self, path: Path, version: str, before: bytes | None) -> None:
        """What was decided meanwhile would not have this text: have the file as it was."""

        async def undo() -> None:
            async with self._writing:
                await self._in_thread(self._texts.put_back, path, version, before)

        task = asyncio.get_running_loop().create_task(undo())
        self._undos.add(task)
        task.add_done_callback(self._undos.discard)

    # -- output -----------------------------------------------------------------------------------------------

    async def remove_output(self, name: str, caller: Caller) -> OutputRemoved:
        """Remove what the ended runs of a script printed; see `core.ports.Shop.remove_output`."""
        check_role(RemoveScript(name), caller.role)
        page = await self._in_thread(self._archive.find, TaskQuery(script=name, limit=1))
        if not page.tasks:
            find_entry(self._hub.state.scripts, name)
        return await self._in_thread(remove_ended, self._archive, self._home, name)

    async def search(self, script: str, text: str, limit: int) -> OutputMatches:
        """Lines of the output of a script's runs; see `core.ports.Shop.search_output`."""
        if not 1 <= limit <= MOST_MATCHES:
            raise Refused("invalid", f"limit must be 1 to {MOST_MATCHES}, not {limit}", field="limit")
        if not text.strip() or len(text) > MOST_CHARS or "\n" in text:
            words = f"the text to search for must be 1 to {MOST_CHARS} characters of one line"
            raise Refused("invalid", words, field="text")
        found = await self._in_thread(self._search, script, text, limit)
        if not found.runs:
            find_entry(self._hub.state.scripts, script)
        return found

    def _search(self, script: str, text: str, limit: int) -> OutputMatches:
        deadline = time.monotonic() + SEARCH_S
        matches: list[OutputMatch] = []
        runs = 0
        cursor: str | None = None
        while True:
            page = self._archive.find(TaskQuery(script=script, limit=SEARCH_PAGE, cursor=cursor))
            for task in page.tasks:
                runs += 1
                for found in search_log(output_path(self._home.output, task.task_id), text):
                    if found is not None:
                        if len(matches) == limit:
                            return OutputMatches(matches=matches, runs=runs, is_cut=True)
                        matches.append(
                            OutputMatch(
                                task_id=task.task_id, line=found.line, offset=found.offset, text=found.text
                            )
                        )
                    if time.monotonic() > deadline:
                        return OutputMatches(matches=matches, runs=runs, is_cut=True)
            cursor = page.cursor
            if cursor is None:
                return OutputMatches(matches=matches, runs=runs)


def _said(script: Script, text: str | None) -> Script:
    """A definition with what its text says, its `--help` apart."""
    return completed(script, text, is_executable=is_executable(Path(script.path)))


def _passed_on(reply: Reply, answer: TaskId | Refused | None) -> None:
    """Nothing was written that would have to follow the answer."""
    reply(answer)
