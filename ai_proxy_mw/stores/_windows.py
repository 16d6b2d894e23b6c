"""The arithmetic of `limits`' sliding window counter. Pure: times in seconds, counts whole."""

from __future__ import annotations

from math import floor
from typing import NamedTuple


class SlidingCount(NamedTuple):
    """What was counted in a window, and in the one before it. Windows are aligned to the clock."""

    number: int
    current: int
    previous: int

    def at(self, now: float, window: int) -> SlidingCount:
        """The same, seen from another moment.

        Clocks that differ by a little may see a window end again; one that was set back by more
        than a window begins anew.
        """
        ahead = int(now // window) - self.number
        if ahead in (0, -1):
            return self
        return SlidingCount(self.number + ahead, 0, self.current if ahead == 1 else 0)

    def has_room(self, now: float, window: int, limit: int, amount: int) -> bool:
        """Whether an amount fits: the window before counts with what of it is still in sight."""
        weighted = self.previous * _left(now, window) / window + self.current
        return floor(weighted) + amount <= limit

    def plus(self, amount: int) -> SlidingCount:
        return self._replace(current=self.current + amount)

    def due(self, window: int) -> float:
        """When nothing of it counts any more."""
        return float((self.number + 2) * window)

    def view(self, now: float, window: int) -> tuple[int, float, int, float]:
        """As `limits` wants it: previous count and its seconds left, current and its own."""
        left = _left(now, window)
        return self.previous, left if self.previous else 0.0, self.current, left + window


def _left(now: float, window: int) -> float:
    return window - now % window
