"""The worker process: takes runs from its socket, does them one at a time, and tells how they ended.

The main thread runs the tasks, so that signals and thread-bound libraries behave as in any script. One thread
reads the socket; one, the pulse, moves what functions print into their task's log and tells sizes and progress.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

from koubou_panel import registry
from koubou_panel.archive.output import OutputLog, output_path
from koubou_panel.core.ports import RunContext, TaskKind
from koubou_panel.core.records import Fault, Job, Outcome, Progress
from koubou_panel.engines.frames import (
    TO_WORKER,
    Ended,
    FrameBuffer,
    FromWorker,
    GiveBack,
    GivenBack,
    Hello,
    Run,
    Told,
    frame,
)
from koubou_panel.engines.guard import become_subreaper, descendants, kill_below, reap
from koubou_panel.engines.marks import Mark

PULSE_S = 0.05
FLUSH_S = 0.002


class Context(RunContext):
    """What a kind sees of its run."""

    def __init__(self, job: Job, folder: Path) -> None:
        """The context of `job`, its output below `folder`."""
        self.job = job
        self.output = OutputLog(output_path(folder, job.task_id))
        self.started = time.monotonic()
        self.told = (None, self.output.size)
        self._progress: Progress | None = None

    def progress(self, done: float | None, total: float | None, unit: str = "", message: str = "") -> None:
        """Tell how far the run is; told on by the pulse."""
        fraction = min(1.0, done / total) if done is not None and total else None
        elapsed_s = time.monotonic() - self.started
        eta_s = elapsed_s * (1 - fraction) / fraction if fraction else None
        self._progress = Progress(fraction, done, total, unit, eta_s, message)

    def news(self) -> Told | None:
        """What changed since the last call, if anything did."""
        seen = (self._progress, self.output.size)
        if seen == self.told:
            return None
        self.told = seen  # type: ignore[assignment]
        return Told(self.job.task_id, self.job.run, *seen)


class Capture:
    """Descriptors 1 and 2 of this process, caught in one unnamed file and moved to the task that printed."""

    def __init__(self, folder: Path) -> None:
        """Redirect both from now on."""
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - lives as long as the process
        fd = self._file.fileno()
        flags = os.O_APPEND
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | flags)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
        self._fd = fd
        self._moved = 0
        self._lock = threading.Lock()

    def move(self, output: OutputLog) -> None:
        """Move what was printed since the last call."""
        if os.fstat(self._fd).st_size <= self._moved:
            return
        with self._lock:
            while data := os.pread(self._fd, 1 << 20, self._moved):
                output.write(data)
                self._moved += len(data)

    def finish(self, output: OutputLog) -> None:
        """Move the rest and begin anew."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError, OSError):
                stream.flush()
        if os.fstat(self._fd).st_size:
            self.move(output)
            with self._lock:
                os.ftruncate(self._fd, 0)
                self._moved = 0


class WorkerProcess:
    """One worker's life, from its greeting to end of file."""

    def __init__(self, link: socket.socket, mark: Mark, folder: Path) -> None:
        """Serve `link`, marking what begins in `mark`, logging output below `folder`."""
        self.link = link
        self.mark = mark
        self.folder = folder
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.kinds: dict[str, TaskKind] = {}
        self.capture = Capture(folder)
        self.current: Context | None = None
        self._send_lock = threading.Lock()
        self._ended: list[Outcome] = []
        self._flushed_at = 0.0

    def run(self) -> None:
        """Until the workshop hangs up or says to leave."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()
        self.send(Hello(os.getpid()))
        take = self.jobs.get
        while (job := take()) is not None:
            self.mark.begin(job.claim)
            self._ended.append(self._do(job))
            now = time.monotonic()
            if self.jobs.empty() or now - self._flushed_at > FLUSH_S:
                self.send(Ended(self._ended))
                self._ended = []
                self._flushed_at = now

    def send(self, message: FromWorker) -> None:
        """Send one frame; any thread."""
        with self._send_lock:
            self.link.sendall(frame(message))

    def _do(self, job: Job) -> Outcome:
        context = self.current = Context(job, self.folder)
        try:
            outcome = self._kind(job.kind).run(job, context)
        except Exception as error:  # noqa: BLE001 - the edge: a kind's own bug must not end the worker
            fault = Fault(type(error).__name__, str(error))
            outcome = Outcome(job.task_id, job.run, "start", f"could not run: {error}", error=fault)
        self.capture.finish(context.output)
        self.current = None
        context.output.close()
        if not self._kind(job.kind).batches:
            sweep()
        return _with_output(outcome, context.output.size)

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
                elif type(message) is GiveBack:
                    self._give_back()
                else:
                    self.jobs.put(None)
        os._exit(0)

    def _receive(self) -> bytes:
        try:
            return self.link.recv(1 << 18)
        except OSError:
            return b""

    def _give_back(self) -> None:
        returned = []
        with contextlib.suppress(Empty):
            while True:
                job = self.jobs.get_nowait()
                if job is not None:
                    returned.append(job.task_id)
        self.send(GivenBack(returned))

    def _pulse(self) -> None:
        wait: Callable[[float], bool] = threading.Event().wait
        while not wait(PULSE_S):
            context = self.current
            if context is None or time.monotonic() - context.started < PULSE_S:
                continue
            with contextlib.suppress(OSError, ValueError):
                self.capture.move(context.output)
            news = context.news()
            if news is not None:
                self.send(news)


def _with_output(outcome: Outcome, size: int) -> Outcome:
    if not size:
        return outcome
    from msgspec.structs import replace

    return replace(outcome, usage=replace(outcome.usage, output_bytes=size))


def sweep() -> None:
    """End what a run left behind below this process."""
    me = os.getpid()
    reap()
    if descendants(me):
        kill_below(me)


def main(argv: list[str]) -> None:
    """`worker SOCKET_FD MARK_FD OUTPUT_FOLDER`."""
    link = socket.socket(fileno=int(argv[0]))
    link.set_inheritable(False)
    mark_fd = int(argv[1])
    os.set_inheritable(mark_fd, False)  # noqa: FBT003 - the standard library's own signature
    become_subreaper()
    process = WorkerProcess(link, Mark(mark_fd), Path(argv[2]))
    faulthandler.enable()
    process.run()


if __name__ == "__main__":
    main(sys.argv[1:])
