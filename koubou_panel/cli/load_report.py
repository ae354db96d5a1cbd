"""What a load test saw: what was submitted, done and failed by when, and how long tasks waited and ran."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from koubou_panel.core.events import Sample
from koubou_panel.core.records import Task, TaskId
from koubou_panel.core.state import Folded, State

ROWS = 10


@dataclass(frozen=True)
class Profile:
    """How many tasks, and how they come: `rate` a second (0: all at once), `heavy` ones use a core for a second."""

    name: str
    count: int
    rate: float
    heavy: bool = False


@dataclass
class Report:
    """What became of the tasks. A subscriber of the replica."""

    plan: Profile
    kind: str
    via: str = "link"
    waiting: set[TaskId] = field(default_factory=set)
    waits_s: list[float] = field(default_factory=list)
    runs_s: list[float] = field(default_factory=list)
    submits: list[float] = field(default_factory=list)
    ends: dict[str, list[float]] = field(
        default_factory=lambda: {"completed": [], "failed": [], "cancelled": []}
    )
    refused: int = 0
    held_back: int = 0
    tokens: int = 0
    first_failure: str = ""
    began: float = 0.0
    ended: float = 0.0
    is_interrupted: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def submitted(self, task_ids: Sequence[TaskId]) -> None:
        """Wait for these: they were taken in."""
        self.waiting.update(task_ids)
        self.submits += [time.monotonic() - self.began] * len(task_ids)

    def not_taken(self, task_id: TaskId) -> None:
        """Wait no more for one that was not taken in after all."""
        self.waiting.discard(task_id)
        self.submits.pop()
        self.refused += 1

    def on_reset(self, state: State) -> None:
        """Look at what is known of tasks that are still waited for."""
        for task_id in tuple(self.waiting):
            self.look(state.tasks.get(task_id))

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Count the tasks that have ended."""
        for _, _, record in folded:
            if isinstance(record, Task):
                self.look(record)

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Nothing: the figures are made of facts."""

    def look(self, task: Task | None) -> None:
        """Take in a task, if it is waited for and has ended."""
        if task is None or not task.is_finished or task.task_id not in self.waiting:
            return
        self.waiting.discard(task.task_id)
        self.news.set()
        self.ended = time.monotonic()
        self.ends[task.status].append(self.ended - self.began)
        self.tokens += task.usage.completion_tokens or 0
        if task.status == "failed":
            self.first_failure = self.first_failure or task.message
        if task.started_at is not None and task.finished_at is not None:
            self.waits_s.append(max(0.0, task.started_at - task.request.created_at))
            self.runs_s.append(max(0.0, task.finished_at - task.started_at))

    @property
    def failed(self) -> int:
        """How many failed."""
        return len(self.ends["failed"])

    @property
    def done(self) -> int:
        """How many have ended."""
        return len(self.submits) - len(self.waiting)

    def figures(self) -> dict[str, object]:
        """The result; times in seconds."""
        took_s = max(1e-9, self.ended - self.began)
        has_ended = bool(self.ended)
        ran = len(self.ends["completed"]) + self.failed
        told: dict[str, object] = {
            "profile": self.plan.name,
            "kind": self.kind,
            "via": self.via,
            "submitted": len(self.submits),
            **{status: len(moments) for status, moments in self.ends.items()},
            "refused": self.refused,
            "held_back": self.held_back,
            "took_s": round(took_s, 3) if has_ended else None,
            "throughput_per_s": round(ran / took_s, 2) if has_ended else None,
            "wait_s": quantiles(self.waits_s),
            "run_s": quantiles(self.runs_s),
            "timeline": self.timeline(),
        }
        if self.tokens:
            told |= {"completion_tokens": self.tokens, "tokens_per_s": round(self.tokens / took_s, 1)}
        return told

    def timeline(self, rows: int = ROWS) -> list[dict[str, float]]:
        """What was done by when: counts up to each of at most `rows` moments, evenly spread to the end."""
        moments = [*self.submits, *(moment for ends in self.ends.values() for moment in ends)]
        if not moments:
            return []
        last = max(moments)
        table = []
        for row in range(1, rows + 1):
            # To the end for the last one: rounding must not leave a task out.
            after_s = last * row / rows if row < rows else last
            counts = {status: bisect_right(ends, after_s) for status, ends in self.ends.items()}
            submitted = bisect_right(self.submits, after_s)
            in_flight = submitted - sum(counts.values())
            table.append(
                {"after_s": round(after_s, 3), "submitted": submitted, **counts, "in_flight": in_flight}
            )
        return table


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """p50, p95 and p99 of `values` (nearest rank); None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return {f"p{q}": round(ordered[min(len(ordered) - 1, len(ordered) * q // 100)], 6) for q in (50, 95, 99)}
