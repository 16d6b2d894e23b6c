"""Content codings (RFC 9110, section 8.4): what may be asked for, and taking it off again."""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import UpstreamProtocolError
from ai_proxy_mw._http import Body

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response

# zlib's window bits: 16 + for gzip (RFC 1952). "deflate" is the zlib format (RFC 1950).
_WINDOW = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
_PIECE = 64 * 1024
_OF_THE_CODING = (b"content-encoding", b"content-length", b"etag")


@lru_cache(maxsize=256)
def _weighed(header: bytes) -> dict[bytes, bool]:
    """Which codings an `Accept-Encoding` takes or refuses (RFC 9110, section 12.5.3)."""
    taken = {}
    for item in header.lower().split(b","):
        coding, _, weight = item.partition(b";")
        refused = re.fullmatch(rb"\s*q\s*=\s*0(\.0*)?\s*", weight) is not None
        taken[coding.strip()] = not refused
    return taken


def accepts(header: bytes, coding: bytes) -> bool:
    """Whether a caller who sent this `Accept-Encoding` can read the coding."""
    # A longer header is nothing that a client sends; not parsed, and not kept in the cache.
    weighed = _weighed(header) if len(header) <= 256 else {}
    return weighed.get(coding, coding in _WINDOW and weighed.get(b"*", False))


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

    __slots__ = ("_begun", "_body", "_first", "_inflater", "_window")

    def __init__(self, body: Body, coding: bytes) -> None:
        self._body = body
        self._window = _WINDOW[coding]
        self._inflater = zlib.decompressobj(self._window)
        self._begun = False
        self._first = b""

    @property
    def ended(self) -> bool:
        inflater = self._inflater
        whole = inflater.eof and not inflater.unused_data
        return (whole or not self._begun) and not self._first and self._body.ended

    async def ready(self) -> None:
        if not self._first:
            try:
                self._first = await self._next()
            except StopAsyncIteration:
                pass  # and it is said again to who reads

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._next()

    async def _next(self) -> bytes:
        while True:
            packed = self._inflater.unconsumed_tail or await self._next_packed()
            try:
                piece = self._inflater.decompress(packed, _PIECE)
            except zlib.error:
                raise UpstreamProtocolError from None
            if piece:
                return piece

    async def _next_packed(self) -> bytes:
        if self._inflater.eof and self._inflater.unused_data:
            # A gzip file may be several in a row (RFC 1952, section 2.2).
            rest = self._inflater.unused_data
            self._inflater = zlib.decompressobj(self._window)
            return rest
        try:
            packed = await self._body.__anext__()
        except StopAsyncIteration:
            if self._begun and not self._inflater.eof:
                raise UpstreamProtocolError from None
            raise
        self._begun = True
        if self._inflater.eof:
            self._inflater = zlib.decompressobj(self._window)
        return packed

    async def aclose(self) -> None:
        await self._body.aclose()


def settle_coding(request: Request, response: Response, coding: bytes) -> None:
    """Compressed answers pass compressed to who accepts that; event streams never do."""
    response.headers.append((b"vary", b"Accept-Encoding"))  # for caches on the way
    accepted = accepts((request.headers.get("accept-encoding") or "").encode("latin-1"), coding)
    if coding == b"identity" or (accepted and not response.event_stream):
        return
    if not can_decode(coding):
        raise UpstreamProtocolError
    response.body = Decoded(response.body, coding)
    response.headers = [line for line in response.headers if line[0] not in _OF_THE_CODING]
