"""One client of the private link: its commands and questions in, the state and its facts out. Loop thread only."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Protocol, cast

from koubou_panel.core.commands import Command, RetryTask, RunScript, SubmitTask
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import TaskId
from koubou_panel.core.state import Folded, without_payload
from koubou_panel.errors import ProtocolFault, Refused
from koubou_panel.servers.guard import peer_uid
from koubou_panel.wire import link, questions
from koubou_panel.wire.own import OwnTasks
from koubou_panel.wire.replica import outline, state_frames

BEHIND_BYTES = 8 << 20
CAUGHT_UP_BYTES = 1 << 20

log = logging.getLogger(__name__)


class Desk(Protocol):
    """What a client needs of the server that it belongs to."""

    shop: Shop
    python: str

    def joined(self, client: PrivateClient) -> None:
        """The client introduced itself."""

    def left(self, client: PrivateClient) -> None:
        """The client is gone."""


class InTurn(list[Command]):
    """The commands of a frame; `asked` is called once all have been asked, long before all are stored and answered.

    A shop takes a command when it has asked the one before: who takes more than there are has asked them all.
    """

    def __init__(self, commands: Iterable[Command], asked: Callable[[], None]) -> None:
        """Call `asked` whenever they have been gone through."""
        super().__init__(commands)
        self._asked = asked

    def __iter__(self) -> Iterator[Command]:
        """Each of them, then `asked`."""
        yield from super().__iter__()
        self._asked()


class PrivateClient(asyncio.Protocol):
    """One connection. `write` sends a frame; `feed` sends one that may be lost, and is made good by a reset."""

    def __init__(self, desk: Desk) -> None:
        """Wait for the connection."""
        self.followed: set[TaskId] = set()
        self._desk = desk
        self._half = link.ServerHalf(desk.python)
        self._transport: asyncio.Transport | None = None
        self._own = OwnTasks()
        self._is_fed = False
        self._backlog: deque[bytes] | None = None
        self._backlog_bytes = 0
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._state_task: asyncio.Task[None] | None = None
        self._questions: set[asyncio.Task[None]] = set()
        self._commands: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    @property
    def is_replica(self) -> bool:
        """Whether this client follows the whole state."""
        return self._half.hello is not None and self._half.hello.replica

    @property
    def is_behind(self) -> bool:
        """Whether so much waits to be read by this client that it is no longer fed."""
        return not self._can_write.is_set()

    # -- the connection ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let in this user's own processes alone."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=BEHIND_BYTES, low=CAUGHT_UP_BYTES)
        sock = self._transport.get_extra_info("socket")
        if sock is None or peer_uid(sock) != os.geteuid():
            log.warning("a process of another user was turned away from the private link")
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client; commands that it gave go on."""
        self._transport = None
        self._is_fed = False
        self._can_write.set()
        for task in (self._state_task, *self._questions):
            if task is not None:
                task.cancel()
        self._desk.left(self)

    def data_received(self, data: bytes) -> None:
        """Take in what the client says; what is not the protocol ends the connection with a word."""
        try:
            for message in self._half.receive(data):
                self._handle(message)
        except ProtocolFault as fault:
            log.warning("a client of the private link was sent away: %s", fault)
            self.write(link.encode(link.Goodbye(link.refusal(fault))))
            self.close()

    def pause_writing(self) -> None:
        """Stop feeding and listening until the client has read."""
        self._can_write.clear()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on; a replica that was not fed meanwhile starts anew."""
        self._can_write.set()
        if self._transport is None:
            return
        self._transport.set_write_buffer_limits(high=BEHIND_BYTES, low=CAUGHT_UP_BYTES)
        self._transport.resume_reading()
        for task_id in self.followed:
            self._start(self._tell_of(task_id), self._questions)
        if self.is_replica and not self._is_fed and self._backlog is None:
            self.send_state()

    def close(self) -> None:
        """Hang up once what was written is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    def write(self, frame: bytes) -> None:
        """Send a frame that must arrive."""
        if self._transport is None or self._transport.is_closing():
            return
        if len(frame) > CAUGHT_UP_BYTES:
            # A large answer is no sign of a client that does not read.
            waiting = self._transport.get_write_buffer_size()
            high = BEHIND_BYTES + waiting + len(frame)
            self._transport.set_write_buffer_limits(high=high, low=CAUGHT_UP_BYTES)
        self._transport.write(frame)

    # -- the state and its facts ------------------------------------------------------------------------------

    def feed(self, frame: bytes, *, is_sample: bool = False) -> None:
        """Send a frame to a replica that keeps up; queue it while the state is on its way."""
        if self._backlog is not None:
            if not is_sample:
                self._backlog.append(frame)
                self._backlog_bytes += len(frame)
        elif self._is_fed and self.is_behind:
            self._is_fed = is_sample  # a sample more or less is nothing, a fact must be made good
        elif self._is_fed and self._transport is not None:
            self._transport.write(frame)

    def valued(self, folded: Sequence[Folded]) -> set[TaskId]:
        """The tasks of its own that end here, and whose values are to come with the facts."""
        return self._own.ended(folded)

    def send_state(self) -> None:
        """Send the whole state, and from then on every fact."""
        if self._state_task is not None:
            self._state_task.cancel()
        self._state_task = asyncio.get_running_loop().create_task(self._send_state())

    def renew(self) -> None:
        """Send the whole state, as soon as the client reads."""
        if self.is_behind and self._backlog is None:
            self._is_fed = False
        else:
            self.send_state()

    async def _send_state(self) -> None:
        self._is_fed = False
        try:
            while True:
                self._backlog, self._backlog_bytes = deque(), 0
                for frame in state_frames(self._desk.shop.state.snapshot()):
                    await self._send(frame)
                while self._backlog and self._backlog_bytes <= BEHIND_BYTES:
                    frame = self._backlog.popleft()
                    self._backlog_bytes -= len(frame)
                    await self._send(frame)
                if not self._backlog:
                    break
        except ProtocolFault as fault:
            log.exception("the state is too large for the private link")
            self.write(link.encode(link.Goodbye(link.refusal(fault))))
            self.close()
            return
        self._backlog = None
        self._is_fed = True

    async def _send(self, frame: bytes) -> None:
        """Send one of many frames: not before the client has read, and not without letting others go on."""
        if self._transport is not None:
            self._transport.write(frame)
        await self._can_write.wait()
        await asyncio.sleep(0)

    # -- what the client says ---------------------------------------------------------------------------------

    def _handle(self, message: link.ClientMessage | link.Unreadable) -> None:
        match message:
            case link.Unreadable(call=call, refusal=refusal):
                log.warning("a request of a client of the private link was refused: %s", refusal.message)
                self.write(link.encode(link.Failed(call, refusal)))
            case link.Hello():
                epoch = self._desk.shop.state.epoch
                self.write(link.encode(link.Welcome(link.VERSION, epoch, os.getpid(), self._desk.python)))
                self._desk.joined(self)
                if message.replica:
                    self.send_state()
            case link.Do():
                self._start(self._do(message), self._commands)
            case link.Ask():
                self._start(self._answer(message), self._questions)
            case link.Follow(task_id=task_id):
                self.followed.add(task_id)
                self._start(self._tell_of(task_id), self._questions)
            case link.Unfollow(task_id=task_id):
                self.followed.discard(task_id)

    def _start(self, work: Coroutine[Any, Any, None], kept: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        kept.add(task)
        task.add_done_callback(kept.discard)

    async def _do(self, message: link.Do) -> None:
        try:
            results = await self._carry_out(message)
            frame = link.encode(link.Replies(message.call, results))
        except Exception:
            log.exception("a command over the private link failed")
            frame = _failed(message.call)
        self.write(frame)

    async def _carry_out(self, message: link.Do) -> list[TaskId | link.Refusal | None]:
        results: list[TaskId | link.Refusal | None] = [None] * len(message.commands)
        places: list[int] = []
        # A frame may name the tasks of the one before it, so it must not overtake that.
        await self._turn.acquire()
        with ExitStack() as turn:
            turn.callback(self._turn.release)
            for place, command in enumerate(message.commands):
                refusal = self._half.refuses(command)
                if refusal is not None:
                    results[place] = link.refusal(refusal)
                elif message.resent and (task_id := await self._known(command)):
                    results[place] = task_id
                else:
                    places.append(place)
            if not places:
                return results
            commands = [message.commands[place] for place in places]
            if self.is_replica:
                self._own.add(commands)
            answers = await self._desk.shop.do_many(InTurn(commands, turn.close), message.caller)
        self._own.keep(commands, answers)
        for place, answer in zip(places, answers, strict=True):
            results[place] = link.refusal(answer) if isinstance(answer, Refused) else answer
        return results

    async def _known(self, command: Command) -> TaskId | None:
        """The task that an earlier sending of `command` made, even one that has ended and left the state."""
        match command:
            case SubmitTask(request=request):
                task_id = request.task_id
            case RetryTask(new_id=task_id) | RunScript(task_id=task_id):
                pass
            case _:
                return None
        return task_id if await self._desk.shop.get(task_id) is not None else None

    async def _answer(self, message: link.Ask) -> None:
        try:
            frame = link.answer(message.call, await self._find_out(message.question))
        except (Refused, ProtocolFault) as error:
            frame = link.encode(link.Failed(message.call, link.refusal(error)))
        except Exception:
            log.exception("a question over the private link failed")
            frame = _failed(message.call)
        self.write(frame)

    async def _find_out(self, question: questions.Question) -> object:
        shop = self._desk.shop
        found: object
        match question:
            case questions.Find(query=query):
                found = await shop.find(query)
            case questions.Get(task_id=task_id):
                task = await shop.get(task_id)
                found = None if task is None else without_payload(task)
            case questions.Read(task_id=task_id, offset=offset, limit=limit):
                found = await shop.read_output(task_id, offset, limit)
            case questions.ReadBytes(task_id=task_id, offset=offset, limit=limit):
                found = await shop.read_bytes(task_id, offset, limit)
            case questions.Values(task_ids=task_ids):
                found = await shop.values(task_ids)
            case questions.MetricsSince(at=at):
                found = await shop.metrics_since(at)
            case questions.MetricsBinned(at=at, step_s=step_s):
                found = await shop.metrics_binned(at, step_s)
            case questions.Spans(start=start, end=end, most=most):
                found = await shop.spans(start, end, most)
            case questions.GetCurve(task_id=task_id):
                found = await shop.curve(task_id)
            case questions.Look():
                found = outline(shop.state)
            case _:
                found = await self._of_script(question)
        return found

    async def _of_script(self, question: questions.ScriptQuestion) -> object:
        shop = self._desk.shop
        found: object
        match question:
            case questions.ReadScript(name=name, version=version):
                found = await shop.read_script(name, version)
            case questions.ListVersions(name=name):
                found = await shop.script_versions(name)
            case questions.SaveText(name=name, text=text, base=base, caller=caller):
                found = await shop.save_script_text(name, text, base, caller)
            case questions.RestoreText(name=name, version=version, base=base, caller=caller):
                found = await shop.restore_script(name, version, base, caller)
            case questions.SearchOutput(script=script, text=text, limit=limit):
                found = await shop.search_output(script, text, limit)
            case questions.SearchLogs(search=search):
                found = await shop.search_logs(search)
            case questions.HeldOutput(task_ids=task_ids):
                found = await shop.held_output(task_ids)
            case questions.RemoveOutput(script=script, caller=caller):
                found = await shop.remove_output(script, caller)
        return found

    async def _tell_of(self, task_id: TaskId) -> None:
        with suppress(Refused):
            task = await self._desk.shop.get(task_id)
            if task_id in self.followed:
                self.write(link.encode(link.Now(task_id, None if task is None else without_payload(task))))


def _failed(call: int) -> bytes:
    refusal = link.Refusal("internal", "the workshop could not do this; its log says why")
    return link.encode(link.Failed(call, refusal))
