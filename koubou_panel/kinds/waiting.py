"""Finding a model for a run, and waiting for one that is being started."""

from __future__ import annotations

import time
from functools import partial
from math import inf

from koubou_panel.core.ports import RunContext
from koubou_panel.kinds.model import (
    ANSWER_S,
    Choice,
    Guide,
    NoModel,
    Server,
    choose,
    is_embedded_wanted,
    look,
    look_at_all,
    no_model_words,
    places,
    read_embedded,
    read_guide,
)

START_LIMIT_S = 60.0
LOOK_EVERY_S = 0.2
LEAST_LOOK_S = 0.1
WORDS_S = 0.5  # what is left of a run's time-out to say that no model came


class NoModelInTime(NoModel):
    """No model answered until the run's time-out was near."""


def find_model(
    context: RunContext,
    *,
    url: str,
    wanted: str,
    limit_s: float = START_LIMIT_S,
    timeout_s: float | None = None,
) -> Choice:
    """The server and the model that a prompt goes to; waits for one that is being started.

    Args:
        context: the run.
        url: the server that was asked for; empty: any.
        wanted: the model that was asked for; empty: any.
        limit_s: how long a model that is being started is waited for.
        timeout_s: the run's time-out: it ends a little before, to say what was tried.

    Raises:
        NoModelInTime: none came up before the time-out.
        NoModel: none answers, or none has the model; what was tried, and what to do.
    """
    began = time.monotonic()
    own_s = inf if timeout_s is None else max(timeout_s - WORDS_S, timeout_s / 2)
    deadline = began + min(limit_s, own_s)
    while True:
        guide = read_guide(context.home)
        embedded = read_embedded(context.home)
        model = wanted or ("" if url else guide.model)
        within_s = max(LEAST_LOOK_S, min(ANSWER_S, began + own_s - time.monotonic()))
        servers = look_at_all(places(url, guide, embedded), partial(look, within_s=within_s))
        choice = choose(servers, model, preferred=guide.model)
        if choice is not None:
            return choice
        # What has ended, or hangs, may be started anew: its word alone does not count.
        has_embedded = embedded is not None and any(
            server.state != "away" for server in servers if server.place.url == embedded.url
        )
        guide = read_guide(context.home)  # the workshop may have said more meanwhile, for this very run
        words = _awaited(servers, guide, url, model, has_embedded=has_embedded)
        if not words or time.monotonic() > deadline:
            offers = is_embedded_wanted(url, guide) and embedded is None
            is_late = time.monotonic() > began + own_s
            tried = no_model_words(servers, model, guide, embedded=offers)
            raise NoModelInTime(tried) if is_late else NoModel(tried)
        context.progress(None, None, "", words)
        time.sleep(LOOK_EVERY_S)


def _awaited(servers: list[Server], guide: Guide, url: str, model: str, *, has_embedded: bool) -> str:
    """What is worth waiting for, in words; empty: nothing."""
    loading = next((server for server in servers if server.state == "loading"), None)
    if loading is not None:
        return f"{loading.place.url} loads its model"
    is_coming = guide.embedded and not has_embedded and is_embedded_wanted(url, guide)
    return "starting the model" if is_coming and model in ("", guide.embedded) else ""
