"""The shell of a page: one HTML document with a place for each card, complete before any script runs."""

from __future__ import annotations

from collections.abc import Mapping

import panel as pn

from koubou_panel.views.theme import ASSETS, page_css


def shell(roots: Mapping[str, object], *, title: str, boot_id: str, is_fresh: bool) -> pn.Template:
    """A page with each of `roots` in its place.

    Args:
        roots: by the names that the template knows.
        title: what the browser's tab says; plain text of ours.
        boot_id: names the server process; a page of another one loads itself again.
        is_fresh: whether nothing has ever run here.

    """
    html = (ASSETS / "page.html").read_text(encoding="utf-8")
    page = pn.Template(html)
    for name, root in roots.items():
        page.add_panel(name, root)
    page.add_variable("style", page_css())
    page.add_variable("script", (ASSETS / "page.js").read_text(encoding="utf-8"))
    page.add_variable("page_title", f"{title} · 工房")
    page.add_variable("boot_id", boot_id)
    page.add_variable("is_fresh", is_fresh)
    return page


def one_line(text: str, *, again_s: int = 0) -> pn.Template:
    """A page that says one thing, what to do; it loads itself again every `again_s` seconds (0: never)."""
    html = (ASSETS / "line.html").read_text(encoding="utf-8")
    page = pn.Template(html)
    page.add_variable("style", page_css())
    page.add_variable("line", text)
    page.add_variable("again_s", again_s)
    return page
