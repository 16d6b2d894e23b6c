"""Processes tell each other which lanes fail, without any call that waits for it.

Each judges by what it sees itself. When its circuit opens, closes or cools, it leaves word in a
store; and about once a second, while there are calls, it reads there what the others have seen.
Both happen in a task beside the calls.

While a circuit is half open, one process at a time should try. A call cannot wait to hear whether
it may, so the task asks ahead of time, when a circuit is about to be half open, and a process that
was not the first holds back for as long as the next two looks. That is a courtesy and no promise:
a process whose calls are further apart than the looks asks too late, and tries by itself; so do
all while the store is down, or after HELD_BACK.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ai_proxy_mw.routing.breaker import HELD_BACK, Breaker
from ai_proxy_mw.stores.guard import Guard, StoreDown

if TYPE_CHECKING:
    from ai_proxy_mw.routing.shared_state import SharedState

LOOK = 1.0
"""Seconds between two looks into the store while there are calls."""

AGAIN = 0.1
"""Seconds until what has changed during a look is told."""

CLOSED = 1
"""What stands in the store, in the place of a time, when a probe has gone well."""

SKEW = 60.0
"""Seconds that machines' clocks may differ. What lies further ahead was not meant as a time."""


def lane_key(app: str, lane: str, base_url: str) -> str:
    """Under which key processes find the same lane. Of digits and letters; tells nobody anything.

    lane: its name, which must tell apart the keys of an upstream.
    """
    text = "".join(f"{len(part)}:{part}" for part in (app, lane, base_url))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class _Lane:
    """A breaker, its keys in the store, and which of its changes were told there."""

    def __init__(self, key: str, breaker: Breaker) -> None:
        self.breaker = breaker
        self.open = f"circuit:{key}:open"
        self.cool = f"circuit:{key}:cool"
        self.probe = f"circuit:{key}:probe"
        self.judgements = breaker.judgements
        self.coolings = breaker.coolings

    @property
    def has_news(self) -> bool:
        breaker = self.breaker
        return self.judgements != breaker.judgements or self.coolings != breaker.coolings


class SharedBreakers:
    """The breakers of a proxy, in step with those of other processes.

    breakers: by their `lane_key`. Their `on_change` becomes ours, and tells the former one, too.
    clock: seconds that only go forward. wall: seconds since the epoch, which others know as well.

    A process that judges tells before it reads. So what it reads is newer than what it knows, but
    for words that were on their way at the same moment: those cost a few calls, not the truth.
    """

    def __init__(
        self,
        breakers: Mapping[str, Breaker],
        state: SharedState,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._lanes = [_Lane(key, breaker) for key, breaker in breakers.items()]
        self._state = state
        self._clock = clock
        self._wall = wall
        self._due = clock()
        self._id = secrets.token_hex(8)
        self._guards: dict[AbstractEventLoop, Guard] = {}
        self._tasks: dict[AbstractEventLoop, asyncio.Task[None]] = {}
        for breaker in breakers.values():
            breaker.on_change = partial(self._changed, breaker.on_change)

    def touch(self) -> None:
        """Have the store read, if it is time. To be called once in each call, in its loop."""
        if self._clock() >= self._due:
            self._start()

    async def aclose(self) -> None:
        """Stop what is under way in the running event loop; to be done before the store closes."""
        loop = get_running_loop()
        self._guards.pop(loop, None)
        task = self._tasks.pop(loop, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _changed(self, also: Callable[[Breaker], None] | None, breaker: Breaker) -> None:
        self._start()
        if also is not None:
            also(breaker)

    def _start(self) -> None:
        """Have the store told and read, unless that is being done in this loop."""
        try:
            loop = get_running_loop()
        except RuntimeError:
            self._due = self._clock()  # the next call will do it
            return
        self._due = self._clock() + LOOK
        task = self._tasks.get(loop)
        if task is None or task.done():
            running = {known: old for known, old in self._tasks.items() if not known.is_closed()}
            task = loop.create_task(self._run(self._guard(loop)), name="ai_proxy_mw-circuits")
            self._tasks = {**running, loop: task}

    def _guard(self, loop: AbstractEventLoop) -> Guard:
        guard = self._guards.get(loop)
        if guard is None:
            running = {known: old for known, old in self._guards.items() if not known.is_closed()}
            guard = Guard("circuits", self._clock)
            self._guards = {**running, loop: guard}
        return guard

    async def _run(self, guard: Guard) -> None:
        try:
            await self._look(guard)
            while any(lane.has_news for lane in self._lanes):
                await asyncio.sleep(AGAIN)
                await self._look(guard)
        except StoreDown:
            return  # the guard has said so, and what was not told will be at the next look

    async def _look(self, guard: Guard) -> None:
        for lane in self._lanes:
            await self._tell(lane, guard)
            await self._read(lane, guard)
            await self._queue(lane, guard)

    async def _tell(self, lane: _Lane, guard: Guard) -> None:
        breaker, judgements, coolings = lane.breaker, lane.breaker.judgements, lane.breaker.coolings
        if judgements != lane.judgements:
            left = breaker.open_left
            if left > 0:
                await guard.ask(partial(self._put_time, lane.open, left))
            elif not breaker.is_open:
                closed = partial(self._state.put, lane.open, CLOSED, ttl=breaker.longest)
                await guard.ask(closed)
            lane.judgements = judgements
        if coolings != lane.coolings:
            left = breaker.cool_left
            if left > 0:
                await guard.ask(partial(self._put_time, lane.cool, left))
            lane.coolings = coolings

    async def _put_time(self, key: str, left: float) -> None:
        await self._state.put(key, round(1000 * (self._wall() + left)), ttl=left)

    async def _read(self, lane: _Lane, guard: Guard) -> None:
        found = await guard.ask(partial(self._state.get, lane.open))
        cool = await guard.ask(partial(self._state.get, lane.cool))
        if lane.judgements == lane.breaker.judgements:  # else it is older than what we have seen
            self._learn(lane.breaker, found)
        lane.breaker.learn_cooling(self._left(cool, lane.breaker.longest))

    def _learn(self, breaker: Breaker, found: int) -> None:
        if found == CLOSED:
            breaker.learn_closed()
        else:
            breaker.learn_open(self._left(found, breaker.longest))

    def _left(self, found: int, longest: float) -> float:
        """Seconds until a time in the store; 0 for what can be none."""
        left = found / 1000 - self._wall()
        return left if 0 < left <= longest + SKEW else 0.0

    async def _queue(self, lane: _Lane, guard: Guard) -> None:
        """Be the one who tries, or let the one who is go first."""
        breaker = lane.breaker
        # Who has no calls for the lane must not take the turn of those who have.
        wanted, breaker.wanted = breaker.wanted, False
        if not wanted or not breaker.is_open or breaker.open_left > 2 * LOOK:
            return
        # The process is named at each look: workers that were forked have one proxy's name.
        owner = f"{self._id}-{os.getpid()}"
        if not await guard.ask(partial(self._state.take, lane.probe, owner, ttl=HELD_BACK)):
            breaker.hold_back(2 * LOOK)
