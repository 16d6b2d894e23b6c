"""What only the memory promises: bytes, order, time, and that nobody waits."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import psutil
import pytest

from ai_proxy_mw import ConfigurationError, MemoryCache, StoreStats
from ai_proxy_mw.stores.memory_cache import ENTRY
from tests.stores.storages import Clock

LEAST = 2**16
LARGEST = LEAST // 8 - ENTRY - 1
"""Bytes of the largest value under a key of one letter."""


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The answer of a coroutine that must not wait for anything."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def _set(cache: MemoryCache, key: str, size: int = 0, ttl: float = 60.0) -> None:
    _at_once(cache.set(key, bytes(size), ttl=ttl))


def _there(cache: MemoryCache, keys: str) -> str:
    """Which of the keys are there; each counts as used."""
    return "".join(key for key in keys if _at_once(cache.get(key)) is not None)


async def _keys(cache: MemoryCache, prefix: str = "") -> list[str]:
    return [key async for key in cache.keys(prefix)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_bytes": LEAST - 1},
        {"max_bytes": 1e9},
        {"max_bytes": True},
        {"max_bytes": "64MB"},
        {"ttl": 0},
        {"ttl": -1.0},
        {"ttl": float("nan")},
        {"ttl": float("inf")},
        {"ttl": True},
        {"ttl": "1h"},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=rf"MemoryCache\({name}=.*write a "):
        MemoryCache(**wrong)


def test_its_nature() -> None:
    cache = MemoryCache(ttl=600)
    assert (cache.ttl, cache.shared) == (600.0, False)
    assert MemoryCache(max_bytes=LEAST).ttl == 3600.0


def test_nothing_waits() -> None:
    cache = MemoryCache()
    _at_once(cache.set("a", b"1", ttl=60, tags=["t"]))
    assert _at_once(cache.get("a")) == b"1"
    assert _at_once(cache.purge(key="a")) == 1
    assert _at_once(cache.lock("a", "me", lease=60)) == "me"
    _at_once(cache.unlock("a", "me"))
    assert _at_once(cache.stats()) == StoreStats(0, 0)
    _at_once(cache.aclose())


def test_what_was_used_longest_ago_makes_room() -> None:
    cache = MemoryCache(max_bytes=LEAST)
    for key in "abcdefgh":  # fill it to the last byte
        _set(cache, key, LARGEST)
    assert _at_once(cache.stats()) == StoreStats(8, LEAST)
    assert _there(cache, "a") == "a"
    _set(cache, "i", LARGEST)
    assert _there(cache, "abcdefghi") == "acdefghi"
    _set(cache, "c", LARGEST - 1)  # in its own place
    assert _at_once(cache.stats()) == StoreStats(8, LEAST - 1)
    _set(cache, "j", 1)
    assert _there(cache, "abcdefghij") == "cdefghij"


def test_what_is_too_large_leaves_nothing() -> None:
    cache = MemoryCache(max_bytes=LEAST)
    _set(cache, "a", LARGEST)
    _set(cache, "b", 100)
    _set(cache, "a", LARGEST + 1)
    _set(cache, "c", LARGEST + 1)
    assert _there(cache, "abc") == "b"
    assert _at_once(cache.stats()) == StoreStats(1, ENTRY + 101)


def test_tags_count_as_bytes() -> None:
    cache = MemoryCache(max_bytes=LEAST)
    _at_once(cache.set("a", b"", ttl=60, tags=["x" * 100, "y" * 100]))
    assert _at_once(cache.stats()).size > ENTRY + 200
    _at_once(cache.set("a", b"", ttl=60, tags=["x" * 100] * 100))
    assert _at_once(cache.stats()) == StoreStats(0, 0)


@pytest.mark.parametrize("ttl", [0.0, -1.0, float("nan")])
def test_what_is_good_for_no_time_is_not_stored(ttl: float) -> None:
    cache = MemoryCache()
    _set(cache, "a")
    _set(cache, "a", ttl=ttl)
    assert _at_once(cache.stats()) == StoreStats(0, 0)


def test_it_is_good_until_its_time_and_then_let_go() -> None:
    clock = Clock()
    cache = MemoryCache(clock=clock)
    _set(cache, "a", ttl=60)
    clock.move(59.5)
    assert _there(cache, "a") == "a"
    clock.move(0.5)
    assert _at_once(cache.stats()).entries == 1  # nobody has met it yet
    assert _there(cache, "a") == ""
    assert _at_once(cache.stats()) == StoreStats(0, 0)


def test_what_has_run_out_makes_room_before_what_is_good() -> None:
    clock = Clock()
    cache = MemoryCache(max_bytes=LEAST, clock=clock)
    for key in "abcdef":
        _set(cache, key, LARGEST, ttl=600)
    for key in "gh":
        _set(cache, key, LARGEST, ttl=6)
    clock.move(7)
    _set(cache, "i", LARGEST, ttl=600)
    assert _there(cache, "abcdefghi") == "abcdefi"


def test_the_search_for_what_has_run_out_goes_round() -> None:
    clock = Clock()
    cache = MemoryCache(max_bytes=LEAST, clock=clock)
    for number in range(1000):
        clock.move(1)
        _set(cache, f"short{number}", 100, ttl=5)
        _set(cache, f"long{number}", 100, ttl=1e6)
    keys = _run(_keys(cache))
    assert sum(key.startswith("long") for key in keys) > 70  # of 95 that have room
    assert _at_once(cache.stats()).size <= LEAST


def test_what_has_run_out_does_not_count_as_purged_or_as_a_key() -> None:
    clock = Clock()
    cache = MemoryCache(clock=clock)
    _set(cache, "a", ttl=6)
    _set(cache, "b", ttl=60)
    clock.move(7)
    assert _run(_keys(cache)) == ["b"]
    assert _run(cache.purge()) == 1
    assert _at_once(cache.stats()) == StoreStats(0, 0)


def test_a_large_purge_lets_others_in() -> None:
    cache = MemoryCache()
    for number in range(5000):
        _set(cache, f"a{number}")
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(other())
        assert len(await _keys(cache)) == 5000
        assert turns >= 19
        assert await cache.purge(prefix="a") == 5000
        assert turns >= 39
        task.cancel()

    asyncio.run(main())


def test_keys_that_are_purged_meanwhile_are_not_given() -> None:
    cache = MemoryCache()
    for key in "abc":
        _set(cache, key)

    async def main() -> None:
        keys = cache.keys()
        assert await anext(keys) == "a"
        await cache.purge(key="b")
        assert [key async for key in keys] == ["c"]

    asyncio.run(main())


def test_locks_that_nobody_lets_go_of_are_forgotten() -> None:
    clock = Clock()
    cache = MemoryCache(clock=clock)
    for number in range(10_000):
        clock.move(1)
        _at_once(cache.lock(f"lock{number}", "me", lease=1500))
    assert len(cache._locks) <= 3001
    assert _at_once(cache.lock("lock9999", "other", lease=1)) == "me"
    assert _at_once(cache.lock("lock8501", "other", lease=1)) == "me"
    assert _at_once(cache.lock("lock8498", "other", lease=1)) == "other"


def test_what_it_holds_stays_when_it_is_closed() -> None:
    cache = MemoryCache()
    _set(cache, "a", 3)
    asyncio.run(cache.aclose())
    assert _at_once(cache.get("a")) == bytes(3)


class _Slow(str):
    """A key that stops who looks it up for the second time, until another was there too."""

    __slots__ = ("looks", "other_was_there", "reached")

    def __init__(self, text: str) -> None:
        self.looks = 0
        self.reached = Event()
        self.other_was_there = Event()

    def __hash__(self) -> int:
        self.looks += 1
        if self.looks == 2:
            self.reached.set()
            # The other must wait, so this waits in vain; without a guard it would not.
            self.other_was_there.wait(0.3)
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


@pytest.mark.parametrize("what", ["get", "set", "purge", "lock", "unlock"])
def test_threads_do_not_meet_within_an_operation(what: str) -> None:
    cache = MemoryCache()
    _set(cache, "a")
    _at_once(cache.lock("a", "me", lease=60))

    def do(key: str) -> None:
        if what == "get":
            _at_once(cache.get(key))
        elif what == "set":
            _set(cache, key)
        elif what == "purge":
            _at_once(cache.purge(key=key))
        elif what == "lock":
            _at_once(cache.lock(key, "me", lease=60))
        else:
            _at_once(cache.unlock(key, "me"))

    def other() -> None:
        _at_once(cache.purge(key="a"))
        _at_once(cache.unlock("a", "me"))

    slow = _Slow("a")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(do, slow)
        assert slow.reached.wait(30)
        second = threads.submit(other)
        second.add_done_callback(lambda _: slow.other_was_there.set())
        first.result()
        assert not slow.other_was_there.is_set() or second.done()
        second.result()
    assert _at_once(cache.stats()) == StoreStats(0, 0)
    assert cache._locks == {}


def test_event_loops_of_several_threads_share_it() -> None:
    cache = MemoryCache(max_bytes=LEAST)

    async def hammer() -> None:
        for number in range(3000):
            key = f"k{number % 300}"
            await cache.set(key, bytes(number % 100), ttl=60)
            await cache.get(key)
            if number % 50 == 0:
                await cache.purge(prefix="k1")

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(asyncio.run, hammer()) for _ in range(4)]:
            done.result()
    size = sum(
        ENTRY + len(key) + len(entry.value) + len(entry.tags)
        for key, entry in cache._entries.items()
    )
    assert _at_once(cache.stats()).size == size <= LEAST


def _fill(cache: MemoryCache, count: int) -> None:
    """Sets like those of the cache: keys of 64 letters, a few tags, values of all small sizes."""
    for number in range(count):
        tags = (f"subject:{number}", "endpoint:chat", f"model:m-{number % 7}")
        value = bytes(number * 37 % 1500)
        _at_once_quick(cache.set(f"{number:064}", value, ttl=3600, tags=tags))


def _at_once_quick(coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")  # pragma: no cover


def test_twenty_thousand_distinct_answers_stay_within_the_bytes() -> None:
    max_bytes = 2 * 2**20
    cache = MemoryCache(max_bytes=max_bytes)
    tracemalloc.start()
    try:
        _fill(cache, 20_000)
        taken, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.7 * max_bytes < taken
    assert most < 1.1 * max_bytes
    assert _at_once(cache.stats()).size <= max_bytes


def test_small_answers_stay_within_the_bytes() -> None:
    max_bytes = 2**20
    cache = MemoryCache(max_bytes=max_bytes)
    tracemalloc.start()
    try:
        for number in range(5_000):
            _at_once_quick(cache.set(f"{number:064}", bytes(1), ttl=3600, tags=[f"s:{number}"]))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 1.1 * max_bytes


@pytest.mark.slow
def test_a_million_distinct_answers_stay_within_the_bytes() -> None:
    max_bytes = 64 * 2**20
    cache = MemoryCache(max_bytes=max_bytes)
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    most = 0
    for _ in range(10):
        _fill(cache, 100_000)
        most = max(most, process.memory_info().rss)
    assert most - before < 1.1 * max_bytes
