"""Prompts that agents delegate by REST, answered by the real small model and watched over the WebSocket."""

from __future__ import annotations

import asyncio

import pytest

from koubou_panel.kinds.model import Guide, leave_word
from koubou_panel.testing import open_shop
from tests.servers import doors
from tests.servers.agents.rest_door import open_door
from tests.servers.models import serving_model

pytest.importorskip("xllamacpp")

PROMPTS = 8


@pytest.mark.timeout(60)
async def test_a_crowd_of_prompts_is_answered(tmp_path) -> None:
    """More prompts at once than there are workers are all taken in, and each is seen to complete with an answer."""
    with serving_model(tmp_path):
        leave_word(tmp_path, Guide(url="embedded"))
        async with (
            open_shop(tmp_path, workers=2) as shop,
            doors.open_door("socket", shop) as live,
            live.client() as watcher,
            open_door(shop) as door,
            door.client() as rest,
            asyncio.timeout(30),
        ):
            await watcher.ask("subscribe", channel="task")
            bodies = [
                {
                    "prompt": f"Say the number {n}.",
                    "options": {"max_tokens": 8, "temperature": 0},
                }
                for n in range(PROMPTS)
            ]
            replies = await asyncio.gather(*(rest.post("/task/delegate", json=body) for body in bodies))
            assert [reply.status_code for reply in replies] == [200] * PROMPTS
            ended = {}
            while len(ended) < PROMPTS:
                update = await watcher.next("task_update", timeout=90)
                if update["status"] in ("completed", "failed", "cancelled"):
                    ended[update["task_id"]] = update["status"]
            assert ended == {reply.json()["task_id"]: "completed" for reply in replies}
            for task_id in ended:
                told = (await rest.get(f"/task/{task_id}/status")).json()
                assert told["result"]["success"]
                assert told["result"]["output"].strip()
