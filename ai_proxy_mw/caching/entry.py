"""An answer as it is kept, and as the bytes that a store holds."""

from __future__ import annotations

import operator
import re
import time
import zlib
from itertools import pairwise
from math import inf
from typing import Annotated

import msgspec

KEPT_HEADERS = frozenset(
    {b"content-disposition", b"content-language", b"content-type", b"etag", b"last-modified"}
)
"""Of the upstream's header lines; the others tell of one call, or of one connection."""

_MAGIC = b"aipc\x01"
"""The last byte is the version."""

_CHECKSUM = slice(5, 9)
_HEAD_LENGTH = slice(9, 13)
_HEAD = 13

_DAY = 86_400
"""Seconds; no clock is further ahead than that."""

_VALUE = re.compile(rb"[\t -~\x80-\xff]*+")

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Success = Annotated[int, msgspec.Meta(ge=200, le=299)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """An answer that is kept.

    created: seconds since the epoch.
    ttl, keep: seconds that it is fresh, and that it may then be given although it is stale.
    coding: its content coding, empty for none.
    input_tokens, output_tokens, micro_usd: what it has cost, and each hit saves.
    ends: where the frames of a stream end, the last one at the end of the body; empty for what is
        one piece.
    times: when each frame came, in milliseconds since the first.
    """

    key: str
    created: float
    ttl: float
    keep: float = 0.0
    status: _Success
    headers: list[tuple[bytes, bytes]]
    event_stream: bool = False
    coding: bytes = b""
    endpoint: str
    model: str = ""
    input_tokens: _Count = 0
    output_tokens: _Count = 0
    micro_usd: _Count = 0
    ends: list[_Count] = []
    times: list[_Count] = []
    body: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """The bytes for a store: magic, checksum of the rest, length of the head, head, body."""
    head = _encoder.encode(msgspec.structs.replace(entry, body=b""))
    length = len(head).to_bytes(4, "big")
    checksum = zlib.crc32(entry.body, zlib.crc32(head, zlib.crc32(length)))
    return b"".join((_MAGIC, checksum.to_bytes(4, "big"), length, head, entry.body))


def decode(key: str, data: bytes) -> Entry | None:
    """The entry of that key, None for bytes that are anything else. Never raises.

    Who can write to the store may have put there what they want, rows of other keys among it.
    """
    rest = memoryview(data)[_HEAD_LENGTH.start :]
    if not data.startswith(_MAGIC) or zlib.crc32(rest) != int.from_bytes(data[_CHECKSUM], "big"):
        return None
    end = _HEAD + int.from_bytes(data[_HEAD_LENGTH], "big")
    try:
        entry = _decoder.decode(memoryview(data)[_HEAD:end])
    except (ValueError, RecursionError):
        return None
    msgspec.structs.force_setattr(entry, "body", data[end:])
    return entry if entry.key == key and _is_sound(entry) else None


def _is_sound(entry: Entry) -> bool:
    return (
        0 <= entry.created <= time.time() + _DAY
        and 0 <= entry.ttl < inf
        and 0 <= entry.keep < inf
        and _VALUE.fullmatch(entry.coding) is not None
        and all(name in KEPT_HEADERS and _VALUE.fullmatch(value) for name, value in entry.headers)
        and ((not entry.ends and not entry.times) or _are_frames(entry))
    )


def _are_frames(entry: Entry) -> bool:
    ends, times = entry.ends, entry.times
    ascending = all(map(operator.lt, [0, *ends], ends)) and all(map(operator.le, times, times[1:]))
    return ascending and ends[-1:] == [len(entry.body)] and len(times) in (0, len(ends))


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
