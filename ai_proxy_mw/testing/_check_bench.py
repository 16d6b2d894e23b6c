"""What the rules for stores are tried with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ai_proxy_mw.stores.base import CacheStore

LONG = 3600.0
"""Seconds that no check takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A store, empty at the start of each rule, and how to wait.

    moment: seconds of the shortest ttl and lease.
    largest: bytes of a value that must be kept.
    too_large: bytes of a value that is not kept; None where that is not known.
    run: of names that no other run uses, since locks are not purged.
    """

    store: CacheStore
    wait: Callable[[float], Awaitable[None]]
    moment: float
    largest: int
    too_large: int | None
    run: str

    async def pass_by(self) -> None:
        """Wait until what is good for a moment has run out."""
        await self.wait(1.5 * self.moment)

    async def put(self, *keys: str, tags: tuple[str, ...] = ()) -> None:
        """Store each key as its own value."""
        for key in keys:
            await self.store.set(key, key.encode(), ttl=LONG, tags=tags)

    async def has(self, *keys: str) -> bool:
        """Whether each of the keys is there, as its own value."""
        return all([await self.store.get(key) == key.encode() for key in keys])

    async def has_none(self, *keys: str) -> bool:
        """Whether none of the keys is there."""
        return all([await self.store.get(key) is None for key in keys])

    async def listed(self, prefix: str = "") -> list[str]:
        """What `keys` says, in order."""
        return sorted([key async for key in self.store.keys(prefix)])

    def lock_name(self, name: str) -> str:
        """The name of a lock of this run."""
        return f"{self.run}:{name}"


Rule = Callable[[Bench], Awaitable[None]]


def must(kept: bool, rule: str) -> None:
    """Raise AssertionError where a rule is not kept; also under `python -O`."""
    if not kept:
        raise AssertionError(rule)
