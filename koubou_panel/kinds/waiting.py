"""Finding a model for a run, and waiting for one that is being started."""

from __future__ import annotations

import time

from koubou_panel.core.ports import RunContext
from koubou_panel.kinds.model import (
    Choice,
    Guide,
    NoModel,
    Server,
    choose,
    is_embedded_wanted,
    look_at_all,
    no_model_words,
    places,
    read_embedded,
    read_guide,
)

START_LIMIT_S = 60.0
LOOK_EVERY_S = 0.2


def find_model(context: RunContext, *, url: str, wanted: str, limit_s: float = START_LIMIT_S) -> Choice:
    """The server and the model that a prompt goes to; waits for one that is being started.

    Raises:
        NoModel: none answers, or none has the model; what was tried, and what to do.
    """
    deadline = time.monotonic() + limit_s
    while True:
        guide = read_guide(context.home)
        embedded = read_embedded(context.home)
        model = wanted or ("" if url else guide.model)
        servers = look_at_all(places(url, guide, embedded))
        choice = choose(servers, model, preferred=guide.model)
        if choice is not None:
            return choice
        # What has ended, or hangs, may be started anew: its word alone does not count.
        has_embedded = embedded is not None and any(
            server.state != "away" for server in servers if server.place.url == embedded.url
        )
        words = _awaited(servers, guide, url, model, has_embedded=has_embedded)
        if not words or time.monotonic() > deadline:
            offers = is_embedded_wanted(url, guide) and embedded is None
            raise NoModel(no_model_words(servers, model, guide, embedded=offers))
        context.progress(None, None, "", words)
        time.sleep(LOOK_EVERY_S)


def _awaited(servers: list[Server], guide: Guide, url: str, model: str, *, has_embedded: bool) -> str:
    """What is worth waiting for, in words; empty: nothing."""
    loading = next((server for server in servers if server.state == "loading"), None)
    if loading is not None:
        return f"{loading.place.url} loads its model"
    is_coming = guide.embedded and not has_embedded and is_embedded_wanted(url, guide)
    return "starting the model" if is_coming and model in ("", guide.embedded) else ""
