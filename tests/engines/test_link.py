"""A link by itself: when it is told of as silent, what is asked of its guard, and the words for its end."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from koubou_panel.core.commands import (
    Report,
    RunEnded,
    RunsReturned,
    WorkerDied,
    WorkerHeard,
    WorkerReady,
    WorkerSilent,
)
from koubou_panel.core.plan import Stop
from koubou_panel.core.records import Job, Outcome, TaskId, WorkerId
from koubou_panel.engines import ending, marks
from koubou_panel.engines.frames import (
    TO_WORKER,
    Alive,
    Ended,
    FrameBuffer,
    FromWorker,
    GiveBack,
    GivenBack,
    Hello,
    Input,
    Leave,
    Passed,
    Run,
    ToWorker,
    frame,
)
from koubou_panel.engines.link import LOOK_AGAIN_S, RECALL_LIMIT_S, START_LIMIT_S, WorkerLink
from koubou_panel.testing import until

W = WorkerId("worker-1")
CRASH = """some output
Fatal Python error: Segmentation fault

Thread 0x00007f1 (most recent call first):
  File "/x/koubou_panel/worker.py", line 3 in _read

Current thread 0x00007f2 (most recent call first):
  File "/home/me/train.py", line 12 in step
  File "/x/koubou_panel/kinds/function.py", line 190 in run

Extension modules: numpy (total: 1)
"""


class Engine:
    """An engine of one link, whose guard is the test."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.get_running_loop()
        self.reports: list[Report] = []
        self.report = self.reports.append
        self.is_starved = False
        self.link = WorkerLink(W, self)
        self.link.control, self.guard = socket.socketpair()
        self.guard.settimeout(0)
        self.worker: socket.socket | None = None
        fd = marks.create(folder / "worker-1.mark")
        self.link.mark = marks.Mark(fd)
        os.close(fd)

    def shares_worker(self, kind: str) -> bool:
        return kind == "function"

    def forget(self, link: WorkerLink) -> None:
        """Nothing to forget."""

    def give_up(self, link: WorkerLink, why: str) -> None:
        self.given_up = why

    def keep_output(self, job: Job, fd: int, begin: int) -> int:
        return len(os.pread(fd, 1 << 20, begin))

    def was_starved(self) -> bool:
        return self.is_starved

    def hear(self, *messages: FromWorker) -> None:
        """What the worker says."""
        self.link.data_received(b"".join(map(frame, messages)))

    async def connect(self) -> None:
        """Have a worker that the link can send to."""
        ours, self.worker = socket.socketpair()
        self.worker.settimeout(0)
        await self.loop.connect_accepted_socket(lambda: self.link, ours)

    def sent(self) -> list[ToWorker]:
        """What the worker was sent since the last call."""
        try:
            return [TO_WORKER.decode(body) for body in FrameBuffer().feed(self.worker.recv(1 << 20))]
        except BlockingIOError:
            return []

    def answer(self, words: bytes) -> None:
        """What the guard says."""
        self.guard.send(words)
        self.link.on_guard()

    def letters(self) -> bytes:
        """What the guard was asked to do."""
        try:
            return self.guard.recv(64)
        except BlockingIOError:
            return b""

    def run(self, kind: str) -> None:
        """The worker has begun a run."""
        self.link.start([Job(TaskId("t"), 1, 0, kind, {}, b"")])
        self.link.mark.begin(0)


@pytest.fixture
async def engine(tmp_path):
    """A link that is up."""
    made = Engine(tmp_path)
    made.hear(Hello(7))
    yield made
    if made.link.transport is not None:
        made.link.transport.abort()
    for end in (made.guard, made.link.control, made.worker):
        if end is not None:
            end.close()


async def test_silence_is_told_once_and_so_is_its_end(engine):
    """A link is silent after the limit, and heard with the next word."""
    link, heard_at = engine.link, engine.link.heard_at
    link.look(heard_at + 9, 10)
    link.look(heard_at + 11, 10)
    link.look(heard_at + 12, 10)
    engine.hear(Alive())
    assert engine.reports == [WorkerReady(W, 7), WorkerSilent(W), WorkerHeard(W)]


async def test_a_worker_that_is_too_silent_to_leave_is_ended(engine):
    """One that was told to leave and falls silent is ended, but not before the run that it is in has."""
    engine.run("script")
    engine.link.leave()
    engine.link.look(engine.link.heard_at + 11, 10)
    assert engine.letters() == b""
    engine.hear(Ended([Outcome(TaskId("t"), 1)]))
    engine.link.look(engine.link.heard_at + 9, 10)
    assert engine.letters() == b""
    engine.link.look(engine.link.heard_at + 11, 10)
    assert engine.letters() == b"k"
    engine.answer(b"signal 9")
    await until(lambda: type(engine.reports[-1]) is WorkerDied)
    assert engine.reports[-1].message == "it did not answer when it was to leave"


async def test_a_worker_that_never_comes_up_is_ended(tmp_path):
    """Before its greeting a worker is never silent; after a minute it is ended, and the reason says so."""
    engine = Engine(tmp_path)
    engine.link.look(engine.link.heard_at + START_LIMIT_S - 1, 10)
    assert engine.letters() == b""
    engine.link.look(engine.link.heard_at + START_LIMIT_S + 1, 10)
    assert engine.letters() == b"k"
    engine.guard.send(b"signal 9")
    engine.link.on_guard()
    await until(lambda: engine.reports)
    assert engine.reports == [WorkerDied(W, 0, "it did not start within 60 s", signal=9, expected=True)]
    engine.guard.close()


async def test_a_worker_whose_process_never_comes_is_given_up(tmp_path):
    """Without even a guard to tell, a worker is not said to be starting for longer than a minute."""
    engine = Engine(tmp_path)
    engine.link.control.close()
    engine.link.control = None
    engine.link.look(engine.link.heard_at + START_LIMIT_S + 1, 10)
    assert engine.given_up == "it did not start within 60 s"
    engine.guard.close()


@pytest.mark.parametrize(
    ("kind", "cause", "letters"),
    [
        ("script", "user", b"t"),
        ("script", "memory", b"m"),
        ("script", "processes", b"m"),
        ("script", "cpu", b"t"),
        ("function", "timeout", b"w"),
        ("function", "memory", b"k"),
    ],
)
async def test_how_a_run_is_ended(engine, kind, cause, letters):
    """Urgent causes give no grace; a function shares its worker's fate."""
    engine.run(kind)
    engine.link.stop(Stop(W, TaskId("t"), 1, cause))
    assert engine.letters() == b""
    engine.hear(GivenBack([]))
    assert engine.letters() == letters


async def test_a_worker_that_does_not_answer_goes_with_its_run(engine):
    """If nothing is given back in time the worker cannot be counted on, and is ended too."""
    engine.run("script")
    engine.link.stop(Stop(W, TaskId("t"), 1, "timeout"))
    await until(lambda: engine.letters() == b"w", RECALL_LIMIT_S + 5)


async def test_a_silent_worker_is_ended_without_being_asked(engine):
    """A stop of a run on a silent worker goes straight to the guard."""
    engine.run("script")
    engine.link.look(engine.link.heard_at + 11, 10)
    engine.link.stop(Stop(W, TaskId("t"), 1, "user"))
    assert engine.letters() == b"w"


async def test_what_waits_behind_a_stuck_run_is_not_hit_in_its_place(engine):
    """A stop of a run that has not begun ends nothing, until it is given back."""
    engine.run("function")
    engine.link.start([Job(TaskId("u"), 1, 1, "function", {}, b"")])
    engine.link.look(engine.link.heard_at + 11, 10)
    assert engine.letters() == b"f"
    engine.link.stop(Stop(W, TaskId("u"), 1, "user"))
    await asyncio.sleep(3 * LOOK_AGAIN_S)
    assert engine.letters() == b""
    engine.hear(GivenBack([TaskId("u")]))
    assert engine.letters() == b"d"


def job(name: str, claim: int, kind: str = "function") -> Job:
    """A run."""
    return Job(TaskId(name), 1, claim, kind, {}, b"")


async def test_nothing_is_handed_over_before_the_last_signal(engine):
    """A run that ended by itself is not signalled in the person of the next: that waits for the guard's word."""
    await engine.connect()
    engine.run("script")
    engine.sent()
    engine.link.stop(Stop(W, TaskId("t"), 1, "user"))
    engine.link.start([job("u", 1)])
    engine.link.send_input(TaskId("u"), b"x", [].append, is_last=True)
    engine.hear(GivenBack([]))
    engine.hear(Ended([Outcome(TaskId("t"), 1)]))
    assert engine.letters() == b"td"
    assert engine.sent() == [GiveBack()]
    engine.answer(b"done\n")
    assert engine.sent() == [Run([job("u", 1)]), Input(1, 1, b"x", True)]
    engine.link.start([job("v", 2)])
    assert engine.sent() == [Run([job("v", 2)])]


async def test_a_worker_that_is_to_end_is_given_nothing_more(engine):
    """Behind a function that is ended, what was handed over last waits for the worker's death, or is taken back."""
    await engine.connect()
    engine.run("function")
    engine.link.stop(Stop(W, TaskId("t"), 1, "user"))
    engine.hear(GivenBack([]))
    engine.link.start([job("u", 1)])
    engine.hear(Ended([Outcome(TaskId("t"), 1)]))
    assert engine.letters() == b"wk"
    assert engine.sent()[1:] == [GiveBack()]
    engine.link.leave()
    assert engine.reports[-1] == RunsReturned(W, ["u"])
    assert engine.sent() == [Leave()]
    engine.answer(b"signal 9")
    await until(lambda: type(engine.reports[-1]) is WorkerDied)
    assert engine.reports[-1] == WorkerDied(W, 1, "its run was stopped", signal=9, expected=True)


async def test_what_was_not_sent_yet_is_cancelled_without_the_worker(engine):
    """A stop, or a recall, of what still waits in the workshop gives it back at once."""
    await engine.connect()
    engine.run("script")
    engine.link.stop(Stop(W, TaskId("t"), 1, "user"))
    engine.link.start([job("u", 1)])
    engine.link.stop(Stop(W, TaskId("u"), 1, "user"))
    assert engine.reports[-1] == RunsReturned(W, ["u"])
    engine.link.start([job("v", 2)])
    engine.link.recall()
    assert engine.reports[-1] == RunsReturned(W, ["v"])


async def test_only_the_last_answer_shows_what_runs(engine):
    """While another answer is to come, something may wait behind the run that is to stop: nothing is signalled."""
    await engine.connect()
    engine.run("script")
    engine.link.recall()
    engine.link.start([job("u", 1)])
    engine.link.stop(Stop(W, TaskId("t"), 1, "user"))
    engine.hear(GivenBack([]))
    assert engine.letters() == b""
    engine.hear(GivenBack([TaskId("u")]))
    assert engine.letters() == b"t"


async def test_the_output_of_a_crash_is_kept_and_read(engine, tmp_path):
    """What a dead worker had caught goes to the log from where it was moved to, and its stack names the place."""
    engine.run("function")
    engine.link.caught_fd = os.open(tmp_path / "caught", os.O_RDWR | os.O_CREAT)
    os.write(engine.link.caught_fd, b"moved before\n" + CRASH.encode())
    engine.link.mark.moved = len("moved before\n")
    engine.guard.send(b"signal 11")
    engine.link.on_guard()
    await until(lambda: len(engine.reports) == 3)
    _, ended, died = engine.reports
    assert type(ended) is RunEnded
    outcome = ended.outcome
    assert outcome.message == "killed by signal 11 (SIGSEGV) in step, line 12 of /home/me/train.py"
    assert "train.py" in outcome.error.traceback
    assert "worker.py" not in outcome.error.traceback
    assert outcome.usage.output_bytes == len(CRASH)
    assert died == WorkerDied(W, 1, "killed by signal 11 (SIGSEGV)", signal=11)


async def test_a_worker_whose_output_cannot_be_kept_is_buried_all_the_same(
    engine, tmp_path, monkeypatch, caplog
):
    """Without a descriptor for the log, the output is lost and logged as such; the worker's death is told."""
    engine.run("function")
    engine.link.caught_fd = os.open(tmp_path / "caught", os.O_RDWR | os.O_CREAT)

    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(engine, "keep_output", fail)
    engine.answer(b"signal 11")
    await until(lambda: len(engine.reports) == 2)
    assert engine.reports[-1] == WorkerDied(W, 1, "killed by signal 11 (SIGSEGV)", signal=11)
    assert "the last output of task t, run 1 is lost" in caplog.text


async def test_a_stop_that_comes_while_its_worker_is_buried_ends_with_it(engine, tmp_path, monkeypatch):
    """Nothing looks any more, in a mark that is closed, for the run that is to stop."""
    engine.run("function")
    engine.link.caught_fd = os.open(tmp_path / "caught", os.O_RDWR | os.O_CREAT)
    stop = Stop(W, TaskId("t"), 1, "user")

    def keep(*_: object) -> int:
        engine.loop.call_soon_threadsafe(engine.link.stop, stop)
        return 0

    monkeypatch.setattr(engine, "keep_output", keep)
    engine.answer(b"signal 11")
    await until(lambda: len(engine.reports) == 3)
    assert engine.link.stopping == {"t": "user"}
    assert engine.link.kill_timer is None


async def test_an_end_for_want_of_memory_says_so(engine):
    """KILL, when the kernel has just ended a process for want of memory, is put down to that."""
    engine.run("function")
    engine.is_starved = True
    engine.guard.send(b"signal 9")
    engine.link.on_guard()
    await until(lambda: len(engine.reports) == 3)
    outcome = engine.reports[1].outcome
    assert (outcome.reason, outcome.exit_code) == ("memory", 137)
    assert outcome.message == "killed by signal 9 (SIGKILL), out of memory: the kernel ended it"


async def test_a_run_that_had_ended_is_not_cut_off(engine):
    """A worker that dies between two runs takes none with it."""
    engine.run("function")
    engine.hear(Ended([Outcome(TaskId("t"), 1)]))
    engine.guard.send(b"exit 3")
    engine.link.on_guard()
    await until(lambda: len(engine.reports) == 3)
    assert engine.reports[2] == WorkerDied(W, 1, "the worker process exited with code 3", 3)


@pytest.mark.parametrize(
    ("said", "why", "message"),
    [
        ("exit 0", {"is_leaving": True}, "left"),
        ("exit 4", {"is_leaving": True}, "the worker process exited with code 4"),
        ("signal 11", {"is_leaving": True}, "killed by signal 11 (SIGSEGV)"),
        ("signal 9", {"ended_for": "ended"}, "ended"),
        ("signal 11", {"ended_for": "ended"}, "killed by signal 11 (SIGSEGV)"),
        ("signal 99", {}, "killed by signal 99 (unknown)"),
        ("", {}, "its guard was killed"),
    ],
)
def test_the_words_for_an_end(said, why, message):
    """What a guard says becomes words; who was told to end did so, unless another end came first."""
    assert ending.death(W, 3, said, **why).message == message


async def test_what_waits_behind_a_silent_run_is_taken_back(engine):
    """A silent worker is stopped for a moment; what it had not begun by then is returned, and it may not begin it."""
    engine.run("function")
    engine.link.start(
        [Job(TaskId(name), 1, claim, "function", {}, b"") for claim, name in ((1, "u"), (2, "v"))]
    )
    engine.link.look(engine.link.heard_at + 11, 10)
    assert engine.letters() == b"f"
    engine.link.mark.begin(1)
    engine.guard.send(b"frozen\n")
    engine.link.on_guard()
    assert engine.letters() == b"g"
    assert engine.reports[-1] == RunsReturned(W, ["v"])
    assert [engine.link.mark.is_revoked(claim) for claim in range(4)] == [False, False, True, False]


class Unfrozen(marks.Mark):
    """The mark of a worker that somebody lets go on while its claims are taken back: it begins the next."""

    @property
    def begun(self) -> int:
        now = super().begun
        if now == 1 and self.was_asked:
            self.begin(1)
        self.was_asked = True
        return now

    was_asked = False


async def test_what_begins_while_it_is_taken_back_is_not_given_away(engine, tmp_path):
    """A worker that goes on before its claims are revoked keeps what it begins, or says that it passed it over."""
    fd = os.open(tmp_path / "worker-1.mark", os.O_RDWR)
    engine.run("function")
    engine.link.mark.close()
    engine.link.mark = Unfrozen(fd)
    os.close(fd)
    engine.link.start([job("u", 1), job("v", 2)])
    engine.answer(b"frozen\n")
    assert engine.reports[-1] == RunsReturned(W, ["v"])
    assert [engine.link.mark.is_revoked(claim) for claim in range(3)] == [False, True, True]
    engine.hear(Passed(2))
    assert engine.reports[-1] == RunsReturned(W, ["v"])
    engine.hear(Passed(1))
    assert engine.reports[-1] == RunsReturned(W, ["u"])


async def test_what_is_handed_to_a_silent_worker_is_taken_back_too(engine):
    """Runs that were on their way when a worker fell silent do not get stuck in it."""
    engine.run("function")
    engine.link.look(engine.link.heard_at + 11, 10)
    assert engine.letters() == b""
    engine.link.start([Job(TaskId("u"), 1, 1, "function", {}, b"")])
    assert engine.letters() == b"f"


async def test_the_end_may_come_with_the_answer(engine):
    """A worker that ends right after it was stopped is buried all the same."""
    engine.run("function")
    engine.guard.send(b"frozen\nexit 3")
    engine.link.on_guard()
    await until(lambda: len(engine.reports) == 3)
    assert engine.reports[-1] == WorkerDied(W, 1, "the worker process exited with code 3", 3)


def test_a_claim_that_was_revoked_stays_so_until_its_worker_asked(tmp_path):
    """A second revocation does not let a claim run that was begun, but not asked about, after the first."""
    fd = marks.create(tmp_path / "m.mark")
    mark = marks.Mark(fd)
    os.close(fd)
    mark.begin(0)
    mark.revoke(4)
    mark.begin(1)
    mark.revoke(6)
    assert [mark.is_revoked(claim) for claim in range(7)] == [False, True, True, True, True, True, False]
    for claim in range(7):
        mark.begin(claim)
    mark.revoke(9)
    assert [mark.is_revoked(claim) for claim in range(5, 10)] == [False, False, True, True, False]
    mark.close()
