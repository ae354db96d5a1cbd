"""What texts say of themselves: first lines, comment headers, and pages of `argparse` help."""

from __future__ import annotations

import argparse
import time

import pytest

from koubou_panel.core.parameter import Header, read_header, read_help, shebang, uses_argparse
from koubou_panel.core.script import Parameter, arguments_of, check_value
from koubou_panel.errors import Refused


@pytest.mark.parametrize(
    ("line", "interpreter"),
    [
        ("#!/bin/sh", ("/bin/sh",)),
        ("#! /bin/sh -e -x", ("/bin/sh", "-e -x")),
        ("#!/usr/bin/env python3", ("python3",)),
        ("#!/usr/bin/env -S python3 -u", ("python3", "-u")),
        ("#!/usr/bin/env -Spython3 -X dev", ("python3", "-X", "dev")),
        ("#!/usr/bin/env --split-string=uv run --script", ("uv", "run", "--script")),
        ("#!/usr/bin/env -S A=1 python3", ("/usr/bin/env", "A=1", "python3")),
        ("#!/usr/bin/env -i sh", ("/usr/bin/env", "-i", "sh")),
        ("#!/bin/bash\r", ("/bin/bash",)),
        ("#!/usr/bin/env", ()),
        ("#!", ()),
        ("# /bin/sh", ()),
        ("", ()),
    ],
)
def test_the_first_line_says_what_runs_a_file(line, interpreter):
    """As the kernel reads it: one argument, unless `env -S` splits it."""
    assert shebang(f"{line}\necho hello\n") == interpreter


def header(*lines, mark="#"):
    """A text with a header."""
    body = "\n".join(f"{mark} {line}" if line else mark for line in lines)
    return f"{mark} says hello\n\n{mark} /// script\n{body}\n{mark} ///\nhello\n"


@pytest.mark.parametrize("mark", ["#", "//"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_header_says_what_a_script_takes(mark, end):
    """In comments of `#` or `//`; the rest of the block is others'."""
    text = header(
        'requires-python = ">=3.11"',
        "",
        "[tool.koubou]",
        "timeout = 30",
        'description = "Says hello"',
        "[tool.koubou.parameters.batch_size]",
        "default = 32",
        'help = "how many"',
        "[tool.koubou.parameters.mode]",
        'choices = ["fast", "slow"]',
        'flag = "-m"',
        "[tool.koubou.parameters.loud]",
        "default = false",
        'negative_flag = "--quiet"',
        "[tool.koubou.parameters.rate]",
        'type = "float"',
        "default = 1",
        "[tool.koubou.parameters.file]",
        'type = "path"',
        'flag = ""',
        "required = true",
        mark=mark,
    ).replace("\n", end)
    assert read_header(text) == Header(
        (
            Parameter(name="batch_size", type="integer", default=32, help="how many", flag="--batch-size"),
            Parameter(name="mode", type="choice", choices=("fast", "slow"), flag="-m"),
            Parameter(name="loud", type="boolean", default=False, flag="--loud", negative_flag="--quiet"),
            Parameter(name="rate", type="number", default=1, flag="--rate"),
            Parameter(name="file", type="path", is_required=True),
        ),
        30.0,
        "Says hello",
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "echo hello",
        "# /// script\n# never ends\n",
        "# /// other\n# [tool.koubou]\n# ///\n",
        "// /// script\n# a = 1\n// ///\n",
    ],
)
def test_no_header_says_nothing(text):
    """A block of another sort, or none."""
    assert read_header(text) == Header()


def test_a_header_without_parameters_says_that_there_are_none_or_nothing():
    """An empty table is a word; a missing one is not."""
    assert read_header(header("[tool.koubou]")).parameters is None
    assert read_header(header("[tool.koubou.parameters]")).parameters == ()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["[tool.koubou"], "line 1"),
        (["[tool]", "koubou = 3"], "koubou must be a table"),
        (["[tool.koubou]", "timout = 3"], "did you mean 'timeout'"),
        (["[tool.koubou]", "timeout = -3"], "0 for none"),
        (["[tool.koubou]", "timeout = nan"], "0 for none"),
        (["[tool.koubou]", "description = 3"], "must be text"),
        (["[tool.koubou.parameters]", "a = 3"], "a must be a table"),
        (["[tool.koubou.parameters.a]", 'tpye = "text"'], "did you mean 'type'"),
        (["[tool.koubou.parameters.a]", 'type = "integr"'], "did you mean 'integer'"),
        (["[tool.koubou.parameters.a]", "choices = 3"], "must be a list"),
        (["[tool.koubou.parameters.a]", "required = 3"], "true or false"),
        (["[tool.koubou.parameters.a]", 'type = "integer"', 'default = "x"'], "whole number"),
        (["[tool.koubou.parameters.a]", 'choices = ["x"]', 'default = "y"'], "one of x"),
        (['[tool.koubou.parameters."a b"]', "default = 1"], "no name for a parameter"),
    ],
)
def test_a_header_that_cannot_be_read_is_refused(lines, words):
    """The refusal says where, and what would do."""
    with pytest.raises(Refused, match=words) as refusal:
        read_header(header(*lines))
    assert (refusal.value.code, refusal.value.field) == ("invalid", "text")


def test_two_headers_are_refused():
    """As PEP 723 has it."""
    with pytest.raises(Refused, match="more than one"):
        read_header(header("a = 1") + header("b = 1"))


NARROW = """\
warning: old
usage: t.py [-h]
            [-e EPOCHS]

optional arguments:
  -h, --help
  -e EPOCHS, --epochs EPOCHS
                        n
                        (default: 3)
"""
COLOURED = (
    "\x1b[1musage: \x1b[0mt.py [-e E]\n\n\x1b[1moptions:\x1b[0m\n"
    "  \x1b[36m-e\x1b[0m E, \x1b[36m--epochs\x1b[0m E  n (default: 3)\n"
)


# -- argparse -------------------------------------------------------------------------------------------------


def parser(**fields):
    """An empty parser, as wide as it is asked for help with."""

    def wide(prog):
        return argparse.ArgumentDefaultsHelpFormatter(prog, width=1_000)

    return argparse.ArgumentParser("train.py", formatter_class=wide, **fields)


def test_a_page_of_help_tells_flags_choices_defaults_and_places():
    """Types are taken from choices and defaults; the script knows its defaults by itself."""
    train = parser(description="Trains a net.\n\n  --not an option of it")
    train.add_argument("-e", "--epochs", type=int, default=3, help="how many, at least 1")
    train.add_argument("--learning-rate", type=float, default=0.1, metavar="RATE", help="how fast")
    train.add_argument("--mode", choices=["fast", "slow"], default="fast")
    train.add_argument("--out", required=True, help="where to")
    train.add_argument("-v", action="store_true", help="say more")
    train.add_argument("--colour", action=argparse.BooleanOptionalAction, default=True, help="in colour")
    train.add_argument("--size", nargs=2, help="two of them")
    train.add_argument("--tags", nargs="+", help="some of them")
    train.add_argument("--version", action="version", version="1")
    train.add_argument("data", help="what to learn")
    train.add_argument("extra", nargs="?", help="and more")
    own = {"has_own_default": True}
    assert read_help(train.format_help()) == (
        Parameter(
            name="epochs",
            type="number",
            default=3,
            flag="--epochs",
            help="how many, at least 1 (default: 3)",
            **own,
        ),
        Parameter(
            name="learning_rate",
            type="number",
            default=0.1,
            flag="--learning-rate",
            help="how fast (default: 0.1)",
            **own,
        ),
        Parameter(name="mode", type="choice", choices=("fast", "slow"), flag="--mode", **own),
        Parameter(name="out", flag="--out", is_required=True, help="where to (default: None)", **own),
        Parameter(
            name="v", type="boolean", default=False, flag="-v", help="say more (default: False)", **own
        ),
        Parameter(
            name="colour",
            type="boolean",
            default=True,
            flag="--colour",
            negative_flag="--no-colour",
            help="in colour (default: True)",
            **own,
        ),
        Parameter(name="tags", flag="--tags", help="some of them (default: None)", **own),
        Parameter(name="data", is_required=True, help="what to learn", **own),
        Parameter(name="extra", help="and more (default: None)", **own),
    )


def test_groups_commands_and_exclusive_options_are_read():
    """Titles may be others; of two that exclude each other none is required by itself."""
    train = parser()
    group = train.add_argument_group("how it looks", "Nothing of it matters.")
    group.add_argument("--theme", help="a name")
    one = train.add_mutually_exclusive_group(required=True)
    one.add_argument("--fast", action="store_true")
    one.add_argument("--slow", action="store_true")
    commands = train.add_subparsers(required=True)
    commands.add_parser("fit")
    commands.add_parser("score")
    found = {parameter.name: parameter for parameter in read_help(train.format_help())}
    assert set(found) == {"theme", "fast", "slow", "command"}
    assert not found["fast"].is_required
    assert (found["command"].choices, found["command"].is_required) == (("fit", "score"), True)


@pytest.mark.parametrize(
    "page",
    [
        # Python 3.13 writes the value once
        "usage: t.py [-e EPOCHS]\n\noptions:\n  -e, --epochs EPOCHS   n (default: 3)\n",
        NARROW,
        COLOURED,
    ],
)
def test_pages_of_other_versions_are_read(page):
    """Wherever the value stands, and however the page is wrapped."""
    (epochs,) = read_help(page)
    assert (epochs.name, epochs.flag, epochs.type, epochs.default) == ("epochs", "--epochs", "number", 3)
    assert epochs.help == "n (default: 3)"


@pytest.mark.parametrize(
    "page", ["", "no help here", "usage: t.py\n", "Traceback (most recent call last):\n  x"]
)
def test_what_is_no_page_of_help_tells_nothing(page):
    """A script may print what it likes."""
    assert read_help(page) == ()


def test_a_default_that_is_no_value_is_left_to_the_script():
    """Words about a default are none."""
    train = parser()
    train.add_argument("--jobs", choices=["1", "2"], help="how many (default: as many as there are cores)")
    train.add_argument("--list", default=[1, 2], help="x")
    assert [parameter.default for parameter in read_help(train.format_help())] == [None, None]


def test_what_the_script_knows_by_itself_is_not_passed():
    """Only what it is given."""
    train = parser()
    train.add_argument("--epochs", type=int, default=3, help="n")
    train.add_argument("--rate", type=float, default=0.5, help="n")
    known = read_help(train.format_help())
    assert arguments_of(known, {}) == []
    assert arguments_of(known, {"epochs": "4"}) == ["--epochs=4"]
    assert arguments_of(known, {"rate": 0.25, "epochs": 5}) == ["--epochs=5", "--rate=0.25"]
    assert check_value(known[0], "4") == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import argparse\n", True),
        ("    from argparse import ArgumentParser\n", True),
        ("# import argparse\n", False),
        ("import argparse_extra\n", False),
    ],
)
def test_use_of_argparse_is_seen(text, expected):
    """By its import."""
    assert uses_argparse(text) is expected


@pytest.mark.parametrize(
    "usage", ["[" * 20_000 + "])" * 20_000, "(" * 100_000, "[(" * 50_000 + ")]" * 50_000, "[a] " * 50_000]
)
def test_a_usage_that_nobody_wrote_takes_no_time(usage):
    """However its brackets are nested."""
    begin = time.process_time()
    read_help(f"usage: x {usage}\n\noptions:\n  --out {usage}\n")
    assert time.process_time() - begin < 1.0
