"""What a storage of `limits` must do, asked of ours and of the library's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from limits import RateLimitItemPerMinute
from limits.aio.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from tests.stores.storages import KINDS, Clock, opened

Scenario = Callable[[Any, Clock], Awaitable[None]]
Play = Callable[[Scenario], None]
OURS = ["local", "disk"]
STRATEGIES = [FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter]


@pytest.fixture
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    def run(scenario: Scenario) -> None:
        async def main() -> None:
            clock = Clock()
            async with opened(request.param, clock, tmp_path / "limits") as storage:
                await scenario(storage, clock)

        asyncio.run(main())

    return run


everywhere = pytest.mark.parametrize("play", KINDS, indirect=True)
ours = pytest.mark.parametrize("play", OURS, indirect=True)


@everywhere
def test_a_counter_counts_until_it_expires(play: Play) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        assert await storage.get("a") == 0
        assert await storage.incr("a", 60) == 1
        clock.move(30)
        assert await storage.incr("a", 60, 5) == 6
        assert await storage.get("a") == 6
        assert await storage.get("b") == 0
        assert await storage.get_expiry("a") == pytest.approx(clock.now + 30, abs=0.5)
        clock.move(31)
        assert await storage.get("a") == 0
        assert await storage.incr("a", 60, 2) == 2
        assert await storage.get_expiry("a") == pytest.approx(clock.now + 60, abs=0.5)

    play(scenario)


@everywhere
def test_what_is_given_back_is_taken_off(play: Play) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        assert await storage.incr("a", 60, 10) == 10
        assert await storage.incr("a", 60, -4) == 6
        assert await storage.decr("a", 2) == 4
        assert await storage.decr("a", 100) == 0
        assert await storage.incr("a", 60, 3) == 3
        assert await storage.incr("a", 60, -5) == -2
        assert await storage.incr("a", 60, 5) == 3
        assert await storage.decr("never") == 0
        assert await storage.get("never") == 0

    play(scenario)


@ours
def test_a_counter_back_at_nothing_keeps_its_time(play: Play) -> None:
    # limits' own gives it a new one: whoever is given all back would wait longer.
    async def scenario(storage: Any, clock: Clock) -> None:
        await storage.incr("a", 60, 3)
        await storage.incr("a", 60, -3)
        clock.move(40)
        await storage.incr("a", 60, 3)
        assert await storage.get_expiry("a") == pytest.approx(clock.now + 20, abs=0.5)

    play(scenario)


@ours
def test_the_expiry_of_nothing_is_now(play: Play) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        assert await storage.get_expiry("a") == clock.now
        await storage.incr("a", 60)
        clock.move(100)
        assert await storage.get_expiry("a") == clock.now
        assert await storage.decr("a") == 0

    play(scenario)


@everywhere
def test_a_moving_window_moves(play: Play) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        start = clock.now
        assert await storage.get_moving_window("a", 3, 60) == (start, 0)
        assert await storage.acquire_entry("a", 3, 60)
        clock.move(30)
        assert await storage.acquire_entry("a", 3, 60, amount=2)
        assert not await storage.acquire_entry("a", 3, 60)
        assert await storage.get_moving_window("a", 3, 60) == (start, 3)
        clock.move(31)
        assert await storage.get_moving_window("a", 3, 60) == (start + 30, 2)
        assert not await storage.acquire_entry("a", 3, 60, amount=2)
        assert await storage.acquire_entry("a", 3, 60)
        assert not await storage.acquire_entry("a", 3, 60)
        assert not await storage.acquire_entry("b", 3, 60, amount=4)
        assert not await storage.acquire_entry("a", 3, 60, amount=4)

    play(scenario)


@ours
def test_a_moving_window_that_has_passed_is_empty(play: Play) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        assert await storage.acquire_entry("a", 3, 60)
        clock.move(61)
        assert await storage.get_moving_window("a", 3, 60) == (clock.now, 0)

    play(scenario)


@ours
def test_under_a_lower_limit_the_newest_entries_count(play: Play) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        for _ in range(5):
            assert await storage.acquire_entry("a", 10, 60)
            clock.move(1)
        assert await storage.get_moving_window("a", 2, 60) == (clock.now - 2, 2)
        assert not await storage.acquire_entry("a", 2, 60)
        assert await storage.acquire_entry("a", 10, 60)

    play(scenario)


@ours
def test_a_moving_window_outlives_a_clock_set_back(play: Play) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        first = clock.now
        assert await storage.acquire_entry("a", 2, 60)
        clock.move(-5)
        assert await storage.acquire_entry("a", 2, 60)
        assert not await storage.acquire_entry("a", 2, 60)
        assert await storage.get_moving_window("a", 2, 60) == (first, 2)

    play(scenario)


@everywhere
def test_a_sliding_window_weighs_the_one_before(play: Play) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        assert await storage.get_sliding_window("a", 60) == (0, 0.0, 0, 120.0)
        assert await storage.acquire_sliding_window_entry("a", 10, 60, amount=10)
        assert not await storage.acquire_sliding_window_entry("a", 10, 60)
        assert not await storage.acquire_sliding_window_entry("b", 10, 60, amount=11)
        clock.move(60 + 30.5)
        previous, left, current, rest = await storage.get_sliding_window("a", 60)
        assert (previous, current) == (10, 0)
        assert (left, rest) == pytest.approx((29.5, 89.5))
        assert await storage.acquire_sliding_window_entry("a", 10, 60, amount=6)
        assert not await storage.acquire_sliding_window_entry("a", 10, 60)
        clock.move(60)
        assert (await storage.get_sliding_window("a", 60))[::2] == (6, 0)
        clock.move(120)
        assert (await storage.get_sliding_window("a", 60))[::2] == (0, 0)

    play(scenario)


@ours
def test_a_sliding_window_outlives_a_clock_set_back(play: Play) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        assert await storage.acquire_sliding_window_entry("a", 1, 60)
        clock.move(-1)
        assert not await storage.acquire_sliding_window_entry("a", 1, 60)
        clock.move(-3600)
        assert await storage.acquire_sliding_window_entry("a", 1, 60)

    play(scenario)


@ours
def test_the_kinds_never_clash(play: Play) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        assert await storage.incr("a", 60, 7) == 7
        assert await storage.acquire_entry("a", 1, 60)
        assert await storage.acquire_sliding_window_entry("a", 1, 60)
        assert await storage.acquire_sliding_window_entry("a", 1, 3600)
        assert await storage.get("a") == 7
        assert (await storage.get_moving_window("a", 1, 60))[1] == 1

    play(scenario)


@everywhere
def test_what_is_cleared_begins_anew(play: Play) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        for _ in range(3):
            assert await storage.incr("a", 60) == 1
            assert await storage.acquire_entry("m", 1, 60)
            assert await storage.acquire_sliding_window_entry("s", 1, 60)
            clock.move(1)
            await storage.clear("a")
            await storage.clear("m")
            await storage.clear_sliding_window("s", 60)
            assert await storage.get("a") == 0
            assert (await storage.get_moving_window("m", 1, 60))[1] == 0
            assert (await storage.get_sliding_window("s", 60))[::2] == (0, 0)
        await storage.clear("never")
        await storage.clear_sliding_window("never", 60)

    play(scenario)


@ours
def test_reset_forgets_all(play: Play) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        await storage.incr("a", 60)
        await storage.acquire_entry("a", 1, 60)
        await storage.acquire_sliding_window_entry("a", 1, 60)
        assert await storage.reset() == 3
        assert await storage.reset() == 0
        assert await storage.incr("a", 60) == 1
        assert await storage.acquire_entry("a", 1, 60)
        assert await storage.acquire_sliding_window_entry("a", 1, 60)
        assert await storage.check()

    play(scenario)


@ours
@pytest.mark.parametrize(
    ("one", "other"), [("a:b", "a/b"), ("a", "a\0"), ("é", "e\u0301"), ("😀", "😁"), ("1:a", "a")]
)
def test_keys_are_what_they_are(play: Play, one: str, other: str) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        long = "x" * 10_000
        for key in (one, long + one):
            assert await storage.incr(key, 60) == 1
            assert await storage.acquire_entry(key, 1, 60)
            assert await storage.acquire_sliding_window_entry(key, 1, 60)
        for key in (other, long + other):
            assert await storage.get(key) == 0
            assert await storage.acquire_entry(key, 1, 60)
            assert await storage.acquire_sliding_window_entry(key, 1, 60)

    play(scenario)


@everywhere
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_strategies_of_limits(play: Play, strategy: type[RateLimiter]) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        limiter = strategy(storage)
        item = RateLimitItemPerMinute(5)
        assert await limiter.hit(item, "me", cost=2)
        assert (await limiter.get_window_stats(item, "me")).remaining == 3
        assert await limiter.test(item, "me", cost=3)
        assert not await limiter.test(item, "me", cost=4)
        assert [await limiter.hit(item, "me") for _ in range(5)] == [True] * 3 + [False] * 2
        assert (await limiter.get_window_stats(item, "me")).remaining == 0
        assert await limiter.hit(item, "another")
        await limiter.clear(item, "me")
        assert [await limiter.hit(item, "me") for _ in range(6)] == [True] * 5 + [False]
        clock.move(121)
        assert (await limiter.get_window_stats(item, "me")).remaining == 5
        assert await limiter.hit(item, "me", cost=5)

    play(scenario)


@ours
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_exact_under_concurrency(play: Play, strategy: type[RateLimiter]) -> None:
    async def scenario(storage: Any, clock: Clock) -> None:
        limiter = strategy(storage)
        item = RateLimitItemPerMinute(10)
        answers = await asyncio.gather(*(limiter.hit(item, "me") for _ in range(200)))
        assert sum(answers) == 10

    play(scenario)
