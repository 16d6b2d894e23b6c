"""The transport of our own: HTTP/1.1 with kept connections (RFC 9112).

It relays and does nothing else, at a fraction of a general client's cost; docs/performance.md
has the figures. HTTP/2, outbound proxies and SOCKS are left to an httpx client.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import InvalidRequest, StaleConnection
from ai_proxy_mw._http import Response
from ai_proxy_mw.upstream._connection import WRITE_SLICE, Connection
from ai_proxy_mw.upstream._pool import Pool

if TYPE_CHECKING:
    from ai_proxy_mw._incoming import RequestBody
    from ai_proxy_mw.upstream._exchange import Exchange
    from ai_proxy_mw.upstream.base import Origin, Outbound

Pools = dict["Origin", Pool]


class NativeTransport:
    """Implements `Transport`. `max_connections` and `keepalive` (seconds) count per origin.

    It may be used from several event loops: each has connections of its own.
    """

    def __init__(
        self,
        *,
        max_connections: int = 1000,
        keepalive: float = 4.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._max_connections = max_connections
        self._keepalive = keepalive
        self._ssl = ssl_context
        self._pools: dict[asyncio.AbstractEventLoop, Pools] = {}

    @property
    def open_connections(self) -> int:
        """Connections of the running loop that are open."""
        return sum(pool.open_connections for pool in self._here().values())

    @property
    def idle_connections(self) -> int:
        """Those of them that carry no exchange."""
        return sum(pool.idle_connections for pool in self._here().values())

    async def send(self, outbound: Outbound) -> Response:
        pool = self._pool(outbound.origin)
        connection = pool.kept() or await pool.acquire(outbound.timeouts)
        again = False
        while True:
            exchange = connection.begin(outbound.method, outbound.timeouts)
            try:
                # Not in a coroutine of its own: one more frame to wake for every call.
                if not _send_at_once(connection, exchange, outbound):
                    await _send_in_pieces(connection, exchange, outbound)
                await exchange.head
                return Response(exchange.status, exchange.headers, exchange)
            except BaseException as error:
                exchange.close()
                stale = isinstance(error, StaleConnection) and connection.used
                if again or not (stale and outbound.repeatable):
                    raise
            again = True
            pool.drop_idle()
            connection = await pool.acquire(outbound.timeouts)

    async def aclose(self) -> None:
        """Close the running loop's connections, those in use too."""
        for pool in self._pools.pop(asyncio.get_running_loop(), {}).values():
            pool.close()

    def _here(self) -> Pools:
        return self._pools.get(asyncio.get_running_loop(), {})

    def _pool(self, origin: Origin) -> Pool:
        loop = asyncio.get_running_loop()
        pools = self._pools.get(loop)
        if pools is None:
            # A loop that ended without aclose() took its connections with it.
            self._pools = {
                known: here for known, here in self._pools.items() if not known.is_closed()
            }
            pools = self._pools[loop] = {}
        pool = pools.get(origin)
        if pool is None:
            pool = pools[origin] = self._new_pool(origin, loop)
        return pool

    def _new_pool(self, origin: Origin, loop: asyncio.AbstractEventLoop) -> Pool:
        if origin.scheme == "https" and self._ssl is None:
            self._ssl = ssl.create_default_context()
        return Pool(
            origin,
            loop,
            limit=self._max_connections,
            keepalive=self._keepalive,
            ssl_context=self._ssl,
        )


def _send_at_once(connection: Connection, exchange: Exchange, outbound: Outbound) -> bool:
    """Send a request that is one piece; whether it is."""
    body = outbound.body
    if not isinstance(body, bytes) or len(body) > WRITE_SLICE:
        return False
    connection.write(_head(outbound, len(body)) + body)
    exchange.all_sent()
    return True


async def _send_in_pieces(connection: Connection, exchange: Exchange, outbound: Outbound) -> None:
    body = outbound.body
    if isinstance(body, bytes):
        await _send_in_slices(connection, exchange, outbound, body)
    else:
        await _upload(connection, exchange, outbound, body)


async def _send_in_slices(
    connection: Connection, exchange: Exchange, outbound: Outbound, body: bytes
) -> None:
    connection.write(_head(outbound, len(body)))
    view = memoryview(body)
    for start in range(0, len(body), WRITE_SLICE):
        if exchange.head.done():
            return  # it has answered already and need not hear the rest
        exchange.sending()
        connection.write(bytes(view[start : start + WRITE_SLICE]))
        await connection.drain()
    exchange.all_sent()


async def _upload(
    connection: Connection, exchange: Exchange, outbound: Outbound, body: RequestBody
) -> None:
    """Send a body that is still coming, listening for an answer that comes early."""
    connection.write(_head(outbound, body.declared))
    sender = asyncio.ensure_future(_pump(connection, exchange, body))
    try:
        await asyncio.wait((sender, exchange.head), return_when=asyncio.FIRST_COMPLETED)
        if not exchange.head.done():
            sender.result()  # the caller's own fault comes out as it is
        await exchange.head
    finally:
        # An answer before the end of the upload is a refusal: the rest is not wanted.
        if not sender.done():
            sender.cancel()
            await asyncio.wait((sender,))
        if not sender.cancelled():
            sender.exception()


async def _pump(connection: Connection, exchange: Exchange, body: RequestBody) -> None:
    declared = body.declared
    sent = 0
    async for chunk in body:
        sent += len(chunk)
        if declared is not None and sent > declared:
            raise InvalidRequest("The request body is longer than its Content-Length.")
        exchange.sending()
        connection.write(chunk if declared is not None else b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await connection.drain()
        if sent == declared:
            exchange.all_sent()  # though the caller's end mark may still be on its way
    if declared is None:
        connection.write(b"0\r\n\r\n")
        exchange.all_sent()
    elif sent < declared:
        raise InvalidRequest("The request body is shorter than its Content-Length.")


def _head(outbound: Outbound, length: int | None) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (outbound.method.encode("ascii"), outbound.target)]
    lines += map(b": ".join, outbound.headers)
    if length is None:
        lines.append(b"transfer-encoding: chunked")
    elif length or outbound.method not in ("GET", "HEAD", "DELETE"):
        lines.append(b"content-length: %d" % length)
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    # Whatever was put in, it is as many lines as it was meant to be.
    if not head.count(b"\n") == head.count(b"\r") == len(lines) or b"\0" in head:
        raise InvalidRequest("A header of the request cannot be sent on.")
    return head
