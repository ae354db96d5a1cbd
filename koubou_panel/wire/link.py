"""The private link: our own CLI, dashboard and notebook on one side, the workshop on the other. Sans-I/O.

A frame is a length (4 bytes, big-endian) and one MessagePack message. The client speaks first (`Hello`); the
server answers `Welcome`, and to a replica then `Reset` (the whole state, large ones in pieces) followed by every
fact in order. Who may connect is the socket's business: whoever can is trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from koubou_panel.core.commands import Caller, Command, SubmitTask
from koubou_panel.core.events import Fact, Sample
from koubou_panel.core.records import Task, TaskId
from koubou_panel.core.script import Entry
from koubou_panel.core.state import Snapshot
from koubou_panel.errors import ProtocolFault, Refused
from koubou_panel.wire.questions import ANSWERS, Question

VERSION = 3
MAX_FRAME_BYTES = 256 * 1024 * 1024
_HEAD_BYTES = 4

M = TypeVar("M")


class Refusal(Struct, frozen=True, gc=False):
    """A `Refused` as data."""

    code: str
    message: str
    field: str | None = None
    nearest: str | None = None


# -- client to server -----------------------------------------------------------------------------------------


class Hello(Struct, frozen=True, tag=True, array_like=True):
    """The first frame: who connects, with which Python (`3.11`), and whether it wants every event."""

    version: int
    python: str
    by: str
    replica: bool


class Do(Struct, frozen=True, tag=True, array_like=True):
    """Carry out `commands` in order for `caller`. `resent`: an earlier frame with them may have arrived."""

    call: int
    caller: Caller
    commands: list[Command]
    resent: bool = False


class Ask(Struct, frozen=True, tag=True, array_like=True):
    """A question: it may be asked again."""

    call: int
    question: Question


class Follow(Struct, frozen=True, tag=True, array_like=True):
    """Tell of this task alone from now on, by `Now`; for those that are no replica."""

    task_id: TaskId


class Unfollow(Struct, frozen=True, tag=True, array_like=True):
    """Tell of it no more."""

    task_id: TaskId


ClientMessage = Hello | Do | Ask | Follow | Unfollow


class Unreadable(Struct, frozen=True, gc=False):
    """In place of a `Do` or an `Ask` whose contents cannot be read: that call fails, and the link goes on."""

    call: int
    refusal: Refusal


class _Head(Struct, frozen=True, array_like=True):
    """How a `Do` and an `Ask` begin, whatever follows."""

    tag: Literal["Do", "Ask"]
    call: int


# -- server to client -----------------------------------------------------------------------------------------


class Welcome(Struct, frozen=True, tag=True, array_like=True):
    """The answer to `Hello`: which run of the workshop this is, its process and its Python."""

    version: int
    epoch: str
    pid: int
    python: str


class Goodbye(Struct, frozen=True, tag=True, array_like=True):
    """The last frame: why the server hangs up."""

    refusal: Refusal


class Reset(Struct, frozen=True, tag=True, array_like=True):
    """The state begins anew from `snapshot`; with `more`, its other tasks follow in `More` frames."""

    snapshot: Snapshot
    more: bool


class More(Struct, frozen=True, tag=True, array_like=True):
    """Further tasks and scripts of the snapshot that is being sent."""

    tasks: list[Task]
    more: bool
    scripts: list[Entry] = []


class Facts(Struct, frozen=True, tag=True, array_like=True):
    """Facts in order, each with its place in its channel.

    Opaque bytes are left out, except small values of tasks that were submitted over this connection (`wire/own.py`).
    """

    facts: list[Fact]
    seqs: list[int]


class Samples(Struct, frozen=True, tag=True, array_like=True):
    """Samples; whoever cannot keep up is not sent them."""

    samples: list[Sample]


class Beat(Struct, frozen=True, tag=True, array_like=True):
    """Sent each second, so that silence means something."""

    epoch: str


class Replies(Struct, frozen=True, tag=True, array_like=True):
    """What became of the commands of one `Do`, in its order."""

    call: int
    results: list[TaskId | Refusal | None]


class Answer(Struct, frozen=True, tag=True, array_like=True):
    """The answer to one `Ask`, of the type that its question names."""

    call: int
    value: Raw


class Failed(Struct, frozen=True, tag=True, array_like=True):
    """Why one `Do` or `Ask` as a whole got no answer."""

    call: int
    refusal: Refusal


class Now(Struct, frozen=True, tag=True, array_like=True):
    """A followed task as it stands; `task` None: there is no such task."""

    task_id: TaskId
    task: Task | None


ServerMessage = Welcome | Goodbye | Reset | More | Facts | Samples | Beat | Replies | Answer | Failed | Now


# -- frames ---------------------------------------------------------------------------------------------------

_ENCODER = msgspec.msgpack.Encoder()
_FROM_CLIENT = msgspec.msgpack.Decoder(ClientMessage)
_HEAD = msgspec.msgpack.Decoder(_Head)
_FROM_SERVER = msgspec.msgpack.Decoder(ServerMessage)


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """`message` as one frame.

    Raises:
        ProtocolFault: code `too_large`: no frame can hold it; `invalid`: it holds what no frame can say.
    """
    body = _body(message)
    if len(body) > MAX_FRAME_BYTES:
        raise _too_large(len(body))
    return len(body).to_bytes(_HEAD_BYTES, "big") + body


def answer(call: int, value: object) -> bytes:
    """The frame that answers question `call` with `value`.

    Raises:
        ProtocolFault: as of `encode`.
    """
    return encode(Answer(call, Raw(_body(value))))


def _body(value: object) -> bytes:
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError as error:
        words = f"{error.object[:60]!r} is no text: it has bytes that are not UTF-8"
    except (OverflowError, TypeError, RecursionError) as error:
        words = f"it cannot be sent: {error}"
    raise ProtocolFault("invalid", words)


def _too_large(size: int) -> ProtocolFault:
    most = MAX_FRAME_BYTES >> 20
    return ProtocolFault(
        "too_large",
        f"a message of {size / (1 << 20):.0f} MB is more than the {most} MB that the link carries",
    )


class Frames:
    """Cuts a stream of bytes into the bodies of frames."""

    def __init__(self) -> None:
        """Start between two frames."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that `data` completes.

        Raises:
            ProtocolFault: code `too_large`; the stream cannot be read on.
        """
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= _HEAD_BYTES:
                size = int.from_bytes(buffer[at : at + _HEAD_BYTES], "big")
                if size > MAX_FRAME_BYTES:
                    raise _too_large(size)
                end = at + _HEAD_BYTES + size
                if len(buffer) < end:
                    break
                body = bytes(buffer[at + _HEAD_BYTES : end])
                at = end
                yield body
        finally:
            del buffer[:at]


class ServerHalf:
    """The server's side of one connection.

    Args:
        python: the workshop's own Python, as `3.11`: a function pickled by another cannot be trusted to load.
    """

    def __init__(self, python: str) -> None:
        """Wait for a `Hello`."""
        self.hello: Hello | None = None
        self._python = python
        self._frames = Frames()

    def receive(self, data: bytes) -> Iterator[ClientMessage | Unreadable]:
        """The client's messages, `Hello` first.

        Raises:
            ProtocolFault: what came is not this protocol, or another version of it; say goodbye and hang up.
        """
        for body in self._frames.feed(data):
            message = _from_client(body)
            self._check_order(message)
            yield message

    def _check_order(self, message: ClientMessage | Unreadable) -> None:
        if not isinstance(message, Hello):
            if self.hello is None:
                raise ProtocolFault("bad_request", "the first frame must be Hello")
            return
        if self.hello is not None:
            raise ProtocolFault("bad_request", "Hello came twice")
        if message.version != VERSION:
            raise ProtocolFault(
                "version",
                f"this workshop speaks version {VERSION} of the private link, the caller {message.version}: "
                "another version of Koubou Panel is installed; run `koubou down`, then `koubou up`",
            )
        self.hello = message

    def refuses(self, command: Command) -> Refused | None:
        """Why this client may not give this command, or None: functions are for the same Python alone."""
        if type(command) is not SubmitTask or not command.request.payload:
            return None
        theirs = self.hello.python if self.hello else "none"
        if theirs == self._python:
            return None
        return Refused(
            "invalid",
            f"functions travel between equal Pythons only: this workshop runs Python {self._python}, "
            f"the caller {theirs}. Start the workshop with Python {theirs}, or submit a command instead",
            field="kind",
        )


class ClientHalf:
    """The client's side of one connection. What it was sent before is forgotten: make one a connection."""

    def __init__(self) -> None:
        """Wait for a `Welcome`."""
        self.welcome: Welcome | None = None
        self._frames = Frames()

    def receive(self, data: bytes) -> Iterator[ServerMessage]:
        """The server's messages, `Welcome` first.

        Raises:
            ProtocolFault: what came is not this protocol; hang up.
            Refused: the server hangs up, and why.
        """
        for body in self._frames.feed(data):
            message = _decoded(_FROM_SERVER, body)
            if isinstance(message, Goodbye):
                raise refused(message.refusal)
            if isinstance(message, Welcome):
                self.welcome = message
            elif self.welcome is None:
                raise ProtocolFault("bad_request", "the first frame must be Welcome")
            yield message


def _from_client(body: bytes) -> ClientMessage | Unreadable:
    try:
        message: ClientMessage = _decoded(_FROM_CLIENT, body)
    except ProtocolFault as fault:
        try:
            head = _HEAD.decode(body)
        except (msgspec.DecodeError, RecursionError):
            raise fault from None
        return Unreadable(
            head.call, Refusal("invalid", f"the workshop cannot read this request: {fault.__cause__}")
        )
    return message


def _decoded(decoder: msgspec.msgpack.Decoder[M], body: bytes) -> M:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolFault("bad_frame", f"a frame is not a message of the private link: {error}") from error


def refusal(error: Refused | ProtocolFault) -> Refusal:
    """An error as data."""
    return Refusal(error.code, error.message, error.field, error.nearest)


def refused(data: Refusal) -> Refused:
    """The error that was sent as data."""
    return Refused(data.code, data.message, field=data.field, nearest=data.nearest)


def answered(question: Question, value: Raw) -> object:
    """The answer to `question`, of the type that it names.

    Raises:
        ProtocolFault: code `bad_frame`.
    """
    return _decoded(ANSWERS[type(question)], bytes(value))
