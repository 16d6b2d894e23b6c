"""The end of the corridor: sends the call to the upstream and brings the answer back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ai_proxy_mw._encoding import settle_coding
from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw._header_rules import Outward, inward
from ai_proxy_mw.upstream.base import Outbound

if TYPE_CHECKING:
    from ai_proxy_mw._config import Upstream
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw.upstream.base import Transport

_BODYLESS = (204, 304)
_EMPTY = (b"content-length", b"0")
_QUERY = re.compile(rb"[!$-;=?-~]*")  # visible ASCII but " # < > (RFC 3986, section 3.4, and more)


class Relay:
    """The one way out of the house: whatever goes upstream passes here."""

    def __init__(self, upstream: Upstream, transport: Transport, outward: Outward) -> None:
        self._upstream = upstream
        self._transport = transport
        self._outward = outward

    async def __call__(self, request: Request) -> Response:
        headers = self._outward(request.raw_headers)
        target = self._target(request)
        if request.call is not None and request.call.changed:
            body: bytes | None = request.call.body()
            headers = [line for line in headers if line[0] != b"content-encoding"]
        else:
            body = await request.body.whole()
        response = await self._transport.send(
            Outbound(
                method=request.method,
                origin=self._upstream.origin,
                target=target,
                headers=headers,
                body=request.body if body is None else body,
                timeouts=self._upstream.timeouts,
            )
        )
        try:
            _for_the_caller(request, response)
            if not response.event_stream:
                # While nothing has been sent, a broken answer can still become a plain error.
                await response.body.ready()
        except BaseException:
            await response.body.aclose()
            raise
        return response

    def _target(self, request: Request) -> bytes:
        # `path` is of the endpoint's own characters, none of which needs encoding.
        path = f"{self._upstream.path}{request.path}".encode("ascii")
        if not request.query:
            return path
        if not _QUERY.fullmatch(request.query):
            raise InvalidRequest("The query string has characters that must be encoded.")
        return b"%b?%b" % (path, request.query)


def _for_the_caller(request: Request, response: Response) -> None:
    response.headers, content_type, coding = inward(response.headers)
    response.event_stream = content_type[:17].lower() == b"text/event-stream"
    if response.status in _BODYLESS:
        # A length there is of the answer that was not sent; some servers would wait for it.
        response.headers = [line for line in response.headers if line[0] != b"content-length"]
    elif coding and request.method != "HEAD" and _EMPTY not in response.headers:
        settle_coding(request, response, coding)
    if response.event_stream:
        response.headers.append((b"x-accel-buffering", b"no"))
