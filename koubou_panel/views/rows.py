"""What a page says about the workshop, as plain data: made from the models, drawn by the cards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import inf, isnan

from koubou_panel.core.records import Task
from koubou_panel.reactive.models import RATE_S, ShopModel, TaskModel, label_of, run_seconds
from koubou_panel.reactive.series import Throughput
from koubou_panel.views.escape import line
from koubou_panel.views.language import _, ngettext
from koubou_panel.views.services import service_notices
from koubou_panel.views.words import amount, count, duration, rate, size

SHOWN_RUNNING = 8
SHOWN_ENDED = 12
SHOWN_FAILED = 5
SPARK_STEPS = 60
SPARK_STEP_S = 5
FAILED_WINDOW_S = 600
FULL_PERCENT = 90.0
LABEL = 60

MARK = {"completed": "ok", "failed": "fail", "cancelled": "cancel"}
SPAN_S = 900
#: By tile: the page with what it counts, and the search there.
LISTS = {
    "pending": ("tasks", "status:pending"),
    "running": ("tasks", "status:in_progress"),
    "completed": ("tasks", "status:completed"),
    "failed": ("tasks", "status:failed"),
    "success": ("tasks", "since:15m"),
    "workers": ("workers", ""),
}

Row = dict[str, object]
Goes = tuple[str, str, dict[str, str]]


def tiles(model: ShopModel, throughput: Throughput, now: float) -> list[Row]:
    """The six tiles, always the same six; their lines are `sparks`."""
    is_all = throughput.known_s(RATE_S) == RATE_S
    per_minute = _("{n} per minute") if is_all else _("≥ {n} per min")
    well, badly = count(model.completed_per_minute), count(model.failed_per_minute)
    is_bad = throughput.last(SPAN_S)[1] > 0
    return [
        _tile("pending", _("Pending"), count(model.pending), _waits(model, now), "wait"),
        _tile(
            "running",
            _("Running"),
            count(at_work(model)),
            _claimed(model, now),
            "run",
            of=f"/ {model.workers_total}",
        ),
        _tile(
            "completed",
            _("Completed"),
            count(model.completed),
            per_minute.format(n=well),
            "ok",
        ),
        _tile(
            "failed",
            _("Failed"),
            count(model.failed),
            per_minute.format(n=badly),
            "fail" if is_bad else "",
        ),
        _success(model, throughput),
        _tile(
            "workers",
            _("Workers"),
            str(model.workers_total),
            _pool(model),
            "warn" if model.workers_lost else "",
        ),
    ]


def sparks(throughput: Throughput, levels: Sequence[tuple[float, float]]) -> dict[str, list[float | None]]:
    """The lines of tiles, by their keys: the last five minutes in steps of five seconds, None is a gap.

    Args:
        levels: (pending, busy) every five seconds, oldest first; at most sixty; NaN where nobody looked.

    """
    completed, failed = _spark(throughput)
    lines = {
        "pending": [level[0] for level in levels],
        "running": [level[1] for level in levels],
        "completed": completed,
        "failed": failed,
    }
    return {key: [None if isnan(number) else number for number in line] for key, line in lines.items()}


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
    """What is wrong, the worst first, each with the page where something can be done; nothing when all is well."""
    found = [*_standing(model)]
    failed = throughput.last(FAILED_WINDOW_S)[1]
    if failed:
        words = ngettext(
            "{n} task failed in the last 10 minutes", "{n} tasks failed in the last 10 minutes", failed
        )
        asked = {"q": "status:failed since:10m"}
        goes: Goes = ("tasks", _("Look at them"), asked)
        # It can be put away until one more fails.
        stamp = {"stamp": str(model.failed)}
        found.append(notice("failed", "bad", words.format(n=count(failed)), goes) | stamp)
    for worker in model.workers:
        if worker.status == "unresponsive":
            name = line(worker.worker_id)
            words = _("{name} does not answer").format(name=name)
            found.append(notice(f"lost {name}", "bad", words, ("workers", _("Go to the workers"), {})))
    services: Goes = ("services", _("Go to the services"), {})
    found += [notice(words, "bad", words, services) for words in service_notices(model.services)]
    host = model.metrics
    full = {"disk": _("The disk is {percent} % full"), "memory": _("The memory is {percent} % full")}
    for name, percent in (("disk", host.disk_percent), ("memory", host.memory_percent)) if host else ():
        if percent is not None and percent >= FULL_PERCENT:
            words = full[name].format(percent=f"{percent:.0f}")
            found.append(notice(name, "warn", words, ("system", _("Go to the system"), {})))
    return found


def _standing(model: ShopModel) -> Iterator[Row]:
    """What the workshop itself is not up to."""
    pool: Goes = ("workers", _("Go to the workers"), {})
    if model.link_status == "closed":
        yield notice("link", "bad", _("The workshop has stopped. Start it again with: koubou up"))
    if model.closing:
        yield notice("close", "warn", _("The workshop is shutting down: it takes no new work."))
    elif model.draining:
        words = _("The workers drain: what runs goes on, new work is refused.")
        yield notice("drain", "warn", words, pool)
    elif model.paused:
        yield notice("pause", "warn", _("The workers are paused: nothing new starts."), pool)


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


def failed_rows(latest_first: Iterable[Task]) -> list[Row]:
    """The tasks that failed last."""
    failed = (task for task in latest_first if task.status == "failed")
    return [_ended_row(task, line(label_of(task), LABEL)) for task in islice(failed, SHOWN_FAILED)]


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
    facts = [_("stopping …")] if task.stopping else []
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
    facts = [_("run {n}").format(n=task.run)] if task.run > 1 else []
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
        words = _("waits for {first} and {more} more") if more else _("waits for {first}")
        return words.format(first=first, more=more)
    if model.closing:
        return _("waits for the next start of the workshop")
    if model.draining:
        return _("waits: the workers drain")
    return _("paused") if model.paused else _("waits for a free worker")


def full_label(label: str, summary: str) -> str:
    """A task's name and what it is asked to do, in one line."""
    parts = [label] if summary in ("", label) else [label, summary]
    return line(" — ".join(parts), 400)


def _tile(
    key: str,
    label: str,
    value: str,
    sub: str,
    tone: str,
    *,
    of: str = "",
    hint: str = "",
) -> Row:
    """`page` and `asked`: where the tasks that are counted here can be seen."""
    page, asked = LISTS[key]
    return {
        "key": key,
        "label": label,
        "value": value,
        "of": of,
        "sub": sub,
        "tone": tone,
        "hint": hint,
        "page": page,
        "asked": {"q": asked} if asked else {},
    }


def _success(model: ShopModel, throughput: Throughput) -> Row:
    """The share that went well in the last quarter of an hour, and how it was in the one before."""
    percent = model.success_percent
    if percent is None:
        return _tile("success", _("Success"), "–", _("none in 15 min"), "")
    well, badly = throughput.before(SPAN_S)
    sub, hint = _("last 15 minutes"), ""
    known_s = throughput.known_s(SPAN_S)
    if known_s < SPAN_S:
        sub, hint = (
            _("last {time}").format(time=duration(known_s)),
            _("What ended before is in the list of tasks."),
        )
    elif well + badly:
        before = 100 * well / (well + badly)
        change = f"{percent - before:+.1f}".replace("-", "−")
        sub = _("{change} in 15 min").format(change="±0" if change[1:] == "0.0" else change)
        hint = _("{before} % in the 15 minutes before").format(before=_percent(before))
    return _tile("success", _("Success"), _percent(percent), sub, "", of="%", hint=hint)


def _percent(percent: float) -> str:
    """What is not all of it is never shown as if it were."""
    return f"{percent:.0f}" if percent in (0, 100) else f"{min(percent, 99.9):.1f}"


def _waits(model: ShopModel, now: float) -> str:
    if model.oldest_pending_at is None:
        return _("nothing waits")
    return _("oldest {time}").format(time=duration(now - model.oldest_pending_at))


def _claimed(model: ShopModel, now: float) -> str:
    claimed = model.in_progress - at_work(model)
    if claimed > 0:
        return _("+{n} handed over").format(n=count(claimed))
    began = [task.started_at for task in model.running if task.started_at]
    return _("longest {time}").format(time=duration(now - min(began))) if began else _("nothing runs")


def _pool(model: ShopModel) -> str:
    others = Counter(worker.status for worker in model.workers)
    counted = [
        (model.workers_busy, _("{n} busy"), True),
        (model.workers_idle, _("{n} idle"), True),
        (model.workers_lost, _("{n} lost"), False),
        (others["starting"], _("{n} starting"), False),
        (others["paused"], _("{n} paused"), False),
        (others["stopping"], _("{n} stopping"), False),
    ]
    return " · ".join(words.format(n=number) for number, words, is_always in counted if number or is_always)


def notice(key: str, tone: str, text: str, goes: Goes | None = None) -> Row:
    """`goes`: the page to go to, what the link says, and what is asked there."""
    page, label, asked = goes or ("", "", {})
    return {"key": key, "tone": tone, "text": text, "page": page, "go": label, "asked": asked}


def _spark(throughput: Throughput) -> tuple[list[float], list[float]]:
    """Completed and failed in steps of five seconds, the last five minutes."""
    steps_s = SPARK_STEPS * SPARK_STEP_S
    rows = list(islice(throughput.rows, max(0, len(throughput.rows) - steps_s), None))
    steps = [rows[at : at + SPARK_STEP_S] for at in range(0, len(rows), SPARK_STEP_S)]
    completed = [sum(second.completed for second in step) for step in steps]
    failed = [sum(second.failed for second in step) for step in steps]
    return completed, failed
