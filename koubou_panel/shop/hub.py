"""The hub: commands and reports in; facts folded at once, made durable together, then released.

One step drains what came in, decides, folds, plans and hands one batch to the writer. Acknowledgements,
subscribers, and instructions to the engine wait for the batch's commit. Loop thread only.

When a commit fails, what was folded since is forgotten: the asked are refused, the state is read again from the
archive into a new epoch, and the reports of the lost steps are taken in again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct

from koubou_panel.archive.sqlite import Archive, Batch, Loaded
from koubou_panel.archive.writer import Writer
from koubou_panel.core.agenda import Agenda
from koubou_panel.core.commands import (
    Caller,
    Command,
    Report,
    RetryTask,
    RunProgressed,
    RunsSampled,
    SubmitTask,
)
from koubou_panel.core.conclude import conclude
from koubou_panel.core.decide import Context, decide
from koubou_panel.core.events import (
    FACTS,
    SAMPLES,
    Event,
    MetricsSampled,
    PoolChanged,
    Sample,
    SystemNoted,
    TaskCompleted,
    TaskFailed,
    TasksSampled,
    TaskSubmitted,
    WorkerChanged,
    WorkerStarted,
)
from koubou_panel.core.fold import Folded, State, evolve
from koubou_panel.core.plan import FOLLOW_TASKS, Instruction, plan
from koubou_panel.core.ports import Subscriber
from koubou_panel.core.records import FINISHED, Metrics, Status, Task, TaskId, WorkerId, WorkerStatus
from koubou_panel.errors import Refused
from koubou_panel.shop.clock import Clock
from koubou_panel.shop.curves import Curves
from koubou_panel.shop.recent import Recent
from koubou_panel.shop.recovery import is_of_storage, not_stored, waited_for

STEP_ITEMS = 512
RECOVERY_S = 1.0
METRICS_TOGETHER = 10
_EVENTS = frozenset((*FACTS, *SAMPLES))
_FLEETING = frozenset((RunProgressed, RunsSampled))
NOTHING_ENDED: Mapping[TaskId, Status] = MappingProxyType({})

log = logging.getLogger(__name__)
Reply = Callable[[TaskId | Refused | None], None]


class Engine(Protocol):
    """What the hub needs of an engine."""

    def carry_out(self, instruction: Instruction) -> None:
        """Do what the plan says."""

    def workers(self) -> set[WorkerId]:
        """The workers that there are, starting ones too."""


class Ask(Struct, gc=False):
    """A command on its way in, with who asked and where the answer goes.

    `found` and `ended` are what the archive has of tasks that the command is about, as `Context` wants it.
    """

    command: Command
    caller: Caller
    reply: Reply
    found: Task | None = None
    ended: Mapping[TaskId, Status] = NOTHING_ENDED


@dataclass(slots=True)
class Step:
    """What one step did, and what waits for its commit."""

    batch: Batch
    folded: list[Folded] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    replies: list[tuple[Reply, TaskId | Refused | None]] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)


class Hub:
    """State, and everything that happens to it."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        archive: Archive,
        state: State,
        keys: dict[str, TaskId],
        batches: Callable[[str], bool],
        clock: Clock,
        new_epoch: Callable[[], str],
        node: str,
        reload: Callable[[Loaded, str], State],
        ended: Mapping[TaskId, Status] = NOTHING_ENDED,
    ) -> None:
        """A hub over a loaded state; `start` gives it its engine.

        `ended` is how tasks ended that have left the state and that others still wait for.
        """
        self.state = state
        self.agenda = Agenda.from_state(state, batches, ended=ended)
        self._loop = loop
        self._archive = archive
        self.curves = Curves()
        self.recent = Recent(clock())
        self._metrics: list[Metrics] = []
        self._writer = Writer(archive, loop.call_soon_threadsafe)
        self._keys = keys
        self._batches = batches
        self._clock = clock
        self._new_epoch = new_epoch
        self._node = node
        self._state_of = reload
        self._engine: Engine | None = None
        self._inbox: deque[Ask | Report | Event] = deque()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._subscribers: list[Subscriber] = []
        self._in_flight = 0
        self._lost: list[Report] = []
        self._is_failing = False
        self._failure: BaseException | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()

    def start(self, engine: Engine) -> None:
        """Begin to plan, with this engine."""
        self._engine = engine
        self._wake()

    # -- in ---------------------------------------------------------------------------------------------------

    def ask(self, ask: Ask) -> None:
        """Take in a command."""
        self._inbox.append(ask)
        self._wake()

    def report(self, report: Report) -> None:
        """Take in an engine's report."""
        self._inbox.append(report)
        self._wake()

    def note(self, event: Event) -> None:
        """Take in an event that the shell itself saw: a sample, a note."""
        self._inbox.append(event)
        self._wake()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Follow from now on; the result ends it."""
        self._subscribers.append(subscriber)
        subscriber.on_reset(self.state)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    @property
    def subscribers(self) -> int:
        """How many follow."""
        return len(self._subscribers)

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._step)

    # -- one step ---------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self._scheduled = False
        if self._is_failing:
            self._refuse_all()
            return
        now = self._clock()
        self.recent.turn(now)
        step = Step(Batch())
        try:
            left = STEP_ITEMS
            while left > 0 and self._inbox:
                item = self._inbox.popleft()
                left -= _weight(item)
                self._take(item, step, now)
            wake_at = self._plan(step, now)
        except Exception as error:
            # A bug of ours. What was folded is not stored: go back to what is, without what led here.
            log.exception("a step failed; the state is read again from the archive")
            self._fail(step, error)
            return
        self._commit(step)
        if self._inbox:
            self._wake()
        self._sleep_until(wake_at, now)

    def _take(self, item: Ask | Report | Event, step: Step, now: float) -> None:
        if type(item) is Ask:
            try:
                self._decide(item, step, now)
            except Exception as error:
                item.reply(not_stored(error))
                raise
        elif type(item) in _EVENTS:
            self._fold([item], step)  # type: ignore[list-item]
        else:
            self._fold(conclude(self.state, item, now), step)  # type: ignore[arg-type]
            if type(item) not in _FLEETING:
                step.reports.append(item)  # type: ignore[arg-type]

    def _decide(self, ask: Ask, step: Step, now: float) -> None:
        command = ask.command
        known = self._known(command) if ask.caller.role == "full" else None
        if known is not None:
            step.replies.append((ask.reply, known))
            return
        try:
            context = Context(now, ask.caller.by, ask.caller.role, ask.found, ask.ended)
            events = decide(self.state, command, context)
        except Refused as refusal:
            step.replies.append((ask.reply, refusal))
            return
        self._fold(events, step)
        step.replies.append((ask.reply, _subject(command)))

    def _known(self, command: Command) -> TaskId | None:
        """The task that a command has made already, where the state alone does not tell."""
        if type(command) is SubmitTask:
            key = command.request.idempotency_key
            if key is not None and key in self._keys:
                return self._keys[key]
            task_id = command.request.task_id
        elif type(command) is RetryTask:
            task_id = command.new_id
        else:
            return None
        return task_id if task_id in self.recent else None

    def _fold(self, events: Sequence[Event], step: Step) -> None:
        batch = step.batch
        fresh: list[Folded] = []
        for event in events:
            folded = evolve(self.state, event)
            if folded is None:
                step.samples.append(event)  # type: ignore[arg-type]
                if type(event) is MetricsSampled:
                    self._metrics.append(event.metrics)
                elif type(event) is TasksSampled:
                    self.curves.add(event)
                continue
            fresh.append(folded)
            batch.facts.append(folded.fact)
            record = folded.record
            if type(record) is Task:
                self._store(event, record, batch)
            elif type(event) is PoolChanged:
                batch.pool = event.pool
        self.agenda.note(fresh)
        step.folded += fresh

    def _store(self, event: Event, task: Task, batch: Batch) -> None:
        task_id = task.request.task_id
        batch.tasks[task_id] = task
        kind = type(event)
        if kind is TaskSubmitted:
            batch.new.add(task_id)
            batch.payloads[task_id] = task.request.payload
            if task.request.idempotency_key is not None:
                self._keys[task.request.idempotency_key] = task_id
        elif task.status in FINISHED:
            self._store_end(event, task, batch)

    def _store_end(self, event: Event, task: Task, batch: Batch) -> None:
        task_id = task.request.task_id
        self.recent.ended.add(task_id)
        curve = self.curves.end(task_id, task.run)
        if curve is not None:
            batch.curves[task_id] = curve
        if type(event) is TaskCompleted or type(event) is TaskFailed:
            value = event.value
            if value:
                batch.values[task_id] = value

    def _plan(self, step: Step, now: float) -> float | None:
        if self._engine is None:
            return None
        follow = FOLLOW_TASKS
        while True:
            planned = plan(self.state, self.agenda, now, node=self._node, follow=follow)
            follow = 0  # a crowd that waited for one task is told of its end step by step
            step.instructions += planned.instructions
            if not planned.events:
                return planned.wake_at
            self._fold(planned.events, step)

    def _commit(self, step: Step) -> None:
        # A sample may be lost: an idle workshop does not wake the disk each second.
        if self._metrics and (not step.batch.is_empty or len(self._metrics) >= METRICS_TOGETHER):
            step.batch.metrics, self._metrics = self._metrics, []
        if step.batch.is_empty and not self._in_flight:
            self._release(step)
            return
        self._in_flight += 1
        self._quiet.clear()
        self._writer.put(step.batch, lambda error: self._committed(step, error))

    def _committed(self, step: Step, error: BaseException | None) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._quiet.set()
        if error is None:  # also while a later step has failed: what is stored is so, and must be done
            self._release(step)
        else:
            self._fail(step, error)

    def _release(self, step: Step) -> None:
        """Everything that waited for the commit. Instructions first: they are what work waits for."""
        if self._engine is not None:
            for instruction in step.instructions:
                self._engine.carry_out(instruction)
        if step.folded or step.samples:
            for subscriber in tuple(self._subscribers):
                self._tell(subscriber, step)
        for reply, answer in step.replies:
            reply(answer)

    def _tell(self, subscriber: Subscriber, step: Step) -> None:
        try:
            if step.folded:
                subscriber.on_facts(step.folded)
            if step.samples:
                subscriber.on_samples(step.samples)
        except Exception:
            log.exception("a subscriber failed and was dropped")
            self._subscribers.remove(subscriber)

    def _sleep_until(self, wake_at: float | None, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wake_at is not None:
            self._timer = self._loop.call_later(max(0.001, wake_at - now), self._wake)

    # -- when the archive fails -------------------------------------------------------------------------------

    def _fail(self, step: Step, error: BaseException | None) -> None:
        self._lost += step.reports
        for reply, _ in step.replies:
            reply(not_stored(error))
        if not self._is_failing:
            log.error("what a step led to was not stored: %s", error)
            self._is_failing = True
            self._failure = error
            self._recovery = self._loop.create_task(self._recover())

    def _refuse_all(self) -> None:
        while self._inbox:
            item = self._inbox.popleft()
            if type(item) is Ask:
                item.reply(not_stored(self._failure))
            elif type(item) not in _EVENTS and type(item) not in _FLEETING:
                self._lost.append(item)  # type: ignore[arg-type]

    async def _recover(self) -> None:
        """Try until the archive stores again, then go on from what it holds."""
        while True:
            await self._quiet.wait()
            await asyncio.sleep(RECOVERY_S)
            self._writer.reset()
            why = "the archive stores again" if is_of_storage(self._failure) else "the workshop failed"
            note = SystemNoted(self._clock(), "storage_recovered", f"{why}; queue reloaded")
            try:
                loaded = await self._loop.run_in_executor(None, self._archive.load)
                state = self._state_of(loaded, self._new_epoch())
                ended = await self._loop.run_in_executor(None, self._archive.statuses, waited_for(state))
                await self._try_commit(Batch(facts=[note]))
            except Exception as error:  # noqa: BLE001 - any failure of the archive means: try again
                log.warning("the archive still fails: %s", error)
                continue
            self._keys = loaded.keys
            self._reload(state, ended, note)
            return

    async def stored(self) -> None:
        """Return once all that has happened until now is in the archive.

        Raises:
            Refused: it could not be stored.
        """
        try:
            await self._try_commit(Batch())
        except Exception as error:  # noqa: BLE001 - whatever it was, who asked is told
            raise not_stored(error) from None

    async def _try_commit(self, batch: Batch) -> None:
        done: asyncio.Future[None] = self._loop.create_future()

        def finish(error: BaseException | None) -> None:
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        self._writer.put(batch, finish)
        await done

    def _reload(self, state: State, ended: Mapping[TaskId, Status], note: SystemNoted) -> None:
        old_state, old_agenda = self.state, self.agenda
        self.state = state
        now = self._clock()
        self.recent = Recent(now)
        revived: list[Event] = [note]
        alive = self._engine.workers() if self._engine is not None else set()
        for worker in old_state.workers.values():
            if worker.worker_id not in alive:
                continue
            revived.append(WorkerStarted(worker.started_at, worker.worker_id, worker.node))
            if worker.status != "starting":
                # One that was to leave may not have been told: idle, it will be.
                status: WorkerStatus = "unresponsive" if worker.status == "unresponsive" else "idle"
                revived.append(WorkerChanged(now, worker.worker_id, status, None, worker.pid))
        for event in revived:
            evolve(state, event)
        self.agenda = Agenda.from_state(state, self._batches, ended=ended)
        for worker_id, lane in self.agenda.lanes.items():
            if worker_id in old_agenda.lanes:
                lane.given = max(lane.given, old_agenda.lanes[worker_id].given)
                self.agenda.touched.add(worker_id)
        self._is_failing = False
        for subscriber in tuple(self._subscribers):
            subscriber.on_reset(state)
        lost, self._lost = self._lost, []
        self._inbox.extendleft(reversed(lost))
        self._wake()

    def prune(self) -> None:
        """Let the archive forget what is too old, in the writer's thread."""
        self._writer.put(Batch(prune_before=self._clock()), _ignore)

    async def close(self) -> None:
        """Commit what is left and stop."""
        if self._timer is not None:
            self._timer.cancel()
        if self._recovery is not None:
            self._recovery.cancel()
        self._step()
        await self._quiet.wait()
        self._writer.put(Batch(metrics=self._metrics), _ignore)
        self._engine = None
        await self._loop.run_in_executor(None, self._writer.close)


def _weight(item: Ask | Report | Event) -> int:
    """How much of a step an item takes: a submit that waits for many is as good as many."""
    if type(item) is Ask and type(item.command) is SubmitTask:
        return 1 + len(item.command.request.after) // 2
    return 1


def _subject(command: Command) -> TaskId | None:
    if type(command) is SubmitTask:
        return command.request.task_id
    if type(command) is RetryTask:
        return command.new_id
    return getattr(command, "task_id", None)


def _ignore(error: BaseException | None) -> None:
    """Pruning is tried again next time."""
