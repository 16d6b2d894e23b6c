"""Where a count stands in its windows. Pure arithmetic: times in seconds, counts whole."""

from __future__ import annotations

from math import ceil, floor

from msgspec import Struct

from ai_proxy_mw._limits import Limit

LEASE = 30
"""Seconds after which a place of `concurrent` that nobody has renewed begins to be free."""


class Position(Struct, frozen=True, gc=False):
    """A moment within the windows of a limit, which are aligned to the clock."""

    number: int
    left: float  # seconds until the next window
    share: float  # how much of the window before counts

    @classmethod
    def at(cls, limit: Limit, now: float) -> Position:
        window = limit.window or LEASE
        number = int(now // window)
        left = (number + 1) * window - now
        if limit.strategy == "fixed" and limit.window:
            return cls(number, left, 0.0)
        return cls(number, left, left / window if limit.window else 1.0)


def used(position: Position, current: int, previous: int) -> int:
    """What counts now, of this window and of the one before."""
    return current + floor(previous * position.share)


def wait(limit: Limit, position: Position, current: int, previous: int, cost: int) -> int:
    """Whole seconds until `cost` more would fit; at least 1, at most the window."""
    window = limit.window
    if not window:
        return 1  # until somebody's call ends, which nobody knows
    room = limit.amount - cost
    if limit.strategy == "fixed" or room < 0:
        seconds = position.left
    elif current <= room:
        # The window before has too much; its share shrinks until the next window begins.
        seconds = position.left - window * (room - current) / max(previous, 1)
    else:
        # This window has too much; it is then the one before, and its share shrinks.
        seconds = position.left + window * (1 - room / current)
    return max(1, min(window, ceil(seconds)))
