"""What the System page says, as plain data: the machine, what is used of it now, its cores, and what we use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan

from koubou_panel.core.bins import binned
from koubou_panel.core.records import Metrics
from koubou_panel.reactive.models import ServiceModel, WorkerModel
from koubou_panel.samplers.machine import Machine, Part
from koubou_panel.views.escape import line
from koubou_panel.views.language import _, ngettext
from koubou_panel.views.services import LABELS
from koubou_panel.views.system import PLOTS, Span, values_of
from koubou_panel.views.theme import DATA
from koubou_panel.views.words import listed, size

CELLS = 90
MOST_STRIPS = 64
SHAPES = {"solid": "line", "dashed": "dash", "dotted": "dots"}

Row = dict[str, object]


def machine_words(machine: Machine) -> list[str]:
    """The machine in a few facts."""
    cores = ngettext("{n} core", "{n} cores", machine.cores).format(n=machine.cores)
    memory = _("{size} of memory").format(size=size(machine.memory_bytes))
    facts = [line(machine.system), line(machine.processor), cores if machine.cores else "", memory]
    return [fact for fact in facts if fact]


def legend(name: str, sample: Metrics | None) -> list[Row]:
    """Each line of the figure `name` with its value now."""
    values = {} if sample is None else values_of(sample)
    return [
        {
            "label": _(one.label),
            "colour": DATA[one.colour],
            "shape": SHAPES[one.dash],
            "value": _value(one.column, values.get(one.column, nan)),
        }
        for one in PLOTS[name].lines
    ]


def _value(column: str, value: float) -> str:
    if isnan(value):
        return "–"
    if column in ("read", "write", "sent", "received"):
        return f"{size(value)}/s"
    if column in ("load", "gpu_c", "gpu_w"):
        return f"{value:.2f}" if column == "load" else f"{value:.0f} {'°C' if column == 'gpu_c' else 'W'}"
    return f"{value:.0f} %"


def room_words(sample: Metrics) -> list[str]:
    """How much memory, swap and disk there is, and how much of it is used or free."""
    known = {name: value for name, value in sample.values.items() if isinstance(value, int | float)}
    found = []
    for name, words in (
        ("memory", _("memory {used} of {total}")),
        ("swap", _("swap {used} of {total}")),
        ("gpu_memory", _("GPU memory {used} of {total}")),
    ):
        used, total = known.get(f"{name}_used_bytes"), known.get(f"{name}_total_bytes")
        if used is not None and total:
            found.append(words.format(used=size(used), total=size(total)))
    free, total = known.get("disk_free_bytes"), known.get("disk_total_bytes")
    if free is not None and total:
        found.append(_("disk {free} free of {total}").format(free=size(free), total=size(total)))
    return found


def core_names(count: int) -> list[str]:
    """What each strip stands for: a core, or several where there are very many."""
    width = -(-count // MOST_STRIPS)
    if width <= 1:
        return [f"{n}" for n in range(count)]
    pairs = [(first, min(first + width, count) - 1) for first in range(0, count, width)]
    return [f"{first}" if first == last else f"{first}–{last}" for first, last in pairs]


def core_values(sample: Metrics) -> list[int]:
    """Percent for each strip."""
    told = sample.values.get("cpu_percents")
    cores = (
        [float(value) for value in told if isinstance(value, int | float)] if isinstance(told, list) else []
    )
    width = max(1, -(-len(cores) // MOST_STRIPS))
    groups = [cores[first : first + width] for first in range(0, len(cores), width)]
    return [round(sum(group) / len(group)) for group in groups]


def core_cells(samples: Iterable[Metrics], span: Span) -> list[list[object]]:
    """(at, percent of each strip) for each of `CELLS` parts of the span; of the cores that there are now."""
    strips = (Metrics(sample.at, {"strips": core_values(sample)}) for sample in samples)
    cells = list(binned(strips, span.span_s / CELLS))[-CELLS - 1 :]
    found = [(cell.at, values) for cell in cells if isinstance(values := cell.values.get("strips"), list)]
    now = len(found[-1][1]) if found else 0
    return [[at, [round(value) for value in values]] for at, values in found if now == len(values) > 0]


def use_rows(
    services: Sequence[ServiceModel], workers: Sequence[WorkerModel], parts: Mapping[int, Part], own: int
) -> list[Row]:
    """What the workshop's processes use: the services', the workers' with all that they run, and their sum.

    Args:
        services: the workshop's; those of one process share a row.
        workers: the pool's.
        parts: what the services' processes use, by pid.
        own: this process, which holds the workshop where no service does.
    """
    names: dict[int, list[str]] = {}
    for service in services:
        if service.pid is not None:
            names.setdefault(service.pid, []).append(_(LABELS[service.name_of]))
    if not names:
        names[own] = [_("This program")]
    rows = [_use(listed(names[pid]), f"{pid}", parts[pid]) for pid in names if pid in parts]
    if workers:
        cpu = sum(worker.cpu_percent or 0.0 for worker in workers)
        rss = sum(worker.rss_bytes or 0 for worker in workers)
        label = ngettext("{n} worker, with what it runs", "{n} workers, with what they run", len(workers))
        rows.append(_use(label.format(n=len(workers)), "", Part(cpu, rss)) | {"page": "workers"})
    return rows


def _use(label: str, pid: str, part: Part) -> Row:
    cpu = "–" if part.cpu_percent is None else f"{part.cpu_percent:.0f} %"
    return {"label": label, "pid": pid, "cpu": cpu, "memory": size(part.rss_bytes), "page": ""}
