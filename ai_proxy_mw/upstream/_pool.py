"""The connections to one origin: kept, capped, handed out in order."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import (
    UpstreamBusy,
    UpstreamDisconnected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ai_proxy_mw.upstream._connection import Connection
from ai_proxy_mw.upstream._dial import dial

if TYPE_CHECKING:
    from ai_proxy_mw._config import Timeouts
    from ai_proxy_mw.upstream.base import Origin

QUICKEST_TICK = 0.01
SLOWEST_TICK = 0.5
"""Seconds between two looks at the connections."""


class Pool:
    """Belongs to one event loop.

    A caller that finds all connections in use waits in line. Whoever gives a connection up hands
    it, or the right to open another (None), to the first in line, so nobody overtakes.
    """

    def __init__(
        self,
        origin: Origin,
        loop: asyncio.AbstractEventLoop,
        *,
        limit: int,
        keepalive: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self.origin = origin
        self.keepalive = keepalive
        self._loop = loop
        self._limit = limit
        self._ssl = ssl_context
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._dialling = 0
        self._line: deque[asyncio.Future[Connection | None]] = deque()
        self._timeouts: Timeouts | None = None
        self._tick = SLOWEST_TICK
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def open_connections(self) -> int:
        return len(self._all)

    @property
    def idle_connections(self) -> int:
        return len(self._idle)

    async def acquire(self, timeouts: Timeouts) -> Connection:
        """A connection where none is kept: a new one, or in turn one that somebody gives back.

        Raises UpstreamBusy, UpstreamUnreachable, UpstreamTimeout("connect").
        """
        if len(self._all) + self._dialling < self._limit:
            self._dialling += 1
            return await self._open(timeouts.connect)
        handed = await self._wait_in_line(timeouts.pool)
        if handed is None:
            return await self._open(timeouts.connect)
        if handed.usable(self._loop.time()):
            return handed
        # Closed between the handing over and now. Its place stays ours: nobody overtakes.
        self._all.discard(handed)
        self._dialling += 1
        handed.abort()
        return await self._open(timeouts.connect)

    def kept(self) -> Connection | None:
        """A connection that waits for a next exchange; the last one used, which is the freshest."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable(self._loop.time()):
                return connection
            connection.abort()
        return None

    def idle(self, connection: Connection) -> None:
        """Take back a connection that can carry another exchange."""
        if connection.keepalive <= 0:
            connection.abort()
            return
        waiter = self._next_in_line()
        if waiter is not None:
            waiter.set_result(connection)
            return
        self._idle.append(connection)

    def keep_time(self, timeouts: Timeouts) -> None:
        """See to it that these timeouts are kept, by looking at all connections in turn.

        One timer for all instead of one for each call, which costs more than all the rest of the
        time-keeping. A deadline is passed by an eighth of the shortest time at most.
        """
        if timeouts is not self._timeouts:
            self._timeouts = timeouts
            tick = _tick(timeouts, self.keepalive)
            if tick < self._tick and self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._tick = min(tick, self._tick)
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        for connection in list(self._all):
            connection.check(now)
        self._timer = self._loop.call_later(self._tick, self._look) if self._all else None

    def closed(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        if connection not in self._all:
            return
        self._all.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._pass_on_right()

    def drop_idle(self) -> None:
        """Close what is kept, where one of them has turned out to be stale."""
        while self._idle:
            self._idle.pop().abort()

    def close(self) -> None:
        """Close all connections, those in use too; who waits for one is told."""
        self._closed = True
        while (waiter := self._next_in_line()) is not None:
            waiter.set_exception(UpstreamDisconnected())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._all):
            connection.shut()

    async def _open(self, patience: float) -> Connection:
        try:
            async with asyncio.timeout(patience):
                connection = await dial(
                    self._loop, self.origin, lambda: Connection(self, self._loop), self._ssl
                )
        except TimeoutError:
            self._give_up_right()
            raise UpstreamTimeout("connect") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: a host that IDNA cannot encode
            self._give_up_right()
            raise UpstreamUnreachable from error
        except BaseException:
            self._give_up_right()
            raise
        self._dialling -= 1
        self._all.add(connection)
        if self._closed:  # while it was dialled
            connection.abort()
            raise UpstreamDisconnected
        return connection

    async def _wait_in_line(self, patience: float) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._line.append(waiter)
        try:
            async with asyncio.timeout(patience):
                return await waiter
        except TimeoutError:
            self._leave_line(waiter)
            raise UpstreamBusy from None
        except asyncio.CancelledError:
            self._leave_line(waiter)
            raise

    def _leave_line(self, waiter: asyncio.Future[Connection | None]) -> None:
        if waiter.cancelled() or waiter.exception() is not None:
            return  # whoever hands out skips it, or there is nothing more to hand out
        # It was served in the moment it left: what it was given goes to the next.
        handed = waiter.result()
        if handed is None:
            self._give_up_right()
        else:
            self.idle(handed)

    def _next_in_line(self) -> asyncio.Future[Connection | None] | None:
        while self._line:
            waiter = self._line.popleft()
            if not waiter.done():
                return waiter
        return None

    def _give_up_right(self) -> None:
        self._dialling -= 1
        self._pass_on_right()

    def _pass_on_right(self) -> None:
        waiter = self._next_in_line()
        if waiter is not None:
            self._dialling += 1
            waiter.set_result(None)


def _tick(timeouts: Timeouts, keepalive: float) -> float:
    shortest = min(timeouts.write, timeouts.first_byte, timeouts.idle, timeouts.total)
    if keepalive > 0:
        shortest = min(shortest, keepalive)
    return min(max(shortest / 8, QUICKEST_TICK), SLOWEST_TICK)
