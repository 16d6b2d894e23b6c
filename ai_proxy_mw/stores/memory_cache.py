"""Answers in this process's memory."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from threading import Lock
from typing import NamedTuple

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.stores.base import StoreStats

ENTRY = 576
"""Bytes that an entry takes beside its key, value and tags.

Measured by the size of the process: 400 of objects and their share of the table, the rest is what
the allocator loses between values of all sizes that come and go.
"""

_LEAST = 65_536
_SWEPT = 4
"""Entries looked at by each set that needs room: what has run out leaves sooner than more comes."""

_SLICE = 250
"""Entries that are looked at in one go, in less than half a millisecond."""

_LOCKS = 1024


class _Entry(NamedTuple):
    value: bytes
    due: float
    tags: str
    """Between spaces, which no tag has: one text takes a third of what a tuple of them would."""


class MemoryCache:
    """Answers of this process: quick, and gone when it ends. Each worker has its own.

    max_bytes: of all entries with what they cost beside their values. What was used longest ago
        makes room. An entry that needs more than an eighth of it is not stored.
    ttl: seconds that an answer is good for where the cache does not say.
    clock: seconds, from any start.

    Event loops of several threads may share it (an app's own and that of the WSGI door): a plain
    lock guards each operation, since the count of bytes, the table and its order change together.
    Nobody waits for anything while holding it.

    Raises ConfigurationError.
    """

    is_sure = True
    """It neither fails nor waits, so that nobody need watch over it."""

    def __init__(
        self,
        *,
        max_bytes: int = 64 * 2**20,
        ttl: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if type(max_bytes) is not int or max_bytes < _LEAST:
            raise ConfigurationError(
                f"MemoryCache(max_bytes={max_bytes!r}): write a whole number of bytes from {_LEAST}"
            )
        if type(ttl) not in (int, float) or not 0 < ttl < math.inf:
            raise ConfigurationError(f"MemoryCache(ttl={ttl!r}): write a number of seconds above 0")
        self._max_bytes = max_bytes
        self._largest = max_bytes // 8
        self._ttl = float(ttl)
        self._clock = clock
        self._guard = Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._size = 0
        self._unswept: list[str] = []
        self._locks: dict[str, tuple[str, float]] = {}
        self._locks_room = _LOCKS

    @property
    def ttl(self) -> float:
        """Seconds that an answer is good for where the cache does not say."""
        return self._ttl

    @property
    def shared(self) -> bool:
        """No: other processes see nothing of it."""
        return False

    async def get(self, key: str) -> bytes | None:
        """What is stored under a key, unless it has run out."""
        now = self._clock()
        with self._guard:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry.due <= now:
                self._drop(key)
                return None
            self._entries.move_to_end(key)
            return entry.value

    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        """Store a value for `ttl` seconds, at the cost of what was used longest ago."""
        now = self._clock()
        entry = _Entry(value, now + ttl, f" {' '.join(tags)} " if tags else "")
        size = _size(key, entry)
        with self._guard:
            if key in self._entries:
                self._drop(key)
            if size > self._largest or not ttl > 0:
                return
            if self._size + size > self._max_bytes:
                self._make_room(size, now)
            self._entries[key] = entry
            self._size += size

    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        """Forget one key, or all that begin with `prefix` and have `tag`; how many they were.

        What is stored while it runs may stay or go. What had run out does not count.
        """
        if key is not None:
            return self._forget([key], "", "")
        count = 0
        for keys in self._slices():
            count += self._forget(keys, prefix, tag)
            await asyncio.sleep(0)
        return count

    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        """Hold a lock for `lease` seconds, unless somebody else holds it; who holds it now."""
        now = self._clock()
        with self._guard:
            held = self._locks.get(name)
            if held is None:
                self._forget_old_locks(now)
            elif held[0] != owner and held[1] > now:
                return held[0]
            self._locks[name] = (owner, now + lease)
            return owner

    async def unlock(self, name: str, owner: str) -> None:
        """Let go of a lock, if it is this owner's."""
        with self._guard:
            held = self._locks.get(name)
            if held is not None and held[0] == owner:
                del self._locks[name]

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """The keys that begin with `prefix`, in no order."""
        for keys in self._slices():
            now = self._clock()
            for key in keys:
                entry = self._entries.get(key) if key.startswith(prefix) else None
                if entry is not None and entry.due > now:
                    yield key
            await asyncio.sleep(0)

    async def stats(self) -> StoreStats:
        """How much it holds."""
        with self._guard:
            return StoreStats(len(self._entries), self._size)

    async def aclose(self) -> None:
        """Nothing is open; it keeps what it holds."""

    def _drop(self, key: str) -> None:
        self._size -= _size(key, self._entries.pop(key))

    def _make_room(self, size: int, now: float) -> None:
        self._sweep(now)
        while self._size + size > self._max_bytes:
            self._size -= _size(*self._entries.popitem(last=False))

    def _sweep(self, now: float) -> None:
        """Let go of what has run out; a few are looked at each time, so that no call waits long."""
        if not self._unswept:
            self._unswept = self._snapshot()
        for key in self._unswept[-_SWEPT:]:
            entry = self._entries.get(key)
            if entry is not None and entry.due <= now:
                self._drop(key)
        del self._unswept[-_SWEPT:]

    def _forget(self, keys: Iterable[str], prefix: str, tag: str) -> int:
        now = self._clock()
        tagged = f" {tag} " if tag else ""
        count = 0
        with self._guard:
            for key in keys:
                entry = self._entries.get(key) if key.startswith(prefix) else None
                if entry is not None and tagged in entry.tags:
                    self._drop(key)
                    count += entry.due > now
        return count

    def _slices(self) -> Iterator[list[str]]:
        with self._guard:
            keys = self._snapshot()
        for start in range(0, len(keys), _SLICE):
            yield keys[start : start + _SLICE]

    def _snapshot(self) -> list[str]:
        # As a plain dictionary: an OrderedDict looks each key up to go on to the next, which takes
        # 15 times as long.
        return list(dict.__iter__(self._entries))

    def _forget_old_locks(self, now: float) -> None:
        """Those that nobody let go of; seldom, so that each lock pays for few."""
        if len(self._locks) < self._locks_room:
            return
        self._locks = {name: held for name, held in self._locks.items() if held[1] > now}
        self._locks_room = max(_LOCKS, 2 * len(self._locks))


def _size(key: str, entry: _Entry) -> int:
    return ENTRY + len(key) + len(entry.value) + len(entry.tags)
