"""Faults on demand: a queue of what shall go wrong with the next requests."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["fail", "disconnect", "stall"]

ACCEPT = -2
"""The place in a call where the head of the request has come and its body is not read."""
BEFORE_HEAD = -1
"""The place where the request has come and nothing is answered; 0 is behind the answer's head."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing that goes wrong in one call.

    `place` is ACCEPT, BEFORE_HEAD or the number of pieces of the answer's body that went out.
    """

    kind: Kind
    place: int = BEFORE_HEAD
    path: str | None = None
    status: int = 500
    message: str = ""
    type: str = "server_error"
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


def place_of(text: str, *, headers: int) -> int:
    """The place that a word names; `headers` is what that word means here."""
    places = {"accept": ACCEPT, "request": BEFORE_HEAD, "headers": headers}
    if text in places:
        return places[text]
    chunk = re.fullmatch(r"chunk:([0-9]+)", text)
    if chunk is None:
        raise ValueError(f"{text!r}: write 'accept', 'request', 'headers' or 'chunk:N'")
    return int(chunk.group(1))


class Faults:
    """The queue; each request takes the first fault that is meant for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: list[Fault] = []

    def add(self, fault: Fault, times: int) -> None:
        if times < 1:
            raise ValueError(f"times={times}: write a number above 0")
        with self._lock:
            self._queue += [fault] * times

    def take(self, path: str) -> Fault | None:
        if not self._queue:
            return None
        with self._lock:
            for index, fault in enumerate(self._queue):
                if fault.path is None or fault.path == path:
                    return self._queue.pop(index)
        return None

    def clear(self) -> None:
        with self._lock:
            self._queue.clear()
