"""What keeps repeats a small part of the traffic, so that a failing upstream can recover."""

from __future__ import annotations

from collections.abc import Callable
from math import exp

WINDOW = 10.0
"""Seconds; traffic and repeats count for less the older they are, and hardly after twice that."""


class RetryBudget:
    """Each call pays in a share of a repeat, and each repeat takes a whole one out.

    ratio: the repeats as a share of the calls. reserve: how many may be taken in WINDOW beyond
    that, without which a small site could never repeat anything. clock: in seconds.

    Repeats are at most `ratio * calls + reserve / WINDOW` a second, each as a rate.
    """

    __slots__ = ("_at", "_clock", "_owed", "_ratio", "_reserve")

    def __init__(self, ratio: float, *, reserve: int = 10, clock: Callable[[], float]) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._clock = clock
        self._at = clock()
        self._owed = 0.0  # what was taken out more than paid in; it fades, whichever sign it has

    def deposit(self) -> None:
        """A call has come."""
        self._fade()
        self._owed -= self._ratio

    def withdraw(self) -> bool:
        """Take out a repeat, if there is one."""
        self._fade()
        if self._owed + 1.0 > self._reserve:
            return False
        self._owed += 1.0
        return True

    def _fade(self) -> None:
        now = self._clock()
        if now > self._at:
            self._owed *= exp((self._at - now) / WINDOW)
            self._at = now
