"""What is told of one task, as plain data: its status in words, what it was given, what it uses and has used."""

from __future__ import annotations

import shlex

from koubou_panel.core.records import NO_LIMITS, Limits, Usage, Use
from koubou_panel.reactive.models import ShopModel, TaskModel
from koubou_panel.views.escape import block, line
from koubou_panel.views.rows import MARK, Row, fraction_of, progress_words, waits_because
from koubou_panel.views.words import count, duration, plural, size

NAME_LIMIT = 120
COMMAND_LIMIT = 100_000
TRACEBACK_LIMIT = 4_000


def detail(task: TaskModel, shop: ShopModel) -> Row:
    """All that the head of a task's view shows, but for what the clock changes."""
    return {
        "id": task.task_id,
        "label": line(task.label, NAME_LIMIT),
        "command": _asked(task),
        "status": task.status,
        "mark": _mark(task),
        "words": _status_words(task, shop),
        "started_at": None if task.is_finished else task.started_at,
        "finished_at": task.finished_at,
        "created_at": task.created_at,
        "not_before": task.not_before if task.status == "pending" else None,
        "stopping": task.stopping,
        "fraction": fraction_of(task),
        "eta_at": None if task.is_finished else task.eta_at,
        "meta": " · ".join(progress_words(task)),
        "note": line(task.note, 120),
        "has_progress": task.fraction is not None or task.done is not None or task.status == "in_progress",
        "waits_for": [{"id": first, "label": line(label)} for first, label in task.waits_for],
        "facts": _facts(task),
        "traceback": block(task.traceback, TRACEBACK_LIMIT),
    }


def curve_values(use: Use | None) -> dict[str, str]:
    """The present values of the curves, in words; empty where nothing is known."""
    if use is None:
        return {}
    return {
        "cpu": f"{use.cpu_percent:.0f} %",
        "rss": size(use.rss_bytes),
        "gpu": "" if use.gpu_percent is None else f"{use.gpu_percent:.0f} %",
        "gpu_memory": "" if use.gpu_memory_bytes is None else size(use.gpu_memory_bytes),
    }


def _asked(task: TaskModel) -> str:
    """The whole command or prompt; empty where its name says it already."""
    command, messages = task.spec.get("command"), task.spec.get("messages")
    if isinstance(command, list | tuple):
        whole = shlex.join(map(str, command))
    elif isinstance(messages, list | tuple):
        whole = "\n".join(f"{one.get('role')}: {one.get('content')}" for one in messages)
    else:
        whole = str(task.spec.get("prompt") or task.summary)
    return "" if whole == task.label else block(whole, COMMAND_LIMIT)


def _model(task: TaskModel) -> str:
    if task.kind != "prompt":
        return ""
    model, cut, _ = task.note.partition(", cut off")
    usage = task.usage or Usage()
    limit = task.spec.get("max_tokens") or usage.completion_tokens
    return line(f"{model}, cut off at {limit} tokens" if cut else model, 120)


def _mark(task: TaskModel) -> str:
    return {"pending": "wait", "in_progress": "run"}.get(task.status) or MARK.get(task.status, "cancel")


def _status_words(task: TaskModel, shop: ShopModel) -> str:
    where = f" on {line(task.worker_id, 24)}" if task.worker_id else ""
    if task.status == "pending":
        return waits_because(task, shop)
    if task.status == "in_progress":
        return f"{'stopping' if task.stopping else 'running'}{where}"
    took = "" if task.duration_s is None else f" after {duration(task.duration_s)}"
    why = f": {line(task.message, 400)}" if task.message and task.status != "completed" else ""
    return f"{task.status}{took}{where}{why}"


def _facts(task: TaskModel) -> list[tuple[str, str]]:
    """(name, words) of what it uses and may use; what is not known is left out."""
    use, usage, limits = task.use, task.usage or Usage(), task.limits or NO_LIMITS
    found = [
        ("CPU", _cpu(use, usage, limits)),
        ("Memory", _memory(use, usage, limits)),
        ("Storage", _storage(usage)),
        ("Processes", _processes(use, usage, limits)),
        ("GPU", _gpu(use, usage)),
        ("Model", _model(task)),
        ("Tokens", _tokens(usage)),
        ("Output", _output(task, limits)),
        ("Time-out", "" if task.timeout_s is None else duration(task.timeout_s)),
        ("Run", _runs(task)),
    ]
    return [(name, words) for name, words in found if words]


def _cpu(use: Use | None, usage: Usage, limits: Limits) -> str:
    return _join(
        "" if use is None else f"{use.cpu_percent:.0f} %",
        "" if usage.cpu_s is None else f"{duration(usage.cpu_s)} in all",
        "" if limits.cpu_s is None else f"limit {duration(limits.cpu_s)}",
    )


def _memory(use: Use | None, usage: Usage, limits: Limits) -> str:
    return _join(
        "" if use is None else size(use.rss_bytes),
        "" if usage.peak_rss_bytes is None else f"peak {size(usage.peak_rss_bytes)}",
        "" if limits.memory_bytes is None else f"limit {size(limits.memory_bytes)}",
    )


def _storage(usage: Usage) -> str:
    return _join(
        "" if usage.read_bytes is None else f"read {size(usage.read_bytes)}",
        "" if usage.written_bytes is None else f"written {size(usage.written_bytes)}",
    )


def _processes(use: Use | None, usage: Usage, limits: Limits) -> str:
    if use is not None:
        now = f"{use.processes} with {plural(use.threads, 'thread')}"
    elif usage.peak_processes is not None:
        now = f"at most {usage.peak_processes}"
        now += "" if usage.peak_threads is None else f" with {plural(usage.peak_threads, 'thread')}"
    else:
        now = ""
    return _join(now, "" if limits.processes is None else f"limit {count(limits.processes)}")


def _gpu(use: Use | None, usage: Usage) -> str:
    values = curve_values(use)
    peak = usage.peak_gpu_memory_bytes
    return _join(
        values.get("gpu", ""), values.get("gpu_memory", ""), "" if peak is None else f"peak {size(peak)}"
    )


def _tokens(usage: Usage) -> str:
    return _join(
        "" if usage.prompt_tokens is None else f"{count(usage.prompt_tokens)} read",
        "" if usage.completion_tokens is None else f"{count(usage.completion_tokens)} written",
        "" if usage.tokens_per_s is None else f"{usage.tokens_per_s:.3g}/s",
        "" if usage.first_token_s is None else f"first after {duration(usage.first_token_s)}",
    )


def _output(task: TaskModel, limits: Limits) -> str:
    limit = "" if limits.output_bytes is None else f"limit {size(limits.output_bytes)}"
    lost = (task.usage or Usage()).lost_output_bytes
    return _join(
        size(task.output_bytes) if task.output_bytes or limit else "",
        f"{size(lost)} not kept" if lost else "",
        limit,
    )


def _runs(task: TaskModel) -> str:
    if task.run <= 1 and not task.retries:
        return ""
    return f"{task.run} of {task.retries + 1}" if task.retries else str(task.run)


def _join(*parts: str) -> str:
    return " · ".join(part for part in parts if part)
