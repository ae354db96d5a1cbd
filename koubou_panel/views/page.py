"""The shell of a page: one HTML document with a place for each card, complete before any script runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import panel as pn
from bokeh.document import Document

from koubou_panel.views.language import _, catalogue, speaking
from koubou_panel.views.theme import ASSETS, page_css


class Page(pn.Template):
    """A template that costs less: its cards join their document at once, and are not put into words one by one."""

    def __repr__(self) -> str:
        """Its name; Panel puts this into words again for every card that is added."""
        return type(self).__name__

    def server_doc(self, doc: Document | None = None, *args: Any, **kwargs: Any) -> Document:
        """The document of the session this is called in, or a new one, with all cards. As of `pn.Template`."""
        document: Any = doc or pn.state.curdoc or Document()
        # Bokeh goes through all that is there whenever something joins.
        with document.models.freeze():
            return super().server_doc(document, *args, **kwargs)


def shell(
    roots: Mapping[str, object],
    *,
    boot_id: str,
    is_fresh: bool,
    title: str = "Overview",
    page: str = "",
    language: str = "en",
) -> Page:
    """A page with each of `roots` in its place.

    Args:
        roots: by the names that the template knows.
        title: what the browser's tab says; plain text of ours.
        page: which one is open.
        language: what it speaks.
        boot_id: names the server process; a page of another one loads itself again.
        is_fresh: whether nothing has ever run here.

    """
    html = (ASSETS / "page.html").read_text(encoding="utf-8")
    shown = Page(html)
    for name, root in roots.items():
        shown.add_panel(name, root)
    shown.add_variable("style", page_css())
    shown.add_variable("script", (ASSETS / "page.js").read_text(encoding="utf-8"))
    shown.add_variable("page_title", f"{title} · 工房")
    shown.add_variable("boot_id", boot_id)
    shown.add_variable("is_fresh", is_fresh)
    shown.add_variable("page", page)
    shown.add_variable("pages", [name.removeprefix("page_") for name in roots if name.startswith("page_")])
    shown.add_variable("language", language)
    with speaking(language):
        shown.add_variable("loading", _("Opening …"))
    # In a script element nothing but its end tag has a meaning.
    words = json.dumps(catalogue(language), ensure_ascii=False, separators=(",", ":"))
    shown.add_variable("words", words.replace("<", "\\u003c"))
    return shown


def one_line(text: str, *, again_s: int = 0, language: str = "en") -> pn.Template:
    """A page that says one thing, what to do; it loads itself again every `again_s` seconds (0: never)."""
    html = (ASSETS / "line.html").read_text(encoding="utf-8")
    page = pn.Template(html)
    page.add_variable("style", page_css())
    page.add_variable("line", text)
    page.add_variable("again_s", again_s)
    page.add_variable("language", language)
    return page


def closed_page(how: str, language: str) -> pn.Template:
    """For a visitor without the token; `how` is the command that starts the page."""
    with speaking(language):
        words = _("This page is behind the workshop's token. Start it with: {command}").format(command=how)
    return one_line(words, language=language)


def waiting_page(place: str, language: str) -> pn.Template:
    """For a visitor who came before the workshop of `place`."""
    with speaking(language):
        words = _(
            "No workshop of {place} answers yet. `koubou up` starts it; this page then opens by itself."
        ).format(place=place)
    return one_line(words, again_s=2, language=language)
