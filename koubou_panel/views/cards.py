"""The cards of a page, Python half: each holds what is shown, and hands on what was clicked.

The other half is in `assets/js/`, a module for each page, all of them named in `cards.js`. Data goes over as JSON and
becomes text nodes there; what people wrote has been through `escape` before. What a browser sends back is a stranger's
word: it is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import param
from bokeh.embed.bundle import extension_dirs
from bokeh.models import InlineStyleSheet
from panel.custom import JSComponent

from koubou_panel.views.theme import ASSETS, card_sheet

Message = Mapping[str, object]
OnAsk = Callable[[str, Message, Callable[[Message], None]], None]

# The modules of the browser's half are files of their own, which import each other: Bokeh's server serves the folder.
extension_dirs["koubou"] = ASSETS / "js"


class Card(JSComponent):
    """Something drawn in the browser from data.

    Under the document's lock, `on_message(kind, message)` is called for each well-formed message from it, and
    `on_ask(kind, message, reply)` for each question, which `reply` answers once (`Visit.card` makes it).
    """

    _bundle = ASSETS / "js" / "cards.js"

    def __init__(
        self,
        *,
        sheet: InlineStyleSheet | None = None,
        on_message: Callable[[str, Message], None] | None = None,
        on_ask: OnAsk | None = None,
        **params: object,
    ) -> None:
        """A card; `sheet` is the style that the cards of a document share, `params` are its own."""
        super().__init__(**{"sizing_mode": "stretch_both", "margin": 0} | params)  # type: ignore[no-untyped-call]
        self._sheet = sheet or card_sheet()
        self._on_message = on_message
        self._on_ask = on_ask

    def send(self, message: Message) -> None:
        """Send a message to the browser. It is lost where none is there: see `ready`."""
        self._send_msg(dict(message))

    def _get_model(self, *args: Any, **kwargs: Any) -> Any:
        # Panel's own `stylesheets` takes text only, which would send the same text once for each card.
        model: Any = super()._get_model(*args, **kwargs)
        model.stylesheets = [*model.stylesheets, self._sheet]
        return model

    def _handle_msg(self, data: Any) -> None:
        if not isinstance(data, dict) or not isinstance(data.get("type"), str):
            return
        if data["type"] == "ask":
            self._asked(data)
        elif self._on_message is not None:
            self._on_message(data["type"], data)

    def _asked(self, data: dict[str, Any]) -> None:
        kind, number = data.get("ask"), data.get("id")
        if self._on_ask is not None and isinstance(kind, str) and isinstance(number, int):
            self._on_ask(kind, data, lambda value: self.send({"answer": number, "value": dict(value)}))


def set_changed(card: Card, **values: object) -> None:
    """Set what differs: what stays the same is not sent again."""
    changed = {name: value for name, value in values.items() if getattr(card, name) != value}
    if changed:
        card.param.update(**changed)


class TopBar(Card):
    """The top bar: the name, the pages, how fresh the page is, language and theme; and the toasts below it.

    Each new `freshness` is a beat of the page's heart. Sends `hidden` and `page`; asks `language`.
    """

    pages = param.List(default=[["", "Overview"]], doc="of (name in the address, label)")
    languages = param.List(default=[], doc="of (name, what it is called in itself)")

    label = param.String(doc="what kind of workshop it is, where it is no usual one")

    freshness = param.Dict(default={"status": "live", "lag_s": 0.0, "at": None})
    place = param.String(doc="which workshop this is")
    may = param.String(default="full", doc="the visitor's role: `full`, `run`, `read`")

    def toast(self, text: str, *, is_bad: bool = False) -> None:
        """Show a short message for some seconds."""
        self.send({"toast": text, "tone": "bad" if is_bad else ""})


class TileRow(Card):
    """The six numbers."""

    tiles = param.List(default=[], doc="of key, label, value, of, sub, tone, hint")
    sparks = param.Dict(default={}, doc="by key: the line of the last minutes; None is a gap")


class RunningCard(Card):
    """What runs, with progress and Cancel; what is next; what ended last, with Retry.

    Sends `open`, `cancel` and `retry`.
    """

    rows = param.List(default=[])
    waiting = param.List(default=[], doc="the first of those that wait, with what they wait for")
    waiting_more = param.Integer(default=0, doc="how many more wait")
    ended = param.List(default=[])
    failed = param.List(default=[], doc="the last that failed, for a phone")
    more = param.Integer(default=0, doc="how many more run than are shown")
    hint = param.String(doc="said when nothing runs")
    can_act = param.Boolean(default=True)


class OutputCard(Card):
    """The last lines of what runs, or of one task. Sends `ready`; takes lines as messages."""

    title = param.String()


class ChartHead(Card):
    """A chart's title, and for each of its colours the name and the present value. Sends `range` (`span`)."""

    title = param.String()
    empty = param.String(doc="what will appear here, as long as there is nothing")
    items = param.List(
        default=[], doc="of label, colour, shape (`line`, `box`, `hatch`, `dash`, `dots`), value"
    )
    spans = param.List(default=[], doc="how much time can be shown, seconds; empty: it cannot be chosen here")
    span = param.Integer(default=0, doc="how much is")


class ChartSegments(Card):
    """On a phone: which one of the charts is seen."""

    names = param.List(default=["throughput", "cpu", "memory"], doc="and `gpu`, where there is one")


class TaskCard(Card):
    """The head of one task's view; with it the view opens and closes. Sends `open`, `cancel` and `retry`."""

    task = param.Dict(default={}, doc="what is told of it; empty: none is open")
    given = param.List(default=[], doc="what it was asked to do: of label, text, form")
    can_act = param.Boolean(default=True)

    def refuse(self, task_id: str) -> None:
        """There is no such task: the page's address shall not name it."""
        self.send({"gone": task_id})


class InputCard(Card):
    """A line to type for the open task, while it reads what is typed. Sends `input`."""

    task_id = param.String(doc="whom it is for; empty: nobody reads")
