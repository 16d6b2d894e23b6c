"""JPEG (ITU-T T.81, annex B): size from the frame header, and what is behind the end."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ai_proxy_mw.schema.sniffing.hidden import PADDING, TAIL
from ai_proxy_mw.schema.sniffing.source import Broken, Polyglot, Size, Source, exactly, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

_EOI = b"\xff\xd9"
_START_OF_SCAN = 0xDA

# Table B.1. Of C0 to CF, three are no frame headers: tables of Huffman codes and of arithmetic
# coding, and a reserved one. TEM and restart markers stand alone, without a length.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_NOTHING = frozenset({0x00, 0xD8, 0xD9})  # stuffing, and where a picture begins and ends

_WINDOW = 48 * 1024


def read_jpeg(source: Source) -> Size:
    """Size, from the segments before the first scan. Raises Broken, Polyglot.

    Behind the end there may be padding, and what cameras put there: another JPEG (MPO; gain maps
    of HDR pictures), the video of a motion photo, the notes of Samsung's. Else photographs as
    phones take them would be refused.
    """
    size, scan = _frame_and_scan(source)
    _check_end(source, scan)
    return size


def _frame_and_scan(source: Source) -> tuple[Size, int]:
    """The size, and where the header of the first scan ends."""
    size, end = None, 0
    for marker, start, end in _segments(source):
        if marker in _FRAMES:
            if size is not None:
                raise Broken("has two frame headers")
            size = _frame(source.slice(start, end))
    if size is None:
        raise Broken("has no frame header")
    return size, end


def _segments(source: Source) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each up to the first scan's, its length included."""
    position = 2
    for _ in steps(source):
        prefix, marker = exactly(source, position, 2)
        if prefix != 0xFF:
            raise Broken("has something between its segments")
        if marker == 0xFF:  # a fill byte, of which there may be any number
            position += _fill(source, position)
            continue
        position += 2
        if marker in _ALONE:
            continue
        if marker in _NOTHING:
            raise Broken("has no picture in it")
        length = struct.unpack(">H", exactly(source, position, 2))[0]
        if length < 2 or position + length > source.size:
            raise Broken("has a segment that is longer than the file")
        yield marker, position, position + length
        if marker == _START_OF_SCAN:
            return
        position += length
    raise Broken("has too many segments")


def _fill(source: Source, start: int) -> int:
    """How many bytes are before the last FF in a row of them, as far as one looks at once."""
    # A large part would be decoded again and again where fill bytes are few and many times.
    ahead = source.slice(start, start + 64)
    return len(ahead) - len(ahead.lstrip(b"\xff")) - 1


def _frame(segment: bytes) -> Size:
    """Section B.2.2. A height of 0, to be told behind the first scan, few decoders know."""
    if len(segment) < 8:
        raise Broken("has a frame header that is too short")
    precision, height, width, components = struct.unpack(">BHHB", segment[2:8])
    if len(segment) != 8 + 3 * components or not components or not 2 <= precision <= 16:
        raise Broken("has a frame header that JPEG does not know")
    if not width or not height:
        raise Broken("has no size that can be")
    return Size(width, height, animated=False)


def _check_end(source: Source, scan: int) -> None:
    tail = source.slice(max(scan, source.size - TAIL), source.size)
    if tail.rstrip(PADDING).endswith(_EOI):
        return
    end = _end_of_image(source, scan)
    behind = source.slice(end, end + 64).lstrip(PADDING)
    is_jpeg = behind.startswith(b"\xff\xd8\xff")
    is_video = b"ftyp" in behind[:8]  # zeros of the length in front of it may be gone
    if not (is_jpeg or is_video or _is_samsung(tail)):
        raise Polyglot("has something behind its end")


def _end_of_image(source: Source, scan: int) -> int:
    """Behind the first end marker; data of a scan never hold one (section B.1.1.5)."""
    for start in range(scan, source.size, _WINDOW):
        found = source.slice(start, start + _WINDOW + 1).find(_EOI)
        if found >= 0:
            return start + found + 2
    raise Broken("is cut off")


def _is_samsung(tail: bytes) -> bool:
    """Notes end with `SEFH`, a table, the table's length and `SEFT`, as ExifTool reads them."""
    if not tail.endswith(b"SEFT") or len(tail) < 8:
        return False
    length = struct.unpack("<I", tail[-8:-4])[0]
    return tail[: len(tail) - 8][-length:].startswith(b"SEFH")
