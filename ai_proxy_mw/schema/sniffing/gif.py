"""GIF87a and GIF89a (the specification of 1990: sections 18 to 27)."""

from __future__ import annotations

import struct

from ai_proxy_mw.schema.sniffing.hidden import refuse_more
from ai_proxy_mw.schema.sniffing.source import Broken, Size, Source, exactly, steps

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B


def read_gif(source: Source) -> Size:
    """Size and whether there is more than one frame, from the blocks. Raises Broken, Polyglot."""
    return _Blocks(source).read()


class _Blocks:
    """Goes from block to block."""

    def __init__(self, source: Source) -> None:
        self._source = source
        # Sub-blocks have at most 255 bytes, and frames that change little are small.
        self._steps = len(steps(source, least=64))
        self._position = 6  # behind the signature
        self._width = self._height = self._frames = 0

    def read(self) -> Size:
        width, height, flags = struct.unpack("<HHB", self._take(7)[:5])
        self._width, self._height = width, height
        self._skip_colours(flags)
        while (kind := self._take(1)[0]) != _TRAILER:
            self._step()
            if kind == _IMAGE:
                self._frame()
            elif kind == _EXTENSION:
                self._take(1)  # its label
                self._skip_sub_blocks()
            elif kind:  # encoders are known that leave zeros between blocks
                raise Broken("has a block that GIF does not know")
        if not (self._frames and self._width and self._height):
            raise Broken("has no picture in it")
        refuse_more(self._source, self._position)
        return Size(self._width, self._height, self._frames > 1)

    def _frame(self) -> None:
        left, top, width, height, flags = struct.unpack("<HHHHB", self._take(9))
        # Decoders make room for a frame that is larger than the screen.
        self._width = max(self._width, left + width)
        self._height = max(self._height, top + height)
        self._frames += 1
        self._skip_colours(flags)
        if not 1 <= self._take(1)[0] <= 11:
            raise Broken("has a frame with an impossible code size")
        self._skip_sub_blocks()

    def _skip_colours(self, flags: int) -> None:
        if flags & 0x80:
            self._position += 3 << (flags & 7) + 1

    def _skip_sub_blocks(self) -> None:
        # Nearly all of a file is walked over here, so it is written for speed.
        read = self._source.slice
        position = self._position
        for step in range(self._steps):
            length = read(position, position + 1)
            if not length:
                raise Broken("is cut off")
            position += 1 + length[0]
            if length == b"\0":
                self._position = position
                self._steps -= step
                return
        raise Broken("has too many blocks")

    def _take(self, count: int) -> bytes:
        data = exactly(self._source, self._position, count)
        self._position += count
        return data

    def _step(self) -> None:
        self._steps -= 1
        if not self._steps:
            raise Broken("has too many blocks")
