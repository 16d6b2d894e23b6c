"""Kept answers, and those of another's call, as the answer to this one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ai_proxy_mw._encoding import settle_coding
from ai_proxy_mw._header_rules import HARMLESS
from ai_proxy_mw._http import Body, Response
from ai_proxy_mw.caching.entry import KEPT_HEADERS, frames, pieces

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.caching.entry import Entry
    from ai_proxy_mw.caching.flight import Head, Listener

_AT_ONCE = 16 * 1024
"""Bytes that whole frames are put together to: each piece is a call of the server's `send`."""

_AS_IT_COMES = (b"x-accel-buffering", b"no")
_OF_THE_BODY = (b"content-encoding", b"content-length")
_WHEN_AGAIN = (b"retry-after", b"retry-after-ms", b"x-should-retry")
"""Of an error: who shares it shall wait as well."""

_PASSED_ON = KEPT_HEADERS.union(_OF_THE_BODY, _WHEN_AGAIN)


class Frames(Body):
    """A stream that is all there."""

    __slots__ = ("_at", "_pieces")

    def __init__(self, found: list[bytes]) -> None:
        self._pieces = found
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at == len(self._pieces)

    async def __anext__(self) -> bytes:
        if self.ended:
            raise StopAsyncIteration
        self._at += 1
        return self._pieces[self._at - 1]

    async def aclose(self) -> None:
        self._at = len(self._pieces)


class PacedFrames(Frames):
    """The same at the pace that it came at; `times` are milliseconds after the first frame."""

    __slots__ = ("_begun", "_times")

    def __init__(self, found: list[bytes], times: list[int]) -> None:
        super().__init__(found)
        self._times = times
        self._begun: float | None = None

    async def __anext__(self) -> bytes:
        if not self.ended:
            now = asyncio.get_running_loop().time()
            if self._begun is None:
                self._begun = now
            await asyncio.sleep(self._begun + self._times[self._at] / 1000 - now)
        return await super().__anext__()


def kept(
    entry: Entry, marks: RawHeaders, *, paced: bool = False, bodyless: bool = False
) -> Response:
    """The response that gives a kept answer; `marks` are what it says of the cache."""
    headers = [*entry.headers, (b"cache-control", b"private"), *HARMLESS, *marks]
    if entry.event_stream:
        response = Response(entry.status, [*headers, _AS_IT_COMES], _stream(entry, paced=paced))
        response.event_stream = True
        response.aside = entry.aside
        return response
    headers.append((b"content-length", b"%d" % len(entry.body)))
    return Response(entry.status, headers, b"" if bodyless else entry.body)


def shared(request: Request, head: Head, listener: Listener, marks: RawHeaders) -> Response:
    """The response that gives the answer of another's call, without what was said to him alone."""
    headers = [line for line in head.headers if line[0] in _PASSED_ON]
    headers += [(b"cache-control", b"private"), *HARMLESS, *marks]
    response = Response(head.status, headers, listener)
    response.event_stream = head.event_stream
    coding = coding_of(head.headers)
    if head.event_stream:
        headers.append(_AS_IT_COMES)
    elif coding:
        settle_coding(request, response, coding)
    return response


def coding_of(headers: RawHeaders) -> bytes:
    """The `Content-Encoding` of an answer; empty for none."""
    for name, value in headers:
        if name == b"content-encoding":
            return value.strip().lower()
    return b""


def _stream(entry: Entry, *, paced: bool) -> Frames:
    if paced and entry.times:
        return PacedFrames(frames(entry), entry.times)
    return Frames(pieces(entry, _AT_ONCE))
