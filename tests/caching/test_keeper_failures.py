"""A store that is slow, broken or away is a miss."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ai_proxy_mw import MemoryCache
from ai_proxy_mw.caching.entry import Entry
from ai_proxy_mw.caching.keeper import Keeper
from tests.caching.house import ANSWER, JSON, Clock, ask, house

ENTRY = Entry(key="a:k", created=9, ttl=60, keep=5, status=200, headers=JSON, endpoint="e")


class Moody(MemoryCache):
    """A store that fails when it is told to, and says that others see it, or not."""

    def __init__(self, *, shared: bool, clock: Any = None) -> None:
        super().__init__(clock=clock or Clock())
        self.is_shared = shared
        self.down = False
        self.asked = 0

    @property
    def shared(self) -> bool:
        return self.is_shared

    async def get(self, key: str) -> bytes | None:
        self._look()
        return await super().get(key)

    async def set(self, key: str, value: bytes, *, ttl: float, tags: Any = ()) -> None:
        self._look()
        await super().set(key, value, ttl=ttl, tags=tags)

    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        self._look()
        return await super().purge(key=key, prefix=prefix, tag=tag)

    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        self._look()
        return await super().lock(name, owner, lease=lease)

    async def unlock(self, name: str, owner: str) -> None:
        self._look()
        await super().unlock(name, owner)

    def _look(self) -> None:
        self.asked += 1
        if self.down:
            raise OSError("password=secret")


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_kept_is_found_until_it_is_forgotten(shared: bool) -> None:
    async def main() -> None:
        keeper = Keeper(Moody(shared=shared))
        assert await keeper.find("a:k") is None
        assert await keeper.keep(ENTRY, ["s:a"])
        assert await keeper.find("a:k") == ENTRY
        assert await keeper.save("a:x", b"not an entry", ttl=5)
        assert await keeper.find("a:x") is None
        assert await keeper.load("a:x") == b"not an entry"
        await keeper.forget("a:k")
        assert await keeper.find("a:k") is None
        assert await keeper.lock("a:k", "me", lease=5) == "me"
        assert await keeper.lock("a:k", "you", lease=5) == "me"
        await keeper.unlock("a:k", "me")
        assert await keeper.lock("a:k", "you", lease=5) == "you"
        assert keeper.failures == 0

    asyncio.run(main())


@pytest.mark.parametrize("shared", [True, False])
def test_a_store_that_fails_is_a_miss(shared: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = Moody(shared=shared)
        keeper = Keeper(store)
        store.down = True
        assert await keeper.load("a:k") is None
        assert await keeper.find("a:k") is None
        assert not await keeper.keep(ENTRY, [])
        await keeper.forget("a:k")
        assert await keeper.lock("a:k", "me", lease=5) is None
        await keeper.unlock("a:k", "me")
        assert keeper.failures == 6
        assert store.asked == 2  # once for reading and once for writing, and then not for a while

    asyncio.run(main())
    # Once for reading and once for writing.
    assert caplog.text.count("does not answer: OSError") == 2
    assert "secret" not in caplog.text


def test_each_loop_has_its_guards() -> None:
    keeper = Keeper(Moody(shared=True))
    for _ in range(3):
        asyncio.run(keeper.load("a:k"))
    assert len(keeper._guards) == 1


@pytest.mark.parametrize("shared", [True, False])
def test_no_call_fails_for_it(shared: bool) -> None:
    async def main() -> None:
        home = house(store=Moody(shared=shared))
        store: Any = home.proxy.cache._answers.store
        await ask(home.proxy)
        store.down = True
        for _ in range(2):
            got = await ask(home.proxy)
            assert (got.status, got.cached) == (200, "MISS")
        await home.proxy.aclose()

    asyncio.run(main())


def test_what_another_process_has_just_kept_is_given() -> None:
    """Two proxies on one store stand for two processes."""

    async def main() -> None:
        store = Moody(shared=True)
        homes = [house(store=store) for _ in range(2)]
        store._clock = homes[0].clock
        got = await asyncio.gather(*[ask(home.proxy) for home in homes])
        assert {each.body for each in got} == {ANSWER}
        assert sorted(each.cached or "" for each in got) == ["COLLAPSED", "MISS"]
        assert sum(len(home.upstream.calls) for home in homes) == 1
        for home in homes:
            assert (await ask(home.proxy)).cached == "HIT"
            await home.proxy.aclose()

    asyncio.run(main())
