"""The rolling count, against a list of all calls."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ai_proxy_mw.routing.window import BUCKETS, Window

STEPS = st.lists(
    st.tuples(st.floats(min_value=0, max_value=25, allow_nan=False), st.integers(0, 1)),
    max_size=40,
)


@settings(max_examples=40)
@given(STEPS)
def test_what_is_within_the_window_counts_and_nothing_older(
    steps: list[tuple[float, int]],
) -> None:
    window, now = Window(10.0), 1000.0
    seen: list[tuple[float, int]] = []
    for pause, failures in steps:
        now += pause
        window.add(now, failures)
        seen.append((now, failures))
        slot = int(now)  # a bucket is a second here
        alive = [failed for moment, failed in seen if int(moment) > slot - BUCKETS]
        assert (window.calls, window.failures) == (len(alive), sum(alive))
    window.roll(now + 10.0)
    assert (window.calls, window.failures) == (0, 0)


def test_a_look_forgets_only_what_is_too_old() -> None:
    window = Window(10.0)
    window.add(5.0, 1)
    window.roll(5.5)
    assert (window.calls, window.failures) == (1, 1)
    window.roll(14.9)
    assert (window.calls, window.failures) == (1, 1)
    window.roll(15.0)
    assert (window.calls, window.failures) == (0, 0)
