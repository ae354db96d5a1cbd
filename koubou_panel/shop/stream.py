"""The public WebSocket from outside: one ordered stream of messages that outlives cuts and restarts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from koubou_panel.core.records import FACT_CHANNELS, Channel
from koubou_panel.errors import ProtocolFault, Refused
from koubou_panel.wire.client import Follower, Message

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
OPEN_TIMEOUT_S = 10.0
REFUSALS = (401, 403)
CLOSE_UNAUTHORIZED = 4401


async def stream(
    url: str,
    *,
    token: str | None = None,
    channels: Iterable[Channel] = FACT_CHANNELS,
    outputs: Iterable[str] = (),
    on_cut: Callable[[str, float], None] | None = None,
    jitter: Callable[[], float] = random.random,
) -> AsyncGenerator[Message, None]:
    """Every message of these channels, each fact once and in order; reconnects for ever.

    Args:
        url: `ws://HOST:PORT/`.
        token: None where the workshop asks for none.
        channels: what to follow; facts of others are left out.
        outputs: ids of tasks whose output to follow.
        on_cut: told why the connection is gone, and after how many seconds the next is tried.
        jitter: gives a number from 0 to 1, to spread reconnections.

    Raises:
        Refused: code `unauthorized`: the workshop is there and does not let this token in.
    """
    follower = Follower(channels, outputs=outputs)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    while True:
        try:
            async with (
                connect(
                    url,
                    additional_headers=headers,
                    compression=None,
                    proxy=None,
                    max_size=MAX_MESSAGE_BYTES,
                    open_timeout=OPEN_TIMEOUT_S,
                ) as connection,
                aclosing(_follow(connection, follower)) as messages,
            ):
                async for message in messages:
                    yield message
            if connection.close_code == CLOSE_UNAUTHORIZED and follower.refusal is None:
                raise Refused("unauthorized", "the workshop asks for its token; `koubou token` prints it")
            why = f"closed ({connection.close_code} {connection.close_reason})".replace(" )", ")")
        except InvalidStatus as problem:
            if problem.response.status_code in REFUSALS:
                words = bytes(problem.response.body or b"").decode(errors="replace").strip()
                raise Refused("unauthorized", words or "the workshop does not let this token in") from None
            why = str(problem)
        except (OSError, TimeoutError, WebSocketException, ProtocolFault) as problem:
            why = str(problem) or type(problem).__name__
        if follower.refusal is not None:
            raise Refused("unauthorized", follower.refusal)
        delay_s = follower.disconnected(jitter())
        if on_cut is not None:
            on_cut(why, delay_s)
        await asyncio.sleep(delay_s)


async def _follow(connection: ClientConnection, follower: Follower) -> AsyncGenerator[Message, None]:
    for text in follower.connected():
        await connection.send(text)
    try:
        async for frame in connection:
            received = follower.receive(frame)
            for text in received.send:
                await connection.send(text)
            for message in received.messages:
                yield message
    except ConnectionClosed:
        return
