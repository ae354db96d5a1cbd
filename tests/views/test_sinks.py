"""Nothing on a page turns what somebody wrote into HTML or a script.

What may is listed here with its reason, file by file, and nothing more: a line that is no longer needed fails too.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.views.sinks import BROWSER, CLASSES, CODE, LAYOUTS, browser_sinks, python_sinks, template_sinks

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "koubou_panel" / "views" / "assets"

#: By file, the sinks that it may have, and why nothing that somebody wrote gets there.
ALLOWED = {
    "apps/own_panel.py": {
        "Number": "titles that stand in the code",
        "Tabulator": "titles that stand in the code; its cells, where tasks' words are, show text",
        "Trend": "a title that stands in the code",
    },
    "notebooks/own_dashboard.ipynb": {
        "Tabulator": "as in the example app",
        "Trend": "as in the example app",
    },
    "koubou_panel/views/assets/js/ace.js": {
        "address": "of the editor's own files, which Panel brings along: a fixed place beside this module",
        "element that runs": "the editor's own script, from there",
        "style as a text": "the editor's theme has none: it is our style sheet's",
    },
    "koubou_panel/views/assets/js/dom.js": {
        "element named by data": "`h` takes a name that stands in the code",
        "attribute named by data": "so does `setAttr`",
    },
    "koubou_panel/views/assets/js/inline/boot.js": {
        "import of data": "our own modules in one, which the output's kernel sent",
        "element that runs": "the words as JSON, which nothing runs",
    },
    "koubou_panel/views/assets/js/inline/main.js": {
        "element that runs": "Bokeh's own script, which the output's kernel sent",
        "style as a text": "our own style sheet, from there",
    },
    "koubou_panel/views/assets/js/palette.js": {
        "attribute named by data": "the names stand in the code, a line above",
    },
    "koubou_panel/views/system.py": {
        "CustomJSHover with code that is made": "two constants of the module, one in the other",
    },
    "koubou_panel/views/assets/js/route.js": {
        "address": "the one place where addresses are made: of this page's own path, data only after `?`",
    },
}
#: What the templates put in as it stands.
UNESCAPED = {
    "style": "our own style sheet",
    "script": "our own script",
    "words": "our own catalogue as JSON, with `<` escaped: in a script element only an end tag has a meaning",
}


def python_sources() -> dict[str, str]:
    """All of our Python that may make a page, by its path: notebooks' cells too."""
    found = {
        str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
        for folder in ("koubou_panel", "apps", "notebooks", "benchmarks")
        for file in sorted((ROOT / folder).rglob("*.py"))
    }
    for file in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        plain = [
            line for cell in code for line in cell.splitlines() if not line.lstrip().startswith(("%", "!"))
        ]
        found[str(file.relative_to(ROOT))] = "\n".join(plain)
    return found


def browser_sources() -> dict[str, str]:
    """All of our scripts, by their path."""
    return {
        str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in sorted(ASSETS.rglob("*.js"))
    }


PYTHON, SCRIPTS = python_sources(), browser_sources()


def unexpected(path: str, found: list[tuple[int, str]]) -> list[str]:
    """What of `found` nobody has allowed."""
    return [f"{path}:{line}: {sink}" for line, sink in found if sink not in ALLOWED.get(path, {})]


def test_no_python_makes_html() -> None:
    """Nothing of Panel's and Bokeh's that runs HTML is used anywhere, in pages, apps or notebooks."""
    assert [
        fault for path, source in PYTHON.items() for fault in unexpected(path, python_sinks(source))
    ] == []


def test_no_script_makes_html() -> None:
    """The browser's half makes nodes and texts; of addresses there is one maker."""
    assert len(SCRIPTS) > 10
    assert [
        fault for path, source in SCRIPTS.items() for fault in unexpected(path, browser_sinks(source))
    ] == []


def test_templates_escape() -> None:
    """The templates put in unescaped only what is ours, and have no handlers in attributes."""
    for file in sorted(ASSETS.rglob("*.html")):
        source = file.read_text(encoding="utf-8")
        assert set(template_sinks(source)) <= UNESCAPED.keys(), file.name
        assert not [word for word in source.split() if word.lower().startswith("on") and "=" in word], (
            file.name
        )


def test_the_list_is_no_longer_than_needed() -> None:
    """What is allowed is there: an exception that nobody needs any more is a hole."""
    for path, sinks in ALLOWED.items():
        source = (PYTHON | SCRIPTS)[path]
        found = python_sinks(source) if path.endswith((".py", ".ipynb")) else browser_sinks(source)
        assert {sink for _, sink in found} >= sinks.keys(), path
    templates = [
        name for file in ASSETS.rglob("*.html") for name in template_sinks(file.read_text(encoding="utf-8"))
    ]
    assert set(templates) == UNESCAPED.keys()


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_each_class_is_found(name: str) -> None:
    """A class that runs HTML is found however it is imported and used."""
    for source in (
        f"import panel as pn\npn.widgets.{name}(x)",
        f"import panel\nmake = panel.{name}",
        f"from panel.pane import {name}",
        f"from bokeh import models as m\nm.{name}(text=name)",
        f"def f():\n    from bokeh.models import {name} as Plain\n    return Plain(name)",
    ):
        assert name in [sink for _, sink in python_sinks(source)], source


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        *((f"import panel as pn\npn.{layout}({{}})", "text in a layout") for layout in sorted(LAYOUTS)),
        ("from bokeh.models import *", "*"),
        ("import panel as pn\npn.Row(objects=[{}])", "text in a layout"),
        ("from panel import Column\nColumn(*[card, {}])", "text in a layout"),
        ("place.objects = [card, {}]", "text in a layout"),
        *(
            (f"from bokeh.models import {name}\n{name}(code={{}} % 1)", f"{name} with code that is made")
            for name in sorted(CODE)
        ),
        (
            "from bokeh.models import CustomJS\nC = 'x'\nC += {}\nCustomJS(code=C)",
            "CustomJS with code that is made",
        ),
        ("import bokeh.models as m\nm.HoverTool(tooltips={})", "tooltips as HTML"),
        ("fig = figure(tooltips=[('task', '@name{{safe}}')])", "tooltips as HTML"),
    ],
)
@pytest.mark.parametrize(
    "text", ["'x'", "f'{task.name}'", "line(name)", "_('Hi') + name", "'{}'.format(name)"]
)
def test_each_misuse_is_found(source: str, sink: str, text: str) -> None:
    """A text where a layout holds cards, code that is put together and tooltips with markup are found."""
    shown = source.replace("{}", text).replace("{{", "{").replace("}}", "}")
    assert sink in [found for _, found in python_sinks(shown)]


@pytest.mark.parametrize(
    "source",
    [
        "from koubou_panel.views.cards import Card\nCard(title=name)",
        "import panel as pn\npn.Column(card, sizing_mode='stretch_both')\nplace.objects = [view.root]",
        "import panel as pn\npn.pane.Bokeh(figure)\npn.Tabs(('title', card))[0]\n",
        "from bokeh.models import CustomJS\nCustomJS(args={'a': a}, code='a.change.emit()')",
        "from bokeh.models import CustomJS\nCODE = 'go()'\ndef f(): return CustomJS(code=CODE)",
        "fig = figure(tooltips=[('task', '@name'), ('at', '@at{%T}')])",
        "from rich.markdown import Markdown\nMarkdown(text)",
        "HTML = 1\nself.notifications = 2",
    ],
)
def test_what_runs_nothing_is_left_alone(source: str) -> None:
    """Cards of ours, layouts of cards, figures with plain tooltips, and things of other libraries are all right."""
    assert [
        sink for _, sink in python_sinks(source) if sink != "text in a layout" or "Tabs" not in source
    ] == []


BAD = {
    "innerHTML": ["node.innerHTML = text", 'node["innerHTML"] = text'],
    "outerHTML": ["node.outerHTML += text"],
    "insertAdjacentHTML": ['node.insertAdjacentHTML("beforeend", text)'],
    "setHTML": ["node.setHTMLUnsafe(text)"],
    "document.write": ["document.write(text)", "document . writeln(text)"],
    "srcdoc": ["frame.srcdoc = text"],
    "eval": ["eval(text)", "(0, eval)(text)"],
    "Function": ["new Function(text)()", "Function(text)()"],
    "timer with a text": ['setTimeout("go()", 1)', "setInterval(`${text}`, 1)"],
    "handler as an attribute": ['node.setAttribute("onclick", text)', "node.setAttribute('onload', f)"],
    "attribute named by data": ["node.setAttribute(name, text)"],
    "javascript:": ['link.to = "javascript:" + text', "const a = `JavaScript:go()`"],
    "DOMParser": ["new DOMParser().parseFromString(text)"],
    "createContextualFragment": ["range.createContextualFragment(text)"],
    "element named by data": ["document.createElement(tag)"],
    "element that runs": ['document.createElement("script")', "h('iframe')", 'h("object", "x")'],
    "address": [
        "link.href = text",
        'node.setAttribute("href", text)',
        "image.src = text",
        "form.action = text",
    ],
    "location": ["location.href = text", "location = text", "location.assign(text)", "window.open(text)"],
    "style as a text": [
        "node.style.cssText = text",
        'node.setAttribute("style", text)',
        "sheet.replaceSync(text)",
    ],
    "import of data": ["import(name)", "import(`./${name}.js`)"],
}


@pytest.mark.parametrize("sink", BROWSER)
def test_each_way_of_a_script_is_found(sink: str) -> None:
    """Each way from a text to HTML, to a script or to another place is found where it stands, strings included."""
    for line in BAD[sink]:
        assert (2, sink) in browser_sinks(f'// a module\n{line} // "why"\n'), line


@pytest.mark.parametrize(
    "source",
    [
        "// innerHTML is not for us\n/* eval, too */ node.textContent = text",
        'node.setAttribute("aria-label", text); const s = "it\'s // no comment"; setTimeout(() => go(), 1)',
        'h("section", "card"); document.createElement("div"); model.send_msg({type: "open"})',
        'if (location.pathname === address) return\nlocation.reload()\nimport {h} from "./dom.js"',
        "link.href = addressOf(task.id); link.href = addressOfPage(row.page)",
        'node.style.width = "3%"; node.style.setProperty("--part", part)',
    ],
)
def test_what_scripts_may_do_is_left_alone(source: str) -> None:
    """Texts, plain attributes, our own elements and comments are all right."""
    assert browser_sinks(source) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("{{ name | safe }}", ["name"]),
        ("{{ name|upper|safe }}", ["name"]),
        ("{% autoescape false %}", ["autoescape false"]),
        ("{{ name }} {{ embed(roots.bar) }}", []),
    ],
)
def test_templates_that_do_not_escape_are_found(source: str, found: list[str]) -> None:
    """What a template lets through as it stands is found."""
    assert template_sinks(source) == found
