"""What a page says about the workshop, as plain data: made from the models, drawn by the cards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf, isnan

from koubou_panel.core.records import Task
from koubou_panel.reactive.models import ShopModel, TaskModel, label_of, run_seconds
from koubou_panel.reactive.series import Throughput
from koubou_panel.views.escape import line
from koubou_panel.views.services import service_notices
from koubou_panel.views.words import amount, count, duration, plural, rate, size

SHOWN_RUNNING = 8
SHOWN_ENDED = 12
SPARK_STEPS = 60
SPARK_STEP_S = 5
FAILED_WINDOW_S = 600
FULL_PERCENT = 90.0
LABEL = 60

MARK = {"completed": "ok", "failed": "fail", "cancelled": "cancel"}
SPAN_S = 900

Row = dict[str, object]


def tiles(
    model: ShopModel, throughput: Throughput, levels: Sequence[tuple[int, int]], now: float
) -> list[Row]:
    """The six tiles, always the same six.

    Args:
        levels: (pending, busy) every five seconds, oldest first; at most sixty.

    """
    completed, failed = _spark(throughput)
    pending, busy = [waiting for waiting, _ in levels], [running for _, running in levels]
    of, per_minute = f"/ {model.workers_total}", "{} per minute"
    tone = "fail" if throughput.last(SPAN_S)[1] else ""
    well, badly = count(model.completed_per_minute), count(model.failed_per_minute)
    return [
        _tile("pending", "Pending", count(model.pending), _waits(model, now), "wait", spark=pending),
        _tile("running", "Running", count(at_work(model)), _claimed(model, now), "run", of=of, spark=busy),
        _tile(
            "completed", "Completed", count(model.completed), per_minute.format(well), "ok", spark=completed
        ),
        _tile("failed", "Failed", count(model.failed), per_minute.format(badly), tone, spark=failed),
        _success(model),
        _tile(
            "workers", "Workers", str(model.workers_total), _pool(model), "warn" if model.workers_lost else ""
        ),
    ]


def at_work(model: ShopModel) -> int:
    """How many workers run a task, those that do not answer among them."""
    return sum(worker.current_task is not None for worker in model.workers)


def past_levels(tasks: Iterable[Task], now: float) -> list[tuple[int, int]]:
    """How many waited and how many ran, every five seconds of the last five minutes, as their times tell."""
    levels: list[tuple[int, int]] = []
    spans = [
        (task.request.created_at, task.started_at or task.finished_at or inf, task.finished_at or inf)
        for task in tasks
    ]
    for step in range(SPARK_STEPS - 1, 0, -1):
        at = now - step * SPARK_STEP_S
        waiting = sum(created <= at < started for created, started, _ in spans)
        running = sum(started <= at < finished for _, started, finished in spans)
        levels.append((waiting, running))
    return levels


def notices(model: ShopModel, throughput: Throughput) -> list[Row]:
    """What is wrong, the worst first; nothing when all is well."""
    found: list[Row] = []
    if model.link_status == "closed":
        found.append(_notice("link", "bad", "The workshop has stopped. Start it again with: koubou up"))
    if model.closing:
        found.append(_notice("close", "warn", "The workshop is shutting down: it takes no new work."))
    elif model.draining:
        found.append(_notice("drain", "warn", "The workers drain: what runs goes on, new work is refused."))
    elif model.paused:
        found.append(_notice("pause", "warn", "The workers are paused: nothing new starts."))
    if model.recovered:
        found.append(_notice("recovered", "warn", f"The workshop came back: {line(model.recovered)}"))
    failed = throughput.last(FAILED_WINDOW_S)[1]
    if failed:
        found.append(_notice("failed", "bad", f"{plural(failed, 'task')} failed in the last 10 minutes"))
    found += [
        _notice(f"lost {worker.worker_id}", "bad", f"{line(worker.worker_id)} does not answer")
        for worker in model.workers
        if worker.status == "unresponsive"
    ]
    found += [_notice(words, "bad", words) for words in service_notices(model.services)]
    host = model.metrics
    for name, percent in (("disk", host.disk_percent), ("memory", host.memory_percent)) if host else ():
        if percent is not None and percent >= FULL_PERCENT:
            found.append(_notice(name, "warn", f"{name} {percent:.0f} % full"))
    return found


def running_rows(model: ShopModel) -> list[Row]:
    """The tasks that run, those longest at it first."""
    memory = {worker.current_task: worker.rss_bytes for worker in model.workers if worker.current_task}
    begun = [task for task in model.running if task.task_id in memory]
    shown = (begun or model.running)[:SHOWN_RUNNING]
    shown.sort(key=lambda task: task.started_at or inf)
    return [_running_row(task, memory.get(task.task_id)) for task in shown]


def ended_rows(latest_first: Iterable[Task]) -> list[Row]:
    """The tasks that ended last; of the same work done many times over, one row that says how often."""
    found: list[Row] = []
    for task in latest_first:
        label = line(label_of(task), LABEL)
        last = found[-1] if found else {}
        if task.status == "completed" == last.get("status") and label == last["label"]:
            last["times"] = int(str(last["times"])) + 1
            continue
        if len(found) == SHOWN_ENDED:
            break
        found.append(_ended_row(task, label))
    return found


def _ended_row(task: Task, label: str) -> Row:
    took = run_seconds(task)
    return {
        "id": task.task_id,
        "label": label,
        "full": full_label(label_of(task), task.request.summary),
        "status": task.status,
        "mark": MARK.get(task.status, "cancel"),
        "why": "" if task.status == "completed" else line(task.message, 120),
        "took": "" if took is None else duration(took),
        "finished_at": task.finished_at,
        "times": 1,
    }


def _running_row(task: TaskModel, rss_bytes: int | None) -> Row:
    return {
        "id": task.task_id,
        "label": line(task.label, LABEL),
        "full": full_label(task.label, task.summary),
        "started_at": task.started_at,
        "eta_at": task.eta_at,
        "fraction": fraction_of(task),
        "stopping": task.stopping,
        "meta": " · ".join(progress_words(task)),
        "note": line(task.note, 60),
        "uses": " · ".join(_use_words(task, rss_bytes)),
    }


def fraction_of(task: TaskModel) -> float | None:
    """How far it is, 0 to 1; None where nobody knows."""
    return None if task.fraction is None else min(1.0, max(0.0, task.fraction))


def progress_words(task: TaskModel) -> list[str]:
    """How far it is and how fast it goes: `37 %`, `12/80`, `3.1/s`."""
    facts = ["stopping …"] if task.stopping else []
    fraction = fraction_of(task)
    if fraction is not None:
        facts.append(f"{100 * fraction:.0f} %")
    if task.done is not None and task.total:
        facts.append(f"{amount(task.done, task.unit)}/{amount(task.total, task.unit)}")
    elif task.done is not None:
        facts.append(f"{amount(task.done, task.unit)} {line(task.unit, 12)}".strip())
    if task.rate_per_s:
        facts.append(rate(task.rate_per_s, task.unit))
    return facts


def _use_words(task: TaskModel, rss_bytes: int | None) -> list[str]:
    facts = [f"run {task.run}"] if task.run > 1 else []
    if task.use is not None:
        facts.append(f"CPU {task.use.cpu_percent:.0f} %")
        rss_bytes = task.use.rss_bytes
    return [*facts, size(rss_bytes)] if rss_bytes else facts


def waiting_rows(model: ShopModel) -> list[Row]:
    """The first of those that wait, each with what it waits for."""
    return [
        {
            "id": task.task_id,
            "label": line(task.label, LABEL),
            "full": full_label(task.label, task.summary),
            "why": waits_because(task, model),
            "not_before": task.not_before,
        }
        for task in model.waiting
    ]


def waits_because(task: TaskModel, model: ShopModel) -> str:
    """Why a pending task has not started, in words."""
    if task.waits_for:
        first, more = line(task.waits_for[0][1], 32), len(task.waits_for) - 1
        return f"waits for {first} and {more} more" if more else f"waits for {first}"
    if model.closing:
        return "waits for the next start of the workshop"
    if model.draining:
        return "waits: the workers drain"
    if model.paused:
        return "paused"
    return "waits for a free worker"


def full_label(label: str, summary: str) -> str:
    """A task's name and what it is asked to do, in one line."""
    parts = [label] if summary in ("", label) else [label, summary]
    return line(" — ".join(parts), 400)


def _tile(
    key: str, label: str, value: str, sub: str, tone: str, *, of: str = "", spark: Sequence[float] = ()
) -> Row:
    steps = [None if isnan(number) else number for number in spark]
    return {"key": key, "label": label, "value": value, "of": of, "sub": sub, "tone": tone, "spark": steps}


def _success(model: ShopModel) -> Row:
    percent = model.success_percent
    if percent is None:
        return _tile("success", "Success", "–", "none in 15 min", "")
    shown = f"{percent:.0f}" if percent in (0, 100) else f"{min(percent, 99.9):.1f}"
    return _tile("success", "Success", shown, "last 15 minutes", "", of="%")


def _waits(model: ShopModel, now: float) -> str:
    if model.oldest_pending_at is None:
        return "nothing waits"
    return f"oldest {duration(now - model.oldest_pending_at)}"


def _claimed(model: ShopModel, now: float) -> str:
    claimed = model.in_progress - at_work(model)
    if claimed > 0:
        return f"+{count(claimed)} handed over"
    began = [task.started_at for task in model.running if task.started_at]
    return f"longest {duration(now - min(began))}" if began else "nothing runs"


def _pool(model: ShopModel) -> str:
    parts = [f"{model.workers_busy} busy", f"{model.workers_idle} idle"]
    if model.workers_lost:
        parts.append(f"{model.workers_lost} lost")
    others = Counter(worker.status for worker in model.workers)
    parts += [f"{others[status]} {status}" for status in ("starting", "paused", "stopping") if others[status]]
    return " · ".join(parts)


def _notice(key: str, tone: str, text: str) -> Row:
    return {"key": key, "tone": tone, "text": text}


def _spark(throughput: Throughput) -> tuple[list[float], list[float]]:
    """Completed and failed in steps of five seconds, the last five minutes."""
    rows = list(throughput.rows)[-SPARK_STEPS * SPARK_STEP_S :]
    steps = [rows[at : at + SPARK_STEP_S] for at in range(0, len(rows), SPARK_STEP_S)]
    completed = [sum(second.completed for second in step) for step in steps]
    failed = [sum(second.failed for second in step) for step in steps]
    return completed, failed
