"""Which calls are under way, so that who asks the same waits for their answer."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from ai_proxy_mw._loop import SETTLING
from ai_proxy_mw.caching.flight import Flight
from ai_proxy_mw.caching.follow import Followed
from ai_proxy_mw.caching.lease import Lease

if TYPE_CHECKING:
    from ai_proxy_mw._http import Response
    from ai_proxy_mw.caching.entry import Entry
    from ai_proxy_mw.caching.flight import Source
    from ai_proxy_mw.caching.keeper import Keeper

logger = logging.getLogger("ai_proxy_mw")

Keep = Callable[[Flight], Awaitable[bool]]
"""Puts the answer of a flight into the store; whether it is there."""


class Flights:
    """The calls of each event loop, by their key.

    most: bytes of an answer that are held.
    is_fresh: whether an entry of the store may be given.
    """

    def __init__(self, keeper: Keeper, *, most: int, is_fresh: Callable[[Entry], bool]) -> None:
        self._keeper = keeper
        self._most = most
        self._is_fresh = is_fresh
        self._by_loop: dict[AbstractEventLoop, dict[str, Flight]] = {}
        self._tasks: dict[asyncio.Task[None], Flight] = {}

    def under_way(self, key: str) -> Flight | None:
        """The call that can still be joined."""
        flight = self._here().get(key)
        return flight if flight is not None and flight.can_be_joined else None

    def begin(
        self,
        key: str,
        source: Source,
        keep: Keep,
        *,
        alone: bool,
        apart: bool,
        known: Entry | None = None,
    ) -> Flight:
        """Ask upstream, or whichever process does so already.

        alone: it goes on though nobody listens.
        apart: it is asked whoever else asks the same.
        known: what is kept and will not do.
        """
        flight = Flight(self._most, alone)
        flights = self._here()
        flights[key] = flight
        if apart or not self._keeper.shared:
            work = self._fly(key, flight, source, keep)
        else:
            work = self._fly_shared(key, flight, source, keep, known)
        task = asyncio.get_running_loop().create_task(work)
        flight.task = task
        self._tasks[task] = flight
        task.add_done_callback(partial(self._over, key, flight))
        return flight

    async def aclose(self) -> None:
        """Wait for what is being stored; what is still asked is given up."""
        here = asyncio.get_running_loop()
        # Others' threads begin and end theirs meanwhile.
        tasks = [task for task in tuple(self._tasks) if task.get_loop() is here]
        for task in tasks:
            flight = self._tasks[task]
            if not flight.ended:
                flight.given_up = True
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._by_loop.pop(here, None)

    def part(self) -> None:
        """Who comes from now on asks anew, whatever is under way."""
        for flights in tuple(self._by_loop.values()):
            flights.clear()

    async def _fly(self, key: str, flight: Flight, source: Source, keep: Keep) -> None:
        try:
            await self._carry(flight, source, keep)
        finally:
            self._land(key, flight)

    async def _fly_shared(
        self, key: str, flight: Flight, source: Source, keep: Keep, known: Entry | None
    ) -> None:
        owner = secrets.token_hex(8)
        accepts = partial(self._is_news, known)
        followed = Followed(self._keeper, key, owner, accepts=accepts, most=self._most)
        lease: Lease | None = None
        stored = False

        async def ask() -> Response:
            nonlocal lease
            began = time.perf_counter()
            response = await followed.answer()
            if response is not None:
                flight.second_hand = True
                if flight.note is not None:
                    flight.note.waited_since(began)
                return response
            lease = Lease(self._keeper, key, owner, flight)
            return await source()

        try:
            stored = await self._carry(flight, ask, keep)
        finally:
            self._land(key, flight)
            await (followed.let_go() if lease is None else lease.end(stored=stored))

    def _is_news(self, known: Entry | None, entry: Entry) -> bool:
        """Whether an entry is fresh, and not the one that would not do."""
        return self._is_fresh(entry) and (known is None or entry.created != known.created)

    async def _carry(self, flight: Flight, source: Source, keep: Keep) -> bool:
        """Bring the answer to who listens, and into the store; whether it is there."""
        try:
            await flight.carry(source)
        except Exception as error:  # noqa: BLE001 - each listener is told, and raises it
            if flight.alone:
                logger.warning("a kept answer could not be renewed: %s", type(error).__name__)
            return False
        if flight.too_large or flight.second_hand:
            return False
        assert flight.task is not None
        flight.task.set_name(SETTLING)
        try:
            return await keep(flight)
        except Exception:
            logger.exception("an answer could not be kept")
            return False

    def _over(self, key: str, flight: Flight, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._land(key, flight)  # one that was given up before it began has not done so
        flight.task = None  # a task that was cancelled keeps how, and with it the flight

    def _land(self, key: str, flight: Flight) -> None:
        flights = self._here()
        if flights.get(key) is flight:
            del flights[key]

    def _here(self) -> dict[str, Flight]:
        loop = asyncio.get_running_loop()
        flights = self._by_loop.get(loop)
        if flights is None:
            running = {one: those for one, those in self._by_loop.items() if not one.is_closed()}
            flights = {}
            self._by_loop = {**running, loop: flights}
        return flights
