"""Sounds of the kinds that go upstream: whether their headers make sense."""

from __future__ import annotations

import struct

from ai_proxy_mw.schema.sniffing.source import Broken, Source, exactly

_MOST_CHUNKS = 64
"""In front of the format of a WAV, where tags and padding may be."""


def check_sound(kind: str, source: Source) -> None:
    """Look at what `kind_of` has not seen. Raises Broken."""
    if kind == "wav":
        _check_wav(source)
    elif kind == "flac":
        _check_flac(source)


def _check_wav(source: Source) -> None:
    """RIFF (Microsoft and IBM, 1991): a `fmt ` chunk. The file's length is not looked at: who
    writes a stream does not know it and leaves 0 or the largest number.
    """
    position = 12
    for _ in range(_MOST_CHUNKS):
        name, length = struct.unpack("<4sI", exactly(source, position, 8))
        if name == b"fmt ":
            break
        position += 8 + length + length % 2
    else:
        raise Broken("does not tell its format")
    _, channels, rate = struct.unpack("<HHI", exactly(source, position + 8, 16)[:8])
    if length < 16 or not channels or not rate:
        raise Broken("has a format that cannot be")


def _check_flac(source: Source) -> None:
    """RFC 9639, sections 8.1 and 8.2: the first block tells the stream's properties.

    A tag in front of the signature is passed over; its reader has found what is behind it.
    """
    if source.slice(0, 4) != b"fLaC":
        return
    block = exactly(source, 4, 4 + 34)
    is_stream_info, length = block[0] & 0x7F == 0, int.from_bytes(block[1:4], "big")
    rate = int.from_bytes(block[14:17], "big") >> 4
    if not is_stream_info or length != 34 or not rate:
        raise Broken("does not tell its format")
