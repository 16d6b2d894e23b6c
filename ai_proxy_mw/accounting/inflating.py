"""Reads compressed answers without unpacking what the caller gets."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.readers import UsageReader
    from ai_proxy_mw.accounting.usage import Usage

# gzip (RFC 1952), and "deflate", which is the zlib format (RFC 1950; RFC 9110, section 8.4.1).
WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

_PIECE = 64 * 1024
_RATIO = 100
_FREE = 1 << 20


class InflatingReader:
    """Gives another reader the unpacked bytes, a piece of at most 64 KiB at a time.

    It gives up on bytes that are not of the coding, and on more than 1 MiB and a hundred times
    what came in: deflate packs up to a thousand times, real answers far less, and so the work is
    bounded by what the upstream has really sent.
    """

    __slots__ = ("_inflater", "_left", "_reader", "_window")

    def __init__(self, reader: UsageReader, window: int) -> None:
        self._reader = reader
        self._window = window
        self._inflater: zlib._Decompress | None = zlib.decompressobj(window)
        self._left = _FREE

    @property
    def has_said(self) -> bool:
        return self._reader.has_said

    def chunk(self, data: bytes) -> None:
        self._left += _RATIO * len(data)
        while data and self._inflater is not None:
            data = self._piece(self._inflater, data)

    def usage(self) -> Usage | None:
        return self._reader.usage()

    def _piece(self, inflater: zlib._Decompress, data: bytes) -> bytes:
        """Unpack one piece, and tell what is left."""
        try:
            piece = inflater.decompress(data, _PIECE)
        except zlib.error:
            self._inflater = None
            return b""
        self._left -= len(piece)
        if self._left < 0:
            self._inflater = None
            return b""
        if piece:
            self._reader.chunk(piece)
        if inflater.eof:
            # A gzip file may be several in a row (RFC 1952, section 2.2).
            self._inflater = zlib.decompressobj(self._window)
            return inflater.unused_data
        return inflater.unconsumed_tail
