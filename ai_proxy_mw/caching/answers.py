"""The answers that a proxy keeps."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from ai_proxy_mw.caching.counts import Counts
from ai_proxy_mw.caching.flights import Flights
from ai_proxy_mw.caching.keeper import Keeper
from ai_proxy_mw.caching.key import app_prefix
from ai_proxy_mw.caching.policy import Policy
from ai_proxy_mw.caching.recording import Term, recorded
from ai_proxy_mw.caching.savings import Savings

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw.accounting.costs import Costs
    from ai_proxy_mw.caching.entry import Entry
    from ai_proxy_mw.caching.flight import Flight
    from ai_proxy_mw.caching.flights import Keep
    from ai_proxy_mw.caching.options import Cache
    from ai_proxy_mw.caching.policy import Plan


class Answers:
    """What the stage asks, and the owner's tools.

    name: of the app. upstream: where its answers come from. forwarded: names of the callers'
    headers that are sent there. costs: knows what an answer has cost.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        name: str,
        upstream: str,
        forwarded: Iterable[str],
        costs: Costs,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = cache
        self.store = cache.store
        self.counts = Counts()
        self.policy = Policy(cache, app=name, upstream=upstream, forwarded=forwarded)
        self.clock = clock
        self._keeper = Keeper(cache.store)
        self.flights = Flights(self._keeper, most=cache.max_entry_bytes, is_fresh=self._is_fresh)
        self._prefix = app_prefix(name)
        self.savings = Savings(costs)
        self._stale = max(cache.stale_while_revalidate, cache.stale_if_error)
        self._purges = 0

    def find(self, key: str) -> Awaitable[Entry | None]:
        """What is kept under a key, fresh or stale."""
        return self._keeper.find(key)

    def keeping(self, plan: Plan, request: Request) -> Keep:
        """A function that keeps the answer of the request's flight when it has ended."""
        ttl = self._ttl(request)
        purges = self._purges

        async def keep(flight: Flight) -> bool:
            term = Term(self.clock(), ttl, self._stale)
            most = self.options.max_entry_bytes
            entry = await recorded(flight, plan, term, most=most)
            if entry is None or ttl <= 0 or purges != self._purges:
                return False
            stored = await self._keeper.keep(entry, plan.tags)
            if purges != self._purges:
                await self._keeper.forget(plan.key)  # it may have come behind the purge
                return False
            self.counts.stored += stored
            return stored

        return keep

    def _ttl(self, request: Request) -> float:
        ttl = self.options.ttl
        if ttl is None:
            return self.store.ttl
        return ttl(request) if callable(ttl) else ttl

    def _is_fresh(self, entry: Entry) -> bool:
        return self.clock() - entry.created < entry.ttl

    async def aclose(self) -> None:
        """Wait for what is being stored, and close the running loop's connections."""
        await self.flights.aclose()
        await self.store.aclose()

    async def purge(self, *, key: str | None, tag: str) -> int:
        """Forget one answer, or all of this app that have a tag."""
        # What is asked already may hold what is to be forgotten: it is neither kept nor joined.
        self._purges += 1
        self.flights.part()
        if key is not None:
            return await self.store.purge(key=key)
        return await self.store.purge(prefix=self._prefix, tag=tag)

    def keys(self) -> AsyncIterator[str]:
        """The keys of this app's answers."""
        return self.store.keys(self._prefix)

    @property
    def failures(self) -> int:
        """How many questions the store has not answered."""
        return self._keeper.failures
