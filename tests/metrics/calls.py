"""Records and stores for the tests of statistics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from ai_proxy_mw.accounting.record import Record
from ai_proxy_mw.stores.base import CacheStore, StoreStats

NOW = 1_800_000_000.0
"""Twenty to nine in the morning, UTC."""


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def call(**values: Any) -> Record:
    """A call of the usual kind."""
    usual: dict[str, Any] = {
        "time": time.time(),
        "request_id": "req_1",
        "subject": "alice",
        "endpoint": "POST /chat/completions",
        "model": "gpt-4.1",
        "upstream": "openai",
        "attempts": 1,
        "status": 200,
        "input_tokens": 100,
        "output_tokens": 50,
        "measured": True,
        "cost": 1200,
        "total": 0.25,
    }
    return Record(**{**usual, **values})


class Wrapped:
    """A store that can be down, slow in its own way, and counts what it is asked."""

    shared = True

    def __init__(self, store: CacheStore) -> None:
        self.store = store
        self.ttl = 60.0
        self.down = False
        self.writes: list[str] = []
        self.reads: list[str] = []
        self.lists = 0

    def _check(self) -> None:
        if self.down:
            raise ConnectionError("redis://:hunter2@host")

    async def get(self, key: str) -> bytes | None:
        self._check()
        self.reads.append(key)
        return await self.store.get(key)

    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        self._check()
        self.writes.append(key)
        await self.store.set(key, value, ttl=ttl, tags=tags)

    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        self._check()
        return await self.store.purge(key=key, prefix=prefix, tag=tag)

    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        self._check()
        return await self.store.lock(name, owner, lease=lease)

    async def unlock(self, name: str, owner: str) -> None:
        await self.store.unlock(name, owner)

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        self._check()
        self.lists += 1
        async for key in self.store.keys(prefix):
            yield key

    async def stats(self) -> StoreStats:
        return await self.store.stats()

    async def aclose(self) -> None:
        await self.store.aclose()
