"""Tasks that go wrong in every way: the reason is the true one, the slot is back, and nothing of them is left.

One worker, so that the task after the fault needs the very slot that the fault had. What belongs to a task is told by
a mark in its environment, which every process below it inherits.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from koubou_panel import progress
from koubou_panel.core.commands import Caller, CancelTask, RestartWorker, SubmitTask
from koubou_panel.core.records import Limits, Request, TaskId, Worker
from koubou_panel.engines import marks
from koubou_panel.engines.guard import _parents
from koubou_panel.kinds.cgroup import Cages
from koubou_panel.kinds.packing import pack, pickled_arguments, pickled_function
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import ended, open_shop, submit, until

pytestmark = pytest.mark.faults

ME = Caller("test")
MB = 1 << 20
SLOT_LIMIT_S = 2.0
SILENT_AFTER_S = 3.0
MARK = "FAULT_TEST_MARK"
needs_cgroups = pytest.mark.skipif(not Cages().places, reason="this user may make no cgroups here")

FORK_CHAIN = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    if os.fork():
        break
time.sleep(60)
"""
# Each forks the next and waits; the middle one dies, so that what is below it is an orphan.
BROKEN_CHAIN = """
import os, sys, time
for depth in range(6):
    if os.fork():
        if depth == 3:
            os._exit(0)
        if depth == 0:
            time.sleep(0.5)
            sys.exit(4)
        time.sleep(60)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(60)
"""
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(60)
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
print("done", flush=True)
"""
DEAF = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write(str(os.getpid()))
while True:
    time.sleep(60)
"""
HOG = "held = []\nwhile True: held.append(bytearray(4 << 20))"
HOG_TREE = """
import subprocess, sys, time
child = "import time; held = bytearray(60 << 20); time.sleep(60)"
children = [subprocess.Popen([sys.executable, "-c", child]) for _ in range(3)]
sys.exit(max(abs(child.wait()) for child in children))
"""


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[LocalShop]:
    """A workshop with one worker, soon taken for silent."""
    async with open_shop(tmp_path / "home", workers=1) as opened:
        opened.engine.silent_after_s = SILENT_AFTER_S
        yield opened


# -- what tasks do -----------------------------------------------------------------------------------------------


def nap(seconds, path=None):
    """Sleep, and say so in a file first."""
    if path:
        Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)


def note(path, text):
    """Append a line to a file."""
    if path:
        with Path(path).open("a") as file:
            file.write(f"{text}\n")


def crash():
    """Read what is not there."""
    sys.stdout.write("about to crash\n")
    ctypes.string_at(0)


def leave(code):
    """End the process past everything."""
    sys.stdout.write("last words")
    sys.stdout.flush()
    os._exit(code)


def hold_lock_in_c(path):
    """Sleep in C without letting go of the interpreter's lock."""
    Path(path).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(60)


def hold_lock_in_a_pattern(path):
    """Backtrack for years."""
    Path(path).write_text(str(os.getpid()))
    re.match(r"(a+)+$", "a" * 64 + "b")


def say_the_unspeakable():
    """Tell progress with a message that has no text."""

    class Untellable:
        def __str__(self):
            raise ValueError("no text")

    progress(1, 2, message=Untellable())


def take_at_once():
    """Ask for more memory than there may be."""
    return len(bytearray(3 << 30))


def take_bit_by_bit():
    """Take memory until there is none."""
    held = []
    while True:
        held.append(bytearray(1 << 20))
        time.sleep(0.002)


def leave_children(mark):
    """Start a process that outlives the call, and crash."""
    subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: mark}, start_new_session=True)
    os.kill(os.getpid(), signal.SIGKILL)


# -- the test's own -----------------------------------------------------------------------------------------------


async def run(shop: LocalShop, mark: str, *argv: str, **fields: object) -> TaskId:
    """Submit a Python program, or a command, whose processes are marked."""
    command = list(argv) if argv[0] in ("sh", "sleep") else [sys.executable, "-c", *argv]
    return await submit(shop, spec={"command": command, "env": {MARK: mark}}, **fields)


async def call(shop: LocalShop, function, *args, **fields) -> TaskId:
    """Submit a function."""
    payload = pack(pickled_function(function), pickled_arguments(args, {}), [])
    fields.setdefault("name", function.__name__)
    request = Request(task_id=shop.next_id(), kind="function", created_at=0, payload=payload, **fields)
    return await shop.do(SubmitTask(request), ME)


async def pid_in(path: Path) -> int:
    """The pid that a task writes into a file."""
    await until(lambda: path.exists() and path.read_text().isdigit())
    return int(path.read_text())


def marked(mark: str) -> list[int]:
    """Live processes with `mark` in their environment."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for pid in _parents():
        try:
            if needle in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


def worker_of(shop: LocalShop, task_id: TaskId) -> Worker:
    """The worker that a task runs on."""
    return shop.state.workers[shop.state.tasks[task_id].worker_id]


async def text_of(shop: LocalShop, task_id: TaskId) -> str:
    """What a task printed."""
    return (await shop.read_output(task_id, 0, 100_000)).text


async def check_slot(shop: LocalShop, mark: str = "") -> None:
    """The next task is over in time, and nothing marked is left."""
    began = time.monotonic()
    assert (await ended(shop, await submit(shop, "true"))).status == "completed"
    assert_in_time(time.monotonic() - began, SLOT_LIMIT_S)
    if mark:
        await until(lambda: not marked(mark), SLOT_LIMIT_S)


def assert_in_time(took_s: float, limit_s: float) -> None:
    """It took less than the limit, or the host is so busy that a bare interpreter takes a share of it, too."""
    if took_s >= limit_s:
        began = time.monotonic()
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
        assert took_s < 30 * (time.monotonic() - began)


@pytest.fixture
def mark() -> str:
    """A mark of this test's own."""
    return secrets.token_hex(8)


# -- stopped -------------------------------------------------------------------------------------------------------


async def test_a_stopped_worker_is_told_of_and_ended_by_its_time_out(shop, tmp_path):
    """A worker under SIGSTOP is unresponsive, its task runs into its time-out, and a fresh worker takes its place."""
    await ended(shop, await call(shop, note, "", ""))  # how long a worker takes to start is not counted
    task_id = await call(shop, nap, 60, str(tmp_path / "pid"), timeout_s=SILENT_AFTER_S + 5)
    pid = await pid_in(tmp_path / "pid")
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: worker_of(shop, task_id).status == "unresponsive")
    task = await ended(shop, task_id)
    assert (task.status, task.reason) == ("failed", "timeout")
    await check_slot(shop)
    assert pid not in _parents()


async def test_a_worker_that_goes_on_is_heard_again(shop, tmp_path):
    """After SIGCONT a worker is busy again, and its task succeeds."""
    task_id = await call(shop, nap, SILENT_AFTER_S + 2, str(tmp_path / "pid"))
    pid = await pid_in(tmp_path / "pid")
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: worker_of(shop, task_id).status == "unresponsive")
    os.kill(pid, signal.SIGCONT)
    await until(lambda: shop.state.tasks[task_id].is_finished or worker_of(shop, task_id).status == "busy")
    assert (await ended(shop, task_id)).status == "completed"
    assert [worker.pid for worker in shop.state.workers.values()] == [pid]


async def test_a_command_below_a_stopped_worker_can_be_cancelled(shop, mark):
    """Cancelling ends worker and command together where the worker cannot do it."""
    task_id = await run(shop, mark, "sleep", "60")
    await until(lambda: marked(mark))
    os.kill(worker_of(shop, task_id).pid, signal.SIGSTOP)
    await shop.do(CancelTask(task_id), ME)
    task = await ended(shop, task_id, SLOT_LIMIT_S)
    assert (task.status, task.reason, task.message) == ("cancelled", "user", "cancelled by test")
    await check_slot(shop, mark)


async def test_a_stopped_worker_can_be_restarted_at_once(shop, tmp_path):
    """A person ends a stopped worker with what it runs, and another comes."""
    task_id = await call(shop, nap, 60, str(tmp_path / "pid"))
    pid = await pid_in(tmp_path / "pid")
    os.kill(pid, signal.SIGSTOP)
    await shop.do(RestartWorker(shop.state.tasks[task_id].worker_id, at_once=True), ME)
    assert (await ended(shop, task_id)).status == "cancelled"
    await check_slot(shop)
    assert pid not in _parents()


async def test_a_stopped_command_waits_for_its_time_out(shop, mark):
    """A command under SIGSTOP is ended by its time-out, and its worker lives on."""
    task_id = await run(shop, mark, "sleep", "60", timeout_s=1)
    await until(lambda: marked(mark))
    worker = worker_of(shop, task_id)
    os.kill(marked(mark)[0], signal.SIGSTOP)
    task = await ended(shop, task_id, 5)
    assert (task.reason, task.message) == ("timeout", "reached its time-out of 1 s")
    await check_slot(shop, mark)
    assert [one.pid for one in shop.state.workers.values()] == [worker.pid]


async def test_a_workshop_that_stood_still_blames_no_worker(shop):
    """Time in which the loop did not run does not count as silence."""
    heard: list[str] = []
    shop.engine.silent_after_s = 2.5
    time.sleep(4)
    for _ in range(30):
        await asyncio.sleep(0.05)
        heard += [worker.status for worker in shop.state.workers.values()]
    assert set(heard) == {"idle"}


# -- crashed -------------------------------------------------------------------------------------------------------


async def test_a_command_that_crashes(shop, mark):
    """A segmentation fault of a command is told by its signal."""
    task = await ended(shop, await run(shop, mark, "import ctypes; ctypes.string_at(0)"))
    assert (task.reason, task.exit_code, task.message) == ("killed", 139, "killed by signal 11 (SIGSEGV)")
    await check_slot(shop, mark)


async def test_a_function_that_crashes_says_where(shop):
    """A segmentation fault of a function names the place; what was printed before, and the stack, are kept."""
    task_id = await call(shop, crash)
    task = await ended(shop, task_id)
    assert (task.reason, task.exit_code) == ("killed", 139)
    assert re.fullmatch(r"killed by signal 11 \(SIGSEGV\) in string_at, line \d+ of .*ctypes.*", task.message)
    assert "in crash" in task.error.traceback
    text = await text_of(shop, task_id)
    assert text.startswith("about to crash\n")
    assert "Fatal Python error: Segmentation fault" in text
    assert task.usage.output_bytes == len(text)
    await check_slot(shop)


async def test_a_function_that_leaves_its_process(shop):
    """`os._exit` is told by its code, and what was printed before it is kept."""
    task_id = await call(shop, leave, 3)
    task = await ended(shop, task_id)
    assert (task.reason, task.exit_code) == ("exit", 3)
    assert task.message == "the worker process exited with code 3"
    assert await text_of(shop, task_id) == "last words"
    await check_slot(shop)


async def test_what_ended_before_a_crash_has_ended(shop):
    """However short the tasks are that one worker was given together: only the one that crashed is lost."""
    for _ in range(40):
        last = await call(shop, nap, 0.003)
    await ended(shop, last)
    naps = [await call(shop, nap, 0.003) for _ in range(12)]
    crashed = await call(shop, leave, 3)
    naps += [await call(shop, nap, 0.003) for _ in range(12)]
    assert (await ended(shop, crashed)).reason == "exit"
    assert [(await ended(shop, task_id)).status for task_id in naps] == ["completed"] * 24


async def test_what_a_function_started_goes_with_its_worker(shop, mark):
    """A process that a function left behind in a session of its own ends with the worker."""
    task = await ended(shop, await call(shop, leave_children, mark))
    why = "its worker was killed by signal 9 (SIGKILL); the task was lost with it"
    assert (task.reason, task.message) == ("killed", why)
    await check_slot(shop, mark)


# -- greedy --------------------------------------------------------------------------------------------------------


async def test_a_command_that_takes_memory_without_end(shop, mark):
    """A hog is ended at its limit, by whichever of cgroup, rlimit and the workshop's own look comes first."""
    task = await ended(shop, await run(shop, mark, HOG, limits=Limits(memory_bytes=100 * MB)))
    assert (task.status, task.reason) == ("failed", "memory")
    assert "its 100 MB" in task.message
    await check_slot(shop, mark)


@needs_cgroups
async def test_a_tree_that_takes_too_much_together(shop, mark):
    """Children that each stay below the limit are ended when together they do not."""
    task = await ended(shop, await run(shop, mark, HOG_TREE, limits=Limits(memory_bytes=100 * MB)))
    assert (task.reason, task.message) == ("memory", "killed: reached its 100 MB memory limit")
    await check_slot(shop, mark)


async def test_a_function_that_asks_for_too_much(shop):
    """A function is refused what its limit does not allow, and its worker lives on."""
    pids = [worker.pid for worker in shop.state.workers.values()]
    task = await ended(shop, await call(shop, take_at_once, limits=Limits(memory_bytes=100 * MB)))
    assert (task.reason, task.message) == ("memory", "MemoryError: could get no more than its 100 MB")
    await check_slot(shop)
    assert [worker.pid for worker in shop.state.workers.values()] == pids


async def test_a_function_that_takes_memory_bit_by_bit(shop):
    """A function that grows is ended at its limit."""
    task = await ended(shop, await call(shop, take_bit_by_bit, limits=Limits(memory_bytes=100 * MB)))
    assert task.reason == "memory"
    assert "its 100 MB" in task.message
    await check_slot(shop)


async def test_a_command_that_burns_the_processor(shop, mark):
    """A command is ended when its processor time is used."""
    task = await ended(shop, await run(shop, mark, "while True: pass", limits=Limits(cpu_s=1)))
    assert (task.reason, task.message) == ("killed", "killed: used its 1 s of processor time")
    await check_slot(shop, mark)


# -- many ----------------------------------------------------------------------------------------------------------


async def test_a_fork_chain_is_ended_at_its_limit(shop, mark):
    """A chain of forks longer than the limit is ended as a whole."""
    task = await ended(shop, await run(shop, mark, FORK_CHAIN, "40", limits=Limits(processes=10)))
    assert (task.status, task.reason) == ("failed", "killed")
    assert task.message == "killed: ran more than its 10 processes"
    await check_slot(shop, mark)


async def test_a_chain_whose_middle_died_leaves_nothing(shop, mark, tmp_path):
    """What has lost its parent belongs to the run all the same, and ends with it."""
    task = await ended(shop, await run(shop, mark, BROKEN_CHAIN, str(tmp_path / "last")))
    assert (task.reason, task.exit_code) == ("exit", 4)
    assert (tmp_path / "last").exists()
    await check_slot(shop, mark)


async def test_a_daemon_does_not_keep_its_run_nor_outlive_it(shop, mark, tmp_path):
    """A process that left the session, and holds the output open, does not keep the command from ending."""
    task_id = await run(shop, mark, DAEMON, str(tmp_path / "daemon"))
    task = await ended(shop, task_id)
    assert (task.status, await text_of(shop, task_id)) == ("completed", "done\n")
    await check_slot(shop, mark)


# -- deaf ----------------------------------------------------------------------------------------------------------


async def test_a_message_without_a_text_fails_its_function(shop):
    """Progress that cannot be told is its caller's error, which names it; the worker lives."""
    (worker,) = shop.state.workers.values()
    task = await ended(shop, await call(shop, say_the_unspeakable))
    assert (task.reason, task.message) == ("exception", "ValueError: no text")
    await check_slot(shop)
    assert [one.pid for one in shop.state.workers.values()] == [worker.pid]


async def test_who_ignores_term_keeps_no_slot(shop, mark, tmp_path):
    """A cancelled command that ignores TERM is killed after its grace; meanwhile another worker has its slot."""
    task_id = await run(shop, mark, DEAF, str(tmp_path / "pid"))
    await pid_in(tmp_path / "pid")
    await shop.do(CancelTask(task_id), ME)
    began = time.monotonic()
    assert (await ended(shop, await submit(shop, "true"))).status == "completed"
    assert_in_time(time.monotonic() - began, 1.0 + SLOT_LIMIT_S)
    task = await ended(shop, task_id)
    assert (task.status, task.message) == ("cancelled", "cancelled by test")
    await check_slot(shop, mark)
    await until(lambda: len(shop.state.workers) == 1)


@pytest.mark.parametrize("function", [hold_lock_in_c, hold_lock_in_a_pattern])
async def test_who_holds_the_interpreters_lock_is_ended_by_its_time_out(shop, tmp_path, function):
    """A function that lets no other thread run is unresponsive, and ended by its time-out."""
    task_id = await call(shop, function, str(tmp_path / "pid"), timeout_s=SILENT_AFTER_S + 2.5)
    pid = await pid_in(tmp_path / "pid")
    await until(lambda: worker_of(shop, task_id).status == "unresponsive")
    task = await ended(shop, task_id)
    assert (task.status, task.reason) == ("failed", "timeout")
    await check_slot(shop)
    assert pid not in _parents()


async def test_a_stopped_worker_that_is_to_leave_is_replaced(shop):
    """A worker that was told to leave, and is stopped, does not stay for ever."""
    (worker,) = shop.state.workers.values()
    os.kill(worker.pid, signal.SIGSTOP)
    await shop.do(RestartWorker(worker.worker_id), ME)
    await until(lambda: worker.pid not in [one.pid for one in shop.state.workers.values()])
    await check_slot(shop)


async def test_what_waits_behind_a_stuck_function_runs_elsewhere(tmp_path):
    """Tasks claimed by a worker that falls silent are taken back, and run once each, while it stays stuck."""
    async with open_shop(tmp_path / "home", workers=2) as shop:
        shop.engine.silent_after_s = SILENT_AFTER_S
        blocker = await submit(shop, "sleep", "60")
        await until(lambda: shop.state.tasks[blocker].status == "in_progress")
        ledger = str(tmp_path / "ledger")
        shop.hub.agenda.pace_s["short"] = 0.0001  # as if many had run
        stuck = await call(shop, hold_lock_in_c, str(tmp_path / "pid"), name="short")
        behind = [await call(shop, note, ledger, str(number), name="short") for number in range(20)]
        worker_id = shop.state.tasks[stuck].worker_id
        assert any(shop.state.tasks[one].worker_id == worker_id for one in behind)
        await until(lambda: not any(shop.state.tasks[one].worker_id == worker_id for one in behind))
        await shop.do(CancelTask(blocker), ME)
        for one in behind:
            assert (await ended(shop, one)).status == "completed"
        assert shop.state.tasks[stuck].status == "in_progress"
        os.kill(await pid_in(tmp_path / "pid"), signal.SIGKILL)
        assert (await ended(shop, stuck)).reason == "killed"
        assert sorted(map(int, Path(ledger).read_text().split())) == list(range(20))


async def test_a_worker_that_goes_on_while_its_claims_are_taken_back_keeps_what_it_begins(
    tmp_path, monkeypatch
):
    """A worker that was stopped before, and that somebody lets go on at the wrong moment, runs a task once."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        (worker,) = shop.state.workers.values()
        os.kill(worker.pid, signal.SIGSTOP)
        ledger = str(tmp_path / "ledger")
        task_id = await call(shop, note, ledger, "ran")
        await until(lambda: shop.state.tasks[task_id].status == "in_progress")
        revoke = marks.Mark.revoke

        def let_go_first(mark: marks.Mark, end: int) -> int:
            os.kill(worker.pid, signal.SIGCONT)
            while not Path(ledger).exists():
                os.sched_yield()
            return revoke(mark, end)

        monkeypatch.setattr(marks.Mark, "revoke", let_go_first)
        shop.engine.silent_after_s = SILENT_AFTER_S
        assert (await ended(shop, task_id)).status == "completed"
        assert (await ended(shop, await call(shop, note, ledger, "next"))).status == "completed"
        assert Path(ledger).read_text().split() == ["ran", "next"]


async def test_a_worker_that_goes_on_runs_nothing_that_was_taken_back(tmp_path):
    """After SIGCONT a worker ends the run that it was in, passes over what runs elsewhere, and takes new work."""
    async with open_shop(tmp_path / "home", workers=2) as shop:
        shop.engine.silent_after_s = SILENT_AFTER_S
        blocker = await submit(shop, "sleep", "60")
        await until(lambda: shop.state.tasks[blocker].status == "in_progress")
        ledger = str(tmp_path / "ledger")
        shop.hub.agenda.pace_s["short"] = 0.0001  # as if many had run
        stopped = await call(shop, nap, 1, str(tmp_path / "pid"), name="short")
        pid = await pid_in(tmp_path / "pid")
        os.kill(pid, signal.SIGSTOP)
        behind = [await call(shop, note, ledger, str(number), name="short") for number in range(20)]
        worker_id = shop.state.tasks[stopped].worker_id
        assert any(shop.state.tasks[one].worker_id == worker_id for one in behind)
        await until(lambda: not any(shop.state.tasks[one].worker_id == worker_id for one in behind))
        os.kill(pid, signal.SIGCONT)
        assert (await ended(shop, stopped)).status == "completed"
        for one in behind:
            assert (await ended(shop, one)).status == "completed"
        assert sorted(map(int, Path(ledger).read_text().split())) == list(range(20))
        await shop.do(CancelTask(blocker), ME)
        assert pid in [worker.pid for worker in shop.state.workers.values()]
