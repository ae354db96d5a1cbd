"""What a page says about the services."""

from __future__ import annotations

import pytest

from koubou_panel.core.commands import Caller
from koubou_panel.core.events import ServiceChanged
from koubou_panel.core.records import Service
from koubou_panel.reactive.models import ServiceModel, service_values
from koubou_panel.testing import open_inline_shop, until
from koubou_panel.views.language import speaking
from koubou_panel.views.services import LABELS, service_notices, service_rows
from koubou_panel.views.session import PageSession

FAILED = "it was killed by SIGKILL, 6 times in a minute. Its last lines:\n  no \x1b[31mmemory\n  <b>left</b>"


def model(name: str, state: str = "running", **fields: object) -> ServiceModel:
    """A service's model."""
    return ServiceModel(**service_values(Service(name, state, **fields)))


def test_services_stand_in_one_order_whatever_changed_last() -> None:
    """Model, agents, pool, WebSocket, dashboard."""
    rows = service_rows([model(name) for name in reversed(LABELS)])
    assert [row["name"] for row in rows] == ["model", "agents", "pool", "websocket", "dashboard"]


def test_a_failed_one_says_why_and_has_its_last_lines() -> None:
    """The first line is why, the others what it printed, without what a terminal would obey."""
    (row,) = service_rows([model("pool", "failed", message=FAILED, restarts=5)])
    assert row["about"] == "it was killed by SIGKILL, 6 times in a minute"
    assert row["last"] == "no [31mmemory\n<b>left</b>"
    assert (row["mark"], row["restarts"], row["can_restart"]) == ("fail", "5", True)


def test_those_of_one_process_fail_in_one_notice() -> None:
    """What shares its fate is told once, with what starts it again."""
    services = [model(name, "failed", message=FAILED) for name in ("agents", "pool", "websocket")]
    (words,) = service_notices([*services, model("dashboard")])
    assert words.startswith("Agents (MCP, REST), Worker pool, WebSocket failed: it was killed by SIGKILL")
    assert "koubou restart" in words


def test_a_services_words_are_in_the_language_spoken() -> None:
    """Its name and its state are said in Japanese; why it does not run is as the workshop says it."""
    with speaking("ja"):
        (row,) = service_rows([model("dashboard", "failed", message="no memory")])
        assert service_notices([model("pool", "failed", message="no memory")])[0].count("koubou restart") == 1
    assert row["label"] != LABELS["dashboard"]
    assert (row["state"], row["about"]) == ("failed", "no memory")
    assert row["word"] != "failed"


def test_a_server_that_is_not_ours_has_no_process_and_no_restart() -> None:
    """An Ollama that ran already shows its port, and is left alone."""
    (row,) = service_rows([model("model", port=11434, message="Ollama, which ran already")])
    assert (row["port"], row["pid"], row["can_restart"]) == ("11434", "", False)


@pytest.mark.parametrize(("role", "asked"), [("full", ["pool"]), ("read", [])])
async def test_a_click_asks_the_supervisor_not_the_workshop(role: str, asked: list[str]) -> None:
    """A visitor who may act has a service restarted, whose name is one; who may only look has not."""
    wanted: list[str] = []

    def restart(name: str) -> bool:
        wanted.append(name)
        return True

    async with open_inline_shop() as shop:
        shop.hub.note(ServiceChanged(1.0, Service("pool", "failed", message=FAILED)))
        await until(lambda: shop.state.services)
        session = PageSession(shop, caller=Caller("test", role), restart_service=restart)
        try:
            session.deck.show("services")
            card = session.deck.seen.root
            assert card.can_act is (role == "full")
            assert [row["state"] for row in card.rows] == ["failed"]
            assert any("failed" in notice["text"] for notice in session.top.attention.card.items)
            card._handle_msg({"type": "restart_service", "name": "pool"})
            card._handle_msg({"type": "restart_service", "name": "/bin/sh"})
            card._handle_msg({"type": "restart_service", "name": ["pool"]})
            assert wanted == asked
            shop.hub.note(ServiceChanged(2.0, Service("pool", "running", pid=7)))
            await until(lambda: shop.state.services["pool"].pid == 7)
            session.deck.update(session.mirror.flush())
            assert [(row["state"], row["pid"]) for row in card.rows] == [("running", "7")]
        finally:
            session.close()


async def test_without_a_supervisor_it_says_so() -> None:
    """A workshop that a program holds itself has no services to show, and no button."""
    async with open_inline_shop() as shop:
        session = PageSession(shop, caller=Caller("test"))
        session.deck.show("services")
        card = session.deck.seen.root
        assert card.rows == []
        assert "koubou up" in card.hint
        assert card.can_act is False
        session.close()
