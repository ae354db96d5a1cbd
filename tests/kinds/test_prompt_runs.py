"""Prompts as tasks: real worker processes, the real small model."""

from __future__ import annotations

import asyncio

import pytest

from koubou_panel.core.commands import Caller, CancelTask, SubmitTask
from koubou_panel.core.records import Request, TaskId
from koubou_panel.kinds.model import Guide, leave_word
from koubou_panel.testing import ended, open_shop, until
from tests.kinds.fake_ollama import GB, fake_ollama
from tests.servers.models import busy_slots

LONG = "Tell a very long story about the sea and all of its ships."
ME = Caller("test")


@pytest.fixture
async def shop(model_home):
    """A workshop with two workers in the home whose model runs."""
    async with open_shop(model_home, workers=2) as opened:
        yield opened


async def submit(shop, kind: str = "prompt", *, timeout_s: float | None = None, **spec: object) -> TaskId:
    """Submit a prompt, and give its id."""
    task_id = shop.next_id()
    request = Request(task_id=task_id, kind=kind, created_at=0.0, spec=spec, timeout_s=timeout_s)
    await shop.do(SubmitTask(request), ME)
    return task_id


async def end_of(shop, task_id: TaskId):
    """The task at its end, and what it printed."""
    return await ended(shop, task_id), (await shop.read_output(task_id, 0, 1 << 20)).text


async def test_many_prompts_at_once_are_all_answered(shop) -> None:
    """More prompts than workers: all complete, each with its tokens."""
    ids = [
        await submit(shop, prompt=f"Say {word}.", max_tokens=4) for word in ("one", "two", "three", "four")
    ]
    for task_id in ids:
        task, text = await end_of(shop, task_id)
        assert (task.status, task.message) == ("completed", "")
        assert text.strip()
        assert 1 <= task.usage.completion_tokens <= 4
        assert task.request.summary.startswith("Say ")


async def test_cancel_stops_the_model(shop, model_home) -> None:
    """Cancelled in the middle, a prompt keeps what came, with its tokens, and the model is free at once."""
    task_id = await submit(shop, prompt=LONG)
    await until(
        lambda: (shop.state.tasks[task_id].progress or 0) and shop.state.tasks[task_id].progress.done, 60
    )
    assert shop.state.tasks[task_id].progress.unit == "tokens"
    await shop.do(CancelTask(task_id), ME)
    task, text = await end_of(shop, task_id)
    assert (task.status, task.message) == ("cancelled", "cancelled by test")
    assert text.strip()
    assert task.usage.completion_tokens >= 1
    await until(lambda: busy_slots(model_home) == 0)
    after, _ = await end_of(shop, await submit(shop, prompt="Say yes.", max_tokens=2))
    assert after.status == "completed"


async def test_time_out_ends_a_prompt(shop, model_home) -> None:
    """A prompt that takes longer than it may fails with `timeout`, and keeps what came."""
    task, _ = await end_of(shop, await submit(shop, prompt=LONG, timeout_s=1.0))
    assert (task.status, task.reason) == ("failed", "timeout")
    assert task.message == "reached its time-out of 1 s"
    await until(lambda: busy_slots(model_home) == 0)


async def test_wait_for_a_model_ends_with_the_time_out_and_says_what_was_tried(tmp_path) -> None:
    """While no model comes up a prompt says what it waits for, no longer than it may, and then what to install."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        leave_word(tmp_path / "home", Guide(ollama="http://127.0.0.1:9", embedded="small"))
        task_id = await submit(shop, prompt="Hi", timeout_s=3.0)
        await until(lambda: shop.state.tasks[task_id].progress is not None)
        assert shop.state.tasks[task_id].progress.message == "starting the model"
        task, text = await end_of(shop, task_id)
        assert (task.status, task.reason, text) == ("failed", "timeout", "")
        assert task.message.startswith(
            "reached its time-out of 3 s while it waited for a model: no model answers"
        )
        for address in (9, 1234, 8000, 8081):
            assert f"http://127.0.0.1:{address}" in task.message
        assert "the embedded model: it has not come up" in task.message
        assert "Ollama from https://ollama.com/download" in task.message
        assert task.finished_at - task.started_at <= 3.0


async def test_cancel_ends_a_pull(tmp_path) -> None:
    """A cancelled pull hangs up on Ollama, which ends the download; its bytes so far are the progress."""
    with fake_ollama() as fake:
        fake.go_on.clear()
        async with open_shop(tmp_path / "home", workers=1) as shop:
            leave_word(tmp_path / "home", Guide(ollama=fake.url))
            task_id = await submit(shop, "pull", model="smollm2")
            await until(
                lambda: (shop.state.tasks[task_id].progress or 0) and shop.state.tasks[task_id].progress.done
            )
            progress = shop.state.tasks[task_id].progress
            assert (progress.done, progress.total, progress.unit) == (GB, 3 * GB, "B")
            await shop.do(CancelTask(task_id), ME)
            task, text = await end_of(shop, task_id)
            assert task.status == "cancelled"
            assert text == "pulling manifest\npulling aaa\n"
        assert await asyncio.to_thread(fake.hung_up.wait, 5)
