"""Reads what other processes have written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ai_proxy_mw._loop import SETTLING
from ai_proxy_mw.metrics.buckets import ALL, Place, place_of
from ai_proxy_mw.metrics.documents import decode
from ai_proxy_mw.stores.guard import StoreDown

if TYPE_CHECKING:
    from ai_proxy_mw.metrics.shelf import Shelf
    from ai_proxy_mw.metrics.sums import Sums

T = TypeVar("T")

AT_ONCE = 4
"""Questions that the store is asked at the same time."""


class Reading:
    """One look into the store: first at sums of documents, then at documents that are in none.

    prefix: of the keys. parts: the keys of documents that are in a sum. own: those that were not
    read, since this process has them. is_whole: whether the store has answered all. is_torn:
    whether a document was gone when it was asked for: it may be in a sum that is newer.
    """

    def __init__(self, shelf: Shelf, prefix: str, sums: Sums) -> None:
        self._shelf = shelf
        self._prefix = prefix
        self._sums = sums
        self._places: list[Place] = []
        self.parts: set[str] = set()
        self.own: set[str] = set()
        self.is_whole = True
        self.is_torn = False

    async def begin(self, *, anew: bool) -> None:
        """Add the sums. anew: whether to make the list of keys anew."""
        try:
            keys = await self._shelf.keys(self._prefix, anew=anew)
        except StoreDown:
            self.is_whole = False
            return
        places = [place_of(key, self._prefix) for key in keys]
        self._places = [each for each in places if each is not None and each.start in self._sums]
        await self._add([each for each in self._places if each.name == ALL])

    async def add_others(self) -> None:
        """Add what is in none of them."""
        known = self.parts | self.own
        others = [each for each in self._places if each.name != ALL]
        await self._add([each for each in others if self._key(each) not in known])

    async def _add(self, places: list[Place]) -> None:
        if not await for_each(places, self._add_one):
            self.is_whole = False

    async def _add_one(self, place: Place) -> None:
        data = await self._shelf.get(self._key(place))
        counted = None if data is None else decode(data, self._sums.by)
        if counted is not None:
            self._sums.add(place.start, counted)
            self.parts.update(self._key(place._replace(name=part)) for part in counted.parts)
        self.is_torn |= data is None

    def _key(self, place: Place) -> str:
        return f"{self._prefix}{place.start}:{place.name}"


async def for_each(items: Sequence[T], work: Callable[[T], Awaitable[None]]) -> bool:
    """Do it for all of them, a few at a time; False if the store goes away meanwhile."""
    left = iter(items)
    answered = True

    async def run() -> None:
        nonlocal answered
        try:
            for item in left:
                await work(item)
        except StoreDown:
            answered = False

    if len(items) < 2:
        await run()
        return answered
    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_ONCE, len(items))):
            group.create_task(run(), name=SETTLING)
    return answered
