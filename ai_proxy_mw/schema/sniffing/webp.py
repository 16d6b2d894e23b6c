"""WebP (RFC 9649, section 2; VP8 frames: RFC 6386, section 9.1)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from ai_proxy_mw.schema.sniffing.hidden import refuse_more
from ai_proxy_mw.schema.sniffing.source import Broken, Size, Source, exactly, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

_ANIMATION = 0x02
_STILL = (b"VP8 ", b"VP8L")
_MOVING = (b"ANIM", b"ANMF")


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


def _chunks(source: Source, end: int) -> Iterator[_Chunk]:
    position = 12
    for _ in steps(source):
        if position == end:
            return
        name, length = struct.unpack("<4sI", exactly(source, position, 8))
        yield _Chunk(name, position + 8)
        position += 8 + length + length % 2
        if position > end:
            raise Broken("has a chunk that is longer than the file")
    raise Broken("has too many chunks")


def _read_chunks(source: Source, chunks: Iterator[_Chunk]) -> Size:
    first = next(chunks, None)
    if first is None:
        raise Broken("has no picture in it")
    canvas = _still(source, first) if first.name in _STILL else _canvas(source, first)
    animated = canvas.animated
    stills, frames = int(first.name in _STILL), 0
    for chunk in chunks:
        animated = animated or chunk.name in _MOVING
        if chunk.name in _STILL:
            stills += 1
            # Section 2.7: the canvas of a still picture is that of its one frame. Some read the
            # one number, some the other.
            if _still(source, chunk)[:2] != canvas[:2]:
                raise Broken("has a picture of another size than its header tells")
        elif chunk.name == b"ANMF":
            frames += 1
            _check_frame(exactly(source, chunk.start, 16), canvas)
    if animated and not frames:
        raise Broken("is animated and has no frames")
    if not animated and stills != 1:
        raise Broken("has not one picture in it")
    return canvas._replace(animated=animated)


def _canvas(source: Source, chunk: _Chunk) -> Size:
    if chunk.name != b"VP8X":
        raise Broken("does not begin with a picture")
    head = exactly(source, chunk.start, 10)
    return Size(_three(head, 4) + 1, _three(head, 7) + 1, bool(head[0] & _ANIMATION))


def _check_frame(head: bytes, canvas: Size) -> None:
    right = _three(head, 0) * 2 + _three(head, 6) + 1
    bottom = _three(head, 3) * 2 + _three(head, 9) + 1
    if right > canvas.width or bottom > canvas.height:
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
