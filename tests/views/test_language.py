"""The pages' words: every message is translated, with its placeholders, and the catalogues hold nothing else."""

from __future__ import annotations

import ast
import asyncio
import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.catalog import Message as Said
from babel.messages.extract import extract, extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.pofile import read_po

from koubou_panel.core.commands import Caller
from koubou_panel.reactive.mirror import Mirror
from koubou_panel.testing import open_inline_shop
from koubou_panel.views.cards import Message
from koubou_panel.views.first import FirstMinute
from koubou_panel.views.language import (
    LANGUAGES,
    LOCALE,
    _,
    catalogue,
    language_of,
    ngettext,
    speaking,
    spoken,
)
from koubou_panel.views.theme import card_sheet
from koubou_panel.views.visit import Visit

VIEWS = LOCALE.parent
OTHERS = [name for name in LANGUAGES if name != "en"]
PLACEHOLDER = re.compile(r"\{[^{}]*\}")
#: As `make words` has them.
KEYWORDS = {"_": None, "later": None, "ngettext": (1, 2)}


@cache
def asked() -> frozenset[str | tuple[str, ...]]:
    """Every message in the code."""
    with (LOCALE / "babel.cfg").open(encoding="utf-8") as file:
        methods, options = parse_mapping_cfg(file)  # type: ignore[no-untyped-call]
    found = extract_from_dir(VIEWS, methods, options, keywords=KEYWORDS)
    return frozenset(message for _file, _line, message, _comments, _context in found)


@cache
def kept(language: str) -> Catalog:
    """What the catalogue's file holds."""
    locale = language.replace("-", "_")
    with (LOCALE / locale / "LC_MESSAGES" / "koubou.po").open("rb") as file:
        return read_po(file, locale=locale)


def messages(language: str) -> list[Said]:
    """The messages of a catalogue; without what gettext calls its header."""
    return [message for message in kept(language) if message.id]


def forms(text: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    """A message's forms, or a translation's; none where it is not translated."""
    return tuple(filter(None, (text,) if isinstance(text, str) else text or ()))


@pytest.mark.parametrize("language", OTHERS)
def test_every_message_is_translated(language: str) -> None:
    """No page says something in English to those who chose another language (`make words`, docs/translating.md)."""
    said = catalogue(language)
    assert sorted(forms(message)[0] for message in asked() if forms(message)[0] not in said) == []


@pytest.mark.parametrize("language", OTHERS)
def test_a_catalogue_holds_no_more_than_what_is_asked_for(language: str) -> None:
    """What the code does not say any more is dropped by `make words`."""
    kept_ones = {forms(message.id)[0] for message in messages(language)}
    assert kept_ones == {forms(message)[0] for message in asked()}


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_has_the_placeholders_of_its_message(language: str) -> None:
    """Nothing that is put into a message is lost in translation, and nothing else is asked for."""
    for message in messages(language):
        wanted = set(PLACEHOLDER.findall(forms(message.id)[-1]))
        for form in forms(message.string):
            assert set(PLACEHOLDER.findall(form)) == wanted, form


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_does_not_run_into_its_neighbours(language: str) -> None:
    """A translation begins and ends with a space only where its message does."""
    for message in messages(language):
        one = forms(message.id)[0]
        for form in forms(message.string):
            assert (form[:1] == " ", form[-1:] == " ") == (one[:1] == " ", one[-1:] == " "), form


@pytest.mark.parametrize("language", OTHERS)
def test_a_plural_has_the_forms_that_its_language_tells_apart(language: str) -> None:
    """Japanese and Chinese have one form for any number."""
    plurals = [message.string for message in messages(language) if message.pluralizable]
    assert all(isinstance(said, tuple) and len(said) == 1 for said in plurals)


def test_a_plural_is_said_in_its_language() -> None:
    """`ngettext` gives the one form that the language has, for one and for many."""
    one, many = "{n} change, not saved yet", "{n} changes, not saved yet"
    said = catalogue("ja")[one]
    with speaking("ja"):
        assert ngettext(one, many, 1) == ngettext(one, many, 2) == said[0] != one
    assert (ngettext(one, many, 1), ngettext(one, many, 2)) == (one, many)


async def test_what_a_card_sends_is_answered_in_the_visitors_language() -> None:
    """A card's message, its question and the work that they start speak what the visitor chose, not English."""
    said: list[str] = []
    work: list[asyncio.Task[None]] = []

    async def answer(_message: Message) -> Message:
        said.append(spoken())
        return {}

    async with open_inline_shop() as shop:
        visit = Visit(
            shop=shop,
            mirror=Mirror(shop, now=shop.clock),
            caller=Caller("test", "full"),
            sheet=card_sheet(),
            now=shop.clock,
            act=lambda _kind, _message: said.append(spoken()),
            spawn=lambda job: work.append(asyncio.get_running_loop().create_task(job)),
            locked=lambda call: call(),
            toast=said.append,
            language=lambda: "ja",
        )
        card = visit.card(FirstMinute, asks={"word": answer})
        card._handle_msg({"type": "anything"})
        card._handle_msg({"type": "ask", "ask": "word", "id": 1})
        await asyncio.gather(*work)
    assert said == ["ja", "ja"]


def test_what_has_no_translation_is_said_in_english() -> None:
    """A word that no catalogue has is shown as it is."""
    with speaking("ja"):
        assert _("no catalogue has this") == "no catalogue has this"


@pytest.mark.parametrize(
    ("cookie", "accepted", "expected"),
    [
        ("", "", "en"),
        ("", "ja,en;q=0.8", "ja"),
        ("", "zh-TW,zh;q=0.9", "zh-Hant"),
        ("", "de,fr;q=0.5", "en"),
        ("zh-Hant", "ja", "zh-Hant"),
        ("<script>", "ja", "ja"),
    ],
)
def test_a_visitor_is_spoken_to_in_the_language_they_asked_for(
    cookie: str, accepted: str, expected: str
) -> None:
    """What was chosen counts, else what the browser asks for, else English."""
    assert language_of(cookie=cookie, accepted=accepted) == expected


def test_messages_of_cards_are_found_among_template_literals() -> None:
    """A message is found whatever else the call is handed, and both forms of what is counted."""
    source = """
      // In a comment it says nothing: _("or this").
      text(now ? _("now") : _("in {span}", {span: s < 60 ? `${s} s` : duration(s)}))
      ngettext("{n} run", "{n} runs", count); model.my_("not this"); _("“a” \\u2026 \\"b\\"")
    """
    found = extract("koubou_panel.views.extract:cards", io.BytesIO(source.encode()), KEYWORDS)
    expected = ["now", "in {span}", ("{n} run", "{n} runs"), '“a” … "b"']
    assert [message for _line, message, _comments, _context in found] == expected


def words_made_up() -> Iterator[str]:
    """Where a message is put together while the page runs, so that no catalogue can have it."""
    for file in sorted(VIEWS.rglob("*.js")):
        source = file.read_text(encoding="utf-8")
        for call in re.finditer(r"(?<![\w$.])(?:_|ngettext)\((?!\s*(?:[\w.\[\]]+\s*[,)]|\"))[^)\n]*", source):
            yield f"{file.name}: {call[0]}"
    for file in sorted(VIEWS.rglob("*.py")):
        yield from (f"{file.name}:{line}" for line in _made_up_in(file))


def _made_up_in(file: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield from (node.lineno for call in ast.walk(node) if _name(call) in KEYWORDS)
        if _name(node) in KEYWORDS and isinstance(node, ast.Call):
            made = (ast.JoinedStr, ast.BinOp, ast.IfExp)
            yield from (word.lineno for word in node.args if isinstance(word, made))


def _name(node: ast.AST) -> str:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def test_no_message_is_put_together_while_the_page_runs() -> None:
    """What is translated is a whole sentence with placeholders, written where it is said."""
    assert list(words_made_up()) == []
