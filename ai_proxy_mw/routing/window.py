"""How many calls there were lately, and how many of them failed."""

from __future__ import annotations

BUCKETS = 10
"""The oldest tenth is forgotten at once: between 0.9 and 1 of the window is counted."""


class Window:
    """The last `seconds`. Takes the same memory and time however many calls there are."""

    __slots__ = ("_calls", "_failures", "_slot", "_width", "calls", "failures")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BUCKETS
        self.clear()

    def clear(self) -> None:
        self._calls = [0] * BUCKETS
        self._failures = [0] * BUCKETS
        self._slot = 0
        self.calls = 0
        self.failures = 0

    def add(self, now: float, failures: int) -> None:
        """Count a call. failures: 1 if it has failed, else 0."""
        slot = int(now / self._width)
        if slot > self._slot:
            self._forget(slot)
        index = self._slot % BUCKETS
        self._calls[index] += 1
        self._failures[index] += failures
        self.calls += 1
        self.failures += failures

    def roll(self, now: float) -> None:
        """Forget what is too old by now."""
        slot = int(now / self._width)
        if slot > self._slot:
            self._forget(slot)

    def _forget(self, slot: int) -> None:
        for ahead in range(min(slot - self._slot, BUCKETS)):
            index = (slot - ahead) % BUCKETS
            self.calls -= self._calls[index]
            self.failures -= self._failures[index]
            self._calls[index] = self._failures[index] = 0
        self._slot = slot
