"""The private link's server: who gets in, what a slow reader gets, and that nobody is held up by it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from koubou_panel.core.commands import Caller, ScaleWorkers, SubmitTask
from koubou_panel.core.events import SystemNoted, TaskCompleted
from koubou_panel.core.ports import OutputBytes
from koubou_panel.core.records import Request, Task, TaskId
from koubou_panel.errors import Refused
from koubou_panel.servers import private, private_client
from koubou_panel.servers.private import PrivateServer
from koubou_panel.shop.address import connect_private
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.testing import open_inline_shop, until
from koubou_panel.wire import link, questions
from koubou_panel.wire.replica import Replica

CALLER = Caller("test")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@asynccontextmanager
async def _server(tmp_path):
    async with open_inline_shop() as shop:
        server = PrivateServer(shop, tmp_path / "shop.sock")
        await server.start()
        try:
            yield shop, server
        finally:
            await server.close()


class _Raw:
    """A client of plain bytes, that reads when the test says so."""

    def __init__(self, reader, writer) -> None:
        self.reader = reader
        self.writer = writer
        self.half = link.ClientHalf()
        self.waiting: list[link.ServerMessage] = []

    @classmethod
    async def connect(cls, path, *, python=PYTHON, replica=False):
        raw = cls(*await asyncio.open_unix_connection(path, limit=1 << 14))
        raw.send(link.Hello(link.VERSION, python, "raw", replica))
        return raw

    def send(self, *messages) -> None:
        self.writer.write(b"".join(map(link.encode, messages)))

    async def next(self) -> link.ServerMessage:
        while not self.waiting:
            data = await asyncio.wait_for(self.reader.read(1 << 16), 10)
            if not data:
                raise EOFError
            self.waiting = list(self.half.receive(data))
        return self.waiting.pop(0)

    async def until(self, kind):
        while not isinstance(message := await self.next(), kind):
            pass
        return message

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def _submission(shop, **more):
    more = {"kind": "script", "spec": {"command": ["true"]}} | more
    return SubmitTask(Request(task_id=shop.next_id(), created_at=0.0, **more))


async def test_socket_is_for_this_user_alone(tmp_path) -> None:
    """The socket is 0600 and its folder 0700, whatever they were before."""
    tmp_path.chmod(0o755)
    async with _server(tmp_path):
        assert stat.S_IMODE((tmp_path / "shop.sock").stat().st_mode) == 0o600
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    assert not (tmp_path / "shop.sock").exists()


async def test_a_socket_that_was_removed_is_made_again(tmp_path, monkeypatch) -> None:
    """Whoever clears the runtime folder of a running workshop does not cut it off."""
    monkeypatch.setattr(private, "BEAT_S", 0.01)
    folder = tmp_path / "runtime"
    folder.mkdir()
    async with _server(folder):
        shutil.rmtree(folder)
        await until((folder / "shop.sock").exists)
        connect_private(folder / "shop.sock").close()


async def test_the_socket_of_another_workshop_is_left_alone(tmp_path) -> None:
    """One whose folder was removed ends beside the next in the same place, and takes nothing of it away."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    async with _server(folder) as (_, old):
        shutil.rmtree(folder)
        folder.mkdir()
        async with _server(folder):
            await old.close()
            connect_private(folder / "shop.sock").close()
        assert not (folder / "shop.sock").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_other_user_is_turned_away() -> None:
    """Another user's process gets nothing, even where the file's permissions would let it in."""
    hello = link.encode(link.Hello(link.VERSION, PYTHON, "thief", replica=True))
    with tempfile.TemporaryDirectory() as name:
        async with _server(Path(name)):
            socket_file = Path(name, "shop.sock")
            Path(name).chmod(0o755)
            socket_file.chmod(0o777)
            talk = (
                "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(5)\n"
                f"s.connect({str(socket_file)!r}); print('connected', flush=True)\n"
                f"s.sendall({hello!r}); print(s.recv(100))"
            )
            done = await asyncio.to_thread(
                subprocess.run,
                [shutil.which("python3", path="/usr/bin:/bin") or sys.executable, "-c", talk],
                user=65534,
                group=65534,
                capture_output=True,
                text=True,
                check=False,
            )
    assert done.stdout in ("connected\n", "connected\nb''\n")


async def test_path_may_be_longer_than_a_sockets_address(tmp_path) -> None:
    """A home deep down works: a socket's address holds some hundred bytes, its path here is longer."""
    folder = tmp_path / ("x" * 120) / ("y" * 120)
    folder.mkdir(parents=True)
    async with (
        _server(folder) as (shop, _),
        await RemoteShop.connect(folder / "shop.sock", by="test") as remote,
    ):
        assert remote.state.epoch == shop.state.epoch


async def test_socket_of_a_dead_process_is_replaced(tmp_path) -> None:
    """What a killed workshop left behind does not hinder the next."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "shop.sock"))
    async with _server(tmp_path):
        await (await RemoteShop.connect(tmp_path / "shop.sock", by="test")).close()


async def test_what_is_not_the_protocol_ends_with_a_word(tmp_path) -> None:
    """A client that talks nonsense is told so and hung up on; others do not notice."""
    async with (
        _server(tmp_path) as (shop, server),
        await RemoteShop.connect(tmp_path / "shop.sock", by="test") as good,
    ):
        raw = await _Raw.connect(tmp_path / "shop.sock")
        raw.writer.write(b"\x00\x00\x00\x03abc")
        with pytest.raises(Refused, match="not a message"):
            await raw.until(link.Goodbye)
        await raw.close()
        await until(lambda: server.clients == 1)
        assert await good.do(_submission(good), CALLER) in shop.state.tasks


async def test_what_cannot_be_read_fails_that_call_alone(tmp_path) -> None:
    """A wrongly typed question or command is refused; the link stays, and all else that was asked with it is done."""
    async with (
        _server(tmp_path) as (shop, _),
        await RemoteShop.connect(tmp_path / "shop.sock", by="test") as remote,
    ):
        before = remote.state
        with pytest.raises(Refused, match="Expected `int`, got `str`"):
            await remote.read_output(remote.next_id(), 0, "a")
        answers = await remote.do_many([_submission(remote), _submission(remote, priority="x")], CALLER)
        assert answers[0] in shop.state.tasks
        assert answers[1].code == "invalid"
        with pytest.raises(Refused, match="cannot read") as caught:
            await remote.do(ScaleWorkers(1.5, 2), CALLER)
        assert caught.value.code == "invalid"
        assert remote.state is before  # it was not connected anew


async def test_nothing_is_sent_again_to_who_hung_up_on_it(tmp_path) -> None:
    """Where the whole link is cut for what was sent, each call of it is told so at once."""
    async with (
        _server(tmp_path) as (_, server),
        await RemoteShop.connect(tmp_path / "shop.sock", by="test") as remote,
    ):
        remote._connection._transport.write(b"\x00\x00\x00\x03abc")
        with pytest.raises(Refused, match="not a message"):
            await asyncio.wait_for(remote.read_output(remote.next_id(), 0, 1), 5)
        await until(lambda: server.clients == 1 and remote.link.status == "live")


async def test_functions_of_another_python_are_refused_the_rest_is_served(tmp_path) -> None:
    """A caller of another minor version may follow and command, but not hand over a function."""
    async with _server(tmp_path) as (shop, _):
        raw = await _Raw.connect(tmp_path / "shop.sock", python="3.99", replica=True)
        function = _submission(shop, kind="function", spec={}, payload=b"pickle")
        raw.send(link.Do(1, CALLER, [function, _submission(shop)]))
        replies = await raw.until(link.Replies)
        assert "the caller 3.99" in replies.results[0].message
        assert replies.results[1] in shop.state.tasks
        await raw.close()


async def test_payloads_do_not_leave(tmp_path) -> None:
    """The opaque bytes of a function stay in the workshop: neither state, facts nor records carry them."""
    from koubou_panel.kinds.packing import pack

    secret = pack(b"opaque-secret", b"opaque-secret", [])
    async with _server(tmp_path) as (shop, _):
        before = await shop.do(_submission(shop, kind="function", spec={}, payload=secret), CALLER)
        raw = await _Raw.connect(tmp_path / "shop.sock", replica=True)
        raw.send(link.Ask(1, questions.Get(before)), link.Follow(before))
        await raw.until(link.Reset)
        after = await shop.do(_submission(shop, kind="function", spec={}, payload=secret), CALLER)
        raw.send(link.Ask(2, questions.Get(after)))
        seen = b""
        while b"Beat" not in seen:
            seen += await asyncio.wait_for(raw.reader.read(1 << 16), 10)
        assert after.encode() in seen
        assert b"opaque-secret" not in seen
        await raw.close()


async def test_follower_is_told_of_its_task_alone(tmp_path) -> None:
    """Who follows one task gets its record when it changes, and when there is none."""
    async with _server(tmp_path) as (shop, _):
        raw = await _Raw.connect(tmp_path / "shop.sock")
        task_id = await shop.do(_submission(shop), CALLER)
        raw.send(link.Follow(task_id), link.Follow(TaskId("nonesuch")))
        await until(lambda: task_id in shop.engine.jobs)
        await shop.do(_submission(shop), CALLER)
        shop.engine.finish(task_id, exit_code=0)
        told: dict[TaskId, list[Task | None]] = {}
        while not (told.get("nonesuch") and told.get(task_id) and told[task_id][-1].is_finished):
            now = await raw.until(link.Now)
            told.setdefault(now.task_id, []).append(now.task)
        assert told.keys() == {task_id, "nonesuch"}
        assert told["nonesuch"] == [None]
        raw.send(link.Unfollow(task_id))
        await raw.close()


async def test_batches_that_are_sent_again_stay_in_their_order(tmp_path) -> None:
    """The next one waits until it was looked up which tasks of the one before there are already."""
    async with _server(tmp_path) as (shop, _):
        parts = [_submission(shop) for _ in range(20)]
        ids = tuple(command.request.task_id for command in parts)
        whole = _submission(shop, after=ids)
        raw = await _Raw.connect(tmp_path / "shop.sock")
        raw.send(link.Do(1, CALLER, parts, resent=True), link.Do(2, CALLER, [whole], resent=True))
        told = {
            replies.call: replies.results for replies in [await raw.until(link.Replies) for _ in range(2)]
        }
        assert told == {1: list(ids), 2: [whole.request.task_id]}
        await raw.close()


async def test_command_waits_for_no_answer_to_those_before(tmp_path, monkeypatch) -> None:
    """Commands are asked in the order they came in, not one after the other is answered."""
    async with (
        _server(tmp_path) as (shop, _),
        await RemoteShop.connect(tmp_path / "shop.sock", by="test") as remote,
    ):
        gate, do_many = asyncio.Event(), shop.do_many

        async def answer_late(commands, caller):
            answers = await do_many(commands, caller)
            await gate.wait()
            return answers

        monkeypatch.setattr(shop, "do_many", answer_late)
        asking = [asyncio.create_task(remote.do_many([_submission(remote)], CALLER)) for _ in range(3)]
        await until(lambda: sum(shop.state.counts.values()) == 3)
        assert not any(task.done() for task in asking)
        gate.set()
        await asyncio.gather(*asking)


async def test_command_that_fails_holds_up_no_other(tmp_path, monkeypatch) -> None:
    """Those after a command that the workshop cannot carry out are carried out."""
    async with (
        _server(tmp_path) as (shop, _),
        await RemoteShop.connect(tmp_path / "shop.sock", by="test") as remote,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(shop, "do_many", lambda commands, caller: 1 / 0)
            with pytest.raises(Refused) as caught:
                await remote.do(_submission(remote), CALLER)
            assert caught.value.code == "internal"
        task_id = await remote.do(_submission(remote), CALLER)
        assert task_id in shop.state.tasks


async def test_slow_replica_is_no_longer_fed_and_starts_anew(tmp_path, monkeypatch) -> None:
    """A replica that does not read holds up nobody, costs bounded memory, and is right again when it reads."""
    monkeypatch.setattr(private_client, "BEHIND_BYTES", 200_000)
    monkeypatch.setattr(private_client, "CAUGHT_UP_BYTES", 20_000)
    async with _server(tmp_path) as (shop, server):
        raw = await _Raw.connect(tmp_path / "shop.sock", replica=True)
        await raw.until(link.Reset)
        raw.writer.transport.pause_reading()
        async with await RemoteShop.connect(tmp_path / "shop.sock", by="test") as quick:
            slow = next(c for c in server._clients if c._half.hello.by == "raw")
            filler = "x" * 5_000
            for _ in range(400):
                shop.hub.note(SystemNoted(0.0, "note", filler))
            await until(lambda: slow.is_behind)
            await until(lambda: quick.state.seq == shop.state.seq)
            assert slow._transport.get_write_buffer_size() < 2 * 5_000 * 512
            task_id = await quick.do(_submission(quick), CALLER)
            raw.writer.transport.resume_reading()
            replica = Replica()
            while task_id not in replica.state.tasks:
                message = await raw.next()
                if isinstance(message, link.Reset | link.More):
                    replica.reset(message)
            assert replica.state.seq == shop.state.seq
        await raw.close()


async def test_large_state_reaches_a_replica_whole_while_facts_go_on(tmp_path) -> None:
    """A state in pieces and the facts that happen meanwhile add up."""
    async with _server(tmp_path) as (shop, _):
        await shop.do_many([_submission(shop) for _ in range(5_000)], CALLER)
        connecting = asyncio.create_task(RemoteShop.connect(tmp_path / "shop.sock", by="test"))
        for _ in range(20):
            await shop.do_many([_submission(shop) for _ in range(20)], CALLER)
        async with await connecting as remote:
            await until(lambda: remote.state.seq == shop.state.seq)
            assert remote.state.tasks.keys() == shop.state.tasks.keys()


async def test_large_answer_does_not_count_as_being_slow(tmp_path, monkeypatch) -> None:
    """A replica that asked for much is not taken for one that does not read."""
    monkeypatch.setattr(private_client, "BEHIND_BYTES", 100_000)
    monkeypatch.setattr(private_client, "CAUGHT_UP_BYTES", 50_000)

    async def read_bytes(task_id, offset, limit):
        return OutputBytes(b"x" * 3_000_000, 0, 3_000_000, 3_000_000)

    async with (
        _server(tmp_path) as (shop, server),
        await RemoteShop.connect(tmp_path / "shop.sock", by="test") as remote,
    ):
        monkeypatch.setattr(shop, "read_bytes", read_bytes)
        (client,) = server._clients
        states = []
        monkeypatch.setattr(client, "send_state", lambda: states.append(1))
        asking = asyncio.create_task(remote.read_bytes(TaskId("x"), 0, 1))
        await shop.do(_submission(shop), CALLER)
        assert len((await asking).data) == 3_000_000
        await until(lambda: remote.state.seq == shop.state.seq)
        assert states == []


async def test_workshop_says_something_each_second(tmp_path, monkeypatch) -> None:
    """A heartbeat tells a quiet workshop from one that hangs."""
    monkeypatch.setattr(private, "BEAT_S", 0.01)
    async with _server(tmp_path) as (shop, _):
        raw = await _Raw.connect(tmp_path / "shop.sock")
        assert (await raw.until(link.Beat)).epoch == shop.state.epoch
        await raw.close()


async def test_closing_hangs_up_on_everybody(tmp_path) -> None:
    """When the server closes, its clients see the end, also one that does not read."""
    async with _server(tmp_path) as (_, server):
        raw = await _Raw.connect(tmp_path / "shop.sock", replica=True)
        await raw.until(link.Reset)
    with pytest.raises(EOFError):
        await raw.until(link.Replies)
    assert server.clients == 0
    await raw.close()


async def test_twenty_clients_leave_nothing_behind(tmp_path) -> None:
    """Clients that come and go leave no subscriber and no task."""
    async with _server(tmp_path) as (shop, server):
        tasks = len(asyncio.all_tasks())
        for _ in range(20):
            async with await RemoteShop.connect(tmp_path / "shop.sock", by="test") as remote:
                await remote.do(_submission(remote), CALLER)
        await until(lambda: server.clients == 0)
        await until(lambda: len(asyncio.all_tasks()) == tasks)
        assert shop.hub.subscribers == 1


async def test_small_results_come_to_who_submitted_and_to_nobody_else(tmp_path) -> None:
    """The fact that its task has ended has the value in it, so that it need not ask; other replicas stay light."""
    async with _server(tmp_path) as (shop, _):
        raws = [await _Raw.connect(tmp_path / "shop.sock", replica=True) for _ in range(2)]
        for raw in raws:
            await raw.until(link.Reset)
        command = _submission(shop)
        raws[0].send(link.Do(1, CALLER, [command]))
        task_id = command.request.task_id
        await until(lambda: task_id in shop.engine.jobs)
        shop.engine.finish(task_id, value=b"result")
        told = []
        for raw in raws:
            facts = []
            while not any(isinstance(fact, TaskCompleted) for fact in facts):
                facts = (await raw.until(link.Facts)).facts
            told += [fact.value for fact in facts if isinstance(fact, TaskCompleted)]
            await raw.close()
    assert told == [b"result", b""]
