"""Many documents become one, and whoever reads meanwhile counts each call once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ai_proxy_mw import MemoryCache
from ai_proxy_mw.metrics import tidy as module
from ai_proxy_mw.metrics.buckets import TIERS, place_of
from ai_proxy_mw.metrics.cells import Cells
from ai_proxy_mw.metrics.documents import decode_all, encode
from ai_proxy_mw.metrics.stats import Stats
from ai_proxy_mw.metrics.tidy import FEW, LEASE
from ai_proxy_mw.stores import guard
from tests.metrics.calls import Clock, Wrapped, call

WORKERS = 3 * FEW


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Wrapped:
    return Wrapped(MemoryCache(clock=clock))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "FIRST_PAUSE", 1e-9)
    monkeypatch.setattr(guard, "LONGEST_PAUSE", 1e-9)


async def write(stats: Stats) -> None:
    """What a process does five seconds after a call."""
    await stats.flush()
    await stats._tidy()


async def workers(store: Wrapped, clock: Clock, count: int = WORKERS) -> list[Stats]:
    found = [Stats(name="app", store=store, clock=clock) for _ in range(count)]
    for number, stats in enumerate(found):
        stats.add(call(subject=f"s{number}", model=f"m{number % 2}"))
        await write(stats)
        await stats.aclose()
    return found


async def count(store: Wrapped, tier: str) -> int:
    return len([key async for key in store.keys("") if key.split(":")[2] == tier])


async def see(store: Wrapped, clock: Clock, window: Any = "24h") -> int:
    report = await Stats(name="app", store=store, clock=clock).read(window, "subject")
    assert report.whole
    assert sum(row.requests for row in report.rows.values()) == report.total.requests
    return report.total.requests


def test_what_is_over_becomes_one(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        await workers(store, clock)
        clock.now += 3600
        await workers(store, clock, 1)
        assert await count(store, "h") == WORKERS + 1  # it may still be written
        clock.now += 2 * 3600
        last = Stats(name="app", store=store, clock=clock)
        last.add(call(subject="last"))
        await write(last)
        assert await count(store, "h") == 3
        assert await count(store, "d") == WORKERS + 2  # the day is not over
        assert await count(store, "m") > 0
        assert await see(store, clock) == await see(store, clock, "30d") == WORKERS + 2
        clock.now += 86_400
        last.add(call())
        await write(last)
        assert await count(store, "d") == 2
        assert await see(store, clock, "30d") == WORKERS + 3
        await last.aclose()

    asyncio.run(main())


def test_one_does_it_for_all_and_again_when_there_is_more(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        await workers(store, clock)
        clock.now += 3 * 3600
        first, second = await workers(store, clock, 2)
        lists = store.lists
        second.add(call())
        await write(second)  # in the same hour, or while the lease holds: not again
        assert store.lists == lists
        assert await count(store, "h") == 1 + 2
        clock.now -= 3 * 3600
        await workers(store, clock)  # clocks differ
        clock.now += 3 * 3600 + LEASE
        await workers(store, clock, 1)
        assert await see(store, clock) == 2 * WORKERS + 4
        first.add(call())
        await first.aclose()

    asyncio.run(main())


def test_few_stay_as_they_are(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        await workers(store, clock, FEW)
        clock.now += 3 * 3600
        await workers(store, clock, 1)
        assert await count(store, "h") == FEW + 1

    asyncio.run(main())


@pytest.mark.parametrize("stops_at", ["set", "purge"])
def test_who_is_stopped_in_the_middle_leaves_nothing_twice(
    store: Wrapped, clock: Clock, stops_at: str
) -> None:
    async def main() -> None:
        await workers(store, clock)
        clock.now += 3 * 3600
        real = getattr(store, stops_at)

        async def late(*args: Any, **kwargs: Any) -> Any:
            if stops_at == "purge" or args[0].endswith(":all"):
                if stops_at == "set":
                    await real(*args, **kwargs)  # it is there, and the answer is lost
                raise ConnectionError
            return await real(*args, **kwargs)

        setattr(store, stops_at, late)
        await workers(store, clock, 1)
        assert await count(store, "h") == WORKERS + 2
        assert await see(store, clock) == WORKERS + 1
        setattr(store, stops_at, real)
        clock.now += 3600
        await workers(store, clock, 1)
        assert await count(store, "h") == 3
        assert await see(store, clock) == WORKERS + 2

    asyncio.run(main())


def test_a_store_that_goes_down_meanwhile(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        await workers(store, clock)
        clock.now += 3 * 3600
        store.lock = _fails  # type: ignore[method-assign]
        await workers(store, clock, 1)
        assert await count(store, "h") == WORKERS + 1
        assert await see(store, clock) == WORKERS + 1

    asyncio.run(main())


async def _fails(*args: Any, **kwargs: Any) -> Any:
    raise ConnectionError


def test_what_is_broken_is_left_where_it_is(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        (stats, *_) = await workers(store, clock)
        prefix = f"{stats._prefix}h:"
        start = TIERS["24h"].start(clock.now)
        await store.set(f"{prefix}{start}:broken", b"\xc1", ttl=1e6)
        await store.set(f"{prefix}{start}:all", b"\xc1", ttl=1e6)
        await store.set(f"{prefix}odd", b"\xc1", ttl=1e6)
        await store.set(f"{prefix}7:old", encode(Cells()), ttl=1e6)
        clock.now += 3 * 3600
        await workers(store, clock, 1)
        left = {key.removeprefix(prefix) async for key in store.keys(prefix)}
        assert {f"{start}:broken", f"{start}:all", "odd", "7:old"} < left
        assert len(left) == 5
        assert await see(store, clock) == WORKERS + 1

    asyncio.run(main())


def test_it_does_not_take_long(
    store: Wrapped, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        await workers(store, clock)
        clock.now += 3 * 3600
        await workers(store, clock, 1)
        assert await count(store, "h") == WORKERS + 1

    monkeypatch.setattr(module, "WITHIN", -1.0)
    asyncio.run(main())


def test_a_sum_has_an_end(store: Wrapped, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        await workers(store, clock)
        clock.now += 3 * 3600
        await workers(store, clock, 1)
        assert await count(store, "h") == 1 + WORKERS - 5 + 1
        assert await see(store, clock) == WORKERS + 1

    monkeypatch.setattr(module, "MOST_PARTS", 5)
    asyncio.run(main())


def test_who_reads_meanwhile_reads_again(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        await workers(store, clock)
        clock.now += 3 * 3600
        reader = Stats(name="app", store=store, clock=clock)
        real, asked = store.get, 0

        async def tidied_meanwhile(key: str) -> bytes | None:
            nonlocal asked
            asked += 1
            if asked == 5:
                await workers(store, clock, 1)
            return await real(key)

        store.get = tidied_meanwhile  # type: ignore[method-assign]
        report = await reader.read("24h")
        assert report.total.requests == WORKERS + 1
        await reader.aclose()

    asyncio.run(main())


def test_what_keeps_vanishing_does_not_keep_a_reader(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        await workers(store, clock)
        store.get = _nothing  # type: ignore[method-assign]
        reader = Stats(name="app", store=store, clock=clock)
        assert (await reader.read("24h")).total.requests == 0
        await reader.aclose()

    asyncio.run(main())


async def _nothing(key: str) -> None:
    return None


def test_what_a_process_could_not_write_in_time_is_not_counted_twice(
    store: Wrapped, clock: Clock
) -> None:
    """It was cut off for hours with a part that others have added up since."""

    async def main() -> None:
        cut_off = Stats(name="app", store=store, clock=clock)
        cut_off.add(call())
        await cut_off.flush()
        real = store.set
        store.set = _fails  # type: ignore[method-assign]
        cut_off.add(call())
        await cut_off.flush()
        store.set = real  # type: ignore[method-assign]
        await workers(store, clock)
        clock.now += 3 * 3600
        await workers(store, clock, 1)
        for stats in (cut_off, Stats(name="app", store=store, clock=clock)):
            assert (await stats.read("24h")).total.requests == WORKERS + 2
        await cut_off.aclose()
        assert await see(store, clock) == WORKERS + 2

    asyncio.run(main())


def test_all_of_a_document_or_nothing() -> None:
    cells = Cells()
    cells.add(call())
    found = decode_all(encode(cells, ["a", "b"]))
    assert found is not None
    assert found[0].by == cells.by
    assert found[1] == ["a", "b"]
    assert decode_all(b"") is None


@pytest.mark.parametrize("key", ["p:", "p:1", "p:1:", "p:1:A", "p:x:a", f"p:{'1' * 13}:a"])
def test_what_is_no_key_of_ours(key: str) -> None:
    assert place_of(key, "p:") is None


def test_it_is_begun_by_calls_and_closing_does_not_wait_for_it() -> None:
    async def main() -> None:
        store = Wrapped(MemoryCache())
        begun = asyncio.Event()

        async def hangs(name: str, owner: str, *, lease: float) -> str:
            begun.set()
            await asyncio.Event().wait()
            return owner

        store.lock = hangs  # type: ignore[method-assign]
        stats = Stats(name="app", store=store, flush=0.001)
        stats.add(call())
        await begun.wait()
        async with asyncio.timeout(guard.PATIENCE / 2):
            await stats.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert await see(store, Clock(stats._clock())) == 1

    asyncio.run(main())
