"""A store that is down costs one call a moment now and then, and not each call its patience."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ai_proxy_mw._per_loop import PerLoop

T = TypeVar("T")

logger = logging.getLogger("ai_proxy_mw")

PATIENCE = 0.5
"""Seconds that the store has for one answer."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
"""Seconds until one call asks the store again; doubled each time in vain."""


class StoreDown(Exception):
    """The store did not answer, or was not asked since it did not just now."""


class Guard:
    """Asks a store, and stops asking it while it does not answer.

    Not for several threads at once; there is one for each event loop.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._pause = 0.0
        self._again_at = 0.0
        self.failures = 0
        """How often the store has failed to answer."""

    @property
    def is_open(self) -> bool:
        """Whether the store is not asked at present."""
        return self._pause > 0.0

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """The store's answer. Raises StoreDown within PATIENCE."""
        pause = self._pause
        if pause:
            now = self._clock()
            if now < self._again_at:
                raise StoreDown
            self._again_at = now + pause  # this call asks; the others go on without
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await question()
        except Exception as error:
            self._fail(error, pause)
            raise StoreDown from error
        if pause:  # one that was asked before it went down says nothing of now
            self._pause = 0.0
            logger.warning("%s: the store answers again", self._what)
        return answer

    def _fail(self, error: Exception, pause: float) -> None:
        self.failures += 1
        if pause != self._pause:
            return  # others that asked at the same time have failed first: it was in vain once
        if not self._pause:
            # Once for an incident. Not the text: a client library may put a password there.
            logger.error("%s: the store does not answer: %s", self._what, type(error).__name__)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause or FIRST_PAUSE)
        self._again_at = self._clock() + self._pause


def guards(what: str) -> PerLoop[tuple[Guard, Guard]]:
    """For each loop one for reading and one for writing: a disk that is full can still be read."""
    return PerLoop(lambda: (Guard(what), Guard(f"{what}, writing")))
