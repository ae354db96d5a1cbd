"""The two halves of the cards fit, and the browser's half never makes HTML of text."""

import re

import pytest

from koubou_panel.views import cards
from koubou_panel.views.cards import Card
from koubou_panel.views.theme import ASSETS, DARK, LIGHT, css_variables

SCRIPT = (ASSETS / "cards.js").read_text(encoding="utf-8")


def test_every_card_has_both_halves() -> None:
    """Each card class has a drawing of its name in the module, and the other way round."""
    python = {
        name for name, thing in vars(cards).items() if isinstance(thing, type) and issubclass(thing, Card)
    }
    exported = re.search(r"export default \{([^}]*)\}", SCRIPT)
    assert exported
    assert {name.strip() for name in exported[1].split(",")} == python - {"Card", "JSComponent"}


def test_cards_share_one_module() -> None:
    """All cards are drawn by one file, asked for once."""
    urls = {
        thing._render_esm(compiled=True, server=True)
        for thing in vars(cards).values()
        if isinstance(thing, type) and issubclass(thing, Card)
    }
    assert len(urls) == 1


@pytest.mark.parametrize(
    "sink", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "srcdoc", "eval("]
)
@pytest.mark.parametrize("file", ["cards.js", "page.js"])
def test_no_sink_that_runs_html(file: str, sink: str) -> None:
    """Text becomes text nodes: no sink that reads HTML stands in the scripts."""
    assert sink not in (ASSETS / file).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "file", ["cards.js", "page.js", "page.html", "line.html", "card_sheet.css", "page.css"]
)
def test_no_address_of_another_host(file: str) -> None:
    """Nothing that a page is made of names another host (an XML namespace is a name, not an address)."""
    text = (ASSETS / file).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//[a-z]+\.[a-z]{2,}", text)


def test_both_themes_have_every_colour() -> None:
    """What one theme names the other names too, and what the styles use is named."""
    assert DARK.keys() == LIGHT.keys()
    variables = css_variables()
    page = (ASSETS / "page.css").read_text(encoding="utf-8")
    used = set(
        re.findall(r"var\((--k-[\w-]+)\)", page + (ASSETS / "card_sheet.css").read_text(encoding="utf-8"))
    )
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
