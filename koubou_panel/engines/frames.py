"""What the local engine and a worker process say to each other: MessagePack arrays behind a 4-byte length."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from koubou_panel.core.records import Job, Outcome, Progress, TaskId

HEADER = 4
BEAT_S = 2.0


class Run(Struct, frozen=True, tag=0, array_like=True, gc=False):
    """To the worker: run these, in order."""

    jobs: list[Job]


class GiveBack(Struct, frozen=True, tag=1, array_like=True, gc=False):
    """To the worker: give back what has not begun."""


class Leave(Struct, frozen=True, tag=2, array_like=True, gc=False):
    """To the worker: end, once nothing is left to run."""


class Input(Struct, frozen=True, tag=3, array_like=True, gc=False):
    """To the worker: input for the run of this claim; answered by `InputTaken` with its number."""

    claim: int
    number: int
    data: bytes
    is_last: bool


class Hello(Struct, frozen=True, tag=0, array_like=True, gc=False):
    """From the worker: it is ready."""

    pid: int


class Ended(Struct, frozen=True, tag=1, array_like=True, gc=False):
    """From the worker: these runs have ended."""

    outcomes: list[Outcome]


class GivenBack(Struct, frozen=True, tag=2, array_like=True, gc=False):
    """From the worker: these never began and will not."""

    task_ids: list[TaskId]


class Told(Struct, frozen=True, tag=3, array_like=True, gc=False):
    """From the worker: how far a run is, how large its output has become."""

    task_id: TaskId
    run: int
    progress: Progress | None
    output_bytes: int | None


class Alive(Struct, frozen=True, tag=4, array_like=True, gc=False):
    """From the worker: nothing new; sent every `BEAT_S` seconds, so that silence means something."""


class InputTaken(Struct, frozen=True, tag=5, array_like=True, gc=False):
    """From the worker: a piece of input was handed on; or, with `why`, it was not and will not be."""

    number: int
    why: str


class Passed(Struct, frozen=True, tag=6, array_like=True, gc=False):
    """From the worker: this claim came to its turn and was passed over, as it had been taken back."""

    claim: int


ToWorker = Run | GiveBack | Leave | Input
FromWorker = Hello | Ended | GivenBack | Told | Alive | InputTaken | Passed

_ENCODER = msgspec.msgpack.Encoder()
TO_WORKER = msgspec.msgpack.Decoder(ToWorker)
FROM_WORKER = msgspec.msgpack.Decoder(FromWorker)


def frame(message: ToWorker | FromWorker) -> bytes:
    """`message` as bytes to send."""
    body = _ENCODER.encode(message)
    return len(body).to_bytes(HEADER, "big") + body


class FrameBuffer:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        """An empty buffer."""
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies of the frames that `data` completes."""
        held = self._held
        held += data
        bodies: list[bytes] = []
        at = 0
        while len(held) - at >= HEADER:
            end = at + HEADER + int.from_bytes(held[at : at + HEADER], "big")
            if len(held) < end:
                break
            bodies.append(bytes(held[at + HEADER : end]))
            at = end
        del held[:at]
        return bodies
