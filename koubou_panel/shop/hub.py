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
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from koubou_panel.archive.sqlite import Archive, Batch
from koubou_panel.archive.writer import Writer
from koubou_panel.core.agenda import Agenda
from koubou_panel.core.catalogue import ran
from koubou_panel.core.commands import (
    Report,
    RunProgressed,
    RunsSampled,
)
from koubou_panel.core.conclude import conclude
from koubou_panel.core.decide import Context, check_role, decide
from koubou_panel.core.events import (
    FACTS,
    SAMPLES,
    SCRIPT_FACTS,
    Event,
    MetricsSampled,
    PoolChanged,
    ScriptRan,
    SystemNoted,
    TaskCompleted,
    TaskFailed,
    TasksSampled,
    TaskSubmitted,
)
from koubou_panel.core.fold import evolve
from koubou_panel.core.plan import FOLLOW_TASKS, Instruction, plan
from koubou_panel.core.ports import Subscriber
from koubou_panel.core.records import FINISHED, Metrics, Task, WorkerId
from koubou_panel.core.state import Folded
from koubou_panel.errors import Refused
from koubou_panel.shop.clock import Clock, Jumps
from koubou_panel.shop.company import TOGETHER_S, Company
from koubou_panel.shop.curves import Curves
from koubou_panel.shop.known import Known
from koubou_panel.shop.quota import Quota
from koubou_panel.shop.recovery import (
    Stored,
    is_of_storage,
    new_epoch,
    not_stored,
    read,
    repeatable,
    revived,
    store_script,
)
from koubou_panel.shop.step import Ask, Step, subject, weight

STEP_ITEMS = 512
RECOVERY_S = 1.0
METRICS_TOGETHER = 10
_EVENTS = frozenset((*FACTS, *SAMPLES))
_FLEETING = frozenset((RunProgressed, RunsSampled))

log = logging.getLogger(__name__)


class Engine(Protocol):
    """What the hub needs of an engine."""

    def carry_out(self, instruction: Instruction) -> None:
        """Do what the plan says."""

    def workers(self) -> set[WorkerId]:
        """The workers that there are, starting ones too."""


class Hub:
    """State, and everything that happens to it."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        archive: Archive,
        stored: Stored,
        batches: Callable[[str], bool],
        clock: Clock,
        node: str,
        agent_tasks: int | None = None,
        steady: Clock | None = None,
    ) -> None:
        """A hub over what `archive` has stored; `start` gives it its engine; `agent_tasks` is for `Quota`.

        By `steady`, which goes on only while the machine is awake, it sees that `clock` has jumped.
        """
        self.state = stored.state
        self.agenda = Agenda.from_state(stored.state, batches, ended=stored.ended)
        self._loop = loop
        self._archive = archive
        self.curves = Curves()
        self.known = Known(stored.keys, clock())
        self.quota = Quota(agent_tasks)
        self.quota.on_reset(stored.state)
        self._metrics: list[Metrics] = []
        self._writer = Writer(archive, loop.call_soon_threadsafe)
        self._batches = batches
        self._clock = clock
        self._jumps = Jumps(clock(), steady or clock)
        self._node = node
        self._engine: Engine | None = None
        self._inbox: deque[Ask | Report | Event] = deque()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._company = Company()
        self._waiting: asyncio.TimerHandle | None = None
        self._subscribers: list[Subscriber] = []
        self._in_flight = 0
        self._lost: list[Report] = []
        self._overdue = 0
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
        if self._scheduled or not self._company.may_wait(report, self.agenda):
            self._wake()
        elif self._waiting is None:
            self._waiting = self._loop.call_later(TOGETHER_S, self._wake)

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

    @property
    def is_failing(self) -> bool:
        """Whether nothing can be stored just now."""
        return self._is_failing

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._step)

    # -- one step ---------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self._scheduled = False
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        self._company.leave()
        if self._is_failing:
            self._refuse_all()
            return
        now = self._clock()
        if gap_s := self._jumps.since(now):
            log.warning(
                "the clock has jumped by %.0f s, or the machine slept; no run's time-out counts that", gap_s
            )
            self.agenda.shift(gap_s)
        self.known.turn(now)
        step = Step(Batch())
        try:
            left, self._overdue = STEP_ITEMS + self._overdue, 0
            while left > 0 and self._inbox:
                item = self._inbox.popleft()
                left -= weight(item)
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
        try:
            check_role(command, ask.caller.role)
            known = self.known.task_of(command, ask.caller.by, self.state.tasks, ask.found)
            if known is not None:
                step.replies.append((ask.reply, known))
                return
            if subject(command) not in self.state.tasks:
                self.quota.check(command, ask.caller)
            context = Context(now, ask.caller.by, ask.caller.role, ask.found, ask.ended)
            events = decide(self.state, command, context)
        except Refused as refusal:
            step.replies.append((ask.reply, refusal))
            return
        self._fold(events, step)
        step.replies.append((ask.reply, subject(command)))

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
                if record.request.script_name is not None and (told := ran(folded.fact, record)) is not None:
                    fresh.append(self._tell_script(told, batch))
            elif type(event) is PoolChanged:
                batch.pool = event.pool
            elif isinstance(event, SCRIPT_FACTS):
                store_script(self.state, event, batch)
        self.agenda.note(fresh)
        self.quota.on_facts(fresh)
        step.folded += fresh

    def _tell_script(self, told: ScriptRan, batch: Batch) -> Folded:
        """Fold what a task's fact is for the script that it is a run of."""
        folded = cast("Folded", evolve(self.state, told))
        batch.facts.append(told)
        store_script(self.state, told, batch)
        return folded

    def _store(self, event: Event, task: Task, batch: Batch) -> None:
        task_id = task.request.task_id
        batch.tasks[task_id] = task
        kind = type(event)
        if kind is TaskSubmitted:
            batch.new.add(task_id)
            if task.request.script_name is not None:
                batch.script_runs[task_id] = (task.request.script_name, task.request.fire_at)
            batch.payloads[task_id] = task.request.payload
            self.known.keep(task.request)
        elif task.status in FINISHED:
            self._store_end(event, task, batch)

    def _store_end(self, event: Event, task: Task, batch: Batch) -> None:
        task_id = task.request.task_id
        self.known.ended.add(task_id)
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
                stored = await self._loop.run_in_executor(None, read, self._archive, new_epoch())
                lost = tuple(self._lost)
                again = await self._loop.run_in_executor(None, repeatable, self._archive, lost)
                self._lost[: len(lost)] = again
                await self._writer.commit(Batch(facts=[note]))
            except Exception as error:  # noqa: BLE001 - any failure of the archive means: try again
                log.warning("the archive still fails: %s", error)
                continue
            self._reload(stored, note)
            return

    async def stored(self) -> None:
        """Return once all that has happened until now is in the archive.

        Raises:
            Refused: it could not be stored.
        """
        try:
            await self._writer.commit(Batch())
        except Exception as error:  # noqa: BLE001 - whatever it was, who asked is told
            raise not_stored(error) from None

    def _reload(self, stored: Stored, note: SystemNoted) -> None:
        old_state, old_agenda = self.state, self.agenda
        self.state = stored.state
        now = self._clock()
        self.known = Known(stored.keys, now)
        self.quota.on_reset(stored.state)
        alive = self._engine.workers() if self._engine is not None else set()
        workers = [worker for worker in old_state.workers.values() if worker.worker_id in alive]
        for event in (note, *revived(workers, now)):
            evolve(self.state, event)
        self.agenda = Agenda.from_state(self.state, self._batches, ended=stored.ended)
        for worker_id, lane in self.agenda.lanes.items():
            if worker_id in old_agenda.lanes:
                lane.given = max(lane.given, old_agenda.lanes[worker_id].given)
                self.agenda.touched.add(worker_id)
        self._is_failing = False
        for subscriber in tuple(self._subscribers):
            subscriber.on_reset(self.state)
        lost, self._lost = self._lost, []
        self._inbox.extendleft(reversed(lost))
        # All of it in one step: a plan that does not know yet who has died would give away the names of the dead.
        self._overdue = sum(map(weight, self._inbox))
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


def _ignore(error: BaseException | None) -> None:
    """Pruning is tried again next time."""
