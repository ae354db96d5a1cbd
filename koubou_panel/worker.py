"""The worker process: takes runs from its socket, does them one at a time, and tells how they ended.

The main thread runs the tasks, so that signals and thread-bound libraries behave as in any script. One thread
reads the socket and sends beats; one, the pulse, moves what functions print into their task's log and tells sizes and
progress.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

from koubou_panel import registry, running
from koubou_panel.capture import Capture, LazyLog
from koubou_panel.core.ports import InputSource, RunContext, TaskKind
from koubou_panel.core.records import Fault, Job, Outcome, Progress, TaskId
from koubou_panel.engines.following import Following
from koubou_panel.engines.frames import (
    BEAT_S,
    TO_WORKER,
    Alive,
    Ended,
    FrameBuffer,
    FromWorker,
    GiveBack,
    GivenBack,
    Hello,
    Input,
    InputTaken,
    Passed,
    Run,
    Told,
    frame,
)
from koubou_panel.engines.guard import become_subreaper, descendants, kill_below, reap
from koubou_panel.engines.inputs import Inputs
from koubou_panel.engines.marks import Mark
from koubou_panel.engines.pulse import PULSE_S, Pulse
from koubou_panel.kinds.limit import lift_memory_limit
from koubou_panel.kinds.warm import end_fork
from koubou_panel.meters import Meters, watch

LONGEST_UNHEARD_S = 0.25
LONGEST_QUIET_S = 2.0
LONGEST_IDLE_S = 30.0
LEAVE_LIMIT_S = 5.0
FLUSH_S = 0.002
MANY_MODULES = 100
RECEIVE_BYTES = 1 << 18


class Context(RunContext):
    """What a kind sees of its run."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        inputs: Inputs,
        ring: Callable[[], None],
        database: Path | None = None,
    ) -> None:
        """The context of `job`: its output below `folder`, its input in `inputs`, others' results in `database`.

        `ring` is called when there is news of it.
        """
        self.job = job
        self.home = str(folder.parent)
        self._inputs = inputs
        self._ring = ring
        self.prints_unheard = True
        self._database = database
        self.following = Following()
        self.output: LazyLog = LazyLog(job, folder, self._hear)
        self.started = time.monotonic()
        self.told: tuple[Progress | None, int] = (None, self.output.size)

    def progress(self, done: float | None, total: float | None, unit: str = "", message: str = "") -> None:
        """Tell how far the run is; told on by the pulse."""
        self.following.say(done, total, unit, message)
        self._ring()

    def hint(self, said: running.Said | None) -> None:
        """Tell what a library says of how far it is."""
        self.following.hint(said)
        self._ring()

    def _hear(self, data: bytes) -> None:
        self.following.feed(data)
        self._ring()

    def open_input(self) -> InputSource:
        """What is sent to this run."""
        return self._inputs.of(self.job.claim)

    def value_of(self, task_id: TaskId) -> bytes:
        """The opaque result of a task that succeeded before this run was started."""
        from koubou_panel.archive.values import read_value  # most runs are given no other's result

        if self._database is None:
            raise LookupError(f"the result of task {task_id} cannot be read here")
        return read_value(self._database, task_id)

    def payload_of(self, task_id: TaskId) -> bytes:
        """What was submitted with a task before this one."""
        from koubou_panel.archive.values import read_payload

        if self._database is None:
            raise LookupError(f"the arguments of task {task_id} cannot be read here")
        return read_payload(self._database, task_id)

    def news(self) -> Told | None:
        """What changed since the last call, if anything did."""
        return self._told_anew(self.following.latest(time.monotonic()))

    def last_news(self, *, succeeded: bool) -> Told | None:
        """What is to be known of its progress when it has ended, if that is something new."""
        last = self.following.last(time.monotonic(), succeeded=succeeded)
        return None if last is None else self._told_anew(last)

    def _told_anew(self, progress: Progress | None) -> Told | None:
        seen = (progress, self.output.size)
        if seen == self.told:
            return None
        self.told = seen
        return Told(self.job.task_id, self.job.run, *seen)


class WorkerProcess:
    """One worker's life, from its greeting to end of file."""

    def __init__(
        self, link: socket.socket, mark: Mark, capture: Capture, folder: Path, database: Path | None = None
    ) -> None:
        """Serve `link`, marking what begins in `mark`, logging output below `folder`; results are in `database`."""
        self.link = link
        self.mark = mark
        self.folder = folder
        self.database = database
        self.pid = os.getpid()
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.inputs = Inputs(lambda number, why: self.send(InputTaken(number, why)))
        self.kinds: dict[str, TaskKind] = {}
        self.capture = capture
        self.pulse = Pulse()
        self.meters = Meters()
        self.current: Context | None = None
        self._send_lock = threading.Lock()
        self._news_lock = threading.Lock()
        self._ended: deque[Outcome] = deque()
        self._flushed_at = 0.0
        self._modules = len(sys.modules)

    def run(self) -> None:
        """Until the workshop hangs up or says to leave."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()
        watch(self.meters)
        self.send(Hello(os.getpid()))
        take = self.jobs.get
        while (job := take()) is not None:
            self.mark.begin(job.claim)
            if self.mark.is_revoked(job.claim):
                self.send(Passed(job.claim))
                continue
            self._ended.append(self._do(job))
            if self._is_flush_due():
                self.flush()
                self._collect()
            else:
                self.pulse.ring()

    def _collect(self) -> None:
        """Look through all objects once a run has imported much.

        Python would do it some hundred runs later, in the middle of one, which then takes some 60 ms longer.
        """
        if len(sys.modules) >= self._modules + MANY_MODULES:
            gc.collect()
            self._modules = len(sys.modules)

    def flush(self) -> None:
        """Tell what has ended; any thread. A long task must not sit on what ended before it."""
        with self._send_lock:
            outcomes: list[Outcome] = []
            with contextlib.suppress(IndexError):
                while True:
                    outcomes.append(self._ended.popleft())
            if outcomes:
                self.link.sendall(frame(Ended(outcomes)))
                self._flushed_at = time.monotonic()

    def _is_flush_due(self) -> bool:
        """Whether what has ended is to be told now: only what took next to no time waits for the next to end."""
        return self.jobs.empty() or time.monotonic() - self._flushed_at > FLUSH_S

    def send(self, message: FromWorker) -> None:
        """Send one frame; any thread."""
        with self._send_lock:
            self.link.sendall(frame(message))

    def _do(self, job: Job) -> Outcome:
        context = self.current = Context(job, self.folder, self.inputs, self.pulse.ring, self.database)
        running.tell_to(context.progress, context.hint)
        batches = False
        try:
            kind = self._kind(job.kind)
            batches = context.prints_unheard = kind.batches
            outcome = kind.run(job, context)
        except Exception as error:  # noqa: BLE001 - the edge: a kind's own bug must not end the worker
            end_fork(self.pid, error)
            fault = Fault(type(error).__name__, str(error))
            outcome = Outcome(job.task_id, job.run, "start", f"could not run: {error}", error=fault)
        end_fork(self.pid)
        self.inputs.end(job.claim)
        self.capture.finish(context.output)
        self.current = None
        running.tell_to(None)
        self.meters.clear()
        with contextlib.suppress(
            Exception
        ):  # a run does not fail, nor its worker, for what it said of itself
            self._tell_last(context, succeeded=outcome.reason is None)
        context.output.close()
        if not batches:
            sweep()
        return _with_output(outcome, context.output)

    def _kind(self, name: str) -> TaskKind:
        kind = self.kinds.get(name)
        if kind is None:
            kind = self.kinds[name] = registry.kind(name)
        return kind

    def _read(self) -> None:
        buffer = FrameBuffer()
        while data := self._receive():
            for body in buffer.feed(data):
                message = TO_WORKER.decode(body)
                if type(message) is Run:
                    for job in message.jobs:
                        self.jobs.put(job)
                    self.pulse.ring()
                elif type(message) is GiveBack:
                    self._give_back()
                elif type(message) is Input:
                    self.inputs.put(message)
                else:
                    self.jobs.put(None)
        # The workshop is gone, or it took this worker for dead: nothing below may outlive it, guard or no guard.
        kill_below(os.getpid())
        os._exit(0)

    def _receive(self) -> bytes:
        """What the workshop sends. While it has nothing to say, a beat tells it that this process still runs Python."""
        poll = select.poll()
        poll.register(self.link, select.POLLIN)
        while True:
            try:
                while not poll.poll(BEAT_S * 1000):
                    self.send(Alive())
                return self.link.recv(RECEIVE_BYTES)
            except OSError:
                return b""
            except MemoryError:  # a run is at its limit; who would stop it must be heard all the same
                lift_memory_limit()

    def _give_back(self) -> None:
        returned, is_leaving = [], False
        with contextlib.suppress(Empty):
            while True:
                job = self.jobs.get_nowait()
                if job is None:
                    is_leaving = True
                elif not self.mark.is_revoked(job.claim):
                    returned.append(job.task_id)
        if is_leaving:
            self.jobs.put(None)
        self.flush()
        self.send(GivenBack(returned))

    def _pulse(self) -> None:
        while True:
            try:
                self._look()
            except MemoryError:  # of a run at its limit: soon it has ended, or been ended
                time.sleep(PULSE_S)

    def _look(self) -> None:
        self.pulse.begin()
        had_news = bool(self._ended)
        if had_news:
            self.flush()
        context = self.current
        if context is not None:
            had_news |= self._tell_news(context)
        self.pulse.rest(had_news=had_news, longest_s=_longest_s(context))

    def _tell_news(self, context: Context) -> bool:
        """Tell what is new of a run; whether there was, or it is too young to be asked."""
        if time.monotonic() - context.started < PULSE_S:
            return True
        with contextlib.suppress(OSError, ValueError):
            self.capture.move(context.output, lambda: self.current is context)
        with self._news_lock:
            news = context.news() if self.current is context else None
            if news is not None:
                self.send(news)
        return news is not None

    def _tell_last(self, context: Context, *, succeeded: bool) -> None:
        """Tell how far a run came that has ended; nothing older is told after it."""
        with self._news_lock:
            news = context.last_news(succeeded=succeeded)
            if news is not None:
                self.send(news)


def _longest_s(context: Context | None) -> float:
    """The longest rest of the pulse. What a function prints is found by looking; all else rings."""
    if context is None:
        return LONGEST_IDLE_S
    return LONGEST_UNHEARD_S if context.prints_unheard else LONGEST_QUIET_S


def _with_output(outcome: Outcome, output: LazyLog) -> Outcome:
    size, lost = output.size, output.lost
    if not size and not lost:
        return outcome
    from msgspec.structs import replace

    return replace(outcome, usage=replace(outcome.usage, output_bytes=size, lost_output_bytes=lost))


def sweep() -> None:
    """End what a run left behind below this process."""
    me = os.getpid()
    reap()
    if descendants(me):
        kill_below(me)


def main(argv: list[str]) -> None:
    """`worker SOCKET_FD MARK_FD CAUGHT_FD OUTPUT_FOLDER [DATABASE]`."""
    link = socket.socket(fileno=int(argv[0]))
    link.set_inheritable(False)
    mark_fd, caught_fd = int(argv[1]), int(argv[2])
    for fd in (mark_fd, caught_fd):
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's own signature
    become_subreaper()
    running.begin_worker(Path(argv[3]).parent)
    capture = Capture(caught_fd, mark := Mark(mark_fd))
    faulthandler.enable()
    WorkerProcess(link, mark, capture, Path(argv[3]), Path(argv[4]) if argv[4:] else None).run()
    # What a function has left running (a thread that does not end) must not keep a worker that is to leave.
    last = threading.Timer(LEAVE_LIMIT_S, os._exit, (0,))
    last.daemon = True
    last.start()


if __name__ == "__main__":
    main(sys.argv[1:])
