"""What the workshop does so that prompts find a model."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from koubou_panel import settings
from koubou_panel.core.commands import Caller, SubmitTask
from koubou_panel.core.events import ServiceChanged
from koubou_panel.core.records import Request, Service
from koubou_panel.kinds.model import Embedded, Guide, Place, Server, leave_word, read_guide
from koubou_panel.shop.prompting import Prompting, guide_of
from koubou_panel.testing import open_inline_shop, until

GUIDE = Guide(embedded="small")


class Desk:
    """A Prompting with what it sees, and how often it asked for the model."""

    def __init__(self, home, guide: Guide = GUIDE, *models: str) -> None:
        (home / "runtime").mkdir(exist_ok=True)
        self.home = home
        self.models = models
        self.looks = self.starts = 0
        self.hears = True
        self.seen: list[Guide] = []
        self.on_look = lambda: None
        self.prompting = Prompting(home, guide, start=self._start, look=self._look)

    def _look(self, places: list[Place]) -> list[Server]:
        self.looks += 1
        self.on_look()
        return [Server(places[0], "ready" if self.models else "away", self.models, "nothing answers")]

    def _start(self) -> bool:
        self.starts += 1
        return self.hears


async def ask(shop, kind: str = "prompt", **spec: object) -> None:
    """Submit a task."""
    spec = spec or {"prompt": "hi"}
    request = Request(task_id=shop.next_id(), kind=kind, created_at=0.0, spec=spec)
    await shop.do(SubmitTask(request), Caller("test"))


async def test_prompt_that_finds_no_server_starts_the_model(tmp_path) -> None:
    """The model is asked for when nothing else answers, and not before there is a prompt."""
    desk = Desk(tmp_path)
    async with open_inline_shop() as shop:
        shop.subscribe(desk.prompting)
        await ask(shop, "script", command=["true"])
        assert (desk.looks, desk.starts) == (0, 0)
        await ask(shop)
        await until(lambda: desk.starts)
        await desk.prompting.close()
    assert read_guide(tmp_path) == GUIDE


async def test_prompt_that_finds_a_server_starts_nothing(tmp_path) -> None:
    """Another server that has a model answers; the embedded one only where it is asked for by name."""
    desk = Desk(tmp_path, GUIDE, "big")
    async with open_inline_shop() as shop:
        shop.subscribe(desk.prompting)
        await ask(shop)
        await until(lambda: desk.looks)
        await ask(shop, prompt="hi", model="big")
        await until(lambda: desk.looks > 1)
        assert desk.starts == 0
        await ask(shop, prompt="hi", model="small")
        await until(lambda: desk.starts == 1)
        await desk.prompting.close()


@pytest.mark.parametrize("guide", [Guide(url="http://x", embedded="small"), Guide(reason="not installed")])
async def test_named_server_or_no_model_starts_nothing(tmp_path, guide) -> None:
    """Where another server is named, or nothing is installed, there is nothing to look for."""
    desk = Desk(tmp_path, guide)
    async with open_inline_shop() as shop:
        shop.subscribe(desk.prompting)
        await ask(shop)
    assert (desk.looks, desk.starts) == (0, 0)


async def test_running_model_is_not_asked_for(tmp_path) -> None:
    """While the embedded server answers nobody is asked to start it."""
    desk = Desk(tmp_path, GUIDE, "small")
    leave_word(tmp_path, Embedded.here("http://127.0.0.1:1", "k", "small"))
    async with open_inline_shop() as shop:
        shop.subscribe(desk.prompting)
        await ask(shop)
        await ask(shop, prompt="hi", model="small")
        await until(desk.prompting._looking.done)
    assert desk.starts == 0


@pytest.mark.parametrize("born", ["", None])
async def test_word_of_a_model_that_is_not_there_holds_up_no_start(tmp_path, born) -> None:
    """Neither a word whose process has ended nor one at whose address nobody answers counts as a model."""
    desk = Desk(tmp_path)
    word = Embedded.here("http://127.0.0.1:1", "k", "small")
    leave_word(tmp_path, word if born is None else replace(word, born=born))
    async with open_inline_shop() as shop:
        shop.subscribe(desk.prompting)
        await ask(shop)
        await until(lambda: desk.starts == 1)
        await desk.prompting.close()


async def test_prompts_that_wait_count_at_the_start(tmp_path) -> None:
    """A prompt that was there before the workshop came back has the model started too."""
    desk = Desk(tmp_path)
    async with open_inline_shop() as shop:
        await ask(shop)
        shop.subscribe(desk.prompting)
        await until(lambda: desk.starts)
        await desk.prompting.close()


async def test_nobody_to_start_it_is_told(tmp_path) -> None:
    """Where nobody hears, the workers are told, and wait for nothing."""
    desk = Desk(tmp_path)
    desk.hears = False
    async with open_inline_shop() as shop:
        shop.subscribe(desk.prompting)
        await ask(shop)
        await until(lambda: not read_guide(tmp_path).embedded)
    assert read_guide(tmp_path).reason == "`koubou up` starts it"


async def test_service_that_fails_is_told_and_taken_back(tmp_path) -> None:
    """A model that cannot be had is no longer waited for, with its words; one that comes back is."""
    desk = Desk(tmp_path)
    async with open_inline_shop() as shop:
        shop.subscribe(desk.prompting)
        states = [
            (Service("model", "failed", message="no file"), Guide(reason="it has failed: no file")),
            (Service("model", "starting"), GUIDE),
            (Service("model", "running", port=11434), Guide(reason="Ollama runs in its place")),
            (Service("model", "idle"), GUIDE),
        ]
        for service, guide in states:
            shop.hub.note(ServiceChanged(1.0, service))
            await until(lambda guide=guide: read_guide(tmp_path) == guide)


async def failed(desk: Desk, shop) -> None:
    """The service fails, and the workers are told."""
    shop.hub.note(ServiceChanged(1.0, Service("model", "failed", message="it ended")))
    await until(lambda: read_guide(desk.home) == Guide(reason="it has failed: it ended"))


async def test_prompt_after_a_failure_has_the_model_tried_again_and_waits_for_it(tmp_path) -> None:
    """The workers wait for a model that is started for this prompt, from the moment on that it is there."""
    desk = Desk(tmp_path)
    async with open_inline_shop() as shop:
        shop.subscribe(desk.prompting)
        await failed(desk, shop)
        desk.on_look = lambda: desk.seen.append(read_guide(tmp_path))
        await ask(shop)
        await until(lambda: desk.starts)
        assert desk.seen == [GUIDE]
        shop.hub.note(ServiceChanged(2.0, Service("model", "starting")))
        await until(lambda: desk.prompting._doubting is None)
        assert read_guide(tmp_path) == GUIDE
        await desk.prompting.close()


@pytest.mark.parametrize("models", [(), ("big",)])
async def test_failure_stands_where_the_model_is_not_started_after_all(tmp_path, monkeypatch, models) -> None:
    """Left alone because it fails too often, or not needed: the workers are soon told of the failure again."""
    monkeypatch.setattr("koubou_panel.shop.prompting.HEARD_S", 0.01)
    desk = Desk(tmp_path, GUIDE, *models)
    async with open_inline_shop() as shop:
        shop.subscribe(desk.prompting)
        await failed(desk, shop)
        await ask(shop)
        await until(lambda: desk.looks)
        await until(lambda: read_guide(tmp_path) == Guide(reason="it has failed: it ended"))
        assert desk.starts == (0 if models else 1)
        await desk.prompting.close()


def test_guide_is_the_settings(tmp_path) -> None:
    """Workers are told the settings, where Ollama is, and whether the embedded model can be had."""
    wanted = settings.load(
        {"KOUBOU_HOME": str(tmp_path), "KOUBOU_MODEL_URL": "http://x", "KOUBOU_MODEL": "m"}
    )
    guide = guide_of(wanted, ("::1", 11434), is_supervised=True)
    assert guide == Guide("http://x", "m", "http://[::1]:11434", "smollm2-135m-instruct")
    assert guide_of(wanted, None, is_supervised=False).reason == "`koubou up` starts it"
    wanted = settings.load({"KOUBOU_HOME": str(tmp_path), "KOUBOU_MODEL_FILE": "/no/such.gguf"})
    assert "mend model_file" in guide_of(wanted, None, is_supervised=True).reason
