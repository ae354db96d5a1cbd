"""The browser's modules as one text: for a notebook, where nobody serves the files that they import each other from.

Each module becomes a function that gives what it exports, so that no two names meet. It understands the forms that our
own modules keep to, and refuses any other: an import or export on one line, of names, at the line's beginning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path

from koubou_panel.errors import KoubouError
from koubou_panel.views.theme import ASSETS

JS = ASSETS / "js"
#: The entry of what is shown in a notebook, and what stands there in the place of a page's own modules.
INLINE = JS / "inline" / "main.js"
IN_PLACE_OF = {JS / "route.js": JS / "inline" / "route.js"}

_NAMES = r"[\w$]+(?:, [\w$]+)*"
_IMPORT = re.compile(rf'import \{{({_NAMES})\}} from "(\.{{1,2}}/[\w./]+\.js)"')
_EXPORT = re.compile(r"export (?=(?:const|(?:async )?function) ([\w$]+))")
_ANY = re.compile(r"^\s*(?:import\b(?!\.)|export\b)|\bimport\(", re.MULTILINE)


class UnknownForm(KoubouError):
    """A module has an import or export of a form that cannot be joined."""


@cache
def inline_code() -> str:
    """The module that draws in a notebook, whole; it exports `mount`."""
    return joined(INLINE, IN_PLACE_OF)


@cache
def inline_version() -> str:
    """Names the text of `inline_code`."""
    return sha256(inline_code().encode()).hexdigest()[:12]


def joined(entry: Path, in_place_of: Mapping[Path, Path] | None = None) -> str:
    """A module and all that it imports as one module without imports, which exports what `entry` does.

    Args:
        entry: its file.
        in_place_of: by file, another one that is taken instead; that one may import it.

    Raises:
        UnknownForm: an import or export of another form, or modules that import each other in a circle.
    """
    parts: list[str] = []
    names: dict[Path, list[str]] = {}
    _join(entry, dict(in_place_of or {}), parts, names, ())
    given = ", ".join(f"{name} = m.{name}" for name in names[entry])
    return "".join([*parts, f"const m = m{len(names) - 1}\n", f"export const {given}\n" if given else ""])


def _join(
    file: Path,
    instead: Mapping[Path, Path],
    parts: list[str],
    names: dict[Path, list[str]],
    way: tuple[Path, ...],
) -> str:
    """The name of the module of `file`, with its text among `parts`, after those that it needs."""
    if file in way:
        raise UnknownForm(f"{file.name} imports itself, through {', '.join(one.name for one in way)}")
    if file not in names:
        lines: list[str] = []
        exported: list[str] = []
        for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            found = _IMPORT.fullmatch(text)
            if found:
                wanted = (file.parent / found[2]).resolve()
                chosen = wanted if instead.get(wanted) == file else instead.get(wanted, wanted)
                module = _join(chosen, instead, parts, names, (*way, file))
                lines.append(f"const {{{found[1]}}} = {module}")
                continue
            line = _without_export(text, exported)
            if _ANY.search(line):
                raise UnknownForm(f"{file.name}:{number} cannot be joined: {text.strip()[:80]}")
            lines.append(line)
        names[file] = exported
        body = "\n".join(lines)
        given = ", ".join(exported)
        parts.append(
            f"// {file.name}\nconst m{len(names) - 1} = (() => {{\n{body}\nreturn {{{given}}}\n}})()\n"
        )
    return f"m{list(names).index(file)}"


def _without_export(text: str, exported: list[str]) -> str:
    """The line as it stands within a function; what it exports is added to `exported`."""
    found = _EXPORT.match(text)
    if not found:
        return text
    exported.append(found[1])
    return text[found.end() :]
