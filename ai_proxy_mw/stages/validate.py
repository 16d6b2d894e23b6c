"""Reads the call where somebody further in must know it, and judges it before it costs money."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ai_proxy_mw.schema.call import JSON_ENDPOINTS, Call, check_media
from ai_proxy_mw.schema.remembered import remembered
from ai_proxy_mw.schema.unpack import unpack

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._types import Handler
    from ai_proxy_mw.schema.reader import Reader

_LONG_WORK = 512 * 1024
"""Bytes from which on a body is judged in a thread: a millisecond of the loop of all calls."""


def _is_plain(request: Request) -> bool:
    """Whether the body is said to be JSON, and nothing else is said of it; as mostly."""
    said = request.said
    return (
        said.get(b"content-type") == b"application/json"
        and b"content-encoding" not in said
        and request.says_nothing_twice
    )


class ValidateStage:
    """Bodies that nobody must know pass unread, in pieces, as they come.

    reader: judges what is read; None to read only what somebody must know.
    always: whether somebody must know each call.
    again: whether the same calls come again and again, as they do where they are answered from
        a cache.
    """

    def __init__(self, reader: Reader | None, *, always: bool, again: bool) -> None:
        read: Callable[[str, bytes], Call] = Call if reader is None else reader.read
        self._read = remembered(read) if again else read
        self._always = always

    # Not a coroutine of its own where nothing is read: one more frame to wake for every call.
    def __call__(self, request: Request, handler: Handler) -> Awaitable[Response]:
        if request.endpoint in JSON_ENDPOINTS and self._must_be_read(request):
            return self._judged(request, handler)
        return handler(request)

    async def _judged(self, request: Request, handler: Handler) -> Response:
        coding = "" if _is_plain(request) else check_media(request.raw_headers)
        body = await request.body.read()
        if coding or len(body) > _LONG_WORK:
            limit = request.body.limit
            request.call = await asyncio.to_thread(
                self._unpacked, request.endpoint, body, coding, limit
            )
        else:
            request.call = self._read(request.endpoint, body)
        return await handler(request)

    def _must_be_read(self, request: Request) -> bool:
        identity, tally = request.identity, request.tally
        return (
            self._always
            or (identity is not None and identity.models is not None)
            or (tally is not None and tally.needs_call)
        )

    def _unpacked(self, endpoint: str, body: bytes, coding: str, limit: int) -> Call:
        return self._read(endpoint, unpack(body, coding, limit))
