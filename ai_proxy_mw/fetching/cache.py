"""Pictures that were fetched, for a while, in this process's memory only."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

ENTRY = 512
"""Bytes that an entry takes beside its address and its picture, roughly."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A picture: its bytes, and their format as the bytes say."""

    data: bytes = field(repr=False)
    format: str


class _Entry(NamedTuple):
    fetched: Fetched
    size: int
    until: float


class Cache:
    """The pictures used last, by the address they were asked for under.

    The address is the key and nothing else is: whoever knows it could fetch the picture just as
    well. It may be a signed one, so addresses are never written anywhere.

    max_bytes: of pictures and addresses together; 0 keeps nothing.
    ttl: seconds that a picture is kept.

    For several threads.
    """

    def __init__(self, max_bytes: int, ttl: float, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self.size = 0
        """Bytes that are kept."""

    def get(self, url: str) -> Fetched | None:
        with self._lock:
            entry = self._entries.get(url)
            if entry is None:
                return None
            if entry.until <= self._clock():
                self._drop(url)
                return None
            self._entries.move_to_end(url)
            return entry.fetched

    def put(self, url: str, fetched: Fetched) -> None:
        """Keep it, at the cost of what was used longest ago; not what is too large by itself."""
        size = len(url) + len(fetched.data) + ENTRY
        if size > self._max_bytes:
            return
        with self._lock:
            if url in self._entries:
                self._drop(url)
            while self.size + size > self._max_bytes:
                self._drop(next(iter(self._entries)))
            self._entries[url] = _Entry(fetched, size, self._clock() + self._ttl)
            self.size += size

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self.size = 0

    def _drop(self, url: str) -> None:
        self.size -= self._entries.pop(url).size
