"""The shell behind the catalogue: texts and their versions, what a definition is completed with, searches.

What the catalogue holds is decided in the core. Here are the files: everything that blocks runs in the readers'
threads, and one text is written at a time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

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
    OutputHits,
    OutputMatch,
    OutputMatches,
    OutputRemoved,
    OutputSearch,
    ScriptText,
    ScriptVersion,
    TaskQuery,
)
from koubou_panel.core.records import TaskId
from koubou_panel.core.script import Parameter, Script, find_entry
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
from koubou_panel.shop.output_search import SEARCH_PAGE, SEARCH_S, OutputSearcher, check_search, check_text
from koubou_panel.shop.reading import Read
from koubou_panel.shop.rotation import remove_ended
from koubou_panel.shop.step import Ask, Reply

T = TypeVar("T")

MOST_SEARCHES = 4  # one at work; at its worst the last has an answer within four times SEARCH_S
MOST_MATCHES = 1_000
TRIES = 5


class Scripts:
    """The files of a catalogue. Loop thread only.

    Args:
        hub: has the catalogue.
        archive: has the runs.
        home: has the texts and the output.
        clock: gives UTC seconds.
        read: runs a blocking function on a thread of its own.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        archive: Archive,
        home: Home,
        clock: Clock,
        read: Read,
    ) -> None:
        """Nothing is read yet."""
        self._hub = hub
        self._archive = archive
        self._home = home
        self._clock = clock
        self._read = read
        self._texts = TextStore(home.scripts)
        self._writing: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
        self._work: set[asyncio.Task[object]] = set()
        self._searcher = ThreadPoolExecutor(1, thread_name_prefix="searcher")
        # Apart from the readers, which would all be taken by scripts that are slow to say what they take.
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="help")
        self._searches = 0
        self._stops: dict[str, threading.Event] = {}
        self._is_closing = threading.Event()

    async def _whole(self, work: Coroutine[object, object, T]) -> T:
        """Do it to its end, also when whoever asked goes away: half a save helps nobody."""
        return await asyncio.shield(self._begin(work))

    def _begin(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[T]) -> None:
        self._work.discard(task)
        if not task.cancelled():
            task.exception()  # who asked has it, if anybody still waits

    def _writer_of(self, path: Path) -> asyncio.Lock:
        """What whoever writes into the folder of `path` holds until it is decided whether that stays."""
        lock = self._writing.get(path.parent)
        if lock is None:
            lock = self._writing[path.parent] = asyncio.Lock()
        return lock

    async def close(self) -> None:
        """Wait for the saves that have begun; one whose turn to ask for help has not come yet is refused."""
        self._is_closing.set()
        self._searcher.shutdown(wait=False, cancel_futures=True)
        try:
            while self._work:
                await asyncio.wait(set(self._work))
        finally:
            self._helper.shutdown(wait=False)

    # -- texts ------------------------------------------------------------------------------------------------

    async def read_text(self, name: str, version: str | None) -> ScriptText:
        """A script's text; see `core.ports.Shop.read_script`."""
        path = find_entry(self._hub.state.scripts, name).script.path
        found, text, saved_at, is_current = await self._read(self._texts.read, name, Path(path), version)
        return ScriptText(
            name=name, version=found, text=text, path=path, saved_at=saved_at, is_current=is_current
        )

    async def versions(self, name: str) -> list[ScriptVersion]:
        """The kept texts of a script, newest first."""
        path = find_entry(self._hub.state.scripts, name).script.path
        return await self._read(self._texts.list, name, Path(path))

    async def save_text(self, name: str, text: str, base: str, caller: Caller) -> str:
        """Save a text; see `core.ports.Shop.save_script_text`."""
        return await self._whole(self._save_text(name, text, base, caller))

    async def _save_text(self, name: str, text: str, base: str, caller: Caller) -> str:
        script = find_entry(self._hub.state.scripts, name).script
        check_role(SaveScript(script), caller.role)
        path = Path(script.path)
        await self._read(_said, script, text)
        async with self._writer_of(path):
            version, before = await self._read(self._texts.save, name, path, text, base, caller.by)
        if _is_new(version, before):
            self._hub.note(ScriptEdited(self._clock(), name, version, caller.by))
        # Also where the text is the same: what its definition says may not have followed it yet.
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
        script = await self._read(_said, script, text)
        if wants_help(script, text):
            asking = asyncio.get_running_loop().run_in_executor(self._helper, self._ask_help, script)
            script = replace(script, parameters=await asking)
        return script

    def _ask_help(self, script: Script) -> tuple[Parameter, ...]:
        if self._is_closing.is_set():
            raise Refused("unavailable", "the workshop ends and asks no script what it takes; save it again")
        return ask_help(script)

    async def restore(self, name: str, version: str, base: str, caller: Caller) -> str:
        """Save a kept version as the present text."""
        kept = await self.read_text(name, version)
        if kept.is_current:
            return kept.version
        return await self.save_text(name, kept.text, base, caller)

    # -- definitions ------------------------------------------------------------------------------------------

    async def save(self, command: SaveScript, caller: Caller, reply: Reply) -> None:
        """Add or change a script; `reply` is called with what is decided, its text on the disk by then.

        Raises:
            Refused: it would be refused now; nothing was written, and `reply` is not called.
        """
        await self._whole(self._save(command, caller, reply))

    async def _save(self, command: SaveScript, caller: Caller, reply: Reply) -> None:
        check_role(command, caller.role)
        entry = self._hub.state.scripts.get(command.script.name)
        before = None if entry is None or command.revision is None else entry.script
        command = self._placed(command, before)
        # Whatever is wrong with it is told before anything is written.
        save_script(self._hub.state, command, self._clock(), caller.by)
        text = command.text
        is_read = text is not None or is_to_be_read(command.script, before)
        if is_read:
            text = await self._read(text_of, Path(command.script.path)) if text is None else text
            await self._read(_said, command.script, text)
        if command.revision is None:
            fired_at = await self._read(self._archive.last_fire, command.script.name)
            command = replace(command, fired_at=fired_at)
        if command.text is not None:
            await self._save_both(command, caller, reply)
            return
        if is_read:
            command = replace(command, script=await self._completed(command.script, text))
            await self._read(self._texts.note, command.script.name, Path(command.script.path))
        self._hub.ask(Ask(command, caller, reply))

    def _placed(self, command: SaveScript, before: Script | None) -> SaveScript:
        """The command with the place of its text, and with what its owner gave."""
        script = command.script
        if command.text is not None:
            encoded(command.text)
            if before is None or script.path != before.path:
                path = inline_path(self._home.scripts, script.name, script.path)
                script = replace(script, path=str(path), is_inline=True)
        return replace(command, script=with_given(script, before))

    async def _save_both(self, command: SaveScript, caller: Caller, reply: Reply) -> None:
        """Put a text on the disk, and have its definition decided, with nobody else's text between the two."""
        name, path, text = command.script.name, Path(command.script.path), command.text or ""
        lock = self._writer_of(path)
        await lock.acquire()
        written: tuple[str, bytes | None] | None = None
        try:
            # Who came first may have made it wrong.
            save_script(self._hub.state, command, self._clock(), caller.by)
            written = await self._read(self._texts.save, name, path, text, command.base, caller.by)
            command = replace(command, script=await self._completed(command.script, text))
        except BaseException:
            self._settle(command, written, lock, is_kept=False)
            raise

        version, before = written

        def settle(answer: TaskId | Refused | None) -> None:
            is_kept = not isinstance(answer, Refused)
            self._settle(command, written, lock, is_kept=is_kept)
            if is_kept and (command.revision is None or _is_new(version, before)):
                self._hub.note(ScriptEdited(self._clock(), name, version, caller.by))
            reply(answer)

        self._hub.ask(Ask(command, caller, settle))

    def _settle(
        self,
        command: SaveScript,
        written: tuple[str, bytes | None] | None,
        lock: asyncio.Lock,
        *,
        is_kept: bool,
    ) -> None:
        """Let the next one write; what would not be had is undone before."""
        if is_kept or written is None or not _is_new(*written):
            lock.release()
            return
        self._begin(self._put_back(command.script, *written, lock))

    async def _put_back(self, script: Script, version: str, before: bytes | None, lock: asyncio.Lock) -> None:
        """Have a file as it was. One that a script of the catalogue names is never taken away."""
        try:
            entries = self._hub.state.scripts.values()
            if before is not None or all(entry.script.path != script.path for entry in entries):
                await self._read(self._texts.put_back, Path(script.path), version, before)
        finally:
            lock.release()

    # -- output -----------------------------------------------------------------------------------------------

    async def remove_output(self, name: str, caller: Caller) -> OutputRemoved:
        """Remove what the ended runs of a script printed; see `core.ports.Shop.remove_output`."""
        check_role(RemoveScript(name), caller.role)
        page = await self._read(self._archive.find, TaskQuery(script=name, limit=1))
        if not page.tasks:
            find_entry(self._hub.state.scripts, name)
        with suppress(Refused):  # a disk that is full is no reason to remove nothing
            await self._hub.stored()  # the runs are the archive's, and one may just have ended
        return await self._read(remove_ended, self._archive, self._home, name)

    async def search(self, script: str, text: str, limit: int) -> OutputMatches:
        """Lines of the output of a script's runs; see `core.ports.Shop.search_output`."""
        if not 1 <= limit <= MOST_MATCHES:
            raise Refused("invalid", f"limit must be 1 to {MOST_MATCHES}, not {limit}", field="limit")
        check_text(text)
        found = await self._in_turn(partial(self._search, script, text, limit))
        if not found.runs:
            find_entry(self._hub.state.scripts, script)
        return found

    async def search_logs(self, search: OutputSearch) -> OutputHits:
        """Lines of the output of all tasks; see `core.ports.Shop.search_logs`."""
        check_search(search)
        stop = threading.Event()
        if search.by:
            self._stops.pop(search.by, threading.Event()).set()
            self._stops[search.by] = stop
        look = OutputSearcher(
            self._archive, self._home, search, lambda: stop.is_set() or self._is_closing.is_set()
        )
        try:
            return await self._in_turn(look)
        finally:
            stop.set()  # also when whoever asked went away
            if self._stops.get(search.by) is stop:
                del self._stops[search.by]

    async def _in_turn(self, look: Callable[[], T]) -> T:
        """Search in the one thread for that: what else is read never waits for a search.

        Raises:
            Refused: `unavailable`: as many wait as may.
        """
        if self._searches >= MOST_SEARCHES:
            words = f"{MOST_SEARCHES} searches of output are under way already; try again in a few seconds"
            raise Refused("unavailable", words)
        self._searches += 1
        searching = asyncio.get_running_loop().run_in_executor(self._searcher, look)
        searching.add_done_callback(self._searched)
        return await searching

    def _searched(self, searching: asyncio.Future[T]) -> None:
        self._searches -= 1
        if not searching.cancelled():
            searching.exception()

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
                    if time.monotonic() > deadline or self._is_closing.is_set():
                        return OutputMatches(matches=matches, runs=runs, is_cut=True)
            cursor = page.cursor
            if cursor is None:
                return OutputMatches(matches=matches, runs=runs)


def _said(script: Script, text: str | None) -> Script:
    """A definition with what its text says, its `--help` apart."""
    return completed(script, text, is_executable=is_executable(Path(script.path)))


def _is_new(version: str, before: bytes | None) -> bool:
    """Whether a file that held `before` is another since it holds `version`."""
    return before is None or version_of(before) != version
