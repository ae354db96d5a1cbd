"""How long an agent's call takes over MCP: by the SDK's client, with an idle pool and with every core in use.

Prints one JSON object. A workshop runs in a process of its own, the client in this one. By protocol version and tool,
for the two pools in turns: `p50_ms` and `p99_ms` of `tools/call`. `busy` is while three tasks compute on three workers;
the figure that counts is there: the `p50_ms` of the slowest tool, at most 20. `ratio` is that bound over the figure:
below 1 it is missed. What is submitted runs: a worker takes it up beside the call, and of those that wait behind the
computing tasks the queue grows. `floor_ms` is the same round trip without
MCP in it, `GET /health` on the same port: what the machine itself takes. Anything else that runs here shows in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from koubou_panel.testing import until

AT_MOST_MS = 20
MOST_SUBMITTED = 45  # twice as many are less than an agent may have in flight
SCRIPT = "bench"
BUSY = [sys.executable, "-c", "while True: pass"]
VERSIONS = {"2026-07-28": "auto", "2025-11-25": "legacy"}


@contextmanager
def workshop():
    """A workshop with three workers: its agents' port and its token."""
    with tempfile.TemporaryDirectory() as home:
        read_end, write_end = os.pipe()
        flags = [
            "--home",
            home,
            "--socket-port",
            "0",
            "--agents-port",
            "0",
            "--workers",
            "3:3",
            "--grace",
            "0",
        ]
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "koubou_panel.servers.workshop",
                *flags,
                "--ready-fd",
                str(write_end),
            ],
            pass_fds=(write_end,),
            start_new_session=True,
        )
        os.close(write_end)
        try:
            with os.fdopen(read_end) as pipe:
                port = json.loads(pipe.readline())["ports"]["agents"]
            register(home)
            yield port, (Path(home) / "runtime/token").read_text().strip()
        finally:
            process.terminate()
            process.wait()


def register(home):
    """A script of the catalogue with a parameter, to be run by name."""
    path = Path(home) / f"{SCRIPT}.py"
    path.write_text("import argparse\np = argparse.ArgumentParser()\np.add_argument('--n')\np.parse_args()\n")
    koubou = [sys.executable, "-c", "import sys; from koubou_panel.cli import main; sys.exit(main())"]
    command = [*koubou, "script", "add", SCRIPT, str(path)]
    subprocess.run(command, env=os.environ | {"KOUBOU_HOME": home}, check=True, stdout=subprocess.DEVNULL)


@asynccontextmanager
async def connected(port, token, mode):
    """The SDK's client."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http:
        transport = streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


async def call(client, tool, **arguments):
    """What a tool answers."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def timed(calls, action):
    """The milliseconds that each of some calls took."""
    taken = []
    for _ in range(calls):
        began = time.perf_counter()
        await action()
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def told(taken):
    """The middle and the end of a distribution."""
    percentiles = statistics.quantiles(taken, n=100)
    return {"p50_ms": round(percentiles[49], 2), "p99_ms": round(percentiles[98], 2)}


async def measure(port, token, calls, *, is_busy):
    """Each tool on both versions; with three tasks that compute meanwhile, or none."""
    found = {}
    async with connected(port, token, "auto") as boss:
        busy = [
            (await call(boss, "submit_command", command=BUSY, priority=10))["task_id"]
            for _ in range(3 if is_busy else 0)
        ]

        async def begun():
            tasks = [await call(boss, "get_task", task_id=task_id) for task_id in busy]
            return all(task["status"] == "in_progress" for task in tasks)

        await until(begun)
        for version, mode in VERSIONS.items():
            async with connected(port, token, mode) as client:
                found[version] = await each_tool(client, calls)
        found["floor_ms"] = await floor(port, token, calls)
        for task_id in busy:
            await call(boss, "cancel_task", task_id=task_id)
        if busy:
            await call(boss, "wait", task_ids=busy)
    return found


async def floor(port, token, calls):
    """The same round trip with next to nothing in it."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, trust_env=False) as http:
        return told(await timed(calls, lambda: http.get(f"http://127.0.0.1:{port}/health")))


async def each_tool(client, calls):
    """The calls that an agent makes most."""
    first = (await call(client, "submit_command", command=["sleep", "600"], priority=1))["task_id"]
    submitted = [first]

    async def submit():
        submitted.append((await call(client, "submit_command", command=["true"]))["task_id"])

    async def run():
        told = await call(client, "run_script", script_name=SCRIPT, parameters={"n": "3"})
        submitted.append(told["task_id"])

    taken = {
        "get_task": await timed(calls, lambda: call(client, "get_task", task_id=first)),
        "get_statistics": await timed(calls, lambda: call(client, "get_statistics")),
        "read_output": await timed(calls, lambda: call(client, "read_output", task_id=first)),
        "submit_command": await timed(min(calls, MOST_SUBMITTED), submit),
        "run_script": await timed(min(calls, MOST_SUBMITTED), run),
        "list_tasks": await timed(calls, lambda: call(client, "list_tasks", limit=20)),
    }
    for task_id in submitted:
        with suppress(AssertionError):  # it has ended
            await call(client, "cancel_task", task_id=task_id)
    await call(client, "wait", task_ids=submitted, timeout_s=60)
    return {tool: told(times) for tool, times in taken.items()}


async def main():
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    args = parser.parse_args()
    with workshop() as (port, token):
        await measure(port, token, 20, is_busy=False)  # what is loaded and compiled with the first calls
        idle = await measure(port, token, args.calls, is_busy=False)
        busy = await measure(port, token, args.calls, is_busy=True)
    slowest = max(told["p50_ms"] for version in VERSIONS for told in busy[version].values())
    found = {
        "idle": idle,
        "busy": busy,
        "cores": os.cpu_count(),
        "p50_ms": slowest,
        "at_most": AT_MOST_MS,
        "ratio": round(AT_MOST_MS / slowest, 2),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
