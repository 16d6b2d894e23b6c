"""One clock for all calls of an event loop, instead of a timer for each."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from typing import Protocol

EVERY = 0.02
"""Seconds between two rounds. A call is first looked at in its second one."""


class Attended(Protocol):
    """A call that may take long."""

    def attend(self, now: float) -> bool:
        """Look after it (`now` is the loop's clock); true if it is to be looked at again."""
        ...


class Rounds:
    """Looks after the calls that take long.

    A timer costs several microseconds, and most of what it would guard is over before it rings.
    Here a call costs an entry in a list, and the clock stands still while there are none.
    """

    def __init__(self) -> None:
        self._loop: AbstractEventLoop | None = None
        self._young: list[Attended] = []
        self._old: list[Attended] = []
        self._ticking = False

    def join(self, call: Attended) -> None:
        """Look after a call of the running loop from now on."""
        loop = get_running_loop()
        if loop is not self._loop:
            # The loop before has ended, and its calls with it.
            self._loop = loop
            self._young, self._old = [], []
            self._ticking = False
        self._young.append(call)
        if not self._ticking:
            self._tick(loop)

    def _tick(self, loop: AbstractEventLoop) -> None:
        self._ticking = True
        loop.call_later(EVERY, self._go, loop)

    def _go(self, loop: AbstractEventLoop) -> None:
        due, self._old, self._young = self._old, self._young, []
        now = loop.time()
        self._young += [call for call in due if call.attend(now)]
        if self._young or self._old:
            self._tick(loop)
        else:
            self._ticking = False
