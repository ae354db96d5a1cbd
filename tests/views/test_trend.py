"""The Overview's charts: what the archive knows and what comes meanwhile, each once."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from koubou_panel.core.commands import Caller
from koubou_panel.errors import KoubouError
from koubou_panel.reactive import Changes, Second, Throughput
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import ManualClock, open_inline_shop
from koubou_panel.views.session import PageSession
from koubou_panel.views.trend import Trend


class Desk:
    """The charts of a page, whose readings of the archive begin, and are shown, when a test says so."""

    def __init__(self, shop: LocalShop, clock: ManualClock) -> None:
        """Drawn twice: of neither time has the archive been read."""
        self.clock = clock
        self.loads: list = []
        self.shows: list[Callable[[], None]] = []
        self.told: list[str] = []
        self._session = PageSession(shop, caller=Caller("dashboard"), now=shop.clock)
        visit = replace(
            self._session.visit,
            spawn=self.loads.append,
            locked=self.shows.append,
            toast=self.told.append,
        )
        visit.mirror.throughput = Throughput(clock(), known_since=clock())
        self.trend = Trend(visit)
        self.trend.draw()
        self.trend.draw()

    def ten_end(self) -> None:
        """Ten tasks end in the second that begins now, and it is over."""
        self.trend.update(Changes(seconds=[Second(int(self.clock()), 10, 0, 0.5)]))
        self.clock.advance(5)
        self.trend.tick()

    @property
    def shown(self) -> float:
        """How many completed by the chart, once it has taken in what waits."""
        self.clock.advance(5)
        self.trend.tick()
        return sum(self.trend.throughput.source.data["ok"])

    def close(self) -> None:
        """The page is gone."""
        self._session.close()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_what_came_stands_though_the_archive_was_read_twice(order: tuple[int, int]) -> None:
    """A chart that was drawn anew while the archive was read shows the later reading, and keeps what came since."""
    clock = ManualClock()
    async with open_inline_shop(clock=clock) as shop:
        desk = Desk(shop, clock)
        for load in desk.loads:
            await load
        first, last = (desk.shows[place] for place in order)
        first()
        desk.ten_end()
        last()
        assert desk.shown == 10
        desk.close()


async def test_a_late_failure_does_not_end_the_wait_for_the_next_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What comes while the later reading is on its way is kept for it, and of the earlier one nothing is told."""
    clock = ManualClock()
    async with open_inline_shop(clock=clock) as shop:
        desk = Desk(shop, clock)
        failing, reading = desk.loads
        with monkeypatch.context() as broken:
            broken.setattr(shop, "spans", _fail_with(KoubouError("away")))
            await failing
        await reading
        *late, show = desk.shows
        for end in late:
            end()
        desk.ten_end()
        show()
        assert desk.shown == 10
        assert desk.told == []
        desk.close()


async def test_charts_go_on_where_the_archive_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong is told, and what comes is shown all the same."""
    clock = ManualClock()
    async with open_inline_shop(clock=clock) as shop:
        desk = Desk(shop, clock)
        stale, load = desk.loads
        stale.close()
        monkeypatch.setattr(shop, "spans", _fail_with(KoubouError("away")))
        await load
        for show in desk.shows:
            show()
        desk.ten_end()
        assert desk.shown == 10
        assert desk.told == ["away"]
        desk.close()


async def test_charts_go_on_after_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is hoarded for a reading that will never come; the fault itself is raised, to be logged."""
    clock = ManualClock()
    async with open_inline_shop(clock=clock) as shop:
        desk = Desk(shop, clock)
        stale, load = desk.loads
        stale.close()
        monkeypatch.setattr(shop, "spans", _fail_with(ValueError("ours")))
        with pytest.raises(ValueError, match="ours"):
            await load
        for show in desk.shows:
            show()
        desk.ten_end()
        assert desk.shown == 10
        assert desk.trend._seconds == []
        desk.close()


def _fail_with(error: Exception) -> Callable[..., object]:
    async def spans(*_: object) -> object:
        raise error

    return spans
