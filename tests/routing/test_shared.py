"""Processes in step, by a store in memory and a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from ai_proxy_mw import MemoryCache
from ai_proxy_mw._circuit import Circuit
from ai_proxy_mw.routing import shared as module
from ai_proxy_mw.routing.breaker import Breaker
from ai_proxy_mw.routing.shared import CLOSED, SharedBreakers, lane_key
from ai_proxy_mw.routing.shared_state import StateInCache, StateInCounts, state_in
from ai_proxy_mw.stores.local import LocalStorage

CIRCUIT = Circuit(calls=5, open_for=10, longest=100)
KEY = lane_key("shop", "openai#2", "https://a.example/v1")


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Store:
    """What all processes see. Fails or hangs where it is told to."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self.ttls: dict[str, float] = {}
        self.owners: dict[str, str] = {}
        self.asked = 0
        self.down = False
        self.hangs = False
        self.meanwhile: Coroutine[Any, Any, None] | None = None

    async def get(self, key: str) -> int:
        await self._ask()
        found = self.found.get(key, 0)
        if self.meanwhile is not None and key.endswith(":open"):
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile
        return found

    async def put(self, key: str, value: int, *, ttl: float) -> None:
        await self._ask()
        self.found[key] = value
        self.ttls[key] = ttl

    async def take(self, key: str, owner: str, *, ttl: float) -> bool:
        await self._ask()
        return self.owners.setdefault(key, owner) == owner

    async def _ask(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(3600)
        await asyncio.sleep(0)
        if self.down:
            raise OSError("down")


class Process:
    def __init__(self, store: Store, clock: Clock, *, ahead: float = 0.0) -> None:
        self.breaker = Breaker(CIRCUIT, name="openai#2", clock=clock)
        self.shared = SharedBreakers(
            {KEY: self.breaker}, store, clock, lambda: 1_790_000_000 + ahead + clock.now
        )

    def fail(self) -> None:
        for _ in range(5):
            self.breaker.failed(self.breaker.begin())

    async def look(self) -> None:
        """A call that is due to look, and the look."""
        self.shared._due = 0.0
        self.shared.touch()
        await self.settled()

    async def ask(self) -> None:
        """A call that would go to the lane."""
        _ = self.breaker.available
        await self.look()

    async def settled(self) -> None:
        for task in list(self.shared._tasks.values()):
            await task


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.001)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def one(store: Store, clock: Clock) -> Process:
    return Process(store, clock)


@pytest.fixture
def other(store: Store, clock: Clock) -> Process:
    return Process(store, clock)


def test_what_one_opens_the_other_closes_off_and_one_good_probe_frees_both(
    one: Process, other: Process, store: Store, clock: Clock
) -> None:
    async def main() -> None:
        one.fail()
        await one.settled()
        assert store.ttls == {f"circuit:{KEY}:open": 10.0}
        await other.look()
        assert (other.breaker.state, round(other.breaker.wait, 2)) == ("open", 10.0)
        clock.now = 10.1
        one.breaker.succeeded(one.breaker.begin())
        await one.settled()
        assert store.found[f"circuit:{KEY}:open"] == CLOSED
        await other.look()
        assert other.breaker.state == "closed"
        one.fail()  # and what stands there does not close what opens after it
        await one.settled()
        await one.look()
        assert one.breaker.state == "open"

    asyncio.run(main())


def test_cooling_is_told(one: Process, other: Process, clock: Clock) -> None:
    async def main() -> None:
        one.breaker.cool(30)
        await one.settled()
        await other.look()
        assert (other.breaker.state, round(other.breaker.wait, 2)) == ("cooling", 30.0)

    asyncio.run(main())


def test_what_is_over_before_it_could_be_told_is_not(
    one: Process, store: Store, clock: Clock
) -> None:
    async def main() -> None:
        one.fail()
        one.breaker.cool(1)
        clock.now += 10  # the task has not begun
        await one.settled()
        assert store.found == {}

    asyncio.run(main())


def test_a_probe_in_vain_is_told_and_doubled_by_who_learns_of_it(
    one: Process, other: Process, clock: Clock
) -> None:
    async def main() -> None:
        one.fail()
        clock.now += 10
        one.breaker.failed(one.breaker.begin())
        await one.settled()
        await other.look()
        assert round(other.breaker.wait, 2) == 20.0
        clock.now += 20
        other.breaker.failed(other.breaker.begin())
        assert round(other.breaker.wait) == 40

    asyncio.run(main())


def test_of_two_the_one_that_was_first_tries(
    one: Process, other: Process, store: Store, clock: Clock
) -> None:
    async def main() -> None:
        one.fail()
        await one.settled()
        await other.look()
        await other.ask()
        assert store.owners == {}  # not so long before
        clock.now = 8.5
        await one.look()
        assert store.owners == {}  # nor by who has no call for it
        await other.ask()
        await one.ask()
        clock.now = 10.1
        assert (other.breaker.available, one.breaker.available) == (True, False)
        await one.ask()
        assert round(one.breaker.wait, 2) == 2.0
        while one.breaker.state == "open":  # the other has no more calls
            clock.now += 1
            await one.ask()
        assert clock.now == pytest.approx(10 + 15, abs=1.2)

    asyncio.run(main())


def test_forked_workers_are_not_taken_for_one(
    one: Process, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        one.fail()
        await one.settled()
        clock.now = 9
        await one.ask()
        clock.now = 10
        assert one.breaker.available
        monkeypatch.setattr(os, "getpid", lambda: 1)
        await one.ask()
        assert not one.breaker.available

    asyncio.run(main())


@pytest.mark.parametrize("planted", [-5, 0, 2, 10**15, 2 * 1_790_000_000_000, 1_789_999_999_000])
def test_what_can_be_no_time_is_ignored(one: Process, store: Store, planted: int) -> None:
    async def main() -> None:
        store.found = {f"circuit:{KEY}:open": planted, f"circuit:{KEY}:cool": planted}
        await one.look()
        assert (one.breaker.state, one.breaker.available) == ("closed", True)

    asyncio.run(main())


def test_a_time_too_far_ahead_is_cut(store: Store, clock: Clock) -> None:
    one, ahead = Process(store, clock), Process(store, clock, ahead=50.0)

    async def main() -> None:
        ahead.breaker.learn_open(100)
        ahead.breaker.cool(100)
        await ahead.settled()
        assert store.found[f"circuit:{KEY}:cool"] == 1_790_000_150_000
        await one.look()
        assert one.breaker.wait == 100.0

    asyncio.run(main())


def test_it_looks_once_a_second_while_there_are_calls(
    one: Process, store: Store, clock: Clock
) -> None:
    async def main() -> None:
        for _ in range(50):
            for _ in range(10):
                one.shared.touch()
            await one.settled()
            clock.now += 0.1
        assert store.asked == 2 * 5  # two keys
        await asyncio.sleep(0)
        assert store.asked == 2 * 5

    asyncio.run(main())


def test_what_is_read_while_the_circuit_closes_here_is_too_old(
    one: Process, store: Store, clock: Clock
) -> None:
    async def meanwhile() -> None:
        one.breaker.succeeded(one.breaker.begin())

    async def main() -> None:
        one.breaker.learn_open(1)
        clock.now += 1
        store.found[f"circuit:{KEY}:open"] = 1_790_000_010_000
        store.meanwhile = meanwhile()
        await one.look()
        assert one.breaker.state == "closed"
        assert store.found[f"circuit:{KEY}:open"] == CLOSED  # told without another call

    asyncio.run(main())


def test_a_store_that_is_down_costs_no_call_anything(
    one: Process, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        store.down = True
        one.fail()
        await one.settled()
        for _ in range(20):
            await one.look()
        assert store.asked == 1  # then it is left alone
        assert one.breaker.state == "open"  # by itself
        clock.now = 1.0
        store.down = False
        await one.look()
        assert f"circuit:{KEY}:open" in store.found  # told after all

    asyncio.run(main())
    about = [record for record in caplog.records if record.getMessage().startswith("circuits")]
    assert [record.levelno for record in about] == [logging.ERROR, logging.WARNING]


def test_a_store_that_hangs_holds_up_neither_calls_nor_the_end(
    one: Process, store: Store, clock: Clock
) -> None:
    async def main() -> None:
        store.hangs = True
        begun = time.perf_counter()
        for _ in range(1000):
            clock.now += 1.0
            one.shared.touch()
            await asyncio.sleep(0)
        assert time.perf_counter() - begun < 0.3
        assert store.asked == 1
        await one.shared.aclose()
        await one.shared.aclose()
        assert time.perf_counter() - begun < 0.3
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_it_goes_on_after_its_end_and_in_other_loops(
    one: Process, store: Store, clock: Clock
) -> None:
    async def main() -> None:
        await one.look()
        await one.shared.aclose()
        await one.look()
        assert len(one.shared._tasks) == len(one.shared._guards) == 1

    asyncio.run(main())
    assert store.asked == 4
    asyncio.run(main())
    assert store.asked == 8


def test_changes_outside_of_a_loop_are_told_with_the_next_call(
    one: Process, store: Store, clock: Clock
) -> None:
    clock.now = 0.5
    one.fail()

    async def main() -> None:
        one.shared.touch()
        await one.settled()

    asyncio.run(main())
    assert f"circuit:{KEY}:open" in store.found


def test_who_was_told_of_changes_before_still_is(store: Store, clock: Clock) -> None:
    told: list[str] = []
    breaker = Breaker(
        CIRCUIT, name="openai", clock=clock, on_change=lambda changed: told.append(changed.state)
    )
    SharedBreakers({KEY: breaker}, store, clock)
    breaker.cool(5)
    assert told == ["cooling"]


def test_keys_tell_lanes_apart_and_nothing_else() -> None:
    keys = {
        lane_key("shop", "openai#2", "https://a.example/v1"),
        lane_key("shop", "openai#1", "https://a.example/v1"),
        lane_key("shop", "openai#2", "https://b.example/v1"),
        lane_key("shopo", "penai#2", "https://a.example/v1"),
        lane_key("shop\ud800", "openai", ""),
    }
    assert len(keys) == 5
    assert all(re.fullmatch(r"[0-9a-f]{32}", key) for key in keys)


class Shared(MemoryCache):
    shared = True


def test_a_shared_cache_goes_before_counts_and_memory_is_not_shared() -> None:
    assert isinstance(state_in(Shared(), LocalStorage), StateInCache)
    assert isinstance(state_in(MemoryCache(), LocalStorage), StateInCounts)
    assert isinstance(state_in(None, LocalStorage), StateInCounts)
    assert state_in(MemoryCache(), None) is None


@pytest.mark.parametrize(
    ("planted", "found"),
    [(b"17", 17), (b"", 0), (b"-1", 0), (b"1e9", 0), (b"9" * 5000, 0), ("\u0663".encode(), 0)],
)
def test_only_digits_in_the_cache_are_a_number(planted: bytes, found: int) -> None:
    async def main() -> None:
        cache = Shared()
        state = StateInCache(cache)
        assert await state.get("k") == 0
        await cache.set("k", planted, ttl=9)
        assert await state.get("k") == found

    asyncio.run(main())


def test_numbers_where_limits_are_counted() -> None:
    async def main() -> None:
        clock = Clock(1e9)
        counts = LocalStorage(clock=clock)
        state = StateInCounts(lambda: counts, clock)
        await state.put("k", 1_790_000_000_000, ttl=0.5)
        await state.put("k", 5, ttl=0.5)
        assert await state.get("k") == 5
        clock.now += 1
        assert await state.get("k") == 0
        await counts.incr("k", 1, -7)
        assert await state.get("k") == 0
        assert await state.take("p", "a", ttl=2)
        assert await state.take("p", "a", ttl=2)
        assert not await state.take("p", "b", ttl=2)
        clock.now += 2
        assert await state.take("p", "b", ttl=2)
        assert not await state.take("p", "a", ttl=2)

    asyncio.run(main())


def test_a_text_among_the_counts_is_nothing() -> None:
    class Planted(LocalStorage):
        async def get(self, key: str) -> int:
            return int("nonsense")

    async def main() -> None:
        assert await StateInCounts(Planted).get("k") == 0

    asyncio.run(main())
