"""What is told of one task, as plain data: its status in words, what it was given, what it uses and has used."""

from __future__ import annotations

from koubou_panel.core.records import NO_LIMITS, Limits, Request, Usage, Use
from koubou_panel.reactive.models import ShopModel, TaskModel
from koubou_panel.views.escape import line
from koubou_panel.views.fault import fault
from koubou_panel.views.given import Entry, given
from koubou_panel.views.language import _, ngettext, spoken
from koubou_panel.views.rows import MARK, Row, fraction_of, progress_words, waits_because
from koubou_panel.views.words import count, duration, size

NAME_LIMIT = 120
EDITABLE = ("script", "prompt")
"""The kinds that a person can ask for with the dialog."""


class LongTexts:
    """The parts of a task's `detail` that take long to make: once for what was asked for, and for each fault."""

    def __init__(self) -> None:
        """Nothing is made yet."""
        self._asked: tuple[Request | None, str] = (None, "")
        self._given: list[Entry] = []
        self._traceback = ""
        self._fault: dict[str, str] = {}

    def given(self, request: Request) -> list[Entry]:
        """As `views.given.given`, in the language that is spoken."""
        if self._asked[0] is not request or self._asked[1] != spoken():
            self._asked = request, spoken()
            self._given = given(request)
        return self._given

    def fault(self, traceback: str) -> dict[str, str]:
        """As `views.fault.fault`."""
        if self._traceback != traceback:
            self._traceback, self._fault = traceback, fault(traceback)
        return self._fault


def detail(
    task: TaskModel, shop: ShopModel, request: Request | None = None, texts: LongTexts | None = None
) -> Row:
    """All that the head of a task's view shows, but for what the clock changes.

    `request` is what was asked for; `texts` keeps what was made of it the last time.
    """
    texts = texts or LongTexts()
    return {
        "id": task.task_id,
        "label": line(task.label, NAME_LIMIT),
        "given": [] if request is None else texts.given(request),
        "can_edit": task.kind in EDITABLE,
        "status": task.status,
        "mark": _mark(task),
        "words": _status_words(task, shop),
        "attempt": attempt_words(task.run) if task.status != "pending" else "",
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
        "fault": texts.fault(task.traceback),
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


def _mark(task: TaskModel) -> str:
    return {"pending": "wait", "in_progress": "run"}.get(task.status) or MARK.get(task.status, "cancel")


def _status_words(task: TaskModel, shop: ShopModel) -> str:
    if task.status == "pending":
        return waits_because(task, shop)
    worker = line(task.worker_id or "", 24)
    if task.status == "in_progress":
        return _running_words(task, worker)
    took = "" if task.duration_s is None else duration(task.duration_s)
    why = line(task.message, 400) if task.status != "completed" else ""
    words = _ended(task.status, took=bool(took), worker=bool(worker), why=bool(why))
    # As of its own: the message of a cancelled task says already that it was.
    if task.status == "cancelled" and why.startswith("cancelled") and not took and not worker:
        return why
    return words.format(took=took, worker=worker, why=why)


def _ended(status: str, *, took: bool, worker: bool, why: bool) -> str:
    """The sentence for how a task ended, by what is known of it: time, worker, reason."""
    completed = {
        (False, False): _("completed"),
        (True, False): _("completed after {took}"),
        (False, True): _("completed on {worker}"),
        (True, True): _("completed after {took} on {worker}"),
    }
    failed = {
        (False, False): _("failed: {why}") if why else _("failed"),
        (True, False): _("failed after {took}: {why}") if why else _("failed after {took}"),
        (False, True): _("failed on {worker}: {why}") if why else _("failed on {worker}"),
        (True, True): _("failed after {took} on {worker}: {why}")
        if why
        else _("failed after {took} on {worker}"),
    }
    cancelled = {
        (False, False): _("cancelled: {why}") if why else _("cancelled"),
        (True, False): _("cancelled after {took}: {why}") if why else _("cancelled after {took}"),
        (False, True): _("cancelled on {worker}: {why}") if why else _("cancelled on {worker}"),
        (True, True): (
            _("cancelled after {took} on {worker}: {why}") if why else _("cancelled after {took} on {worker}")
        ),
    }
    return {"completed": completed, "failed": failed}.get(status, cancelled)[took, worker]


def _running_words(task: TaskModel, worker: str) -> str:
    if not worker:
        return _("stopping") if task.stopping else _("running")
    words = _("stopping on {worker}") if task.stopping else _("running on {worker}")
    return words.format(worker=worker)


def _facts(task: TaskModel) -> list[tuple[str, str]]:
    """(name, words) of what it uses and may use; what is not known is left out."""
    use, usage, limits = task.use, task.usage or Usage(), task.limits or NO_LIMITS
    found = [
        (_("CPU"), _cpu(use, usage, limits)),
        (_("Memory"), _memory(use, usage, limits)),
        (_("Storage"), _storage(usage)),
        (_("Processes"), _processes(use, usage, limits)),
        (_("GPU"), _gpu(use, usage)),
        (_("Model"), _model(task)),
        (_("Tokens"), _tokens(usage)),
        (_("Output"), _output(task, limits)),
        (_("Time-out"), "" if task.timeout_s is None else duration(task.timeout_s)),
        (_("Run"), _runs(task)),
    ]
    return [(name, words) for name, words in found if words]


def _cpu(use: Use | None, usage: Usage, limits: Limits) -> str:
    return _join(
        "" if use is None else f"{use.cpu_percent:.0f} %",
        "" if usage.cpu_s is None else _("{time} in all").format(time=duration(usage.cpu_s)),
        "" if limits.cpu_s is None else _limit(duration(limits.cpu_s)),
    )


def _memory(use: Use | None, usage: Usage, limits: Limits) -> str:
    return _join(
        "" if use is None else size(use.rss_bytes),
        "" if usage.peak_rss_bytes is None else _("peak {size}").format(size=size(usage.peak_rss_bytes)),
        "" if limits.memory_bytes is None else _limit(size(limits.memory_bytes)),
    )


def _storage(usage: Usage) -> str:
    return _join(
        "" if usage.read_bytes is None else _("read {size}").format(size=size(usage.read_bytes)),
        "" if usage.written_bytes is None else _("written {size}").format(size=size(usage.written_bytes)),
    )


def _processes(use: Use | None, usage: Usage, limits: Limits) -> str:
    now = ""
    if use is not None:
        words = ngettext("{n} with {threads} thread", "{n} with {threads} threads", use.threads)
        now = words.format(n=use.processes, threads=count(use.threads))
    elif usage.peak_processes is not None and usage.peak_threads is not None:
        words = ngettext(
            "at most {n} with {threads} thread", "at most {n} with {threads} threads", usage.peak_threads
        )
        now = words.format(n=usage.peak_processes, threads=count(usage.peak_threads))
    elif usage.peak_processes is not None:
        now = _("at most {n}").format(n=usage.peak_processes)
    return _join(now, "" if limits.processes is None else _limit(count(limits.processes)))


def _gpu(use: Use | None, usage: Usage) -> str:
    values = curve_values(use)
    peak = usage.peak_gpu_memory_bytes
    return _join(
        values.get("gpu", ""),
        values.get("gpu_memory", ""),
        "" if peak is None else _("peak {size}").format(size=size(peak)),
    )


def _model(task: TaskModel) -> str:
    if task.kind != "prompt":
        return ""
    model, cut, _rest = task.note.partition(", cut off")
    usage = task.usage or Usage()
    limit = task.spec.get("max_tokens") or usage.completion_tokens
    if not cut:
        return line(model, 120)
    return _("{model}, cut off at {n} tokens").format(model=line(model, 90), n=limit)


def _tokens(usage: Usage) -> str:
    read, written, first_s = usage.prompt_tokens, usage.completion_tokens, usage.first_token_s
    return _join(
        "" if read is None else _("{n} read").format(n=count(read)),
        "" if written is None else _("{n} written").format(n=count(written)),
        "" if usage.tokens_per_s is None else f"{usage.tokens_per_s:.3g}/s",
        "" if first_s is None else _("first after {time}").format(time=duration(first_s)),
    )


def _output(task: TaskModel, limits: Limits) -> str:
    limit = "" if limits.output_bytes is None else _limit(size(limits.output_bytes))
    lost = (task.usage or Usage()).lost_output_bytes
    return _join(
        size(task.output_bytes) if task.output_bytes or limit else "",
        _("{size} not kept").format(size=size(lost)) if lost else "",
        limit,
    )


def attempt_words(run: int) -> str:
    """Which attempt it is; empty of the first, which goes without saying."""
    return _("attempt {n}").format(n=run) if run > 1 else ""


def _runs(task: TaskModel) -> str:
    if task.run <= 1 and not task.retries:
        return ""
    if not task.retries:
        return str(task.run)
    return _("{n} of {most}").format(n=task.run, most=task.retries + 1)


def _limit(words: str) -> str:
    return _("limit {limit}").format(limit=words)


def _join(*parts: str) -> str:
    return " · ".join(part for part in parts if part)
