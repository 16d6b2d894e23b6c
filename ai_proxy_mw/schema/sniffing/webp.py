"""WebP (RFC 9649, section 2; VP8 frames: RFC 6386, section 9.1)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ai_proxy_mw.schema.sniffing.hidden import refuse_more
from ai_proxy_mw.schema.sniffing.source import Broken, Size, Source, exactly, steps

_ANIMATION = 0x02
_STILL = (b"VP8 ", b"VP8L")


class _Chunk(NamedTuple):
    name: bytes
    start: int
    """Of its data."""


def read_webp(source: Source) -> Size:
    """Size and whether it is animated, from the heads of the chunks. Raises Broken, Polyglot."""
    size = struct.unpack("<I", exactly(source, 4, 4))[0]
    end = 8 + size + size % 2
    if end > source.size:
        raise Broken("is cut off")
    found = _read_chunks(source, _chunks(source, end))
    refuse_more(source, end)
    return found


def _chunks(source: Source, end: int) -> list[_Chunk]:
    chunks: list[_Chunk] = []
    position = 12
    for _ in steps(source):
        if position == end:
            return chunks
        name, length = struct.unpack("<4sI", exactly(source, position, 8))
        chunks.append(_Chunk(name, position + 8))
        position += 8 + length + length % 2
        if position > end:
            raise Broken("has a chunk that is longer than the file")
    raise Broken("has too many chunks")


def _read_chunks(source: Source, chunks: list[_Chunk]) -> Size:
    if not chunks:
        raise Broken("has no picture in it")
    first = chunks[0]
    if first.name in _STILL:
        return _still(source, first)
    if first.name != b"VP8X":
        raise Broken("does not begin with a picture")
    head = exactly(source, first.start, 10)
    width, height = _three(head, 4) + 1, _three(head, 7) + 1
    if head[0] & _ANIMATION or any(chunk.name in (b"ANIM", b"ANMF") for chunk in chunks):
        _check_frames(source, chunks, width, height)
        return Size(width, height, animated=True)
    pictures = [_still(source, chunk) for chunk in chunks if chunk.name in _STILL]
    # Section 2.7: the canvas of a still picture is that of its one frame. Some read the one
    # number, some the other.
    if pictures != [Size(width, height, animated=False)]:
        raise Broken("has not the one picture that its header tells of")
    return pictures[0]


def _check_frames(source: Source, chunks: list[_Chunk], width: int, height: int) -> None:
    frames = [exactly(source, chunk.start, 16) for chunk in chunks if chunk.name == b"ANMF"]
    if not frames:
        raise Broken("is animated and has no frames")
    for frame in frames:
        right = _three(frame, 0) * 2 + _three(frame, 6) + 1
        bottom = _three(frame, 3) * 2 + _three(frame, 9) + 1
        if right > width or bottom > height:
            raise Broken("has a frame outside its canvas")


def _still(source: Source, chunk: _Chunk) -> Size:
    head = exactly(source, chunk.start, 10)
    if chunk.name == b"VP8L":
        bits = struct.unpack("<I", head[1:5])[0]
        if head[0] != 0x2F or bits >> 29:
            raise Broken("has lossless data that cannot be such")
        return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, animated=False)
    width, height = (side & 0x3FFF for side in struct.unpack("<HH", head[6:]))
    is_key_frame = not head[0] & 1
    if not is_key_frame or head[3:6] != b"\x9d\x01\x2a" or not width or not height:
        raise Broken("has lossy data that cannot be such")
    return Size(width, height, animated=False)


def _three(data: bytes, start: int) -> int:
    return int.from_bytes(data[start : start + 3], "little")
