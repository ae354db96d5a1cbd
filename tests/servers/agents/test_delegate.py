"""Delegating: submit with a caller and its quota, wait without polling, and read what came of it."""

from __future__ import annotations

import asyncio

import pytest

from koubou_panel.core.commands import Caller
from koubou_panel.core.records import Progress
from koubou_panel.errors import Refused
from koubou_panel.servers.access import Allow, Role
from koubou_panel.servers.agents.delegate import Delegation, Options, caller_of, split_command
from koubou_panel.shop.quota import Quota
from koubou_panel.testing import ended, open_inline_shop, open_shop, submission, submit, until

AGENT = Caller("rest:test", from_network=True)
OTHER = Caller("agent:other", from_network=True)


@pytest.fixture
async def shop():
    """A workshop in memory, whose tasks end when the test says so."""
    async with open_inline_shop(agent_tasks=3) as shop:
        yield shop


@pytest.fixture
def delegation(shop):
    """Delegation over it, with a limit of three tasks an agent."""
    delegation = Delegation(shop, agent_tasks=3)
    yield delegation
    delegation.close()


async def test_a_submitted_command_carries_who_asked(shop, delegation):
    """The task is durable when its id is given, and says who asked and what was asked."""
    task_id = await delegation.command(["echo", "hi"], AGENT, options=Options(priority=9, name="greet"))
    request = shop.state.tasks[task_id].request
    assert (request.submitted_by, request.kind, request.priority, request.name) == (
        "rest:test",
        "script",
        9,
        "greet",
    )
    assert request.spec == {"command": ["echo", "hi"]}


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("echo hi", ["echo", "hi"]),
        ("  python  train.py --name 'two words' ", ["python", "train.py", "--name", "two words"]),
        ('grep "a|b" file', ["grep", "a|b", "file"]),
        (r"find . -exec rm {} \;", ["find", ".", "-exec", "rm", "{}", ";"]),
        ("echo '$HOME'", ["echo", "$HOME"]),
    ],
)
def test_a_line_is_split_as_a_shell_splits(line, command):
    """Quotes and backslashes hold words together, and nothing is expanded."""
    assert split_command(line) == command


@pytest.mark.parametrize(
    "line",
    [
        "",
        "   ",
        "'open",
        "a && b",
        "a | b",
        "a; b",
        "a > b",
        "a < b",
        "echo `id`",
        "echo $(id)",
        "echo $HOME",
        "a\nb",
    ],
)
def test_a_line_that_needs_a_shell_is_refused(line):
    """What only a shell could run is refused with the field, never run as something else."""
    with pytest.raises(Refused) as refused:
        split_command(line)
    assert (refused.value.code, refused.value.field) == ("invalid", "command")


@pytest.mark.parametrize(
    ("actor", "product", "by"),
    [
        ("token", "curl/8.5.0", "rest:curl"),
        ("token", "Mozilla/5.0 (X11)", "rest:Mozilla"),
        ("token", "", "rest"),
        ("token", "\u00e9\x00", "rest"),
        ("anyone", "x" * 500, "rest:" + "x" * 40),
        ("agent:nightly", "curl/8", "agent:nightly"),
    ],
)
def test_a_caller_is_named_shortly(actor, product, by):
    """A named token goes by its name, everyone else by the door and the program; always short and printable."""
    assert caller_of(Allow(Role.FULL, actor), "rest", product) == Caller(by, "full", from_network=True)


async def test_waiting_ends_with_the_task(shop, delegation):
    """Everyone who waits is told by the task's end, and nothing is left behind."""
    task_id = await delegation.command(["true"], AGENT)
    waits = [asyncio.create_task(delegation.wait(task_id, 30)) for _ in range(3)]
    await until(lambda: task_id in shop.engine.jobs)
    shop.engine.finish(task_id)
    assert {task.status for task in await asyncio.gather(*waits)} == {"completed"}
    assert not delegation._watches
    assert (await delegation.wait(task_id, 30)).status == "completed"


async def test_waiting_gives_the_task_as_it_stands_when_time_is_out(delegation):
    """After the time-out the task is given as it is, and goes on."""
    task_id = await delegation.command(["true"], AGENT)
    assert (await delegation.wait(task_id, 0.01)).status == "in_progress"
    assert not delegation._watches


async def test_waiting_tells_each_change(shop, delegation):
    """Facts and samples of progress reach who waits, on the way to the end."""
    task_id = await delegation.command(["true"], AGENT)
    seen = []
    wait = asyncio.create_task(delegation.wait(task_id, 30, on_change=seen.append))
    await until(lambda: task_id in shop.engine.jobs)
    shop.engine.progress(task_id, Progress(fraction=0.5))
    await until(lambda: seen)
    shop.engine.finish(task_id)
    await wait
    assert seen[0].progress.fraction == 0.5
    assert seen[-1].status == "completed"


async def test_waiting_for_nothing_is_refused(delegation):
    """An unknown task is `not_found`, at once."""
    with pytest.raises(Refused, match="no task"):
        await delegation.wait("nope", 30)
    assert not delegation._watches


async def test_who_goes_away_cancels_nothing(shop, delegation):
    """A submit whose asker is cancelled meanwhile is carried out and counted all the same."""
    asked = asyncio.create_task(delegation.command(["true"], AGENT))
    await asyncio.sleep(0)
    asked.cancel()
    await until(lambda: len(shop.state.tasks) == 1)
    await until(lambda: not delegation._asked)
    assert delegation.quota.count("rest:test") == 1


async def test_a_burst_stops_at_the_limit(delegation):
    """Of ten tasks asked for at once, as many are taken as the limit allows; another agent has its own."""
    asked = [delegation.command(["true"], AGENT) for _ in range(10)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert {answer.code for answer in refused} == {"limit"}
    assert len(refused) == 7
    await delegation.command(["true"], OTHER)


async def test_an_ended_task_makes_room(shop, delegation):
    """The count follows the tasks: of an agent whose work is done nothing is kept."""
    task_ids = [await delegation.command(["true"], AGENT) for _ in range(3)]
    with pytest.raises(Refused):
        await delegation.command(["true"], AGENT)
    await until(lambda: task_ids[0] in shop.engine.jobs)
    shop.engine.finish(task_ids[0])
    await until(lambda: delegation.quota.count("rest:test") == 2)
    await delegation.command(["true"], AGENT)
    await delegation.cancel(task_ids[2], AGENT)
    await until(lambda: delegation.quota.count("rest:test") == 2)


async def test_a_refused_task_is_not_counted(delegation):
    """What was not taken in leaves nothing in the count."""
    with pytest.raises(Refused):
        await delegation.command([], AGENT)
    assert delegation.quota.count("rest:test") == 0


async def test_at_the_limit_a_resend_is_answered(delegation):
    """Nothing new would be made: the same key gives its task, and the same id too."""
    keyed = Options(idempotency_key="k")
    first = await delegation.command(["true"], AGENT, options=keyed)
    for _ in range(2):
        await delegation.command(["true"], AGENT)
    assert await delegation.command(["true"], AGENT, options=keyed) == first
    with pytest.raises(Refused):
        await delegation.command(["true"], AGENT, options=Options(idempotency_key="other"))


async def test_the_limit_is_reached_and_not_one_before(delegation):
    """A task is counted once, also between its commit and its answer."""
    task_ids = [await delegation.command(["true"], AGENT) for _ in range(3)]
    assert len(set(task_ids)) == 3


async def test_the_count_is_right_from_the_start(shop):
    """A count that begins later, as after a restart, has what is there; other callers' tasks do not count."""
    await shop.do(submission(shop, "true"), AGENT)
    await submit(shop, "true")
    quota = Quota(5)
    unsubscribe = shop.subscribe(quota)
    assert quota.count("rest:test") == 1
    assert quota.count("test") == 0
    unsubscribe()


async def test_retrying_counts_and_is_its_own_task(shop, delegation):
    """A retry is a new task of who asks for it."""
    task_id = await submit(shop, "true")
    await until(lambda: task_id in shop.engine.jobs)
    shop.engine.finish(task_id, reason="exit", exit_code=1)
    await ended(shop, task_id)
    again = await delegation.retry(task_id, OTHER)
    assert shop.state.tasks[again].request.submitted_by == "agent:other"
    assert delegation.quota.count("agent:other") == 1


async def test_the_role_run_submits_no_command(delegation):
    """A token for scripts alone can neither submit a command nor cancel."""
    run = Caller("agent:ci", "run", from_network=True)
    for asked in (
        delegation.command(["true"], run),
        delegation.prompt("hi", run),
        delegation.cancel("x", run),
    ):
        with pytest.raises(Refused) as refused:
            await asked
        assert refused.value.code == "forbidden"


async def test_a_result_is_success_output_and_error(tmp_path):
    """A command that succeeds gives its output, one that fails gives what went wrong too."""
    async with open_shop(tmp_path, workers=1) as shop:
        before = shop.hub.subscribers
        delegation = Delegation(shop, agent_tasks=10)
        good = await delegation.wait(await delegation.command(["echo", "hi"], AGENT), 30)
        bad = await delegation.wait(await delegation.command(["sh", "-c", "echo no; exit 3"], AGENT), 30)
        found = await delegation.result(good)
        assert (found.success, found.output, found.error) == (True, "hi\n", None)
        found = await delegation.result(bad)
        assert (found.success, found.output) == (False, "no\n")
        assert "3" in found.error
        assert (await delegation.output(good.task_id, 1, 10)).text == "i\n"
        delegation.close()
        assert shop.hub.subscribers == before
