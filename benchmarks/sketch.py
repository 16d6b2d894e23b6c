"""The yardstick: as little as a relay on asyncio.Protocol and httptools can be.

No timeouts, no watch for callers that leave, no backpressure, no header policy beyond host and
length, no errors told. What the proxy costs above this is what its promises cost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_NOT_PASSED = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})


class Connection(asyncio.Protocol):
    """One kept connection to the upstream, used by one request at a time."""

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self._lost = False
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._head_done = False
        self._done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by inheritance.
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._lost = True
        self._wake()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        self._wake()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name not in _NOT_PASSED or name == b"content-length":
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._head_done = True

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._done = True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _more(self) -> None:
        if self._lost:
            raise ConnectionError("the upstream closed the connection")
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def send(self, request: bytes) -> None:
        """Write a request; the answer before it must have been read to its end."""
        self._reset()
        self.transport.write(request)

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Wait for the status and the header lines of the answer."""
        while not self._head_done:
            await self._more()
        return self._parser.get_status_code(), self._headers

    async def chunk(self) -> tuple[bytes, bool]:
        """Wait for what has come of the body; true with it if more follows."""
        while not self._pieces and not self._done:
            await self._more()
        chunk = b"".join(self._pieces)
        self._pieces.clear()
        return chunk, not self._done


class Pool:
    """Connections to one upstream; the last one used is used again first."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._idle: deque[Connection] = deque()

    async def acquire(self) -> Connection:
        if self._idle:
            return self._idle.pop()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port)
        return connection

    def release(self, connection: Connection) -> None:
        self._idle.append(connection)


def _encode(scope: Message, host: bytes, body: bytes) -> bytes:
    lines = [
        b"%s %s HTTP/1.1\r\nhost: %s\r\ncontent-length: %d\r\n"
        % (scope["method"].encode("ascii"), scope["raw_path"], host, len(body))
    ]
    lines += [b"%s: %s\r\n" % line for line in scope["headers"] if line[0] not in _NOT_PASSED]
    lines += [b"\r\n", body]
    return b"".join(lines)


async def _whole(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    return body


async def _answer(connection: Connection, send: Send) -> None:
    status, headers = await connection.head()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    more = True
    while more:
        chunk, more = await connection.chunk()
        await send({"type": "http.response.body", "body": chunk, "more_body": more})


def make(upstream: str) -> App:
    """The relay as an ASGI application; `upstream` is `http://host:port`."""
    parts = urlsplit(upstream)
    assert parts.hostname is not None
    assert parts.port is not None
    pool = Pool(parts.hostname, parts.port)
    host = parts.netloc.encode("ascii")

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        body = await _whole(receive)
        connection = await pool.acquire()
        connection.send(_encode(scope, host, body))
        await _answer(connection, send)
        pool.release(connection)

    return app
