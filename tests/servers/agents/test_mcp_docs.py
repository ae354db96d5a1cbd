"""docs/mcp.md and what is registered name the same tools, resources and prompts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from koubou_panel.servers.agents.delegate import Delegation
from koubou_panel.servers.agents.mcp import make_server
from koubou_panel.servers.agents.mcp_notices import MOST_URIS
from koubou_panel.servers.agents.mcp_sessions import FRESH_IDLE_S, IDLE_S, MAX_SESSIONS, MOST_EACH
from koubou_panel.servers.agents.mcp_wait import MOST_TASKS, MOST_WAIT_S, WAIT_S
from koubou_panel.testing import open_inline_shop

PAGE = (Path(__file__).parents[3] / "docs/mcp.md").read_text()
SCOPES = {"read": "read", "run": "run", "full": "edit"}


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading, by the name in their first column."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): [cell.strip() for cell in row[1:]] for row in rows}


@pytest.fixture
async def frame():
    """The workshop's server."""
    async with open_inline_shop() as shop:
        delegation = Delegation(shop, agent_tasks=100)
        yield make_server(delegation)
        delegation.close()


async def test_the_page_names_every_tool_with_the_token_that_it_takes(frame) -> None:
    """No tool is missing, none is made up, and each needs what the page says."""
    documented = {name: cells[0] for name, cells in table("Tools").items()}
    assert documented == {name: SCOPES[need] for name, need in frame.needs.items()}
    assert set(frame.needs) == {tool.name for tool in await frame.list_tools()}


async def test_the_page_names_every_resource_and_prompt(frame) -> None:
    """By their addresses and names."""
    resources = {str(resource.uri) for resource in await frame.list_resources()}
    templates = {template.uri_template for template in await frame.list_resource_templates()}
    assert set(table("Resources")) == resources | templates
    assert set(table("Prompts")) == {prompt.name for prompt in await frame.list_prompts()}


def test_the_page_says_the_bounds_that_hold() -> None:
    """Numbers on the page are those of the code."""
    for words in (
        f"up to {MOST_TASKS} tasks",
        f"({WAIT_S:.0f}, at most {MOST_WAIT_S:.0f})",
        f"follow {MOST_URIS} of them",
        f"silent for {IDLE_S / 60:.0f} minutes",
        f"at most {MAX_SESSIONS}, {MOST_EACH} of one token",
        f"within {FRESH_IDLE_S:.0f} s",
    ):
        assert words in re.sub(r"\s+", " ", PAGE), words
