"""A proxy that keeps its answers where `CACHED_STORE` says: `disk:DIRECTORY` or a Redis URL.

It tells the upstream, at `CACHED_UPSTREAM`, the id of the process that asks. While there is a file
at `CACHED_HOLD`, answers wait before they are kept.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

from ai_proxy_mw import AIProxy, Cache, CacheStore, DiskCache, RedisCache, Request, Upstream
from ai_proxy_mw.stores import guard

_HOLD = Path(os.environ.get("CACHED_HOLD", "/nonexistent"))


class _Disk(DiskCache):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        await _hold(key)
        await super().set(key, value, ttl=ttl, tags=tags)


class _Redis(RedisCache):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        await _hold(key)
        await super().set(key, value, ttl=ttl, tags=tags)


async def _hold(key: str) -> None:
    while key.startswith("e:") and _HOLD.exists():
        await asyncio.sleep(0.02)


def by_header(request: Request) -> str | None:
    return request.headers.get("x-user")


def cached_proxy() -> AIProxy:
    # A busy machine may be slower than the patience, and then it is not sharing that is tested.
    vars(guard)["PATIENCE"] = float(os.environ.get("CACHED_PATIENCE", "10"))
    where = os.environ["CACHED_STORE"]
    store: CacheStore
    store = _Disk(where.removeprefix("disk:")) if where.startswith("disk:") else _Redis(where)
    return AIProxy(
        upstream=Upstream(
            base_url=os.environ["CACHED_UPSTREAM"], headers={"X-Worker": str(os.getpid())}
        ),
        identify=by_header,
        cache=Cache(store),
    )


def worker() -> str:
    """The id of this process, which does nothing else for a moment: others take the next call."""
    time.sleep(0.02)
    return str(os.getpid())
