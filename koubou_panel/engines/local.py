"""The local engine: long-lived worker processes on this machine, each below a guard of its own.

Loop thread only, except where it says otherwise. Starting a process leaves the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from koubou_panel.core.commands import Report, WorkerDied
from koubou_panel.core.environment import allowed
from koubou_panel.core.plan import Instruction, Recall, Retire, Spawn, Start, Stop
from koubou_panel.core.records import SILENT_AFTER_S, Job, TaskId, WorkerId
from koubou_panel.engines import guard, marks
from koubou_panel.engines.inputs import Answer
from koubou_panel.engines.link import WorkerLink

CHECK_S = 1.0

log = logging.getLogger(__name__)


class LocalEngine:
    """Worker processes on this machine.

    Args:
        marks_folder, output_folder: where begin marks and output logs go.
        report: called on the loop with every report.
        shares_worker: whether runs of a kind are part of the worker's process (functions) or run below it.
        keep_output: appends what a dead worker had caught, from an offset of a descriptor on, to its task's log, and
            gives the log's size; called in any thread.
        oom_kills: how many processes the kernel has ended for want of memory, ever.
        silent_after_s: after so long without a word a worker is told of as silent.
        database: where the results of tasks are, for runs that are given them.
        open_files: how many files workers, and what they start, may have open; 0: as many as this process.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        marks_folder: Path,
        output_folder: Path,
        report: Callable[[Report], None],
        shares_worker: Callable[[str], bool],
        keep_output: Callable[[Job, int, int], int],
        oom_kills: Callable[[], int],
        silent_after_s: float = SILENT_AFTER_S,
        database: Path | None = None,
        open_files: int = 0,
    ) -> None:
        self.loop = loop
        self.report = report
        self.shares_worker = shares_worker
        self.keep_output = keep_output
        self.silent_after_s = silent_after_s
        self._oom_kills = oom_kills
        self._oom_kills_seen = oom_kills()
        self._check_due = loop.time() + CHECK_S
        self._check_timer = loop.call_at(self._check_due, self._check)
        self._marks = marks_folder
        self._output = output_folder
        self._database = database
        self._open_files = open_files
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
            link.recall()
        elif type(instruction) is Retire:
            link.end("its worker was restarted") if instruction.at_once else link.leave()

    def send_input(
        self, worker_id: WorkerId, task_id: TaskId, data: bytes, answer: Answer, *, is_last: bool
    ) -> None:
        """Send input to the run of a task; `answer` is told once: nothing if it was taken, else why not."""
        link = self._links.get(worker_id)
        if link is None:
            answer("it is not running any more")
        else:
            link.send_input(task_id, data, answer, is_last=is_last)

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
            link.end("the workshop ended")
        await self._empty.wait()
        self._check_timer.cancel()

    def forget(self, link: WorkerLink) -> None:
        """A worker has ended and its report is made."""
        self._links.pop(link.worker_id, None)
        if not self._links:
            self._empty.set()
        if link.process is not None:
            self._collect(link.process)

    def give_up(self, link: WorkerLink, why: str) -> None:
        """A worker that is not connected counts as dead; one that comes up after all is ended."""
        if self._links.get(link.worker_id) is link:
            self.forget(link)
            self.report(WorkerDied(link.worker_id, 0, why, 255))

    def _collect(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(RuntimeError):  # no new thread: one that there is will do it later
            self.loop.run_in_executor(None, process.wait)

    # -- health -----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Look after every worker, once a second."""
        now = self.loop.time()
        # While this loop stood still (a laptop asleep, a stopped process) nobody could be heard: it does not count.
        late_s = now - self._check_due
        for link in list(self._links.values()):
            link.heard_at += late_s
            link.look(now, self.silent_after_s)
        self._oom_kills_seen = self._oom_kills()
        self._check_due = now + CHECK_S
        self._check_timer = self.loop.call_at(self._check_due, self._check)

    def was_starved(self) -> bool:
        """Whether the kernel has just ended a process for want of memory. Any thread."""
        return self._oom_kills() > self._oom_kills_seen

    # -- starting ---------------------------------------------------------------------------------------------

    def _spawn(self, worker_id: WorkerId) -> None:
        if (living := self._links.get(worker_id)) is not None:
            # Never two of one name: when its death is told, another is started.
            log.error("%s was to be started while there is one of that name, which is ended", worker_id)
            living.end("another was to be started by its name")
            return
        link = self._links[worker_id] = WorkerLink(worker_id, self)
        self._empty.clear()
        task = self.loop.create_task(self._start_process(link))
        self._spawning.add(task)
        task.add_done_callback(self._spawning.discard)

    async def _start_process(self, link: WorkerLink) -> None:
        """Start a worker; whatever keeps it from starting (no descriptors, no memory, no threads) is its death."""
        try:
            await self._connect_process(link)
        except Exception as error:  # noqa: BLE001 - the edge: it must not be said to be starting for ever
            self.give_up(link, f"could not be started: {error}")

    async def _connect_process(self, link: WorkerLink) -> None:
        """Start a worker and put its sockets on the loop; if that fails, the guard finds them closed and ends it."""
        with contextlib.ExitStack() as ends, contextlib.ExitStack() as kept:
            ours, theirs = socket.socketpair()
            kept.callback(ours.close)
            ends.callback(theirs.close)
            control, guard_end = socket.socketpair()
            kept.callback(control.close)
            ends.callback(guard_end.close)
            mark_fd = marks.create(self._marks / f"{link.worker_id}.mark")
            ends.callback(os.close, mark_fd)
            link.mark = marks.Mark(mark_fd)
            kept.callback(link.mark.close)
            link.caught_fd = self._new_caught()
            kept.callback(os.close, link.caught_fd)
            link.process = await self.loop.run_in_executor(
                None, self._launch, guard_end.fileno(), theirs.fileno(), mark_fd, link.caught_fd
            )
            marks.set_guard(mark_fd, link.process.pid)
            ours.settimeout(0)
            control.settimeout(0)
            if self._links.get(link.worker_id) is not link:
                self._collect(link.process)  # it came too late: see `give_up`
                return
            await self.loop.connect_accepted_socket(lambda: link, ours)
            self.loop.add_reader(control, link.on_guard)
            link.control = control
            kept.pop_all()
        link.connected()

    def _new_caught(self) -> int:
        """An unnamed file that catches what a worker prints, so that a crash cannot take its last words with it."""
        self._output.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._output, buffering=0) as file:
            return os.dup(file.fileno())

    def _launch(self, guard_fd: int, *worker_fds: int) -> subprocess.Popen[bytes]:
        """Start the guard, which starts the worker. Any thread."""
        fds = [str(fd) for fd in worker_fds]
        folders = [str(path) for path in (self._output, self._database) if path is not None]
        worker = [sys.executable, "-P", "-m", "koubou_panel.worker", *fds, *folders]
        above = [
            sys.executable,
            "-I",
            "-S",
            guard.__file__,
            str(guard_fd),
            ",".join(fds),
            str(self._open_files),
        ]
        return subprocess.Popen(
            above + worker,
            pass_fds=(guard_fd, *worker_fds),
            stdin=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )
