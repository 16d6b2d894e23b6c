"""One TCP connection to an upstream."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, cast

from ai_proxy_mw._errors import UpstreamDisconnected
from ai_proxy_mw.upstream._exchange import Exchange

if TYPE_CHECKING:
    from ai_proxy_mw._config import Timeouts
    from ai_proxy_mw.upstream._pool import Pool

WRITE_SLICE = 256 * 1024
"""The most bytes handed to the socket at once: a larger piece would be copied into its buffer."""


class Connection(asyncio.Protocol):
    """Carries one exchange at a time; in between it is idle in its pool."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._exchange: Exchange | None = None
        self._drained: asyncio.Future[None] | None = None
        self._held = False
        self._transport: asyncio.Transport | None = None
        self.blocked = False
        self.used = False
        self.idle_since = 0.0
        self.keepalive = pool.keepalive

    # -- asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.idle_since = self._loop.time()

    def data_received(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.feed(data)
        else:
            self.abort()  # nobody asked: nothing on this connection can be trusted any more

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.resume_writing()
        if self._exchange is not None:
            self._exchange.lost(exc)
        else:
            self._pool.closed(self)

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # -- for the pool ------------------------------------------------------------------------

    def usable(self, now: float) -> bool:
        """Whether a request may be sent on it: open, fresh, and silent."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        idle = now - self.idle_since
        if idle > self.keepalive:
            return False
        # A close that the event loop has not seen yet; unlikely enough to not ask every time.
        return idle < 0.5 or not _readable(transport)

    def check(self, now: float) -> None:
        """End what has lasted too long: an exchange, or the idleness."""
        if self._exchange is None:
            if now - self.idle_since >= self.keepalive:
                self.abort()
        elif now >= self._exchange.deadline or now >= self._exchange.total_at:
            self._exchange.expire(now)

    # -- for the transport -------------------------------------------------------------------

    def begin(self, method: str, timeouts: Timeouts) -> Exchange:
        exchange = Exchange(self, self._loop, method, timeouts)
        self._exchange = exchange
        self._pool.keep_time(timeouts)
        if self._transport is None:
            exchange.lost(None)
        return exchange

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the upstream has taken enough of what was written."""
        if self.blocked:
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    # -- for the exchange --------------------------------------------------------------------

    def pause_reading(self) -> None:
        if self._transport is not None and not self._held:
            self._held = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and self._held:
            self._held = False
            self._transport.resume_reading()

    def release(self, *, reusable: bool) -> None:
        """The answer is whole. Back to the pool, or closed if another could not follow."""
        exchange, self._exchange = self._exchange, None
        transport = self._transport
        if reusable and exchange and transport is not None and not transport.is_closing():
            self.resume_reading()
            self.used = True
            self.idle_since = self._loop.time()
            self.keepalive = min(self._pool.keepalive, exchange.promised)
            self._pool.idle(self)
        else:
            self.abort()

    def shut(self) -> None:
        """Close in mid-exchange too: whoever waits for the answer is told."""
        if self._exchange is not None:
            self._exchange.fail(UpstreamDisconnected())
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once, without sending what is still buffered."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
            self.resume_writing()
        self._pool.closed(self)


def _readable(transport: asyncio.Transport) -> bool:
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
