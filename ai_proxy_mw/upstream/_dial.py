"""Opening a connection: name look-up, Happy Eyeballs (RFC 8305), TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ai_proxy_mw.upstream.base import Origin

STAGGER = 0.25
"""Seconds before the next address is tried beside the first (RFC 8305, section 5)."""

P = TypeVar("P", bound=asyncio.BaseProtocol)
Address = tuple[int, int, int, str, Any]


async def dial(
    loop: asyncio.AbstractEventLoop,
    origin: Origin,
    protocol: Callable[[], P],
    ssl_context: ssl.SSLContext | None,
) -> P:
    """Connect; raises OSError (ssl.SSLError and socket.gaierror are of that tree)."""
    addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    sock = await _first_to_answer(loop, _interleave(addresses))
    try:
        _, connected = await loop.create_connection(
            protocol,
            sock=sock,
            ssl=ssl_context if origin.scheme == "https" else None,
            server_hostname=origin.host if origin.scheme == "https" else None,
        )
    except BaseException:
        sock.close()
        raise
    return connected


def _interleave(addresses: Sequence[Address]) -> list[Address]:
    """The families in turn, beginning with the resolver's first (RFC 8305, section 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    turns = chain.from_iterable(zip_longest(first, others))
    return [address for address in turns if address is not None]


async def _connect(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    family, kind, proto, _, sockaddr = address
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


async def _first_to_answer(
    loop: asyncio.AbstractEventLoop, addresses: list[Address]
) -> socket.socket:
    if len(addresses) == 1:
        return await _connect(loop, addresses[0])
    waiting = list(reversed(addresses))
    running: set[asyncio.Task[socket.socket]] = set()
    failure: OSError | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(loop.create_task(_connect(loop, waiting.pop())))
            done, _ = await asyncio.wait(
                running,
                timeout=STAGGER if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                running.remove(task)
                try:
                    return task.result()
                except OSError as error:
                    failure = failure or error
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_close_late)
    assert failure is not None
    raise failure


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    """The other addresses' connections: one that came about all the same is not wanted."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
