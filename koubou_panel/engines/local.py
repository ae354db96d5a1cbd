"""The local engine: long-lived worker processes on this machine, each below a guard of its own.

Loop thread only, except where it says otherwise. Starting a process leaves the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from koubou_panel.core.commands import (
    Report,
    RunEnded,
    RunProgressed,
    RunsReturned,
    WorkerDied,
    WorkerReady,
)
from koubou_panel.core.environment import allowed
from koubou_panel.core.plan import Instruction, Recall, Retire, Spawn, Start, Stop
from koubou_panel.core.records import Job, TaskId, WorkerId
from koubou_panel.engines import guard, marks
from koubou_panel.engines.frames import (
    FROM_WORKER,
    Ended,
    FrameBuffer,
    GiveBack,
    GivenBack,
    Hello,
    Leave,
    Run,
    Told,
    ToWorker,
    frame,
)

RECALL_LIMIT_S = 1.0
LOOK_AGAIN_S = 0.05


class WorkerLink(asyncio.Protocol):
    """The loop's end of one worker: its socket, its guard's control, its mark."""

    def __init__(self, worker_id: WorkerId, engine: LocalEngine) -> None:
        """A link that is not connected yet."""
        self.worker_id = worker_id
        self.engine = engine
        self.transport: asyncio.Transport | None = None
        self.control: socket.socket | None = None
        self.mark: marks.Mark | None = None
        self.mark_path: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.held: dict[TaskId, Job] = {}
        self.stopping: set[TaskId] = set()
        self.kill_timer: asyncio.TimerHandle | None = None
        self.is_leaving = False
        self._buffer = FrameBuffer()

    # -- from the worker --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Decode frames into reports."""
        for body in self._buffer.feed(data):
            message = FROM_WORKER.decode(body)
            if type(message) is Ended:
                self._ended(message)
            elif type(message) is Told:
                self.engine.report(
                    RunProgressed(message.task_id, message.run, message.progress, message.output_bytes)
                )
            elif type(message) is GivenBack:
                self._given_back(message)
            elif type(message) is Hello:
                self.engine.report(WorkerReady(self.worker_id, message.pid))

    def _ended(self, message: Ended) -> None:
        report = self.engine.report
        for outcome in message.outcomes:
            self.held.pop(outcome.task_id, None)
            if outcome.task_id in self.stopping:
                self._stopped(outcome.task_id)
            report(RunEnded(self.worker_id, outcome))

    def _given_back(self, message: GivenBack) -> None:
        for task_id in message.task_ids:
            self.held.pop(task_id, None)
            self._stopped(task_id)
        if message.task_ids:
            self.engine.report(RunsReturned(self.worker_id, message.task_ids))
        if self.stopping:
            self._kill()

    # -- to the worker ----------------------------------------------------------------------------------------

    def send(self, message: ToWorker) -> None:
        """Send one frame, if the worker is still there."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(frame(message))

    def start(self, jobs: list[Job]) -> None:
        """Hand over runs."""
        for job in jobs:
            self.held[job.task_id] = job
        self.send(Run(jobs))

    def stop(self, stop: Stop) -> None:
        """End a run: what has not begun is taken back first, so that only the run itself is hit."""
        if stop.task_id not in self.held:
            return
        self.stopping.add(stop.task_id)
        if not self._shares_interpreter(stop.task_id):
            self._kill()
            return
        self.send(GiveBack())
        self._clear_timer()
        self.kill_timer = self.engine.loop.call_later(RECALL_LIMIT_S, self._kill)

    def _shares_interpreter(self, task_id: TaskId) -> bool:
        return self.engine.batches(self.held[task_id].kind)

    def _kill(self) -> None:
        """End what runs, if that is what is to stop; what it holds behind it is not to be hit in its place."""
        self._clear_timer()
        begun = self.mark.begun if self.mark else 0
        running = next((job for job in self.held.values() if job.claim == begun - 1), None)
        if running is not None and running.task_id in self.stopping:
            self.letter(b"w" if self._shares_interpreter(running.task_id) else b"t")
        elif self.stopping:
            self.kill_timer = self.engine.loop.call_later(LOOK_AGAIN_S, self._kill)

    def _stopped(self, task_id: TaskId) -> None:
        """A run that was to stop is over."""
        self.stopping.discard(task_id)
        if not self.stopping:
            self._clear_timer()
            self.letter(b"d")

    def _clear_timer(self) -> None:
        if self.kill_timer is not None:
            self.kill_timer.cancel()
            self.kill_timer = None

    def letter(self, letter: bytes) -> None:
        """Tell the guard."""
        if self.control is not None:
            with contextlib.suppress(OSError):
                self.control.send(letter)

    def leave(self) -> None:
        """Let the worker end by itself."""
        self.is_leaving = True
        self.send(Leave())

    # -- its end ----------------------------------------------------------------------------------------------

    def on_guard(self) -> None:
        """The guard says how the worker ended, or is gone itself."""
        if self.control is None:
            return
        try:
            said = self.control.recv(64).decode("ascii", "replace")
        except BlockingIOError:
            return
        except OSError:
            said = ""
        self.engine.loop.remove_reader(self.control)
        self.control.close()
        self.control = None
        # What the worker wrote before its end may still be in the socket: read it first.
        self.engine.loop.call_soon(self._bury, said)

    def _bury(self, said: str) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._drain()
            self.transport.abort()
        self._clear_timer()
        begun = self.mark.begun if self.mark else 0
        if self.mark is not None:
            self.mark.close()
        # The mark's file stays until the name is used again: what it proves may not be stored yet.
        self.engine.forget(self)
        self.engine.report(_death(self.worker_id, begun, said, is_leaving=self.is_leaving))

    def _drain(self) -> None:
        """Everything that is left in the socket, before the worker counts as dead."""
        raw: socket.socket = self.transport.get_extra_info("socket")  # type: ignore[union-attr]
        with contextlib.suppress(OSError):
            while data := os.read(raw.fileno(), 1 << 18):
                self.data_received(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is on the loop."""
        self.transport = transport  # type: ignore[assignment]


def _death(worker_id: WorkerId, begun: int, said: str, *, is_leaving: bool) -> WorkerDied:
    word, _, number = said.partition(" ")
    code = int(number) if number.isdigit() else None
    if word == "signal" and code is not None:
        try:
            name = signal.Signals(code).name
        except ValueError:
            name = "unknown"
        return WorkerDied(worker_id, begun, f"killed by signal {code} ({name})", signal=code)
    if word == "exit" and code is not None:
        message = "left" if is_leaving and code == 0 else f"the worker process exited with code {code}"
        return WorkerDied(worker_id, begun, message, code, expected=is_leaving)
    return WorkerDied(worker_id, begun, "its guard was killed", signal=9)


class LocalEngine:
    """Worker processes on this machine.

    Args:
        marks_folder, output_folder: where begin marks and output logs go.
        report: called on the loop with every report.
        batches: whether tasks of a kind share the worker's interpreter (functions) or run below it.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        marks_folder: Path,
        output_folder: Path,
        report: Callable[[Report], None],
        batches: Callable[[str], bool],
    ) -> None:
        self.loop = loop
        self.report = report
        self.batches = batches
        self._marks = marks_folder
        self._output = output_folder
        self._links: dict[WorkerId, WorkerLink] = {}
        self._spawning: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._environment = allowed(os.environ)

    def carry_out(self, instruction: Instruction) -> None:
        """Do what the plan says; what cannot be done any more is told by a report."""
        if type(instruction) is Spawn:
            self._spawn(instruction.worker_id)
            return
        link = self._links.get(instruction.worker_id)
        if link is None:
            return
        if type(instruction) is Start:
            link.start(instruction.jobs)
        elif type(instruction) is Stop:
            link.stop(instruction)
        elif type(instruction) is Recall:
            link.send(GiveBack())
        elif type(instruction) is Retire:
            link.leave()

    def workers(self) -> set[WorkerId]:
        """The workers that there are, starting ones too."""
        return set(self._links)

    def pids(self) -> dict[WorkerId, int]:
        """The guard's pid of every worker: the root of its process tree."""
        return {
            worker_id: link.process.pid for worker_id, link in self._links.items() if link.process is not None
        }

    async def close(self) -> None:
        """End every worker at once, with whatever it runs, and wait until nothing is left."""
        if self._spawning:
            await asyncio.wait(self._spawning)
        for link in self._links.values():
            link.letter(b"k")
        await self._empty.wait()

    def forget(self, link: WorkerLink) -> None:
        """A worker has ended and its report is made."""
        self._links.pop(link.worker_id, None)
        if not self._links:
            self._empty.set()
        if link.process is not None:
            self.loop.run_in_executor(None, link.process.wait)

    # -- starting ---------------------------------------------------------------------------------------------

    def _spawn(self, worker_id: WorkerId) -> None:
        link = self._links[worker_id] = WorkerLink(worker_id, self)
        self._empty.clear()
        task = self.loop.create_task(self._start_process(link))
        self._spawning.add(task)
        task.add_done_callback(self._spawning.discard)

    async def _start_process(self, link: WorkerLink) -> None:
        """Start a worker; whatever keeps it from starting (no descriptors, no memory) is its death."""
        with contextlib.ExitStack() as ends, contextlib.ExitStack() as kept:
            try:
                ours, theirs = socket.socketpair()
                kept.callback(ours.close)
                ends.callback(theirs.close)
                control, guard_end = socket.socketpair()
                kept.callback(control.close)
                ends.callback(guard_end.close)
                link.mark_path = self._marks / f"{link.worker_id}.mark"
                mark_fd = marks.create(link.mark_path)
                ends.callback(os.close, mark_fd)
                link.mark = marks.Mark(mark_fd)
                kept.callback(link.mark.close)
                link.process = await self.loop.run_in_executor(
                    None, self._launch, guard_end.fileno(), theirs.fileno(), mark_fd
                )
                marks.set_guard(mark_fd, link.process.pid)
            except OSError as error:
                self.forget(link)
                self.report(WorkerDied(link.worker_id, 0, f"could not be started: {error}", 255))
                return
            kept.pop_all()
        ours.settimeout(0)
        control.settimeout(0)
        link.control = control
        await self.loop.connect_accepted_socket(lambda: link, ours)
        self.loop.add_reader(control, link.on_guard)

    def _launch(self, guard_fd: int, link_fd: int, mark_fd: int) -> subprocess.Popen[bytes]:
        """Start the guard, which starts the worker. Any thread."""
        worker = [sys.executable, "-m", "koubou_panel.worker", str(link_fd), str(mark_fd), str(self._output)]
        return subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                guard.__file__,
                str(guard_fd),
                f"{link_fd},{mark_fd}",
                *worker,
            ],
            pass_fds=(guard_fd, link_fd, mark_fd),
            stdin=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )
