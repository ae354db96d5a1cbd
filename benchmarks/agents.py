"""What REST for agents costs: requests a second of each operation, against a bare Starlette route of the same run.

    python benchmarks/agents.py [SECONDS]

The bare route answers eight bytes of JSON on a uvicorn server like ours, in a process of its own like ours, and is
asked by the same client with as many connections. A ratio of 0.5 means: half as many requests a second.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

CONNECTIONS = 8
TOKEN = "b" * 43


def serve_bare(port_pipe) -> None:
    """A bare Starlette route; says its port."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def bare(_request):
        return JSONResponse({"ok": 1})

    async def taken(request):
        await request.body()
        return JSONResponse({"ok": 1})

    app = Starlette(routes=[Route("/bare", bare), Route("/taken", taken, methods=["POST"])])
    # Named as TCP, or asyncio would leave Nagle's algorithm on, and every answer wait for 40 ms.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    sock.listen(100)
    port_pipe.send(sock.getsockname()[1])
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, http="h11", ws="none"
    )
    uvicorn.Server(config).run(sockets=[sock])


def serve_workshop(port_pipe, folder: str) -> None:
    """A real workshop with its agents' port; says its port."""
    from koubou_panel.servers.access import Access
    from koubou_panel.servers.agents.server import AgentsServer
    from koubou_panel.testing import open_shop

    async def main() -> None:
        async with open_shop(Path(folder), workers=1) as shop:
            server = AgentsServer(shop, Access(token=TOKEN, port=1), port=0, agent_tasks=1_000_000)
            port = await server.start()
            await server.ready.wait()
            port_pipe.send(port)
            await asyncio.Event().wait()

    asyncio.run(main())


@contextmanager
def process(target, *args):
    """A server process; gives its port."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=target, args=(theirs, *args))
    server.start()
    try:
        yield ours.recv()
    finally:
        server.terminate()
        server.join()


async def rate(port: int, path: str, *, seconds: float, body: bytes | None = None) -> float:
    """Requests a second over a few connections that are kept open."""
    verb = "GET" if body is None else "POST"
    lines = [f"{verb} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {TOKEN}"]
    lines += ["User-Agent: bench/1"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    request = "\r\n".join([*lines, "", ""]).encode() + (body or b"")
    end = time.perf_counter() + seconds
    counts = await asyncio.gather(*(ask(port, request, end) for _ in range(CONNECTIONS)))
    return sum(counts) / seconds


async def ask(port: int, request: bytes, end: float) -> int:
    """Ask on one connection until the time is over; how often it was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.perf_counter() < end:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        count += 1
    writer.close()
    return count


async def one(port: int, body: dict) -> dict:
    """Delegate one task."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    head = f"POST /task/delegate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + data)
    answer = await reader.read()
    writer.close()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    with (
        tempfile.TemporaryDirectory() as folder,
        process(serve_bare) as bare_port,
        process(serve_workshop, folder) as port,
    ):
        ended = asyncio.run(one(port, {"command": ["echo", "hi"], "sync": True}))["task_id"]
        sleeper = asyncio.run(one(port, {"command": ["sleep", "600"]}))["task_id"]
        held = {"command": ["true"], "options": {"after": [sleeper]}}  # taken in, and not run meanwhile
        rows = [
            ("GET /health", "/health", None),
            ("GET /task/{id}/status, running", f"/task/{sleeper}/status", None),
            ("GET /task/{id}/status, ended", f"/task/{ended}/status", None),
            ("GET /tasks?limit=10", "/tasks?limit=10", None),
            ("GET /metrics", "/metrics", None),
            ("POST /task/delegate, durable", "/task/delegate", json.dumps(held).encode()),
        ]
        print(
            f"{os.cpu_count()} cores, {CONNECTIONS} connections, {seconds:g} s each; ratio to a bare route of this run"
        )
        for name, path, body in rows:
            bare_path = "/bare" if body is None else "/taken"
            bare = asyncio.run(rate(bare_port, bare_path, seconds=seconds / 2, body=body))
            ours = asyncio.run(rate(port, path, seconds=seconds, body=body))
            bare += asyncio.run(rate(bare_port, bare_path, seconds=seconds / 2, body=body))
            print(f"{name:34} {ours:8.0f}/s   bare {bare / 2:8.0f}/s   ratio {ours / (bare / 2):.2f}")


if __name__ == "__main__":
    main()
