"""The pages' words in the visitor's language: gettext's catalogues, by the language that a session speaks.

Text of ours is written in English where it is used, as `_("…")`, and put into the visitor's language when it is made;
`later("…")` marks what is made before anybody is there to read it, and `_` it then. What people and programs wrote is
never translated, nor is what the workshop itself answers (refusals): that is the same on every surface.

A catalogue is `locale/<language>/LC_MESSAGES/koubou.po`; `make words` brings them up to date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from babel.core import negotiate_locale
from babel.messages.pofile import read_po

LOCALE = Path(__file__).parent / "locale"
#: By the names that a browser knows them by: what each is called in itself.
LANGUAGES = {"en": "English", "ja": "日本語", "zh-Hant": "繁體中文"}
#: Where a browser keeps what its visitor chose, as `assets/js/language.js` sets it.
COOKIE = "koubou-language"
_ALIKE = {"zh-tw": "zh-Hant", "zh-hk": "zh-Hant", "zh-mo": "zh-Hant", "zh": "zh-Hant"}

#: By message; a message with a plural by its English singular. One form for each number that the language tells apart.
Catalogue = Mapping[str, tuple[str, ...]]

_SPOKEN: ContextVar[str] = ContextVar("koubou language", default="en")


def _(message: str) -> str:
    """`message` in the language that is spoken here."""
    forms = catalogue(_SPOKEN.get()).get(message)
    return forms[0] if forms else message


def ngettext(one: str, many: str, number: float) -> str:
    """The form for `number`; `one` and `many` are the English ones. None of them has the number put in."""
    forms = catalogue(_SPOKEN.get()).get(one)
    if forms:
        return forms[min(len(forms) - 1, 0 if number == 1 else 1)]
    return one if number == 1 else many


def later(message: str) -> str:
    """`message` as it is: marked for the catalogues, and translated where it is used."""
    return message


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Speak `language` in what follows, and in the work that is started there."""
    token = _SPOKEN.set(language if language in LANGUAGES else "en")
    try:
        yield
    finally:
        _SPOKEN.reset(token)


def spoken() -> str:
    """The language that is spoken here."""
    return _SPOKEN.get()


@cache
def catalogue(language: str) -> Catalogue:
    """What is said for each message; empty for English, and for a language that is none of ours."""
    locale = language.replace("-", "_")
    path = LOCALE / locale / "LC_MESSAGES" / "koubou.po"
    if language not in LANGUAGES or not path.is_file():
        return {}
    with path.open("rb") as file:
        found = read_po(file, locale=locale)  # which tells how many forms a plural has
    said: dict[str, tuple[str, ...]] = {}
    for message in found:
        one, forms = message.id, message.string
        if not one or message.fuzzy:
            continue
        all_forms = forms if isinstance(forms, (tuple, list)) else (forms,)
        if all(all_forms):
            said[one if isinstance(one, str) else one[0]] = tuple(map(str, all_forms))
    return said


def language_of(*, cookie: str = "", accepted: str = "") -> str:
    """The language for a visitor: the one they chose, else the first of ours that their browser asks for.

    Args:
        cookie: what they chose; empty where they have not.
        accepted: their `Accept-Language`.
    """
    if cookie in LANGUAGES:
        return cookie
    asked = [part.partition(";")[0].strip() for part in accepted.split(",")]
    known = [_ALIKE.get(name.lower(), name) for name in asked if name]
    return negotiate_locale(known, LANGUAGES, sep="-", aliases={}) or "en"
