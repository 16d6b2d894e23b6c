"""Counts all calls, together with the other processes that use the same store.

Each process counts in memory, and now and then writes down what it has counted so far in each
minute, hour and day, always whole and under names that nobody else uses. So a write may be lost,
repeated or done twice and nothing is counted twice; and who is killed takes with him what he has
counted since he wrote last. A reader adds up what all have written.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from asyncio import AbstractEventLoop, Task, TimerHandle, get_running_loop
from collections.abc import Callable, Coroutine
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import msgspec

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._loop import SETTLING
from ai_proxy_mw._numbers import is_number
from ai_proxy_mw.metrics.buckets import TIERS, Bucket, Sheet, Tail, Tier
from ai_proxy_mw.metrics.cells import DIMENSIONS, Cells
from ai_proxy_mw.metrics.documents import decode_records
from ai_proxy_mw.metrics.reading import Reading, for_each
from ai_proxy_mw.metrics.shelf import Shelf
from ai_proxy_mw.metrics.sums import Sums
from ai_proxy_mw.metrics.tidy import tidy
from ai_proxy_mw.stores.guard import StoreDown

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.record import Record
    from ai_proxy_mw.metrics.base import By, StatsReport, Window
    from ai_proxy_mw.stores.base import CacheStore

logger = logging.getLogger("ai_proxy_mw")

ALONE = 60.0
"""Seconds between two flushes where there is nobody to tell: what is over is packed away."""

MEMORY = 16 * 2**20
"""Bytes for what is packed away."""

Tasks = dict[AbstractEventLoop, Task[None]]
Work = Coroutine[Any, Any, None]

_MINUTES, _HOURS = TIERS["1h"], TIERS["24h"]


class Stats:
    """What the calls of an app were like, of all processes that share a store.

    name: of the app. store: where processes tell each other; a `MemoryCache` is none, since what
        it holds can be counted here as well. flush: seconds between two writes, while there are
        calls; an idle process writes nothing.
    clock: seconds since the epoch. Processes of one app should agree about them to a few seconds.

    lost: calls that could not be counted, which is a mistake of ours. failures: questions that the
    store did not answer; what could not be written is written later.

    Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        name: str,
        store: CacheStore | None = None,
        clock: Callable[[], float] = time.time,
        flush: float = 5.0,
    ) -> None:
        if not is_number(flush) or flush <= 0:
            raise ConfigurationError(f"Stats(flush={flush!r}): write a number of seconds above 0")
        digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        self._prefix = f"stats:{digest[:8]}:"
        self._clock = clock
        self._is_alone = store is None or is_memory(store)
        self._flush_after = ALONE if self._is_alone else float(flush)
        self._shelf = Shelf(_memory(clock) if store is None or self._is_alone else store)
        self.lost = 0
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        """With nothing counted and nothing under way."""
        self._lock = Lock()
        self._minute = 0
        self._pending: Cells | None = None
        self._tidied = 0
        self._tidying: Tasks = {}
        self._buckets: dict[tuple[Tier, int], Bucket] = {}
        self._tail = Tail(self._prefix)
        self._latest = self._tail.records
        self._wound: AbstractEventLoop | None = None
        self._timers: dict[AbstractEventLoop, TimerHandle] = {}
        self._tasks: Tasks = {}

    @property
    def failures(self) -> int:
        return self._shelf.failures

    def add(self, record: Record) -> None:
        """Count a call that is over now. Neither waits nor raises."""
        try:
            now = self._clock()
            with self._lock:  # event loops of several threads may share it
                pending = self._pending
                if pending is None or not self._minute <= now < self._minute + 60:
                    pending = self._turn(now)
                pending.add(record)
                self._latest.append(record if record.bodies is None else _without_bodies(record))
            wound = self._wound
            if wound is None or wound.is_closed():
                self._wind()
        except Exception:
            if not self.lost:
                logger.exception("stats: a call is not counted")
            self.lost += 1

    async def read(self, window: Window = "24h", by: By = "model") -> StatsReport:
        """What a window of time was like. Raises ConfigurationError."""
        _check(window, by)
        for anew in (False, True, True):
            sums = Sums(window, by, self._clock())
            reading = Reading(self._shelf, f"{self._prefix}{sums.tier.name}:", sums)
            await reading.begin(anew=anew)
            reading.own = self._add_own(sums, reading.parts)
            await reading.add_others()
            if not reading.is_torn:
                break
        return sums.report(whole=reading.is_whole)

    async def recent(self, most: int = 100) -> list[Record]:
        """The latest calls, the newest first. Each process tells of its last 50, for an hour."""
        with self._lock:
            key, found = self._tail.key, list(self._tail.records)

        async def add(key: str) -> None:
            found.extend(decode_records(await self._shelf.get(key) or b""))

        try:
            keys = await self._shelf.keys(f"{self._prefix}r:")
        except StoreDown:
            keys = []
        await for_each([each for each in keys if each != key], add)
        return sorted(found, key=lambda record: record.time, reverse=True)[:most]

    async def flush(self) -> None:
        """Write down what has changed. What the store does not take is tried again later."""
        with self._lock:
            sheets = self._due()
            for sheet in sheets:
                sheet.is_busy = True
        try:
            await for_each(sheets, self._write)
        finally:
            for sheet in sheets:
                sheet.is_busy = False
        with self._lock:
            self._clear()
            is_left = bool(self._due())
        if is_left and self._wound is None:
            self._wind()

    async def aclose(self) -> None:
        """Write down what is not, and end what runs in this event loop. It can be used again."""
        loop = get_running_loop()
        tidying = self._tidying.pop(loop, None)
        if tidying is not None:
            tidying.cancel()
            await asyncio.wait([tidying])
        task = self._tasks.pop(loop, None)
        if task is not None:
            await asyncio.wait([task])
        await self.flush()
        timer = self._timers.pop(loop, None)
        if timer is not None:
            timer.cancel()
        if self._wound is loop:
            self._wound = None
        await self._shelf.aclose()

    def forked(self) -> None:
        """Begin anew, in a child: what its parent has counted is the parent's to write down."""
        self._begin()
        self._shelf.forked()

    # Counting

    def _turn(self, now: float) -> Cells:
        """Begin to count what is pending, in a minute."""
        self._fold()
        self._minute = _MINUTES.start(now)
        self._pending = Cells()
        return self._pending

    def _fold(self) -> None:
        """Count what is pending in its minute, its hour and its day."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self._tail.changed()
            for tier in TIERS.values():
                self._bucket(tier, tier.start(self._minute)).merge(pending)

    def _bucket(self, tier: Tier, start: int) -> Bucket:
        bucket = self._buckets.get((tier, start))
        if bucket is None:
            bucket = self._buckets[tier, start] = Bucket(self._prefix, tier, start)
        return bucket

    # Writing

    def _wind(self) -> None:
        try:
            loop = get_running_loop()
        except RuntimeError:
            return  # without one nothing can be written; the next call may have one
        self._wound = loop
        self._timers[loop] = loop.call_later(self._flush_after, self._start, loop)

    def _start(self, loop: AbstractEventLoop) -> None:
        self._timers.pop(loop, None)
        if self._wound is loop:
            self._wound = None
        self._begin_in(loop, self._tasks, self.flush, SETTLING)
        # Not among what closing waits for: it may stop anywhere.
        self._begin_in(loop, self._tidying, self._tidy, "ai_proxy_mw-tidying")

    @staticmethod
    def _begin_in(
        loop: AbstractEventLoop, tasks: Tasks, work: Callable[[], Work], name: str
    ) -> None:
        """Unless it is being done there."""
        for known in [each for each, task in list(tasks.items()) if task.done()]:
            tasks.pop(known, None)
        if loop not in tasks:
            tasks[loop] = loop.create_task(work(), name=name)

    def _due(self) -> list[Sheet]:
        """What is to be written now. Of what has been counted alone, that which is over."""
        self._fold()
        now = self._clock()
        buckets = self._buckets.values()
        due: list[Sheet] = [
            each
            for each in buckets
            if each.is_dirty and not each.is_busy and (not self._is_alone or each.is_over(now))
        ]
        if self._tail.is_dirty and not self._tail.is_busy and not self._is_alone:
            due.append(self._tail)
        return due

    async def _write(self, sheet: Sheet) -> None:
        now = self._clock()
        with self._lock:
            data, version = sheet.take()
        is_sure = False
        try:
            is_sure = await self._shelf.put(sheet.key, data, ttl=sheet.keep(now))
        finally:  # also for who is cancelled: it may be there or not
            if is_sure:
                sheet.stored(version)
            else:
                sheet.not_stored()

    async def _tidy(self) -> None:
        """At first and in each new hour, see whether others have left much behind."""
        now = self._clock()
        hour = _HOURS.start(now)
        if self._is_alone or hour == self._tidied:
            return
        self._tidied = hour
        try:
            await tidy(self._shelf, self._prefix, now)
        except StoreDown:
            return  # somebody will, in an hour

    def _clear(self) -> None:
        """Let go of what the store has, and of what is too old to be of use."""
        now = self._clock()
        self._buckets = {
            which: each
            for which, each in self._buckets.items()
            if each.keep(now) > 0 and (each.is_dirty or not each.is_over(now))
        }

    # Reading

    def _add_own(self, sums: Sums, parts: set[str]) -> set[str]:
        """Add what is in memory but for `parts`; the keys under which others see it."""
        with self._lock:
            self._fold()
            own = [each for each in self._buckets.values() if each.tier is sums.tier]
            for bucket in own:
                if bucket.start in sums and bucket.key not in parts:
                    sums.add(bucket.start, bucket.counted(sums.by))
        return {bucket.key for bucket in own}


def _without_bodies(record: Record) -> Record:
    return msgspec.structs.replace(record, bodies=None)


def is_memory(store: CacheStore) -> bool:
    """Whether no other process can see what is in it."""
    # Of its own class: what is derived from it may do more.
    return bool(vars(type(store)).get("is_sure", False))


def _memory(clock: Callable[[], float]) -> CacheStore:
    from ai_proxy_mw.stores.memory_cache import (  # noqa: PLC0415 - where nothing is shared
        MemoryCache,
    )

    return MemoryCache(max_bytes=MEMORY, clock=clock)


def _check(window: Window, by: By) -> None:
    if window not in TIERS:
        raise ConfigurationError(f"stats(window={window!r}): write one of {sorted(TIERS)}")
    if by not in DIMENSIONS:
        raise ConfigurationError(f"stats(by={by!r}): write one of {sorted(DIMENSIONS)}")


_all: WeakSet[Stats] = WeakSet()


def _forked() -> None:
    for stats in list(_all):
        stats.forked()


os.register_at_fork(after_in_child=_forked)
