"""＋Run's dialog as its browser half asks it."""

from __future__ import annotations

import pytest

from koubou_panel.core.commands import Caller
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_inline_shop, submit, until
from koubou_panel.views.cards import Message
from koubou_panel.views.session import PageSession

ECHO = {"what": "command", "command": "echo hello", "key": "page-1"}


async def answer(shop: LocalShop, kind: str, payload: Message, role: str = "full") -> Message:
    """What the dialog of a visitor is answered."""
    session = PageSession(shop, caller=Caller("dashboard", role), now=shop.clock)
    object.__setattr__(session.visit, "locked", lambda call: call())
    told: list[Message] = []
    session.run.card.send = told.append
    session.run.card._handle_msg({"type": "ask", "ask": kind, "id": 1, **payload})
    try:
        await until(lambda: told)
    finally:
        session.close()
    (message,) = told
    return message["value"]


async def test_what_is_submitted_becomes_a_task() -> None:
    """The answer is the task's id; the same form sent twice is one task."""
    async with open_inline_shop() as shop:
        first = await answer(shop, "submit", {"form": ECHO})
        second = await answer(shop, "submit", {"form": ECHO})
        assert first == second
        task = shop.state.tasks[first["task_id"]]
        assert (task.request.spec["command"], task.request.submitted_by) == (["echo", "hello"], "dashboard")


async def test_a_check_submits_nothing() -> None:
    """It says what is wrong, or that a shell is wanted."""
    async with open_inline_shop() as shop:
        assert await answer(shop, "check", {"form": ECHO}) == {"ok": True, "shell": False}
        piped = await answer(shop, "check", {"form": {**ECHO, "command": "ls | wc"}})
        assert piped["shell"] is True
        wrong = await answer(shop, "check", {"form": {**ECHO, "priority": "11"}})
        assert (wrong["field"], wrong["code"]) == ("priority", "invalid")
        worse = await answer(shop, "submit", {"form": {**ECHO, "priority": "11", "cwd": "/nowhere"}})
        assert worse["faults"].keys() == {"priority", "cwd"}
        assert not shop.state.tasks


@pytest.mark.parametrize("role", ["read", "run"])
async def test_who_may_not_submit_is_refused(role: str) -> None:
    """A reader runs nothing, and who may run scripts runs no command."""
    async with open_inline_shop() as shop:
        assert (await answer(shop, "submit", {"form": ECHO}, role))["code"] == "forbidden"
        assert not shop.state.tasks


@pytest.mark.parametrize("role", ["read", "run"])
@pytest.mark.parametrize("what", ["command", "prompt"])
async def test_who_may_not_submit_learns_nothing_of_the_machine(role: str, what: str) -> None:
    """A check is answered alike whether the folder is there or not: it is not looked at."""
    async with open_inline_shop() as shop:
        for folder in ("/", "/nonexistent", "~root"):
            told = await answer(shop, "check", {"form": {**ECHO, "what": what, "cwd": folder}}, role)
            assert (told["code"], told["field"]) == ("forbidden", None)


async def test_a_reader_checks_no_script_either() -> None:
    """Who may run scripts alone is told whether there is one of that name."""
    async with open_inline_shop() as shop:
        form = {"form": {"what": "script", "script": "none", "parameters": {}}}
        assert (await answer(shop, "check", form, "read"))["code"] == "forbidden"
        assert (await answer(shop, "check", form, "run"))["code"] == "not_found"


@pytest.mark.parametrize("payload", [{}, {"form": None}, {"form": []}, {"form": {}}, {"form": {"what": 3}}])
async def test_what_is_no_form_is_refused(payload: Message) -> None:
    """A browser's message is a stranger's word."""
    async with open_inline_shop() as shop:
        assert (await answer(shop, "submit", payload))["code"] == "invalid"


@pytest.mark.parametrize("task_id", [None, 3, "", "nonsense", "2pwhe5r7000000"])
async def test_a_task_that_is_not_there_cannot_be_edited(task_id: object) -> None:
    """It is told so, whatever it was called."""
    async with open_inline_shop() as shop:
        assert (await answer(shop, "again", {"task_id": task_id}))["code"] == "not_found"


async def test_a_task_fills_in_the_form() -> None:
    """Edit and run again begins with its command."""
    async with open_inline_shop() as shop:
        task_id = await submit(shop, spec={"command": ["echo", "a b"]})
        form = (await answer(shop, "again", {"task_id": task_id}))["form"]
        assert (form["what"], form["command"], form["again"]) == ("command", "echo 'a b'", task_id)
