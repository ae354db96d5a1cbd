"""The load test's way through REST on the agents' port: commands, prompts, or both in turn."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from koubou_panel.cli.load_report import Profile, Report
from koubou_panel.core.records import TaskId
from koubou_panel.core.state import State
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.servers.credentials import load_or_create_token

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

AT_ONCE = 16
TIMEOUT_S = 600
ANSWER_S = 30.0
LONGEST_HOLD_S = 5.0

LIGHT_SCRIPT = 'for i in 1 2 3; do echo "step $i of 3"; sleep 0.05; done'
HEAVY_SCRIPT = """
for i in range(1, 6):
    total = sum(range(3_000_000 * i))
    print(f"round {i} of 5: {total}", flush=True)
"""
PROMPTS = (
    "Name three colours.",
    "What is a workshop? Answer in one sentence.",
    "Count from one to five in words.",
    "Say hello to a carpenter.",
)
LIGHT_TOKENS, HEAVY_TOKENS = 24, 160


class RestDoor:
    """REST of the workshop of `home`, for one load test.

    Args:
        home: whose token is sent.
        port: where its agents' port is.
    """

    def __init__(self, home: Home, port: int) -> None:
        """Nothing is sent yet."""
        import httpx2

        token = load_or_create_token(home.runtime, environ=os.environ)
        self._url = f"http://127.0.0.1:{port}"
        self._client: AsyncClient = httpx2.AsyncClient(
            base_url=self._url,
            headers={"Authorization": f"Bearer {token}", "User-Agent": "koubou-load/1"},
            timeout=ANSWER_S,
            trust_env=False,
        )
        self._room = asyncio.Semaphore(AT_ONCE)

    async def close(self) -> None:
        """End its connections."""
        await self._client.aclose()

    async def submit(self, body: Mapping[str, object], report: Report) -> TaskId | None:
        """Delegate one task; None if it is refused. While the agent has as many as it may have, wait for one to end.

        Raises:
            Refused: `unavailable`: nobody answers there; or the workshop takes nothing.
        """
        async with self._room:
            while True:
                if report.is_interrupted:
                    return None
                answer = await self._send(body)
                if answer.status_code != 429:
                    break
                report.held_back += 1
                await _until_one_ends(report, answer.headers.get("retry-after", ""))
        told = answer.json()
        if answer.status_code == 200:
            return TaskId(told["task_id"])
        error = told.get("error", {})
        refused = Refused(str(error.get("code", "invalid")), str(error.get("message", answer.text[:200])))
        if answer.status_code in (401, 503):
            raise refused
        report.first_failure = report.first_failure or refused.message
        report.refused += 1
        return None

    async def _send(self, body: Mapping[str, object]) -> Response:
        import httpx2

        try:
            return await self._client.post("/task/delegate", json=dict(body))
        except httpx2.HTTPError as error:
            words = f"nobody answers at {self._url} ({type(error).__name__}); `koubou status` tells of its services"
            raise Refused("unavailable", words) from error


async def _until_one_ends(report: Report, retry_after: str) -> None:
    """Wait for a task of ours to end, or for as long as the workshop asks."""
    hold_s = min(LONGEST_HOLD_S, float(retry_after) if retry_after.isdecimal() else 1.0)
    report.news.clear()
    with suppress(TimeoutError):
        async with asyncio.timeout(hold_s):
            await report.news.wait()


def agents_port(state: State, otherwise: int) -> int:
    """Where the agents' port of a workshop is."""
    service = state.services.get("agents")
    return service.port if service is not None and service.port else otherwise


def bodies(plan: Profile, kind: str) -> Iterator[dict[str, Any]]:
    """What is delegated, task by task: as many as planned."""
    options = {"name": f"load-{plan.name}", "labels": {"load": plan.name}, "timeout": TIMEOUT_S}
    argv = [sys.executable, "-c", HEAVY_SCRIPT] if plan.heavy else ["sh", "-c", LIGHT_SCRIPT]
    command = {"type": "script", "command": argv, "options": options}
    most = HEAVY_TOKENS if plan.heavy else LIGHT_TOKENS
    prompts = cycle(
        {"type": "prompt", "prompt": text, "options": {**options, "max_tokens": most}} for text in PROMPTS
    )
    for number in range(plan.count):
        is_prompt = kind == "prompt" or (kind == "mixed" and number % 3 == 2)
        yield next(islice(prompts, 1)) if is_prompt else command
