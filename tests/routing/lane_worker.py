"""A process with one lane: `lane_worker.py STORE PLACE`. Obeys words on stdin, tells on stdout.

`fail`: the upstream fails for as many calls as open the circuit. `try`: wait until it may be asked,
then a probe goes well. `see STATE`: traffic until the breaker is in that state. `end`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from ai_proxy_mw import DiskCache, RedisCache
from ai_proxy_mw._circuit import Circuit
from ai_proxy_mw.limiting.books import Books
from ai_proxy_mw.routing.breaker import Breaker
from ai_proxy_mw.routing.shared import SharedBreakers, lane_key
from ai_proxy_mw.routing.shared_state import SharedState, StateInCache, StateInCounts

CIRCUIT = Circuit(calls=5, open_for=3)


def opened(kind: str, place: str) -> tuple[SharedState, Callable[[], Awaitable[None]]]:
    """A store of that kind, and what closes it."""
    if kind == "counts":
        books = Books(place)
        return StateInCounts(lambda: books.here().store), books.aclose
    store = RedisCache(place) if kind == "redis" else DiskCache(place)
    return StateInCache(store), store.aclose


async def traffic(shared: SharedBreakers, until: Callable[[], bool]) -> float:
    """Calls, one in each hundredth of a second; how long it took."""
    begun = time.monotonic()
    while not until():
        shared.touch()
        await asyncio.sleep(0.01)
        assert time.monotonic() < begun + 20
    return time.monotonic() - begun


async def main(kind: str, place: str) -> None:
    state, close = opened(kind, place)
    breaker = Breaker(CIRCUIT, name="openai", clock=time.monotonic)
    shared = SharedBreakers({lane_key("shop", "openai", "https://a.example/v1"): breaker}, state)
    read = asyncio.get_running_loop().run_in_executor
    while (words := (await read(None, sys.stdin.readline)).split()) != ["end"]:
        if words[0] == "fail":
            for _ in range(5):
                breaker.failed(breaker.begin())
            took = 0.0
        elif words[0] == "try":
            took = await traffic(shared, lambda: breaker.available)
            breaker.succeeded(breaker.begin())
        else:
            took = await traffic(shared, lambda: breaker.state == words[1])
        print(f"{breaker.state} {took:.3f}", flush=True)
    await shared.aclose()
    await close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
