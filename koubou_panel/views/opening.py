"""What a visitor's browser asks for as it opens the page: which page, and in which language."""

from __future__ import annotations

from typing import Any

from koubou_panel.views.language import COOKIE, language_of


def page_asked(request: Any) -> str:
    """Which page the address asks for."""
    asked = request.arguments.get("page") if request is not None else None
    return bytes(asked[0]).decode(errors="replace") if asked else ""


def language_asked(request: Any) -> str:
    """What the visitor's browser asks to be spoken to in."""
    if request is None:
        return "en"
    # What Bokeh hands on stands before the request itself, and holds neither its headers nor its cookies.
    whole = getattr(request, "_request", request)
    cookie = whole.cookies.get(COOKIE)
    return language_of(
        cookie=cookie.value if cookie else "", accepted=whole.headers.get("Accept-Language", "")
    )
