"""A process' line to its supervisor: how all services stand, and what it asks of them.

`--services-fd N` is a socket. The supervisor writes a line `{"services": […]}` whenever one of them changes; a process
writes `{"start": NAME}` or `{"restart": NAME}`. A workshop without a supervisor (a notebook's, one started by hand) has
no such line: its services are never told, and nobody starts any.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

import msgspec

from koubou_panel.core.events import Sample, ServiceChanged
from koubou_panel.core.records import Service
from koubou_panel.core.state import Folded, State
from koubou_panel.shop.clock import Clock
from koubou_panel.shop.hub import Hub

LINE_BYTES = 1 << 20

log = logging.getLogger(__name__)


class _Told(msgspec.Struct):
    services: list[Service]


def add_argument(parser: ArgumentParser) -> None:
    """Add the line's descriptor to a process' command line."""
    parser.add_argument("--services-fd", type=int, metavar="N", help="the line to the supervisor")


class Services:
    """The services of this workshop, as its supervisor says. Loop thread only.

    Args:
        on_change: called with each service that changed.
    """

    def __init__(self, on_change: Callable[[Service], None] | None = None) -> None:
        """Without a line to a supervisor."""
        self.records: dict[str, Service] = {}
        self._on_change = on_change
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def attach(
        cls, services_fd: int | None, on_change: Callable[[Service], None] | None = None
    ) -> Self:
        """Listen on the descriptor that the supervisor gave; None: there is no supervisor."""
        services = cls(on_change)
        if services_fd is not None:
            line = socket.socket(fileno=services_fd)
            line.set_inheritable(False)
            reader, services._writer = await asyncio.open_connection(sock=line, limit=LINE_BYTES)
            services._reading = asyncio.create_task(services._read(reader))
        return services

    @property
    def is_supervised(self) -> bool:
        """Whether somebody carries out what is asked here."""
        return self._writer is not None and not self._writer.is_closing()

    def start(self, name: str) -> bool:
        """Ask for a service that waits for being needed; False: nobody starts it here."""
        return self._ask({"start": name})

    def restart(self, name: str) -> bool:
        """Ask that a service be ended and started anew, also one that has failed; False: nobody does it here."""
        return self._ask({"restart": name})

    def close(self) -> None:
        """Hang up."""
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.close()

    def _ask(self, request: dict[str, str]) -> bool:
        if self._writer is None or self._writer.is_closing():
            return False
        self._writer.write(json.dumps(request).encode() + b"\n")
        return True

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):  # the supervisor is gone: the life pipe says so
            while line := await reader.readline():
                self._take(msgspec.json.decode(line, type=_Told).services)
        if self._writer is not None:
            self._writer.close()

    def _take(self, services: Sequence[Service]) -> None:
        changed = [service for service in services if self.records.get(service.name) != service]
        self.records |= {service.name: service for service in changed}
        if self._on_change is not None:
            for service in changed:
                self._on_change(service)


class ServiceNotes:
    """Notes the services as facts of the workshop, and again where its state was read anew. Loop thread only.

    Args:
        hub: takes the facts.
        clock: gives UTC seconds.
    """

    def __init__(self, hub: Hub, clock: Clock) -> None:
        """Follow the hub until `close`."""
        self._hub = hub
        self._clock = clock
        self._known: dict[str, Service] = {}
        self.close = hub.subscribe(self)

    def note(self, service: Service) -> None:
        """Tell that a service changed."""
        self._known[service.name] = service
        self._hub.note(ServiceChanged(self._clock(), service))

    def on_reset(self, state: State) -> None:
        """The archive does not keep them: a state that was read from it has none."""
        for service in self._known.values():
            if state.services.get(service.name) != service:
                self._hub.note(ServiceChanged(self._clock(), service))

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Other facts change no service."""

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Samples neither."""
