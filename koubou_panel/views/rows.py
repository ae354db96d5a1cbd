"""What a page says about the workshop, as plain data: made from the models, drawn by the cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, isnan

from koubou_panel.core.records import Task
from koubou_panel.reactive.models import ShopModel, TaskModel, WorkerModel, label_of, run_seconds
from koubou_panel.reactive.series import Throughput
from koubou_panel.views.escape import line
from koubou_panel.views.words import count, duration, plural, size

SHOWN_RUNNING = 8
SHOWN_ENDED = 12
SHOWN_WORKERS = 24
SPARK_STEPS = 60
SPARK_STEP_S = 5
FAILED_WINDOW_S = 600
FULL_PERCENT = 90.0
LABEL = 60

MARK = {"completed": "ok", "failed": "fail", "cancelled": "cancel"}
SPAN_S = 900
LANE_S = 300
LANE_STEP_S = 0.4  # a pixel or so

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
        _tile(
            "running", "Running", count(model.workers_busy), _claimed(model, now), "run", of=of, spark=busy
        ),
        _tile(
            "completed", "Completed", count(model.completed), per_minute.format(well), "ok", spark=completed
        ),
        _tile("failed", "Failed", count(model.failed), per_minute.format(badly), tone, spark=failed),
        _success(model),
        _tile(
            "workers", "Workers", str(model.workers_total), _pool(model), "warn" if model.workers_lost else ""
        ),
    ]


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
    if model.draining:
        found.append(_notice("drain", "warn", "The workshop is shutting down: it takes no new work."))
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
    host = model.metrics
    for name, percent in (("disk", host.disk_percent), ("memory", host.memory_percent)) if host else ():
        if percent is not None and percent >= FULL_PERCENT:
            found.append(_notice(name, "warn", f"{name} {percent:.0f} % full"))
    return found


def running_rows(model: ShopModel, now: float) -> list[Row]:
    """The tasks that run, those longest at it first."""
    memory = {worker.current_task: worker.rss_bytes for worker in model.workers if worker.current_task}
    at_work = [task for task in model.running if task.task_id in memory]
    shown = (at_work or model.running)[:SHOWN_RUNNING]
    shown.sort(key=lambda task: task.started_at or now)
    return [_running_row(task, memory.get(task.task_id), now) for task in shown]


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
        "full": _full(label_of(task), task.request.summary),
        "status": task.status,
        "mark": MARK.get(task.status, "cancel"),
        "why": "" if task.status == "completed" else line(task.message, 120),
        "took": "" if took is None else duration(took),
        "finished_at": task.finished_at,
        "times": 1,
    }


def worker_rows(workers: Sequence[WorkerModel]) -> list[Row]:
    """A line for each worker."""
    return [
        {
            "id": line(worker.worker_id, 24),
            "status": worker.status,
            "task": line(worker.current_label, 32),
            "task_full": line(worker.current_label, 200),
            "pid": "" if worker.pid is None else str(worker.pid),
            "cpu": "" if worker.cpu_percent is None else f"{worker.cpu_percent:.0f} %",
            "rss": "" if worker.rss_bytes is None else size(worker.rss_bytes),
        }
        for worker in workers[:SHOWN_WORKERS]
    ]


def lane_runs(ended: Iterable[Task], since: float) -> list[tuple[str, float, float, str]]:
    """Runs that ended after `since` as (worker, start, end, mark); short ones that follow on each other as one."""
    runs: list[tuple[str, float, float, str]] = []
    last: dict[str, int] = {}
    for task in ended:
        worker, start, end = task.worker_id, task.started_at, task.finished_at
        if worker is None or start is None or end is None or end < since:
            continue
        mark = MARK[task.status]
        place = last.get(worker)
        if place is not None:
            _, known_start, known_end, known_mark = runs[place]
            is_short = end - start < LANE_STEP_S
            if is_short and known_mark == mark and 0 <= end - known_end < LANE_STEP_S:
                runs[place] = (worker, min(start, known_start), end, mark)
                continue
        last[worker] = len(runs)
        runs.append((worker, start, end, mark))
    return runs


def _running_row(task: TaskModel, rss_bytes: int | None, now: float) -> Row:
    return {
        "id": task.task_id,
        "label": line(task.label, LABEL),
        "full": _full(task.label, task.summary),
        "started_at": task.started_at,
        "eta_at": None if task.eta_s is None else now + task.eta_s,
        "fraction": None if task.fraction is None else min(1.0, max(0.0, task.fraction)),
        "stopping": task.stopping,
        "meta": " · ".join(_facts(task, rss_bytes)),
    }


def _facts(task: TaskModel, rss_bytes: int | None) -> list[str]:
    facts = ["stopping …"] if task.stopping else []
    if task.fraction is not None:
        facts.append(f"{100 * task.fraction:.0f} %")
    if task.done is not None and task.total:
        facts.append(f"{count(task.done)} of {count(task.total)} {line(task.unit, 12)}".strip())
    if task.note:
        facts.append(line(task.note, 40))
    if task.worker_id:
        facts.append(line(task.worker_id, 24))
    if rss_bytes:
        facts.append(size(rss_bytes))
    if task.run > 1:
        facts.append(f"run {task.run}")
    return facts


def _full(label: str, summary: str) -> str:
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
    claimed = model.in_progress - model.workers_busy
    if claimed > 0:
        return f"+{count(claimed)} handed over"
    began = [task.started_at for task in model.running if task.started_at]
    return f"longest {duration(now - min(began))}" if began else "nothing runs"


def _pool(model: ShopModel) -> str:
    parts = [f"{model.workers_busy} busy", f"{model.workers_idle} idle"]
    if model.workers_lost:
        parts.append(f"{model.workers_lost} lost")
    starting = model.workers_total - model.workers_busy - model.workers_idle - model.workers_lost
    if starting > 0:
        parts.append(f"{starting} starting")
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
