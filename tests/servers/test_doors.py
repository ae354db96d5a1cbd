"""Both WebSocket doors over real sockets: commands, channels, order, auth and bad input, row by row."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest

from koubou_panel.core.commands import Caller, RunsSampled, SaveScript
from koubou_panel.core.events import MetricsSampled, OutputGrew
from koubou_panel.core.ports import OutputPage
from koubou_panel.core.records import CHANNELS, Metrics, Progress, Use
from koubou_panel.core.script import Parameter, Script
from koubou_panel.servers.feed import STATS_EVERY_S, Feed
from koubou_panel.servers.socket import MOST_STRANGERS
from koubou_panel.testing import ended, open_inline_shop, open_shop, submission, submit, until
from koubou_panel.wire import commands
from koubou_panel.wire.session import Limits
from tests.servers.doors import DOORS, SCRIPT, TOKEN, Client, closes, open_door

CALLER = Caller("test")


@pytest.fixture
async def shop():
    """A workshop in memory, whose tasks end when the test says so."""
    async with open_inline_shop(clock=time.time) as shop:
        yield shop


@pytest.fixture(params=DOORS)
async def door(request, shop):
    """Each door in turn."""
    async with open_door(request.param, shop) as door:
        yield door


@pytest.fixture
async def client(door):
    """A client with full rights."""
    async with door.client() as client:
        yield client


@pytest.fixture
def backup(tmp_path):
    """The path of a script."""
    path = tmp_path / "backup.sh"
    path.write_text("true\n", encoding="utf-8")
    return str(path)


# -- on connect, and commands ---------------------------------------------------------------------------------


async def test_the_state_comes_first(door, client, shop):
    """On connect the state is sent; 8766 subscribes nothing, /ws `system` and `script`."""
    data = client.state["data"]
    assert (data["protocol"], data["epoch"]) == (1, shop.state.epoch)
    assert data["workers"]["total_workers"] == len(data["active_workers"]) == 2
    assert {worker["status"] for worker in data["active_workers"]} == {"idle"}
    await shop.do(submission(shop), Caller("test"))
    shop.hub.note(MetricsSampled(time.time(), Metrics(time.time(), {"cpu_percent": 5.0})))
    await client.say("ping")
    got = await client.next("system_metrics", "pong")
    if door.name == "ws":
        assert got["type"] == "system_metrics" or await client.next("system_metrics")
    else:
        assert got["type"] == "pong"
        assert [message["type"] for message in client.seen] == ["initial_state", "pong"]


@pytest.mark.parametrize("channel", [channel for channel in CHANNELS if channel != "output"])
async def test_every_channel_can_be_followed_and_left(client, channel):
    """`subscribe` and `unsubscribe` of each channel are confirmed."""
    told = await client.ask("subscribe", channel=channel)
    assert (told["type"], told["channel"]) == ("subscribed", channel)
    assert isinstance(told["seq"], int)
    told = await client.ask("unsubscribe", channel=channel)
    assert (told["type"], told["channel"]) == ("unsubscribed", channel)


async def test_a_task_is_submitted_followed_and_ended(client, shop):
    """A task submitted here is seen to the end, with what the first system's clients read on top."""
    await client.ask("subscribe", channel="task")
    told = await client.ask("submit", name="train", **SCRIPT)
    task_id = told["task_id"]
    assert (told["type"], told["data"]["submitted_by"]) == ("submitted", "ws:127.0.0.1")
    await until(lambda: task_id in shop.engine.jobs)
    shop.engine.finish(task_id, exit_code=0, result="done")
    while (update := await client.next("task_update"))["status"] != "completed":
        pass
    seen = [message for message in client.seen if message["type"] == "task_update"]
    assert [message["status"] for message in seen] == ["pending", "in_progress", "completed"]
    assert [message["seq"] for message in seen] == [1, 2, 3]
    assert update["data"]["result"] == "done"
    shown = await client.ask("get_task", task_id=task_id)
    assert shown["data"] == update["data"]
    listed = await client.ask("list_tasks", status="completed", text="tra", limit=1)
    assert listed["data"]["total"] == 1
    assert listed["data"]["tasks"] == [update["data"]]


async def test_a_resent_submit_is_one_task(client, shop):
    """The same `idempotency_key` gives the same task."""
    one = await client.ask("submit", idempotency_key="k", **SCRIPT)
    two = await client.ask("submit", idempotency_key="k", **SCRIPT)
    assert one["task_id"] == two["task_id"]
    assert len(shop.state.tasks) == 1


async def test_a_task_is_cancelled_and_retried(client, shop):
    """`cancel` is accepted, `retry` is a new task that names the old one."""
    task_id = (await client.ask("submit", **SCRIPT))["task_id"]
    assert (await client.ask("retry", task_id=task_id))["data"]["code"] == "conflict"
    told = await client.ask("cancel", task_id=task_id)
    assert (told["type"], told["task_id"]) == ("accepted", task_id)
    await ended(shop, task_id)
    again = await client.ask("retry", task_id=task_id, spec={"command": ["false"]})
    assert (again["type"], again["data"]["rerun_of"]) == ("submitted", task_id)
    assert shop.state.tasks[again["task_id"]].request.spec["command"] == ["false"]
    assert (await client.ask("cancel", task_id=task_id))["data"]["code"] == "conflict"


async def test_what_a_task_uses_is_told(client, shop):
    """`task_usage` comes as it is sampled, `get_usage` gives the curve: empty before, columns then."""
    task_id = (await client.ask("submit", **SCRIPT))["task_id"]
    await until(lambda: shop.state.tasks[task_id].status == "in_progress")
    assert (await client.ask("get_usage", task_id=task_id))["data"]["at"] == []
    await client.ask("subscribe", channel="task")
    shop.hub.report(RunsSampled([(task_id, 1, Use(12.5, 1_000, 0.5))]))
    assert (await client.next("task_usage"))["data"]["cpu_percent"] == 12.5
    told = await client.ask("get_usage", task_id=task_id)
    assert (told["type"], told["task_id"], told["data"]["rss_bytes"]) == ("usage", task_id, [1_000])
    assert (await client.ask("get_usage", task_id="none"))["data"]["code"] == "not_found"


async def test_input_is_given_to_a_running_command(client, shop):
    """`send_input` is accepted once it is taken; who takes none is a conflict; a reader may not."""
    spec = {"command": ["cat"], "stdin": True}
    task_id = (await client.ask("submit", kind="script", spec=spec))["task_id"]
    await until(lambda: shop.state.tasks[task_id].status == "in_progress")
    told = await client.ask("send_input", task_id=task_id, text="工\n")
    assert (told["type"], told["task_id"]) == ("accepted", task_id)
    assert (await client.ask("send_input", task_id=task_id, is_last=True))["type"] == "accepted"
    assert shop.engine.inputs == [(task_id, "工\n".encode(), False), (task_id, b"", True)]
    silent = (await client.ask("submit", **SCRIPT))["task_id"]
    await until(lambda: shop.state.tasks[silent].status == "in_progress")
    refused = (await client.ask("send_input", task_id=silent, text="x"))["data"]
    assert (refused["code"], "takes no input" in refused["message"]) == ("conflict", True)
    assert (await client.ask("send_input", task_id="none", text="x"))["data"]["code"] == "not_found"
    large = await client.ask("send_input", task_id=task_id, text="工" * 30_000)
    assert (large["data"]["code"], "65536 bytes" in large["data"]["message"]) == ("invalid", True)


async def test_workers_are_scaled(client, shop):
    """`scale` sets the bounds of the pool."""
    assert (await client.ask("scale", workers=3))["type"] == "accepted"
    assert (shop.state.pool.min_workers, shop.state.pool.max_workers) == (3, 3)
    await client.ask("scale", min_workers=1, max_workers=2)
    assert (shop.state.pool.min_workers, shop.state.pool.max_workers) == (1, 2)


async def test_the_pool_is_paused_drained_and_resumed(client, shop):
    """Each is accepted, told to those who follow `system`, and shown to who connects."""
    assert client.state["data"]["pool"]["paused"] is False
    await client.ask("subscribe", channel="system")
    for command, paused, draining in (
        ("pause_workers", True, False),
        ("drain_workers", True, True),
        ("resume_workers", False, False),
    ):
        client.seen.clear()
        assert (await client.ask(command))["type"] == "accepted"
        pool = shop.state.pool
        assert (pool.paused, pool.draining) == (paused, draining)
        events = [message for message in client.seen if message["type"] == "system_event"]
        told = events[0] if events else await client.next("system_event")
        assert (told["event"], told["data"]["paused"], told["data"]["draining"]) == (
            "pool_changed",
            paused,
            draining,
        )


async def test_a_drained_pool_takes_no_work(client):
    """`submit` is refused with the way out, until the pool is resumed."""
    await client.ask("drain_workers")
    data = (await client.ask("submit", **SCRIPT))["data"]
    assert data["code"] == "draining"
    assert "resume" in data["message"]
    await client.ask("resume_workers")
    assert (await client.ask("submit", **SCRIPT))["type"] == "submitted"


async def test_a_task_follows_another(client, shop):
    """`after` holds a task back until the other has succeeded; the record says what it waits for."""
    first = (await client.ask("submit", **SCRIPT))["task_id"]
    told = await client.ask("submit", after=[first, first], limits={"memory_bytes": 1 << 30}, **SCRIPT)
    second, record = told["task_id"], told["data"]
    assert (record["after"], record["waits_for"]) == ([first, first], [first])
    assert record["limits"]["memory_bytes"] == 1 << 30
    await until(lambda: first in shop.engine.jobs)
    assert second not in shop.engine.jobs
    shop.engine.finish(first)
    await until(lambda: second in shop.engine.jobs)
    assert shop.engine.jobs[second][1].limits.memory_bytes == 1 << 30


async def test_what_follows_a_failure_is_cancelled(client, shop):
    """A pending one with the reason `dependency`; one that is submitted later at once; both name the first to fail."""
    first = (await client.ask("submit", **SCRIPT))["task_id"]
    second = (await client.ask("submit", after=[first], **SCRIPT))["task_id"]
    await until(lambda: first in shop.engine.jobs)
    shop.engine.finish(first, reason="exit", exit_code=3, message="exited with code 3")
    await ended(shop, second)
    third = (await client.ask("submit", after=[second], **SCRIPT))["task_id"]
    for task_id in (second, third):
        record = (await client.ask("get_task", task_id=task_id))["data"]
        assert (record["status"], record["reason"]) == ("cancelled", "dependency")
        assert first in record["message"]


async def test_a_worker_is_restarted(client, shop):
    """At once it is replaced by another; an unknown one is answered with the nearest."""
    worker_id = next(iter(shop.state.workers))
    told = await client.ask("restart_worker", worker_id=worker_id, at_once=True)
    assert (told["type"], told["worker_id"]) == ("accepted", worker_id)
    await until(lambda: sum(w.status == "idle" for w in shop.state.workers.values()) == 2)


@pytest.mark.parametrize(
    ("command", "fields", "at_fault", "said"),
    [
        ("submit", SCRIPT | {"after": ["nonesuch"]}, ("not_found", "after"), "nonesuch"),
        (
            "submit",
            SCRIPT | {"limits": {"memory_bytes": 1000}},
            ("invalid", "limits.memory_bytes"),
            "1048576",
        ),
        ("submit", SCRIPT | {"limits": {"cpu_s": 0.001}}, ("invalid", "limits.cpu_s"), "0.01"),
        ("submit", SCRIPT | {"limits": {"memory": 5}}, ("invalid", "limits.memory"), "limits.memory_bytes"),
        ("submit", SCRIPT | {"limits": {"output_bytes": 5}}, ("invalid", "limits.output_bytes"), "65536"),
        ("restart_worker", {"worker_id": "worker-11"}, ("not_found", "worker_id"), "did you mean 'worker-1'"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_field(client, command, fields, at_fault, said):
    """The code, the field at fault, and words that say what would be right."""
    data = (await client.ask(command, **fields))["data"]
    assert (data["code"], data["field"]) == at_fault
    assert said in data["message"]


async def test_stats_and_ping(client, door):
    """`get_stats` counts, and `ping` is answered."""
    data = (await client.ask("get_stats"))["data"]
    assert data["active_connections"] == door.feed.connections() == 1
    assert data["tasks"]["pending"] == 0
    assert (await client.ask("ping"))["type"] == "pong"


async def test_an_unknown_script_is_refused_with_the_nearest(client, shop, backup):
    """`run_script` names the script that was probably meant."""
    await shop.do(SaveScript(Script(name="backup", path=backup)), CALLER)
    data = (await client.ask("run_script", script_name="bakcup"))["data"]
    assert (data["code"], data["nearest"]) == ("not_found", "backup")


async def test_parameters_are_checked(client, shop, backup):
    """A parameter of another type is refused with its name, and nothing is submitted."""
    parameters = (Parameter(name="copies", type="integer"),)
    await shop.do(SaveScript(Script(name="backup", path=backup, parameters=parameters)), CALLER)
    told = await client.ask("run_script", script_name="backup", parameters={"copies": "many"})
    assert (told["data"]["code"], told["data"]["field"]) == ("invalid", "parameters.copies")
    assert shop.state.scripts["backup"].active == ()


@pytest.mark.parametrize("name", DOORS)
async def test_every_connection_gets_the_stats(name, shop):
    """`periodic_stats` comes without being asked for, every five seconds (here ten times a second)."""
    assert STATS_EVERY_S == 5
    feed = Feed(shop, stats_every_s=0.1)
    async with open_door(name, shop, feed=feed) as door, door.client() as client:
        for _ in range(2):
            message = await client.next("periodic_stats")
            assert message["data"]["active_connections"] == 1
    await feed.close()


async def test_samples_reach_their_channels(client, shop):
    """Progress goes to `task`, metrics to `system`, with the fields that were promised."""
    await client.ask("subscribe", channel="task")
    await client.ask("subscribe", channel="system")
    task_id = await submit(shop, script_name="backup")
    await until(lambda: task_id in shop.engine.jobs)
    shop.engine.progress(task_id, Progress(fraction=0.25, message="a quarter"))
    progress = await client.next("task_progress")
    assert (progress["task_id"], progress["data"]["fraction"]) == (task_id, 0.25)
    values = {"cpu_percent": 1.0, "memory_percent": 2.0, "disk_percent": 3.0, "load_1": 4.0}
    shop.hub.note(MetricsSampled(time.time(), Metrics(time.time(), values)))
    data = (await client.next("system_metrics"))["data"]
    assert data == values | {"active_scripts": 1, "total_executions": 0}


# -- output ---------------------------------------------------------------------------------------------------


class Log:
    """Output that the test writes, in the place of the log files."""

    def __init__(self, shop) -> None:
        self.text = b""
        self.shop = shop
        shop.read_output = self.read

    async def read(self, task_id, offset, limit):
        start = max(0, len(self.text) + offset) if offset < 0 else min(offset, len(self.text))
        piece = self.text[start : start + limit]
        return OutputPage(piece.decode(errors="replace"), start, start + len(piece), len(self.text))

    def write(self, task_id, text: bytes, run: int = 1) -> None:
        """A run prints this."""
        self.text += text
        self.shop.hub.note(OutputGrew(time.time(), task_id, run, len(self.text)))


async def test_output_is_followed_live(client, shop):
    """`subscribe` to `output` sends what is there and what comes, each byte once, until it is left."""
    log = Log(shop)
    task_id = await submit(shop)
    log.write(task_id, b"one\n")
    assert (await client.ask("subscribe", channel="output"))["data"]["field"] == "task_id"
    told = await client.ask("subscribe", channel="output", task_id=task_id)
    assert (told["type"], told["task_id"]) == ("subscribed", task_id)
    first = await client.next("output")
    assert first["data"] == {"text": "one\n", "offset": 0, "end": 4, "start": 0}
    log.write(task_id, b"two\n")
    assert (await client.next("output"))["data"] == {"text": "two\n", "offset": 4, "end": 8, "start": 0}
    await client.ask("unsubscribe", channel="output", task_id=task_id)
    log.write(task_id, b"three\n")
    await client.ask("ping")
    assert len([message for message in client.seen if message["type"] == "output"]) == 2
    told = await client.ask("get_output", task_id=task_id, offset=4, limit=5)
    assert told["data"] == {"text": "two\nt", "offset": 4, "end": 9, "size": 14, "start": 0}


async def test_output_is_followed_from_a_byte(client, shop):
    """`since` is the byte to begin at; many bytes come in pieces that join."""
    log = Log(shop)
    task_id = await submit(shop)
    log.write(task_id, bytes(range(97, 123)) * 20_000)
    await client.ask("subscribe", channel="output", task_id=task_id, since=26)
    end, text = 26, ""
    while end < len(log.text):
        piece = (await client.next("output"))["data"]
        assert piece["offset"] == end
        end, text = piece["end"], text + piece["text"]
    assert text.encode() == log.text[26:]


async def test_a_script_of_the_catalogue_is_followed_to_its_end(tmp_path):
    """Over a real workshop, on both doors: each start and end of a run, at once, with its code and milliseconds."""
    path = tmp_path / "greet.sh"
    path.write_text('echo "hello $1"; exit 3\n', encoding="utf-8")
    script = Script(name="greet", path=str(path), parameters=(Parameter(name="who"),), timeout_s=20.0)
    async with open_shop(tmp_path / "home", workers=1) as shop:
        await shop.do(SaveScript(script), CALLER)
        for name in DOORS:
            async with open_door(name, shop) as door, door.client() as client:
                assert [record["name"] for record in client.state["data"]["scripts"]] == ["greet"]
                await client.ask("subscribe", channel="script")
                told = await client.ask("run_script", script_name="greet", parameters={"who": "you"})
                assert told["type"] == "submitted"
                assert told["data"]["parameters"] == {"who": "you"}
                while (told := await client.next("script_status"))["status"] != "failed":
                    pass
                seen = [message for message in client.seen if message["type"] == "script_status"]
                assert [message["status"] for message in seen] == ["starting", "running", "failed"]
                assert [message["seq"] - seen[0]["seq"] for message in seen] == [0, 1, 2]
                assert (told["data"]["exit_code"], told["script_name"]) == (3, "greet")
                assert 0 < told["data"]["duration"] < 20_000


async def test_the_dashboards_door_tells_of_scripts_at_once(shop, backup):
    """`/ws` follows `script` from the start: what is saved is told there without asking."""
    async with open_door("ws", shop) as door, door.client() as client:
        await shop.do(SaveScript(Script(name="backup", path=backup)), CALLER)
        told = await client.next("script_update")
        assert (told["event"], told["data"]["path"]) == ("saved", backup)


async def test_a_real_script_is_followed_to_its_end(tmp_path):
    """Over a real workshop: what a process prints is seen in whole, in order, on both doors."""
    async with open_shop(tmp_path, workers=1) as shop:
        for name in DOORS:
            async with open_door(name, shop) as door, door.client() as client:
                spec = {"command": ["sh", "-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.05; done"]}
                told = await client.ask("submit", kind="script", spec=spec)
                await client.ask("subscribe", channel="output", task_id=told["task_id"])
                text = ""
                while "line 5\n" not in text:
                    text += (await client.next("output"))["data"]["text"]
                assert text == "".join(f"line {n}\n" for n in range(1, 6))


# -- order and loss -------------------------------------------------------------------------------------------


async def test_a_cut_is_resumed(door, shop):
    """After a cut the missed facts come in order, then `resumed`; another epoch gives the state anew."""
    async with door.client() as client:
        await client.ask("subscribe", channel="task")
        await client.ask("submit", **SCRIPT)
        await client.ask("ping")
        seq = max(message["seq"] for message in client.seen if message["type"] == "task_update")
    for _ in range(5):
        await submit(shop)
    async with door.client() as client:
        await client.say("resume", epoch=shop.state.epoch, since={"task": seq})
        end = await client.next("resumed")
        missed = [message["seq"] for message in client.seen if message["type"] == "task_update"]
        assert missed == list(range(seq + 1, shop.state.seq["task"] + 1))
        assert end["data"]["seq"] == {"task": shop.state.seq["task"]}
        told = await client.ask("resume", epoch="another", since={"task": seq})
        assert told["type"] == "initial_state"


async def test_a_new_epoch_is_told_to_all(client, shop):
    """When the workshop begins a new epoch every connection gets a fresh state."""
    from koubou_panel.core.state import State

    state = shop.hub.state = State("after")
    for subscriber in shop.hub._subscribers:
        subscriber.on_reset(state)
    assert (await client.next("initial_state"))["data"]["epoch"] == "after"


async def test_many_facts_at_once_come_in_order(door, shop):
    """Fifteen hundred facts in bursts reach every subscriber once and in order."""

    async def follow(client) -> list[int]:
        seqs = []
        while not seqs or seqs[-1] < 1500:
            seqs.append((await client.next("task_update", timeout=90))["seq"])
        return seqs

    async with door.client() as one, door.client() as two:
        for client in (one, two):
            await client.ask("subscribe", channel="task")
        following = asyncio.gather(follow(one), follow(two))
        await shop.do_many([submission(shop) for _ in range(500)], Caller("test"))
        while shop.state.counts["completed"] < 500:
            for task_id in list(shop.engine.jobs):
                shop.engine.finish(task_id)
            await asyncio.sleep(0)
        assert await following == [list(range(1, 1501))] * 2


async def test_a_reader_that_pauses_misses_nothing(door, shop):
    """A subscriber that does not read for a while gets every fact when it does."""
    async with door.client() as client:
        await client.ask("subscribe", channel="task")
        client.connection.transport.pause_reading()
        await shop.do_many(
            [submission(shop, "echo", "x" * 2000, name="n" * 200) for _ in range(1500)], Caller("test")
        )
        peer = next(iter(door.feed._peers))
        await until(lambda: not peer.outbox.is_live)
        client.connection.transport.resume_reading()
        last = shop.state.seq["task"]
        seqs = []
        while not seqs or seqs[-1] < last:
            seqs.append((await client.next("task_update"))["seq"])
        assert seqs == list(range(1, last + 1))
        assert (await client.ask("ping"))["type"] == "pong"


# -- strangers ------------------------------------------------------------------------------------------------


async def test_a_strangers_long_frame_is_refused_unread(door, monkeypatch):
    """Who has shown no token is not worth the reading of more than an `auth` can be; that is read."""
    read, read_object = [], commands.read_object
    monkeypatch.setattr(commands, "read_object", lambda text: read.append(len(text)) or read_object(text))
    auth = json.dumps({"command": "auth", "token": TOKEN, "x": []})
    async with door.connect(token=None) as connection:
        await connection.send(auth.replace("[]", "[" + ",".join(["{}"] * 340_000) + "]"))
        told = json.loads(await connection.recv())
        assert (told["type"], told["data"]["code"]) == ("error", "unauthorized")
        assert (await closes(connection)).code == 4401
    assert read == []
    async with door.connect(token=None) as connection:
        await connection.send(auth)
        assert json.loads(await connection.recv())["type"] == "authenticated"
    assert read == [len(auth)]


async def test_strangers_are_bounded_and_keep_nobody_out(shop):
    """Of those who have shown no token the oldest must go for the newest; who has shown one stays, or gets in."""
    async with (
        open_door("socket", shop, limits=Limits(auth_s=600)) as door,
        door.client() as before,
        door.connect(token=None) as by_frame,
        door.connect(token=None) as mute,
    ):
        early = Client(by_frame)
        assert (await early.ask("auth", token=TOKEN))["type"] == "authenticated"
        silent = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(300)]
        try:
            await until(lambda: sum(reader.at_eof() for reader, _ in silent) >= 300 - MOST_STRANGERS)
            assert await closes(mute) is None
            async with door.client() as after:
                for client in (before, early, after):
                    assert (await client.ask("ping"))["type"] == "pong"
            gone = [reader.at_eof() for reader, _ in silent]
            assert 300 - MOST_STRANGERS <= sum(gone) <= 301 - MOST_STRANGERS
            assert gone == sorted(gone, reverse=True)
        finally:
            for _, writer in silent:
                writer.close()
        await until(lambda: len(door.feed._peers) == 2)


# -- the end --------------------------------------------------------------------------------------------------


async def test_sessions_leave_nothing_behind(door, shop):
    """After 20 sessions, closed and cut, nobody is left in the feed, and the shop has one subscriber."""
    log = Log(shop)
    task_id = await submit(shop)
    log.write(task_id, b"x")
    for n in range(20):
        async with door.client() as client:
            await client.ask("subscribe", channel="task")
            await client.ask("subscribe", channel="output", task_id=task_id)
            if n % 2:
                client.connection.transport.abort()
    await until(lambda: not door.feed._peers)
    assert len(door.feed.tails) == 0
    assert not door.feed._congested
    assert shop.hub.subscribers == 1


async def test_closing_says_going_away(shop):
    """When the port closes, clients of 8766 are told 1001 and the shop has no subscriber left."""
    async with open_door("socket", shop) as door:
        connection = await door.connect()
    assert (await closes(connection)).code == 1001
    assert shop.hub.subscribers == 0


async def test_a_taken_port_is_said():
    """A port that somebody has is an OSError, and nothing stays subscribed."""
    from koubou_panel.servers.access import Access
    from koubou_panel.servers.socket import SocketServer

    async with open_inline_shop() as shop:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server = SocketServer(shop, Access(token=TOKEN, port=1), port=taken.getsockname()[1])
            with pytest.raises(OSError, match="in use"):
                await server.start()
        assert shop.hub.subscribers == 0
