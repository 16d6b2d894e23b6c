"""The end of the corridor: sends the call to the upstream and brings the answer back."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from ai_proxy_mw._encoding import settle_coding
from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw._header_rules import inward
from ai_proxy_mw.accounting.hidden_usage import asking, hide
from ai_proxy_mw.upstream.base import Outbound

if TYPE_CHECKING:
    from ai_proxy_mw._config import Upstream
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._incoming import RequestBody
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.accounting.note import Note
    from ai_proxy_mw.routing.lane import Lane
    from ai_proxy_mw.routing.letter import Letter

_BODYLESS = (204, 304)
_EMPTY = (b"content-length", b"0")
_QUERY = re.compile(rb"[!$-;=?-~]*")  # visible ASCII but " # < > (RFC 3986, section 3.4, and more)


class Relay:
    """The one way out of the house: whatever goes upstream passes here.

    lane: the way that all calls go, where there is but one.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    # Not a coroutine of its own: that would be one more frame to wake for every call.
    def __call__(self, request: Request) -> Coroutine[Any, Any, Response]:
        return send(request, self._lane)


async def send(request: Request, lane: Lane, letter: Letter | None = None) -> Response:
    """One call by one lane; as `letter` says, where it is not sent as it came."""
    upstream = lane.provider.upstream
    headers = lane.outward(request.raw_headers)
    path, timeouts = upstream.path, upstream.timeouts
    rewritten = request.call is not None and request.call.changed
    if letter is None:
        body = await body_of(request)
    else:
        body, path, timeouts = letter.body, letter.path, letter.timeouts
        headers += letter.headers
        rewritten = rewritten or letter.rewritten
    asked = _asking_for_use(request, upstream, body if rewritten else None)
    if asked is not None:
        body, rewritten = asked, True
    if callable(upstream.auth):
        headers = _with(headers, await lane.credentials())
    if rewritten:
        headers = [line for line in headers if line[0] != b"content-encoding"]
    outbound = Outbound(
        request.method,
        upstream.origin,
        _target(path, upstream.query, request),
        headers,
        body,
        timeouts,
    )
    request.sends += 1
    note = request.note
    if note is not None:
        _take_down(note, request, lane, outbound)
    try:
        response = await lane.provider.transport.send(outbound)
        try:
            _for_the_caller(request, response)
            if asked is not None and response.event_stream:
                hide(response)
            if not response.event_stream:
                # While nothing has been sent, a broken answer can still become a plain error.
                await response.body.ready()
        except BaseException:
            await response.body.aclose()
            raise
    finally:
        if note is not None:
            note.back()
    return response


def _take_down(note: Note, request: Request, lane: Lane, outbound: Outbound) -> None:
    if note.span is not None:
        outbound.headers = _with(outbound.headers, note.span.headers())
    note.leaves(lane.provider.name, None if request.call is None else request.call.model)
    if note.attempts == 1 and not note.background:
        note.waited_for_caller = request.body.waited  # what comes now, we do not wait for alone


def _with(headers: RawHeaders, own: RawHeaders) -> RawHeaders:
    """With lines of ours in the place of others of their names."""
    given = {name for name, _ in own}
    return [line for line in headers if line[0] not in given] + own


def _asking_for_use(
    request: Request, upstream: Upstream, body: bytes | RequestBody | None
) -> bytes | None:
    """The body that asks for what a stream uses; None where there is nothing to ask for.

    body: as it was rewritten. One that was not may be coded; what the call has is not.
    """
    call = request.call
    if call is None or not call.stream or not _counts(request) or not upstream.takes_stream_usage:
        return None
    return asking(call, body if isinstance(body, bytes) else None)


def _counts(request: Request) -> bool:
    """Whether somebody wants to know what a call uses."""
    tally = request.tally
    return request.note is not None or (tally is not None and tally.needs_call)


async def body_of(request: Request) -> bytes | RequestBody:
    """The body as it goes upstream: whole if it has come whole, else as it comes."""
    if request.call is not None and request.call.changed:
        return request.call.body()
    body = await request.body.whole()
    return request.body if body is None else body


def _target(path: str, own: Mapping[str, str], request: Request) -> bytes:
    # `path` is of the endpoint's own characters, none of which needs encoding.
    path = f"{path}{request.path}"
    query = request.query
    if query and not _QUERY.fullmatch(query):
        raise InvalidRequest("The query string has characters that must be encoded.")
    if own:
        query = _merged(own, query)
    return b"%b?%b" % (path.encode("ascii"), query) if query else path.encode("ascii")


def _merged(own: Mapping[str, str], query: bytes) -> bytes:
    """The owner's query and the caller's; what the owner says is not the caller's to say."""
    said = [f"{name}={value}".encode("ascii") for name, value in own.items()]
    # Some servers take names in any case, and some end an item with `;`, too.
    names = {name.lower() for name in own}
    asked = [item for item in re.split(b"[&;]", query) if _name_of(item).lower() not in names]
    return b"&".join([*said, *filter(None, asked)])


def _name_of(item: bytes) -> str:
    return unquote_plus(item.partition(b"=")[0].decode("ascii"))


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
