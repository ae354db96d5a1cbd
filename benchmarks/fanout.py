"""Task facts to 200 subscribers through the workshop's WebSocket port, against bare `websockets.broadcast`.

Both servers stand in one process and send the same bytes to the same kind of clients: raw sockets in a second
process, which count every byte and check that each client got exactly what was sent (length and CRC-32). A round
of one is followed by a round of the other; the medians are compared. Ours encodes the facts, too; the peer is
handed finished text. `streamed` emits a fact a loop pass and lets the feed join what comes together, as in the
workshop; `one_by_one` makes it send each fact by itself, as the peer does.

    python benchmarks/fanout.py [--subscribers 200] [--facts 500] [--rounds 7]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import selectors
import socket
import statistics
import sys
import time
import zlib

from websockets.asyncio.server import broadcast, serve

from koubou_panel.core.events import TaskStarted, TaskSubmitted
from koubou_panel.core.fold import evolve
from koubou_panel.core.ports import Link
from koubou_panel.core.records import Request, TaskId, WorkerId
from koubou_panel.core.state import Folded, State
from koubou_panel.servers.access import Access
from koubou_panel.servers.feed import Feed
from koubou_panel.servers.frames import text_frame
from koubou_panel.servers.socket import SocketServer
from koubou_panel.wire.messages import message_of

NEVER_S = 1e9
AT = 1_700_000_000.0


class Source:
    """A shop that only emits facts."""

    def __init__(self):
        self.state = State("bench")
        self.link = Link()
        self.subscriber = None

    def subscribe(self, subscriber):
        """Let the feed follow."""
        self.subscriber = subscriber
        subscriber.on_reset(self.state)
        return lambda: None

    def facts(self, count: int) -> list[Folded]:
        """The next facts, folded: a task comes in, a task starts."""
        made = []
        while len(made) < count:
            n = self.state.order + 1
            task_id = TaskId(f"task-{n:09}")
            name = f"python train.py --fold {n}"
            request = Request(
                task_id=task_id, kind="script", created_at=AT, name=name, summary=name, submitted_by="cli"
            )
            made.append(evolve(self.state, TaskSubmitted(AT, request, n)))
            made.append(evolve(self.state, TaskStarted(AT, task_id, 1, WorkerId("worker-1"), "here", n)))
        return made[:count]


# -- the clients, in their own process ------------------------------------------------------------------------


class Client:
    """One raw connection: bytes counted and summed since the last round."""

    def __init__(self, port: int, *, subscribes: bool):
        self.sock = socket.create_connection(("127.0.0.1", port))
        lines = (
            "GET / HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        self._read_until(b"\r\n\r\n")
        if subscribes:
            body = b'{"command":"subscribe","channel":"task"}'
            self.sock.sendall(bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body)
            self._read_until(b'"channel":"task","seq":0}')
        self.sock.settimeout(0)
        self.size = self.crc = 0

    def _read_until(self, end: bytes) -> None:
        seen = b""
        while not seen.endswith(end):
            seen += self.sock.recv(1)


def run_clients(ours: int, peer: int, count: int) -> None:
    """Connect, say `ready`, and answer each `WHO SIZE CRC` line with `ok` once every client has exactly that."""
    groups = {
        "ours": [Client(ours, subscribes=True) for _ in range(count)],
        "peer": [Client(peer, subscribes=False) for _ in range(count)],
    }
    selector = selectors.DefaultSelector()
    for client in [*groups["ours"], *groups["peer"]]:
        selector.register(client.sock, selectors.EVENT_READ, client)
    buffer = memoryview(bytearray(1 << 18))
    print("ready", flush=True)
    for line in sys.stdin:
        who, size, crc = line.split()
        behind = {client for client in groups[who] if client.size < int(size)}
        while behind:
            for key, _ in selector.select():
                client = key.data
                got = key.fileobj.recv_into(buffer)
                client.size += got
                client.crc = zlib.crc32(buffer[:got], client.crc)
                if client.size >= int(size):
                    behind.discard(client)
        correct = all((client.size, client.crc) == (int(size), int(crc)) for client in groups[who])
        for client in groups[who]:
            client.size = client.crc = 0
        print("ok" if correct else "wrong", flush=True)


# -- the servers ----------------------------------------------------------------------------------------------


async def emit_ours(feed: Feed, folded: list[Folded], *, alone: bool) -> None:
    for item in folded:
        feed.on_facts([item])
        if alone:
            feed.flush()
        await asyncio.sleep(0)


async def emit_peer(connections: set, messages: list[bytes]) -> None:
    for message in messages:
        broadcast(connections, message, text=True)
        await asyncio.sleep(0)


async def rounds(args: argparse.Namespace) -> dict:
    """Deliveries a second, by who sent and how."""
    source, of_peer = Source(), Source()
    access = Access(token="none", port=1, insecure_no_auth=True)  # noqa: S106 - nobody asks for it
    feed = Feed(source, stats_every_s=NEVER_S)
    server = SocketServer(source, access, port=0, feed=feed, ping_every_s=None)
    ours_port = await server.start()
    connections = set()

    async def stay(connection):
        connections.add(connection)
        await connection.wait_closed()

    async with serve(stay, "127.0.0.1", 0, compression=None, ping_interval=None) as peer_server:
        peer_port = peer_server.sockets[0].getsockname()[1]
        clients = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--clients", f"{ours_port},{peer_port}"),
            *("--subscribers", str(args.subscribers)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert (await clients.stdout.readline()).strip() == b"ready"
        rates: dict[str, list[float]] = {"streamed": [], "one_by_one": [], "peer": []}
        for _ in range(args.rounds + 1):
            for how, measured in rates.items():
                folded = (of_peer if how == "peer" else source).facts(args.facts)
                messages = [message_of(item)[1] for item in folded]
                sent = b"".join(text_frame(message) for message in messages)
                who = "peer" if how == "peer" else "ours"
                clients.stdin.write(f"{who} {len(sent)} {zlib.crc32(sent)}\n".encode())
                began = time.perf_counter()
                if how == "peer":
                    await emit_peer(connections, messages)
                else:
                    await emit_ours(feed, folded, alone=how == "one_by_one")
                assert (await clients.stdout.readline()).strip() == b"ok", f"{how}: not everything arrived"
                measured.append(args.facts * args.subscribers / (time.perf_counter() - began))
        clients.stdin.close()
        await clients.wait()
    await server.close()
    await feed.close()
    return {how: statistics.median(measured[1:]) for how, measured in rates.items()}


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--subscribers", type=int, default=200)
    parser.add_argument("--facts", type=int, default=500, help="facts a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clients", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.clients:
        ours, peer = args.clients.split(",")
        run_clients(int(ours), int(peer), args.subscribers)
        return
    found = asyncio.run(rounds(args))
    result = {
        "benchmark": "fanout",
        "subscribers": args.subscribers,
        "facts_a_round": args.facts,
        "rounds": args.rounds,
        "cpus": os.cpu_count(),
        "ours_per_s": round(found["streamed"]),
        "peer_per_s": round(found["peer"]),
        "ratio": round(found["streamed"] / found["peer"], 2),
        "one_by_one_per_s": round(found["one_by_one"]),
        "one_by_one_ratio": round(found["one_by_one"] / found["peer"], 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
