"""The answers that a proxy keeps: looking them up, keeping them, and the owner's tools."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._loop import loop_thread
from ai_proxy_mw.caching.counts import CacheStats, Counts, stats_of
from ai_proxy_mw.caching.flights import Flights
from ai_proxy_mw.caching.keeper import Keeper
from ai_proxy_mw.caching.key import app_prefix
from ai_proxy_mw.caching.policy import Policy
from ai_proxy_mw.caching.recording import Term, recorded
from ai_proxy_mw.caching.tags import Kind, tag_of

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw.accounting.costs import Costs
    from ai_proxy_mw.accounting.usage import Usage
    from ai_proxy_mw.caching.entry import Entry
    from ai_proxy_mw.caching.flight import Flight
    from ai_proxy_mw.caching.flights import Keep
    from ai_proxy_mw.caching.options import Cache
    from ai_proxy_mw.caching.policy import Plan

T = TypeVar("T")


class Answers:
    """What `proxy.cache` is.

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
        self.counts = Counts()
        self.policy = Policy(cache, app=name, upstream=upstream, forwarded=forwarded)
        self.clock = clock
        self._keeper = Keeper(cache.store)
        self.flights = Flights(self._keeper, most=cache.max_entry_bytes, is_fresh=self._is_fresh)
        self._prefix = app_prefix(name)
        self._costs = costs
        self._stale = max(cache.stale_while_revalidate, cache.stale_if_error)
        self._purges = 0

    # -- for the corridor --------------------------------------------------------------------

    async def find(self, key: str) -> Entry | None:
        """What is kept under a key, fresh or stale."""
        return await self._keeper.find(key)

    def keeping(self, plan: Plan, request: Request) -> Keep:
        """A function that keeps the answer of the request's flight when it has ended."""
        ttl = self._ttl(request)
        purges = self._purges
        call = request.call

        def price(usage: Usage) -> int:
            return self._costs.micro_usd(call, usage)

        async def keep(flight: Flight) -> bool:
            term = Term(self.clock(), ttl, self._stale)
            most = self.options.max_entry_bytes
            entry = await recorded(flight, plan, term, most=most, price=price)
            # What was asked before a purge may hold what was to be forgotten.
            if entry is None or ttl <= 0 or purges != self._purges:
                return False
            stored = await self._keeper.keep(entry, plan.tags)
            self.counts.stored += stored
            return stored

        return keep

    def _ttl(self, request: Request) -> float:
        ttl = self.options.ttl
        if ttl is None:
            return self.options.store.ttl
        return ttl(request) if callable(ttl) else ttl

    def _is_fresh(self, entry: Entry) -> bool:
        return self.clock() - entry.created < entry.ttl

    async def aclose(self) -> None:
        """Wait for what is being stored, and close the running loop's connections."""
        await self.flights.aclose()
        await self.options.store.aclose()

    # -- for the owner -----------------------------------------------------------------------

    async def stats(self) -> CacheStats:
        """What this process has saved, and what the store holds. Raises what the store raises."""
        held = await self.options.store.stats()
        return stats_of(self.counts, held, failures=self._keeper.failures)

    async def purge(
        self,
        *,
        subject: str | None = None,
        endpoint: str | None = None,
        model: str | None = None,
        key: str | None = None,
    ) -> int:
        """Forget what was answered to a subject, by an endpoint, by a model, or under one key; with
        none of them all answers of this app. How many they were.

        subject: as `identify` gives it; what is shared is forgotten if it was he who had it asked.
        model: as the upstream knows it. Raises ConfigurationError where more than one is given, and
        what the store raises.
        """
        named: dict[Kind, str | None] = {"subject": subject, "endpoint": endpoint, "model": model}
        tags = [tag_of(kind, text) for kind, text in named.items() if text is not None]
        if len(tags) + (key is not None) > 1:
            raise ConfigurationError("purge: write one of subject=, endpoint=, model= and key=")
        self._purges += 1
        if key is not None:
            return await self.options.store.purge(key=key)
        return await self.options.store.purge(prefix=self._prefix, tag="".join(tags))

    async def keys(self) -> AsyncIterator[str]:
        """The keys of this app's answers, for `purge(key=...)`."""
        async for key in self.options.store.keys(self._prefix):
            yield key

    def stats_sync(self) -> CacheStats:
        """`stats` for code that has no event loop."""
        return self._run(self.stats())

    def purge_sync(
        self,
        *,
        subject: str | None = None,
        endpoint: str | None = None,
        model: str | None = None,
        key: str | None = None,
    ) -> int:
        """`purge` for code that has no event loop."""
        return self._run(self.purge(subject=subject, endpoint=endpoint, model=model, key=key))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        thread = loop_thread()
        thread.at_stop(self, self.aclose)
        return thread.run(work)
