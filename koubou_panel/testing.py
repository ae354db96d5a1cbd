"""For tests, ours and yours: a clock set by hand, an engine that runs what the test says, whole shops.

`open_inline_shop` is a real workshop (hub, archive in memory) whose tasks end when the test ends them;
`open_shop` is a real one with its database and worker processes in a folder of the test.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from koubou_panel import registry
from koubou_panel.archive.sqlite import Archive, Batch
from koubou_panel.core.commands import (
    Caller,
    Report,
    RunEnded,
    RunProgressed,
    SubmitTask,
    WorkerDied,
    WorkerReady,
)
from koubou_panel.core.events import Sample
from koubou_panel.core.plan import Instruction, Recall, Retire, Spawn, Start, Stop
from koubou_panel.core.records import Job, Outcome, Pool, Progress, Request, Task, TaskId, WorkerId
from koubou_panel.core.state import Folded, State
from koubou_panel.home import Home
from koubou_panel.shop.hub import Hub
from koubou_panel.shop.local import LocalShop
from koubou_panel.shop.recovery import new_epoch, read

POLL_S = 0.01
# Only a test that fails waits so long. A worker gives way to all else: on a busy machine it may take 10 s to come up.
LIMIT_S = 90.0


class ManualClock:
    """A clock that stands still until it is moved. Seconds since the epoch."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        """Start at `now`."""
        self.now = now

    def __call__(self) -> float:
        """The moment."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move on."""
        self.now += seconds


async def until(condition: Callable[[], object | Awaitable[object]], limit_s: float = LIMIT_S) -> None:
    """Wait until `condition()` (or what it awaits to) is true.

    Raises:
        AssertionError: it was not, for `limit_s` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_s
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return
        if loop.time() > deadline:
            raise AssertionError(
                f"still not true after {limit_s:g} s: {inspect.getsource(condition).strip()}"
            )
        await asyncio.sleep(POLL_S)


class InlineEngine:
    """An engine without processes: workers are ready at once, and a run ends when `finish` says so."""

    def __init__(self, report: Callable[[Report], None]) -> None:
        """Report to `report`."""
        self._report = report
        self.jobs: dict[TaskId, tuple[WorkerId, Job]] = {}
        self.done: list[Instruction] = []
        self.inputs: list[tuple[TaskId, bytes, bool]] = []
        self._workers: set[WorkerId] = set()

    def workers(self) -> set[WorkerId]:
        """The workers that there are."""
        return set(self._workers)

    def pids(self) -> dict[WorkerId, int]:
        """No processes."""
        return {}

    def carry_out(self, instruction: Instruction) -> None:
        """Note the instruction, and do it."""
        self.done.append(instruction)
        if isinstance(instruction, Spawn):
            self._workers.add(instruction.worker_id)
            self._report(WorkerReady(instruction.worker_id, 1))
        elif isinstance(instruction, Start):
            for job in instruction.jobs:
                self.jobs[job.task_id] = (instruction.worker_id, job)
        elif isinstance(instruction, Stop):
            self.finish(instruction.task_id, reason="killed", message="killed by signal 15 (SIGTERM)")
        elif isinstance(instruction, Retire):
            self.kill(instruction.worker_id, "left")
        elif isinstance(instruction, Recall):
            """Nothing is held back: a run here has always begun."""

    def send_input(
        self,
        worker_id: WorkerId,
        task_id: TaskId,
        data: bytes,
        answer: Callable[[str], None],
        *,
        is_last: bool,
    ) -> None:
        """Note the input, and take it."""
        self.inputs.append((task_id, data, is_last))
        answer("")

    def finish(self, task_id: TaskId, **outcome: object) -> None:
        """End a run; without more, as a success."""
        worker_id, job = self.jobs.pop(task_id)
        self._report(RunEnded(worker_id, Outcome(task_id, job.run, **outcome)))  # type: ignore[arg-type]

    def progress(self, task_id: TaskId, progress: Progress) -> None:
        """Tell how far a run is."""
        _, job = self.jobs[task_id]
        self._report(RunProgressed(task_id, job.run, progress))

    def kill(self, worker_id: WorkerId, message: str = "killed by signal 9 (SIGKILL)") -> None:
        """End a worker, and what it ran."""
        begun = max((job.claim + 1 for name, job in self.jobs.values() if name == worker_id), default=0)
        self.jobs = {key: pair for key, pair in self.jobs.items() if pair[0] != worker_id}
        self._workers.discard(worker_id)
        self._report(WorkerDied(worker_id, begun, message, signal=9))

    async def close(self) -> None:
        """End."""
        for worker_id in list(self._workers):
            self.kill(worker_id)


class Collector:
    """A subscriber that keeps all it is told."""

    def __init__(self) -> None:
        """With nothing kept."""
        self.resets = 0
        self.facts: list[Folded] = []
        self.samples: list[Sample] = []

    def on_reset(self, state: State) -> None:
        """Count a reset."""
        self.resets += 1

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Keep facts."""
        self.facts += folded

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Keep samples."""
        self.samples += samples


def submission(shop: LocalShop, *command: str, **fields: object) -> SubmitTask:
    """A `SubmitTask` of a command, with any field of the request."""
    spec = fields.pop("spec", None) or {"command": list(command) or ["true"]}
    request = Request(task_id=shop.next_id(), kind="script", created_at=0.0, spec=spec, **fields)  # type: ignore[arg-type]
    return SubmitTask(request)


async def submit(shop: LocalShop, *command: str, **fields: object) -> TaskId:
    """Submit a command and return its id once it is durable."""
    answer = await shop.do(submission(shop, *command, **fields), Caller("test"))
    return TaskId(answer or "")


async def ended(shop: LocalShop, task_id: TaskId, limit_s: float = LIMIT_S) -> Task:
    """The task, once it has ended, and that is stored and told to who follows the workshop."""
    await until(lambda: shop.state.tasks[task_id].is_finished, limit_s)
    await shop.hub.stored()
    return shop.state.tasks[task_id]


@asynccontextmanager
async def open_inline_shop(
    *, workers: int = 2, clock: Callable[[], float] | None = None, agent_tasks: int | None = None
) -> AsyncIterator[LocalShop]:
    """A workshop in memory with an `InlineEngine` as `shop.engine`; it samples nothing."""
    clock = clock or ManualClock()
    archive = Archive.open(None)
    archive.commit([Batch(pool=Pool(workers, workers))])
    hub = Hub(
        loop=asyncio.get_running_loop(),
        archive=archive,
        stored=read(archive, new_epoch()),
        batches=registry.batches,
        clock=clock,
        node="test",
        agent_tasks=agent_tasks,
    )
    shop = LocalShop(hub=hub, archive=archive, home=Home(Path("/nonexistent")), clock=clock)
    shop.engine = InlineEngine(hub.report)  # type: ignore[assignment]
    hub.start(shop.engine)  # type: ignore[arg-type]
    await until(lambda: sum(w.status == "idle" for w in shop.state.workers.values()) == workers)
    await hub.stored()
    try:
        yield shop
    finally:
        await shop.close()


@asynccontextmanager
async def open_shop(
    folder: Path, *, workers: int = 2, wait_ready: bool = True, agent_tasks: int | None = None
) -> AsyncIterator[LocalShop]:
    """A real workshop in `folder`: SQLite, worker processes; ready when entered."""
    home = Home(folder)
    home.prepare()
    home.lock()
    try:
        shop = await LocalShop.open(home, workers=(workers, workers), agent_tasks=agent_tasks)
        try:
            if wait_ready:
                await until(lambda: sum(w.status == "idle" for w in shop.state.workers.values()) >= workers)
                await shop.hub.stored()
            yield shop
        finally:
            await shop.close()
    finally:
        home.unlock()
