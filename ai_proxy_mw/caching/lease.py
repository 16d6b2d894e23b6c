"""Of many processes with one question one asks it, the others hear its answer through the store.

Who holds the lock of a key asks upstream. Who wants the answer meanwhile says so in the store; then
it is written there in parts while it comes. A holder that dies loses the lock when its lease runs
out, and one of those who wait takes it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import UpstreamDisconnected, UpstreamError
from ai_proxy_mw.caching.parts import Part, encode, part_key, told, wanted_key

if TYPE_CHECKING:
    from ai_proxy_mw.caching.flight import Flight, Listener
    from ai_proxy_mw.caching.keeper import Keeper

LEASE = 5.0
"""Seconds until the lock of a process that has died is free."""

FIRST_LOOK = 0.1
LOOK = 0.5
"""Seconds between two looks whether somebody else wants the answer, at first and at most; the lease
is renewed then."""

PACE = 0.05
"""Seconds between two parts for those who do."""

WANTED = 3.0
"""Seconds for which it counts that somebody has said so."""

PARTS_FOR = 600.0
"""Seconds that parts can be read, for who comes late: a call seldom takes longer."""


class Lease:
    """The lock of a key while a flight lasts, in the hands of `owner`."""

    def __init__(self, keeper: Keeper, key: str, owner: str, flight: Flight) -> None:
        self._keeper = keeper
        self._key = key
        self._owner = owner
        self._flight = flight
        self._listener: Listener | None = None
        self._at = 0  # pieces that are in parts
        self._parts = 0
        self._unsaved: tuple[str, bytes] | None = None
        self._all_told = False
        self._tending = asyncio.get_running_loop().create_task(self._tend())

    async def end(self, *, stored: bool) -> None:
        """Tell those who wait how it has ended, and let go of the lock."""
        try:
            self._tending.cancel()
            await asyncio.wait([self._tending])
            await self._listen_at_the_end(stored=stored)
            await self._publish()  # what was being written when that task was cancelled
            await self._publish()
        finally:
            await self._keeper.unlock(self._key, self._owner)

    async def _listen_at_the_end(self, *, stored: bool) -> None:
        """If somebody waits who will not find the answer among what is kept, or knows a part."""
        error = self._flight.error
        # What only concerns its caller is not for others.
        can_be_told = error is None or isinstance(error, UpstreamError)
        if can_be_told and (self._parts or not stored) and await self._is_wanted():
            self._listen()

    async def _tend(self) -> None:
        pause = FIRST_LOOK
        while True:
            await self._publish_for(pause)
            await self._look()
            pause = min(LOOK, 2 * pause)  # those who ask the same mostly do so at once

    async def _publish_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._listener is not None and time.monotonic() < until:
            await self._publish()
            await asyncio.sleep(PACE)
        await asyncio.sleep(until - time.monotonic())

    async def _look(self) -> None:
        """Keep the lock, and see whether somebody waits."""
        if self._flight.too_large and self._listener is None:
            # Its beginning is gone: who waits for it had better ask for himself.
            await self._keeper.unlock(self._key, self._owner)
            return
        await self._keeper.lock(self._key, self._owner, lease=LEASE)
        wanted = await self._is_wanted()
        if wanted:
            self._listen()
        elif self._listener is not None:
            # Nor shall the upstream work for who has left.
            await self._listener.aclose()
            self._listener = None

    def _listen(self) -> None:
        """From where the parts end: there may be followers who have heard those."""
        if self._listener is None and not self._flight.too_large:
            self._listener = self._flight.listen()
            self._listener.at = self._at

    async def _is_wanted(self) -> bool:
        return await self._keeper.load(wanted_key(self._key, self._owner)) is not None

    async def _publish(self) -> None:
        """Store what has come. What the store does not take is tried again: a part that is missing
        is the end for all who have heard those before it.
        """
        if self._unsaved is None and self._listener is not None and not self._all_told:
            self._unsaved = self._packed(self._listener)
        if self._unsaved is not None and await self._keeper.save(*self._unsaved, ttl=PARTS_FOR):
            self._unsaved = None

    def _packed(self, listener: Listener) -> tuple[str, bytes] | None:
        """The next part and its key, if there is something to tell."""
        part = self._next(listener)
        if part is None:
            return None
        self._at = listener.at
        self._all_told = part.whole or part.failed is not None
        key = part_key(self._key, self._owner, self._parts)
        self._parts += 1
        return key, encode(key, part)

    def _next(self, listener: Listener) -> Part | None:
        flight = self._flight
        first = listener.at
        pieces = listener.take_all()
        head = None if self._parts else flight.head
        if listener.at < flight.count:  # he was cut off
            return Part(first, [], head=head, failed=told(UpstreamDisconnected()))
        error = flight.error
        if isinstance(error, UpstreamError):
            return Part(first, pieces, head=head, failed=told(error))
        whole = flight.ended and error is None
        if not pieces and not whole:
            return None
        aside = list(flight.aside) if whole else []
        return Part(first, pieces, head=head, whole=whole, aside=aside)
