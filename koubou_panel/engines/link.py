"""The loop's end of one worker: its socket, its guard's control, its mark, and what it was given.

Loop thread only. A worker speaks every `BEAT_S` seconds; one that does not is stopped, or holds the interpreter's
lock. It cannot end its own run then, so that a stop goes to its guard, and takes the worker with it.

Between a stop and the guard's word that none of its signals is to come any more, what is handed to the worker waits
here: it would be hit in the place of a run that ended by itself meanwhile. A worker that is to end as well is given
nothing more; its death gives back what waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from koubou_panel.core.commands import (
    Report,
    RunEnded,
    RunProgressed,
    RunsReturned,
    WorkerDied,
    WorkerHeard,
    WorkerReady,
    WorkerSilent,
)
from koubou_panel.core.plan import Stop
from koubou_panel.core.records import Job, StopCause, TaskId, Usage, WorkerId
from koubou_panel.engines import ending, marks
from koubou_panel.engines.frames import (
    FROM_WORKER,
    Ended,
    FrameBuffer,
    GiveBack,
    GivenBack,
    Hello,
    Input,
    InputTaken,
    Leave,
    Passed,
    Run,
    Told,
    ToWorker,
    frame,
)
from koubou_panel.engines.inputs import CROWDED, Answer, Senders

RECALL_LIMIT_S = 0.5
LOOK_AGAIN_S = 0.05
START_LIMIT_S = 60.0
LAST_WORDS_BYTES = 1 << 14
# What is killed at once: every second of grace makes it worse for the whole host.
URGENT: frozenset[StopCause] = frozenset({"memory", "processes"})

# The guard's letters, as its own page explains them.
END_TASK, KILL_TASK, RUN_ENDED, END_ALL, KILL_ALL, FREEZE, THAW = b"t", b"m", b"d", b"w", b"k", b"f", b"g"
FROZEN, DONE = "frozen", "done"

log = logging.getLogger(__name__)


class Host(Protocol):
    """What a link needs of its engine."""

    loop: asyncio.AbstractEventLoop
    report: Callable[[Report], None]
    shares_worker: Callable[[str], bool]

    def forget(self, link: WorkerLink) -> None:
        """The worker has ended and its report is made."""

    def give_up(self, link: WorkerLink, why: str) -> None:
        """The worker, which is not connected, counts as dead."""

    def keep_output(self, job: Job, fd: int, begin: int) -> int:
        """Append what a dead worker had caught from `begin` on to its task's log; its size. Any thread."""

    def was_starved(self) -> bool:
        """Whether the kernel has just ended a process for want of memory."""


class WorkerLink(asyncio.Protocol):
    """The loop's end of one worker."""

    def __init__(self, worker_id: WorkerId, engine: Host) -> None:
        """A link that is not connected yet."""
        self.worker_id = worker_id
        self.engine = engine
        self.transport: asyncio.Transport | None = None
        self.control: socket.socket | None = None
        self.mark: marks.Mark | None = None
        self.caught_fd: int | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.held: dict[TaskId, Job] = {}
        self.stopping: dict[TaskId, StopCause] = {}
        self.later: list[Run | Input] = []
        self.is_doomed = False
        self._recalls = 0
        self._dones = 0
        self._burial: asyncio.Task[None] | None = None
        self.kill_timer: asyncio.TimerHandle | None = None
        self.is_leaving = False
        self.ended_for = ""
        self.is_ready = False
        self.is_silent = False
        self.heard_at = engine.loop.time()
        self.senders = Senders()
        self._buffer = FrameBuffer()

    # -- from the worker --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Decode frames into reports."""
        self.heard_at = self.engine.loop.time()
        if self.is_silent:
            self.is_silent = False
            self.engine.report(WorkerHeard(self.worker_id))
        for body in self._buffer.feed(data):
            message = FROM_WORKER.decode(body)
            if type(message) is Ended:
                self._ended(message)
            elif type(message) is Told:
                self.engine.report(
                    RunProgressed(message.task_id, message.run, message.progress, message.output_bytes)
                )
            elif type(message) is GivenBack:
                self._recalls = max(0, self._recalls - 1)
                self._given_back(message)
            elif type(message) is Passed:
                self._return([job.task_id for job in self.held.values() if job.claim == message.claim])
            elif type(message) is InputTaken:
                self.senders.settle(message.number, message.why)
            elif type(message) is Hello:
                self.is_ready = True
                self.engine.report(WorkerReady(self.worker_id, message.pid))

    def _ended(self, message: Ended) -> None:
        report = self.engine.report
        for outcome in message.outcomes:
            job = self.held.pop(outcome.task_id, None)
            if job is not None:
                self.senders.end(job.claim)
            if outcome.task_id in self.stopping:
                self._stopped(outcome.task_id)
            report(RunEnded(self.worker_id, outcome))

    def _given_back(self, message: GivenBack) -> None:
        self._return(message.task_ids)
        if self.stopping and not self._recalls:
            self._end_run()

    def _return(self, task_ids: list[TaskId]) -> None:
        """Tell of runs that have not begun, and will not."""
        for task_id in task_ids:
            job = self.held.pop(task_id, None)
            if job is not None:
                self.senders.end(job.claim)
            if task_id in self.stopping:
                self._stopped(task_id)
        if task_ids:
            self.engine.report(RunsReturned(self.worker_id, task_ids))

    # -- its health -------------------------------------------------------------------------------------------

    def look(self, now: float, silent_after_s: float) -> None:
        """Tell if nothing was heard for too long; end one that never came up, as no task's time-out would."""
        silent_s = now - self.heard_at
        if not self.is_ready:
            if silent_s > START_LIMIT_S:
                self.end(f"it did not start within {START_LIMIT_S:g} s")
                if self.control is None:
                    self.engine.give_up(self, self.ended_for)
        elif silent_s > silent_after_s and not self.is_silent:
            self.is_silent = True
            self.engine.report(WorkerSilent(self.worker_id))
            if self.stopping:
                self._end_run()
            self._take_back()
        if self.is_silent and self.is_leaving and self.running() is None:
            self.end("it did not answer when it was to leave")

    def _take_back(self) -> None:
        """Take back what waits behind the run that a silent worker is stuck in, without its help.

        It is stopped for a moment, so that what it has begun is certain; a mark says what it may not begin any more.
        """
        begun = self.mark.begun if self.mark else 0
        if any(job.claim >= begun for job in self.held.values()):
            self.letter(FREEZE)

    def _revoke(self) -> None:
        """The worker is stopped for us."""
        if self.mark is not None:
            self.later.clear()
            last = max((job.claim for job in self.held.values()), default=-1)
            first = self.mark.revoke(last + 1) if last >= self.mark.begun else last + 1
            waiting = [job.task_id for job in self.held.values() if job.claim >= first]
            if waiting:
                self._given_back(GivenBack(waiting))
        self.letter(THAW)

    # -- to the worker ----------------------------------------------------------------------------------------

    def send(self, message: ToWorker) -> None:
        """Send one frame, if the worker is still there."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(frame(message))

    def start(self, jobs: list[Job]) -> None:
        """Hand over runs."""
        for job in jobs:
            self.held[job.task_id] = job
        if self.stopping or self._dones or self.is_doomed:
            self.later.append(Run(jobs))
        else:
            self.send(Run(jobs))
        if self.is_silent:
            self._take_back()

    def send_input(self, task_id: TaskId, data: bytes, answer: Answer, *, is_last: bool) -> None:
        """Send input to a run; `answer` is told what became of it, once."""
        job = self.held.get(task_id)
        if job is None:
            answer("it is not running any more")
        elif self.senders.is_crowded(job.claim):
            answer(CROWDED)
        else:
            piece = Input(job.claim, self.senders.add(job.claim, answer), data, is_last)
            if any(type(message) is Run and job in message.jobs for message in self.later):
                self.later.append(piece)
            else:
                self.send(piece)

    def recall(self) -> None:
        """Take back what the worker has not begun."""
        self._take_back_later()
        self._recalls += 1
        self.send(GiveBack())

    def _take_back_later(self) -> None:
        """Take back what was not sent yet."""
        jobs = [job for message in self.later if type(message) is Run for job in message.jobs]
        self.later.clear()
        self._return([job.task_id for job in jobs])

    def stop(self, stop: Stop) -> None:
        """End a run: what has not begun is taken back first, so that only the run itself is hit."""
        if stop.task_id not in self.held:
            return
        self.stopping[stop.task_id] = stop.cause
        if self.is_silent:
            self._end_run()
            return
        self.recall()
        self._clear_timer()
        self.kill_timer = self.engine.loop.call_later(RECALL_LIMIT_S, self._end_deaf_run)

    def _end_deaf_run(self) -> None:
        """End what runs in a worker that does not answer, and so cannot be counted on to end it."""
        self._end_run(is_deaf=True)

    def _end_run(self, *, is_deaf: bool = False) -> None:
        """End what runs, if that is what is to stop; what it holds behind it is not to be hit in its place."""
        self._clear_timer()
        running = self.running()
        if running is not None and running.task_id in self.stopping:
            with_worker = is_deaf or self.is_silent or self.engine.shares_worker(running.kind)
            self.is_doomed |= with_worker
            if self.stopping[running.task_id] in URGENT:
                self.letter(KILL_ALL if with_worker else KILL_TASK)
            else:
                self.letter(END_ALL if with_worker else END_TASK)
        elif self.stopping:
            self.kill_timer = self.engine.loop.call_later(LOOK_AGAIN_S, self._end_run)

    def running(self) -> Job | None:
        """The run that the worker is in, if it is in one."""
        last = self.mark.begun - 1 if self.mark else -1
        return next((job for job in self.held.values() if job.claim == last), None)

    def _stopped(self, task_id: TaskId) -> None:
        """A run that was to stop is over."""
        self.stopping.pop(task_id, None)
        if not self.stopping:
            self._clear_timer()
            if self.is_doomed:
                # A function may handle signals, and have taken the worker's end for its own.
                self.ended_for = self.ended_for or "its run was stopped"
                self.letter(KILL_ALL)
            else:
                self._dones += 1
                self.letter(RUN_ENDED)

    def _clear_timer(self) -> None:
        if self.kill_timer is not None:
            self.kill_timer.cancel()
            self.kill_timer = None

    def _done(self) -> None:
        """The guard has nothing more to signal."""
        self._dones -= 1
        if not (self.stopping or self._dones or self.is_doomed):
            later, self.later = self.later, []
            for message in later:
                self.send(message)

    def letter(self, letter: bytes) -> None:
        """Tell the guard."""
        if self.control is not None:
            with contextlib.suppress(OSError):
                self.control.send(letter)

    def connected(self) -> None:
        """The worker and its guard can be told from now on; what was asked before is."""
        if self.ended_for:
            self.letter(KILL_ALL)
        elif self.is_leaving:
            self.leave()

    def leave(self) -> None:
        """Let the worker end by itself, after what it runs."""
        self.is_leaving = True
        self._take_back_later()
        self.send(Leave())

    def end(self, why: str) -> None:
        """End the worker now, with what it runs."""
        self.ended_for = why
        self.letter(KILL_ALL)

    # -- its end ----------------------------------------------------------------------------------------------

    def on_guard(self) -> None:
        """The guard says how the worker ended, or is gone itself."""
        if self.control is None:
            return
        try:
            said = self.control.recv(4096).decode("ascii", "replace")
        except BlockingIOError:
            return
        except OSError:
            said = ""
        *words, said = said.split("\n")
        for word in words:
            self._answered(word)
        if words and not said:
            return
        self.engine.loop.remove_reader(self.control)
        self.control.close()
        self.control = None
        # What the worker wrote before its end may still be in the socket: read it first.
        self.engine.loop.call_soon(self._hear_out, said)

    def _answered(self, word: str) -> None:
        """The guard has done what a letter asked."""
        if word == FROZEN:
            self._revoke()
        elif word == DONE:
            self._done()

    def _hear_out(self, said: str) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._drain()
            self.transport.abort()
        self._clear_timer()
        begun = self.mark.begun if self.mark else 0
        died = ending.death(self.worker_id, begun, said, is_leaving=self.is_leaving, ended_for=self.ended_for)
        running = self.running()
        if running is None:
            self._bury(died)
        else:
            self._burial = self.engine.loop.create_task(self._bury_with(running, died))

    async def _bury_with(self, running: Job, died: WorkerDied) -> None:
        """Bury the worker with the run that it was in; what goes wrong with its output loses that, not the slot."""
        ended = None
        try:
            ended = await self.engine.loop.run_in_executor(None, self._cut_off, running, died)
        except Exception:
            log.exception("the last output of task %s, run %d is lost", running.task_id, running.run)
        self._bury(died, ended)

    def _cut_off(self, running: Job, died: WorkerDied) -> RunEnded:
        """How the run ended that the worker died in, once all it printed is in its log. Any thread."""
        last_words, size = "", 0
        if self.caught_fd is not None and self.mark is not None:
            size = self.engine.keep_output(running, self.caught_fd, self.mark.moved)
            end = os.fstat(self.caught_fd).st_size
            begin = max(self.mark.moved, end - LAST_WORDS_BYTES)
            last_words = os.pread(self.caught_fd, LAST_WORDS_BYTES, begin).decode("utf-8", "replace")
        outcome = ending.cut_off(running, died, last_words=last_words, was_starved=self.engine.was_starved())
        return RunEnded(self.worker_id, replace(outcome, usage=Usage(output_bytes=size)))

    def _bury(self, died: WorkerDied, ended: RunEnded | None = None) -> None:
        self.senders.end()
        self._clear_timer()  # a stop may have come while the last output was kept
        if self.mark is not None:
            self.mark.close()
        if self.caught_fd is not None:
            os.close(self.caught_fd)
            self.caught_fd = None
        # The mark's file stays until the name is used again: what it proves may not be stored yet.
        self.engine.forget(self)
        if ended is not None:
            self.engine.report(ended)
        self.engine.report(died)

    def _drain(self) -> None:
        """Everything that is left in the socket, before the worker counts as dead."""
        raw: socket.socket = self.transport.get_extra_info("socket")  # type: ignore[union-attr]
        with contextlib.suppress(OSError):
            while data := os.read(raw.fileno(), 1 << 18):
                self.data_received(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is on the loop."""
        self.transport = transport  # type: ignore[assignment]
