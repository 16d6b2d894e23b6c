"""Whether a store for the cache keeps to what `CacheStore` says."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from ai_proxy_mw.stores.base import CacheStore
from ai_proxy_mw.testing._check_bench import Bench, Rule, must
from ai_proxy_mw.testing._check_entries import ENTRY_RULES, leaving
from ai_proxy_mw.testing._check_locks import LOCK_RULES, other_loops


async def check_cache_store(
    store: CacheStore,
    *,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    moment: float = 1.0,
    largest: int = 2**20,
    too_large: int | None = None,
    several_loops: bool = True,
    patience: float = 60.0,
) -> None:
    """Try a store, an empty one with room for some MiB that nobody else uses.

    wait: passes seconds; give one that moves your clock where the store has one.
    moment: seconds of the shortest ttl and lease. It must be longer than a few answers of the
        store take.
    largest: bytes of a value that it must keep.
    too_large: bytes of a value that it does not keep, if there is such a size.
    several_loops: whether event loops of several threads may use it, which an app needs whose
        proxy serves ASGI and WSGI in one process.
    patience: seconds for each rule.

    Raises AssertionError with the rule that is broken, and lets through what the store raises. It
    cannot tell whether the store blocks the event loop.
    """
    bench = Bench(
        store=store,
        wait=wait,
        moment=moment,
        largest=largest,
        too_large=too_large,
        run=f"check-{secrets.token_hex(8)}",
    )
    must(await bench.listed() == [], "give the check an empty store, it would purge what is there")
    loops = [other_loops] if several_loops else []
    # `leaving` last: what was cancelled may be done a little later.
    for rule in [*ENTRY_RULES, *LOCK_RULES, *loops, leaving]:
        await _within(patience, rule, bench)
        await store.purge()


async def _within(patience: float, rule: Rule, bench: Bench) -> None:
    try:
        async with asyncio.timeout(patience) as limit:
            await rule(bench)
    except TimeoutError:
        if not limit.expired():
            raise  # it is the store's own
        name = rule.__name__.replace("_", " ")
        raise AssertionError(f"{name}: no method may wait for long, not even for a lock") from None
