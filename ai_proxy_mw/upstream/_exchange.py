"""One request and its answer on one connection: the sans-IO half of the native transport."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from math import inf
from typing import TYPE_CHECKING, Any

import httptools

from ai_proxy_mw._errors import (
    StaleConnection,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from ai_proxy_mw._http import Body

if TYPE_CHECKING:
    from ai_proxy_mw._config import Timeouts
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.upstream._connection import Connection

HIGH_WATER = 256 * 1024
"""Bytes of the answer held for a reader that is slower than the upstream."""

MAX_HEAD = 128 * 1024
"""Bytes that may come without an answer's head or body moving on: heads, 1xx, trailers."""

_BODYLESS = (204, 304)
_OF_THE_CONNECTION = frozenset({b"content-length", b"keep-alive", b"transfer-encoding"})


class Exchange(Body):
    """Feeds the parser, keeps the patience, and is the answer's body.

    `head` is done when the head of the answer is there, or failed with the UpstreamError.
    """

    __slots__ = (
        "_chunks",
        "_complete",
        "_connection",
        "_dirty",
        "_error",
        "_fed",
        "_head_only",
        "_loop",
        "_parser",
        "_progress",
        "_size",
        "_timeouts",
        "_to_close",
        "_waiter",
        "deadline",
        "head",
        "headers",
        "promised",
        "sent",
        "status",
        "total_at",
    )

    def __init__(
        self,
        connection: Connection,
        loop: AbstractEventLoop,
        method: str,
        timeouts: Timeouts,
    ) -> None:
        self._connection: Connection | None = connection
        self._loop = loop
        self._timeouts = timeouts
        self._parser: Any = httptools.HttpResponseParser(self)
        self._head_only = method == "HEAD"
        self._to_close = True  # whether the body ends with the connection
        self._chunks: list[bytes] = []
        self._size = 0
        self._fed = 0
        self._progress = False
        self._complete = False
        self._dirty = False
        self._error: UpstreamError | None = None
        self._waiter: Future[None] | None = None
        self.status = 0
        self.headers: RawHeaders = []
        self.promised = inf
        """Seconds that the server says it keeps the connection."""
        self.sent = False
        self.head: Future[None] = loop.create_future()
        now = loop.time()
        self.total_at = now + timeouts.total
        self.deadline = now + timeouts.write

    # -- the request's side ------------------------------------------------------------------

    def sending(self) -> None:
        """A piece of the request is about to be written: the upstream gets `write` to take it."""
        self.deadline = self._loop.time() + self._timeouts.write

    def all_sent(self) -> None:
        """The request is out: from now on the upstream is waited for."""
        self.sent = True
        self.deadline = self._loop.time() + self._timeouts.first_byte

    # -- the connection's side ---------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._progress = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._unreadable()
            return
        if self._progress:
            self._fed = 0
        else:
            self._fed += len(data)
            if self._fed > MAX_HEAD:
                self.fail(UpstreamProtocolError())
                return
        if self._complete:
            self._finish()

    def lost(self, error: Exception | None) -> None:
        """The connection is gone, for the reason given or by a plain end of file."""
        if self.head.done() and self._to_close and error is None:
            self._complete = True
            self._finish()
        elif self._fed == 0 and not self.head.done():
            self.fail(StaleConnection())
        else:
            self.fail(UpstreamDisconnected())

    def fail(self, error: UpstreamError) -> None:
        """End the exchange; what has been read so far is still delivered."""
        self._error = error
        self._let_go().abort()
        if not self.head.done():
            error.sent = self.sent
            self.head.set_exception(error)
            self.head.exception()  # fetched, so that a sender that left is not reported
        self._wake()

    # -- the parser's side -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        # A second answer nobody asked for: whoever sent it must not answer the next request.
        if self._complete:
            self._dirty = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer; dropped
        name = name.lower()
        value = value.rstrip(b" \t")  # the parser takes off the white space in front only
        if name in _OF_THE_CONNECTION:
            self._note(name, value)
        self.headers.append((name, value))

    def _note(self, name: bytes, value: bytes) -> None:
        """What a header line says of where the body ends, and of what comes after it."""
        if name == b"content-length":
            self._to_close = False
        elif name == b"keep-alive":
            self.promised = min(self.promised, _seconds(value))
        else:
            if value.strip().lower() != b"chunked" or not self._to_close:
                raise httptools.HttpParserCallbackError("a transfer coding we did not ask for")
            self._to_close = False

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if not 100 <= status <= 599:  # RFC 9110, section 15
            raise httptools.HttpParserCallbackError("a status that means nothing")
        if status < 200 or self._complete:
            return
        self.status = status
        self._progress = True
        if self._head_only or status in _BODYLESS:
            self._to_close = False
        if self._head_only:
            # The parser cannot be told that no body follows, so this connection ends here.
            self._complete = self._dirty = True
        self.deadline = self._loop.time() + self._timeouts.idle
        self.head.set_result(None)

    def on_body(self, data: bytes) -> None:
        if self._complete:
            self._dirty = True
            return
        self._progress = True
        self._chunks.append(data)
        self._size += len(data)
        self.deadline = self._loop.time() + self._timeouts.idle
        if self._size > HIGH_WATER and self._connection is not None:
            self._connection.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if not self.status:
            self.headers.clear()  # of a 1xx
            self._to_close = True
            self.promised = inf
            return
        if not self._complete:
            self._complete = self._progress = True
            self._dirty = not self._parser.should_keep_alive()

    # -- the reader's side -------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        return self._complete and not self._chunks

    async def ready(self) -> None:
        while not self._chunks and not self._complete:
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def __anext__(self) -> bytes:
        if not self._chunks:
            await self.ready()
            if not self._chunks:
                raise StopAsyncIteration
        return self._take()

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Give up what has not been read; an answer still on its way is broken off."""
        if self._connection is not None:
            self._error = UpstreamDisconnected()
            self._let_go().abort()
        self._chunks.clear()
        self._wake()

    # -- within ------------------------------------------------------------------------------

    def _take(self) -> bytes:
        # All that has come goes on as one piece: under load this saves writes to the caller.
        chunks, self._chunks = self._chunks, []
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self._size > HIGH_WATER and self._connection is not None:
            # The upstream was held back by us, so its silence starts now.
            self.deadline = self._loop.time() + self._timeouts.idle
            self._connection.resume_reading()
        self._size = 0
        return data

    def _finish(self) -> None:
        self._let_go().release(reusable=self.sent and not self._dirty and not self._to_close)
        self._wake()

    def _unreadable(self) -> None:
        if self._complete:  # rubbish behind a whole answer: the answer stands
            self._dirty = True
            self._finish()
        else:
            self.fail(UpstreamProtocolError())

    def _let_go(self) -> Connection:
        connection, self._connection = self._connection, None
        assert connection is not None  # which tells of nothing more once it was let go
        self._parser = None  # it holds this exchange: a circle for the garbage collector
        return connection

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def expire(self, now: float) -> None:
        """A deadline has passed: fail, or move it where nobody upstream is to blame."""
        if now >= self.total_at:
            self.fail(UpstreamTimeout("total"))
        elif not self.sent and not self.head.done():
            self._expire_while_sending(now)
        elif not self.head.done():
            self.fail(UpstreamTimeout("first_byte"))
        elif self._chunks:
            # Our reader is the slow one; the upstream is not to blame.
            self.deadline = now + self._timeouts.idle
        else:
            self.fail(UpstreamTimeout("idle"))

    def _expire_while_sending(self, now: float) -> None:
        if self._connection is not None and self._connection.blocked:
            self.fail(UpstreamTimeout("write"))
        else:
            # The upstream has taken all there was: it is our caller who is slow.
            self.deadline = now + self._timeouts.write


def _seconds(keep_alive: bytes) -> float:
    """Of `Keep-Alive: timeout=5`, less one that the next request may take to get there."""
    for part in keep_alive.split(b","):
        key, _, seconds = part.strip().partition(b"=")
        if key.lower() == b"timeout" and seconds.isdigit():
            return max(0.0, int(seconds[:9]) - 1.0)
    return inf
