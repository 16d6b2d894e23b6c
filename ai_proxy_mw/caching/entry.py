"""An answer as it is kept, and as the bytes that a store holds."""

from __future__ import annotations

import operator
import struct
import time
import zlib
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Annotated

import msgspec

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

KEPT_HEADERS = frozenset(
    {b"content-disposition", b"content-language", b"content-type", b"etag", b"last-modified"}
)
"""Of the upstream's header lines; the others tell of one call, or of one connection."""

_MAGIC = b"aipc\x01"
"""The last byte is the version."""

_FRONT = struct.Struct(">5sII")
"""Magic, checksum of all that follows it, length of the head."""

_CHECKED = 9
"""Where begins what the checksum is of."""

_DAY = 86_400
"""Seconds; no clock is further ahead than that."""

_PLAIN = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
"""What the value of a header may be of (RFC 9110, section 5.5)."""

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Success = Annotated[int, msgspec.Meta(ge=200, le=299)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """An answer that is kept.

    created: seconds since the epoch.
    ttl, keep: seconds that it is fresh, and that it may then be given although it is stale.
    ends: where the frames of a stream end, the last one at the end of the body; empty for what is
        one piece.
    times: when each frame came, in milliseconds since the first.
    aside: events that were taken out of the stream, which no caller is given. It has come later
        than the rest: entries without it are read, and who does not know it reads none that has it.
    """

    key: str
    created: float
    ttl: float
    keep: float = 0.0
    status: _Success
    headers: list[tuple[bytes, bytes]]
    event_stream: bool = False
    endpoint: str
    model: str = ""
    ends: list[_Count] = []
    times: list[_Count] = []
    body: bytes = b""
    aside: list[bytes] = []

    @property
    def content_type(self) -> str:
        return content_type_of(self.headers)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """The bytes for a store: magic, checksum of the rest, length of the head, head, body."""
    head = _encoder.encode(msgspec.structs.replace(entry, body=b""))
    length = len(head)
    checksum = zlib.crc32(entry.body, zlib.crc32(head, zlib.crc32(length.to_bytes(4, "big"))))
    return b"".join((_FRONT.pack(_MAGIC, checksum, length), head, entry.body))


def decode(key: str, data: bytes) -> Entry | None:
    """The entry of that key, None for bytes that are anything else. Never raises.

    Who can write to the store may have put there what they want, rows of other keys among it.
    """
    if len(data) < _FRONT.size:
        return None
    magic, checksum, length = _FRONT.unpack_from(data)
    if magic != _MAGIC or zlib.crc32(memoryview(data)[_CHECKED:]) != checksum:
        return None
    end = _FRONT.size + length
    try:
        entry = _decoder.decode(data[_FRONT.size : end])
    except (ValueError, RecursionError):
        return None
    msgspec.structs.force_setattr(entry, "body", data[end:])
    return entry if entry.key == key and _is_sound(entry) else None


def _is_sound(entry: Entry) -> bool:
    return (
        # Written so that a NaN is refused, too.
        0 <= entry.created <= time.time() + _DAY
        and 0 <= entry.ttl < inf
        and 0 <= entry.keep < inf
        and _are_kept(entry.headers)
        and ((not entry.ends and not entry.times) or _are_frames(entry))
    )


def _are_kept(headers: list[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        if name not in KEPT_HEADERS or value.translate(None, _PLAIN):
            return False
    return True


def _are_frames(entry: Entry) -> bool:
    ends, times = entry.ends, entry.times
    ascending = all(map(operator.lt, [0, *ends], ends)) and all(map(operator.le, times, times[1:]))
    return ascending and ends[-1:] == [len(entry.body)] and len(times) in (0, len(ends))


def content_type_of(headers: RawHeaders) -> str:
    """The content type as its first line has it; empty for none."""
    for name, value in headers:
        if name == b"content-type":
            return value.decode("latin-1")
    return ""


def frames(entry: Entry) -> list[bytes]:
    """The frames of a stream; of what is one piece, that piece."""
    ends = [0, *entry.ends] if entry.ends else [0, len(entry.body)]
    return [entry.body[start:end] for start, end in pairwise(ends)]


def pieces(entry: Entry, at_least: int) -> list[bytes]:
    """Whole frames, joined to pieces of at least that many bytes; the last may have less."""
    found = []
    start = 0
    for end in entry.ends:
        if end - start >= at_least:
            found.append(entry.body[start:end])
            start = end
    if start < len(entry.body):
        found.append(entry.body[start:])
    return found
