"""`koubou script edit`, `versions` and `restore`: texts, from an editor or stdin."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import CALLER, ask
from koubou_panel.cli.script_words import moment_words
from koubou_panel.cli.show import print_json, size, table
from koubou_panel.core.ports import ScriptText, ScriptVersion
from koubou_panel.core.script import MAX_TEXT_BYTES
from koubou_panel.errors import Refused
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.wire.records import iso

T = TypeVar("T")

EDITORS = ("sensible-editor", "nano", "vi")


def read_text(name: str) -> str:
    """A new text: what comes in, or what an editor makes where nothing does.

    Raises:
        click.UsageError: there is none.
    """
    if sys.stdin.isatty():
        text = _edited("", name)
    else:
        data = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise click.UsageError("what came in is no text: it has bytes that are not UTF-8") from None
    if not text.strip():
        raise click.UsageError("the text is empty: nothing was added")
    return text


def written(name: str, save: Callable[[str], T]) -> T:
    """What `save` gives for a new text; one that was typed and is refused can be edited again, and is never lost."""
    is_typed = sys.stdin.isatty()
    text = read_text(name)
    while True:
        try:
            return save(text)
        except BaseException as error:
            if not is_typed:
                raise
            if not isinstance(error, Refused) or error.code != "invalid" or not _wants_again(error):
                say(f"your text is kept in {_kept(text, name)}")
                raise
            text = _edited(text, name)


@click.command()
@click.argument("name", metavar="NAME")
@click.pass_context
def edit(ctx: click.Context, *, name: str) -> None:
    """Edit the text of script NAME in $VISUAL or $EDITOR; with input that is no terminal, that is its new text.

    If somebody else changed it meanwhile nothing is overwritten, and what you wrote is kept.
    """

    async def read(shop: RemoteShop) -> ScriptText:
        return await shop.read_script(name)

    before = ask(ctx, read)
    is_typed = sys.stdin.isatty()
    text = _edited(before.text, Path(before.path).name) if is_typed else read_text(name)
    while True:
        if text == before.text:
            say(f"{name} is unchanged")
            return
        try:
            version = _save(ctx, name, text, before.version)
        except Refused as refused:
            if refused.code == "conflict" or not is_typed:  # the workshop keeps what was refused so
                raise
            if refused.code != "invalid" or not _wants_again(refused):
                say(f"your text is kept in {_kept(text, Path(before.path).name)}")
                raise
            text = _edited(text, Path(before.path).name)
            continue
        undo = f"koubou script restore {shlex.quote(name)} {before.version}"
        say(f"{name} is saved as version {version}; `{undo}` undoes that")
        return


def _wants_again(refused: Refused) -> bool:
    say(refused.message)
    return click.confirm("Edit it again?", default=True, err=True)


def _kept(text: str, name: str) -> str:
    """A file of the person's own with what they wrote."""
    fd, path = tempfile.mkstemp(prefix="koubou-", suffix=f"-{name}")
    with os.fdopen(fd, "wb") as file:
        file.write(text.encode())
    return path


def _save(ctx: click.Context, name: str, text: str, base: str) -> str:
    async def save(shop: RemoteShop) -> str:
        return await shop.save_script_text(name, text, base, CALLER)

    return ask(ctx, save)


def _edited(text: str, name: str) -> str:
    """What the person makes of `text`; the file that they edit is theirs alone."""
    with tempfile.TemporaryDirectory(prefix="koubou-") as folder:
        path = Path(folder, name)
        path.write_bytes(text.encode())
        command = [*_editor(), str(path)]
        try:
            code = subprocess.run(command, check=False).returncode
        except OSError as error:
            words = f"the editor {command[0]} cannot be started ({error.strerror}): set EDITOR to one that is here"
            raise click.ClickException(words) from None
        if code:
            raise click.ClickException(f"the editor ended with code {code}: nothing was saved")
        try:
            return path.read_bytes().decode()
        except UnicodeDecodeError:
            raise click.ClickException(
                "the editor saved bytes that are not UTF-8: nothing was saved"
            ) from None


def _editor() -> list[str]:
    import shutil

    for name in ("VISUAL", "EDITOR"):
        if os.environ.get(name, "").strip():
            return shlex.split(os.environ[name])
    found = next((name for name in EDITORS if shutil.which(name)), None)
    if found is None:
        raise click.ClickException("no editor was found: set EDITOR, or give the text by stdin")
    return [found]


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def versions(ctx: click.Context, *, name: str, as_json: bool) -> None:
    """List the kept texts of script NAME, newest first."""

    async def read(shop: RemoteShop) -> list[ScriptVersion]:
        return await shop.script_versions(name)

    found = ask(ctx, read)
    if as_json:
        records = [
            {
                "version": one.version,
                "saved_at": iso(one.saved_at),
                "size_bytes": one.size_bytes,
                "by": one.by,
                "is_current": one.is_current,
                "is_refused": one.is_refused,
            }
            for one in found
        ]
        print_json({"versions": records, "total": len(records)})
        return
    rows = [
        (
            one.version,
            moment_words(one.saved_at),
            size(one.size_bytes),
            one.by or "(outside)",
            "current" if one.is_current else "refused: made on a stale copy" * one.is_refused,
        )
        for one in found
    ]
    table(("VERSION", "SAVED", "SIZE", "BY", ""), rows)


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("version", metavar="VERSION")
@click.option("--print", "is_printed", is_flag=True, help="Print that text, and change nothing.")
@click.pass_context
def restore(ctx: click.Context, *, name: str, version: str, is_printed: bool) -> None:
    """Make VERSION (a unique beginning will do) the text of script NAME again; what it replaces is kept."""

    async def read(shop: RemoteShop) -> ScriptText:
        return await shop.read_script(name, version)

    async def save(shop: RemoteShop) -> str:
        try:
            base = (await shop.read_script(name)).version
        except Refused as refused:
            if refused.code != "not_found":
                raise
            base = ""
        return await shop.restore_script(name, version, base, CALLER)

    if is_printed:
        sys.stdout.write(ask(ctx, read).text)
        return
    say(f"{name} is version {ask(ctx, save)} again")
