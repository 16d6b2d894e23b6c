"""What the owner does with the cache, with and without an event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ai_proxy_mw import AIProxy, Identity, Limit, MemoryCache, Response
from ai_proxy_mw._errors import ConfigurationError, InvalidRequest, UpstreamDisconnected
from ai_proxy_mw._loop import loop_thread
from tests.caching.house import (
    ANSWER,
    Clock,
    Hand,
    ask,
    get,
    house,
    question,
    request,
    settle,
    whole,
)


@pytest.fixture(autouse=True)
def _no_loop_is_left() -> Iterator[None]:
    yield
    loop_thread().stop()


def test_a_proxy_without_a_cache_has_no_tools() -> None:
    proxy = AIProxy(upstream="http://fake.invalid/v1", anonymous=True)
    with pytest.raises(ConfigurationError, match="no cache"):
        proxy.cache  # noqa: B018


def test_purging() -> None:
    async def main() -> None:
        home = house()
        cache = home.proxy.cache

        async def fill() -> list[str]:
            for user in ("alice", "bob"):
                await ask(home.proxy, user=user)
            await ask(home.proxy, question(model="fake-2"))
            await get(home.proxy)
            return sorted([key async for key in cache.keys()])  # noqa: SIM118

        assert len(await fill()) == 4
        assert await cache.purge(subject="bob") == 1
        assert await cache.purge(subject="nobody") == 0
        assert await cache.purge(model="fake-2") == 1
        assert await cache.purge(endpoint="GET /models") == 1
        (key,) = [key async for key in cache.keys()]  # noqa: SIM118
        assert await cache.purge(key=key) == 1
        assert await cache.purge(key=key) == 0
        assert len(await fill()) == 4
        assert await cache.purge() == 4
        assert (await cache.stats()).entries == 0
        with pytest.raises(ConfigurationError, match="one of"):
            await cache.purge(subject="a", key="b")
        with pytest.raises(ConfigurationError, match="one of"):
            await cache.purge(subject="", model="")

    asyncio.run(main())


def test_apps_that_share_a_store_purge_their_own() -> None:
    async def main() -> None:
        store = MemoryCache()
        one, other = (house(store=store, options={"name": name}) for name in ("a", "b"))
        await ask(one.proxy)
        await ask(other.proxy)
        assert await one.proxy.cache.purge(subject="alice") == 1
        assert (await ask(other.proxy)).cached == "HIT"

    asyncio.run(main())


def test_what_is_asked_before_a_purge_is_neither_kept_nor_joined() -> None:
    async def main() -> None:
        body = Hand(b"{")
        home = house(Response(200, [(b"content-type", b"application/json")], body), whole())
        old = await home.proxy.handle(request())
        await home.proxy.cache.purge()
        new = await ask(home.proxy)
        assert (new.cached, new.body) == ("MISS", ANSWER)
        body.put(b"}", None)
        assert [piece async for piece in old.body] == [b"{", b"}"]
        await old.body.aclose()
        await settle()
        assert (await ask(home.proxy)).body == ANSWER
        assert (await home.proxy.cache.stats()).stored == 1

    asyncio.run(main())


def test_what_comes_into_the_store_behind_a_purge_is_taken_out() -> None:
    class Slow(MemoryCache):
        async def set(self, key: str, value: bytes, *, ttl: float, tags: Any = ()) -> None:
            setting.set()
            await going.wait()
            await super().set(key, value, ttl=ttl, tags=tags)

    setting, going = asyncio.Event(), asyncio.Event()

    async def main() -> None:
        home = house(store=Slow())
        await ask(home.proxy)
        await setting.wait()
        await home.proxy.cache.purge()
        going.set()
        await home.proxy.aclose()
        assert [key async for key in home.proxy.cache.keys()] == []  # noqa: SIM118
        assert (await home.proxy.cache.stats()).stored == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("ttl", "cached"),
    [(None, "HIT"), (lambda request: 10, "HIT"), (lambda request: 0, "MISS"), (7.0, "HIT")],
)
def test_how_long_it_is_kept(ttl: Any, cached: str) -> None:
    async def main() -> None:
        clock = Clock()
        home = house(store=MemoryCache(ttl=10, clock=clock), ttl=ttl)
        await ask(home.proxy)
        home.clock.now += 6
        assert (await ask(home.proxy)).cached == cached
        home.clock.now += 5
        assert (await ask(home.proxy)).cached == "MISS"

    asyncio.run(main())


def test_warming() -> None:
    async def main() -> None:
        home = house(options={"limits": [Limit("1/day"), Limit("13/day", of="tokens")]})
        cache = home.proxy.cache
        await cache.warm([question("a"), question("b"), question("a")], who="alice")
        assert len(home.upstream.calls) == 2
        assert (await cache.stats()).entries == 2
        assert (await ask(home.proxy, question("a"))).cached == "HIT"
        assert json.loads(home.upstream.calls[0].body or b"") == question("a")  # type: ignore[arg-type]
        await cache.warm([{}], endpoint="GET /models", who=Identity("bob"))
        assert home.upstream.calls[-1].method == "GET"
        assert (await get(home.proxy, user="bob")).cached == "HIT"
        with pytest.raises(InvalidRequest):
            await cache.warm([question("c"), {"model": 5}, question("d")])
        assert len(home.upstream.calls) == 4
        with pytest.raises(ConfigurationError, match="GET /models"):
            await cache.warm([{}], endpoint="nonsense")

    asyncio.run(main())


def test_warming_waits_until_it_is_kept_and_tells_of_failures() -> None:
    class Slow(MemoryCache):
        async def set(self, key: str, value: bytes, *, ttl: float, tags: Any = ()) -> None:
            await settle()
            await super().set(key, value, ttl=ttl, tags=tags)

    async def main() -> None:
        home = house(whole(), UpstreamDisconnected(), store=Slow())
        await home.proxy.cache.warm([question("a")])
        assert (await home.proxy.cache.stats()).entries == 1
        with pytest.raises(UpstreamDisconnected):
            await home.proxy.cache.warm([question("b")])

    asyncio.run(main())


def test_forms_without_a_loop() -> None:
    home = house()
    cache = home.proxy.cache
    cache.warm_sync([question("a"), question("b")])
    stats = cache.stats_sync()
    assert (stats.entries, stats.misses) == (2, 2)
    key, _ = sorted(cache.keys_sync())
    assert cache.purge_sync(key=key) == 1
    assert cache.purge_sync(subject="warm-up") == 1
    with pytest.raises(ConfigurationError):
        cache.purge_sync(subject="a", model="b")


def test_forms_without_a_loop_inside_of_one() -> None:
    async def main() -> None:
        home = house()
        await ask(home.proxy)
        # They hold up this loop, as those of limits do, and work.
        assert home.proxy.cache.stats_sync().entries == 1
        assert await asyncio.to_thread(home.proxy.cache.purge_sync) == 1

    asyncio.run(main())

    async def inside() -> None:
        for work in (home.proxy.cache.stats_sync, home.proxy.limits.status_sync):
            with pytest.raises(RuntimeError, match="await it"):
                work(*(["alice"] if work == home.proxy.limits.status_sync else []))

    home = house()
    loop_thread().run(inside())
