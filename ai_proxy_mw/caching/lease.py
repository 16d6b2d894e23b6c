"""Of many processes with one question one asks it, the others hear its answer through the store.

Who holds the lock of a key asks upstream. Who wants the answer meanwhile says so in the store; then
it is written there in parts while it comes. A holder that dies loses the lock when its lease runs
out, and one of those who wait takes it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import UpstreamError
from ai_proxy_mw.caching.parts import Part, encode, part_key, told, wanted_key

if TYPE_CHECKING:
    from ai_proxy_mw.caching.flight import Flight, Listener
    from ai_proxy_mw.caching.keeper import Keeper

LEASE = 5.0
"""Seconds until the lock of a process that has died is free."""

FIRST_LOOK = 0.1
LOOK = 1.0
"""Seconds between two looks whether somebody else wants the answer; the lease is renewed then."""

PACE = 0.05
"""Seconds between two parts for those who do."""

WANTED = 3 * LOOK
"""Seconds for which it counts that somebody has said so."""

PARTS_FOR = 60.0
"""Seconds that parts can be read."""


class Lease:
    """The lock of a key while a flight lasts, in the hands of `owner`."""

    def __init__(self, keeper: Keeper, key: str, owner: str, flight: Flight) -> None:
        self._keeper = keeper
        self._key = key
        self._owner = owner
        self._flight = flight
        self._listener: Listener | None = None
        self._parts = 0
        self._tending = asyncio.get_running_loop().create_task(self._tend())

    async def end(self, *, stored: bool) -> None:
        """Tell those who wait how it has ended, and let go of the lock."""
        self._tending.cancel()
        await asyncio.wait([self._tending])
        try:
            if not stored and self._can_be_told() and await self._is_wanted():
                self._listen()
            if self._listener is not None:
                await self._publish()
        finally:
            await self._keeper.unlock(self._key, self._owner)

    async def _tend(self) -> None:
        await asyncio.sleep(FIRST_LOOK)
        while True:
            await self._look()
            again_at = time.monotonic() + LOOK
            while self._listener is not None and time.monotonic() < again_at:
                await self._publish()
                await asyncio.sleep(PACE)
            if self._listener is None:
                await asyncio.sleep(LOOK)

    async def _look(self) -> None:
        """Keep the lock, and see whether somebody waits."""
        if self._flight.too_large and self._listener is None:
            # Its beginning is gone: who waits for it had better ask for himself.
            await self._keeper.unlock(self._key, self._owner)
            return
        await self._keeper.lock(self._key, self._owner, lease=LEASE)
        wanted = await self._is_wanted()
        if wanted and self._listener is None:
            self._listen()
        elif not wanted and self._listener is not None:
            # Nor shall the upstream work for who has left.
            await self._listener.aclose()
            self._listener = None

    def _listen(self) -> None:
        if not self._flight.too_large:
            self._listener = self._flight.listen()
            self._parts = 0

    def _can_be_told(self) -> bool:
        """Whether how it has ended is good for others; what only concerns the caller is not."""
        error = self._flight.error
        return not self._flight.too_large and (error is None or isinstance(error, UpstreamError))

    async def _is_wanted(self) -> bool:
        return await self._keeper.load(wanted_key(self._key, self._owner)) is not None

    async def _publish(self) -> None:
        flight, listener = self._flight, self._listener
        assert listener is not None
        first = listener.at
        pieces = listener.take_all()
        error = flight.error
        over = flight.ended and (error is None or isinstance(error, UpstreamError))
        if not pieces and not over and (self._parts or flight.head is None):
            return
        part = Part(
            first,
            pieces,
            head=None if self._parts else flight.head,
            whole=over and error is None,
            failed=told(error) if over and isinstance(error, UpstreamError) else None,
        )
        key = part_key(self._key, self._owner, self._parts)
        self._parts += 1
        await self._keeper.save(key, encode(part), ttl=PARTS_FOR)
