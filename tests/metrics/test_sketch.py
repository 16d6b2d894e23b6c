"""Classes of times: what stands for them is right to two percent, however they are added up."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw.metrics.sketch import ACCURACY, LAST, LEAST, MOST, class_of, percentile, seconds_of


@given(st.floats(LEAST, MOST))
def test_what_stands_for_a_time_is_near_it(seconds: float) -> None:
    number = class_of(seconds)
    assert 0 <= number <= LAST
    assert seconds_of(number) == pytest.approx(seconds, rel=ACCURACY + 1e-9)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9, LEAST])
def test_the_quickest_are_one_class(seconds: float) -> None:
    assert class_of(seconds) == 0
    assert seconds_of(0) == LEAST


@pytest.mark.parametrize("seconds", [MOST, 1e9, float("inf")])
def test_the_slowest_are_one_class(seconds: float) -> None:
    assert class_of(seconds) == LAST == 346
    assert seconds_of(LAST) == pytest.approx(MOST, rel=0.05)


def test_percentiles_are_those_of_the_times() -> None:
    picked = random.Random(7)
    times = sorted(picked.lognormvariate(-1, 1) for _ in range(9999))
    counts = Counter(map(class_of, times))
    for part in (0.0, 0.5, 0.95, 0.99, 1.0):
        exact = times[int(part * 9998)]
        assert percentile(counts, part) == pytest.approx(exact, rel=ACCURACY + 1e-3)


def test_of_nothing_there_are_none() -> None:
    assert percentile({}, 0.5) is None
    assert percentile({3: 0}, 0.5) is None


def test_one_time_is_all_percentiles() -> None:
    assert percentile({100: 1}, 0.5) == percentile({100: 1}, 0.99) == seconds_of(100)
