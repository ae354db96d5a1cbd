"""`/metrics`: the workshop in the text format of Prometheus, by its own client library, in a registry of its own.

Everything is read from the state when it is asked for; only tokens, which no state adds up, are counted as they come.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from koubou_panel.core.events import Sample, TaskCompleted, TaskFailed
from koubou_panel.core.ports import Shop
from koubou_panel.core.state import Folded, State

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
LOOK_S = 0.5
WORKER_STATUSES = ("starting", "idle", "busy", "paused", "unresponsive", "stopping", "offline")

# A sample's names end in their unit; Prometheus wants base units, and rates and shares said in words.
_UNITS = {
    "_percent": ("_ratio", 100.0),
    "_bytes_per_s": ("_bytes_per_second", 1.0),
}


class LoopLag:
    """How late the event loop is: the worst of the last looks. Loop thread only."""

    def __init__(self) -> None:
        """Look from now on; `close` ends it."""
        self._loop = asyncio.get_running_loop()
        self._worst_s = 0.0
        self._before_s = 0.0
        self._due = self._loop.time() + LOOK_S
        self._timer = self._loop.call_at(self._due, self._look)

    @property
    def worst_s(self) -> float:
        """Seconds: the worst since it was asked before, or of the time before that."""
        return max(self._worst_s, self._before_s)

    def turn(self) -> float:
        """As `worst_s`, and begin a new time."""
        worst_s = self.worst_s
        self._before_s, self._worst_s = self._worst_s, 0.0
        return worst_s

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        self._worst_s = max(self._worst_s, now - self._due)
        self._due = now + LOOK_S
        self._timer = self._loop.call_at(self._due, self._look)


class Exposition(Collector):
    """The metrics of `shop`. A subscriber of it; loop thread only.

    Args:
        shop: the workshop.
        now: UTC seconds.
    """

    def __init__(self, shop: Shop, now: Callable[[], float]) -> None:
        """Follow the shop from now on; `close` ends it."""
        self._shop = shop
        self._now = now
        self._lag = LoopLag()
        self._tokens: Counter[str] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._unsubscribe = shop.subscribe(self)

    def close(self) -> None:
        """Follow no more."""
        self._unsubscribe()
        self._lag.close()

    def text(self) -> bytes:
        """All metrics as they stand."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are known when they are asked for."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        state = self._shop.state
        yield from _tasks(state, self._now())
        yield from _workers(state)
        yield _by("koubou_service_up", "Whether a service of the workshop runs.", "service", _services(state))
        tokens = CounterMetricFamily(
            "koubou_tokens",
            "Tokens of prompts that ended since the workshop was started.",
            labels=["direction"],
        )
        for direction in ("prompt", "completion"):
            tokens.add_metric([direction], self._tokens[direction])
        yield tokens
        words = "How late the workshop's event loop was at worst, lately."
        yield GaugeMetricFamily("koubou_loop_lag_seconds", words, value=self._lag.turn())
        yield from _host(state)

    # -- what the shop tells (Subscriber) ---------------------------------------------------------------------

    def on_reset(self, state: State) -> None:
        """A count of what came goes on."""

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Count tokens."""
        for fact, _, _ in folded:
            if type(fact) is TaskCompleted or type(fact) is TaskFailed:
                usage = fact.usage
                if usage.prompt_tokens or usage.completion_tokens:
                    self._tokens["prompt"] += usage.prompt_tokens or 0
                    self._tokens["completion"] += usage.completion_tokens or 0

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Samples are read from the state."""


def _by(name: str, words: str, label: str, values: dict[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _tasks(state: State, now: float) -> Iterator[Metric]:
    counts = {str(status): float(count) for status, count in state.counts.items()}
    yield _by("koubou_tasks", "Tasks that there are, by status.", "status", counts)
    oldest = next((task for task in state.tasks.values() if task.status == "pending"), None)
    age_s = max(0.0, now - oldest.request.created_at) if oldest is not None else 0.0
    words = "How long the oldest pending task has waited."
    yield GaugeMetricFamily("koubou_queue_age_seconds", words, value=age_s)


def _workers(state: State) -> Iterator[Metric]:
    found: Counter[str] = Counter(worker.status for worker in state.workers.values())
    statuses = {str(status): float(found[status]) for status in WORKER_STATUSES}
    yield _by("koubou_workers", "Workers that there are, by status.", "status", statuses)
    wanted = {"min": float(state.pool.min_workers), "max": float(state.pool.max_workers)}
    yield _by("koubou_workers_wanted", "How many workers are wanted.", "bound", wanted)
    takes = float(state.pool.takes_work)
    yield GaugeMetricFamily("koubou_takes_work", "Whether new tasks are taken in.", value=takes)


def _services(state: State) -> dict[str, float]:
    return {service.name: float(service.state == "running") for service in state.services.values()}


def _host(state: State) -> Iterator[Metric]:
    """The last sample of the machine, under the names that Prometheus knows units by."""
    if not state.metrics:
        return
    for name, value in sorted(state.metrics[-1].values.items()):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue  # one value a core, or words
        better, divisor = _named(name)
        words = "Of the machine, as last sampled."
        yield GaugeMetricFamily(f"koubou_host_{better}", words, value=value / divisor)


def _named(name: str) -> tuple[str, float]:
    for ending, (better, divisor) in _UNITS.items():
        if name.endswith(ending):
            return name.removesuffix(ending) + better, divisor
    return name, 1.0
