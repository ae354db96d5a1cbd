"""Many live subscribers in a process of their own: `python crowd.py URL TOKEN COUNT LAST`.

Each follows `task` until its seq is LAST. Prints `ready` once all follow, then a line of JSON: how many saw every
fact in order, and how many states they were sent beside the first.
"""

from __future__ import annotations

import asyncio
import json
import sys

from websockets.asyncio.client import connect


async def follow(url: str, token: str, last: int, ready: asyncio.Semaphore) -> tuple[bool, int]:
    """One subscriber: whether it saw everything in order, and how often it had to start again."""
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(url, additional_headers=headers, compression=None, proxy=None) as connection:
        await connection.send('{"command":"subscribe","channel":"task"}')
        place, in_order, states = None, True, 0
        while place is None or place < last:
            message = json.loads(await connection.recv())
            match message["type"]:
                case "subscribed":
                    place = message["seq"]
                    ready.release()
                case "task_update":
                    in_order &= message["seq"] == place + 1
                    place = message["seq"]
                case "initial_state":
                    states += 1
        return in_order, states - 1


async def main(url: str, token: str, count: int, last: int) -> None:
    """Let them all follow."""
    ready = asyncio.Semaphore(0)
    followers = [asyncio.create_task(follow(url, token, last, ready)) for _ in range(count)]
    for _ in range(count):
        await ready.acquire()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    told = await asyncio.gather(*followers)
    result = {"in_order": sum(ok for ok, _ in told), "restarts": sum(n for _, n in told)}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
