"""Repeats stay a share of the traffic."""

from __future__ import annotations

from math import e

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw.routing.retry_budget import WINDOW, RetryBudget


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(budget: RetryBudget, times: int) -> int:
    return sum(budget.withdraw() for _ in range(times))


def test_the_reserve_is_there_before_any_traffic_and_comes_back() -> None:
    clock = Clock()
    budget = RetryBudget(0.1, reserve=10, clock=clock)
    assert taken(budget, 100) == 10
    clock.now += WINDOW
    assert taken(budget, 100) == 6  # 10 * (1 - 1/e)
    clock.now += 100 * WINDOW
    assert taken(budget, 100) == 10


def test_traffic_pays_for_its_share() -> None:
    clock = Clock()
    budget = RetryBudget(0.1, reserve=0, clock=clock)
    assert not budget.withdraw()
    for _ in range(1001):
        budget.deposit()
    assert taken(budget, 1000) == 100


def test_what_was_paid_in_long_ago_is_gone() -> None:
    clock = Clock()
    budget = RetryBudget(0.1, reserve=2, clock=clock)
    for _ in range(10_000):
        budget.deposit()
    clock.now += 20 * WINDOW
    assert taken(budget, 1000) == 2


@pytest.mark.parametrize(("ratio", "calls"), [(0.1, 100), (0.1, 3), (0.5, 20), (1.0, 50)])
def test_a_storm_is_held_to_the_share(ratio: float, calls: int) -> None:
    """Every call fails and asks for two repeats, for five minutes."""
    clock = Clock()
    budget = RetryBudget(ratio, reserve=10, clock=clock)
    repeats = 0
    for _ in range(300):
        for _ in range(calls):
            clock.now += 1 / calls
            budget.deposit()
            repeats += taken(budget, 2)
    allowed = 300 * (ratio * calls + 10 / WINDOW) + 10
    assert repeats <= allowed
    assert repeats >= min(0.9 * allowed, 2 * 300 * calls)


def test_a_clock_that_steps_back_changes_nothing() -> None:
    clock = Clock()
    budget = RetryBudget(1.0, reserve=0, clock=clock)
    budget.deposit()
    clock.now -= 500
    assert taken(budget, 10) == 1
    clock.now += 500
    assert not budget.withdraw()


Steps = st.lists(st.tuples(st.floats(0, 30), st.integers(0, 40), st.integers(0, 40)), max_size=60)


@given(Steps, st.floats(0.01, 1), st.integers(0, 20))
def test_never_more_than_the_share_and_the_reserve(
    steps: list[tuple[float, int, int]], ratio: float, reserve: int
) -> None:
    clock = Clock()
    budget = RetryBudget(ratio, reserve=reserve, clock=clock)
    granted: list[tuple[float, int]] = []
    came = 0
    for pause, calls, repeats in steps:
        clock.now += pause
        for _ in range(calls):
            budget.deposit()
        came += calls
        granted.append((clock.now, taken(budget, repeats)))
        assert (
            sum(count for _, count in granted)
            <= ratio * came + reserve * (1 + (clock.now - 1000) / WINDOW) + 1e-6
        )
    for since, _ in granted:
        within = sum(count for at, count in granted if since <= at < since + WINDOW)
        assert within <= e * (ratio * came + reserve) + 1e-6


def test_it_stays_small() -> None:
    assert not hasattr(RetryBudget(0.1, clock=Clock()), "__dict__")
