"""What only the counts of a process promise: nothing waits, nothing piles up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from limits.storage import storage_from_string

from ai_proxy_mw.stores.local import LocalStorage
from tests.stores.storages import Clock


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The answer of a coroutine that must not wait for anything."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def _sizes(storage: LocalStorage) -> list[int]:
    shelves = (storage._counters, storage._moving, storage._sliding)
    return [size for shelf in shelves for size in (len(shelf.entries), len(shelf._heap))]


def test_it_is_on_the_list_of_limits() -> None:
    storage = storage_from_string("async+local://")
    assert isinstance(storage, LocalStorage)
    assert storage.base_exceptions == ()


def test_nothing_waits() -> None:
    storage = LocalStorage()
    assert _at_once(storage.incr("a", 60)) == 1
    assert _at_once(storage.decr("a")) == 0
    assert _at_once(storage.get("a")) == 0
    assert _at_once(storage.acquire_entry("a", 1, 60))
    assert _at_once(storage.get_moving_window("a", 1, 60))[1] == 1
    assert _at_once(storage.acquire_sliding_window_entry("a", 1, 60))
    assert _at_once(storage.get_sliding_window("a", 60))
    assert _at_once(storage.check())
    _at_once(storage.clear("a"))
    _at_once(storage.clear_sliding_window("a", 60))
    assert _at_once(storage.reset()) == 3


@pytest.mark.slow
def test_keys_that_come_and_go_leave_nothing_behind() -> None:
    clock = Clock()
    storage = LocalStorage(clock=clock)
    for number in range(100_000):
        clock.move(0.1)
        _at_once(storage.incr(f"k{number}", 10))  # 100 live at a time
        if number % 10 == 0:
            _at_once(storage.acquire_entry(f"k{number}", 5, 10))
            _at_once(storage.acquire_sliding_window_entry(f"k{number}", 5, 10))
    assert max(_sizes(storage)) <= 110


def test_a_crowd_that_has_gone_is_forgotten_by_the_next() -> None:
    clock = Clock()
    storage = LocalStorage(clock=clock)
    for number in range(1000):
        _at_once(storage.incr(f"crowd{number}", 10))
    clock.move(11)
    for number in range(600):
        _at_once(storage.incr(f"next{number}", 10))
    assert _sizes(storage)[:2] == [600, 600]


def test_one_key_again_and_again_piles_nothing_up() -> None:
    clock = Clock()
    storage = LocalStorage(clock=clock)
    for number in range(1000):
        _at_once(storage.incr("a", 10))
        _at_once(storage.acquire_entry("a", 5, 10))
        _at_once(storage.acquire_sliding_window_entry("a", 5, 10))
        if number % 2:
            _at_once(storage.clear("a"))
            _at_once(storage.clear_sliding_window("a", 10))
        else:
            clock.move(11)
    assert _sizes(storage) == [1, 1, 1, 1, 1, 1]


def test_who_is_still_there_is_not_swept_away() -> None:
    clock = Clock()
    storage = LocalStorage(clock=clock)
    _at_once(storage.incr("a", 10))
    clock.move(11)
    assert _at_once(storage.incr("a", 10)) == 1  # a new count, at the old place in the heap
    for number in range(10):
        _at_once(storage.incr(f"k{number}", 10))
    assert _at_once(storage.get("a")) == 1
    assert _sizes(storage)[:2] == [11, 11]
    clock.move(11)
    for number in range(10):
        _at_once(storage.incr(f"last{number}", 10))
    assert sorted(storage._counters.entries) == [f"last{number}" for number in range(10)]


def test_a_moving_window_keeps_no_more_than_the_limit() -> None:
    clock = Clock()
    storage = LocalStorage(clock=clock)
    for _ in range(1000):
        clock.move(1)
        _at_once(storage.acquire_entry("a", 5, 10))
    assert len(storage._moving.entries["a"].times) <= 5


class _Slow(str):
    """A key that stops who looks it up for the second time, until another was there too."""

    __slots__ = ("looks", "other_was_there", "reached")

    def __init__(self, text: str) -> None:
        self.looks = 0
        self.reached = Event()
        self.other_was_there = Event()

    def _look(self) -> None:
        self.looks += 1
        if self.looks == 2:
            self.reached.set()
            # The other must wait, so this waits in vain; without a guard it would not.
            self.other_was_there.wait(0.3)

    def __hash__(self) -> int:
        self._look()
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)

    def __format__(self, spec: str) -> str:
        self._look()
        return super().__format__(spec)


@pytest.mark.parametrize("kind", ["counter", "moving", "sliding"])
def test_threads_do_not_meet_within_an_operation(kind: str) -> None:
    storage = LocalStorage()

    def count(key: str) -> Any:
        if kind == "counter":
            return _at_once(storage.incr(key, 3600))
        if kind == "moving":
            return _at_once(storage.acquire_entry(key, 1, 3600))
        return _at_once(storage.acquire_sliding_window_entry(key, 1, 360 * 24 * 3600))

    slow = _Slow("a")
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(count, slow)
        assert slow.reached.wait(30)
        second = count("a")
        slow.other_was_there.set()
        answers = [first.result(), second]
    assert answers == ([1, 2] if kind == "counter" else [True, False])


def test_event_loops_of_several_threads_share_it() -> None:
    storage = LocalStorage()

    async def hammer() -> None:
        for _ in range(1000):
            await storage.incr("a", 3600)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(asyncio.run, hammer()) for _ in range(4)]:
            done.result()
    assert _at_once(storage.get("a")) == 4000
