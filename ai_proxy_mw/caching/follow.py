"""Hears the answer that another process brings."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import UpstreamDisconnected
from ai_proxy_mw._http import Body, Response
from ai_proxy_mw.caching.lease import LEASE, LOOK, PACE, WANTED
from ai_proxy_mw.caching.parts import Part, decode, part_key, retold, wanted_key
from ai_proxy_mw.caching.replay import kept

if TYPE_CHECKING:
    from ai_proxy_mw.caching.entry import Entry
    from ai_proxy_mw.caching.keeper import Keeper

SOON = 0.01
"""Seconds until the first look; then longer each time, up to PACE."""

LONGEST = 600.0
"""Seconds that somebody else's answer is waited for: a clock set back keeps locks for ever."""

ASK_LOCK = 0.25
"""Seconds between two looks whether the holder still lives."""


class HolderLost(UpstreamDisconnected):
    """Who brought the answer has gone before its end."""


class Followed:
    """What a process that waits for another hears of it.

    me: the owner whose lock it would be.
    accepts: whether an entry of the store is an answer.
    most: bytes that are waited for before any of an answer that is no stream is given.
    """

    def __init__(
        self, keeper: Keeper, key: str, me: str, *, accepts: Callable[[Entry], bool], most: int
    ) -> None:
        self._keeper = keeper
        self._key = key
        self._me = me
        self._accepts = accepts
        self._most = most
        self._may_hold = False
        self._lost: str | None = None
        self._said: tuple[str, float] | None = None
        self._asked_at = 0.0
        self._sure_at = 0.0

    async def answer(self) -> Response | None:
        """What another process answers; None when we have to ask, with the lock or without one
        where nobody can tell who has it.
        """
        holder = await self._ask()
        pause = SOON
        until = time.monotonic() + LONGEST
        while holder not in (None, self._me) and self._keeper.is_readable:
            if time.monotonic() > until:
                return None
            response = await self._hear(holder) or await self._kept()
            if response is None:
                await asyncio.sleep(pause)
                pause = min(PACE, pause * 1.5)
                known, holder = holder, await self._holder(holder)
                if holder != known:
                    response = await self._hear(known, gone=True)
            if response is not None:
                await self.let_go()
                return response
        # A store that is away has cost its patience already.
        response = await self._kept() if holder == self._me else None
        if response is not None:
            await self.let_go()
        return response

    async def let_go(self) -> None:
        """Of the lock, where it was taken only to see whether it is free."""
        if self._may_hold:
            await self._keeper.unlock(self._key, self._me)
            self._may_hold = False

    async def want(self, holder: str) -> None:
        """Say so, now and then."""
        now = time.monotonic()
        if self._said is None or self._said[0] != holder or now - self._said[1] > LOOK:
            self._said = holder, now
            await self._keeper.save(wanted_key(self._key, holder), b"1", ttl=WANTED)

    async def part(self, holder: str, number: int) -> Part | None:
        key = part_key(self._key, holder, number)
        return decode(key, await self._keeper.load(key))

    async def has_gone(self, holder: str, *, patience: float) -> bool:
        """Whether he has the lock no more; he may have, for so long, when nobody can tell."""
        found = await self._holder(holder)
        if found == holder:
            return False
        if found is None:
            return time.monotonic() - self._sure_at > patience
        await self.let_go()
        return True

    async def _hear(self, holder: str | None, *, gone: bool = False) -> Response | None:
        """What he answers; if he has gone, only if it is there to its end."""
        assert holder is not None
        if holder == self._lost:
            return None
        if not gone:
            await self.want(holder)
        part = await self.part(holder, 0)
        if part is None or part.first != 0:
            return None
        body = Remote(self, holder, part, gone=gone)
        if part.head is None:
            body.fail()
            return None
        status, headers, event_stream = part.head
        if gone or not event_stream:
            try:
                await body.read_ahead(self._most)
            except HolderLost:
                self._lost = holder
                return None
        response = Response(status, headers, body)
        response.event_stream = event_stream
        response.aside = body.aside
        return response

    async def _kept(self) -> Response | None:
        entry = await self._keeper.find(self._key)
        return kept(entry, []) if entry is not None and self._accepts(entry) else None

    async def _holder(self, known: str | None) -> str | None:
        """Who has the lock, if it is time to look; we, if it was free."""
        return known if time.monotonic() - self._asked_at < ASK_LOCK else await self._ask()

    async def _ask(self) -> str | None:
        self._asked_at = now = time.monotonic()
        self._may_hold = True  # also if this is cancelled before the answer is there
        found = await self._keeper.lock(self._key, self._me, lease=LEASE)
        if found is not None:
            self._may_hold = found == self._me
            self._sure_at = now
        return found


class Remote(Body):
    """The body of an answer that another process reads; `gone` says that he does so no more."""

    __slots__ = (
        "_followed",
        "_given",
        "_gone",
        "_heard",
        "_holder",
        "_number",
        "_part",
        "_queue",
        "aside",
    )

    def __init__(self, followed: Followed, holder: str, part: Part, *, gone: bool = False) -> None:
        self._followed = followed
        self._holder = holder
        self._part = part
        self._gone = gone
        self._given = False
        self._queue = deque(part.pieces)
        self._heard = len(part.pieces)
        self._number = 1
        self.aside = [*part.aside]

    @property
    def ended(self) -> bool:
        return not self._queue and self._part.whole

    async def __anext__(self) -> bytes:
        while not self._queue:
            if self._part.whole:
                raise StopAsyncIteration
            self.fail()
            await self._hear_more()
        self._given = True
        return self._queue.popleft()

    async def read_ahead(self, most: int) -> None:
        """Have all of it, if it is no more than so many bytes, before any of it is given: until
        then who brings it may be replaced by another.
        """
        while not self._part.whole and sum(map(len, self._queue)) <= most:
            self.fail()
            await self._hear_more()

    def fail(self) -> None:
        """Raise what it broke off with, if it did."""
        if self._part.failed is not None:
            raise retold(self._part.failed)

    async def aclose(self) -> None:
        self._queue.clear()
        self._part = Part(0, [], whole=True)

    async def _hear_more(self) -> None:
        self._part = await self._next()
        self._number += 1
        self._heard += len(self._part.pieces)
        self._queue.extend(self._part.pieces)
        self.aside += self._part.aside

    async def _next(self) -> Part:
        followed, holder = self._followed, self._holder
        while True:
            if not self._gone:
                await followed.want(holder)
            part = await followed.part(holder, self._number)
            if part is not None and part.first == self._heard:
                return part
            if self._gone:
                # A second answer could not follow what has been given of this one.
                raise HolderLost
            await asyncio.sleep(PACE)
            # If he has, his last words may be there by now.
            patience = LEASE if self._given else 0.0
            self._gone = await followed.has_gone(holder, patience=patience)
