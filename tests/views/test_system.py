"""The System page, built without a browser."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from math import isnan

import panel as pn

from koubou_panel.core.commands import Caller
from koubou_panel.core.events import MetricsSampled
from koubou_panel.core.records import Metrics, Service
from koubou_panel.errors import Refused
from koubou_panel.reactive.models import ServiceModel, service_values
from koubou_panel.samplers.machine import Part
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_inline_shop, until
from koubou_panel.views.pages.system import SystemView
from koubou_panel.views.session import PageSession
from koubou_panel.views.system import SPANS, values_of
from koubou_panel.views.system_rows import CELLS, core_cells, core_names, core_values, room_words, use_rows

HOST = {
    "cpu_percent": 50.0,
    "cpu_percents": [10.0, 90.0],
    "memory_percent": 40.0,
    "memory_used_bytes": 4 << 30,
    "memory_total_bytes": 10 << 30,
    "net_sent_bytes_per_s": 2048.0,
}
GPU = {
    "gpu_percent": 70.0,
    "gpu_memory_used_bytes": 30 << 30,
    "gpu_memory_total_bytes": 40 << 30,
    "gpu_temperatures_c": [60, 71],
    "gpu_powers_w": [200.0, 150.5],
}


def open_system(shop: LocalShop) -> tuple[PageSession, SystemView]:
    """A visit that sees the System page."""
    session = PageSession(shop, caller=Caller("test"), page="system", now=shop.clock)
    view = session.deck.seen
    session.told = []
    view._is_live = True
    session._turns._locked = lambda call: call()
    session._turns.start()
    view._visit = replace(session.visit, locked=lambda call: call(), toast=session.told.append)
    return session, view


async def sample(shop: LocalShop, session: PageSession, **more: object) -> None:
    """A sample of the host comes, and a frame with it."""
    known = len(shop.state.metrics)
    shop.hub.note(MetricsSampled(shop.clock(), Metrics(shop.clock(), HOST | more)))
    await until(lambda: len(shop.state.metrics) > known)
    session.deck.update(session.mirror.flush())


async def test_each_sample_is_one_point_and_the_values_beside_the_titles() -> None:
    """One stream to the one source of all figures; what is not measured is a gap and a dash."""
    async with open_inline_shop() as shop:
        session, view = open_system(shop)
        assert "as soon as" in view.heads["cpu"].empty
        await sample(shop, session)
        source = view.charts.source
        assert list(source.data["cpu"]) == [50.0]
        assert isnan(source.data["load"][0])
        sources = {id(r.data_source) for figure in view.charts.figures.values() for r in figure.renderers}
        assert sources == {id(source)}
        assert len({id(figure.x_range) for figure in view.charts.figures.values()}) == 1
        assert view.heads["cpu"].empty == ""
        assert [item["value"] for item in view.heads["cpu"].items] == ["50 %"]
        assert [item["value"] for item in view.heads["net"].items] == ["–", "2.0 KB/s"]
        assert view.head.now == ["memory 4.0 GB of 10.0 GB"]
        assert (view.cores.now, view.cores.names) == ([10, 90], ["0", "1"])
        session.close()


async def test_figures_are_built_one_by_one() -> None:
    """What costs much is done in turns of its own, so that nobody waits for all of it."""
    async with open_inline_shop() as shop:
        session = PageSession(shop, caller=Caller("test"), page="system", now=shop.clock)
        turns: list[Callable[[], None]] = []
        session._turns._locked = turns.append
        view = session.deck.seen
        assert not view.charts.figures
        session._turns.start()
        built = []
        while turns:
            turns.pop(0)()
            built.append(len(view.charts.figures))
        assert built == sorted(built)
        assert set(built) == {1, 2, 3, 4, 5}
        assert all(isinstance(view.cells[name][1], pn.pane.Bokeh) for name in view.charts.figures)
        assert "gpu" not in view.charts.figures
        session.close()


async def test_a_gpu_has_its_figures_once_one_is_seen() -> None:
    """Without one there is no word of it; with one busy and memory, the hottest and all power."""
    async with open_inline_shop() as shop:
        session, view = open_system(shop)
        await sample(shop, session)
        assert "gone" in view.cells["gpu"].css_classes
        assert "gpu" not in dict(view.head.figures)
        shop.clock.advance(1)
        await sample(shop, session, **GPU)
        assert "gone" not in view.cells["gpu"].css_classes
        assert [item["value"] for item in view.heads["gpu"].items] == ["70 %", "75 %"]
        assert [item["value"] for item in view.heads["heat"].items] == ["71 °C", "350 W"]
        session.close()


async def test_a_longer_span_is_read_from_the_archive() -> None:
    """Its points are the archive's, few and with their peaks; a live sample is not one of them."""
    async with open_inline_shop() as shop:
        session, view = open_system(shop)
        asked: list[tuple[float, float]] = []

        async def binned(at: float, step_s: float) -> list[Metrics]:
            asked.append((at, step_s))
            return [Metrics(shop.clock() - 90, {"cpu_percent": 20.0, "cpu_percent_max": 30.0})]

        shop.metrics_binned = binned
        view.head._handle_msg({"type": "span", "name": "24h"})
        assert view.head.span == "24h"
        await until(lambda: list(view.charts.source.data["cpu"]) == [20.0])
        assert asked == [(shop.clock() - 86_400, 120.0)]
        assert list(view.charts.source.data["cpu_top"]) == [30.0]
        await sample(shop, session)
        assert list(view.charts.source.data["cpu"]) == [20.0]
        assert view.charts.x_range.end - view.charts.x_range.start == 86_400_000
        shop.clock.advance(1_000)
        view.tick()
        await until(lambda: len(asked) == 2)
        session.close()


async def test_one_history_is_read_at_a_time() -> None:
    """However often the span is changed meanwhile: then the one that is wanted is read."""
    async with open_inline_shop() as shop:
        session, view = open_system(shop)
        go, asked = asyncio.Event(), []

        async def binned(_at: float, step_s: float) -> list[Metrics]:
            asked.append(step_s)
            await go.wait()
            return [Metrics(shop.clock() - 90, {"cpu_percent": step_s})]

        shop.metrics_binned = binned
        for name in ("24h", "1h", "24h", "1h"):
            view.head._handle_msg({"type": "span", "name": name})
            await until(lambda: asked)
        assert len(asked) == 1
        go.set()
        await until(lambda: list(view.charts.source.data["cpu"]) == [SPANS["1h"].step_s])
        assert asked == [SPANS["24h"].step_s, SPANS["1h"].step_s]
        session.close()


async def test_what_cannot_be_read_is_told() -> None:
    """A workshop that is away is told as such, and the page stays."""
    async with open_inline_shop() as shop:
        session, view = open_system(shop)

        async def binned(at: float, step_s: float) -> list[Metrics]:
            raise Refused("unavailable", "the workshop is away")

        shop.metrics_binned = binned
        await view.load("1h")
        assert session.told == ["the workshop is away"]
        session.close()


async def test_what_makes_no_sense_is_left_alone() -> None:
    """A browser may send anything: only the spans and figures that there are can be chosen."""
    async with open_inline_shop() as shop:
        session, view = open_system(shop)
        for message in ({"type": "span", "name": "9y"}, {"type": "span", "name": ["1h"]}, {"type": "figure"}):
            view.head._handle_msg(message)
        assert (view.head.span, view.head.figure) == ("15m", "cpu")
        view.head._handle_msg({"type": "figure", "name": "net"})
        assert "unseen" in view.cells["cpu"].css_classes
        assert "unseen" not in view.cells["net"].css_classes
        session.close()


async def test_our_own_use_is_looked_at_off_the_loop() -> None:
    """A workshop in a program shows that program, and its workers by their page."""
    async with open_inline_shop(workers=2) as shop:
        session, view = open_system(shop)
        await view.look()
        assert [row["label"] for row in view.use.rows] == ["This program", "2 workers, with what they run"]
        assert view.use.rows[1]["page"] == "workers"
        assert view.head.facts
        session.close()


def test_services_of_one_process_share_a_row() -> None:
    """Each process is told once, with the services that it holds; one that is gone is left out."""
    services = [
        ServiceModel(**service_values(Service(name, "running", pid=pid)))
        for name, pid in (("agents", 7), ("pool", 7), ("dashboard", 8), ("model", 9))
    ]
    rows = use_rows(services, [], {7: Part(12.4, 1 << 20), 8: Part(None, 2 << 20)}, 1)
    assert [(row["label"], row["cpu"], row["memory"]) for row in rows] == [
        ("Agents (MCP, REST), Worker pool", "12 %", "1.0 MB"),
        ("Dashboard", "–", "2.0 MB"),
    ]


def test_very_many_cores_share_strips() -> None:
    """At most 64 strips, each the mean of its cores and named by them."""
    assert core_names(3) == ["0", "1", "2"]
    assert core_names(130)[:2] + core_names(130)[-1:] == ["0–2", "3–5", "129"]
    many = Metrics(1.0, {"cpu_percents": [float(n % 2) * 100 for n in range(128)]})
    assert core_values(many) == [50] * 64
    assert core_values(Metrics(1.0, {"cpu_percents": "x"})) == []


def test_cells_are_means_of_the_cores_there_are_now() -> None:
    """A span has at most so many cells; those from before a core was switched on are left out."""
    span = SPANS["15m"]
    samples = [Metrics(float(at), {"cpu_percents": [float(at % 2) * 100]}) for at in range(1_200)]
    cells = core_cells(samples, span)
    assert len(cells) == CELLS + 1
    assert cells[0][1] == [50]
    more = [*samples, *(Metrics(float(at), {"cpu_percents": [0.0, 8.0]}) for at in range(1_200, 1_210))]
    assert core_cells(more, span) == [[1205.0, [0, 8]]]
    assert core_cells([], span) == []


def test_a_sample_that_tells_nothing_is_gaps() -> None:
    """Values of another kind than numbers, and none at all, are not measured."""
    row = values_of(Metrics(1.0, {"cpu_percent": "x", "load_1m": True, "gpu_temperatures_c": [None]}))
    assert row["at"] == 1.0
    assert all(isnan(value) for name, value in row.items() if name != "at")
    assert room_words(Metrics(1.0, {"memory_used_bytes": 1, "memory_total_bytes": 0})) == []
