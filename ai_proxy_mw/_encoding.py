"""Content codings (RFC 9110, section 8.4): what may be asked for, and taking it off again."""

from __future__ import annotations

import zlib
from functools import lru_cache

from ai_proxy_mw._errors import UpstreamProtocolError
from ai_proxy_mw._http import Body

# zlib's window bits: 16 + for gzip (RFC 1952). "deflate" is the zlib format (RFC 1950).
_WINDOW = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
_PIECE = 64 * 1024


@lru_cache(maxsize=256)
def _accepted(header: bytes) -> frozenset[bytes]:
    """The codings that an `Accept-Encoding` takes (RFC 9110, section 12.5.3)."""
    taken = set()
    for item in header.lower().split(b","):
        coding, _, weight = item.partition(b";")
        if not weight.replace(b" ", b"").startswith(b"q=0") or weight.rstrip(b"0. ")[-1:] != b"=":
            taken.add(coding.strip())
    return frozenset(taken)


def accepts(header: bytes, coding: bytes) -> bool:
    """Whether a caller who sent this `Accept-Encoding` can read the coding."""
    # A longer header is nothing that a client sends; not parsed, and not kept in the cache.
    taken = _accepted(header) if len(header) <= 256 else frozenset()
    return coding in taken or (b"*" in taken and coding in _WINDOW)


def acceptable(header: bytes) -> bytes:
    """What we ask of the upstream: the caller's codings that we could take off ourselves."""
    return _acceptable(header) if len(header) <= 256 else b"identity"


@lru_cache(maxsize=256)
def _acceptable(header: bytes) -> bytes:
    return b", ".join(c for c in (b"gzip", b"deflate") if accepts(header, c)) or b"identity"


def can_decode(coding: bytes) -> bool:
    return coding in _WINDOW


class Decoded(Body):
    """A body with its gzip or deflate coding taken off, piece by piece.

    No piece is larger than 64 KiB however well it was packed. Raises UpstreamProtocolError for
    bytes that are not of that coding, and for an end in the middle of it.
    """

    __slots__ = ("_body", "_inflater")

    def __init__(self, body: Body, coding: bytes) -> None:
        self._body = body
        self._inflater = zlib.decompressobj(_WINDOW[coding])

    @property
    def ended(self) -> bool:
        return self._inflater.eof and self._body.ended

    async def ready(self) -> None:
        await self._body.ready()

    async def __anext__(self) -> bytes:
        while True:
            packed = self._inflater.unconsumed_tail
            if not packed:
                packed = await self._next_packed()
            try:
                piece = self._inflater.decompress(packed, _PIECE)
            except zlib.error:
                raise UpstreamProtocolError from None
            if self._inflater.unused_data:
                raise UpstreamProtocolError
            if piece:
                return piece

    async def _next_packed(self) -> bytes:
        try:
            return await self._body.__anext__()
        except StopAsyncIteration:
            if not self._inflater.eof:
                raise UpstreamProtocolError from None
            raise

    async def aclose(self) -> None:
        await self._body.aclose()
