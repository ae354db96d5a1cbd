"""The private link's server on a Unix socket: 0600 in a 0700 folder, and the peer's user id checked.

One subscription serves all clients; what they are told is encoded once, unless a client is to get values of its own
tasks with it. A replica that does not read is no longer fed and gets the whole state anew when it has caught up: it
never slows the hub or another client.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from koubou_panel.core.events import OutputGrew, Sample, TaskProgressed
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import Task
from koubou_panel.core.state import Folded, State, without_payload
from koubou_panel.errors import ProtocolFault
from koubou_panel.servers.private_client import PrivateClient
from koubou_panel.shop.address import bind_private
from koubou_panel.wire import link
from koubou_panel.wire.replica import fact_frames

BEAT_S = 1.0
BACKLOG = 1_024
FOLLOWERS_S = 1.0  # what is followed may be pending, and so not end before this

log = logging.getLogger(__name__)


class PrivateServer:
    """Serves `shop` at `path` to any number of this user's processes. Loop thread only.

    Args:
        shop: the workshop.
        path: the socket's file; its folder exists, and the caller holds the home's lock.
        is_in_place: whether what the caller holds is still the home there: else the place is another's to listen in.
    """

    def __init__(self, shop: Shop, path: Path, is_in_place: Callable[[], bool] = lambda: True) -> None:
        """Nothing listens before `start`."""
        self.shop = shop
        self.python = f"{sys.version_info.major}.{sys.version_info.minor}"
        self._path = path
        self._is_in_place = is_in_place
        self._clients: set[PrivateClient] = set()
        self._left = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._file: os.stat_result | None = None
        self._beats: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def clients(self) -> int:
        """How many processes are connected."""
        return len(self._clients)

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._unsubscribe = self.shop.subscribe(self)
        self._server = await self._listen()
        self._beats = loop.create_task(self._beat())

    async def _listen(self) -> asyncio.Server:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        sock = bind_private(self._path)
        self._file = self._path.stat()
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: PrivateClient(self), sock=sock, backlog=BACKLOG)

    async def _listen_again(self) -> None:
        """Somebody removed the socket's file: those who are connected stay, new ones need a new one."""
        log.warning("%s was removed; it is made again", self._path)
        before, self._server = self._server, await self._listen()
        if before is not None:
            before.close()

    async def close(self) -> None:
        """Hang up on everybody and remove the socket; who follows a task may read how it ended first."""
        await self._let_followers_end()
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._beats is not None:
            self._beats.cancel()
        if self._is_own():
            self._path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
        for client in tuple(self._clients):
            client.close()
        # One turn for what is written to leave; who still does not read is cut off.
        await asyncio.sleep(0)
        for client in tuple(self._clients):
            client.abort()
        if self._server is not None:
            await self._server.wait_closed()

    def _is_own(self) -> bool:
        """Whether the socket's file is the one made here: in a folder that was removed and made again it is another's.

        The open socket keeps its file's number from being given to another.
        """
        try:
            return self._file is not None and os.path.samestat(self._path.stat(), self._file)
        except OSError:
            return False

    async def _let_followers_end(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(FOLLOWERS_S):
                while self._followers():
                    self._left.clear()
                    await self._left.wait()

    # -- what peers need (Desk) -------------------------------------------------------------------------------

    def joined(self, client: PrivateClient) -> None:
        """The client introduced itself."""
        self._clients.add(client)

    def left(self, client: PrivateClient) -> None:
        """The client is gone."""
        self._clients.discard(client)
        self._left.set()

    # -- what the shop tells (Subscriber) ---------------------------------------------------------------------

    def on_reset(self, state: State) -> None:
        """Every replica starts anew."""
        for client in self._clients:
            if client.is_replica:
                client.renew()

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Tell replicas the facts, and followers what became of their tasks."""
        replicas = [client for client in self._clients if client.is_replica]
        if replicas:
            try:
                _feed(replicas, folded)
            except ProtocolFault:
                log.exception("a fact is too large for the private link: its replicas connect anew")
                for client in replicas:
                    client.abort()
        followers = self._followers()
        if followers:
            for _, _, record in folded:
                if isinstance(record, Task):
                    self._tell(followers, record)

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Tell replicas what was measured, and followers how far their tasks are."""
        replicas = [client for client in self._clients if client.is_replica]
        if replicas:
            frame = link.encode(link.Samples(list(samples)))
            for client in replicas:
                client.feed(frame, is_sample=True)
        followers = self._followers()
        if followers:
            grown = {s.task_id for s in samples if isinstance(s, OutputGrew | TaskProgressed)}
            for task_id in grown:
                task = self.shop.state.tasks.get(task_id)
                # The state may know of an end that is not durable yet: its fact will tell.
                if task is not None and task.status == "in_progress":
                    self._tell(followers, task)

    def _followers(self) -> list[PrivateClient]:
        return [client for client in self._clients if client.followed]

    def _tell(self, followers: Sequence[PrivateClient], task: Task) -> None:
        task_id = task.task_id
        told = [client for client in followers if task_id in client.followed and not client.is_behind]
        if told:
            frame = link.encode(link.Now(task_id, without_payload(task)))
            for client in told:
                client.write(frame)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            with suppress(OSError):  # tried again in a second
                if not self._path.exists() and self._is_in_place():
                    await self._listen_again()
            frame = link.encode(link.Beat(self.shop.state.epoch))
            for client in tuple(self._clients):
                if not client.is_behind:
                    client.write(frame)


def _feed(replicas: Sequence[PrivateClient], folded: Sequence[Folded]) -> None:
    shared: list[bytes] | None = None
    for client in replicas:
        if valued := client.valued(folded):
            frames = list(fact_frames(folded, valued))
        else:
            frames = shared = list(fact_frames(folded)) if shared is None else shared
        for frame in frames:
            client.feed(frame)
