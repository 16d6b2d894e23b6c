"""Asks the store of statistics, which may be slow, broken or away."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from ai_proxy_mw.stores.guard import StoreDown, guards

if TYPE_CHECKING:
    from ai_proxy_mw.stores.base import CacheStore

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds for a list of keys: Redis walks over all that it holds, a million in about one second."""

REST = 20
"""How many times as long as it took a list counts as new, where it took long."""

LONG = 0.05
"""Seconds. A list that takes less is made each time."""


@runtime_checkable
class _HasRoom(Protocol):
    def beside(self, name: str) -> CacheStore: ...


class Shelf:
    """A store behind a guard for each event loop and each way.

    Where a store gives things that shall outlive a full cache a room of their own, that is used.
    clock: seconds that only go forward.
    """

    def __init__(self, store: CacheStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store.beside("stats") if isinstance(store, _HasRoom) else store
        self._is_ours = self._store is not store
        self._clock = clock
        self._guards = guards("stats")
        self._listed: dict[str, tuple[float, list[str]]] = {}
        self.failures = 0
        """How many questions were not answered."""

    async def put(self, key: str, value: bytes, *, ttl: float) -> bool:
        """Store it; whether that is sure."""
        try:
            await self._ask(1, partial(self._store.set, key, value, ttl=ttl))
        except StoreDown:
            return False
        return True

    async def get(self, key: str) -> bytes | None:
        """Raises StoreDown."""
        data = await self._ask(0, partial(self._store.get, key))
        return data if type(data) is bytes else None

    async def is_first(self, name: str, *, lease: float) -> bool:
        """Whether nobody has been it for `lease` seconds. Raises StoreDown."""
        owner = secrets.token_hex(8)
        # Never let go of: it is to be done once in a while, and by one.
        return await self._ask(1, partial(self._store.lock, name, owner, lease=lease)) == owner

    async def forget(self, key: str) -> None:
        """Raises StoreDown."""
        await self._ask(1, partial(self._store.purge, key=key))

    async def keys(self, prefix: str, *, anew: bool = False) -> list[str]:
        """The keys that begin with `prefix`, each once. Raises StoreDown."""
        until, found = self._listed.get(prefix, (0.0, []))
        if anew or self._clock() >= until:
            self._listed.pop(prefix, None)
            found = await self._list(prefix)
        return found

    def forked(self) -> None:
        """Forget the parent's loops."""
        self._guards.clear()
        self._listed = {}

    async def aclose(self) -> None:
        """Close what is open in the running loop, but not a store that was handed in."""
        self._guards.pop()
        if self._is_ours:
            await self._store.aclose()

    async def _list(self, prefix: str) -> list[str]:
        if self._guards.here()[0].is_open:
            await self.get(prefix)  # a short question tells whether a long one has any hope
        begun = self._clock()
        try:
            async with asyncio.timeout(PATIENCE):
                keys = {key async for key in self._store.keys(prefix)}
        except Exception as error:
            self.failures += 1
            raise StoreDown from error
        took = self._clock() - begun
        found = list(keys)
        if took > LONG:
            self._listed[prefix] = (begun + took + REST * took, found)
        return found

    async def _ask(self, way: int, question: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._guards.here()[way].ask(question)
        except StoreDown:
            self.failures += 1
            raise
