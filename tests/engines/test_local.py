"""The local engine through a real shop: real worker processes, real ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from koubou_panel.core.commands import Caller, CancelTask, RestartWorker, ScaleWorkers, SubmitTask
from koubou_panel.core.plan import Spawn
from koubou_panel.core.records import Request, TaskId
from koubou_panel.engines.guard import _parents
from koubou_panel.errors import Refused
from koubou_panel.kinds.packing import pack, pickled_arguments, pickled_function
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import ended, open_shop, submit, until

ME = Caller("test")


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[LocalShop]:
    """A workshop with two workers."""
    async with open_shop(tmp_path / "home", workers=2) as opened:
        yield opened


def talk():
    """Print, and let a child print."""
    sys.stdout.write("from python\n")
    os.system("echo from a child")


def execute(code):
    """Run code in the worker."""
    exec(code)


async def call(shop: LocalShop, function, *args, **fields) -> TaskId:
    """Submit a function; the id."""
    payload = pack(pickled_function(function), pickled_arguments(args, {}), [])
    fields.setdefault("name", function.__name__)
    request = Request(task_id=shop.next_id(), kind="function", created_at=0, payload=payload, **fields)
    return await shop.do(SubmitTask(request), ME)


async def running(shop: LocalShop, task_id: TaskId) -> None:
    """Wait until a task is handed to a worker."""
    await until(lambda: shop.state.tasks[task_id].status == "in_progress")


def is_alive(pid: int) -> bool:
    """Whether a process lives."""
    return pid in _parents()


async def pid_in(path: Path) -> int:
    """The pid that a task writes into a file."""
    await until(lambda: path.exists() and path.read_text().strip().isdigit())
    return int(path.read_text())


async def test_a_command_runs_and_its_output_is_kept(shop):
    """A command ends completed with its output in the log."""
    task_id = await submit(shop, "sh", "-c", "echo one; echo two >&2")
    task = await ended(shop, task_id)
    assert (task.status, task.exit_code, task.result) == ("completed", 0, "two")
    assert (await shop.read_output(task_id, 0, 1000)).text == "one\ntwo\n"
    assert task.usage.output_bytes == 8


async def test_output_is_live(shop, tmp_path):
    """Output can be read while the command runs."""
    task_id = await submit(shop, "sh", "-c", f"echo early; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")

    async def has_text() -> bool:
        return (await shop.read_output(task_id, 0, 100)).text == "early\n"

    await until(has_text)
    assert shop.state.tasks[task_id].status == "in_progress"
    (tmp_path / "go").touch()
    assert (await ended(shop, task_id)).status == "completed"


async def test_what_a_function_prints_is_its_output(shop):
    """Stdout of a function, and of a process it starts, reach the task's log."""
    task_id = await call(shop, talk)
    await ended(shop, task_id)
    text = (await shop.read_output(task_id, 0, 1000)).text
    assert "from python" in text
    assert "from a child" in text


@pytest.mark.alone
@pytest.mark.parametrize(
    ("code", "reason", "exit_code", "said"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "killed",
            139,
            "killed by signal 11 (SIGSEGV) in <module>, line 1 of <string>",
        ),
        ("import os; os._exit(3)", "exit", 3, "the worker process exited with code 3"),
    ],
)
async def test_a_worker_that_dies_is_replaced_and_its_task_says_why(shop, code, reason, exit_code, said):
    """A function that takes its worker down fails with the true reason; two seconds later all workers are there."""
    task_id = await call(shop, execute, code)
    task = await ended(shop, task_id)
    assert (task.status, task.reason, task.exit_code, task.message) == ("failed", reason, exit_code, said)
    began = time.monotonic()
    await until(lambda: sum(worker.status == "idle" for worker in shop.state.workers.values()) == 2)
    assert time.monotonic() - began < 2
    assert (await ended(shop, await call(shop, os.getpid))).status == "completed"


async def test_cancel_ends_the_whole_tree_of_a_command(shop, tmp_path):
    """Grandchildren that left the session die with the cancelled command, and the worker lives on."""
    script = f"setsid sh -c 'echo $$ > {tmp_path}/daemon; sleep 600' & echo $$ > {tmp_path}/main; wait"
    task_id = await submit(shop, "sh", "-c", script)
    pids = [await pid_in(tmp_path / "daemon"), await pid_in(tmp_path / "main")]
    workers = {worker.pid for worker in shop.state.workers.values()}
    await shop.do(CancelTask(task_id), ME)
    task = await ended(shop, task_id)
    assert (task.status, task.reason, task.message) == ("cancelled", "user", "cancelled by test")
    await until(lambda: not any(map(is_alive, pids)))
    assert {worker.pid for worker in shop.state.workers.values()} == workers


async def test_cancel_of_a_function_spares_what_waits_behind_it(shop):
    """Cancelling a running function ends it; tasks claimed in the same window run all the same."""
    for _ in range(20):
        await ended(shop, await call(shop, time.sleep, 0.0, name="nap"))
    long_one = await call(shop, time.sleep, 60, name="nap")
    others = [await call(shop, time.sleep, 0.0, name="nap") for _ in range(20)]
    await running(shop, long_one)
    await shop.do(CancelTask(long_one), ME)
    assert (await ended(shop, long_one)).status == "cancelled"
    for task_id in others:
        assert (await ended(shop, task_id)).status == "completed"


@pytest.mark.parametrize("is_function", [False, True])
async def test_a_cancel_that_comes_too_late_hits_nobody_else(tmp_path, is_function):
    """A run ends by itself before its guard acts on the cancel: what starts after it completes all the same."""
    begin = f"import os, time\nopen({str(tmp_path / 'begun')!r}, 'w').close()\n"
    code = begin + f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)"
    async with open_shop(tmp_path / "home", workers=1) as shop:
        if is_function:
            first, second = await call(shop, execute, code), await call(shop, time.sleep, 0.1)
        else:
            first = await submit(shop, sys.executable, "-c", code)
            second = await submit(shop, "sleep", "0.1")
        await until((tmp_path / "begun").exists)  # one that is claimed alone is taken back, not cancelled
        (guard,) = shop.engine.pids().values()
        os.kill(guard, signal.SIGSTOP)
        await shop.do(CancelTask(first), ME)
        link = shop.engine._links[shop.state.tasks[first].worker_id]
        await until(lambda: link.stopping and not link._recalls)
        (tmp_path / "go").touch()
        assert (await ended(shop, first)).status == "completed"
        if not is_function:
            await running(shop, second)
        os.kill(guard, signal.SIGCONT)
        task = await ended(shop, second)
        assert (task.status, task.message) == ("completed", "")


async def test_two_cancels_in_one_window_both_count(shop):
    """Cancelling a running function and one claimed behind it ends both, and nothing else."""
    for _ in range(20):
        await ended(shop, await call(shop, time.sleep, 0.0, name="nap"))
    long_one = await call(shop, time.sleep, 60, name="nap")
    second = await call(shop, time.sleep, 60, name="nap")
    third = await call(shop, time.sleep, 60, name="nap")
    await until(lambda: shop.state.counts["in_progress"] >= 2)
    for task_id in (long_one, third, second):
        await shop.do(CancelTask(task_id), ME)
    for task_id in (long_one, second, third):
        assert (await ended(shop, task_id)).status == "cancelled"


async def test_what_ended_before_a_long_task_is_told_at_once(shop):
    """Results do not wait in the worker for the long task behind them, and do not go down with it."""
    await shop.do(ScaleWorkers(1, 1), ME)
    await until(lambda: len(shop.state.workers) == 1)
    for _ in range(20):
        await ended(shop, await call(shop, time.sleep, 0.0, name="nap"))
    commands = [call(shop, time.sleep, 0.0, name="nap") for _ in range(8)]
    short = await asyncio.gather(*commands, call(shop, time.sleep, 60, name="nap"))
    for task_id in short[:-1]:
        assert (await ended(shop, task_id)).status == "completed"
    await shop.do(CancelTask(short[-1]), ME)
    assert (await ended(shop, short[-1])).status == "cancelled"


async def test_two_callers_modules_of_one_name_are_two(shop, tmp_path):
    """A function runs from its own caller's folder, whoever used the worker before."""
    for project in ("a", "b", "a"):
        folder = tmp_path / project
        folder.mkdir(exist_ok=True)
        (folder / "helper_of_two.py").write_text(f"def who():\n    return {project!r}\n")
        function = b"\x80\x04\x8c\rhelper_of_two\x94\x8c\x03who\x94\x93."
        payload = pack(function, pickled_arguments((), {}), [str(folder)])
        for _ in range(3):
            request = Request(
                task_id=shop.next_id(), kind="function", created_at=0, payload=payload, name="who"
            )
            task = await ended(shop, await shop.do(SubmitTask(request), ME))
            assert task.result == repr(project)


async def test_a_killed_guard_leaves_no_orphan(shop, tmp_path):
    """When somebody kills the guard, its worker ends what it ran."""
    task_id = await submit(shop, "sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 600")
    pid = await pid_in(tmp_path / "pid")
    worker_id = shop.state.tasks[task_id].worker_id
    os.kill(shop.engine.pids()[worker_id], signal.SIGKILL)
    assert (await ended(shop, task_id)).reason == "killed"
    await until(lambda: not is_alive(pid))


async def test_a_worker_that_cannot_be_started_is_tried_again(shop, monkeypatch):
    """Without descriptors a worker is not started; once there are some, it is."""
    real = socket.socketpair

    def none_left():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", none_left)
    await shop.do(ScaleWorkers(3, 3), ME)
    await until(lambda: shop.hub.agenda.failed_spawns > 1)
    monkeypatch.setattr(socket, "socketpair", real)
    await until(lambda: sum(w.status == "idle" for w in shop.state.workers.values()) == 3)


@pytest.mark.parametrize("where", ["_launch", "connect"])
async def test_whatever_keeps_a_worker_from_starting_is_its_death(shop, monkeypatch, where):
    """No thread can be started, or a socket cannot be put on the loop: the worker is tried again, none is left over."""
    owner, name = (
        (shop.engine, "_launch") if where == "_launch" else (shop.engine.loop, "connect_accepted_socket")
    )

    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    others = _children() - set(shop.engine.pids().values())
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        await shop.do(ScaleWorkers(3, 3), ME)
        await until(lambda: shop.hub.agenda.failed_spawns > 1)
    await until(lambda: sum(w.status == "idle" for w in shop.state.workers.values()) == 3)
    pids = set(shop.engine.pids().values())
    await until(lambda: _children() - others == pids)


def _children() -> set[int]:
    return {pid for pid, parent in _parents().items() if parent == os.getpid()}


async def test_a_worker_that_comes_up_after_it_was_given_up_is_ended(shop, monkeypatch):
    """A process that was long in coming belongs to nobody, and its successor is not taken for it."""
    real, gate, late = shop.engine._launch, threading.Event(), []

    def slow(*fds: int) -> object:
        gate.wait(20)
        late.append(real(*fds))
        return late[0]

    with monkeypatch.context() as patch:
        patch.setattr(shop.engine, "_launch", slow)
        await shop.do(ScaleWorkers(3, 3), ME)
        await until(lambda: len(shop.engine.workers()) == 3)
    (link,) = (link for link in shop.engine._links.values() if link.control is None)
    link.heard_at -= 100
    await until(lambda: sum(w.status == "idle" for w in shop.state.workers.values()) == 3)
    gate.set()
    await until(lambda: late and late[0].returncode is not None)
    assert len(shop.engine.workers()) == sum(w.status == "idle" for w in shop.state.workers.values()) == 3


async def test_of_one_name_there_is_one_worker(shop):
    """Who is to be started while one of that name lives is started when that one has ended: nobody is left over."""
    others = _children() - set(shop.engine.pids().values())
    worker_id, pid = next(iter(shop.engine.pids().items()))
    shop.engine.carry_out(Spawn(worker_id))
    await until(lambda: shop.engine.pids().get(worker_id, pid) != pid)
    await until(lambda: sum(w.status == "idle" for w in shop.state.workers.values()) == 2)
    pids = set(shop.engine.pids().values())
    await until(lambda: _children() - others == pids)


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_worker_may_be_restarted_while_it_starts(shop, monkeypatch, at_once):
    """What it was asked before it could be told is not forgotten: it goes, and another comes."""
    real, gate = shop.engine._launch, threading.Event()
    monkeypatch.setattr(shop.engine, "_launch", lambda *fds: (gate.wait(20), real(*fds))[1])
    await shop.do(ScaleWorkers(3, 3), ME)
    (worker_id,) = (name for name, worker in shop.state.workers.items() if worker.status == "starting")
    link = shop.engine._links[worker_id]
    await shop.do(RestartWorker(worker_id, at_once), ME)
    await until(lambda: link.is_leaving or link.ended_for)
    gate.set()
    await until(lambda: shop.engine._links.get(worker_id) is not link)
    await until(lambda: [w.status for w in shop.state.workers.values()] == ["idle"] * 3)


async def test_a_long_task_does_not_hold_up_its_window(shop):
    """Tasks claimed behind a function that turns out long are taken back for an idle worker."""
    for _ in range(20):
        await ended(shop, await call(shop, time.sleep, 0.0, name="nap"))
    long_one = await call(shop, time.sleep, 60, name="nap")
    others = [await call(shop, time.sleep, 0.0, name="nap") for _ in range(40)]
    for task_id in others:
        assert (await ended(shop, task_id)).status == "completed"
    assert shop.state.tasks[long_one].status == "in_progress"


async def test_cancel_before_the_start_never_runs(shop, tmp_path):
    """A pending task that is cancelled leaves no trace of running."""
    blockers = [await submit(shop, "sleep", "60") for _ in range(2)]
    task_id = await submit(shop, "touch", str(tmp_path / "ran"))
    await shop.do(CancelTask(task_id), ME)
    assert (await ended(shop, task_id)).message == "cancelled by test before it started"
    for blocker in blockers:
        await shop.do(CancelTask(blocker), ME)
        await ended(shop, blocker)
    assert not (tmp_path / "ran").exists()


async def test_a_time_out_ends_the_task(shop):
    """A run that reaches its time-out fails with that reason."""
    task = await ended(shop, await submit(shop, "sleep", "60", timeout_s=0.3))
    assert (task.status, task.reason, task.message) == ("failed", "timeout", "reached its time-out of 0.3 s")


async def test_a_failed_command_is_retried(shop, tmp_path):
    """With a retry left, the same task runs again after its delay."""
    script = f"test -e {tmp_path}/once || {{ touch {tmp_path}/once; exit 1; }}"
    task = await ended(shop, await submit(shop, "sh", "-c", script, retries=1))
    assert (task.status, task.run, task.failures) == ("completed", 2, 1)


async def test_binary_output_does_no_harm(shop):
    """A megabyte of noise is kept and read as replacement characters."""
    task_id = await submit(shop, "head", "-c", "1000000", "/dev/urandom")
    task = await ended(shop, task_id)
    assert (task.status, task.usage.output_bytes) == ("completed", 1_000_000)
    assert "\ufffd" in (await shop.read_output(task_id, 0, 1000)).text


async def test_priorities_decide_who_is_next(shop):
    """Of those that wait, the highest priority starts first, and equals in their order."""
    blockers = [await submit(shop, "sleep", "60") for _ in range(2)]
    waiting = {priority: await submit(shop, "true", priority=priority) for priority in (1, 10, 5)}
    for blocker in blockers:
        await shop.do(CancelTask(blocker), ME)
    tasks = {priority: await ended(shop, task_id) for priority, task_id in waiting.items()}
    assert tasks[10].started_at <= tasks[5].started_at <= tasks[1].started_at


async def test_the_pool_can_be_scaled(shop):
    """More workers come, and idle ones leave."""
    await shop.do(ScaleWorkers(3, 3), ME)
    await until(lambda: sum(w.status == "idle" for w in shop.state.workers.values()) == 3)
    await shop.do(ScaleWorkers(1, 1), ME)
    await until(lambda: len(shop.state.workers) == 1)
    assert (await ended(shop, await submit(shop, "true"))).status == "completed"


@pytest.mark.parametrize("workers", [(2, 1), (0, 0), (1, 1000), (-1, 1)])
async def test_a_bad_scale_is_refused(shop, workers):
    """Bounds that make no sense are refused with the right ones."""
    with pytest.raises(Refused, match="MIN:MAX"):
        await shop.do(ScaleWorkers(*workers), ME)


async def test_unknown_task_is_refused(shop):
    """Cancelling what is not there is refused."""
    with pytest.raises(Refused, match="no task nope"):
        await shop.do(CancelTask(TaskId("nope")), ME)


async def test_worker_killed_from_outside(shop, tmp_path):
    """A worker killed by somebody is replaced, and its command's tree is gone."""
    task_id = await submit(shop, "sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 600")
    pid = await pid_in(tmp_path / "pid")
    worker = shop.state.workers[shop.state.tasks[task_id].worker_id]
    os.kill(worker.pid, signal.SIGKILL)
    task = await ended(shop, task_id)
    why = "its worker was killed by signal 9 (SIGKILL); the task was lost with it"
    assert (task.reason, task.message) == ("killed", why)
    assert not is_alive(pid)
    await until(lambda: sum(w.status == "idle" for w in shop.state.workers.values()) == 2)


async def test_a_worker_that_is_to_leave_serves_its_run_to_the_end(shop, tmp_path):
    """A worker that is replaced goes when its command is over, and not before."""
    task_id = await submit(shop, "sh", "-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
    await running(shop, task_id)
    worker = shop.state.workers[shop.state.tasks[task_id].worker_id]
    await shop.do(RestartWorker(worker.worker_id), ME)
    await until(lambda: shop.state.workers[worker.worker_id].status == "stopping")
    (tmp_path / "go").touch()
    assert (await ended(shop, task_id)).status == "completed"
    await until(lambda: worker.pid not in [one.pid for one in shop.state.workers.values()])


async def test_a_worker_that_is_to_leave_goes_when_its_run_is_cancelled(shop):
    """Taking back what waits behind a run does not make its worker forget that it is to leave."""
    task_id = await submit(shop, "sleep", "60")
    await running(shop, task_id)
    worker = shop.state.workers[shop.state.tasks[task_id].worker_id]
    await shop.do(RestartWorker(worker.worker_id), ME)
    await shop.do(CancelTask(task_id), ME)
    assert (await ended(shop, task_id)).status == "cancelled"
    await until(lambda: worker.pid not in [one.pid for one in shop.state.workers.values()])


async def test_a_thread_left_running_does_not_keep_a_worker(shop):
    """A worker that is to leave does so although a function has left a thread behind that does not end."""
    code = "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()"
    task_id = await call(shop, execute, code)
    worker_id = (await ended(shop, task_id)).worker_id
    pid = shop.state.workers[worker_id].pid
    await shop.do(RestartWorker(worker_id), ME)
    await until(lambda: pid not in [one.pid for one in shop.state.workers.values()])
