"""`koubou script add` and `set`: what a script of the catalogue is, as it is typed."""

from __future__ import annotations

import shlex
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
from koubou_panel.cli.script_show import due_words, entries_of
from koubou_panel.cli.script_text import written
from koubou_panel.cli.script_words import (
    cannot_start_words,
    merged_parameters,
    schedule_of,
    split_words,
)
from koubou_panel.core.commands import RemoveScript, SaveScript
from koubou_panel.core.quantity import parse_size
from koubou_panel.core.script import (
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

F = TypeVar("F", bound=Callable[..., object])


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


@click.command()
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
            return find_entry(await entries_of(shop), name)

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
    say(f"{name} is in the catalogue{due_words(entry)}; `koubou script run {shlex.quote(name)}` runs it now")


async def _give_defaults(
    shop: RemoteShop, name: str, parameters: tuple[str, ...], schedule: Schedule | None
) -> None:
    """Have what was typed of its parameters go with what its text says of them."""
    entry = find_entry(await entries_of(shop), name)
    changed = replace(entry.script, parameters=_merged(entry.script, parameters), schedule=schedule)
    await shop.do(SaveScript(changed, revision=entry.revision), CALLER)


async def _check_new(script: Script, shop: RemoteShop) -> None:
    """Refuse what would be refused whatever its text is."""
    check_script(script)
    if script.name in await entries_of(shop):
        words = f"there is a script {script.name!r} already; `koubou script edit` changes it, or take another name"
        raise Refused("conflict", words)


@click.command("set")
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
        entry = find_entry(await entries_of(shop), name)
        fields = _fields(options, entry.script) | ({"schedule": None} if no_schedule else {})
        if options["parameters"]:
            typed = cast("tuple[str, ...]", options["parameters"])
            fields["parameters"] = _merged(entry.script, typed)
        changed = replace(entry.script, **fields)
        if "timeout_s" in fields:
            changed = replace(changed, given=tuple({*changed.given, "timeout_s"}))
        await shop.do(SaveScript(changed, revision=entry.revision), CALLER)
        return find_entry(await entries_of(shop), name)

    entry = ask(ctx, save)
    _warn_of_schedule(entry)
    say(f"{name} is changed{due_words(entry)}")


def _merged(script: Script, texts: tuple[str, ...]) -> tuple[Parameter, ...]:
    try:
        return merged_parameters(script.parameters, texts)
    except ValueError as error:
        raise click.UsageError(f"--param {error}") from None


def _warn_of_schedule(entry: Entry) -> None:
    """Say which parameters a schedule, which gives none, would have to give."""
    if words := cannot_start_words(entry.script):
        say(words)


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
