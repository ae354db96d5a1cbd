"""The client's end of the private link: one connection at a time, made again by itself, and the calls on it."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from koubou_panel.core.commands import Caller, Command, RetryTask, RunScript, SubmitTask
from koubou_panel.core.ports import Link, LinkStatus
from koubou_panel.errors import CorruptStream, KoubouError, ProtocolFault, Refused
from koubou_panel.shop.address import connect_private
from koubou_panel.wire import link
from koubou_panel.wire.questions import Question

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
STEADY_S = 5.0  # a connection that held this long is no failed attempt
SILENT_S = 3.0  # the workshop says something each second
ENDED_S = 0.4  # one that ends may make room for the next: it takes a moment to come
LOOK_S = 0.1
AGAIN_S = 1.0
WAIT_S = 10.0
UNREAD = "bad_frame"  # the workshop hung up on what it was sent: sent again, it would again

Handler = Callable[[link.ServerMessage], None]
WhyEnded = Callable[[], str | None]

log = logging.getLogger(__name__)


class Call:
    """Something sent that is answered once. `future` has the answer; loop thread only."""

    def __init__(self, *, is_repeatable: bool) -> None:
        """`is_repeatable`: sending it twice does nothing that sending it once does not."""
        self.id = 0
        self.is_repeatable = is_repeatable
        self.is_sent = False
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None

    def frame(self) -> bytes:
        """The bytes to send, now."""
        raise NotImplementedError

    def take(self, value: object) -> object:
        """What the answer means."""
        return value


class DoCall(Call):
    """Commands to carry out, all of them repeatable or none."""

    def __init__(self, commands: Sequence[Command], caller: Caller) -> None:
        """The commands, in order."""
        super().__init__(is_repeatable=is_repeatable(commands[0]))
        self._commands = list(commands)
        self._caller = caller

    def frame(self) -> bytes:
        """The frame; it says so if an earlier one may have arrived."""
        return link.encode(link.Do(self.id, self._caller, self._commands, self.is_sent))


class AskCall(Call):
    """A question."""

    def __init__(self, question: Question) -> None:
        """The question."""
        super().__init__(is_repeatable=True)
        self._question = question

    def frame(self) -> bytes:
        """The frame."""
        return link.encode(link.Ask(self.id, self._question))

    def take(self, value: object) -> object:
        """The answer, as the question's type says."""
        return link.answered(self._question, cast("Any", value))


def is_repeatable(command: Command) -> bool:
    """Whether a command names the task that it makes, so that a second sending makes no second one."""
    return isinstance(command, SubmitTask | RetryTask | RunScript)


class Connection(asyncio.Protocol):
    """The link to the socket at `path`. Loop thread only.

    Args:
        path: the workshop's socket.
        by: who connects, for the workshop's log.
        replica: whether every event is wanted.
        handler: is given every message that answers no call, `Welcome` included.
        why_ended: says why a workshop that does not answer is not to be waited for, and blocks; None: it may return.
    """

    def __init__(
        self, path: Path, *, by: str, replica: bool, handler: Handler, why_ended: WhyEnded = lambda: None
    ) -> None:
        """Not connected before `start`."""
        self.path = path
        self.why: Refused | None = None
        self.tried = asyncio.Event()
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        self._hello = link.encode(link.Hello(link.VERSION, python, by, replica))
        self._handler = handler
        self._half = link.ClientHalf()
        self._transport: asyncio.Transport | None = None
        self._is_up = False
        self._lost = asyncio.Event()
        self._heard_at = time.monotonic()
        self._calls: dict[int, Call] = {}
        self._last_id = 0
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._why_ended = why_ended
        self._absent_since: float | None = None
        self._wanted = asyncio.Event()
        #: Why the workshop is not waited for, in words; empty while it may be back by itself.
        self.ended = ""
        #: Called when the link is cut, and when it is known that the workshop has ended.
        self.on_cut: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to connect, and connect again whenever the link is cut."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Hang up for good; whoever still waits is refused."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._transport is not None:
            self._transport.close()
        for call in tuple(self._calls.values()):
            self._refuse(call, "the link to the workshop was closed")

    @property
    def status(self) -> Link:
        """How fresh what came is."""
        lag_s = time.monotonic() - self._heard_at
        status: LinkStatus = "reconnecting"
        if self._is_closed or self.ended:
            status = "closed"
        elif self._is_up:
            status = "live" if lag_s < SILENT_S else "stale"
        return Link(status, lag_s)

    # -- calls ------------------------------------------------------------------------------------------------

    async def call(self, call: Call) -> Any:
        """Send `call`, now or when the link is back within `WAIT_S`, and wait for the answer.

        A workshop that has ended is looked for once, at once.

        Raises:
            Refused: by the workshop; or `unavailable`: there is no link, or it was cut at a bad moment.
            ProtocolFault: code `too_large` or `invalid`: no frame can hold it; nothing was sent.
        """
        if self._is_closed:
            raise self._unavailable("the link to the workshop was closed")
        self._last_id += 1
        call.id = self._last_id
        frame = call.frame()
        self._calls[call.id] = call
        if self._is_up and self._transport is not None:
            self._transport.write(frame)
            call.is_sent = True
        else:
            self._wait_for_link(call)
            if self.ended:
                self._wanted.set()
        try:
            return await call.future
        finally:
            self._calls.pop(call.id, None)
            if call.timer is not None:
                call.timer.cancel()

    def post(self, message: link.Follow | link.Unfollow) -> None:
        """Send what is not answered, if there is a link."""
        if self._is_up and self._transport is not None:
            self._transport.write(link.encode(message))

    def _wait_for_link(self, call: Call) -> None:
        if call.timer is None:  # else it waits already: several cuts do not make it wait longer
            loop = asyncio.get_running_loop()
            call.timer = loop.call_later(WAIT_S, self._refuse, call, "the workshop does not answer")

    def _refuse(self, call: Call, message: str) -> None:
        if not call.future.done():
            call.future.set_exception(self._unavailable(message))

    def _unavailable(self, message: str) -> Refused:
        return Refused("unavailable", f"{message}; `koubou status` says how it is, `koubou up` starts it")

    def _resend(self) -> None:
        for call in tuple(self._calls.values()):
            if call.timer is not None:
                call.timer.cancel()
                call.timer = None
            if self._transport is not None and not call.future.done():
                self._transport.write(call.frame())
                call.is_sent = True

    def _sort_out_calls(self) -> None:
        """After a cut: what is safe waits for the link, the rest is refused."""
        unread = f" ({self.why.message})" if self.why is not None and self.why.code == UNREAD else ""
        for call in tuple(self._calls.values()):
            if not call.is_sent or (call.is_repeatable and not unread):
                self._wait_for_link(call)
            elif not call.future.done():
                message = (
                    "the link to the workshop was cut after the command was sent: it may have been carried out "
                    "or not; look before you ask again"
                )
                call.future.set_exception(Refused("unavailable", message + unread))

    # -- the connection ---------------------------------------------------------------------------------------

    async def _run(self) -> None:
        delay_s = FIRST_DELAY_S
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock = await asyncio.to_thread(connect_private, self.path)
                self._lost.clear()
                await loop.create_unix_connection(lambda: self, sock=sock)
            except OSError as error:
                self._failed(_nobody(self.path, error))
                await self._look_whether_ended()
            else:
                began = time.monotonic()
                await self._lost.wait()
                if time.monotonic() - began > STEADY_S:
                    delay_s = FIRST_DELAY_S
            await self._rest(delay_s)
            delay_s = min(LONGEST_DELAY_S, 2 * delay_s)

    async def _rest(self, delay_s: float) -> None:
        """Until the next try: a moment where it is not certain that the workshop has ended; then until it is wanted."""
        if self._absent_since is not None:
            delay_s = AGAIN_S if self.ended else LOOK_S
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._wanted.wait()
        self._wanted.clear()

    async def _look_whether_ended(self) -> None:
        """Nobody answers: if nobody is to, whoever waits is told so."""
        self._wanted.clear()
        calls = tuple(self._calls.values())  # those that come meanwhile are looked for anew
        why = await asyncio.to_thread(self._why_ended)
        now = time.monotonic()
        if why is None:
            self._absent_since, self.ended = None, ""
            return
        self._absent_since = now if self._absent_since is None else self._absent_since
        if now - self._absent_since < ENDED_S:
            return
        is_new, self.ended = not self.ended, why
        if is_new:
            self.on_cut()
        for call in calls:
            if not call.future.done():
                call.future.set_exception(Refused("unavailable", why))

    def _failed(self, why: Refused) -> None:
        self.why = why
        self.tried.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce this process."""
        self._transport = cast("asyncio.Transport", transport)
        self._half = link.ClientHalf()
        self._transport.write(self._hello)

    def connection_lost(self, exc: Exception | None) -> None:
        """Have the loop connect again."""
        self._transport = None
        self._is_up = False
        self._failed(self.why or _nobody(self.path, exc))
        self._sort_out_calls()
        self._lost.set()
        self.on_cut()

    def data_received(self, data: bytes) -> None:
        """Take in what the workshop says; after nonsense, connect anew."""
        self._heard_at = time.monotonic()
        try:
            for message in self._half.receive(data):
                self._take(message)
        except (ProtocolFault, CorruptStream, Refused) as error:
            log.warning("the private link is connected anew: %s", error)
            self._break(error)
        except Exception as error:
            log.exception("a message of the workshop could not be taken in")
            self._break(KoubouError(str(error)))

    def _break(self, error: KoubouError) -> None:
        self.why = error if isinstance(error, Refused) else Refused("unavailable", error.message)
        if self._transport is not None:
            self._transport.abort()

    def _take(self, message: link.ServerMessage) -> None:
        match message:
            case link.Welcome():
                self._is_up = True
                self.why = None
                self._absent_since, self.ended = None, ""
                self._handler(message)
                self._resend()
            case link.Replies(call=call_id, results=value) | link.Answer(call=call_id, value=value):
                self._answer(call_id, value)
            case link.Failed(call=call_id, refusal=refusal):
                call = self._calls.get(call_id)
                if call is not None and not call.future.done():
                    call.future.set_exception(link.refused(refusal))
            case _:
                self._handler(message)

    def _answer(self, call_id: int, value: object) -> None:
        call = self._calls.get(call_id)
        if call is None or call.future.done():
            return
        try:
            call.future.set_result(call.take(value))
        except ProtocolFault as fault:  # asked again, it would be answered the same
            call.future.set_exception(Refused("internal", fault.message))


def _nobody(path: Path, error: Exception | None) -> Refused:
    why = error.strerror if isinstance(error, OSError) and error.strerror else "it hung up"
    return Refused("unavailable", f"no workshop answers at {path} ({why}); `koubou up` starts one")
