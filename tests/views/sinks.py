"""Finds what would run HTML or a script that somebody wrote: in Python, in the browser's modules, in templates.

`python_sinks`, `browser_sinks` and `template_sinks` are each the whole check of one file; `test_sinks.py` tries them
on the package and on sources that break each rule.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

LIBRARIES = ("panel", "bokeh")
FIXED = "a constant text"

# Classes of Panel and Bokeh that turn a text, a title or a label into HTML: each was seen to run what it was given.
CLASSES = {
    *{"Accordion", "Card", "Alert", "HTML", "Markdown", "Str", "StaticText", "MultiChoice", "Tabulator"},
    *{"DataFrame", "DataTable", "TableColumn", "Number", "Feed", "ChatMessage", "ChatFeed", "ChatInterface"},
    *{"TooltipIcon", "Tooltip", "Debugger", "Div", "notifications"},
    # The same family: they take HTML by their very purpose, or guess what a text is.
    *{"HTMLTemplateFormatter", "JSCode", "Placeholder", "ChatStep", "HTMLBox", "LaTeX", "Trend", "panel"},
}
# A text among what these hold becomes a Markdown pane.
LAYOUTS = {"Column", "Row", "Tabs", "FlexBox", "WidgetBox", "GridBox", "GridSpec", "Swipe", "Modal", "Drawer"}
# Bokeh runs `code` as it stands: nothing may be put into it.
CODE = {
    "CustomJS",
    "CustomJSHover",
    "CustomJSTickFormatter",
    "CustomJSTransform",
    "CustomJSFilter",
    "CustomJSExpr",
}

BROWSER = {
    "innerHTML": r"\binnerHTML\b",
    "outerHTML": r"\bouterHTML\b",
    "insertAdjacentHTML": r"\binsertAdjacentHTML\b",
    "setHTML": r"\b(?:setHTML|setHTMLUnsafe|parseHTMLUnsafe|getHTML)\b",
    "document.write": r"\bdocument\s*\.\s*write(?:ln)?\b",
    "srcdoc": r"\bsrcdoc\b",
    "eval": r"\beval\b",
    "Function": r"\bFunction\s*\(",
    "timer with a text": r"\bset(?:Timeout|Interval)\s*\(\s*[\"'`]",
    "handler as an attribute": r"""\bsetAttribute(?:NS)?\s*\([^)]*["'`]on\w""",
    "attribute named by data": r"\bsetAttribute\s*\(\s*(?![\"'`\s])",
    "javascript:": r"(?i)javascript:",
    "DOMParser": r"\bDOMParser\b",
    "createContextualFragment": r"\bcreateContextualFragment\b",
    "element named by data": r"\bcreateElement\s*\(\s*(?![\"'`\s])",
    "element that runs": (
        r"""(?i)\b(?:createElement|h)\s*\(\s*["'`](?:script|iframe|object|embed|frame|base|link|meta)\b"""
    ),
    "address": (
        r"""(?:\.(?:href|src|action|formAction|data)\s*=(?!=)(?!\s*addressOf(?:Page)?\())"""
        r"""|\bsetAttribute\s*\(\s*["'`](?:href|src|action|formaction|xlink:href)\b"""
    ),
    "location": r"\blocation\s*(?:\.\s*(?:href|assign|replace)\b\s*[=(](?!=)|=(?!=))|\bwindow\s*\.\s*open\b",
    "style as a text": (
        r"""\bcssText\b|\binsertRule\b|\breplaceSync\b|\.style\s*=(?!=)|\bsetAttribute\s*\(\s*["'`]style\b"""
    ),
    "import of data": r"\bimport\s*\(\s*(?![\"'\s])",
}

# A string, a template's text, a comment: in the last nothing runs.
_COMMENT = re.compile(
    r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|//[^\n]*|/\*.*?\*/""", re.DOTALL
)
_SAFE = re.compile(r"\{\{\s*([^{}|]*?)\s*\|[^{}]*\bsafe\b[^{}]*\}\}")
_UNESCAPED = re.compile(r"\{%-?\s*autoescape\s+false|\bMarkup\b")


def browser_sinks(source: str) -> list[tuple[int, str]]:
    """(line, sink) for each place in a module of the browser's half where HTML, a script or an address is made."""
    bare = _COMMENT.sub(lambda found: found[1] or re.sub(r"[^\n]", " ", found[0]), source)
    found = [
        (bare.count("\n", 0, match.start()) + 1, name)
        for name, pattern in BROWSER.items()
        for match in re.finditer(pattern, bare)
    ]
    return sorted(found)


def template_sinks(source: str) -> list[str]:
    """What a template puts into its page without escaping it."""
    return [*_SAFE.findall(source), *(found.strip("{% ") for found in _UNESCAPED.findall(source))]


def python_sinks(source: str) -> list[tuple[int, str]]:
    """(line, sink) for each use of what turns text into HTML, or data into a script."""
    tree = ast.parse(source)
    names = dict(_imported(tree))
    names |= dict.fromkeys(_fixed(tree), FIXED)
    found = {pair for node in ast.walk(tree) for pair in _sinks_of(node, names)}
    return sorted(found)


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(name here, dotted name there) of all that is imported anywhere in the module."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                for alias in aliases:
                    here = alias.asname or alias.name.partition(".")[0]
                    yield here, alias.name if alias.asname else here
            case ast.ImportFrom(module=str(module), names=aliases, level=0):
                for alias in aliases:
                    yield alias.asname or alias.name, f"{module}.{alias.name}"


def _fixed(tree: ast.Module) -> Iterator[str]:
    """The module's own constant texts: set once, where the module begins."""
    stored = [
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant()) if stored.count(name) == 1:
                yield name


def _sinks_of(node: ast.AST, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    match node:
        case ast.ImportFrom(module=str(module), names=aliases) if module.split(".")[0] in LIBRARIES:
            for alias in aliases:
                if alias.name in CLASSES or alias.name == "*":
                    yield node.lineno, alias.name
        case ast.Attribute(attr=attr) if attr in CLASSES and _library(node, names):
            yield node.lineno, attr
        case ast.Call():
            yield from _sinks_of_call(node, names)
        case ast.Assign(targets=targets, value=value) if any(_is_objects(target) for target in targets):
            yield from ((node.lineno, "text in a layout") for part in _parts(value) if _is_text(part))


def _sinks_of_call(node: ast.Call, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    called = _dotted(node.func, names)
    is_theirs, last = called.split(".")[0] in LIBRARIES, called.rpartition(".")[2]
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if is_theirs and last in LAYOUTS:
        held = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "objects")]
        given = [part for arg in held for part in _parts(arg)]
        yield from ((node.lineno, "text in a layout") for part in given if _is_text(part))
    code = keywords.get("code")
    is_fixed = isinstance(code, ast.Constant) or (code is not None and _dotted(code, names) == FIXED)
    if is_theirs and last in CODE and not is_fixed:
        yield node.lineno, f"{last} with code that is made"
    tooltips = keywords.get("tooltips")
    if tooltips is not None and (_is_text(tooltips) or _says_safe(tooltips)):
        yield node.lineno, "tooltips as HTML"


def _library(node: ast.Attribute, names: dict[str, str]) -> bool:
    return _dotted(node, names).split(".")[0] in LIBRARIES


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
    match node:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=value, attr=attr):
            base = _dotted(value, names)
            return f"{base}.{attr}" if base else ""
    return ""


def _is_objects(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "objects"


def _parts(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.List | ast.Tuple):
        return [part for element in node.elts for part in _parts(element)]
    return _parts(node.value) if isinstance(node, ast.Starred) else [node]


def _is_text(node: ast.AST) -> bool:
    """Whether this is plainly a text: a literal, an f-string, one that is put together, or what makes one."""
    match node:
        case ast.Constant(value=str()) | ast.JoinedStr():
            return True
        case ast.BinOp(left=left, right=right):
            return _is_text(left) or _is_text(right)
        case ast.Call(func=ast.Name(id="str" | "_" | "ngettext" | "line" | "block" | "markup" | "later")):
            return True
        case ast.Call(func=ast.Attribute(value=value, attr="format" | "join" | "strip")):
            return _is_text(value)
    return False


def _says_safe(node: ast.AST) -> bool:
    texts = (
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    )
    return any("{safe}" in text or "<" in text for text in texts)
