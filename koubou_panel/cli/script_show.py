"""`koubou script list` and `show`: the catalogue, and one script of it."""

from __future__ import annotations

import time

import click

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import ask
from koubou_panel.cli.script_words import (
    cannot_start_words,
    moment_words,
    next_dues,
    parameter_words,
    schedule_words,
)
from koubou_panel.cli.show import ago, duration, print_fields, print_json, size, status_words, table, took_s
from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.quantity import span_words
from koubou_panel.core.records import Task
from koubou_panel.core.schedule import never_given
from koubou_panel.core.script import (
    INTERPRETERS,
    Entry,
    Script,
    find_entry,
)
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.wire.records import iso, task_record
from koubou_panel.wire.script import script_record

COLUMNS = ("SCRIPT", "STATUS", "RUNS", "FAILED", "LAST RUN", "NEXT", "SCHEDULE")
LAST_RUNS = 5


async def entries_of(shop: RemoteShop) -> dict[str, Entry]:
    """The catalogue, by name."""
    return {entry.name: entry for entry in (await shop.look()).scripts}


def due_words(entry: Entry) -> str:
    """When a script is next due, as the end of a sentence; nothing where it is not."""
    return f", due at {moment_words(entry.next_at)}" if entry.next_at is not None else ""


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def list_all(ctx: click.Context, *, as_json: bool) -> None:
    """List the scripts."""
    entries = sorted(ask(ctx, entries_of).values(), key=lambda entry: entry.name.casefold())
    if as_json:
        print_json({"scripts": [script_record(entry) for entry in entries], "total": len(entries)})
        return
    now = time.time()
    if entries:
        table(COLUMNS, [_row(entry, now) for entry in entries], status=1)
    else:
        say("no script yet; `koubou script add NAME PATH` adds one")


def _row(entry: Entry, now: float) -> tuple[str, ...]:
    status = (
        "running" if entry.active else entry.last_status or ("" if entry.script.is_enabled else "disabled")
    )
    return (
        entry.name,
        status,
        str(entry.runs),
        str(entry.failures),
        f"{ago(entry.last_started_at, now)} ago" if entry.last_started_at else "",
        _next_words(entry, now),
        schedule_words(entry.script.schedule, is_enabled=entry.script.is_enabled),
    )


def _next_words(entry: Entry, now: float) -> str:
    next_at, missing = entry.next_at, never_given(entry.script)
    if next_at is None:
        return ""
    if missing:
        return f"cannot start: no {', no '.join(missing)}"
    return f"in {duration(next_at - now)}" if next_at > now else "now"


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def show(ctx: click.Context, *, name: str, as_json: bool) -> None:
    """Show script NAME: its definition, when it is next due, its last runs."""

    async def look(shop: RemoteShop) -> tuple[Entry, list[Task]]:
        entry = find_entry(await entries_of(shop), name)
        return entry, (await shop.find(TaskQuery(script=name, limit=LAST_RUNS))).tasks

    entry, runs = ask(ctx, look)
    if as_json:
        print_json(
            {
                "script": script_record(entry),
                "next_runs": [iso(at) for at in next_dues(entry)],
                "last_runs": [task_record(task) for task in runs],
            }
        )
        return
    now = time.time()
    print_fields(_shown(entry, runs, now))


def _shown(entry: Entry, runs: list[Task], now: float) -> list[tuple[str, str]]:
    script = entry.script
    ending = script.path[script.path.rfind(".") :]
    program = script.interpreter or INTERPRETERS.get(ending, ())
    return [
        ("script", entry.name),
        ("about", script.description),
        ("file", f"{script.path}{' (kept in the home)' if script.is_inline else ''}"),
        ("run by", " ".join(program)),
        ("folder", script.cwd),
        ("variables", "\n".join(f"{key}={value}" for key, value in script.env.items())),
        ("parameters", "\n".join(parameter_words(parameter) for parameter in script.parameters)),
        ("time-out", "none" if script.timeout_s is None else span_words(script.timeout_s)),
        ("retries", str(script.retries or "")),
        ("priority", str(script.priority)),
        ("keeps", _kept_words(script)),
        (
            "schedule",
            schedule_words(script.schedule, is_enabled=script.is_enabled) or "none: it runs by hand",
        ),
        ("cannot start", cannot_start_words(script)),
        ("next", "\n".join(moment_words(at) for at in next_dues(entry))),
        ("waiting", f"{len(entry.queued)} due times" if entry.queued else ""),
        ("revision", f"{entry.revision}, changed {ago(entry.changed_at, now)} ago"),
        ("runs", f"{entry.runs} ended, {entry.failures} of them not well"),
        ("last runs", "\n".join(_run_words(task, now) for task in runs)),
    ]


def _kept_words(script: Script) -> str:
    parts = [
        f"the output of {script.keep_runs} runs",
        f"of {script.keep_days:g} days" if script.keep_days is not None else "",
        f"at most {size(script.keep_bytes)}" if script.keep_bytes is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def _run_words(task: Task, now: float) -> str:
    began = task.started_at or task.request.created_at
    took = duration(took_s(task, now))
    due = " by schedule" if task.request.fire_at is not None else ""
    return f"{task.task_id}  {moment_words(began)}  {status_words(task)}{f', {took}' if took else ''}{due}"
