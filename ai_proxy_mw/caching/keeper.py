"""Asks the store, which may be slow, broken or away: that is a miss and never an error."""

from __future__ import annotations

from asyncio import CancelledError, current_task
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ai_proxy_mw.caching.entry import Entry, decode, encode
from ai_proxy_mw.schema.remembered import remembered
from ai_proxy_mw.stores.guard import Guard, StoreDown, guards

if TYPE_CHECKING:
    from ai_proxy_mw.stores.base import CacheStore

T = TypeVar("T")


class Keeper:
    """A store behind a guard for each event loop. Memory needs none, and its hits do not pay it."""

    def __init__(self, store: CacheStore) -> None:
        self.store = store
        self.shared = store.shared
        # Of its own class: what is derived from one that is sure need not be.
        self._guarded = store.shared or not vars(type(store)).get("is_sure", False)
        # The entries that are asked for again and again are the same bytes.
        self._decoded = remembered(decode)
        self.failures = 0
        """How many questions were not answered."""
        self._guards = guards("cache")

    @property
    def is_readable(self) -> bool:
        """Whether the store has answered when it was last asked for something."""
        return not self._guarded or not self._reading().is_open

    async def find(self, key: str) -> Entry | None:
        """What is kept under a key, if it is whole and can be had."""
        # Not `load` where nothing can fail: that would be one more frame for every hit.
        data = await (self.load(key) if self._guarded else self.store.get(key))
        return None if data is None else self._decoded(key, data)

    async def keep(self, entry: Entry, tags: Sequence[str]) -> bool:
        """Keep an entry for as long as it may be of use; whether the store has taken it."""
        data, ttl = encode(entry), entry.ttl + entry.keep
        if self._guarded:
            return await self.save(entry.key, data, ttl=ttl, tags=tags)
        await self.store.set(entry.key, data, ttl=ttl, tags=tags)
        return True

    async def load(self, key: str) -> bytes | None:
        """What a store that may fail has under a key."""
        try:
            data = await _ask(self._reading(), partial(self.store.get, key))
        except StoreDown:
            self.failures += 1
            return None
        return data if type(data) is bytes else None

    async def save(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> bool:
        question = partial(self.store.set, key, value, ttl=ttl, tags=tags)
        try:
            # Apart from reading: a disk that is full can still be read.
            await self._write(question)
        except StoreDown:
            self.failures += 1
            return False
        return True

    async def forget(self, key: str) -> None:
        try:
            await self._write(partial(self.store.purge, key=key))
        except StoreDown:
            self.failures += 1

    async def lock(self, name: str, owner: str, *, lease: float) -> str | None:
        """Who holds a lock now; None if nobody can tell."""
        try:
            holder = await _ask(self._writing(), partial(self.store.lock, name, owner, lease=lease))
        except StoreDown:
            self.failures += 1
            return None
        return holder if isinstance(holder, str) else None

    async def unlock(self, name: str, owner: str) -> None:
        try:
            await _ask(self._writing(), partial(self.store.unlock, name, owner))
        except StoreDown:
            self.failures += 1  # the lease will run out

    async def _write(self, question: Callable[[], Awaitable[T]]) -> T:
        return await (_ask(self._writing(), question) if self._guarded else question())

    def _reading(self) -> Guard:
        return self._guards.here()[0]

    def _writing(self) -> Guard:
        return self._guards.here()[1]


async def _ask(guard: Guard, question: Callable[[], Awaitable[T]]) -> T:
    """The store's answer; whoever is cancelled while he waits for it is cancelled.

    `asyncio.wait_for` of Python 3.11, which redis-py uses, forgets that where the answer comes in
    the same moment: then a lease would be kept, or somebody followed, for ever.
    """
    task = current_task()
    assert task is not None
    before = task.cancelling()
    try:
        return await guard.ask(question)
    finally:
        if task.cancelling() > before:
            raise CancelledError
