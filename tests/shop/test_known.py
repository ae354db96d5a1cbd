"""Idempotency keys: each caller from the network has its own, and a key stands for one thing that was asked for."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from koubou_panel.core.commands import Caller, RunScript, SaveScript, SubmitTask
from koubou_panel.core.script import Parameter, Script
from koubou_panel.errors import Refused
from koubou_panel.testing import ended, open_inline_shop, open_shop, submission, submit, until

ONE = Caller("agent:one", from_network=True)
OTHER = Caller("rest:curl", from_network=True)
ME = Caller("test")


@pytest.fixture
async def shop():
    """A workshop in memory."""
    async with open_inline_shop() as opened:
        yield opened


async def test_another_callers_key_swallows_nothing(shop):
    """Two agents with the same key have a task each, and so has who is on this machine."""
    first = await shop.do(submission(shop, "true", idempotency_key="task-1"), ONE)
    second = await shop.do(submission(shop, "false", idempotency_key="task-1"), OTHER)
    mine = await submit(shop, "echo", idempotency_key="task-1")
    assert len({first, second, mine}) == 3
    assert await shop.do(submission(shop, "true", idempotency_key="task-1"), ONE) == first
    assert await submit(shop, "other", idempotency_key="task-1") == mine


async def test_a_key_stands_for_what_was_asked_for(shop):
    """The same caller that asks for something else with it is told which task has it."""
    first = await shop.do(submission(shop, "true", idempotency_key="k"), ONE)
    with pytest.raises(Refused, match=first) as refusal:
        await shop.do(submission(shop, "false", idempotency_key="k"), ONE)
    assert (refusal.value.code, refusal.value.field) == ("conflict", "idempotency_key")
    renamed = submission(shop, "true", idempotency_key="k", name="again", priority=9)
    assert await shop.do(renamed, ONE) == first


async def test_a_key_of_a_page_stands_for_what_was_asked_for_too(shop):
    """A form that was changed and is sent with the key of one that ran is refused, also once that one has left."""
    page = Caller("dashboard")
    first = await shop.do(submission(shop, "true", idempotency_key="k"), page)
    for _ in range(2):
        assert await shop.do(submission(shop, "true", idempotency_key="k"), page) == first
        with pytest.raises(Refused, match=first) as refusal:
            await shop.do(submission(shop, "false", idempotency_key="k"), page)
        assert refusal.value.field == "idempotency_key"
        if first in shop.state.tasks:
            await until(lambda: first in shop.engine.jobs)
            shop.engine.finish(first)
            await ended(shop, first)
            shop.state.tasks.pop(first)


async def test_a_key_of_a_run_stands_for_its_script_and_parameters(shop, tmp_path):
    """Another script, other parameters or no script at all is something else."""
    for name in ("a", "b"):
        parameters = (Parameter(name="n", type="integer", flag="--n"),)
        script = Script(name=name, path=str(tmp_path / name), parameters=parameters, given=("parameters",))
        (tmp_path / name).write_text("#!/bin/sh\ntrue\n")
        await shop.do(SaveScript(script), ME)

    def run(name, n):
        return RunScript(name, shop.next_id(), {"n": n}, idempotency_key="k")

    agent = Caller("agent:one", "run", from_network=True)
    first = await shop.do(run("a", 1), agent)
    assert await shop.do(run("a", 1), agent) == first
    for command in (run("b", 1), run("a", 2), submission(shop, "true", idempotency_key="k")):
        caller = ONE if isinstance(command, SubmitTask) else agent
        with pytest.raises(Refused, match="another key"):
            await shop.do(command, caller)
    assert set(shop.state.tasks) == {first}


async def test_the_key_of_a_task_that_left_the_state_is_compared_too(shop):
    """It is read from the archive."""
    first = await shop.do(submission(shop, "true", idempotency_key="k"), ONE)
    await until(lambda: first in shop.engine.jobs)
    shop.engine.finish(first)
    await ended(shop, first)
    shop.state.tasks.pop(first)
    assert await shop.do(submission(shop, "true", idempotency_key="k"), ONE) == first
    with pytest.raises(Refused, match="another key"):
        await shop.do(submission(shop, "false", idempotency_key="k"), ONE)


async def test_a_key_that_was_stored_as_it_came_is_its_callers(shop):
    """Of a home from before keys were each caller's own: nobody else is answered with its task."""
    first = await shop.do(submission(shop, "true", idempotency_key="k"), ONE)
    shop.hub.known.keys = {"k": first}
    assert await shop.do(submission(shop, "true", idempotency_key="k"), ONE) == first
    assert await shop.do(submission(shop, "true", idempotency_key="k"), OTHER) != first


async def test_keys_are_still_each_callers_own_after_a_restart(tmp_path):
    """As they are stored."""
    async with open_shop(tmp_path, workers=1) as shop:
        first = await shop.do(submission(shop, "true", idempotency_key="k"), ONE)
        mine = await submit(shop, "true", idempotency_key="k")
    async with open_shop(tmp_path, workers=1) as shop:
        assert await shop.do(submission(shop, "true", idempotency_key="k"), ONE) == first
        assert await submit(shop, "true", idempotency_key="k") == mine
        assert await shop.do(submission(shop, "true", idempotency_key="k"), OTHER) not in (first, mine)


async def test_the_limit_holds_for_an_agent_whichever_door_it_comes_by():
    """It is the workshop that counts; a retry and a run are one more, and who is on this machine has no limit."""
    async with open_inline_shop(agent_tasks=2) as shop:
        first = await shop.do(submission(shop, "true"), ONE)
        answers = await shop.do_many([submission(shop, "true") for _ in range(3)], ONE)
        assert [isinstance(answer, Refused) and answer.code for answer in answers] == [
            False,
            "limit",
            "limit",
        ]
        again = submission(shop, "true")
        assert await shop.do(SubmitTask(replace(again.request, task_id=first)), ONE) == first
        for _ in range(4):
            await submit(shop, "true")
        await shop.do(submission(shop, "true"), OTHER)
