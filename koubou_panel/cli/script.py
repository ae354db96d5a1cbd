"""`koubou script`: the catalogue of scripts: adding, changing, listing, removing."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import click
from msgspec.structs import replace

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import CALLER, ask
from koubou_panel.cli.script_help import help_failure
from koubou_panel.cli.script_run import logs, run
from koubou_panel.cli.script_text import edit, restore, versions, written
from koubou_panel.cli.script_words import (
    merged_parameters,
    moment_words,
    next_dues,
    parameter_words,
    schedule_of,
    schedule_words,
    split_words,
)
from koubou_panel.cli.show import ago, duration, print_fields, print_json, size, status_words, table, took_s
from koubou_panel.core.commands import EnableScript, RemoveScript, SaveScript
from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.quantity import parse_size, span_words
from koubou_panel.core.records import Task
from koubou_panel.core.script import (
    INTERPRETERS,
    Entry,
    Overlap,
    Parameter,
    Schedule,
    Script,
    check_script,
    find_entry,
)
from koubou_panel.errors import Refused
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.wire.records import iso, task_record
from koubou_panel.wire.script import script_record

F = TypeVar("F", bound=Callable[..., object])

COLUMNS = ("SCRIPT", "STATUS", "RUNS", "FAILED", "LAST RUN", "NEXT", "SCHEDULE")
LAST_RUNS = 5


@click.group()
def script() -> None:
    """Keep scripts by name: run them by hand or on a schedule, edit them safely, search what they printed."""


for _command in (run, logs, edit, versions, restore):
    script.add_command(_command)


# -- adding and changing --------------------------------------------------------------------------------------


def _sized(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_size(value)
    except ValueError as error:
        raise click.BadParameter(f"it {error}", ctx, param) from None


def _definition(command: F) -> F:
    """The options that `add` and `set` share."""
    for option in reversed(
        [
            click.option("--every", metavar="SPAN", help="Run it each SPAN: 30s, 5m, 1h30m, 2d."),
            click.option("--cron", metavar="CRON", help="Run it by a cron expression such as '0 9 * * 1-5'."),
            click.option(
                "--zone", metavar="ZONE", help="The time zone of --cron; this machine's unless given."
            ),
            click.option("--at", metavar="WHEN", help="Run it once: 18:00, '2026-12-24 18:00', +10m."),
            click.option(
                "--overlap",
                type=click.Choice(["skip", "queue", "together"]),
                help="What becomes of a due time while a run goes on: skip it (unless given), queue it, run both.",
            ),
            click.option(
                "--timeout",
                "timeout_s",
                type=click.FloatRange(min=0),
                metavar="S",
                help="End a run after S seconds; 0 for never.",
            ),
            click.option(
                "--retries", type=click.IntRange(0, 1000), help="Try a run again N times if it fails."
            ),
            click.option("--priority", type=click.IntRange(1, 10), help="10 goes first; 5 unless given."),
            click.option("--interpreter", metavar="COMMAND", help="What runs the file, such as 'uv run'."),
            click.option(
                "--param",
                "parameters",
                multiple=True,
                metavar="NAME[!][:TYPE][=DEFAULT]",
                help="What it can be given: text, integer, number, boolean, path or a|b; with ! it must be. "
                "Read from the text unless given.",
            ),
            click.option("--description", metavar="TEXT", help="A line about it."),
            click.option("--cwd", metavar="DIR", help="Its working folder; that of its file unless given."),
            click.option("--env", "variables", multiple=True, metavar="K=V", help="A variable for it."),
            click.option(
                "--keep-runs", type=click.IntRange(1, 1_000_000), help="Keep the output of N runs; 100."
            ),
            click.option("--keep-days", type=float, metavar="DAYS", help="Keep output so long."),
            click.option(
                "--keep-size", "keep_bytes", callback=_sized, metavar="SIZE", help="Keep so much of it."
            ),
        ]
    ):
        command = option(command)
    return command


@script.command()
@click.argument("name", metavar="NAME")
@click.argument("path", metavar="[PATH]", required=False)
@click.option(
    "--inline", is_flag=True, help="Take the text from stdin, or an editor, and keep it in the home."
)
@_definition
@click.pass_context
def add(ctx: click.Context, /, *, name: str, path: str | None, inline: bool, **options: object) -> None:
    """Add the file PATH to the catalogue as NAME; or, with --inline, a text of its own (PATH then only names it)."""
    if path is None and not inline:
        raise click.UsageError("give the PATH of the file, or --inline for a text that the home keeps")
    fields = _fields(options)
    parameters = cast("tuple[str, ...]", options["parameters"])
    # What is typed of a parameter changes what the text says of it: that is known once it is read.
    schedule = fields.pop("schedule", None) if parameters else None
    if options["timeout_s"] == 0:
        fields["given"] = ("timeout_s",)

    def saved(text: str | None) -> Entry:
        file = (path or "") if inline else str(Path(path or "").expanduser().absolute())
        command = SaveScript(Script(name=name, path=file, **fields), text=text)  # type: ignore[arg-type]

        async def save(shop: RemoteShop) -> Entry:
            await shop.do(command, CALLER)
            if parameters:
                try:
                    await _give_defaults(shop, name, parameters, cast("Schedule | None", schedule))
                except BaseException:
                    await shop.do(RemoveScript(name), CALLER)
                    raise
            return find_entry(await _entries(shop), name)

        return ask(ctx, save)

    if inline:
        # Before anybody types a text for it.
        ask(ctx, partial(_check_new, Script(name=name, path="/", **fields)))  # type: ignore[arg-type]
        entry = written(Path(path or "script").name or "script", saved)
    else:
        entry = saved(None)
    if failure := help_failure(entry.script):
        say(
            f"what it takes is not known, {failure}: write a header (docs/scripts.md), or say it with --param"
        )
    _warn_of_schedule(entry)
    say(f"{name} is in the catalogue{_due_words(entry)}; `koubou script run {shlex.quote(name)}` runs it now")


async def _give_defaults(
    shop: RemoteShop, name: str, parameters: tuple[str, ...], schedule: Schedule | None
) -> None:
    """Have what was typed of its parameters go with what its text says of them."""
    entry = find_entry(await _entries(shop), name)
    changed = replace(entry.script, parameters=_merged(entry.script, parameters), schedule=schedule)
    await shop.do(SaveScript(changed, revision=entry.revision), CALLER)


async def _check_new(script: Script, shop: RemoteShop) -> None:
    """Refuse what would be refused whatever its text is."""
    check_script(script)
    if script.name in await _entries(shop):
        words = f"there is a script {script.name!r} already; `koubou script edit` changes it, or take another name"
        raise Refused("conflict", words)


@script.command("set")
@click.argument("name", metavar="NAME")
@click.option("--no-schedule", is_flag=True, help="Let it run by hand alone.")
@_definition
@click.pass_context
def change(ctx: click.Context, /, *, name: str, no_schedule: bool, **options: object) -> None:
    """Change how script NAME runs; what is not given stays. Its text is changed by `koubou script edit`."""
    if not no_schedule and not any(value not in (None, ()) for value in options.values()):
        raise click.UsageError("say what to change, such as --every 5m")
    if no_schedule and any(options[key] is not None for key in ("every", "cron", "at", "zone", "overlap")):
        raise click.UsageError("--no-schedule excludes --every, --cron, --at, --zone and --overlap")

    async def save(shop: RemoteShop) -> Entry:
        entry = find_entry(await _entries(shop), name)
        fields = _fields(options, entry.script) | ({"schedule": None} if no_schedule else {})
        if options["parameters"]:
            typed = cast("tuple[str, ...]", options["parameters"])
            fields["parameters"] = _merged(entry.script, typed)
        changed = replace(entry.script, **fields)
        if "timeout_s" in fields:
            changed = replace(changed, given=tuple({*changed.given, "timeout_s"}))
        await shop.do(SaveScript(changed, revision=entry.revision), CALLER)
        return find_entry(await _entries(shop), name)

    entry = ask(ctx, save)
    _warn_of_schedule(entry)
    say(f"{name} is changed{_due_words(entry)}")


def _merged(script: Script, texts: tuple[str, ...]) -> tuple[Parameter, ...]:
    try:
        return merged_parameters(script.parameters, texts)
    except ValueError as error:
        raise click.UsageError(f"--param {error}") from None


def _warn_of_schedule(entry: Entry) -> None:
    """Say which parameters a schedule, which gives none, would have to give."""
    missing = [one.name for one in entry.script.parameters if one.is_required and one.default is None]
    if missing and entry.script.schedule is not None:
        say(
            f"its schedule cannot start it: {' and '.join(missing)} must be given; "
            f"give it a default: --param {missing[0]}=…"
        )


def _fields(options: Mapping[str, object], before: Script | None = None) -> dict[str, object]:
    """The fields of a definition that were typed, but for its parameters."""
    fields: dict[str, object] = {
        name: options[name]
        for name in ("retries", "priority", "description", "keep_runs", "keep_days", "keep_bytes")
        if options[name] is not None
    }
    if options["timeout_s"] is not None:
        fields["timeout_s"] = options["timeout_s"] or None
    if options["interpreter"] is not None:
        fields["interpreter"] = split_words(str(options["interpreter"]))
    if options["cwd"] is not None:
        fields["cwd"] = str(Path(str(options["cwd"])).expanduser().absolute())
    if options["variables"]:
        fields["env"] = _variables(cast("tuple[str, ...]", options["variables"]))
    schedule = schedule_of(
        every=cast("str | None", options["every"]),
        cron=cast("str | None", options["cron"]),
        zone=cast("str | None", options["zone"]),
        at=cast("str | None", options["at"]),
        overlap=cast("Overlap | None", options["overlap"]),
        now=time.time(),
        before=None if before is None else before.schedule,
    )
    return fields | ({} if schedule is None else {"schedule": schedule})


def _variables(texts: tuple[str, ...]) -> dict[str, str]:
    env = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--env {text[:60]}: write NAME=VALUE")
        env[key] = value
    return env


def _due_words(entry: Entry) -> str:
    return f", due at {moment_words(entry.next_at)}" if entry.next_at is not None else ""


# -- looking --------------------------------------------------------------------------------------------------


async def _entries(shop: RemoteShop) -> dict[str, Entry]:
    return {entry.name: entry for entry in (await shop.look()).scripts}


@script.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def list_all(ctx: click.Context, *, as_json: bool) -> None:
    """List the scripts."""
    entries = sorted(ask(ctx, _entries).values(), key=lambda entry: entry.name.casefold())
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
    next_at = entry.next_at
    return (
        entry.name,
        status,
        str(entry.runs),
        str(entry.failures),
        f"{ago(entry.last_started_at, now)} ago" if entry.last_started_at else "",
        f"in {duration(next_at - now)}"
        if next_at is not None and next_at > now
        else "now" * (next_at is not None),
        schedule_words(entry.script.schedule, is_enabled=entry.script.is_enabled),
    )


@script.command()
@click.argument("name", metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def show(ctx: click.Context, *, name: str, as_json: bool) -> None:
    """Show script NAME: its definition, when it is next due, its last runs."""

    async def look(shop: RemoteShop) -> tuple[Entry, list[Task]]:
        entry = find_entry(await _entries(shop), name)
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


# -- enabling, disabling, removing ----------------------------------------------------------------------------


@script.command()
@click.argument("name", metavar="NAME")
@click.pass_context
def enable(ctx: click.Context, *, name: str) -> None:
    """Let the schedule of script NAME run it again; what was due meanwhile is not made up for."""
    _enable(ctx, name, is_enabled=True)


@script.command()
@click.argument("name", metavar="NAME")
@click.pass_context
def disable(ctx: click.Context, *, name: str) -> None:
    """Let the schedule of script NAME run it no more; it can be run by hand all the same."""
    _enable(ctx, name, is_enabled=False)


def _enable(ctx: click.Context, name: str, *, is_enabled: bool) -> None:
    async def do(shop: RemoteShop) -> Entry:
        await shop.do(EnableScript(name, is_enabled), CALLER)
        return find_entry(await _entries(shop), name)

    say(f"{name} is {'enabled' if is_enabled else 'disabled'}{_due_words(ask(ctx, do))}")


@script.command()
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def remove(ctx: click.Context, *, name: str, yes: bool) -> None:
    """Take script NAME out of the catalogue; its file, its runs and their output stay."""
    if not yes and sys.stdin.isatty() and not click.confirm(f"Remove {name} from the catalogue?", err=True):
        raise click.Abort

    async def do(shop: RemoteShop) -> None:
        await shop.do(RemoveScript(name), CALLER)

    ask(ctx, do)
    say(f"{name} is removed; its file, its runs and their output are still there")
