"""Input for a command that runs, from Python."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from koubou_panel.core.commands import Caller, SendInput
from koubou_panel.core.events import Sample
from koubou_panel.core.ports import Shop
from koubou_panel.core.state import Folded, State
from koubou_panel.notebook.future import TaskFuture
from koubou_panel.shop.inputs import MOST_INPUT_BYTES


def input_bytes(data: object) -> bytes:
    """What is meant by `data`: bytes, or a text, which is sent as UTF-8.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"input is bytes or a text, not {data!r:.80}")


class Begun:
    """A subscriber that sets `event` once the task of `future` has begun, or will not."""

    def __init__(self, future: TaskFuture) -> None:
        """To be subscribed."""
        self.event = asyncio.Event()
        self._future = future

    def on_reset(self, state: State) -> None:
        """Look at the task."""
        self._state = state
        self.on_facts(())

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Look again."""
        task = self._state.tasks.get(self._future.task_id)
        if (task is not None and task.status != "pending") or self._future.done():
            self.event.set()

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """A sample begins nothing."""


async def send_input(shop: Shop, future: TaskFuture, data: bytes, caller: Caller, *, is_last: bool) -> None:
    """Give `data` to the command of `future` once it runs, in as many pieces as it takes.

    Raises:
        Refused: it has ended, reads no more, or takes no input.
    """
    begun = Begun(future)
    unsubscribe = shop.subscribe(begun)
    try:
        if not begun.event.is_set():
            future.add_done_callback(lambda _: begun.event.set())  # refused, it is in no state
            await begun.event.wait()
    finally:
        unsubscribe()
    for piece, is_end in _pieces(data):
        await shop.do(SendInput(future.task_id, piece, is_last and is_end), caller)


def _pieces(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """`data` cut as it may be sent, each with whether it is the end."""
    for at in range(0, len(data) or 1, MOST_INPUT_BYTES):
        yield data[at : at + MOST_INPUT_BYTES], at + MOST_INPUT_BYTES >= len(data)
