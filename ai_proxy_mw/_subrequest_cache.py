"""Keeps for a short time who the bearer of some credentials is."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy_mw._http import Headers
    from ai_proxy_mw._identity import Identity


class Credentials:
    """Makes a key of the header lines that say who is calling."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(name.lower().encode("ascii") for name in names)

    def key(self, headers: Headers, *place: str | int) -> bytes | None:
        """The SHA-256 of all those lines in their order, and of the place that they were sent to.

        None if there is none of them.
        """
        lines = [line for line in headers.raw if line[0] in self.names]
        if not lines:
            return None
        digest = hashlib.sha256(repr(place).encode())
        for line in lines:
            for part in line:
                # With their lengths, so that no two lists of lines are one text.
                digest.update(b"%d:%b" % (len(part), part))
        return digest.digest()


class Remembered:
    """Callers by key, for `ttl` seconds, the last used `size` of them. For any thread."""

    def __init__(self, ttl: float, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._size = size
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, tuple[float, str | Identity, object]] = OrderedDict()

    def get(self, key: bytes) -> str | Identity | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry[0] <= self._clock():
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return entry[1]

    def put(self, key: bytes, caller: str | Identity, app: object = None) -> None:
        """`app` is whose id is in the key: it is held, so that no other one can get that id."""
        with self._lock:
            self._entries[key] = (self._clock() + self._ttl, caller, app)
            self._entries.move_to_end(key)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)
