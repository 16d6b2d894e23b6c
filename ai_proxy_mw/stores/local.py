"""Counts of this process alone: `limits` in plain dictionaries."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from threading import Lock
from typing import Generic, Protocol, TypeVar

from limits.aio.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage

from ai_proxy_mw.stores._windows import SlidingCount

_SWEPT = 2
"""Expired keys that each new key removes: more than come, so that what has expired runs out."""


class _Entry(Protocol):
    due: float


E = TypeVar("E", bound=_Entry)


class _Counter:
    __slots__ = ("count", "due")

    def __init__(self) -> None:
        self.count = 0
        self.due = 0.0


class _Times:
    __slots__ = ("due", "times")

    def __init__(self) -> None:
        self.times: deque[float] = deque()
        self.due = 0.0

    def forget_before(self, moment: float) -> None:
        while self.times and self.times[0] < moment:
            self.times.popleft()


class _Sliding:
    __slots__ = ("due", "state")

    def __init__(self) -> None:
        self.state = SlidingCount(0, 0, 0)
        self.due = 0.0


class _Shelf(Generic[E]):
    """Entries by key, those that are due removed a few at a time.

    Each entry stands once in the heap, whatever happens to it: one that was given more time is put
    back when its turn comes, so nothing accumulates.
    """

    def __init__(self, make: Callable[[], E]) -> None:
        self._make = make
        self.entries: dict[str, E] = {}
        self._heap: list[tuple[float, str]] = []

    def add(self, key: str, now: float, due: float) -> E:
        self._sweep(now)
        entry = self.entries[key] = self._make()
        entry.due = due
        heappush(self._heap, (due, key))
        return entry

    def expire(self, key: str) -> None:
        """Only marked: its place in the heap is still to come."""
        entry = self.entries.get(key)
        if entry is not None:
            entry.due = 0.0

    def empty(self) -> int:
        count = len(self.entries)
        self.entries.clear()
        self._heap.clear()
        return count

    def _sweep(self, now: float) -> None:
        heap = self._heap
        for _ in range(_SWEPT):
            if not heap or heap[0][0] > now:
                return
            key = heappop(heap)[1]
            due = self.entries[key].due
            if due > now:
                heappush(heap, (due, key))
            else:
                del self.entries[key]


class LocalStorage(Storage, MovingWindowSupport, SlidingWindowCounterSupport):
    """Counts in this process: exact within it, lost with it. `async+local://` in `limits`.

    clock: seconds since the epoch.

    Nothing in it waits, so one event loop sees each operation as a whole. Event loops of several
    threads may share it: a plain lock (60 ns) guards each operation, since reading a count and
    writing it back is not one step to the interpreter.
    A key belongs to one window length; the moving window keeps one float for each entry admitted,
    at most as many as the limit.
    """

    STORAGE_SCHEME = ["async+local"]  # noqa: RUF012 - `limits` declares it so

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._clock = clock
        self._lock = Lock()
        self._counters = _Shelf(_Counter)
        self._moving = _Shelf(_Times)
        self._sliding = _Shelf(_Sliding)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """None: there is nothing outside that could fail."""
        return ()

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a counter; the first to do so decides when it expires.

        amount: negative to give back, also below 0.
        """
        return self.get_and_incr(None, key, expiry, amount)[1]

    def get_and_incr(
        self, before: str | None, key: str, expiry: int, amount: int
    ) -> tuple[int, int]:
        """What the counter of `before` has, and that of `key` after `incr`, without a coroutine."""
        now = self._clock()
        entries = self._counters.entries
        with self._lock:
            counter = entries.get(key)
            if counter is None:
                counter = self._counters.add(key, now, now + expiry)
            elif counter.due <= now:
                counter.count = 0
                counter.due = now + expiry
            counter.count += amount
            old = None if before is None else entries.get(before)
            previous = 0 if old is None or old.due <= now else max(0, old.count)
            return previous, counter.count

    async def decr(self, key: str, amount: int = 1) -> int:
        """Take from a counter, down to 0."""
        now = self._clock()
        with self._lock:
            counter = self._counters.entries.get(key)
            if counter is None or counter.due <= now:
                return 0
            counter.count = max(0, counter.count - amount)
            return counter.count

    async def get(self, key: str) -> int:
        """The count; 0 for a key that is not there."""
        counter = self._counters.entries.get(key)
        # Without the lock: a count is read in one step, and who expires it was not here yet.
        return 0 if counter is None or counter.due <= self._clock() else counter.count

    async def get_expiry(self, key: str) -> float:
        """When a counter expires; now for a key that is not there."""
        now = self._clock()
        counter = self._counters.entries.get(key)
        return now if counter is None else max(now, counter.due)

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Enter an amount into a moving window, if all of it fits."""
        now = self._clock()
        with self._lock:
            entry = self._moving.entries.get(key)
            if entry is None:
                if amount > limit:
                    return False
                entry = self._moving.add(key, now, now + expiry)
            else:
                self._refresh(entry, now, expiry)
            times = entry.times
            if len(times) + amount > limit:
                return False
            # In order, even where the clock was set back.
            stamp = max(now, times[-1]) if times else now
            times.extend([stamp] * amount)
            entry.due = stamp + expiry
            return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """The oldest time that counts, and how many do; now and 0 if none."""
        now = self._clock()
        with self._lock:
            entry = self._moving.entries.get(key)
            if entry is None:
                return now, 0
            self._refresh(entry, now, expiry)
            count = min(len(entry.times), limit)
            return (entry.times[-count], count) if count else (now, 0)

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count an amount if it fits beside the weighted count of both windows."""
        now = self._clock()
        with self._lock:
            state = self._state(key, now, expiry)
            if not state.has_room(now, expiry, limit, amount):
                return False
            state = state.plus(amount)
            due = state.due(expiry)
            name = _name(key, expiry)
            entry = self._sliding.entries.get(name) or self._sliding.add(name, now, due)
            entry.state, entry.due = state, due
            return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Count of the previous window and its seconds left, then of the current."""
        now = self._clock()
        with self._lock:
            return self._state(key, now, expiry).view(now, expiry)

    async def clear(self, key: str) -> None:
        """Forget a counter and a moving window."""
        with self._lock:
            self._counters.expire(key)
            self._moving.expire(key)

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget a sliding window."""
        with self._lock:
            self._sliding.expire(_name(key, expiry))

    async def check(self) -> bool:
        """Always well."""
        return True

    async def reset(self) -> int:
        """Forget everything; how many keys there were, expired ones among them."""
        with self._lock:
            return sum(shelf.empty() for shelf in (self._counters, self._moving, self._sliding))

    def _state(self, key: str, now: float, window: int) -> SlidingCount:
        entry = self._sliding.entries.get(_name(key, window))
        if entry is None or entry.due <= now:
            return SlidingCount(int(now // window), 0, 0)
        return entry.state.at(now, window)

    @staticmethod
    def _refresh(entry: _Times, now: float, expiry: int) -> None:
        if entry.due:
            entry.forget_before(now - expiry)
        else:  # was cleared
            entry.times.clear()


# `limits` wraps these to translate the client library's errors; here is none, and the wrapper
# costs as much as the count.
for _method in ("incr", "get"):
    setattr(LocalStorage, _method, getattr(LocalStorage, _method).__wrapped__)


def _name(key: str, window: int) -> str:
    return f"{window}:{key}"
