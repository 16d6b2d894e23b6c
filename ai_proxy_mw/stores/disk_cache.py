"""Answers in a directory that all processes of a machine share: the cache on `diskcache`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.stores import _disk_locks, _disk_rows
from ai_proxy_mw.stores._disk_sweep import Sweep
from ai_proxy_mw.stores.base import StoreStats

if TYPE_CHECKING:
    from ai_proxy_mw.stores._disk_worker import DiskWorker

T = TypeVar("T")

SMALLEST = 2**20
"""Bytes; an empty database takes a twentieth of it."""

BESIDE = 256 * 2**20
"""Bytes of what is kept beside the answers."""

_ROUNDS = 20
_FILE = 2**15


class DiskCache:
    """Keeps answers in a directory: `cache=DiskCache("var/ai-cache")`.

    directory: its own, not shared with the counts of limits. One in the current directory is
        meant as that is now. It is made with mode 0700 where it does not exist, its files are
        their owner's alone; it must not be on a network's file system.
    max_bytes: of the database and the files of large values together (not of SQLite's log, which
        takes a few MB more). What was stored first goes first. A value of more than an eighth of
        it is not stored, nor one that would take the place of some thousands of small ones.
    ttl: seconds that an answer is good for where nothing else is said.
    timeout: seconds to wait for the other processes; diskcache.Timeout is raised after them.
    clock: seconds since the epoch.

    Each operation is one transaction, so a process that is killed leaves it done or not begun.
    The file that it may leave behind is removed an hour later.
    A value that is broken (no bytes, a file that is missing, cut or a link) is not there, and its
    row is removed. A database that is broken as a whole raises sqlite3.DatabaseError until
    somebody removes it (`cache.db` and what begins so): to put it aside here is not safe, since
    another process that has it open could remove the log of the new one by its name.

    Raises ConfigurationError.
    """

    shared = True

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_bytes: int = 2**30,
        ttl: float = 3600.0,
        timeout: float = 0.5,
        clock: Callable[[], float] = time.time,
    ) -> None:
        from ai_proxy_mw.stores._disk_worker import (  # noqa: PLC0415 - of diskcache: 20 ms
            DiskWorker,
        )

        self.directory = _directory(directory)
        self.ttl = _seconds("ttl", ttl)
        self._max_bytes = _size(max_bytes)
        self._timeout = timeout
        self._clock = clock
        self._sweep = Sweep()
        self._prepared: object = None
        self._worker: DiskWorker = DiskWorker(
            self.directory,
            timeout=_seconds("timeout", timeout),
            eviction_policy="least-recently-stored",
            disk_min_file_size=_FILE,
        )

    def beside(self, name: str) -> DiskCache:
        """One of its own, in a folder of this one's: what is stored here does not push it out."""
        place = self.directory / name
        return DiskCache(place, max_bytes=BESIDE, timeout=self._timeout, clock=self._clock)

    async def get(self, key: str) -> bytes | None:
        """What is stored under a key."""
        return await self._run(partial(_disk_rows.get, key=key, now=self._clock()))

    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        """Store a value for `ttl` seconds."""
        if len(value) <= self._max_bytes // 8:
            now = self._clock()
            item = _disk_rows.Item(key, value, now + ttl, _disk_rows.joined(tags))
            for _ in range(_ROUNDS):
                if await self._run(partial(self._put, item=item, now=now)):
                    return
        await self.purge(key=key)

    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        """Forget one key, or all that begin with `prefix` and have `tag`; how many they were."""
        now = self._clock()
        if key is not None:
            return await self._run(partial(_disk_rows.remove, key=key, now=now))
        sought = _disk_rows.sought(tag)
        ask = partial(_disk_rows.purge, prefix=prefix, tag=sought, now=now)
        return sum([page.removed async for page in self._pages(ask, prefix)])

    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        """Hold a lock for `lease` seconds, unless somebody else holds it; who holds it now."""
        now = self._clock()
        job = partial(_disk_locks.lock, name=name, owner=owner, now=now, due=now + lease)
        return await self._run(job)

    async def unlock(self, name: str, owner: str) -> None:
        """Let go of a lock, if it is this owner's."""
        await self._run(partial(_disk_locks.unlock, name=name, owner=owner))

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """The keys that begin with `prefix`; a few hundred are in memory at a time."""
        ask = partial(_disk_rows.page, prefix=prefix, now=self._clock())
        async for page in self._pages(ask, prefix):
            for key in page.keys:
                yield key

    async def stats(self) -> StoreStats:
        """How much it holds, the room between the rows of the database included."""
        return await self._run(_stats)

    async def aclose(self) -> None:
        """Close the database and end the thread."""
        await self._worker.aclose()

    async def _pages(
        self, ask: Callable[..., _disk_rows.Page], prefix: str
    ) -> AsyncIterator[_disk_rows.Page]:
        """Each is a job of its own, so that others come in between."""
        cursor: bytes | None = prefix.encode()
        while cursor is not None:
            page = await self._run(partial(ask, cursor=cursor))
            yield page
            cursor = page.cursor

    async def _run(self, job: Callable[[Any], T]) -> T:
        return await self._worker.run(partial(self._do, job))

    def _do(self, job: Callable[[Any], T], cache: Any) -> T:
        if cache is not self._prepared:
            _disk_rows.prepare(cache)
            _disk_locks.prepare(cache)
            self._prepared = cache
        return job(cache)

    def _put(self, cache: Any, item: _disk_rows.Item, now: float) -> bool:
        stored = _disk_rows.put(cache, item, now, self._max_bytes)
        self._sweep.step(cache, now)
        return stored


def _stats(cache: Any) -> StoreStats:
    entries = len(cache)
    return StoreStats(entries, int(cache.volume()) if entries else 0)


def _directory(given: str | os.PathLike[str]) -> Path:
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else ""
    # diskcache would expand a `$NAME`.
    if not isinstance(path, str) or not path.strip("/") or not path.isprintable() or "$" in path:
        raise ConfigurationError(
            'a cache on disk: write DiskCache("/var/lib/app/ai-cache") for a directory from the '
            'root, or DiskCache("var/ai-cache") for one in the current directory; no `$`'
        )
    return Path(path).absolute()


def _size(given: int) -> int:
    if type(given) is not int or given < SMALLEST:
        raise ConfigurationError(
            f"max_bytes of a cache on disk: write a whole number of bytes, {SMALLEST} or more"
        )
    return given


def _seconds(name: str, given: float) -> float:
    if type(given) not in (int, float) or not 0 < given < math.inf:
        raise ConfigurationError(
            f"{name} of a cache on disk: write a number of seconds above 0, such as 60"
        )
    return float(given)
