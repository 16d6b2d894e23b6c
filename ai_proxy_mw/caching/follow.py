"""Hears the answer that another process brings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import UpstreamDisconnected
from ai_proxy_mw._http import Body, Response
from ai_proxy_mw.caching.lease import LEASE, LOOK, PACE, WANTED
from ai_proxy_mw.caching.parts import Part, decode, part_key, retold, wanted_key

if TYPE_CHECKING:
    from ai_proxy_mw.caching.entry import Entry
    from ai_proxy_mw.caching.keeper import Keeper

SOON = 0.01
"""Seconds until the first look; then longer each time, up to PACE."""

ASK_LOCK = 0.25
"""Seconds between two looks whether the holder still lives."""


class Followed:
    """What a process that waits for another hears of it."""

    def __init__(
        self, keeper: Keeper, key: str, me: str, is_fresh: Callable[[Entry], bool]
    ) -> None:
        self._keeper = keeper
        self._key = key
        self._me = me
        self._is_fresh = is_fresh
        self._said_at = 0.0
        self._asked_at = time.monotonic()

    async def answer(self, holder: str) -> Entry | Response | None:
        """What `holder` or who comes after him answers; None when the lock is ours: then it is we
        who have to ask.
        """
        pause = SOON
        while True:
            await self.want(holder)
            part = await self.part(holder, 0)
            if part is not None and part.failed is not None and part.head is None:
                raise retold(part.failed)
            if part is not None and part.head is not None:
                status, headers, event_stream = part.head
                response = Response(status, headers, Remote(self, holder, part))
                response.event_stream = event_stream
                return response
            entry = await self._keeper.find(self._key)
            if entry is not None and self._is_fresh(entry):
                return entry
            await asyncio.sleep(pause)
            pause = min(PACE, pause * 1.5)
            holder = await self.holder(holder)
            if holder == self._me:
                return await self._last_look()

    async def _last_look(self) -> Entry | None:
        entry = await self._keeper.find(self._key)
        if entry is None or not self._is_fresh(entry):
            return None
        await self._keeper.unlock(self._key, self._me)
        return entry

    async def want(self, holder: str) -> None:
        """Say so, now and then."""
        now = time.monotonic()
        if now - self._said_at > LOOK:
            self._said_at = now
            await self._keeper.save(wanted_key(self._key, holder), b"1", ttl=WANTED)

    async def part(self, holder: str, number: int) -> Part | None:
        return decode(await self._keeper.load(part_key(self._key, holder, number)))

    async def holder(self, known: str) -> str:
        """Who brings the answer now: we, if nobody else has the lock or the store is away."""
        now = time.monotonic()
        if now - self._asked_at < ASK_LOCK:
            return known
        self._asked_at = now
        found = await self._keeper.lock(self._key, self._me, lease=LEASE)
        if found != known:
            self._said_at = 0.0
        return self._me if found is None else found

    async def let_go(self) -> None:
        """Of the lock, taken only to see that it was free."""
        await self._keeper.unlock(self._key, self._me)


class Remote(Body):
    """The body of an answer that another process reads."""

    __slots__ = ("_followed", "_heard", "_holder", "_number", "_part", "_queue")

    def __init__(self, followed: Followed, holder: str, part: Part) -> None:
        self._followed = followed
        self._holder = holder
        self._part = part
        self._queue = list(reversed(part.pieces))
        self._heard = len(part.pieces)
        self._number = 1

    @property
    def ended(self) -> bool:
        return not self._queue and self._part.whole

    async def __anext__(self) -> bytes:
        while not self._queue:
            if self._part.whole:
                raise StopAsyncIteration
            if self._part.failed is not None:
                raise retold(self._part.failed)
            self._part = await self._next()
            self._number += 1
            self._heard += len(self._part.pieces)
            self._queue = list(reversed(self._part.pieces))
        return self._queue.pop()

    async def _next(self) -> Part:
        lost = False
        while True:
            part = await self._followed.part(self._holder, self._number)
            if part is not None and part.first == self._heard:
                return part
            if lost:
                # A second answer could not follow what has been heard of this one.
                raise UpstreamDisconnected
            await self._followed.want(self._holder)
            await asyncio.sleep(PACE)
            if await self._followed.holder(self._holder) != self._holder:
                await self._followed.let_go()
                lost = True  # but its last words may be there by now

    async def aclose(self) -> None:
        self._queue = []
        self._part = Part(0, [], whole=True)
