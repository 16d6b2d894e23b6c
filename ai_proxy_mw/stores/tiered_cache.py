"""A quick store of this process in front of one that many share."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.stores.base import CacheStore, StoreStats


class TieredCache:
    """Answers from `near` where it has them, else from `far`, of which `near` keeps a copy.

    near: of this process, like `MemoryCache`.
    far: what counts: locks, keys, stats and the time that answers are good for are its.
    near_ttl: seconds that a copy is kept. The far store does not say how long an answer is still
        good, nor what other processes do, so for up to `near_ttl` seconds this process may still
        give what has run out in far, or what another process has purged or replaced there. What it
        purges or replaces itself it does not give any more.

    Where far fails, so does this; what near has is given nevertheless.

    Raises ConfigurationError.
    """

    def __init__(self, near: CacheStore, far: CacheStore, *, near_ttl: float = 10.0) -> None:
        if near.shared:
            raise ConfigurationError(
                "TieredCache(near=...): write a store of this process, like MemoryCache()"
            )
        if type(near_ttl) not in (int, float) or not 0 < near_ttl < math.inf:
            raise ConfigurationError(
                f"TieredCache(near_ttl={near_ttl!r}): write a number of seconds above 0"
            )
        self._near = near
        self._far = far
        self._near_ttl = near_ttl
        self._purges = 0

    @property
    def ttl(self) -> float:
        """Seconds that an answer is good for where the cache does not say."""
        return self._far.ttl

    @property
    def shared(self) -> bool:
        """Whether other processes see what far has."""
        return self._far.shared

    def beside(self, name: str) -> CacheStore:
        """What far has beside it, without a copy; itself where that has nothing."""
        beside: Callable[[str], CacheStore] | None = getattr(self._far, "beside", None)
        return self if beside is None else beside(name)

    async def get(self, key: str) -> bytes | None:
        """What near has under a key, or else far."""
        value = await self._near.get(key)
        if value is not None:
            return value
        purges = self._purges
        value = await self._far.get(key)
        # What was purged or set while far was asked must not come back by the older copy.
        if value is None or purges != self._purges:
            return value
        newer = await self._near.get(key)
        if newer is not None:
            return newer
        await self._near.set(key, value, ttl=self._near_ttl)
        return value

    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        """Store a value in both, in near at first: it is there even if far fails."""
        await self._near.set(key, value, ttl=min(ttl, self._near_ttl), tags=tags)
        await self._far.set(key, value, ttl=ttl, tags=tags)

    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        """Forget in both; how many they were in far."""
        try:
            return await self._far.purge(key=key, prefix=prefix, tag=tag)
        finally:
            self._purges += 1  # after far: whoever asked it before may have what is purged
            # Whatever the tag: copies have none, since far does not tell.
            await self._near.purge(key=key, prefix=prefix)

    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        """Hold a lock of far."""
        return await self._far.lock(name, owner, lease=lease)

    async def unlock(self, name: str, owner: str) -> None:
        """Let go of a lock of far."""
        await self._far.unlock(name, owner)

    def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """The keys in far that begin with `prefix`, in no order."""
        return self._far.keys(prefix)

    async def stats(self) -> StoreStats:
        """How much far holds."""
        return await self._far.stats()

    async def aclose(self) -> None:
        """Close both."""
        try:
            await self._far.aclose()
        finally:
            await self._near.aclose()
