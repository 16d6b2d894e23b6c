"""One clock for all calls of an event loop, instead of a timer for each."""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop, get_running_loop
from typing import Protocol

logger = logging.getLogger("ai_proxy_mw")

EVERY = 0.02
"""Seconds between two rounds. A call is first looked at in its second one."""


class Attended(Protocol):
    """A call that may take long."""

    def attend(self, now: float) -> bool:
        """Look after it (`now` is the loop's clock); true if it is to be looked at again."""
        ...


class Rounds:
    """Looks after the calls that take long, in each event loop after its own.

    A timer costs several microseconds, and most of what it would guard is over before it rings.
    Here a call costs an entry in a list, and the clock stands still while there are none.
    """

    def __init__(self) -> None:
        self._by_loop: dict[AbstractEventLoop, _Clock] = {}
        self._last: _Clock | None = None

    def join(self, call: Attended) -> None:
        """Look after a call of the running loop from now on."""
        loop = get_running_loop()
        clock = self._last
        if clock is None or clock.loop is not loop:
            clock = self._last = self._by_loop.get(loop) or self._new(loop)
        clock.young.append(call)
        if not clock.ticking:
            clock.tick()

    def _new(self, loop: AbstractEventLoop) -> _Clock:
        clock = _Clock(loop)
        # A loop that has ended took its calls with it.
        running = {known: clock for known, clock in self._by_loop.items() if not known.is_closed()}
        self._by_loop = {**running, loop: clock}
        return clock


class _Clock:
    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.ticking = False
        self.young: list[Attended] = []
        self._old: list[Attended] = []

    def tick(self) -> None:
        self.ticking = True
        self.loop.call_later(EVERY, self._go)

    def _go(self) -> None:
        due, self._old, self.young = self._old, self.young, []
        now = self.loop.time()
        self.young += [call for call in due if _attended(call, now)]
        if self.young or self._old:
            self.tick()
        else:
            self.ticking = False


def _attended(call: Attended, now: float) -> bool:
    try:
        return call.attend(now)
    except Exception:
        # One call's fault must not stop the clock of all.
        logger.exception("a call could not be looked after")
        return False
