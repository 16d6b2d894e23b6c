"""Whatever is asked in whatever order, a storage answers like a list of all that happened."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from math import floor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stores.storages import Clock, opened

WINDOWS = {"a": 5, "b": 60}  # seconds, for each key
Step = tuple[Any, ...]

amounts = st.integers(1, 4)
keys = st.sampled_from(sorted(WINDOWS))
steps = st.one_of(
    st.tuples(st.just("incr"), keys, st.integers(-4, 9)),
    st.tuples(st.just("decr"), keys, amounts),
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("get_expiry"), keys),
    st.tuples(st.just("acquire_entry"), keys, st.integers(1, 6), amounts),
    st.tuples(st.just("get_moving_window"), keys, st.integers(1, 6)),
    st.tuples(st.just("acquire_sliding_window_entry"), keys, st.integers(1, 6), amounts),
    st.tuples(st.just("get_sliding_window"), keys),
    st.tuples(st.just("clear"), keys),
    st.tuples(st.just("clear_sliding_window"), keys),
    st.tuples(st.just("reset")),
    # A few thousandths beside whole seconds, so that nothing falls on a boundary.
    st.tuples(st.just("move"), st.sampled_from([0.003, 1.001, 4.002, 30.001, 61.004])),
)


@dataclass
class Model:
    """Keeps all that happened and reckons anew each time."""

    clock: Clock
    counters: dict[str, tuple[int, float]] = field(default_factory=dict)
    moving: list[tuple[str, float]] = field(default_factory=list)
    sliding: list[tuple[str, float, int]] = field(default_factory=list)

    def incr(self, key: str, amount: int) -> int:
        count, due = self._counter(key) or (0, self.clock.now + WINDOWS[key])
        self.counters[key] = (count + amount, due)
        return count + amount

    def decr(self, key: str, amount: int) -> int:
        found = self._counter(key)
        return self.incr(key, max(0, found[0] - amount) - found[0]) if found else 0

    def get(self, key: str) -> int:
        found = self._counter(key)
        return found[0] if found else 0

    def get_expiry(self, key: str) -> float:
        found = self._counter(key)
        return found[1] if found else self.clock.now

    def acquire_entry(self, key: str, limit: int, amount: int) -> bool:
        fits = len(self._times(key)) + amount <= limit
        self.moving += [(key, self.clock.now)] * (amount if fits else 0)
        return fits

    def get_moving_window(self, key: str, limit: int) -> tuple[float, int]:
        times = self._times(key)[-limit:]
        return (times[0], len(times)) if times else (self.clock.now, 0)

    def acquire_sliding_window_entry(self, key: str, limit: int, amount: int) -> bool:
        previous, left, current, _ = self.get_sliding_window(key)
        fits = floor(previous * left / WINDOWS[key] + current) + amount <= limit
        if fits:
            self.sliding.append((key, self.clock.now, amount))
        return fits

    def get_sliding_window(self, key: str) -> tuple[int, float, int, float]:
        window = WINDOWS[key]
        left = window - self.clock.now % window
        previous, current = self._counted(key, -1), self._counted(key, 0)
        return previous, left if previous else 0.0, current, left + window

    def clear(self, key: str) -> None:
        self.counters.pop(key, None)
        self.moving = [entry for entry in self.moving if entry[0] != key]

    def clear_sliding_window(self, key: str) -> None:
        self.sliding = [entry for entry in self.sliding if entry[0] != key]

    def reset(self) -> None:
        self.counters, self.moving, self.sliding = {}, [], []

    def _counter(self, key: str) -> tuple[int, float] | None:
        found = self.counters.get(key)
        return found if found and found[1] > self.clock.now else None

    def _times(self, key: str) -> list[float]:
        since = self.clock.now - WINDOWS[key]
        return [when for name, when in self.moving if name == key and when >= since]

    def _counted(self, key: str, window: int) -> int:
        number = self.clock.now // WINDOWS[key] + window
        return sum(
            n for name, at, n in self.sliding if name == key and at // WINDOWS[key] == number
        )


def _ask(storage: Any, step: Step) -> Any:
    name, *rest = step
    ask = getattr(storage, name)
    if name == "incr":
        return ask(rest[0], WINDOWS[rest[0]], rest[1])
    if name in ("acquire_entry", "acquire_sliding_window_entry"):
        return ask(rest[0], rest[1], WINDOWS[rest[0]], rest[2])
    if name == "get_moving_window":
        return ask(*rest, WINDOWS[rest[0]])
    if name in ("get_sliding_window", "clear_sliding_window"):
        return ask(rest[0], WINDOWS[rest[0]])
    return ask(*rest)


async def _compare(kind: str, story: list[Step]) -> None:
    clock = Clock()
    model = Model(clock)
    with tempfile.TemporaryDirectory() as directory:
        async with opened(kind, clock, Path(directory)) as storage:
            for step in story:
                if step[0] == "move":
                    clock.move(step[1])
                    continue
                expected = getattr(model, step[0])(*step[1:])
                answer = await _ask(storage, step)
                if step[0] == "get_expiry":
                    assert abs(answer - expected) < 0.5
                elif step[0] != "reset":
                    assert answer == expected, step


stories = st.lists(steps, max_size=40)
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.slow
@settings(unhurried, max_examples=300)
@given(stories)
def test_in_the_process(story: list[Step]) -> None:
    asyncio.run(_compare("local", story))


@pytest.mark.slow
@settings(unhurried, max_examples=40)
@given(stories)
def test_on_disk(story: list[Step]) -> None:
    asyncio.run(_compare("disk", story))
