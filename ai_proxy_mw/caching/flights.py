"""Which calls are under way, so that who asks the same waits for their answer."""

from __future__ import annotations

import asyncio
import logging
import secrets
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ai_proxy_mw._http import Response
from ai_proxy_mw._loop import SETTLING
from ai_proxy_mw.caching.flight import Flight
from ai_proxy_mw.caching.follow import Followed
from ai_proxy_mw.caching.lease import LEASE, Lease
from ai_proxy_mw.caching.replay import kept

if TYPE_CHECKING:
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
        self._tasks: set[asyncio.Task[None]] = set()

    def under_way(self, key: str) -> Flight | None:
        """The call that can still be joined."""
        flight = self._here().get(key)
        return None if flight is None or flight.too_large else flight

    def begin(self, key: str, source: Source, keep: Keep, *, alone: bool, apart: bool) -> Flight:
        """Ask upstream, or whichever process does so already.

        alone: it goes on though nobody listens.
        apart: it is asked whoever else asks the same.
        """
        flight = Flight(most=self._most, alone=alone)
        flights = self._here()
        flights[key] = flight
        fly = self._fly if apart or not self._keeper.shared else self._fly_shared
        task = asyncio.get_running_loop().create_task(fly(key, flight, source, keep))
        flight.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flight

    async def aclose(self) -> None:
        """Wait for what is being stored; what is still asked is given up."""
        here = asyncio.get_running_loop()
        tasks = [task for task in self._tasks if task.get_loop() is here]
        for flight in self._by_loop.pop(here, {}).values():
            if not flight.ended and flight.task is not None:
                flight.task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _fly(self, key: str, flight: Flight, source: Source, keep: Keep) -> None:
        try:
            await self._carry(flight, source, keep)
        finally:
            self._land(key, flight)

    async def _fly_shared(self, key: str, flight: Flight, source: Source, keep: Keep) -> None:
        owner = secrets.token_hex(8)
        lease: Lease | None = None
        stored = False

        async def ask() -> Response:
            nonlocal lease
            found = await self._elsewhere(key, owner)
            if isinstance(found, Response):
                flight.second_hand = True
                return found
            if found is not None:
                flight.second_hand = True
                return kept(found, [])
            lease = Lease(self._keeper, key, owner, flight)
            return await source()

        try:
            stored = await self._carry(flight, ask, keep)
        finally:
            self._land(key, flight)
            if lease is not None:
                await lease.end(stored=stored)
            elif not flight.second_hand:
                await self._keeper.unlock(key, owner)  # it may have been got in the last moment

    async def _elsewhere(self, key: str, owner: str) -> Entry | Response | None:
        """The answer that another process brings or has just brought; None with the lock held."""
        holder = await self._keeper.lock(key, owner, lease=LEASE)
        if holder is not None and holder != owner:
            return await Followed(self._keeper, key, owner, self._is_fresh).answer(holder)
        entry = await self._keeper.find(key)
        if entry is None or not self._is_fresh(entry):
            return None
        await self._keeper.unlock(key, owner)
        return entry

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
        await asyncio.sleep(0)  # who waits is answered first
        return await keep(flight)

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
