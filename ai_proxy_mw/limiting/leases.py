"""Keeps held what calls under way hold, and settles what those that have ended leave behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from ai_proxy_mw._loop import SETTLING
from ai_proxy_mw.limiting.ledger import Ledger, Taken
from ai_proxy_mw.limiting.windows import LEASE

logger = logging.getLogger("ai_proxy_mw")


class Lease:
    """A place of `concurrent`. Its worker renews it; when that is killed, it runs out."""

    __slots__ = ("released", "renewing", "taken")

    def __init__(self, taken: Taken) -> None:
        self.taken = taken
        self.renewing = False
        self.released = False


class Leases:
    """Of one event loop. waits: whether the ledger's store is outside of this process."""

    def __init__(self, ledger: Ledger, *, waits: bool = True) -> None:
        self._ledger = ledger
        self._waits = waits
        self._held: set[Lease] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._failing = False

    def hold(self, taken: Taken) -> Lease:
        """Keep a place until it is released."""
        lease = Lease(taken)
        self._held.add(lease)
        if self._timer is None:
            self._wind()
        return lease

    def release(self, lease: Lease) -> None:
        """Free a place. May be called twice."""
        if lease in self._held:
            self._held.discard(lease)
            lease.released = True
            if not lease.renewing:
                self.settle(lease.taken, 0)

    def settle(self, taken: Taken, amount: int) -> None:
        """Have what was taken made the amount that was used."""
        work = self._ledger.settle(taken, amount)
        if self._waits:
            self.later(work)
        else:
            _at_once(self._logged(work))

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something settled, without anybody waiting for it."""
        task = asyncio.get_running_loop().create_task(self._logged(work), name=SETTLING)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Wait for what is being settled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._tasks:  # one that ends may leave another behind
            # Not `gather`: where all of them are done it does not let the loop run, since Python
            # 3.12, and those that are done would never be taken off the list.
            await asyncio.wait(self._tasks)

    async def _logged(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - each client library has errors of its own
            # What was taken stays taken until its window ends: too little is let in, not too much.
            if not self._failing:  # once for an incident
                logger.warning("limits: not settled: %s", type(error).__name__)
            self._failing = True
        else:
            self._failing = False

    def _wind(self) -> None:
        # Twice in each LEASE, so that none is missed.
        self._timer = asyncio.get_running_loop().call_later(LEASE / 2, self._tick)

    def _tick(self) -> None:
        self._timer = None
        for lease in self._held:
            if not lease.renewing:
                lease.renewing = True
                self.later(self._renew(lease))
        if self._held:
            self._wind()

    async def _renew(self, lease: Lease) -> None:
        try:
            lease.taken = await self._ledger.renew(lease.taken)
        finally:
            lease.renewing = False
            if lease.released:
                self.settle(lease.taken, 0)


def _at_once(work: Coroutine[Any, Any, None]) -> None:
    """Do what waits for nothing, without a task, which costs more than the work."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError("the counts of this process must not wait for anything")
