"""How often what costs much is drawn."""

from koubou_panel.testing import ManualClock
from koubou_panel.views.pace import Pace


def test_after_a_quiet_while_it_is_drawn_at_once() -> None:
    """A few changes in a row are drawn as they come; then it rests, and may be drawn in a row again."""
    clock = ManualClock()
    pace = Pace(1.0, at_once=3, now=clock)
    assert [pace.may() for _ in range(4)] == [True, True, True, False]
    clock.advance(10)
    assert [pace.may() for _ in range(4)] == [True, True, True, False]


def test_while_much_happens_it_is_drawn_seldom() -> None:
    """Of changes without end one in each so many seconds is drawn."""
    clock = ManualClock()
    pace = Pace(1.0, now=clock)
    for _ in range(4):
        pace.may()
    drawn = 0
    for _ in range(100):
        clock.advance(0.125)
        drawn += pace.may()
    assert drawn in (12, 13)


def test_what_is_put_off_is_owed_once() -> None:
    """What may not be drawn is owed until it is drawn, and then no more."""
    clock = ManualClock()
    pace = Pace(1.0, at_once=1, now=clock)
    assert pace.may()
    assert not pace.owed()
    assert not pace.may()
    assert pace.owes
    assert pace.owed()
    assert not pace.owed()
    pace.may()
    clock.advance(1)
    assert pace.may()
    assert not pace.owes
