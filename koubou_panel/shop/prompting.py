"""Sees to it that prompts find a model: leaves word for the workers, and has the embedded model started when needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from koubou_panel.core.events import Sample, ServiceChanged, TaskStarted, TaskSubmitted
from koubou_panel.core.records import FINISHED, Request, Service
from koubou_panel.core.state import Folded, State
from koubou_panel.kinds.model import (
    EMBEDDED,
    Guide,
    NoModel,
    Place,
    Server,
    choose,
    embedded_file,
    leave_word,
    look_at_all,
    model_name,
    places,
    read_embedded,
)
from koubou_panel.settings import Settings

SERVICE = "model"
KIND = "prompt"
UNSUPERVISED = "`koubou up` starts it"
HEARD_S = 5.0  # what the supervisor may take to begin a start: it looks for an Ollama before

Look = Callable[[Sequence[Place]], list[Server]]
log = logging.getLogger(__name__)


def guide_of(settings: Settings, ollama: tuple[str, int] | None, *, is_supervised: bool) -> Guide:
    """What workers are told: the settings, where Ollama is, and whether the embedded model can be had."""
    address = (
        "" if ollama is None else f"http://{f'[{ollama[0]}]' if ':' in ollama[0] else ollama[0]}:{ollama[1]}"
    )
    guide = Guide(url=settings.model_url, model=settings.model, ollama=address)
    try:
        name = model_name(embedded_file(settings.model_file))
    except NoModel as error:
        return replace(guide, reason=error.message)
    return replace(guide, embedded=name) if is_supervised else replace(guide, reason=UNSUPERVISED)


class Prompting:
    """A subscriber that starts the embedded model when a prompt finds no other. Loop thread only.

    Args:
        home: the workshop's folder.
        guide: what workers are told.
        start: asks for the embedded model; whether somebody heard.
        look: asks the servers that may be there; called in a thread.
    """

    def __init__(
        self, home: Path, guide: Guide, *, start: Callable[[], bool], look: Look = look_at_all
    ) -> None:
        """Leaves word at once; to be subscribed."""
        self._home = home
        self._guide = self._told = guide
        self._start = start
        self._look = look
        self._wanted: set[str] = set()
        self._looking: asyncio.Task[None] | None = None
        self._failure = ""
        self._doubting: asyncio.TimerHandle | None = None
        leave_word(home, guide)

    def on_reset(self, state: State) -> None:
        """Look after the service as it stands, and the prompts that there are."""
        if SERVICE in state.services:
            self._follow(state.services[SERVICE])
        for task in state.tasks.values():
            if task.request.kind == KIND and task.status not in FINISHED:
                self._want(task.request)

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """A prompt that is submitted, or begins, may need the model."""
        for fact, _, record in folded:
            kind = type(fact)
            if kind is TaskSubmitted or kind is TaskStarted:
                request = getattr(record, "request", None)
                if request is not None and request.kind == KIND:
                    self._want(request)
            elif type(fact) is ServiceChanged and fact.service.name == SERVICE:
                self._follow(fact.service)

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Samples ask for nothing."""

    def _want(self, request: Request) -> None:
        """Have it looked, soon, whether another server can answer this prompt."""
        url = str(request.spec.get("url") or self._guide.url)
        if url not in ("", EMBEDDED) or not self._guide.embedded:
            return
        self._wanted.add(EMBEDDED if url else str(request.spec.get("model") or self._guide.model))
        if self._failure:
            self.offer()  # before its run looks: it may be started for it
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._see())

    async def _see(self) -> None:
        """Look at the servers once for all prompts that came meanwhile, and start the model if one needs it."""
        loop = asyncio.get_running_loop()
        while self._wanted:
            wanted, self._wanted = self._wanted, set()
            try:
                is_needed = await loop.run_in_executor(None, partial(self._needs_start, wanted))
            except Exception:
                log.exception("could not look for a model server")
                is_needed = False
            if is_needed and not self._start():
                self.give_up(UNSUPERVISED)
            elif self._failure and not self._wanted:
                self._doubt(HEARD_S if is_needed else 0.0)

    def _doubt(self, after_s: float) -> None:
        """Say again that the model has failed, unless it is started by then: what fails too often is left alone."""
        self._forget_doubt()
        self._doubting = asyncio.get_running_loop().call_later(after_s, self.give_up, self._failure)

    def _forget_doubt(self) -> None:
        if self._doubting is not None:
            self._doubting.cancel()
            self._doubting = None

    def _needs_start(self, wanted: set[str]) -> bool:
        """Whether one of the models that are `wanted` is not to be had without the embedded server. Any thread."""
        embedded = read_embedded(self._home)
        if embedded is not None:
            (own_server,) = self._look(places(EMBEDDED, self._guide, embedded))
            if own_server.state != "away":
                return False
        own = wanted & {EMBEDDED, self._guide.embedded}
        if own:
            return True
        servers = self._look(places("", self._guide, None))
        return "" in wanted and choose(servers, "") is None

    def _follow(self, service: Service) -> None:
        """Tell the workers when the service cannot become the embedded model, and when it may again."""
        self._failure = ""
        self._forget_doubt()
        if service.state == "failed":
            first = service.message.partition("\n")[0].partition(" Its last lines")[0]
            self._failure = f"it has failed: {first.rstrip('.')}"
            self.give_up(self._failure)
        elif service.state == "running" and read_embedded(self._home) is None:
            self.give_up("Ollama runs in its place")
        else:
            self._tell(self._guide)

    def _tell(self, guide: Guide) -> None:
        if guide != self._told:
            self._told = guide
            leave_word(self._home, guide)

    def give_up(self, reason: str) -> None:
        """Tell the workers that the embedded model cannot be had."""
        self._tell(replace(self._guide, embedded="", reason=reason))

    def offer(self) -> None:
        """Tell the workers that the embedded model can be had after all."""
        self._tell(self._guide)

    async def close(self) -> None:
        """Look for nothing any more."""
        self._forget_doubt()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
