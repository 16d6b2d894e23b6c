"""Statistics: of all processes, nothing twice, and never at a call's cost."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

import pytest

from ai_proxy_mw import ConfigurationError, MemoryCache
from ai_proxy_mw._loop import SETTLING
from ai_proxy_mw.accounting.record import Bodies
from ai_proxy_mw.metrics import stats as module
from ai_proxy_mw.metrics.buckets import RECENT, TIERS
from ai_proxy_mw.metrics.shelf import REST
from ai_proxy_mw.metrics.stats import Stats
from ai_proxy_mw.stores import guard
from tests.metrics.calls import NOW, Clock, Wrapped, call

DAY = 86_400


def play(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Wrapped:
    return Wrapped(MemoryCache(clock=clock))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was down is asked again at once."""
    monkeypatch.setattr(guard, "FIRST_PAUSE", 1e-9)
    monkeypatch.setattr(guard, "LONGEST_PAUSE", 1e-9)


async def requests(stats: Stats, window: Any = "1h") -> int:
    report = await stats.read(window)
    assert report.whole
    return report.total.requests


def test_in_memory_alone(clock: Clock) -> None:
    async def main() -> None:
        stats = Stats(name="app", clock=clock)
        for number in range(10):
            stats.add(call(model=f"m{number % 3}", total=0.5))
        report = await stats.read("1h", "model")
        assert (report.window, report.by, report.whole, report.other) == ("1h", "model", True, None)
        assert report.total.requests == 10
        assert {name: row.requests for name, row in report.rows.items()} == {
            "m0": 4,
            "m1": 3,
            "m2": 3,
        }
        assert report.total.cost == 12_000
        assert report.total.p95 == pytest.approx(0.5, rel=0.02)
        assert (stats.lost, stats.failures) == (0, 0)
        await stats.aclose()
        assert await requests(stats) == 10

    play(main())


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("window", TIERS)
def test_parts_are_equal_and_none_is_left_out(clock: Clock, window: Any, alone: bool) -> None:
    async def main() -> None:
        store = None if alone else Wrapped(MemoryCache(clock=clock))
        stats = Stats(name="app", clock=clock, store=store)
        tier = TIERS[window]
        ages = [0, 1, 5, tier.parts - 1, tier.parts, tier.parts + 5]
        for age in sorted(ages, reverse=True):
            clock.now = NOW - age * tier.length
            stats.add(call())
            await stats.flush()
        report = await stats.read(window)
        times = [point.time for point in report.series]
        assert len(times) == {"1h": 60, "24h": 24, "30d": 30}[window]
        assert {later - earlier for earlier, later in pairwise(times)} == {float(tier.length)}
        assert report.since == times[0]
        assert times[-1] <= NOW == report.until < times[-1] + tier.length
        filled = [-1 - number for number, p in enumerate(reversed(report.series)) if p.row.requests]
        assert filled == [-1, -2, -6, -tier.parts]
        assert report.total.requests == 4
        if store is not None:  # and so says who was not there
            other = await Stats(name="app", clock=clock, store=store).read(window)
            assert other == report
        await stats.aclose()

    play(main())


def test_all_processes_are_added_up(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        several = [Stats(name="app", store=store, clock=clock) for _ in range(4)]
        for number, stats in enumerate(several):
            for _ in range(number + 1):
                stats.add(call(subject=f"s{number}"))
            await stats.flush()
        for window in TIERS:
            for stats in several:
                report = await stats.read(window, "subject")
                assert report.whole
                assert [*report.rows] == ["s3", "s2", "s1", "s0"]
                assert report.total.requests == 10
        other = Stats(name="another", store=store, clock=clock)
        assert await requests(other) == 0
        for stats in (*several, other):
            await stats.aclose()
        assert await requests(Stats(name="app", store=store, clock=clock)) == 10

    play(main())


def test_what_is_not_yet_written_counts_for_its_own_process(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        stats, other = (Stats(name="app", store=store, clock=clock) for _ in range(2))
        stats.add(call())
        await stats.flush()
        stats.add(call())
        assert (await requests(stats), await requests(other)) == (2, 1)
        await stats.flush()
        await stats.flush()
        assert (await requests(stats), await requests(other)) == (2, 2)
        await stats.aclose()
        await other.aclose()

    play(main())


def test_a_flush_writes_only_what_has_changed(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        stats = Stats(name="app", store=store, clock=clock)
        await stats.flush()
        assert store.writes == []
        stats.add(call())
        await stats.flush()
        kinds = sorted(key.split(":")[2] for key in store.writes)
        assert kinds == ["d", "h", "m", "r"]
        store.writes.clear()
        await stats.flush()
        assert store.writes == []
        clock.now += 60
        stats.add(call())
        await stats.flush()
        assert len(store.writes) == 4
        assert await requests(stats) == 2
        await stats.aclose()
        assert len(store.writes) == 4

    play(main())


def test_who_is_idle_is_silent(store: Wrapped) -> None:
    async def main() -> None:
        stats = Stats(name="app", store=store, flush=0.01)
        assert len(asyncio.all_tasks()) == 1
        stats.add(call())
        stats.add(call())
        await _until(lambda: len(store.writes) == 4)
        await asyncio.sleep(0.05)
        assert len(store.writes) == 4
        assert stats._timers == {}
        assert len(asyncio.all_tasks()) == 1
        stats.add(call())
        await _until(lambda: len(store.writes) == 8)
        await stats.aclose()

    play(main())


def test_closing_waits_for_what_is_being_written(store: Wrapped) -> None:
    async def main() -> None:
        stats = Stats(name="app", store=store, flush=0.001)
        gate = asyncio.Event()
        ask = store.set

        async def slow(*args: Any, **kwargs: Any) -> None:
            await gate.wait()
            await ask(*args, **kwargs)

        store.set = slow  # type: ignore[method-assign]
        stats.add(call())
        await _until(lambda: len(asyncio.all_tasks()) > 1)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert {task.get_name() for task in others} == {SETTLING}
        stats._start(asyncio.get_running_loop())  # it is at work already
        closing = asyncio.create_task(stats.aclose())
        await asyncio.sleep(0.01)
        stats.add(call())
        gate.set()
        await closing
        assert stats._timers == {}
        assert await requests(Stats(name="app", store=store)) == 2

    play(main())


async def _until(ready: Any) -> None:
    async with asyncio.timeout(5):
        while not ready():
            await asyncio.sleep(0.001)


def test_while_the_store_is_down_nothing_is_lost(
    store: Wrapped, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        stats, other = (Stats(name="app", store=store, clock=clock, flush=0.01) for _ in range(2))
        other.add(call())
        await other.flush()
        store.down = True
        for _ in range(5):
            stats.add(call())
            await stats.flush()
            clock.now += 60
        report = await stats.read("1h")
        assert (report.whole, report.total.requests) == (False, 5)
        assert [record.subject for record in await stats.recent(2)] == ["alice", "alice"]
        assert stats.failures > 5
        await _until(lambda: stats.failures > 40)  # it goes on trying
        store.down = False
        await _until(lambda: len(store.writes) > 10)  # by itself, although nobody calls any more
        await _until(lambda: not stats._timers)
        assert await requests(stats) == await requests(other) == 6
        assert await requests(stats, "24h") == await requests(other, "24h") == 6
        await stats.aclose()
        await other.aclose()

    with caplog.at_level(logging.WARNING, "ai_proxy_mw"):
        play(main())
    assert "hunter2" not in caplog.text


def test_a_store_that_goes_away_in_the_middle(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        for _ in range(3):
            stats = Stats(name="app", store=store, clock=clock)
            stats.add(call())
            await stats.flush()
        get, asked = store.get, 0

        async def once(key: str) -> bytes | None:
            nonlocal asked
            asked += 1
            if asked > 1:
                raise ConnectionError
            return await get(key)

        store.get = once  # type: ignore[method-assign]
        report = await Stats(name="app", store=store, clock=clock).read("1h")
        assert (report.whole, report.total.requests) == (False, 1)

    play(main())


def test_a_write_that_seemed_to_fail_is_repeated_and_counts_once(
    store: Wrapped, clock: Clock
) -> None:
    async def main() -> None:
        stats, other = (Stats(name="app", store=store, clock=clock) for _ in range(2))
        late: list[tuple[str, bytes, float]] = []
        real = store.set

        async def lost(key: str, value: bytes, *, ttl: float, tags: Any = ()) -> None:
            late.append((key, value, ttl))
            raise TimeoutError

        stats.add(call())
        store.set = lost  # type: ignore[method-assign]
        await stats.flush()
        store.set = real  # type: ignore[method-assign]
        clock.now += 60
        stats.add(call())
        await stats.flush()
        for key, value, ttl in late:  # the server comes to it only now
            await store.set(key, value, ttl=ttl)
        await stats.flush()
        for window in TIERS:
            assert await requests(stats, window) == await requests(other, window) == 2
        writes = len(store.writes)
        await stats.flush()
        assert len(store.writes) == writes
        await stats.aclose()

    play(main())


def test_a_flush_that_is_cancelled_is_not_taken_for_done(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        stats = Stats(name="app", store=store, clock=clock)
        stats.add(call())
        real, gate = store.set, asyncio.Event()

        async def hangs(*args: Any, **kwargs: Any) -> None:
            gate.set()
            await asyncio.Event().wait()

        store.set = hangs  # type: ignore[method-assign]
        task = asyncio.create_task(stats.flush())
        await gate.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        store.set = real  # type: ignore[method-assign]
        await stats.aclose()
        assert await requests(Stats(name="app", store=store, clock=clock)) == 1

    play(main())


def test_what_is_too_old_for_any_window_is_forgotten(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        stats = Stats(name="app", store=store, clock=clock)
        store.down = True
        for _ in range(40):
            stats.add(call())
            await stats.flush()
            clock.now += DAY
        assert (
            len(stats._buckets) == 32 + 2 + 1
        )  # days, hours that a late clock may ask for, minute
        await stats.aclose()

    play(main())


def test_memory_does_not_grow_with_time(clock: Clock) -> None:
    async def main() -> None:
        stats = Stats(name="app", clock=clock)
        for _ in range(300):
            stats.add(call())
            await stats.flush()
            clock.now += 60
        assert len(stats._buckets) <= 3
        assert await requests(stats, "1h") == 59
        assert await requests(stats, "24h") == 300
        await stats.aclose()

    play(main())


def test_a_clock_that_is_set_back_overwrites_nothing(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        stats = Stats(name="app", store=store, clock=clock)
        for now in (NOW, NOW + 120, NOW, NOW + 120, NOW - 60, NOW + 120):
            clock.now = now
            stats.add(call())
            await stats.flush()
        for each in (stats, Stats(name="app", store=store, clock=clock)):
            report = await each.read("1h")
            assert [point.row.requests for point in report.series[-4:]] == [1, 2, 0, 3]
            assert await requests(each, "24h") == 6
        await stats.aclose()

    play(main())


def test_what_others_have_planted_is_left_out(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        stats = Stats(name="app", store=store, clock=clock)
        stats.add(call())
        await stats.flush()
        prefix = stats._prefix
        start = TIERS["1h"].start(NOW)
        for key in (
            f"{prefix}m:{start}:zz",
            f"{prefix}m:",
            f"{prefix}m:x:y",
            f"{prefix}m:{start}:",
            f"{prefix}m:{'9' * 5000}:a",
            f"{prefix}m:{start + 30}:a",
            f"{prefix}r:x",
        ):
            await store.set(key, b"\xc1 rubbish", ttl=600)
        assert await requests(stats) == 1
        assert len(await stats.recent()) == 1
        store.get = _odd  # type: ignore[method-assign]
        assert await requests(Stats(name="app", store=store, clock=clock)) == 0
        await stats.aclose()

    play(main())


async def _odd(key: str) -> Any:
    return "no bytes"


def test_recent_calls_of_all_processes(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        one, other = (Stats(name="app", store=store, clock=clock) for _ in range(2))
        for number in range(2 * RECENT):
            one.add(call(time=float(number), request_id=f"one-{number}"))
        other.add(call(time=97.5, request_id="other"))
        await other.flush()
        found = await one.recent(4)
        assert [record.request_id for record in found] == ["one-99", "one-98", "other", "one-97"]
        assert len(await one.recent()) == RECENT + 1
        await one.flush()
        assert await other.recent() == await one.recent()
        clock.now += 3601
        assert [record.request_id for record in await other.recent()] == ["other"]
        await one.aclose()
        await other.aclose()

    play(main())


def test_bodies_are_never_kept(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        stats = Stats(name="app", store=store, clock=clock)
        stats.add(
            call(
                bodies=Bodies(
                    request=b"secret",
                    response=b"secret",
                    request_is_whole=True,
                    response_is_whole=True,
                )
            )
        )
        assert (await stats.recent())[0].bodies is None
        await stats.flush()
        for key in store.writes:
            assert b"secret" not in (await store.get(key) or b"")
        await stats.aclose()

    play(main())


def test_what_cannot_be_counted_is_and_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    stats = Stats(name="app")
    broken: Any = None
    stats.add(broken)
    stats.add(broken)
    assert stats.lost == 2
    assert len(caplog.records) == 1
    stats.add(call())
    assert asyncio.run(stats.read("1h")).total.requests == 1


def test_without_an_event_loop_it_counts_and_writes_with_the_next_one(
    store: Wrapped, clock: Clock
) -> None:
    stats = Stats(name="app", store=store, clock=clock, flush=0.01)
    stats.add(call())
    for times in (1, 2, 3):  # each in a loop of its own, which ends without closing

        async def main() -> None:
            stats.add(call())

        asyncio.run(main())
        assert asyncio.run(requests(stats)) == times + 1
    asyncio.run(stats.aclose())
    assert asyncio.run(requests(Stats(name="app", store=store, clock=clock))) == 4


def test_event_loops_of_several_threads_share_it(store: Wrapped) -> None:
    stats = Stats(name="app", store=store, flush=0.002)
    barrier = threading.Barrier(4)

    async def main() -> None:
        barrier.wait()
        for number in range(500):
            stats.add(call())
            if number % 20 == 0:
                await asyncio.sleep(0)
        barrier.wait()
        await stats.aclose()

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    asyncio.run(stats.aclose())
    assert stats.lost == 0
    for each in (stats, Stats(name="app", store=store)):
        report = asyncio.run(each.read("24h"))
        assert (report.whole, report.total.requests) == (True, 2000)


def test_a_child_begins_anew(store: Wrapped, clock: Clock) -> None:
    """What the parent has not yet written is the parent's to write."""

    async def before() -> None:
        stats.add(call())
        await stats.flush()
        stats.add(call())

    stats = Stats(name="app", store=store, clock=clock)
    asyncio.run(before())
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            own = {bucket.key for bucket in stats._buckets.values()}
            fresh = not own and not stats._tail.records and not stats._timers
            stats.add(call())
            found = asyncio.run(requests(stats))  # the one that was written, and its own
            os.write(writing, b"%d %d" % (fresh, found))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100) == b"1 2"
    os.close(reading)
    os.close(writing)
    assert asyncio.run(requests(stats)) == 2


def test_after_a_fork_all_begin_anew(store: Wrapped, clock: Clock) -> None:
    stats = Stats(name="app", store=store, clock=clock)
    stats.add(call())
    module._forked()
    assert asyncio.run(requests(stats)) == 0


def test_what_is_in_memory_and_out_of_the_window(clock: Clock) -> None:
    stats = Stats(name="app", clock=clock)
    stats.add(call())
    clock.now += 3600
    assert asyncio.run(requests(stats, "1h")) == 0
    assert asyncio.run(requests(stats, "24h")) == 1


@pytest.mark.parametrize("flush", [0, -1, float("nan"), float("inf"), True, "5"])
def test_a_wrong_flush_is_said(flush: Any) -> None:
    with pytest.raises(ConfigurationError, match="write a number of seconds above 0"):
        Stats(name="app", flush=flush)


def test_a_wrong_question_is_said() -> None:
    stats = Stats(name="app")
    wrong: Any = "2h"
    with pytest.raises(ConfigurationError, match=r"window='2h'.*'1h', '24h', '30d'"):
        asyncio.run(stats.read(wrong))
    with pytest.raises(ConfigurationError, match=r"by='2h'.*'model'"):
        asyncio.run(stats.read("1h", wrong))


def test_a_store_of_this_process_is_left_to_the_cache(clock: Clock) -> None:
    async def main() -> None:
        cache = MemoryCache(clock=clock)
        stats = Stats(name="app", store=cache, clock=clock)
        stats.add(call())
        clock.now += 60
        await stats.flush()
        assert await requests(stats) == 1
        assert (await cache.stats()).entries == 0
        await stats.aclose()

    play(main())


def test_a_list_that_takes_long_is_not_made_each_time(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        stats = Stats(name="app", store=store, clock=clock)
        ticks = Clock(0.0)
        stats._shelf._clock = ticks
        keys = store.keys

        async def slow(prefix: str = "") -> Any:
            ticks.now += 1.0
            async for key in keys(prefix):
                yield key

        store.keys = slow  # type: ignore[method-assign]
        for _ in range(5):
            await requests(stats)
        assert store.lists == 1
        ticks.now += REST
        await requests(stats)
        assert store.lists == 2
        await stats.aclose()

    play(main())


def test_a_store_that_is_down_is_not_asked_for_a_list(store: Wrapped, clock: Clock) -> None:
    async def main() -> None:
        stats = Stats(name="app", store=store, clock=clock)
        stats.add(call())
        await stats.flush()
        other = Stats(name="app", store=store, clock=clock)
        get, store.get = store.get, _fails  # type: ignore[method-assign]
        assert not (await other.read("1h")).whole
        lists = store.lists
        assert not (await other.read("1h")).whole
        assert store.lists == lists
        store.get = get  # type: ignore[method-assign]
        assert await requests(other) == 1
        await stats.aclose()

    play(main())


async def _fails(key: str) -> Any:
    raise ConnectionError
