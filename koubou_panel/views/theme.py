"""One palette, in dark and in light, as CSS variables; and what Bokeh's figures take from it.

Okabe and Ito's colours, told apart with every common colour blindness, and a letter or mark for each state
beside them. Figures are drawn on a canvas: what is not data reads the same variables (`--bk-…`, the names that
Bokeh looks up when it paints), and data has colours that keep 3:1 on both grounds.
"""

from __future__ import annotations

from pathlib import Path

from bokeh.models import InlineStyleSheet

ASSETS = Path(__file__).parent / "assets"

DARK = {
    "bg": "#0e1217",
    "surface": "#161b22",
    "raised": "#1d242d",
    "border": "#28313c",
    "text": "#e7ebf0",
    "muted": "#939eac",
    "faint": "#848e9b",
    "run": "#5cb8f0",
    "ok": "#2fbf97",
    "fail": "#f5824a",
    "danger": "#c2410c",
    "cancel": "#cf93bd",
    "wait": "#939eac",
    "warn": "#e8b13c",
    "shadow": "rgba(0, 0, 0, .35)",
}
LIGHT = {
    "bg": "#f4f6f8",
    "surface": "#ffffff",
    "raised": "#eef1f4",
    "border": "#dce1e7",
    "text": "#1a2028",
    "muted": "#586472",
    "faint": "#626d7a",
    "run": "#0069b4",
    "ok": "#00795b",
    "fail": "#bf4700",
    "danger": "#bf4700",
    "cancel": "#94497a",
    "wait": "#586472",
    "warn": "#8f6200",
    "shadow": "rgba(20, 30, 45, .06)",
}
#: For data on a canvas, which cannot follow the theme: legible on both grounds.
DATA = {"run": "#3a96d4", "ok": "#1fa684", "fail": "#e3692c", "warn": "#cf9420", "cancel": "#b3729f"}

#: The sixteen colours of a terminal, dark ground then light: black, red, green, …; then their bright forms.
ANSI = (
    ("#7d8690", "#1a2028"),
    ("#f47067", "#b3261e"),
    ("#4fc38a", "#1a7f4b"),
    ("#e0b04a", "#8a5a00"),
    ("#6cb6ff", "#0b62b0"),
    ("#d39bd8", "#8a3f94"),
    ("#56c8d8", "#0e7490"),
    ("#cbd3dc", "#586472"),
    ("#7d8896", "#697079"),
    ("#ff938a", "#ca3830"),
    ("#6fdba3", "#1c7e4d"),
    ("#f3c969", "#966500"),
    ("#96cbff", "#1d72c0"),
    ("#e6b6ea", "#9c52a6"),
    ("#7fe0ee", "#127993"),
    ("#f2f5f8", "#1a2028"),
)

_FIGURE = {
    "background-fill-color": "var(--k-surface)",
    "border-fill-color": "var(--k-surface)",
    "outline-line-color": "transparent",
    "axis-line-color": "transparent",
    "major-tick-line-color": "transparent",
    "minor-tick-line-color": "transparent",
    "grid-line-color": "var(--k-border)",
    "major-label-text-color": "var(--k-muted)",
    "major-label-text-font": "var(--k-font)",
    "major-label-text-font-size": "11px",
    "axis-label-text-color": "var(--k-muted)",
    "axis-label-text-font": "var(--k-font)",
    "axis-label-text-font-size": "11px",
    "axis-label-text-font-style": "normal",
}


def css_variables() -> str:
    """The variables of both themes: the system's choice, and over it the one in `<html data-theme>`."""
    dark, light = _declare(DARK, 0), _declare(LIGHT, 1)
    figure = " ".join(f"--bk-{name}: {value};" for name, value in _FIGURE.items())
    return (
        f":root {{ color-scheme: light; {light} {figure} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ color-scheme: dark; {dark} }} }}\n"
        f':root[data-theme="light"] {{ color-scheme: light; {light} }}\n'
        f':root[data-theme="dark"] {{ color-scheme: dark; {dark} }}\n'
    )


def notebook_css() -> str:
    """The style of what a notebook shows: the variables of both themes, by the `data-theme` of its own element."""
    dark, light = _declare(DARK, 0), _declare(LIGHT, 1)
    figure = " ".join(f"--bk-{name}: {value};" for name, value in _FIGURE.items())
    return (
        f":host {{ color-scheme: light; {light} {figure} }}\n"
        f':host([data-theme="dark"]) {{ color-scheme: dark; {dark} }}\n'
        + (ASSETS / "notebook.css").read_text(encoding="utf-8")
    )


def page_css() -> str:
    """The page's own style: variables, grid, cards."""
    return css_variables() + (ASSETS / "page.css").read_text(encoding="utf-8")


def card_sheet() -> InlineStyleSheet:
    """The style of all cards. One for a document: the cards of a page share it."""
    return InlineStyleSheet(css=card_css())


def card_css() -> str:
    """The style of all cards, as text."""
    ansi = "\n".join(f".f{n} {{ color: var(--k-ansi-{n}); }}" for n in range(len(ANSI)))
    sheets = [file.read_text(encoding="utf-8") for file in sorted((ASSETS / "css").glob("*.css"))]
    return "".join([*sheets, ansi])


def _declare(palette: dict[str, str], place: int) -> str:
    colours = [f"--k-{name}: {value};" for name, value in palette.items()]
    terminal = [f"--k-ansi-{n}: {pair[place]};" for n, pair in enumerate(ANSI)]
    return " ".join(colours + terminal)
