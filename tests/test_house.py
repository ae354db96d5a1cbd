"""The house keeps its plan: which way imports go, what stays pure, and what never loads Panel.

The plan is that of `docs/architecture.md`; the tables below are its short form. `faults_in` is the whole
check of one file, and is itself tested on sources that break each rule.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "koubou_panel"

# A part may import the parts of earlier rows. Parts of one row are siblings and do not know each other.
ROWS = [
    ["errors", "running", "on_import"],
    ["core"],
    ["wire", "kinds", "engines", "samplers", "archive", "channels", "exporters"],
    ["home", "settings", "registry", "capture", "meters"],
    ["worker", "config"],
    ["shop"],
    ["reactive", "testing"],
    ["views"],
    ["servers"],
    ["notebook"],
    ["supervising"],
    ["supervisor"],
    ["cli"],
    ["__main__"],
]
RANK = {part: rank for rank, row in enumerate(ROWS) for part in row}

# Narrower than the row allows: the only parts that these may import beside themselves.
ONLY = {
    "__init__": {"errors", "running", "on_import"},  # public names are in a table, looked up when used
    # The supervisor is small: of the servers it knows how an Ollama is asked.
    "supervising": {"errors", "core", "home", "settings", "servers"},
    "supervisor": {"errors", "core", "home", "settings", "supervising"},
}
# Earlier rows that are closed all the same.
CLOSED = {
    "worker": {"settings"},  # a worker is told what it needs by the shop
    "reactive": {"shop"},  # as views
    "views": {"shop"},  # they are handed one, by the Protocol in core
}

# What `core` may import from outside: it computes, and touches nothing. A clock, randomness and files come in
# as arguments, so `time`, `random`, `uuid`, `os`, `pathlib` and `asyncio` are not here.
PURE = {
    *{"__future__", "abc", "base64", "bisect", "calendar", "collections", "copy", "dataclasses", "datetime"},
    *{"decimal", "difflib", "enum", "fnmatch", "fractions", "functools", "graphlib", "hashlib", "heapq"},
    *{"ipaddress", "itertools", "json", "math", "numbers", "operator", "re", "shlex", "statistics", "string"},
    *{"struct", "textwrap", "tomllib", "types", "typing", "unicodedata", "zlib", "msgspec"},
    *{"contextlib"},
    # The calendar: a table of constants on the disk, and arithmetic over it.
    *{"zoneinfo", "cronsim"},
}
# What even those modules and the built-ins can reach out with.
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "datetime.now", "datetime.utcnow", "date.today"}

# `wire` is sans-I/O: text in, texts out.
IO_MODULES = {
    *{"asyncio", "concurrent", "http", "multiprocessing", "select", "selectors", "socket", "ssl"},
    *{"subprocess", "threading", "time", "tornado", "uvicorn", "websockets"},
}

# What the workshop process is made of. Importing any of it loads no Panel: building a page must never hold up
# a dispatch, and a worker should start at once.
PANEL = {"panel", "bokeh"}
LIGHT = {
    *{
        "__init__",
        "__main__",
        "errors",
        "on_import",
        "running",
        "core",
        "wire",
        "kinds",
        "engines",
        "samplers",
        "archive",
        "channels",
    },
    *{
        "exporters",
        "home",
        "settings",
        "registry",
        "capture",
        "meters",
        "config",
        "worker",
        "shop",
        "testing",
        "supervising",
        "supervisor",
        "cli",
    },
    "servers",
}
# The servers of the dashboard process, and of `panel serve`.
DASHBOARD = {"servers.dashboard", "servers.plugin"}
# The light parts that may load them inside a function, when asked: an HTML report, a page of its own process.
LIGHT_UNTIL_ASKED = {"exporters", "cli"}

OUTSIDE = {"apps", "benchmarks", "notebooks", "tests"}


@dataclass(frozen=True)
class Import:
    """One import as written: the module it names, its line, and where it stands."""

    target: str
    line: int
    in_function: bool
    type_checking: bool


def faults_in(module: str, source: str) -> list[str]:
    """What this file does that the plan forbids, in words, as `line N: …`.

    Args:
        module: dotted name inside the package, such as `core.fold` or `core.__init__`.
        source: the file's text.

    """
    tree = ast.parse(source)
    part = module.partition(".")[0]
    if part not in RANK and part != "__init__":
        return [f"line 1: {part!r} has no place in the plan: give it a row in ROWS, and a word in the docs"]
    faults = [] if ast.get_docstring(tree) else ["line 1: no module docstring"]
    for found in imports_of(tree, module):
        faults += [f"line {found.line}: {fault}" for fault in _faults_of(found, module, part)]
    if part == "core":
        faults += [f"line {line}: core is pure and calls {name}()" for name, line in _impure_calls(tree)]
    return faults


def _faults_of(found: Import, module: str, part: str) -> Iterator[str]:
    top, _, rest = found.target.partition(".")
    if top == PACKAGE:
        yield from _faults_inside(found, part, rest.partition(".")[0])
        return
    if top in OUTSIDE:
        yield f"the package imports {top}"
    if part == "core" and top not in PURE:
        yield f"core imports {top}, which is not on its list of pure modules"
    if part == "wire" and top in IO_MODULES:
        yield f"wire is sans-I/O and imports {top}"
    asked = part in LIGHT_UNTIL_ASKED and found.in_function
    if top in PANEL and _is_light(module) and not asked:
        yield f"{module} is part of the workshop process and imports {top}"


def _is_light(module: str) -> bool:
    return module.partition(".")[0] in LIGHT and module not in DASHBOARD


def _faults_inside(found: Import, part: str, other: str) -> Iterator[str]:
    if other == part:
        return
    if found.type_checking:
        yield f"TYPE_CHECKING is no door: {part} imports {other}"
    if not other:
        # `from koubou_panel import Workshop` goes by the table of public names, past every row
        if part in RANK and RANK[part] < RANK["cli"]:
            yield f"{part} imports the package's public names: import the module that defines them"
    elif part in ONLY:
        if other not in ONLY[part]:
            yield f"{part} imports {other}; it may import only {', '.join(sorted(ONLY[part]))}"
    elif other not in RANK:
        yield f"{part} imports {other}, which has no place in the plan"
    elif RANK[other] >= RANK[part] or other in CLOSED.get(part, ()):
        yield f"{part} imports {other}"


def imports_of(tree: ast.Module, module: str) -> Iterator[Import]:
    """Every import of a module, also in functions, under TYPE_CHECKING, relative, and by `import_module`."""
    package = [PACKAGE, *module.split(".")[:-1]]
    for node, in_function, type_checking in _walk(tree):
        for target in _targets(node, package):
            yield Import(target, node.lineno, in_function, type_checking)


def _targets(node: ast.AST, package: list[str]) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [name.name for name in names]
        case ast.ImportFrom(module=source, names=names, level=level):
            start = ".".join(package[: len(package) - level + 1]) if level else ""
            base = ".".join(filter(None, [start, source]))
            if base == PACKAGE:  # its names may be modules
                return [f"{PACKAGE}.{name.name}" if _is_part(name.name) else PACKAGE for name in names]
            return [base]
        case ast.Call(func=func, args=[ast.Constant(value=str(target)), *_]):
            return [target] if _dotted(func).endswith(("import_module", "__import__")) else []
    return []


def _is_part(name: str) -> bool:
    return name in RANK or (ROOT / PACKAGE / name).exists() or (ROOT / PACKAGE / f"{name}.py").exists()


def _walk(
    node: ast.AST, *, in_function: bool = False, type_checking: bool = False
) -> Iterator[tuple[ast.AST, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, in_function, type_checking
        inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = isinstance(child, ast.If) and _dotted(child.test).endswith("TYPE_CHECKING")
        yield from _walk(child, in_function=in_function or inner, type_checking=type_checking or guarded)


def _impure_calls(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _dotted(node.func)
            if name in IMPURE_CALLS or ".".join(name.split(".")[-2:]) in IMPURE_CALLS - {"open", "print"}:
                yield name, node.lineno


def _dotted(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{_dotted(value)}.{attr}"
    return ""


def _modules() -> dict[str, Path]:
    """The package's modules by dotted name inside it: `core.fold`, `core.__init__`, `errors`."""
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return {".".join(file.relative_to(ROOT / PACKAGE).with_suffix("").parts): file for file in files}


MODULES = _modules()


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_the_plan(module: str) -> None:
    """A module has a docstring, a place in the plan, and only the imports that its place allows."""
    assert faults_in(module, MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("errors", "import koubou_panel.core.fold", "errors imports core"),
        ("core.fold", "from koubou_panel.wire import server", "core imports wire"),
        ("core.fold", "from ..wire import server", "core imports wire"),
        ("core.fold", "from koubou_panel import shop", "core imports shop"),
        ("core.fold", "from koubou_panel import Workshop", "imports the package's public names"),
        ("core.fold", "def f():\n    from koubou_panel.views.page import p", "core imports views"),
        ("core.fold", "import importlib\nimportlib.import_module('koubou_panel.cli')", "core imports cli"),
        ("core.fold", "import asyncio", "not on its list of pure modules"),
        ("core.fold", "from time import time", "not on its list of pure modules"),
        ("core.fold", "from datetime import datetime\nx = datetime.now()", "calls datetime.now()"),
        ("core.fold", "import datetime\nx = datetime.datetime.now()", "calls datetime.datetime.now()"),
        ("core.fold", "x = open('f')", "calls open()"),
        ("core.fold", "def f(): ...", "no module docstring"),
        ("wire.server", "import socket", "sans-I/O and imports socket"),
        ("engines.local", "from koubou_panel.kinds import script", "engines imports kinds"),
        ("engines.local", "from koubou_panel.settings import Settings", "engines imports settings"),
        ("archive.sqlite", "from koubou_panel import settings", "archive imports settings"),
        ("kinds.script", "import panel as pn", "part of the workshop process and imports panel"),
        ("exporters.html", "from bokeh.embed import file_html", "imports bokeh"),
        ("servers.socket", "def f():\n    import panel", "part of the workshop process and imports panel"),
        ("registry", "from koubou_panel.settings import Settings", "registry imports settings"),
        ("worker", "from koubou_panel.settings import Settings", "worker imports settings"),
        ("worker", "from koubou_panel.shop import hub", "worker imports shop"),
        ("reactive.mirror", "from koubou_panel.shop.hub import Hub", "reactive imports shop"),
        ("views.page", "from koubou_panel.shop.hub import Hub", "views imports shop"),
        ("servers.socket", "from koubou_panel.notebook import workshop", "servers imports notebook"),
        ("supervisor", "from koubou_panel.shop import local", "supervisor imports shop"),
        ("shop.hub", "from koubou_panel.testing import until", "shop imports testing"),
        ("cli.up", "import panel", "part of the workshop process and imports panel"),
        ("cli.up", "from tests import conftest", "the package imports tests"),
        ("__init__", "from koubou_panel.notebook import workshop", "may import only errors"),
        ("helpers", "import json", "has no place in the plan"),
        ("cli.up", "from koubou_panel.helpers import x", "has no place in the plan"),
        (
            "views.page",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from koubou_panel.core import records",
            "TYPE_CHECKING is no door",
        ),
    ],
)
def test_checker_finds(module: str, line: str, fault: str) -> None:
    """The checker finds each kind of fault, so that its silence means something."""
    docstring = "" if "docstring" in fault else '"""Something."""\n'
    assert any(fault in found for found in faults_in(module, docstring + line + "\n")), fault


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core.fold", "from datetime import datetime\nx = datetime.fromtimestamp(0)"),
        ("core.fold", "from koubou_panel.core.records import Task\nfrom koubou_panel.errors import Refused"),
        ("core.codec", "import msgspec"),
        ("engines.local", "import asyncio\nfrom koubou_panel.core import ports"),
        ("worker", "from koubou_panel.registry import find"),
        ("shop.hub", "from koubou_panel.settings import Settings\nfrom koubou_panel.engines import local"),
        ("exporters.html", "def write():\n    from bokeh.embed import file_html"),
        ("views.page", "import panel as pn\nfrom koubou_panel.reactive.mirror import Mirror"),
        ("servers.dashboard", "import panel as pn\nfrom koubou_panel.shop import remote"),
        ("testing", "from koubou_panel.engines import inline\nfrom koubou_panel.shop import clock"),
        ("__main__", "from koubou_panel.cli import main"),
    ],
)
def test_checker_is_silent_on_what_the_plan_allows(module: str, line: str) -> None:
    """The checker has nothing against imports that go down."""
    assert faults_in(module, f'"""Something."""\n{line}\n') == []


@pytest.mark.parametrize(
    "file", sorted(f for folder in OUTSIDE for f in (ROOT / folder).rglob("*.py")), ids=lambda f: f.name
)
def test_file_says_what_it_is(file: Path) -> None:
    """Every Python file beside the package has a docstring too."""
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


IMPORT_EACH = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        # an optional library is not installed
        if (error.name or "").startswith("koubou_panel"):
            raise
    loaded = {"panel", "bokeh"} & set(sys.modules)
    if loaded:
        sys.exit(f"importing {name} loads {', '.join(sorted(loaded))}")
"""


def test_workshop_process_loads_no_panel(tmp_path: Path) -> None:
    """Importing everything that the workshop process is made of, for real, loads neither Panel nor Bokeh."""
    light = [name for name in MODULES if _is_light(name) and not name.endswith("__main__")]
    names = [f"{PACKAGE}.{name}".removesuffix(".__init__") for name in light]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH, *names], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_nothing_of_it() -> None:
    """`import koubou_panel` loads its smallest module alone, and an unknown public name is an AttributeError."""
    check = (
        "import koubou_panel, sys; "
        "loaded = [name for name in sys.modules if name.startswith('koubou_panel.')]; "
        "assert loaded == ['koubou_panel.on_import']; "
        "assert not hasattr(koubou_panel, 'NoSuchName'); "
        "assert koubou_panel.Refused.__module__ == 'koubou_panel.errors'"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
