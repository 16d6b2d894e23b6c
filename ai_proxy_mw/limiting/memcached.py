"""What Memcached does in its own way."""

from __future__ import annotations

import time
from typing import Any

_MONTH = 30 * 24 * 3600
"""Seconds; Memcached takes a longer life for a moment, and would forget the count at once."""


class MemcachedCounts:  # pragma: no cover - its tests need a memcached, which CI installs
    """A `MemcachedStorage` of the `limits` library, as the ledger uses it."""

    def __init__(self, storage: Any) -> None:
        self._bridge = storage.bridge

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a counter; the first to do so decides when it expires."""
        life = expiry if expiry <= _MONTH else int(time.time()) + expiry
        count: int = await self._bridge.incr(key, life, amount, set_expiration_key=False)
        return count

    async def decr(self, key: str, amount: int) -> int:
        """Take from a counter, down to 0; one that is not there stays so."""
        count: int = await self._bridge.decr(key, amount)
        return count

    async def get(self, key: str) -> int:
        """The count; 0 for a key that is not there."""
        count: int = await self._bridge.get(key)
        return count

    async def clear(self, key: str) -> None:
        """Forget a counter."""
        await self._bridge.clear(key)

    async def aclose(self) -> None:
        """Close the connections."""
        pool = getattr(getattr(self._bridge, "_storage", None), "connection_pool", None)
        if pool is not None:
            pool.close()
