"""Sending with a client that the user hands in: an `httpx.AsyncClient` or `httpx2.AsyncClient`.

Neither library is imported here; the one that the client is of is found through its class.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio  # which both libraries bring along

from ai_proxy_mw._errors import (
    ConfigurationError,
    InvalidRequest,
    UpstreamBusy,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ai_proxy_mw._http import Body, Response

if TYPE_CHECKING:
    from ai_proxy_mw._incoming import RequestBody
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.upstream.base import Outbound

WRITE_SLICE = 256 * 1024
"""The most bytes of a body written at once; the patience of `write` counts for each piece."""

_BODYLESS = (204, 304)
_NO_LENGTH_IF_EMPTY = ("GET", "HEAD", "DELETE")

# The libraries call a connection that was closed too early a protocol error; only the text
# tells it from an answer that cannot be read. A text that is not known costs the distinction.
_CLOSED_EARLY = ("Server disconnected", "peer closed connection")


class HttpxTransport:
    """Implements `Transport` with the user's client: for HTTP/2, outbound proxies and the like.

    Of the client only its connections are used: its default headers, parameters, cookies, auth,
    timeouts and redirects play no part, and cookies that the upstream sets are not kept. Its event
    hooks run; one that reads the answer's body keeps it from being streamed.

    The client belongs to one event loop and to its maker, who closes it: `aclose` here leaves it
    open. Make it with `limits=httpx.Limits(max_connections=None)`: with httpx 0.28 a call that is
    cancelled in the moment it gets out of the queue for a connection leaves its place taken for
    good (encode/httpcore#1093); where nothing is queued this cannot happen.

    What an upstream sends behind the end of an answer is read as the next answer on that connection
    (httpcore does not look at what h11 keeps): give a client for an upstream that you do not trust
    `max_keepalive_connections=0`.

    What the library does its own way: a call is not repeated when a kept connection turns out to
    be closed, an answer is not read before the request has been sent whole, interim answers (1xx)
    are bounded by the timeouts only, and TCP and TLS may take `Timeouts.connect` each.

    Raises ConfigurationError for any other client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.library = _library_of(client)
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, outbound: Outbound) -> Response:
        # A task of its own: the library protects its clean-up against anyio's way of cancelling,
        # but not against Task.cancel(), which would leave connections open that nobody owns.
        scope = anyio.CancelScope()
        call = asyncio.create_task(self._call(outbound, scope))
        try:
            await asyncio.wait((call,))
        except asyncio.CancelledError:
            scope.cancel()
            await self.finish(_abandon(call))
            raise
        return call.result()

    async def aclose(self) -> None:
        """Does nothing: who made the client closes it."""

    async def finish(self, closing: Coroutine[Any, Any, None]) -> None:
        """Run what closes a connection to its end, even if the caller is cancelled meanwhile."""
        task = asyncio.create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        await asyncio.shield(task)

    async def _call(self, outbound: Outbound, scope: anyio.CancelScope) -> Response:
        timeouts = outbound.timeouts
        clock = asyncio.get_running_loop().time
        total_at = clock() + timeouts.total

        def all_sent() -> None:
            scope.deadline = min(total_at, clock() + timeouts.first_byte)

        scope.deadline = total_at
        pieces = _Pieces(outbound.body, all_sent)
        answer = None
        with _telling(pieces), translated(self.library, "first_byte"):
            with scope:
                request = self._request(outbound, pieces)
                answer = await self._client.send(
                    request, stream=True, auth=None, follow_redirects=False
                )
            if answer is None:
                raise UpstreamTimeout("total" if scope.deadline == total_at else "first_byte")
        # From now on Answer is the one who watches the clock.
        request.extensions["timeout"]["read"] = None
        self._forget_cookies(answer)
        return await self._response(outbound, answer, total_at)

    def _request(self, outbound: Outbound, pieces: _Pieces) -> Any:
        library, origin, timeouts = self.library, outbound.origin, outbound.timeouts
        request = library.Request(
            outbound.method,
            library.URL(
                scheme=origin.scheme, host=origin.host, port=origin.port, raw_path=outbound.target
            ),
            content=pieces,
            extensions={
                "timeout": {
                    "connect": timeouts.connect,
                    "pool": timeouts.pool,
                    "write": timeouts.write,
                    "read": timeouts.first_byte,
                },
                "target": outbound.target,  # as it is; a URL would be normalised
            },
        )
        request.headers = library.Headers([*outbound.headers, *_framing(outbound)])
        return request

    def _forget_cookies(self, answer: Any) -> None:
        """Take back out of the client's jar what this answer has put into it."""
        if "set-cookie" not in answer.headers:
            return
        added = self.library.Cookies()
        added.extract_cookies(answer)
        for cookie in added.jar:
            try:
                self._client.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)
            except KeyError:
                pass  # set twice, or removed by another call meanwhile

    async def _response(self, outbound: Outbound, answer: Any, total_at: float) -> Response:
        status = answer.status_code
        if not 200 <= status <= 599:
            await answer.aclose()
            raise UpstreamProtocolError  # 101, which we did not ask for, or one without a meaning
        headers = [(name.lower(), value) for name, value in answer.headers.raw]
        if answer.is_stream_consumed:
            return _already_read(answer, headers)
        bodyless = outbound.method == "HEAD" or status in _BODYLESS
        body = Answer(
            self,
            answer,
            length=0 if bodyless else _length(headers),
            idle=outbound.timeouts.idle,
            total_at=total_at,
        )
        return Response(status, headers, body)


class Answer(Body):
    """The body of an answer, still encoded as it came."""

    __slots__ = (
        "_answer",
        "_first",
        "_idle",
        "_left",
        "_open",
        "_pieces",
        "_reading",
        "_total_at",
        "_transport",
    )

    def __init__(
        self,
        transport: HttpxTransport,
        answer: Any,
        *,
        length: int | None,
        idle: float,
        total_at: float,
    ) -> None:
        self._transport = transport
        self._answer = answer
        self._pieces: Any = answer.aiter_raw()
        self._left = length
        self._idle = idle
        self._total_at = total_at
        self._first: bytes | None = None
        self._open = True
        self._reading: asyncio.Task[bytes] | None = None

    @property
    def ended(self) -> bool:
        return self._first is None and self._left == 0

    async def ready(self) -> None:
        if self._first is None and self._left != 0:
            try:
                self._first = await self._read()
            except StopAsyncIteration:
                pass

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._read()

    async def aclose(self) -> None:
        self._first = None
        if self._open:
            self._open = False
            await self._transport.finish(self._close())

    async def _read(self) -> bytes:
        if not self._open:
            if self._left == 0:
                raise StopAsyncIteration
            raise UpstreamDisconnected
        try:
            piece = await self._in_time()
        except BaseException:
            await self.aclose()
            raise
        if not piece:
            self._open = False
            self._left = 0
            raise StopAsyncIteration
        if self._left is not None:
            self._left -= len(piece)
        return piece

    async def _in_time(self) -> bytes:
        """The next piece; b"" at the end."""
        # A task of its own, as in `send`: one that is cancelled twice would leave a connection
        # half closed, whose place in the pool is taken for good.
        clock = asyncio.get_running_loop().time
        idle_at = clock() + self._idle
        self._reading = asyncio.create_task(self._next())
        patience = min(idle_at, self._total_at) - clock()
        await asyncio.wait((self._reading,), timeout=patience)
        if not self._reading.done():
            raise UpstreamTimeout("idle" if idle_at < self._total_at else "total")
        if self._reading.cancelled():
            raise UpstreamDisconnected  # closed meanwhile
        return self._reading.result()

    async def _next(self) -> bytes:
        with translated(self._transport.library, "idle"):
            piece: bytes = await anext(self._pieces, b"")  # never an empty one before the end
        return piece

    async def _close(self) -> None:
        if self._reading is not None:
            await _stop(self._reading)
        try:
            with translated(self._transport.library, "idle"):
                await self._answer.aclose()
        except UpstreamError:
            pass  # it is closed all the same
        await self._pieces.aclose()


class _Pieces:
    """The request's body in pieces that fit `Timeouts.write`; tells when the last one is out.

    sent: whether the upstream may have all of it, though the caller's end mark has not come yet.
    """

    def __init__(self, body: bytes | RequestBody, all_sent: Callable[[], None]) -> None:
        self._pieces = _sliced(body) if isinstance(body, bytes) else _checked(body)
        self._left = len(body) if isinstance(body, bytes) else body.declared
        self._all_sent = all_sent
        self.sent = False

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        if self._left == 0:
            self.sent = True
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            self.sent = True
            self._all_sent()
            raise
        if self._left is not None:
            self._left -= len(piece)
        return piece


async def _sliced(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), WRITE_SLICE):
        yield body[start : start + WRITE_SLICE]


async def _checked(body: RequestBody) -> AsyncIterator[bytes]:
    """The body as it comes, held to the length that its head has promised the upstream."""
    declared, sent = body.declared, 0
    async for piece in body:
        sent += len(piece)
        if declared is not None and sent > declared:
            raise InvalidRequest("The request body is longer than its Content-Length.")
        yield piece
    if declared is not None and sent < declared:
        raise InvalidRequest("The request body is shorter than its Content-Length.")


def _framing(outbound: Outbound) -> RawHeaders:
    body = outbound.body
    length = len(body) if isinstance(body, bytes) else body.declared
    if length is None:
        return [(b"transfer-encoding", b"chunked")]
    if length == 0 and outbound.method in _NO_LENGTH_IF_EMPTY:
        return []
    return [(b"content-length", b"%d" % length)]


def _length(headers: RawHeaders) -> int | None:
    """How long the body is, if the head says so (RFC 9112, section 6.3)."""
    if any(name == b"transfer-encoding" for name, _ in headers):
        return None
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def _already_read(answer: Any, headers: RawHeaders) -> Response:
    """An answer that a hook has read, or a mock transport had at hand: whole, and decoded."""
    if any(name == b"content-encoding" for name, _ in headers):
        old = (b"content-encoding", b"content-length")
        headers = [line for line in headers if line[0] not in old]
    return Response(answer.status_code, headers, answer.content)


async def _abandon(call: asyncio.Task[Response]) -> None:
    """Close an answer that came in the moment its caller left."""
    await asyncio.wait((call,))
    if not call.cancelled() and call.exception() is None:
        await call.result().body.aclose()


async def _stop(reading: asyncio.Task[bytes]) -> None:
    """Break off a read; the library then closes its connection. What it has read is not wanted."""
    reading.cancel()
    await asyncio.wait((reading,))
    if not reading.cancelled():
        reading.exception()


@contextmanager
def _telling(pieces: _Pieces) -> Iterator[None]:
    """Have errors tell whether the upstream may have had the whole request."""
    try:
        yield
    except UpstreamError as error:
        # HTTP/2 is written to while the answer is waited for, too. And a body that was read before
        # there was a connection, to be signed perhaps, was not sent.
        if error.sent or getattr(error, "waited_for", None) == "write":
            error.sent = pieces.sent
        raise


@contextmanager
def translated(library: Any, waiting_for: str) -> Iterator[None]:
    """Make the library's errors ours; the one place where they are known.

    `waiting_for` is what a timeout of reading means.
    """
    try:
        yield
    except (
        library.HTTPError,
        library.InvalidURL,
        library.CookieConflict,
        library.StreamError,
    ) as error:
        raise _ours(library, error, waiting_for) from error


def _ours(library: Any, error: Exception, waiting_for: str) -> UpstreamError:
    if isinstance(error, library.TimeoutException):
        return _timeout(library, error, waiting_for)
    if isinstance(
        error,
        (
            library.ConnectError,
            library.ProxyError,
            library.UnsupportedProtocol,
            library.InvalidURL,
        ),
    ):
        return UpstreamUnreachable()
    if isinstance(error, library.NetworkError) or str(error).startswith(_CLOSED_EARLY):
        return UpstreamDisconnected()
    return UpstreamProtocolError()


def _timeout(library: Any, error: Exception, waiting_for: str) -> UpstreamError:
    if isinstance(error, library.PoolTimeout):
        return UpstreamBusy()
    if isinstance(error, library.ConnectTimeout):
        return UpstreamTimeout("connect")
    if isinstance(error, library.WriteTimeout):
        return UpstreamTimeout("write")
    return UpstreamTimeout(waiting_for)


def _library_of(client: Any) -> Any:
    """The module, httpx or httpx2, whose AsyncClient this is, perhaps by inheritance."""
    for base in type(client).__mro__:
        library = sys.modules.get(base.__module__.partition(".")[0])
        if base.__name__ == "AsyncClient" and hasattr(library, "AsyncHTTPTransport"):
            return library
    raise ConfigurationError(
        f"client={type(client).__name__}: write an httpx.AsyncClient() or httpx2.AsyncClient()"
    )
