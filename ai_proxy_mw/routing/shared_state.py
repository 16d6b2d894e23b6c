"""Where processes leave word for each other: whole numbers, in whatever store there is."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ai_proxy_mw.stores.base import CacheStore

_NUMBER = re.compile(rb"[0-9]{1,16}")


class SharedState(Protocol):
    """Small whole numbers under short keys. What a method raises counts as a store that is down."""

    async def get(self, key: str) -> int:
        """What was put there; 0 where that is nothing, has run out or makes no sense."""
        ...

    async def put(self, key: str, value: int, *, ttl: float) -> None:
        """Put a number there for `ttl` seconds or a little more, in the place of another."""
        ...

    async def take(self, key: str, owner: str, *, ttl: float) -> bool:
        """Whether a key is this owner's alone for `ttl` seconds."""
        ...


class Counts(Protocol):
    """What is needed of a storage of the `limits` library."""

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int: ...

    async def get(self, key: str) -> int: ...

    async def clear(self, key: str) -> None: ...


class StateInCache:
    """In the store of answers. One with a copy in front hears of others when that has run out."""

    def __init__(self, store: CacheStore) -> None:
        self._store = store

    async def get(self, key: str) -> int:
        data = await self._store.get(key)
        is_number = isinstance(data, bytes) and _NUMBER.fullmatch(data) is not None
        return int(data) if data is not None and is_number else 0

    async def put(self, key: str, value: int, *, ttl: float) -> None:
        await self._store.set(key, b"%d" % value, ttl=ttl)

    async def take(self, key: str, owner: str, *, ttl: float) -> bool:
        return await self._store.lock(key, owner, lease=ttl) == owner


class StateInCounts:
    """Where limits are counted.

    here: the storage of the running event loop.
    """

    def __init__(
        self, here: Callable[[], Counts], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._here = here
        self._clock = clock
        self._taken: dict[str, tuple[str, float]] = {}

    async def get(self, key: str) -> int:
        try:
            return max(0, int(await self._here().get(key)))
        except ValueError:  # somebody else's text
            return 0

    async def put(self, key: str, value: int, *, ttl: float) -> None:
        # Two steps, since there is no word for it. Two processes at once may leave the sum of
        # what they put, which no reader takes for a time, and each goes on by what it sees.
        await self._here().clear(key)
        await self._here().incr(key, math.ceil(ttl), value)

    async def take(self, key: str, owner: str, *, ttl: float) -> bool:
        # A count tells who came first but not who it was.
        now = self._clock()
        holder, until = self._taken.get(key, ("", now))
        if holder == owner and now < until:
            return True
        if await self._here().incr(key, math.ceil(ttl)) != 1:
            return False
        self._taken[key] = owner, now + ttl
        return True


def state_in(store: CacheStore | None, here: Callable[[], Counts] | None) -> SharedState | None:
    """In the store of answers if processes share it, else where limits are counted.

    here: None where that is this process.
    """
    if store is not None and store.shared:
        return StateInCache(store)
    return None if here is None else StateInCounts(here)
