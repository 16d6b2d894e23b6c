"""A deadline that moves often and rings seldom."""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable


class Alarm:
    """Calls `ring` once `deadline` (the loop's clock, seconds) has passed.

    Moving the deadline later, which a stream does at every chunk, costs one attribute:
    the timer that is already set finds out when it fires, and sets itself again.
    """

    __slots__ = ("_handle", "_loop", "_ring", "deadline")

    def __init__(self, loop: AbstractEventLoop, deadline: float, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self.deadline = deadline
        self._handle: TimerHandle = loop.call_at(deadline, self._check)

    def move(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self._handle.when():
            self._handle.cancel()
            self._handle = self._loop.call_at(deadline, self._check)

    def off(self) -> None:
        self._handle.cancel()

    def _check(self) -> None:
        if self._loop.time() < self.deadline:
            self._handle = self._loop.call_at(self.deadline, self._check)
        else:
            self._ring()
