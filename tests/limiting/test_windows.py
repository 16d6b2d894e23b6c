"""The arithmetic of windows."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw import Limit
from ai_proxy_mw.limiting.windows import Position, used, wait

seconds = st.floats(0, 10_000, allow_nan=False)
counts = st.integers(0, 50)


@given(st.sampled_from(["sliding", "fixed"]), seconds, counts, counts, st.integers(1, 30))
def test_who_waits_as_told_gets_in(
    strategy: Any, now: float, current: int, previous: int, cost: int
) -> None:
    limit = Limit("20/minute", strategy=strategy)
    before = Position.at(limit, now)
    if used(before, current, previous) + cost <= limit.amount:
        return
    waiting = wait(limit, before, current, previous, cost)
    assert 1 <= waiting <= limit.window
    if cost > limit.amount or waiting == limit.window:
        return  # never, or not within the longest time that is told
    after = Position.at(limit, now + waiting)
    if after.number == before.number:
        assert used(after, current, previous) + cost <= limit.amount
    else:
        assert used(after, 0, current) + cost <= limit.amount


@given(seconds)
def test_a_position_is_within_its_window(now: float) -> None:
    for limit in (Limit("1/minute"), Limit("1/minute", strategy="fixed")):
        position = Position.at(limit, now)
        assert position.number * 60 <= now <= position.number * 60 + 60
        assert 0 <= position.left <= 60
        assert 0 <= position.share <= 1


def test_the_window_before_counts_by_its_share() -> None:
    limit = Limit("100/minute")
    assert used(Position.at(limit, 60.0), 3, 80) == 83
    assert used(Position.at(limit, 90.0), 3, 80) == 43
    assert used(Position.at(limit, 119.0), 3, 80) == 4
    fixed = Limit("100/minute", strategy="fixed")
    assert used(Position.at(fixed, 60.0), 3, 80) == 3
    places = Limit("5", of="concurrent")
    assert used(Position.at(places, 29.0), 1, 2) == 3
    assert wait(places, Position.at(places, 29.0), 5, 0, 1) == 1
