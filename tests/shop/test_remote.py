"""A workshop in another process: the same door, a state that follows, and links that are cut."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from koubou_panel.core.commands import (
    Caller,
    CancelTask,
    PausePool,
    RetryTask,
    RunScript,
    ScaleWorkers,
    SubmitTask,
)
from koubou_panel.core.events import ScriptSaved, TasksSampled
from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.records import Limits, Request, TaskId, Use
from koubou_panel.core.script import Script
from koubou_panel.errors import Refused
from koubou_panel.servers.private import PrivateServer
from koubou_panel.shop import connection
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.testing import Collector, ended, open_inline_shop, open_shop, until
from koubou_panel.wire import link, questions

CALLER = Caller("test")


@asynccontextmanager
async def _serving(shop, path):
    server = PrivateServer(shop, path)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def _pair(tmp_path, *, replica=True):
    path = tmp_path / "shop.sock"
    async with (
        open_inline_shop() as shop,
        _serving(shop, path) as server,
        await RemoteShop.connect(path, by="test", replica=replica) as remote,
    ):
        yield shop, remote, server


def _submission(shop, **more):
    fields = {"kind": "script", "spec": {"command": ["true"]}} | more
    return SubmitTask(Request(task_id=shop.next_id(), created_at=0.0, **fields))


def _looks(state):
    return (
        state.epoch,
        state.seq,
        state.counts,
        state.pool,
        {task_id: (t.status, t.run, t.message) for task_id, t in state.tasks.items()},
        {worker_id: w.status for worker_id, w in state.workers.items()},
    )


async def test_replica_follows_the_workshop(tmp_path) -> None:
    """What is done over the link is in the workshop and comes back into the replica; so is what happens there."""
    async with _pair(tmp_path) as (shop, remote, _):
        task_id = await remote.do(_submission(remote, name="hello"), CALLER)
        assert shop.state.tasks[task_id].request.submitted_by == "test"
        await until(lambda: task_id in shop.engine.jobs)
        shop.engine.finish(task_id, exit_code=0, result="done")
        await until(lambda: remote.state.tasks[task_id].status == "completed")
        await until(lambda: _looks(remote.state) == _looks(shop.state))
        assert remote.link.status == "live"


async def test_submitted_task_is_in_the_replica_when_do_returns(tmp_path) -> None:
    """Whoever submits sees the task in the state at once, as with a workshop of the same process."""
    async with _pair(tmp_path) as (_, remote, _):
        task_id = await remote.do(_submission(remote), CALLER)
        assert task_id in remote.state.tasks


async def test_refusal_crosses_with_its_field(tmp_path) -> None:
    """A refused command raises the workshop's own words."""
    async with _pair(tmp_path) as (_, remote, _):
        with pytest.raises(Refused) as caught:
            await remote.do(_submission(remote, priority=11), CALLER)
        assert (caught.value.code, caught.value.field) == ("invalid", "priority")
        with pytest.raises(Refused) as caught:
            await remote.do(CancelTask(TaskId("nonesuch")), CALLER)
        assert caught.value.code == "not_found"


async def test_many_commands_cross_in_order_each_with_its_answer(tmp_path) -> None:
    """A batch gives for each command what it alone would have given, whatever its size."""
    async with _pair(tmp_path) as (shop, remote, _):
        good = [_submission(remote) for _ in range(2_500)]
        bad = _submission(remote, priority=0)
        answers = await remote.do_many([*good, bad, ScaleWorkers(2, 3), _submission(remote)], CALLER)
        assert answers[:2_500] == [command.request.task_id for command in good]
        assert isinstance(answers[2_500], Refused)
        assert shop.state.pool.max_workers == 3
        assert len(answers) == 2_503
        assert sum(shop.state.counts.values()) == 2_501


async def test_what_is_asked_first_is_there_for_what_is_asked_next(tmp_path) -> None:
    """A task may follow those of a batch on its way, also where their ids must be looked up in the archive."""
    async with _pair(tmp_path) as (_, remote, _):
        parts = [_submission(remote) for _ in range(100)]
        ids = tuple(command.request.task_id for command in parts)
        whole = _submission(remote, after=ids)
        first, then = await asyncio.gather(remote.do_many(parts, CALLER), remote.do_many([whole], CALLER))
        assert (tuple(first), then) == (ids, [whole.request.task_id])


async def test_chain_with_large_arguments_crosses_in_order(tmp_path, monkeypatch) -> None:
    """What a task follows is there also where so many commands as else cross together are too large for that."""
    monkeypatch.setattr(link, "MAX_FRAME_BYTES", 200_000)
    monkeypatch.setattr("koubou_panel.shop.remote.FRAME_BYTES", 100_000)
    monkeypatch.setattr("koubou_panel.shop.remote.FRAME_COMMANDS", 100)
    async with _pair(tmp_path) as (_, remote, _):
        await remote.do(PausePool(), CALLER)
        large = {"kind": "function", "spec": {}, "payload": b"x" * 3_000}
        chain = [_submission(remote, **large)]
        for _ in range(299):
            chain.append(_submission(remote, after=(chain[-1].request.task_id,), **large))
        assert await remote.do_many(chain, CALLER) == [command.request.task_id for command in chain]


async def test_single_commands_of_one_turn_cross_together(tmp_path, monkeypatch) -> None:
    """Commands asked for at once need few frames, and each waits for its own answer only."""
    frames = []
    encode = link.encode
    monkeypatch.setattr(link, "encode", lambda message: (frames.append(message), encode(message))[1])
    async with _pair(tmp_path, replica=False) as (_, remote, _):
        commands = [_submission(remote, priority=priority) for priority in (5, 0, 7)]
        answers = await asyncio.gather(*(remote.do(c, CALLER) for c in commands), return_exceptions=True)
        assert [isinstance(answer, Refused) for answer in answers] == [False, True, False]
        assert len([frame for frame in frames if isinstance(frame, link.Do)]) == 1


async def test_questions_are_answered_from_the_archive(tmp_path) -> None:
    """find, get, values, output and metrics come over the link."""
    async with (
        open_shop(tmp_path / "home", workers=1) as shop,
        _serving(shop, tmp_path / "s.sock"),
        await RemoteShop.connect(tmp_path / "s.sock", by="test", replica=False) as remote,
    ):
        spec = {"command": ["sh", "-c", r"printf 'hello \377\n'"]}
        request = Request(task_id=remote.next_id(), kind="script", created_at=0.0, spec=spec)
        task_id = await remote.do(SubmitTask(request), CALLER)
        async with remote.follow(task_id) as news:
            while not (task := await news.next(10.0)).is_finished:
                pass
        assert task.exit_code == 0
        assert (await remote.read_output(task_id, 0, 100)).text == "hello \ufffd\n"
        assert (await remote.read_bytes(task_id, 0, 100)).data == b"hello \xff\n"
        assert (await remote.get(task_id)).status == "completed"
        assert await remote.get(TaskId("00000000000000")) is None
        assert [t.task_id for t in (await remote.find(TaskQuery())).tasks] == [task_id]
        assert await remote.values([task_id]) == [b""]
        await until(lambda: shop.state.metrics)
        assert await remote.metrics_since(0.0)
        assert isinstance(await remote.metrics_binned(shop.clock() - 60.0, 10.0), list)
        for step_s in (0.001, 0.0, -1.0):
            with pytest.raises(Refused, match="longer ones"):
                await remote.metrics_binned(0.0, step_s)
        (span,) = (await remote.spans(task.started_at - 1.0, task.finished_at)).spans
        assert (span.task_id, span.worker_id, span.status) == (task_id, task.worker_id, "completed")
        assert (await remote.look()).workers
        assert await remote.curve(task_id) is None
        shop.hub.curves.add(TasksSampled(5.0, [(task_id, 1, Use(1.0, 2, 3.0))]))
        assert (await remote.curve(task_id)).at == [5.0]
        with pytest.raises(Refused) as caught:
            await remote.find(TaskQuery(limit=0))
        assert caught.value.field == "limit"


async def test_subscriber_is_reset_at_once_and_then_told(tmp_path) -> None:
    """A subscriber of a replica is treated as by the workshop itself; one that raises is dropped alone."""
    async with _pair(tmp_path) as (shop, remote, _):
        collector, broken = Collector(), Collector()
        broken.on_facts = lambda folded: 1 / 0
        remote.subscribe(broken)
        unsubscribe = remote.subscribe(collector)
        assert collector.resets == 1
        task_id = await shop.do(_submission(shop), CALLER)
        await until(lambda: collector.facts)
        assert collector.facts[0].record.task_id == task_id
        assert collector.facts[0].seq == 1
        unsubscribe()
        seen = len(collector.facts)
        other = await shop.do(_submission(shop), CALLER)
        await until(lambda: other in remote.state.tasks)
        assert len(collector.facts) == seen


async def test_nobody_there_is_said_at_once(tmp_path) -> None:
    """Without a workshop, connecting fails with what to do, and leaves nothing running."""
    with pytest.raises(Refused, match="koubou up") as caught:
        await RemoteShop.connect(tmp_path / "shop.sock", by="test")
    assert caught.value.code == "unavailable"
    assert len(asyncio.all_tasks()) == 1


async def test_connecting_can_wait_for_the_workshop(tmp_path) -> None:
    """With time to wait, a workshop that comes later is found."""
    path = tmp_path / "shop.sock"
    coming = asyncio.create_task(RemoteShop.connect(path, by="test", wait_s=20.0))
    async with open_inline_shop() as shop, _serving(shop, path), await coming as remote:
        assert remote.state.epoch == shop.state.epoch


async def test_silent_workshop_is_no_workshop(tmp_path, monkeypatch) -> None:
    """A process that listens and says nothing is given up after a while."""
    monkeypatch.setattr("koubou_panel.shop.remote.ANSWER_S", 0.2)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "s.sock"))
        mute.listen()
        with pytest.raises(Refused, match="does not answer"):
            await RemoteShop.connect(tmp_path / "s.sock", by="test")


async def test_other_version_says_so(tmp_path, monkeypatch) -> None:
    """A workshop of another version is told from one that is not there."""
    path = tmp_path / "s.sock"
    async with open_inline_shop() as shop, _serving(shop, path):
        other, encode = link.encode(link.Hello(99, "3.11", "test", replica=True)), link.encode
        monkeypatch.setattr(link, "encode", lambda m: other if isinstance(m, link.Hello) else encode(m))
        with pytest.raises(Refused, match="koubou down") as caught:
            await RemoteShop.connect(path, by="test", wait_s=5.0)
        assert caught.value.code == "version"


async def test_replica_comes_back_after_a_restart(tmp_path) -> None:
    """When the workshop is gone and comes back as a new epoch, the replica becomes it by itself."""
    path = tmp_path / "shop.sock"
    collector = Collector()
    async with open_inline_shop() as first, _serving(first, path):
        remote = await RemoteShop.connect(path, by="test")
        remote.subscribe(collector)
    async with remote:
        await until(lambda: remote.link.status == "reconnecting")
        async with open_inline_shop(workers=1) as second, _serving(second, path):
            await until(lambda: remote.state.epoch == second.state.epoch)
            assert remote.link.status == "live"
            assert _looks(remote.state) == _looks(second.state)
            assert collector.resets == 2
    assert remote.link.status == "closed"


async def test_commands_wait_for_the_link(tmp_path) -> None:
    """What is asked while the link is down is carried out when it is back."""
    path = tmp_path / "shop.sock"
    async with open_inline_shop() as shop:
        async with _serving(shop, path):
            remote = await RemoteShop.connect(path, by="test")
        async with remote:
            await until(lambda: remote.link.status == "reconnecting")
            waiting = [
                asyncio.create_task(remote.do(_submission(remote), CALLER)),
                asyncio.create_task(remote.do(ScaleWorkers(1, 2), CALLER)),
                asyncio.create_task(remote.find(TaskQuery())),
            ]
            async with _serving(shop, path):
                await asyncio.gather(*waiting)
            assert shop.state.pool.min_workers == 1


async def test_commands_do_not_wait_for_ever(tmp_path, monkeypatch) -> None:
    """When the link does not come back in time, they are refused as unavailable."""
    monkeypatch.setattr(connection, "WAIT_S", 0.1)
    path = tmp_path / "shop.sock"
    async with open_inline_shop() as shop, _serving(shop, path):
        remote = await RemoteShop.connect(path, by="test")
    async with remote:
        await until(lambda: remote.link.status == "reconnecting")
        with pytest.raises(Refused) as caught:
            await remote.do(_submission(remote), CALLER)
        assert caught.value.code == "unavailable"
        assert isinstance((await remote.do_many([_submission(remote)], CALLER))[0], Refused)
    with pytest.raises(Refused):
        await remote.do(_submission(remote), CALLER)


async def test_who_hangs_up_at_once_is_not_tried_all_the_time(tmp_path, monkeypatch) -> None:
    """A call has a workshop that has ended looked for once; each try that is cut off is followed by a rest."""
    for name, value in {"ENDED_S": 0.0, "AGAIN_S": 0.1, "WAIT_S": 0.5}.items():
        monkeypatch.setattr(connection, name, value)
    path, tries = tmp_path / "shop.sock", []

    def hang_up(_, writer) -> None:
        tries.append(writer.close())

    async with open_inline_shop() as shop, _serving(shop, path):
        remote = await RemoteShop.connect(path, by="test", why_ended=lambda: "it has ended")
    async with remote:
        await until(lambda: remote.link.status == "closed")
        async with await asyncio.start_unix_server(hang_up, path):
            with pytest.raises(Refused, match="does not answer"):
                await remote.do(_submission(remote), CALLER)
        assert 0 < len(tries) <= 8


class _Holding:
    """A shop that answers no command until it is told to, so that a link can be cut in between."""

    def __init__(self, shop) -> None:
        self._shop = shop
        self.gate = asyncio.Event()
        self.asked: list[object] = []

    def __getattr__(self, name):
        return getattr(self._shop, name)

    async def do_many(self, commands, caller):
        self.asked += commands
        answers = await self._shop.do_many(commands, caller)
        await self.gate.wait()
        return answers


@pytest.mark.parametrize("again", ["submit", "retry", "run"])
async def test_command_that_names_its_task_is_resent_and_done_once(tmp_path, again) -> None:
    """A submit, a retry or a run of a script cut off before its answer is sent again, and is one task all the same."""
    path = tmp_path / "shop.sock"
    async with open_inline_shop() as shop:
        shop.hub.note(ScriptSaved(1.0, Script(name="s", path="/s.sh"), 1, 1.0))
        old = await shop.do(_submission(shop), CALLER)
        await until(lambda: old in shop.engine.jobs)
        shop.engine.finish(old)
        await ended(shop, old)
        holding = _Holding(shop)
        async with _serving(holding, path):
            remote = await RemoteShop.connect(path, by="test")
            new_id = remote.next_id()
            commands = {
                "submit": _submission(remote),
                "retry": RetryTask(old, new_id),
                "run": RunScript("s", new_id),
            }
            command = commands[again]
            asking = asyncio.create_task(remote.do(command, CALLER))
            await until(lambda: holding.asked)
        async with remote, _serving(shop, path):
            task_id = await asking
            assert sum(shop.state.counts.values()) == 2
            assert task_id in shop.state.tasks
        holding.gate.set()


async def test_command_that_may_have_arrived_is_not_repeated(tmp_path) -> None:
    """A command that names no task of its own is refused after a cut, with the advice to look."""
    path = tmp_path / "shop.sock"
    async with open_inline_shop() as shop:
        holding = _Holding(shop)
        async with _serving(holding, path):
            remote = await RemoteShop.connect(path, by="test")
            asking = asyncio.create_task(remote.do(ScaleWorkers(1, 5), CALLER))
            await until(lambda: holding.asked)
        async with remote, _serving(shop, path):
            with pytest.raises(Refused, match="look before you ask again") as caught:
                await asking
            assert caught.value.code == "unavailable"
        holding.gate.set()


async def test_too_large_command_is_refused_and_its_neighbours_pass(tmp_path, monkeypatch) -> None:
    """A command that no frame can hold is refused alone; a batch that none can hold is split."""
    monkeypatch.setattr(link, "MAX_FRAME_BYTES", 20_000)
    async with _pair(tmp_path) as (_, remote, _):
        labels = {f"label {number}": "x" * 190 for number in range(5)}
        commands = [_submission(remote, labels=labels) for _ in range(50)]
        huge = _submission(remote, summary="x" * 30_000)
        answers = await remote.do_many([*commands, huge], CALLER)
        assert not any(isinstance(answer, Refused) for answer in answers[:50])
        assert answers[50].code == "too_large"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"name": "a\udcffb"}, "bytes that are not UTF-8"),
        ({"limits": Limits(memory_bytes=2**70)}, "cannot be sent"),
        ({"labels": {"a": object()}}, "cannot be sent"),
    ],
)
async def test_command_that_cannot_be_said_is_refused_and_its_neighbours_pass(tmp_path, more, words) -> None:
    """What no message can hold is refused with words, alone, however it was given."""
    async with _pair(tmp_path) as (_, remote, _):
        commands = [_submission(remote) for _ in range(5)]
        commands.insert(2, _submission(remote, **more))
        answers = await remote.do_many(commands, CALLER)
        assert [isinstance(answer, Refused) for answer in answers] == [
            False,
            False,
            True,
            False,
            False,
            False,
        ]
        assert (answers[2].code, words in answers[2].message) == ("invalid", True)
        with pytest.raises(Refused, match=words):
            await remote.do(_submission(remote, **more), CALLER)


async def test_question_that_cannot_be_said_is_refused(tmp_path) -> None:
    """A question is refused as a command is."""
    async with _pair(tmp_path) as (_, remote, _):
        with pytest.raises(Refused, match="not UTF-8"):
            await remote.get(TaskId("\udcff"))


async def test_garbage_from_the_workshop_makes_a_new_connection(tmp_path) -> None:
    """What cannot be read is not guessed at: the replica connects again and is right again."""
    async with _pair(tmp_path) as (shop, remote, server):
        (peer,) = server._clients
        peer.write(b"\x00\x00\x00\x01\xc1")
        await until(lambda: peer not in server._clients)
        await until(lambda: remote.link.status == "live")
        task_id = await shop.do(_submission(shop), CALLER)
        await until(lambda: task_id in remote.state.tasks)


async def test_missing_fact_makes_a_new_connection(tmp_path) -> None:
    """A gap in the facts is noticed and mended by a fresh state."""
    async with _pair(tmp_path) as (shop, remote, server):
        (peer,) = server._clients
        peer._is_fed = False
        first = await shop.do(_submission(shop), CALLER)
        peer._is_fed = True
        await shop.do(_submission(shop), CALLER)
        await until(lambda: first in remote.state.tasks)
        await until(lambda: _looks(remote.state) == _looks(shop.state))


async def test_answer_of_a_wrong_type_is_refused_once(tmp_path, monkeypatch) -> None:
    """An answer that cannot be read ends the question, not the link."""
    async with _pair(tmp_path) as (_, remote, _):
        monkeypatch.setitem(questions.ANSWERS, questions.Get, questions.ANSWERS[questions.Values])
        with pytest.raises(Refused) as caught:
            await remote.get(await remote.do(_submission(remote), CALLER))
        assert caught.value.code == "internal"
        assert remote.link.status == "live"
