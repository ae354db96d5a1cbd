"""What a display is where nothing is live: plain HTML that says when it was taken.

It is what a saved notebook holds, and what nbconvert, nbviewer and editors without the extension show. Styles stand on
the elements, since those may leave a `<style>` out, and the text takes the colour of what is around it, so that it can
be read on light and on dark. The `<style>` has only what makes it look like the live card, where the ground is known:
Jupyter puts a still in the place of the card of a task that has ended, and nothing may jump then. Whatever people wrote
is escaped; nothing here runs.
"""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence

from koubou_panel.core.ports import OutputPage
from koubou_panel.core.records import Task
from koubou_panel.reactive.models import ShopModel, TaskModel, label_of, run_seconds
from koubou_panel.views.ansi import LineReader, Run
from koubou_panel.views.detail import attempt_words, detail
from koubou_panel.views.escape import line
from koubou_panel.views.language import _
from koubou_panel.views.rows import MARK, Row, fraction_of, progress_words
from koubou_panel.views.theme import ANSI, DARK, DATA, LIGHT
from koubou_panel.views.words import count, duration, size

MOST_LINES = 12
MOST_ENDED_LINES = 200
MOST_ROWS = 6
SMALL_BYTES = 1_024
#: As `MARKS` of `assets/js/dom.js`.
PATHS = {
    "run": "M5 3.5 L12.5 8 L5 12.5 Z",
    "ok": "M3 8.5 L6.5 12 L13 4.5",
    "fail": "M4 4 L12 12 M12 4 L4 12",
    "cancel": "M4 12 L12 4 M8 2.5 A5.5 5.5 0 1 1 7.99 2.5",
    "wait": "M8 3 A5 5 0 1 1 7.99 3",
}
#: The same as text, where pictures are left out.
SIGNS = {"run": "▶", "ok": "✓", "fail": "✕", "cancel": "⊘", "wait": "○"}
_GREY = "#808891"
_FONT = (
    "font-family:Inter,-apple-system,BlinkMacSystemFont,'Segoe UI',Roboto,'Noto Sans','Noto Sans CJK JP',"
    "system-ui,sans-serif"
)
_MONO = "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_BOX = (
    f"{_FONT};font-size:13px;line-height:normal;box-sizing:border-box;border:1px solid rgba(128,136,145,.4);"
    "border-color:var(--k-border,rgba(128,136,145,.4));border-radius:10px;background:var(--k-surface,transparent);"
    "color:var(--k-text,inherit)"
)
_RAISED = (
    "background:rgba(128,136,145,.13);background:var(--k-raised,rgba(128,136,145,.13));border-radius:8px"
)
_WORDS = "margin-top:7px;font-size:12.5px;line-height:1.45;overflow-wrap:anywhere"
_FAINT = "opacity:.72;font-size:12px"
_NEEDED = ("surface", "raised", "border", "text", "muted", "run", "ok", "fail", "cancel", "wait")
_LOOK = (
    ".jp-RenderedHTMLCommon>.koubou-output{margin:0 -20px 0 0}"
    # nbconvert's pages have what is displayed stand as far left of its cell as an empty prompt lacks.
    "@media (min-width:761px){.jp-OutputArea-prompt:empty:not(.lm-Widget)+.jp-RenderedHTMLCommon>.koubou-output{"
    "margin-left:calc(2*(var(--jp-code-padding) + var(--jp-border-width)))}}"
    ".koubou-output summary{list-style:none}.koubou-output summary::-webkit-details-marker{display:none}"
    ".koubou-output summary::before{content:'';position:absolute;left:13px;top:15px;width:6px;height:6px;"
    "box-sizing:border-box;border:solid;border-width:0 2px 2px 0;color:var(--k-fail,#e3692c);transform:rotate(-45deg)}"
    ".koubou-output details[open] summary::before{transform:rotate(45deg);top:13px}"
    ".koubou-output pre.log{mask-image:linear-gradient(transparent,#000 10px);scrollbar-width:thin}"
    ".koubou-output pre .b{font-weight:700}.koubou-output pre .d{opacity:.65}"
    ".koubou-output pre .i{font-style:italic}.koubou-output pre .u{text-decoration:underline}"
    "@media print{.koubou-output pre{max-height:none!important;mask-image:none!important}}"
)


def task_words(task: Task) -> str:
    """One task in one line of plain text: `train.py: running, 37 %`."""
    parts = [_status(task.status).lower()]
    if task.status == "in_progress" and task.progress and task.progress.fraction is not None:
        parts.append(f"{100 * task.progress.fraction:.0f} %")
    took = run_seconds(task)
    if took is not None:
        parts.append(_("after {took}").format(took=duration(took)))
    if task.status != "pending" and task.run > 1:
        parts.append(attempt_words(task.run))
    why = f": {line(task.message, 200)}" if task.status == "failed" and task.message else ""
    return f"{line(label_of(task))}: {', '.join(parts)}{why}"


def workshop_words(model: ShopModel, *, place: str, at: str) -> str:
    """The workshop at `place` in one line of plain text."""
    words = _(
        "Workshop at {place}: {running} running, {pending} pending, {completed} completed, {failed} failed on "
        "{workers} workers (at {moment})"
    )
    counts = {"running": model.in_progress, "pending": model.pending, "completed": model.completed}
    counts |= {"failed": model.failed, "workers": model.workers_total}
    return words.format(place=place, moment=at, **counts)


def log_words(log: OutputPage, task_id: str) -> str:
    """What it printed as plain text, as far as it is kept here; empty where that is nothing."""
    return "\n".join(map(_plain, _lines(log, task_id, MOST_ENDED_LINES)))


def taken_at(now: float) -> str:
    """`2026-11-22 10:31:05 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now)).strip()


def task_html(model: TaskModel, log: OutputPage, now: float, *, result: str = "", foot: str = "") -> str:
    """A task's card.

    Args:
        model: how it stands.
        log: the last of what it printed.
        now: when that was, UTC seconds.
        result: what it has returned, in short.
        foot: what is said below.
    """
    told = detail(model, ShopModel())
    parts = [_task_head(told, taken_at(model.finished_at or now)), _task_words(model, told)]
    if model.status == "in_progress" or (
        model.is_finished and told["mark"] != "ok" and told["fraction"] is not None
    ):
        parts.append(_bar(fraction_of(model)))
    words = [*progress_words(model), *_use_words(model)] if model.status == "in_progress" else []
    if words:
        parts.append(f'<div style="{_FAINT};margin-top:7px">{html.escape(" · ".join(words))}</div>')
    parts += [_fault(told["fault"]), _result(result)]
    lines = _lines(log, model.task_id, MOST_ENDED_LINES if model.is_finished else MOST_LINES)
    return _boxed(
        "".join([*parts, _log(lines)]),
        foot,
        style=f"{_BOX};max-width:860px;padding:10px 14px 12px",
        runs=lines,
        is_ended=model.is_finished,
    )


def refused_html(why: str, *, foot: str) -> str:
    """The card of a task that the workshop did not take.

    Args:
        why: what it said.
        foot: what is said below.
    """
    told: Row = {"mark": "fail", "status": "failed", "label": _("Not submitted")}
    words = f'<div style="{_WORDS};{_colour("fail")}">{html.escape(line(why, 2_000))}</div>'
    return _boxed(_task_head(told, "") + words, foot, style=f"{_BOX};max-width:860px;padding:10px 14px 12px")


def workshop_html(model: ShopModel, ended: Sequence[Task], *, place: str, foot: str) -> str:
    """The workshop's card: its numbers, what runs and what ended last.

    Args:
        model: how it stands.
        ended: what ended, the last one first.
        place: which workshop it is.
        foot: what is said below.
    """
    numbers: Mapping[str, tuple[str, str]] = {
        _("Pending"): (count(model.pending), ""),
        _("Running"): (count(model.in_progress), "run"),
        _("Completed"): (count(model.completed), "ok"),
        _("Failed"): (count(model.failed), "fail" if model.failed else ""),
        _("Workers"): (f"{model.workers_busy} / {model.workers_total}", ""),
    }
    tiles = "".join(
        f'<span style="display:inline-block;min-width:92px;margin:0 14px 6px 0"><span style="{_FAINT}">{name}</span>'
        f'<br><b style="font-size:20px;font-weight:600{f";{_colour(colour)}" if colour else ""}">{value}</b></span>'
        for name, (value, colour) in numbers.items()
    )
    ends = _("shutting down") if model.closing else ""
    ends = _("workshop stopped") if model.link_status == "closed" else ends
    where = " · ".join(part for part in (_text(place, 120), ends) if part)
    head = f'<div style="margin-bottom:8px"><b>工房 Koubou</b> <span style="{_FAINT}">{where}</span></div>'
    rows = [
        _row(task.label, task.status, " · ".join(progress_words(task))) for task in model.running[:MOST_ROWS]
    ]
    for task in ended[: MOST_ROWS - len(rows)]:
        took = run_seconds(task)
        why = line(task.message, 80) if task.status == "failed" else ""
        words = " · ".join(part for part in ("" if took is None else duration(took), why) if part)
        rows.append(_row(label_of(task), task.status, words))
    return _boxed(
        f"{head}<div>{tiles}</div>{''.join(rows)}", foot, style=f"{_BOX};line-height:1.5;padding:10px 14px"
    )


def _status(status: str) -> str:
    return {
        "pending": _("Waiting"),
        "in_progress": _("Running"),
        "completed": _("Completed"),
        "failed": _("Failed"),
        "cancelled": _("Cancelled"),
    }[status]


def _colour(name: str) -> str:
    """A colour that can be read on any ground, and the card's own where the ground is known."""
    plain = DATA.get(name, _GREY)
    return f"color:{plain};color:var(--k-{name},{plain})"


def _boxed(
    inner: str, foot: str, *, style: str, runs: Sequence[Sequence[Run]] = (), is_ended: bool = False
) -> str:
    below = (
        f'<div class="koubou-foot" style="{_FAINT};margin-top:8px">{html.escape(foot)}</div>' if foot else ""
    )
    look = _style({name for one in runs for classes, _text in one for name in classes.split()})
    names = "koubou-output koubou-ended" if is_ended else "koubou-output"
    return f'<div class="{names}"><style>{look}</style><div style="{style}">{inner}{below}</div></div>'


def _style(classes: set[str]) -> str:
    """The look of the live cards, on the grounds of Jupyter and VS Code; of a terminal's colours those in `classes`."""
    parts = [_LOOK]
    for place, (palette, grounds) in enumerate(
        (
            (DARK, ('[data-jp-theme-light="false"]', ".vscode-dark")),
            (LIGHT, ('[data-jp-theme-light="true"]', ".vscode-light")),
        )
    ):
        declared = ";".join(f"--k-{name}:{palette[name]}" for name in _NEEDED)
        terminal = {f"f{n}": pair[place] for n, pair in enumerate(ANSI)}
        parts.append(",".join(f"{ground} .koubou-output" for ground in grounds) + f"{{{declared}}}")
        parts += [
            ",".join(f"{ground} .koubou-output .{name}" for ground in grounds) + f"{{color:{terminal[name]}}}"
            for name in sorted(classes & terminal.keys())
        ]
    return "".join(parts)


def _mark(told: Row) -> str:
    """The sign of a status."""
    name = str(told["mark"])
    return (
        f'<svg viewBox="0 0 16 16" width="17" height="17" fill="{"currentColor" if name == "run" else "none"}" '
        f'stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" '
        f'role="img" aria-label="{html.escape(_status(str(told["status"])))}" style="flex:none;{_colour(name)}">'
        f"<desc>{SIGNS[name]}</desc>"
        f'<path d="{PATHS[name]}"/></svg>'
    )


def _task_head(told: Row, at: str) -> str:
    return (
        f'<div style="display:flex;align-items:center;gap:9px;min-height:20px">{_mark(told)} '
        f'<b style="font-size:14px;font-weight:600;overflow:hidden;text-overflow:ellipsis;white-space:nowrap">'
        f"{html.escape(str(told['label']))}</b> "
        f'<span style="{_FAINT};margin-left:auto;flex:none">{html.escape(at)}</span></div>'
    )


def _task_words(model: TaskModel, told: Row) -> str:
    """How it stands, in a sentence, which attempt it was, and its id."""
    words = str(told["words"])
    if model.status == "pending" and not model.waits_for:
        words = _("waiting")
    name = {"failed": "fail", "cancelled": "cancel"}.get(model.status)
    colour = _colour(name) if name else "opacity:.8"
    about = "".join(f" · {html.escape(part)}" for part in (str(told["attempt"]), model.task_id) if part)
    return (
        f'<div style="{_WORDS}"><span style="{colour}">{html.escape(words)}</span>'
        f'<span style="opacity:.6">{about}</span></div>'
    )


def _bar(fraction: float | None) -> str:
    """How far it is; pale where nobody knows."""
    width, opacity = (100.0, 0.35) if fraction is None else (100 * fraction, 1)
    ground = f"background:{DATA['run']};background:var(--k-run,{DATA['run']})"
    return (
        '<div style="height:6px;margin-top:7px;border-radius:3px;background:rgba(128,136,145,.22);overflow:hidden">'
        f'<div style="height:6px;width:{width:.1f}%;opacity:{opacity};{ground}"></div></div>'
    )


def _fault(fault: object) -> str:
    """The error, and behind it the traceback."""
    if not isinstance(fault, dict) or not fault.get("error"):
        return ""
    error = html.escape(fault["error"])
    said = f"{_MONO};font-size:12.5px;font-weight:600;line-height:1.45;white-space:pre-wrap"
    box = (
        "margin-top:7px;border-radius:8px;border:1px solid rgba(227,105,44,.45);background:rgba(227,105,44,.09);"
        "overflow-wrap:anywhere"
    )
    if not fault.get("trace"):
        return f'<div style="{box};{said};padding:9px 12px">{error}</div>'
    trace = (
        f'<pre style="{_MONO};font-size:11.5px;line-height:1.45;margin:0 12px 10px;padding:8px 10px;max-height:300px;'
        f'overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere;color:inherit;{_RAISED}">'
        f"{html.escape(fault['trace'])}</pre>"
    )
    summary = f'<summary style="{said};position:relative;cursor:pointer;padding:9px 12px 9px 30px">{error}</summary>'
    return f'<details style="{box}">{summary}{trace}</details>'


def _result(result: str) -> str:
    if not result:
        return ""
    style = f"{_MONO};font-size:12.5px;line-height:1.45;margin-top:7px;overflow-wrap:anywhere"
    return f'<div style="{style}"><span style="opacity:.6">→</span> {_text(result, 200)}</div>'


def _log(lines: Sequence[Sequence[Run]]) -> str:
    """The lines in a box that stands at its end, where it is not high enough for all."""
    if not lines:
        return ""
    shown = "\n".join("".join(_run(*run) for run in runs) for runs in lines)
    return (
        f'<pre class="log" style="{_MONO};font-size:12px;line-height:1.5;box-sizing:border-box;max-height:168px;'
        "display:flex;flex-direction:column-reverse;overflow-y:auto;margin:9px 0 0;padding:7px 10px;color:inherit;"
        f'white-space:pre-wrap;overflow-wrap:anywhere;{_RAISED}"><span>{shown}</span></pre>'
    )


def _run(style: str, text: str) -> str:
    shown = html.escape(text)
    return f'<span class="{html.escape(style)}">{shown}</span>' if style else shown


def _lines(log: OutputPage, task_id: str, most: int) -> list[list[Run]]:
    """The last lines, as a terminal would show them; where some came before, the first one says so."""
    reader = LineReader()
    lines = reader.feed(log.text.rstrip("\n"))
    lines = [*lines, *([reader.open_line] if reader.open_line else [])]
    if log.offset and len(lines) > 1:
        lines = lines[1:]  # it has lost its beginning, and would look like a whole one
    if not log.offset and len(lines) <= most:
        return lines
    lines = lines[-(most - 1) :]
    shown = "\n".join(map(_plain, lines))
    return [[("d", _left_out(log, len(shown.encode("utf-8", "replace")), task_id))], *lines]


def _left_out(log: OutputPage, shown_bytes: int, task_id: str) -> str:
    """What is not shown, and where it is."""
    before = max(log.start, log.offset + len(log.text.encode("utf-8", "replace")) - shown_bytes)
    if not log.start:
        words = _("… {size} of earlier output: shop.output({task}) has all of it …")
    elif before - log.start < SMALL_BYTES:
        words = _("… {size} of earlier output were not kept …")
    else:
        words = _(
            "… {size} of earlier output, of which {lost} were not kept: shop.output({task}) has the rest …"
        )
    return words.format(size=size(before), lost=size(log.start), task=repr(task_id))


def _plain(runs: Sequence[Run]) -> str:
    return "".join(text for _style, text in runs)


def _row(label: str, status: str, words: str) -> str:
    told: Row = {"mark": _mark_of(status), "status": status}
    return (
        '<div style="border-top:1px solid rgba(128,136,145,.25);padding:4px 0;display:flex;align-items:center;gap:7px">'
        f'{_mark(told)} <span>{_text(label, 60)}</span> <span style="{_FAINT}">{_text(words, 160)}</span></div>'
    )


def _mark_of(status: str) -> str:
    return {"pending": "wait", "in_progress": "run"}.get(status) or MARK.get(status, "cancel")


def _use_words(model: TaskModel) -> list[str]:
    use = model.use
    return [] if use is None else [f"CPU {use.cpu_percent:.0f} %", size(use.rss_bytes)]


def _text(text: object, limit: int) -> str:
    return html.escape(line(text, limit))
