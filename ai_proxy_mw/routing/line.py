"""A line that is fair between subjects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Line(Generic[T]):
    """Who waits. Subjects take turns, and within one those who wait longest are first.

    Every step takes the same short time, however many wait: a line that is long is one of a
    process that has no time.
    """

    def __init__(self) -> None:
        # OrderedDict, and not dict, which is slow to find its first item once many have gone.
        self._waiting: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()
        self._sizes: dict[int, OrderedDict[str, None]] = {}
        self._length = 0
        self.most = 0

    def __len__(self) -> int:
        return self._length

    def of(self, subject: str) -> int:
        """How many of a subject wait; `most` is that of the subject with most."""
        waiting = self._waiting.get(subject)
        return 0 if waiting is None else len(waiting)

    def join(self, subject: str, item: T) -> None:
        """Wait behind those of the same subject."""
        waiting = self._waiting.get(subject)
        if waiting is None:
            waiting = self._waiting[subject] = OrderedDict()
        waiting[item] = None
        self._resized(subject, len(waiting) - 1, len(waiting))

    def leave(self, subject: str, item: T) -> None:
        """Wait no longer. Nothing happens to who does not wait."""
        waiting = self._waiting.get(subject)
        if waiting is None or item not in waiting:
            return
        del waiting[item]
        if not waiting:
            del self._waiting[subject]
        self._resized(subject, len(waiting) + 1, len(waiting))

    def next(self) -> T:
        """Take out whose turn it is; there must be somebody. The subject goes to the end."""
        subject, waiting = self._waiting.popitem(last=False)
        item, _ = waiting.popitem(last=False)
        if waiting:
            self._waiting[subject] = waiting
        self._resized(subject, len(waiting) + 1, len(waiting))
        return item

    def drop(self) -> T:
        """Take out who came last of a subject with most waiting; there must be somebody."""
        subject = next(reversed(self._sizes[self.most]))
        item = next(reversed(self._waiting[subject]))
        self.leave(subject, item)
        return item

    def _resized(self, subject: str, before: int, after: int) -> None:
        self._length += after - before
        if before:
            equals = self._sizes[before]
            del equals[subject]
            if not equals:
                del self._sizes[before]
        if after:
            self._sizes.setdefault(after, OrderedDict())[subject] = None
        # One more or one less: who was alone with most has most still.
        if after > self.most or (before == self.most and before not in self._sizes):
            self.most = after
