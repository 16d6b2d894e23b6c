"""Two stores as one: which is asked, what is copied, and what happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from ai_proxy_mw import ConfigurationError, MemoryCache, StoreStats, TieredCache
from tests.stores.storages import Clock


class Far(MemoryCache):
    """A shared store, which can be slow or down."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        super().__init__(clock=clock, **options)
        self.asked = 0
        self.closed = 0
        self.is_down = False
        self.gate: asyncio.Event | None = None
        """Closed, an answer that was found waits there."""

    @property
    def shared(self) -> bool:
        return True

    def _look(self) -> None:
        if self.is_down:
            raise OSError("down")

    async def get(self, key: str) -> bytes | None:
        self._look()
        self.asked += 1
        value = await super().get(key)
        if self.gate is not None:
            await self.gate.wait()
        return value

    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        self._look()
        await super().set(key, value, ttl=ttl, tags=tags)

    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        self._look()
        return await super().purge(key=key, prefix=prefix, tag=tag)

    async def aclose(self) -> None:
        self.closed += 1
        self._look()


class Both:
    """Two stores, and what is in front of them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.near = Near(clock=self.clock)
        self.far = Far(self.clock)
        self.cache = TieredCache(self.near, self.far, near_ttl=10)


class Near(MemoryCache):
    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("near_ttl", [0, -1, float("nan"), float("inf"), True, "10"])
def test_a_time_that_cannot_be_is_refused(near_ttl: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"near_ttl=.*write a number of seconds"):
        TieredCache(MemoryCache(), MemoryCache(), near_ttl=near_ttl)


def test_near_must_be_of_this_process() -> None:
    with pytest.raises(ConfigurationError, match="write a store of this process"):
        TieredCache(Far(Clock()), MemoryCache())


def test_its_nature_is_that_of_far() -> None:
    far = Far(Clock(), ttl=77)
    cache = TieredCache(MemoryCache(ttl=1), far)
    assert (cache.ttl, cache.shared) == (77.0, True)
    assert not TieredCache(MemoryCache(), MemoryCache()).shared


def test_far_is_asked_once_in_near_ttl() -> None:
    both = Both()

    async def main() -> None:
        await both.far.set("a", b"1", ttl=60)
        assert await both.cache.get("a") == b"1"
        both.clock.move(9)
        assert await both.cache.get("a") == b"1"
        assert both.far.asked == 1
        both.clock.move(1)
        assert await both.cache.get("a") == b"1"
        assert both.far.asked == 2
        assert await both.cache.get("b") is None
        assert (await both.near.stats()).entries == 1

    asyncio.run(main())


def test_what_is_set_is_in_both_in_near_for_near_ttl_at_most() -> None:
    both = Both()

    async def main() -> None:
        await both.cache.set("long", b"1", ttl=60, tags=["t"])
        await both.cache.set("short", b"2", ttl=5)
        assert await both.near.get("long") == await both.far.get("long") == b"1"
        both.clock.move(5)
        assert await both.cache.get("short") is None
        both.clock.move(5)
        assert await both.near.get("long") is None
        assert await both.cache.get("long") == b"1"
        assert await both.far.purge(tag="t") == 1

    asyncio.run(main())


def test_what_near_has_is_given_while_far_is_down() -> None:
    both = Both()

    async def main() -> None:
        await both.cache.set("a", b"1", ttl=60)
        both.far.is_down = True
        assert await both.cache.get("a") == b"1"
        with pytest.raises(OSError, match="down"):
            await both.cache.get("b")
        with pytest.raises(OSError, match="down"):
            await both.cache.set("b", b"2", ttl=60)
        assert await both.cache.get("b") == b"2"
        with pytest.raises(OSError, match="down"):
            await both.cache.purge(key="b")
        with pytest.raises(OSError, match="down"):
            await both.cache.get("b")  # near has forgotten it

    asyncio.run(main())


@pytest.mark.parametrize("which", [{"key": "ab"}, {"prefix": "ab"}, {"tag": "t"}, {}], ids=str)
def test_a_purge_forgets_copies_too(which: dict[str, str]) -> None:
    both = Both()

    async def main() -> None:
        await both.far.set("ab", b"1", ttl=60, tags=["t"])
        assert await both.cache.get("ab") == b"1"  # near's copy has no tags
        assert await both.cache.purge(**which) == 1
        assert await both.cache.get("ab") is None
        await both.near.set("ab", b"1", ttl=60, tags=["t"])
        assert await both.cache.purge(**which) == 0  # what far had
        assert await both.near.get("ab") is None

    asyncio.run(main())


def test_a_purge_leaves_what_it_does_not_name() -> None:
    both = Both()

    async def main() -> None:
        await both.cache.set("a", b"1", ttl=60)
        await both.cache.set("b", b"2", ttl=60)
        assert await both.cache.purge(key="a") == 1
        assert await both.near.get("b") == b"2"
        assert await both.cache.purge(prefix="a") == 0
        assert await both.near.get("b") == b"2"

    asyncio.run(main())


@pytest.mark.parametrize("new", [None, b"new"], ids=["purge", "set"])
def test_an_answer_on_its_way_does_not_bring_back_the_old(new: bytes | None) -> None:
    both = Both()

    async def main() -> None:
        await both.far.set("a", b"old", ttl=60)
        both.far.gate = asyncio.Event()
        asking = asyncio.create_task(both.cache.get("a"))
        await asyncio.sleep(0)
        if new is None:
            await both.cache.purge(key="a")
        else:
            await both.cache.set("a", new, ttl=60)
        both.far.gate.set()
        assert await asking == (b"old" if new is None else new)
        assert await both.cache.get("a") == new

    asyncio.run(main())


def test_locks_keys_and_stats_are_those_of_far() -> None:
    both = Both()

    async def main() -> None:
        await both.near.set("near", b"1", ttl=60)
        await both.far.set("far", b"1", ttl=60)
        assert [key async for key in both.cache.keys("")] == ["far"]
        assert [key async for key in both.cache.keys("x")] == []
        stats = await both.cache.stats()
        assert stats == await both.far.stats() != StoreStats(0, 0)
        assert await both.cache.lock("l", "a", lease=60) == "a"
        assert await both.far.lock("l", "b", lease=60) == "a"
        await both.cache.unlock("l", "a")
        assert await both.far.lock("l", "b", lease=60) == "b"

    asyncio.run(main())


@pytest.mark.parametrize("is_down", [False, True])
def test_both_are_closed(is_down: bool) -> None:
    both = Both()
    both.far.is_down = is_down
    if is_down:
        with pytest.raises(OSError, match="down"):
            asyncio.run(both.cache.aclose())
    else:
        asyncio.run(both.cache.aclose())
    assert (both.near.closed, both.far.closed) == (1, 1)
