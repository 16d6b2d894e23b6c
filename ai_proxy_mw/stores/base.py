"""What the cache asks of whoever keeps its answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol


class StoreStats(NamedTuple):
    """How much a store holds.

    entries: how many; some of them may have run out already.
    size: the bytes that they take, more or less.
    """

    entries: int
    size: int


class CacheStore(Protocol):
    """Keeps bytes under keys for a while. It may forget any of them at any time.

    Keys, tags, names of locks and owners are short ASCII texts of letters, digits and `:._-/`.
    Methods are called in an event loop and must not block it. What they raise counts as a store
    that is down: a miss, logged once for each incident. `check_cache_store`, of
    `ai_proxy_mw.testing`, tells whether a store keeps to all of this.
    """

    @property
    def ttl(self) -> float:
        """Seconds that an answer is good for where the cache does not say."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes see what is stored, so that locks hold for them, too."""
        ...

    async def get(self, key: str) -> bytes | None:
        """What is stored under a key; None where that is nothing, has run out or is broken."""
        ...

    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        """Store a value for `ttl` seconds, in the place of what was there.

        tags: by what else it can be purged. A value that is too large need not be stored; what was
        there before is then gone.
        """
        ...

    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        """Forget one key, or all that begin with `prefix` and have `tag`; how many they were."""
        ...

    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        """Hold a lock for `lease` seconds, unless somebody else holds it; who holds it now.

        Who holds it already holds it for `lease` seconds from now on. Of many who try at once
        just one gets it. Locks are no entries: they are not purged and not counted.
        """
        ...

    async def unlock(self, name: str, owner: str) -> None:
        """Let go of a lock, if it is this owner's."""
        ...

    def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """The keys that begin with `prefix`, in no order."""
        ...

    async def stats(self) -> StoreStats:
        """How much it holds."""
        ...

    async def aclose(self) -> None:
        """Close what the running event loop has open. The store can be used again after it."""
        ...
