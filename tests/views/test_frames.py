"""Frames of a page: some time apart, and none before the last has been painted."""

from collections.abc import Callable

import pytest

from koubou_panel.testing import ManualClock
from koubou_panel.views.frames import FRAME_MS, PATIENCE_S, QUICK_MS, Frames


class Page:
    """A document whose callbacks are called by hand, and its frames."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.waiting: list[tuple[Callable[[], None], int]] = []
        self.numbers: list[int | None] = []
        self.frames = Frames(lambda: self.numbers.append(self.frames.begin()), now=self.clock)
        self.frames.start(self)
        self.clock.advance(60)

    def add_timeout_callback(self, call: Callable[[], None], wait_ms: int) -> object:
        self.waiting.append((call, wait_ms))
        return call

    def turn(self) -> int:
        """Make the frame that waits; how long it was to wait."""
        ((call, wait_ms),) = self.waiting
        self.waiting.clear()
        self.clock.advance(wait_ms / 1000)
        call()
        return wait_ms


def test_after_a_quiet_while_a_frame_comes_at_once() -> None:
    """The first change is sent at once, those that follow together at the next turn."""
    page = Page()
    page.frames.soon()
    assert page.turn() == QUICK_MS
    page.frames.soon()
    page.frames.soon()
    assert page.turn() == FRAME_MS
    assert page.numbers == [None, None]


def test_no_frame_is_made_before_the_last_is_painted() -> None:
    """What changes meanwhile comes as soon as the page has told that it has painted."""
    page = Page()
    page.frames.painted(0)
    page.frames.soon()
    page.turn()
    assert page.numbers == [1]
    assert page.frames.waits
    page.frames.soon()
    assert page.waiting == []
    page.clock.advance(1)
    page.frames.painted(1)
    assert not page.frames.waits
    assert page.turn() == QUICK_MS
    assert page.numbers == [1, 2]


def test_a_frame_that_a_beat_came_before_waits_too() -> None:
    """What was to be a frame when the beat made one comes after the painting of that."""
    page = Page()
    page.frames.painted(0)
    page.frames.soon()
    assert page.frames.begin() == 1
    page.turn()
    assert page.numbers == []
    page.frames.painted(1)
    page.turn()
    assert page.numbers == [2]


def test_nothing_is_made_for_a_painting_alone() -> None:
    """Where nothing changed meanwhile there is no frame after the one that was painted."""
    page = Page()
    page.frames.painted(0)
    page.frames.soon()
    page.turn()
    page.frames.painted(1)
    assert page.waiting == []


def test_a_page_that_never_tells_is_not_waited_for() -> None:
    """Until a page has said that it will tell of its frames they come without that."""
    page = Page()
    for _ in range(3):
        page.frames.soon()
        page.turn()
    assert not page.frames.waits


def test_word_that_is_lost_is_not_waited_for_without_end() -> None:
    """After a while the next frame is made all the same."""
    page = Page()
    page.frames.painted(0)
    page.frames.soon()
    page.turn()
    page.clock.advance(PATIENCE_S)
    assert not page.frames.waits
    page.frames.soon()
    page.turn()
    assert page.numbers == [1, 2]


def test_a_hidden_page_is_not_waited_for() -> None:
    """What was sent just before it was hidden is forgotten; seen again it is to be shown anew."""
    page = Page()
    page.frames.painted(0)
    page.frames.soon()
    page.turn()
    assert not page.frames.hide(is_hidden=True)
    page.frames.soon()
    assert page.waiting == []
    assert page.frames.hide(is_hidden=False)
    assert not page.frames.waits


@pytest.mark.parametrize("number", [None, True, "1", -1, 2, 1.0, [1]])
def test_a_frame_that_was_never_made_is_not_painted(number: object) -> None:
    """A browser may name any frame: only one that it was sent counts."""
    page = Page()
    page.frames.painted(0)
    page.frames.soon()
    page.turn()
    page.frames.painted(number)
    assert page.frames.waits
