"""What a script's text says of itself: its first line, its comment header, and what `argparse --help` prints. Pure.

Source: the header is that of PEP 723 (inline script metadata), in comments of `#` or `//`; ours is its table
`[tool.koubou]`.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

from koubou_panel.core.script import MAX_PARAMETERS, PARAMETER_NAME, Parameter, ParameterType, check_value
from koubou_panel.core.suggest import nearest
from koubou_panel.errors import Refused

_BLOCK = re.compile(r"(?m)^(#|//) /// script[ \t]*\r?\n((?:^\1(?:| .*)\r?\n)+?)^\1 ///[ \t]*\r?$")
_TOOL_FIELDS = ("parameters", "timeout", "description")
_FIELDS = ("type", "default", "choices", "help", "required", "flag", "negative_flag")
_TYPES: dict[str, ParameterType] = {
    "text": "text",
    "string": "text",
    "str": "text",
    "integer": "integer",
    "int": "integer",
    "number": "number",
    "float": "number",
    "boolean": "boolean",
    "bool": "boolean",
    "choice": "choice",
    "path": "path",
}
HELP_CHARS = 500
USAGE_CHARS = 8_192
NESTED = 50  # brackets within brackets: more is no usage that a person wrote


class Header(NamedTuple):
    """What a header says; None: nothing about that."""

    parameters: tuple[Parameter, ...] | None = None
    timeout_s: float | None = None
    description: str | None = None


# -- the first line -------------------------------------------------------------------------------------------


def shebang(text: str) -> tuple[str, ...]:
    """What the first line (`#!…`) says that runs the file, to go before its path; empty where it says nothing."""
    line = text.partition("\n")[0]
    if not line.startswith("#!"):
        return ()
    program, _, argument = line[2:].strip().partition(" ")
    argument = argument.strip()
    if not program or "\0" in line:
        return ()
    if program.rpartition("/")[2] != "env":
        return (program, argument) if argument else (program,)
    for option in ("-S", "--split-string="):
        argument = argument.removeprefix(option)
    try:
        words = shlex.split(argument)
    except ValueError:
        words = argument.split()
    if not words or words[0].startswith("-") or "=" in words[0]:
        return (program, *words) if words else ()
    return tuple(words)


# -- the header -----------------------------------------------------------------------------------------------


def read_header(text: str) -> Header:
    """What a text's header says.

    Raises:
        Refused: `invalid`: there is one that cannot be read, and where.
    """
    blocks = _BLOCK.findall(text)
    if not blocks:
        return Header()
    if len(blocks) > 1:
        raise _bad("there is more than one block `/// script`")
    mark, body = blocks[0]
    lines = [line.rstrip("\r").removeprefix(mark).removeprefix(" ") for line in body.split("\n")]
    try:
        found = tomllib.loads("\n".join(lines))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _bad(str(error)) from None
    tool = _table(_table(found, "tool"), "koubou")
    _check_fields(tool, _TOOL_FIELDS, "tool.koubou")
    parameters = None
    if "parameters" in tool:
        named = _table(tool, "parameters")
        parameters = tuple(_parameter(name, _table(named, name)) for name in named)
    return Header(parameters, _timeout(tool.get("timeout")), _words(tool, "description"))


def _bad(words: str) -> Refused:
    return Refused("invalid", f"the header of the text cannot be read: {words}", field="text")


def _table(of: Mapping[str, object], name: str) -> dict[str, object]:
    found = of.get(name, {})
    if not isinstance(found, dict):
        raise _bad(f"{name} must be a table")
    return cast("dict[str, object]", found)


def _check_fields(table: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for field in table:
        if field not in known:
            near = nearest(field, known)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
            raise _bad(f"[{where}] has an unknown field {field!r}; {hint}")


def _words(table: Mapping[str, object], field: str) -> str | None:
    found = table.get(field)
    if found is not None and not isinstance(found, str):
        raise _bad(f"{field} must be text")
    return found


def _timeout(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:  # noqa: PLR2004 - 30 years
        raise _bad("timeout must be seconds, 0 for none")
    return float(value) or None


def _parameter(name: str, table: Mapping[str, object]) -> Parameter:
    where = f"tool.koubou.parameters.{name[:100]}"
    _check_fields(table, _FIELDS, where)
    if not PARAMETER_NAME.fullmatch(name):
        raise _bad(f"{name[:100]!r} is no name for a parameter: letters, digits, _ . and -")
    choices, default = table.get("choices", []), table.get("default")
    if not isinstance(choices, list) or not all(isinstance(one, str | int | float) for one in choices):
        raise _bad(f"[{where}] choices must be a list")
    required = table.get("required", False)
    if not isinstance(required, bool):
        raise _bad(f"[{where}] required must be true or false")
    flag = _words(table, "flag")
    parameter = Parameter(
        name=name,
        type=_type_of(table, where),
        is_required=required and default is None,
        choices=tuple(str(one) for one in choices),
        help=(_words(table, "help") or "")[:HELP_CHARS],
        flag=f"--{name.replace('_', '-')}" if flag is None else flag,
        negative_flag=_words(table, "negative_flag") or "",
    )
    if default is None:
        return parameter
    if parameter.type == "choice" and not isinstance(default, str):
        default = str(default)
    return _with_default(parameter, default, where)


def _with_default(parameter: Parameter, default: object, where: str) -> Parameter:
    from msgspec.structs import replace

    try:
        checked = check_value(parameter, default)
    except Refused as refused:
        raise _bad(f"[{where}] default: {refused.message}") from None
    return replace(parameter, default=checked)


def _type_of(table: Mapping[str, object], where: str) -> ParameterType:
    word = table.get("type")
    if word is None:
        return "choice" if table.get("choices") else _type_like(table.get("default"))
    if not isinstance(word, str) or word not in _TYPES:
        near = nearest(str(word), _TYPES)
        hint = f"did you mean {near!r}?" if near else "text, integer, number, boolean, choice or path"
        raise _bad(f"[{where}] type {str(word)[:40]!r} is unknown; {hint}")
    return _TYPES[word]


def _type_like(default: object) -> ParameterType:
    if isinstance(default, bool):
        return "boolean"
    if isinstance(default, int):
        return "integer"
    return "number" if isinstance(default, float) else "text"


# -- what argparse prints -------------------------------------------------------------------------------------

_ARGPARSE = re.compile(r"(?m)^[ \t]*(?:import[ \t]+argparse|from[ \t]+argparse[ \t]+import)\b")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ENTRY = re.compile(r" {2}(\S.*?)(?: {2,}(\S.*))?")
_FLAG = re.compile(r"(--?[^\s,=\[{]+)(?:[ =](.+))?")
_DEFAULT = re.compile(r"\(default: ?(.*?)\)")
_POSITIONAL = re.compile(r"\{[^}]*\}|[\w.-]+")
_SKIPPED = ("help", "version")


def uses_argparse(text: str) -> bool:
    """Whether a Python text reads its arguments by `argparse`, so that `--help` says what they are."""
    return _ARGPARSE.search(text) is not None


def read_help(text: str) -> tuple[Parameter, ...]:
    """The parameters that a page of `argparse` help tells of: its options, then what goes by its place.

    What takes several values at once is left out, unless one will do. Nothing in it is certain but the flags: types are
    taken from choices and defaults.
    """
    text = _ANSI.sub("", text).replace("\r", "")
    start = text.find("usage: ")
    if start < 0:
        return ()
    usage, _, rest = text[start:].partition("\n\n")
    required = _without_brackets(" ".join(usage[:USAGE_CHARS].split()))
    options: list[Parameter] = []
    places: list[Parameter] = []
    for title, invocation, words in _entries(rest):
        if invocation.startswith("-"):
            option = _option(invocation, words, required)
            options += [option] if option else []
        elif title == "positional arguments":
            place = _place(invocation, words, required)
            places += [place] if place else []
    found = {parameter.name: parameter for parameter in [*options, *places]}
    return tuple(found.values())[:MAX_PARAMETERS]


def _without_brackets(usage: str) -> str:
    """A usage line without what may be left out, and without what is one of several."""
    for _ in range(NESTED):
        before, usage = usage, re.sub(r"\[[^\[\]]*\]|\([^()]*\)", " ", usage[:USAGE_CHARS])
        if before == usage:
            break
    return usage


def _entries(text: str) -> Iterator[tuple[str, str, str]]:
    """(title of the section, how it is called, what it does) of every entry."""
    title = ""
    held: list[str] | None = None
    for line in text.split("\n"):
        entry = _ENTRY.fullmatch(line.rstrip()) if line.startswith("  ") and line[2:3] != " " else None
        if held is not None and entry is None and line.startswith("      "):
            held[1] = f"{held[1]} {line.strip()}".strip()
            continue
        if held is not None:
            yield title, held[0], held[1]
            held = None
        if entry is not None:
            held = [entry[1], entry[2] or ""]
        elif line.endswith(":") and not line.startswith(" "):
            title = line[:-1]
    if held is not None:
        yield title, held[0], held[1]


def _option(invocation: str, words: str, required: str) -> Parameter | None:
    calls = [
        shape
        for part in re.split(r", (?=-)", invocation)
        if (shape := _FLAG.fullmatch(part.strip())) is not None
    ]
    flags = [shape[1] for shape in calls]
    value = next((shape[2] for shape in reversed(calls) if shape[2]), "")
    if not flags:
        return None
    negative = next((flag for flag in flags if flag.startswith("--no-") and "--" + flag[5:] in flags), "")
    flag = next((flag for flag in flags if flag.startswith("--") and flag != negative), flags[0])
    name = flag.lstrip("-").replace("-", "_")
    if name in _SKIPPED or not PARAMETER_NAME.fullmatch(name) or _takes_many(value):
        return None
    is_required = any(re.search(rf"(?<!\S){re.escape(one)}(?!\S)", required) for one in flags)
    if not value:
        return _described(Parameter(name=name, type="boolean", flag=flag, negative_flag=negative), words)
    choices = _choices(value)
    parameter = Parameter(
        name=name,
        type="choice" if choices else "text",
        choices=choices,
        flag=flag,
        is_required=is_required,
    )
    return _described(parameter, words)


def _place(invocation: str, words: str, required: str) -> Parameter | None:
    shape = _POSITIONAL.fullmatch(invocation)
    if shape is None:
        return None
    choices = _choices(invocation)
    name = "command" if choices else re.sub(r"[^\w.-]", "_", invocation)
    if not PARAMETER_NAME.fullmatch(name):
        return None
    is_required = re.search(rf"(?<!\S){re.escape(invocation)}(?!\S)", required) is not None
    parameter = Parameter(
        name=name, type="choice" if choices else "text", choices=choices, is_required=is_required
    )
    return _described(parameter, words)


def _choices(value: str) -> tuple[str, ...]:
    shape = re.fullmatch(r"\[?\{([^}]+)\}\]?", value)
    return tuple(shape[1].split(",")) if shape else ()


def _takes_many(value: str) -> bool:
    """Whether an option wants more than one value, by its words: `A B`, but not `A [A ...]`."""
    return len(_without_brackets(re.sub(r"\{[^}]*\}", "X", value)).split()) > 1


def _described(parameter: Parameter, words: str) -> Parameter:
    """With its help, and with its default where that can be one; the script knows it by itself."""
    from msgspec.structs import replace

    parameter = replace(parameter, help=words[:HELP_CHARS], has_own_default=True)
    said = _DEFAULT.search(words)
    text = said[1].strip("'\"") if said else ""
    if not text or text == "None" or text[0] in "[{(<":
        return parameter
    if parameter.type == "text" and _is_number(text):
        parameter = replace(parameter, type="number")
    try:
        default = check_value(parameter, text)
    except Refused:
        return parameter
    return replace(parameter, default=default, is_required=False)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", text) is not None
