"""The forms of a script as commands of the workshop, and all that is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from koubou_panel.archive.text import read_file
from koubou_panel.core.catalogue import save_script
from koubou_panel.core.commands import SaveScript
from koubou_panel.core.script import MAX_TEXT_BYTES, Script
from koubou_panel.core.state import State
from koubou_panel.errors import Refused
from koubou_panel.views.faults import Form
from koubou_panel.views.language import _
from koubou_panel.views.script_form import FIELDS, script_of, text_in

_ENDINGS = {
    "python": "script.py",
    "sh": "script.sh",
    "bash": "script.bash",
    "node": "script.js",
    "": "script",
}
# What is well in a field. A text of its own stands for a file, too.
_WELL: dict[str, Form] = {
    "name": {"name": "a name that nobody gave"},
    "path": {"inline": True, "text": "#!/bin/sh\n", "language": "sh"},
    "text": {"text": "#!/bin/sh\n"},
    **{field: {"when": ""} for field in ("when", "every", "cron", "zone", "at", "overlap")},
}


def new_script(form: Form) -> SaveScript:
    """What the form of a new script asks for: a file by its path, or with `inline` a text that the home keeps.

    Raises:
        Refused: `invalid`, naming the field.
    """
    name, text = text_in(form, "name", most=200).strip(), None
    path = text_in(form, "path").strip()
    if form.get("inline") is True:
        text = text_in(form, "text", most=MAX_TEXT_BYTES)
        path = _ENDINGS.get(text_in(form, "language", most=20), "script")
        if not text.strip():
            raise Refused("invalid", _("there is no text yet"), field="text")
    elif not path.startswith("/"):
        raise Refused("invalid", _("this must be an absolute path, such as /home/me/report.py"), field="path")
    if not name:
        raise Refused("invalid", _("give it a name"), field="name")
    script = replace(script_of(Script(name=name, path=""), form), path=path, is_inline=False)
    return SaveScript(script, text=text)


def changed_script(before: Script, revision: int, form: Form) -> SaveScript:
    """What the form of a script that is there asks for.

    Raises:
        Refused: `invalid`, naming the field.
    """
    return SaveScript(script_of(before, form), revision=revision)


def check_form(command_of: Callable[[Form], SaveScript], state: State, now: float, form: Form) -> None:
    """Check a form as far as it can be before it is saved. It reads a file: never on the loop.

    Raises:
        Refused: naming the field, in the form's own words for it.
    """
    try:
        command = command_of(form)
        script, before = command.script, state.scripts.get(command.script.name)
        if command.text is not None:
            command = replace(command, script=replace(script, path=f"/{script.path}"))
        save_script(state, command, now, "")
        is_other = before is None or before.script.path != script.path
        if command.text is None and is_other:
            _check_file(Path(script.path))
    except Refused as refused:
        raise at_field(refused) from None


def _check_file(path: Path) -> None:
    try:
        read_file(path, most=MAX_TEXT_BYTES)
    except Refused as refused:
        if refused.code != "too_large":  # a program that was compiled
            raise


def at_field(refused: Refused) -> Refused:
    """The refusal, at the field of the form that it is about."""
    field = FIELDS.get(refused.field or "", refused.field)
    return Refused(refused.code, refused.message, field=field)


def mended(form: Form, field: str) -> Form:
    """The form with something in this field that is well."""
    given = form.get("parameters")
    if field.startswith("parameters"):
        name = field.removeprefix("parameters").removeprefix(".")
        kept = [
            one
            for one in (given if isinstance(given, list) and name else [])
            if isinstance(one, dict) and str(one.get("name")).strip() != name
        ]
        return {**form, "parameters": kept}
    rest = {name: value for name, value in form.items() if name != field}  # what is not said stays as it is
    return rest | dict(_WELL.get(field, {}))
