"""Counts that all processes of a machine share: `limits` on a directory of `diskcache`."""

from __future__ import annotations

import re
import sqlite3
import struct
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from diskcache import Timeout  # type: ignore[import-untyped]
from limits.aio.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.stores._disk_worker import DiskWorker
from ai_proxy_mw.stores._windows import SlidingCount

_URI = re.compile(r"(?:async\+)?disk://([^?#]+)")
_SLIDING = struct.Struct("=qqq")


class DiskStorage(Storage, MovingWindowSupport, SlidingWindowCounterSupport):
    """Counts in a directory: exact across the processes of a machine, kept when they end.

    uri: `disk:///var/lib/app/limits` for a directory from the root, `disk://var/limits` for one in
        the current directory, as it is now. What a URI cannot hold is written `%20`.
    timeout: seconds to wait for the other processes; diskcache.Timeout is raised after them.
    size_limit: bytes. Each write removes a few keys that have expired; beyond the limit the keys
        that were counted least recently go too, expired or not (a short key takes 200 bytes, the
        moving window 8 more for each entry admitted, and it writes them all for each hit).
    clock: seconds since the epoch. What expires by it is removed from the file by the machine's.

    Each operation is one transaction, so a process that is killed leaves it done or not begun.
    The directory is made with mode 0700, and the files in it are their owner's alone; it must not
    be on a network's file system. Close it with `aclose`; it opens again when it is used again.

    Raises ConfigurationError for a URI of another form.
    """

    STORAGE_SCHEME = ["async+disk"]  # noqa: RUF012 - `limits` declares it so

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,
        *,
        timeout: float = 2.0,
        size_limit: int = 2**28,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self.directory = _directory(uri)
        self._clock = clock
        self._worker = DiskWorker(
            self.directory,
            timeout=timeout,
            size_limit=size_limit,
            disk_min_file_size=2**30,  # all in the database: what a file holds is not transacted
        )

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """The file is locked, full, broken or out of reach."""
        return (sqlite3.Error, Timeout, OSError)

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a counter; the first to do so decides when it expires.

        amount: negative to give back, also below 0.
        """

        def job(cache: Any) -> int:
            with cache.transact():
                now = self._clock()
                if _counter(cache, key, now) is not None:
                    return int(cache.incr(_counter_key(key), amount))
                _put(cache, _counter_key(key), amount, now + expiry)
                return amount

        return await self._worker.run(job)

    async def decr(self, key: str, amount: int = 1) -> int:
        """Take from a counter, down to 0."""

        def job(cache: Any) -> int:
            with cache.transact():
                found = _counter(cache, key, self._clock())
                if found is None:
                    return 0
                # By the difference, and not by the result, which would need its expiry again.
                return int(cache.incr(_counter_key(key), max(0, found[0] - amount) - found[0]))

        return await self._worker.run(job)

    async def get(self, key: str) -> int:
        """The count; 0 for a key that is not there."""

        def job(cache: Any) -> int:
            found = _counter(cache, key, self._clock())
            return 0 if found is None else found[0]

        return await self._worker.run(job)

    async def get_expiry(self, key: str) -> float:
        """When a counter expires; now for a key that is not there."""

        def job(cache: Any) -> float:
            now = self._clock()
            found = _counter(cache, key, now)
            return now if found is None else found[1]

        return await self._worker.run(job)

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Enter an amount into a moving window, if all of it fits."""
        if amount > limit:
            return False

        def job(cache: Any) -> bool:
            with cache.transact():
                now = self._clock()
                times = _times(cache, key, now - expiry)
                if len(times) + amount > limit:
                    return False
                # In order, even where the clock was set back.
                stamp = max(now, times[-1]) if times else now
                times.extend([stamp] * amount)
                _put(cache, _moving_key(key), times.tobytes(), stamp + expiry)
                return True

        return await self._worker.run(job)

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """The oldest time that counts, and how many do; now and 0 if none."""

        def job(cache: Any) -> tuple[float, int]:
            now = self._clock()
            times = _times(cache, key, now - expiry)
            count = min(len(times), limit)
            return (times[-count], count) if count else (now, 0)

        return await self._worker.run(job)

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count an amount if it fits beside the weighted count of both windows."""
        if amount > limit:
            return False

        def job(cache: Any) -> bool:
            with cache.transact():
                now = self._clock()
                state = _sliding(cache, key, now, expiry)
                if not state.has_room(now, expiry, limit, amount):
                    return False
                state = state.plus(amount)
                packed = _SLIDING.pack(*state)
                _put(cache, _sliding_key(key, expiry), packed, state.due(expiry))
                return True

        return await self._worker.run(job)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Count of the previous window and its seconds left, then of the current."""

        def job(cache: Any) -> tuple[int, float, int, float]:
            now = self._clock()
            return _sliding(cache, key, now, expiry).view(now, expiry)

        return await self._worker.run(job)

    async def clear(self, key: str) -> None:
        """Forget a counter and a moving window."""

        def job(cache: Any) -> None:
            with cache.transact():
                cache.delete(_counter_key(key))
                cache.delete(_moving_key(key))

        await self._worker.run(job)

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget a sliding window."""
        await self._worker.run(lambda cache: cache.delete(_sliding_key(key, expiry)))

    async def check(self) -> bool:
        """Whether the directory can be written."""

        def job(cache: Any) -> bool:
            with cache.transact():
                return True

        try:
            return await self._worker.run(job)
        except self.base_exceptions:
            return False

    async def reset(self) -> int:
        """Forget everything; how many keys there were, expired ones among them."""
        return await self._worker.run(lambda cache: int(cache.clear()))

    async def aclose(self) -> None:
        """Close the database and end the thread."""
        await self._worker.aclose()


def _directory(uri: str) -> Path:
    match = _URI.fullmatch(uri)
    path = unquote(match[1]) if match else ""
    # diskcache would expand a `$NAME`.
    if not path.strip("/") or not path.isprintable() or "$" in path:
        raise ConfigurationError(
            "a storage on disk: write disk:///var/lib/app/limits for a directory from the root, "
            "or disk://var/limits for one in the current directory; no `?`, `#` or `$`"
        )
    return Path(path).absolute()


# Kinds have prefixes of their own, so that no key of one is ever one of another.
def _counter_key(key: str) -> str:
    return f"c:{key}"


def _moving_key(key: str) -> str:
    return f"m:{key}"


def _sliding_key(key: str, window: int) -> str:
    return f"s:{window}:{key}"


def _put(cache: Any, key: str, value: int | bytes, due: float) -> None:
    cache.set(key, value, expire=due - time.time())


def _counter(cache: Any, key: str, now: float) -> tuple[int, float] | None:
    """The count and when it expires, if it has not."""
    count, due = cache.get(_counter_key(key), expire_time=True)
    if due is None or due <= now:
        return None
    if type(count) is not int:
        raise _broken()
    return count, due


def _times(cache: Any, key: str, since: float) -> array[float]:
    times = array("d")
    try:
        times.frombytes(cache.get(_moving_key(key), b""))
    except (TypeError, ValueError):
        raise _broken() from None
    return times[bisect_left(times, since) :]


def _sliding(cache: Any, key: str, now: float, window: int) -> SlidingCount:
    packed = cache.get(_sliding_key(key, window))
    if packed is None:
        return SlidingCount(int(now // window), 0, 0)
    try:
        return SlidingCount(*_SLIDING.unpack(packed)).at(now, window)
    except (TypeError, struct.error):
        raise _broken() from None


def _broken() -> sqlite3.DatabaseError:
    return sqlite3.DatabaseError("a count in the store is malformed")
