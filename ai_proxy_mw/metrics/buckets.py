"""Parts of time, and what the calls of each were."""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ai_proxy_mw.metrics.base import By, Window
from ai_proxy_mw.metrics.cells import Cells
from ai_proxy_mw.metrics.documents import Counted, encode, encode_records

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.record import Record

RECENT = 50
"""Records that each process keeps for those who look at what is going on."""

RECENT_FOR = 3600.0
"""Seconds that others can see them after the last one."""


class Tier(NamedTuple):
    """The parts that a window is made of.

    length: seconds of one. parts: how many of them a window has, the current one among them.
    """

    name: str
    length: int
    parts: int

    def start(self, now: float) -> int:
        """When the current part has begun."""
        return int(now // self.length) * self.length

    def starts(self, now: float) -> range:
        """When the parts of the window have begun, the oldest first. Days are those of UTC."""
        last = self.start(now)
        return range(last - (self.parts - 1) * self.length, last + 1, self.length)

    def keep(self, start: int, now: float) -> float:
        """Seconds that a part is of use: two parts longer than it is shown, for slow clocks."""
        return start + (self.parts + 2) * self.length - now


TIERS: dict[Window, Tier] = {
    "1h": Tier("m", 60, 60),
    "24h": Tier("h", 3600, 24),
    "30d": Tier("d", 86_400, 30),
}


ALL = "all"
"""The name of the sum of several documents, in the place of a random one."""

_NAMES = re.compile("([0-9]{1,12}):([0-9a-z]{1,32})")


class Place(NamedTuple):
    """What the key of a document says."""

    start: int
    name: str


def place_of(key: str, prefix: str) -> Place | None:
    """None for the key of something else. prefix: of the tier."""
    found = _NAMES.fullmatch(key, len(prefix))
    return Place(int(found[1]), found[2]) if found else None


class Sheet(ABC):
    """Something that is written down whole, each time that it has changed.

    Its name in the store is its own, so that nobody ever overwrites what another has counted, and
    a write that was done although it seemed to fail may be repeated.
    """

    def __init__(self, prefix: str) -> None:
        self.key = f"{prefix}{secrets.token_hex(8)}"
        self.is_busy = False
        """Whether it is being written."""
        self._version = 0
        self._stored = 0
        self._again = False

    @property
    def is_dirty(self) -> bool:
        """Whether the store may not have it as it is."""
        return self._again or self._version != self._stored

    def changed(self) -> None:
        self._version += 1

    def take(self) -> tuple[bytes, int]:
        """What to write, and its version."""
        return self._document(), self._version

    def stored(self, version: int) -> None:
        # After a failure once more: what seemed lost may come late, behind what was sent after it.
        self._again = self._again and self._stored != version
        self._stored = version

    def not_stored(self) -> None:
        self._again = True
        self._stored = 0

    @abstractmethod
    def keep(self, now: float) -> float:
        """Seconds that it is of use."""

    @abstractmethod
    def _document(self) -> bytes: ...


class Bucket(Sheet):
    """One part of time, as this process has counted it since this was made."""

    def __init__(self, prefix: str, tier: Tier, start: int) -> None:
        super().__init__(f"{prefix}{tier.name}:{start}:")
        self.tier = tier
        self.start = start
        self._cells = Cells()

    def is_over(self, now: float) -> bool:
        return now >= self.start + self.tier.length

    def keep(self, now: float) -> float:
        return self.tier.keep(self.start, now)

    def merge(self, cells: Cells) -> None:
        self._cells.merge(cells)
        self.changed()

    def counted(self, by: By) -> Counted:
        return Counted(self._cells.total, self._cells.by[by], [])

    def _document(self) -> bytes:
        return encode(self._cells)


class Tail(Sheet):
    """The latest records of this process."""

    def __init__(self, prefix: str) -> None:
        super().__init__(f"{prefix}r:")
        self.records: deque[Record] = deque(maxlen=RECENT)

    def keep(self, now: float) -> float:  # noqa: ARG002 - from when it is written
        return RECENT_FOR

    def _document(self) -> bytes:
        return encode_records(self.records)
