"""Server-sent events out of bytes, however these were cut (WHATWG HTML, section 9.2.6).

No I/O: bytes in, the data of whole events out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_EVENT = 1024 * 1024
"""Bytes of an event; a larger one is passed over."""

# Atomic, for CR LF must not be taken for two ends of lines.
EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """`event` is its name, empty where it has none, which means `message`."""

    event: str
    data: bytes


class EventParser:
    """Holds the beginning of an event until its end has come, and no more than `max_event`."""

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max = max_event
        self._held = bytearray()
        self._begun = False
        self._skips = False
        self.skipped = 0
        """How many events were too large."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that end here. One without data is none."""
        alone = self.alone(data)
        if alone is not None:
            return [Event("", alone)]
        seen = max(0, len(self._held) - 3)
        self._held += data
        if not self._begun and self._held.startswith(_BOM):
            del self._held[:3]
        self._begun = self._begun or len(self._held) > 2
        return self._whole_events(seen)

    def alone(self, data: bytes) -> bytes | None:
        """The data of the one event that these bytes are, as nearly all come, if it has no name.

        None where they are anything else, or something is held: they have not been fed then.
        """
        if self._held or not _is_one_line(data):
            return None
        self._begun = True
        return data[6:-2]

    def _whole_events(self, seen: int) -> list[Event]:
        found = []
        held = self._held
        while end := EVENT_END.search(held, seen):
            event = bytes(held[: end.start()])
            del held[: end.end()]
            seen = 0
            if self._skips or len(event) > self._max:
                self._skips = False
                self.skipped += 1
                continue
            whole = event_of(event)
            if whole is not None:
                found.append(whole)
        if len(held) > self._max:
            self._skips = True
            del held[:-3]  # its end may have begun
        return found


def _is_one_line(data: bytes) -> bool:
    end = data.find(b"\n")
    return (
        end == len(data) - 2
        and data.endswith(b"\n")
        and data[:6] == b"data: "
        and b"\r" not in data
    )


def event_of(text: bytes) -> Event | None:
    """The event of these lines; None where they have no data."""
    name = b""
    lines = []
    for line in _LINE_END.split(text):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return Event(name.decode("utf-8", "replace"), b"\n".join(lines)) if lines else None
