"""What a command is asked the hub with: its spec checked, the tasks that it names looked up in the archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from koubou_panel import registry
from koubou_panel.archive.sqlite import Archive
from koubou_panel.core.catalogue import run_request
from koubou_panel.core.commands import (
    Caller,
    CancelTask,
    Command,
    RetryTask,
    RunScript,
    SendInput,
    SubmitTask,
)
from koubou_panel.core.decide import MAX_AFTER, check_role
from koubou_panel.core.ids import is_task_id
from koubou_panel.core.keys import COMPARED
from koubou_panel.core.records import FINISHED, Status, Task, TaskId
from koubou_panel.core.script import find_entry
from koubou_panel.engines.local import LocalEngine
from koubou_panel.errors import Refused
from koubou_panel.kinds.call import hand_on
from koubou_panel.kinds.spill import Gone
from koubou_panel.shop.clock import Clock
from koubou_panel.shop.hub import Hub
from koubou_panel.shop.inputs import check_input, hand_over
from koubou_panel.shop.reading import Read
from koubou_panel.shop.step import Ask, Reply

FOUND = (RetryTask, CancelTask, SendInput)


class Asking:
    """Completes commands for the hub, which decides without waiting. Loop thread only.

    Args:
        hub: which is asked.
        archive: of tasks that the state has forgotten.
        values: the folder of large arguments.
        read: reads it off the loop.
        clock: gives UTC seconds.
        engine: gives the engine, which hands input over.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        archive: Archive,
        values: Path,
        read: Read,
        clock: Clock,
        engine: Callable[[], LocalEngine | None],
    ) -> None:
        self._hub = hub
        self._archive = archive
        self._values = values
        self._read = read
        self._clock = clock
        self._engine = engine

    async def ask(self, command: Command, caller: Caller, reply: Reply) -> Ask:
        """The command as the hub is asked it, with what is to be done once it is decided."""
        ask = await self._checked(command, caller)
        ask.reply = partial(self._hand_over, command, reply) if type(command) is SendInput else reply
        return ask

    async def _checked(self, command: Command, caller: Caller) -> Ask:
        """The command with its spec checked, and with the archived task where it is about an old one."""
        if type(command) is SubmitTask:
            await self._check_id(command.request.task_id)
            command = SubmitTask(registry.prepare(command.request, from_network=caller.from_network))
            found = await self._by_key(command, caller)
            return Ask(command, caller, _nowhere, found, await self._ended(command.request.after))
        if type(command) is RetryTask:
            await self._check_id(command.new_id)
        if type(command) is SendInput:
            check_input(command)
        if type(command) is RunScript:
            return await self._checked_run(command, caller)
        if isinstance(command, FOUND):
            found = await self._found(command)
            if type(command) is RetryTask and command.spec is not None and found is not None:
                changed = replace(found.request, spec=command.spec)
                checked = registry.prepare(changed, from_network=False)
                command = replace(command, spec=checked.spec)
            return Ask(command, caller, _nowhere, found)
        return Ask(command, caller, _nowhere)

    async def _checked_run(self, command: RunScript, caller: Caller) -> Ask:
        """A run of a script, as the task that it is."""
        check_role(command, caller.role)
        await self._check_id(command.task_id)
        if command.name not in self._hub.state.scripts:
            await self._hub.stored()  # one of the commands before this may have added it
        entry = find_entry(self._hub.state.scripts, command.name)
        request = registry.prepare(run_request(entry.script, command), from_network=False)
        found = await self._by_key(command, caller)
        command = replace(command, request=request)
        return Ask(command, caller, _nowhere, found, await self._ended(request.after))

    async def _by_key(self, command: Command, caller: Caller) -> Task | None:
        """The task that may have the key of a command from a public door or a page, to compare the two."""
        is_compared = caller.from_network or caller.by.startswith(COMPARED)
        task_id = self._hub.known.by_key(command, caller.by) if is_compared else None
        return None if task_id is None else await self._get(task_id)

    def _hand_over(self, command: SendInput, reply: Reply, answer: TaskId | Refused | None) -> None:
        """Go on with input that was allowed, or not; what began the run is stored by now, and done."""
        if isinstance(answer, Refused):
            reply(answer)
        else:
            hand_over(command, self._hub.state.tasks.get(command.task_id), self._engine(), reply)

    async def _check_id(self, task_id: TaskId) -> None:
        """Refuse an id that is none, or that a task had which ended long ago; the hub knows what ended lately."""
        if not is_task_id(task_id):
            raise Refused("invalid", f"{task_id[:40]!r} is no task id; next_id() makes one", field="task_id")
        known = self._hub.known
        if task_id in self._hub.state.tasks or task_id in known or known.is_certain(task_id, self._clock()):
            return
        if await self._read(self._archive.get, task_id) is not None:
            raise Refused("conflict", f"task {task_id} was submitted before and has ended")

    async def _ended(self, task_ids: Sequence[TaskId]) -> dict[TaskId, Status]:
        """How those ended that have left the state. Their end may be on its way to the archive still."""
        wanted = [task_id for task_id in task_ids[:MAX_AFTER] if is_task_id(task_id)]
        ended = await self._read_ended(wanted)
        if any(task_id not in ended and task_id not in self._hub.state.tasks for task_id in wanted):
            await self._hub.stored()
            ended = await self._read_ended(wanted)
        return ended

    async def _read_ended(self, task_ids: Sequence[TaskId]) -> dict[TaskId, Status]:
        left = [task_id for task_id in task_ids if task_id not in self._hub.state.tasks]
        found = await self._read(self._archive.statuses, left) if left else {}
        return {task_id: status for task_id, status in found.items() if status in FINISHED}

    async def _found(self, command: RetryTask | CancelTask | SendInput) -> Task | None:
        task = self._hub.state.tasks.get(command.task_id)
        if task is not None and type(command) is not RetryTask:
            return task
        found = task or await self._read(self._archive.get, command.task_id)
        if found is None:
            return None
        payload = await self._read(self._archive.payload, command.task_id)
        if payload and type(command) is RetryTask and found.request.kind == "function":
            await self._keep_arguments(command, payload)
        return replace(found, request=replace(found.request, payload=payload))

    async def _keep_arguments(self, command: RetryTask, payload: bytes) -> None:
        """Have what is large of a task's arguments also be its retry's."""
        try:
            await self._read(hand_on, payload, self._values, command.task_id, command.new_id)
        except Gone:
            words = f"the arguments of task {command.task_id} are not kept any more: submit it again"
            raise Refused("not_found", words, field="task_id") from None
        except OSError as error:
            words = f"the arguments of task {command.task_id} cannot be given to another: {error}"
            raise Refused("storage", words, field="task_id") from None

    async def _get(self, task_id: TaskId) -> Task | None:
        return self._hub.state.tasks.get(task_id) or await self._read(self._archive.get, task_id)


def _nowhere(answer: TaskId | Refused | None) -> None:
    """A reply that nobody waits for."""
