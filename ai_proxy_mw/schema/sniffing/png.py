"""PNG, third edition (W3C, 2025): sections 5 (chunks) and 11 (which chunks there are)."""

from __future__ import annotations

import struct
from zlib import crc32

from ai_proxy_mw.schema.sniffing.hidden import refuse_more
from ai_proxy_mw.schema.sniffing.source import Broken, Size, Source, exactly, steps

_SIGNATURE = 8
_AROUND = 12  # the length and type in front of a chunk's data, the checksum behind
_MOST = 2**31 - 1

# Section 11.2.1, table 7: the bit depths of each colour type.
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def read_png(source: Source) -> Size:
    """Size and whether it is an APNG, from all chunks' heads. Raises Broken, Polyglot."""
    width, height = _header(exactly(source, _SIGNATURE, _AROUND + 13))
    animated = has_data = False
    position = _SIGNATURE
    for _ in steps(source):
        length, name = struct.unpack(">I4s", exactly(source, position, 8))
        if length > _MOST or not name.isalpha():
            raise Broken("has a chunk that cannot be one")
        position += _AROUND + length
        animated = animated or name == b"acTL"
        has_data = has_data or name == b"IDAT"
        if name == b"IEND":
            break
    else:
        raise Broken("has too many chunks")
    if position > source.size:
        raise Broken("is cut off")
    if not has_data:
        raise Broken("has no image data")
    refuse_more(source, position)
    return Size(width, height, animated)


def _header(chunk: bytes) -> tuple[int, int]:
    length, name, width, height, depth, colour, compression, filters, interlace, checksum = (
        struct.unpack(">I4sIIBBBBBI", chunk)
    )
    if length != 13 or name != b"IHDR" or checksum != crc32(chunk[4:-4]):
        raise Broken("has no header that holds together")
    if not (0 < width <= _MOST and 0 < height <= _MOST):
        raise Broken("has no size that can be")
    if depth not in _DEPTHS.get(colour, ()) or compression or filters or interlace > 1:
        raise Broken("has a header that PNG does not know")
    return width, height
