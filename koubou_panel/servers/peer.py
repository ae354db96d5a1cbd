"""One WebSocket connection inside this process: its session, its outbox, and its questions to the shop.

Both doors make one for each connection and hand it what comes in; it writes through a `Port`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from koubou_panel.core.commands import Caller, RetryTask, RunScript, SubmitTask
from koubou_panel.core.curve import Curve
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import Channel, Role
from koubou_panel.errors import Refused
from koubou_panel.servers.access import Allow
from koubou_panel.servers.access import Role as AccessRole
from koubou_panel.servers.frames import text_frame
from koubou_panel.servers.guard import Guard
from koubou_panel.servers.outbox import STUCK_S, Outbox, Port
from koubou_panel.wire.effects import (
    Answer,
    Call,
    Close,
    Do,
    Effect,
    Find,
    Follow,
    Get,
    GetCurve,
    Question,
    Read,
    Rewind,
    Send,
    Unfollow,
)
from koubou_panel.wire.session import Limits, Session, fact_channels

if TYPE_CHECKING:
    from koubou_panel.servers.feed import Feed

log = logging.getLogger(__name__)

MAX_OUTSTANDING = 16
SEND_BUFFER_BYTES = 128 * 1024
MAX_MESSAGE_BYTES = 1 << 20


class Peer:
    """One connection. Loop thread only; made by `Feed.join`."""

    def __init__(
        self,
        feed: Feed,
        port: Port,
        *,
        role: Role | None,
        verify: Callable[[str], Allow | None],
        by: str,
        close: Callable[[int, str], None],
        channels: frozenset[Channel],
        limits: Limits,
    ) -> None:
        """A connection that is not open yet; see `Feed.join` for the arguments."""
        self._feed = feed
        self._by = self._came_as = by
        self._close = close
        self._is_closing = False
        self._room: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._verify = verify
        self.session = Session(
            feed, role=role, verify=self._recognise, now=self._loop.time(), channels=channels, limits=limits
        )
        self.outbox = Outbox(
            port,
            feed.ring,
            initial_state=lambda: text_frame(feed.initial_state()),
            channels=lambda: fact_channels(self.session.channels),
            watch=feed.watch,
            on_live=self._advance,
            on_stuck=self._give_up,
        )
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has shown who it is, and is told what happens."""
        return self.session.role is not None and not self._is_closing

    def open(self) -> None:
        """Say what is said first, and begin to wait for a token where one is due."""
        self._carry_out(self.session.open())
        if self.session.deadline is not None:
            self._deadline = self._loop.call_at(self.session.deadline, self._expire)

    async def receive(self, frame: str | bytes) -> None:
        """Take in a text or binary frame; waits while its reader lags or too much is unanswered."""
        while not self._is_closing and self._is_full():
            self._room = self._loop.create_future()
            await self._room
        if self._is_closing:
            return
        if isinstance(frame, bytes):
            self._carry_out([self.session.receive_binary()])
            return
        for begun in self.session.receive(frame, self._loop.time()):
            if isinstance(begun, Call):
                self._feed.spawn(self._answer(begun))
            else:
                self._carry_out([begun])
        self._advance()

    def push(self, frame: bytes) -> None:
        """Send a frame that belongs to this reader alone."""
        self._feed.flush()
        self.outbox.send(frame)

    def dismiss(self, code: int, reason: str) -> None:
        """End the connection."""
        self._carry_out([Close(code, reason)])

    def leave(self) -> None:
        """Forget the connection: it is gone."""
        self._is_closing = True
        self.outbox.close()
        if self._deadline is not None:
            self._deadline.cancel()
        self._make_room()

    # -- inside -----------------------------------------------------------------------------------------------

    def _recognise(self, token: str) -> Role | None:
        """The role of a token that was shown in a frame; whose it is, goes on record from here on."""
        found = self._verify(token)
        if found is None:
            return None
        self._by = actor_name(found, self._came_as)
        return found.role.value

    def _is_full(self) -> bool:
        return not self.outbox.is_live or self.session.outstanding >= MAX_OUTSTANDING

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _give_up(self) -> None:
        log.info("%s reads nothing: dropped", self._by)
        self._is_closing = True
        self._make_room()

    def _expire(self) -> None:
        self._carry_out(self.session.expire(self._loop.time()))

    def _advance(self) -> None:
        while self.outbox.is_live and not self._is_closing:
            effects = self.session.advance()
            if effects is None:
                break
            self._carry_out(effects)
        self._make_room()
        self._feed.tails.wake(self)

    def _carry_out(self, effects: list[Effect]) -> None:
        # What was broadcast up to now must have gone out before the first word that counts on it.
        self._feed.flush()
        for effect in effects:
            if self._is_closing:
                return
            match effect:
                case Send(message):
                    self.outbox.send(text_frame(message))
                case Rewind(since, then):
                    self.outbox.rewind(since, lambda place, then=then: text_frame(then(place)))  # type: ignore[misc]
                case Follow(task_id, offset):
                    self._feed.tails.follow(self, task_id, offset)
                case Unfollow(task_id):
                    self._feed.tails.unfollow(self, task_id)
                case Close(code, reason):
                    self._is_closing = True
                    self._close(code, reason)

    async def _answer(self, call: Call) -> None:
        try:
            answer = await self._ask(self._feed.shop, call.question)
        except Refused as refusal:
            answer = refusal
        except Exception:
            log.exception("a question of %s failed", self._by)
            answer = Refused("internal", "the workshop could not answer; its log says why")
        self.session.settle(call.call, answer)
        self._advance()

    async def _ask(self, shop: Shop, question: Question) -> Answer:
        match question:
            case Do(command):
                caller = Caller(self._by, self.session.role or "read", from_network=True)
                task_id = await shop.do(command, caller)
                if not isinstance(command, SubmitTask | RetryTask | RunScript) or task_id is None:
                    return None
                return shop.state.tasks.get(task_id) or await shop.get(task_id)
            case Get(task_id):
                return await shop.get(task_id)
            case Find(query):
                return await shop.find(query)
        return None if await shop.get(question.task_id) is None else await _look_up(shop, question)


async def _look_up(shop: Shop, question: GetCurve | Read) -> Answer:
    """What is kept beside the task's record."""
    if isinstance(question, GetCurve):
        return await shop.curve(question.task_id) or Curve()
    return await shop.read_output(question.task_id, question.offset, question.limit)


def caller_name(verdict: object, address: str) -> str:
    """Who asks, for the record: a named token by its name, anybody else by the address."""
    return actor_name(verdict, f"ws:{address}")


def actor_name(verdict: object, other: str) -> str:
    """The name of a named token; else `other`."""
    if isinstance(verdict, Allow) and verdict.actor.startswith("agent:"):
        return verdict.actor
    return other


def verifier(guard: Guard) -> Callable[[str], Allow | None]:
    """How a session asks what a token may do, and whose it is: by the port's present policy."""

    def verify(token: str) -> Allow | None:
        found = guard.access.recognise(token)
        if found is None and guard.access.insecure_no_auth:
            return Allow(AccessRole.FULL, "anyone")
        return found

    return verify


def tune(sock: socket.socket) -> None:
    """Let a reader that is stuck show: a small buffer in the kernel, and no endless wait for it there."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STUCK_S * 1000))
