"""Replies in the order of their commands, though the questions behind them run side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from koubou_panel.wire.effects import Answer, Call, Effect, Question


class Turn:
    """A frame that waits for its turn: what to do once that is come and its question is answered."""

    __slots__ = ("answer", "finish", "is_ready")

    def __init__(self, finish: Callable[[Answer], list[Effect]], *, is_ready: bool) -> None:
        """Wait for `settle`, unless ready."""
        self.finish = finish
        self.answer: Answer = None
        self.is_ready = is_ready


class Turns:
    """The frames of one connection that are not replied to yet."""

    def __init__(self) -> None:
        """None waits."""
        self._waiting: deque[Turn] = deque()
        self._asked: dict[int, Turn] = {}
        self._last_call = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def later(self, finish: Callable[[], list[Effect]]) -> None:
        """Do this when its turn comes."""
        self._waiting.append(Turn(lambda _: finish(), is_ready=True))

    def ask(self, question: Question, finish: Callable[[Answer], list[Effect]]) -> Call:
        """Ask now; do this with the answer when its turn comes."""
        self._last_call += 1
        turn = self._asked[self._last_call] = Turn(finish, is_ready=False)
        self._waiting.append(turn)
        return Call(self._last_call, question)

    def settle(self, call: int, answer: Answer) -> None:
        """Take in the answer to a `Call`."""
        turn = self._asked.pop(call)
        turn.answer = answer
        turn.is_ready = True

    def advance(self) -> list[Effect] | None:
        """What the oldest leads to; None if there is none, or it is not answered."""
        if not self._waiting or not self._waiting[0].is_ready:
            return None
        turn = self._waiting.popleft()
        return turn.finish(turn.answer)
