"""Takes from counts and gives back, in any storage of the `limits` library."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from ai_proxy_mw._limits import Limit
from ai_proxy_mw.limiting.windows import LEASE, Position, used, wait


class Store(Protocol):
    """What is used of a storage; `limits.aio.storage.Storage` has it."""

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int: ...

    async def get(self, key: str) -> int: ...

    async def clear(self, key: str) -> None: ...


GetAndIncr = Callable[[str | None, str, int, int], tuple[int, int]]
"""`get` of the first key, if there is one, and `incr` of the second."""

# Structs, since they are made in a fifth of the time that a named tuple takes.


class Standing(Struct, frozen=True, gc=False):
    """How a limit stands for somebody."""

    limit: Limit
    remaining: int
    reset: float
    """Seconds until the limit is whole again, if nothing more is used."""
    wait: int = 0
    """Seconds until what was asked would fit; 0 if it did."""
    reserved: int = 0
    """What calls under way in this process hold and may give back."""


class Taken(Struct, frozen=True, gc=False):
    """An amount that was taken, and where, so that it can be given back there."""

    limit: Limit
    base: str
    key: str
    amount: int


class Ledger:
    """Exact under concurrency with nothing but an atomic increment: who adds first and looks then
    can never pass on a remainder that another has taken; who does not fit takes it back.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        # Where nothing waits, in one step and without coroutines. Only if it is of the store's own
        # class: what is derived from it may count in another way.
        at_once = "get_and_incr" in vars(type(store))
        self._get_and_incr: GetAndIncr | None = (
            getattr(store, "get_and_incr", None) if at_once else None
        )
        self._moving = _Moving(store, clock)

    async def take(self, limit: Limit, base: str, amount: int) -> tuple[Taken | None, Standing]:
        """Take an amount if there is as much; None and how long to wait if there is not."""
        if limit.strategy == "moving":
            return await self._moving.take(limit, base)
        position = Position.at(limit, self._clock())
        key = _key(base, position.number)
        before = _key(base, position.number - 1) if position.share else None
        if self._get_and_incr is None:
            previous = 0 if before is None else max(0, await self._store.get(before))
            current = await self._store.incr(key, _kept(limit), amount)
        else:
            previous, current = self._get_and_incr(before, key, _kept(limit), amount)
        count = used(position, current, previous)
        if count <= limit.amount:
            standing = Standing(limit, limit.amount - count, _reset(limit, position, current))
            return Taken(limit, base, key, amount), standing
        await self._back(limit, key, amount)
        current -= amount
        remaining = max(0, limit.amount - used(position, current, previous))
        seconds = wait(limit, position, current, previous, amount)
        return None, Standing(limit, remaining, _reset(limit, position, current), seconds)

    async def settle(self, taken: Taken, amount: int) -> None:
        """Make what was taken the amount that was used."""
        more = amount - taken.amount
        if more > 0:
            # Now, and not when the call began: that window may be over.
            number = Position.at(taken.limit, self._clock()).number
            await self._store.incr(_key(taken.base, number), _kept(taken.limit), more)
        elif more and taken.key:
            await self._back(taken.limit, taken.key, -more)

    async def standing(self, limit: Limit, base: str, asked: int = 0) -> Standing:
        """How the limit stands, nothing taken; and how long to wait for what is asked."""
        if limit.strategy == "moving":
            return await self._moving.standing(limit, base, asked)
        position = Position.at(limit, self._clock())
        previous = 0
        if position.share:
            previous = max(0, await self._store.get(_key(base, position.number - 1)))
        current = await self._store.get(_key(base, position.number))
        remaining = max(0, limit.amount - used(position, current, previous))
        fits = asked <= remaining
        seconds = 0 if fits else wait(limit, position, current, previous, asked)
        return Standing(limit, remaining, _reset(limit, position, current or previous), seconds)

    async def reset(self, limit: Limit, base: str) -> None:
        """Forget what was used."""
        number = Position.at(limit, self._clock()).number if limit.strategy != "moving" else 0
        for key in (base, _key(base, number), _key(base, number - 1)):
            await self._store.clear(key)

    async def renew(self, taken: Taken) -> Taken:
        """Hold a place of `concurrent` for another lease; call it once in each LEASE."""
        number = Position.at(taken.limit, self._clock()).number
        key = _key(taken.base, number)
        if key == taken.key:
            return taken
        # First the new, then the old: another must not slip in between.
        await self._store.incr(key, _kept(taken.limit), taken.amount)
        await self._back(taken.limit, taken.key, taken.amount)
        return replace(taken, key=key)

    async def _back(self, limit: Limit, key: str, amount: int) -> None:
        decr = getattr(self._store, "decr", None)
        if decr is not None:
            await decr(key, amount)  # Memcached counts down only so, and never below 0
            return
        count = await self._store.incr(key, _kept(limit), -amount)
        if count < 0:
            # The count was forgotten meanwhile, by a reset or a server that was started anew. What
            # is given back to it must be no credit; of what is below 0, this call's part is undone.
            await self._store.incr(key, _kept(limit), min(amount, -count))


class _Moving:
    """Requests by their times, with the strategy of the `limits` library."""

    def __init__(self, store: Any, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    async def take(self, limit: Limit, base: str) -> tuple[Taken | None, Standing]:
        fits = await self._store.acquire_entry(base, limit.amount, limit.window)
        standing = await self.standing(limit, base)
        if fits:
            return Taken(limit, base, "", 1), standing
        return None, replace(standing, remaining=0, wait=_whole(limit, standing.reset))

    async def standing(self, limit: Limit, base: str, asked: int = 0) -> Standing:
        start, count = await self._store.get_moving_window(base, limit.amount, limit.window)
        reset = max(0.0, start + limit.window - self._clock()) if count else 0.0
        remaining = max(0, limit.amount - count)
        seconds = 0 if asked <= remaining else _whole(limit, reset)
        return Standing(limit, remaining, reset, seconds)


def _whole(limit: Limit, seconds: float) -> int:
    return max(1, min(limit.window, ceil(seconds)))


def _key(base: str, number: int) -> str:
    return f"{base}:{number}"


def _kept(limit: Limit) -> int:
    # The window after it still reads it, and what is given back late must find it.
    return 3 * (limit.window or LEASE)


def _reset(limit: Limit, position: Position, current: int) -> float:
    if not limit.window or not current:
        return 0.0
    return position.left + (limit.window if limit.strategy == "sliding" else 0)
