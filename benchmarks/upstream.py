"""The mock upstream: as lean as Python allows, so that the rows differ by what relays.

`POST …/chat/completions` answers 1 KB of JSON, or with `"stream":true` server-sent events as the
request's `bench` object asks. `POST …/files` swallows an upload, `GET …/content` gives a download
of as many bytes as the query says; both at a pace that a proxy without backpressure would show.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import socket
from typing import cast

import httptools
import msgspec
import uvloop

from benchmarks.payloads import ANSWER, DONE, EVENT

_SPREAD = 0.02  # seconds over which the first events of streams are spread
_BREATH = 0.001  # seconds that an upload pauses after each read
_BLOCK = b"x" * 65_536
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
_ANSWER = _JSON % (len(ANSWER), ANSWER)
_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_BLOB_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n\r\n"
)


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_EVENT_FRAME = _frame(EVENT)
_LAST_FRAME = _frame(DONE) + b"0\r\n\r\n"


class Wish(msgspec.Struct):
    """What a request wants of the mock."""

    chunks: int = 0
    pace: float = 0.0
    delay: float = 0.0


class Ask(msgspec.Struct):
    """The only part of a chat request that the mock reads."""

    stream: bool = False
    bench: Wish = msgspec.field(default_factory=Wish)


def spread(serial: int, pace: float) -> float:
    """Seconds to wait before a stream, so that streams do not send in step."""
    return serial * 0.618 % 1 * min(_SPREAD, pace)


class Stream:
    """Sends events at their pace."""

    __slots__ = ("_due", "_handle", "_left", "_loop", "_pace", "_transport")

    _serial = itertools.count()

    def __init__(self, transport: asyncio.Transport, wish: Wish) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._left = wish.chunks
        self._pace = wish.pace
        self._due = self._loop.time() + spread(next(self._serial), wish.pace)
        transport.write(_SSE_HEAD)
        self._handle = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        if not self._left:
            self._transport.write(_LAST_FRAME)
            return
        self._left -= 1
        self._transport.write(_EVENT_FRAME)
        self._due += self._pace
        self._handle = self._loop.call_at(self._due, self._tick)

    def stop(self) -> None:
        self._handle.cancel()


class Connection(asyncio.Protocol):
    """One connection of a proxy."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._pieces: list[bytes] = []
        self._received = 0
        self._stream: Stream | None = None
        self._blob_left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by inheritance.
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._blob_left = 0
        if self._stream is not None:
            self._stream.stop()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self._received:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(_BREATH, self._resume)

    def _resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, data: bytes) -> None:
        if self._url.endswith(b"/files"):
            self._received += len(data)
        else:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        body = b"".join(self._pieces)
        self._pieces.clear()
        path, _, query = self._url.partition(b"?")
        if path.endswith(b"/chat/completions"):
            self._chat(body)
        elif path.endswith(b"/files"):
            self._count_upload()
        elif path.endswith(b"/content"):
            self._blob_left = int(query)
            self.transport.write(_BLOB_HEAD % self._blob_left)
            self._pour()
        else:
            self.transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def _chat(self, body: bytes) -> None:
        if b'"bench":' not in body:
            self.transport.write(_ANSWER)
            return
        ask = msgspec.json.decode(body, type=Ask)
        if ask.stream:
            self._stream = Stream(self.transport, ask.bench)
        else:
            asyncio.get_running_loop().call_later(ask.bench.delay, self.transport.write, _ANSWER)

    def _count_upload(self) -> None:
        document = b'{"bytes":%d}' % self._received
        self._received = 0
        self.transport.write(_JSON % (len(document), document))

    def resume_writing(self) -> None:
        self._pour()

    def _pour(self) -> None:
        """Write until the buffer is full; `resume_writing` goes on."""
        while self._blob_left and not self.transport.get_write_buffer_size():
            size = min(self._blob_left, len(_BLOCK))
            self._blob_left -= size
            self.transport.write(_BLOCK[:size])
        if self._blob_left and self.transport.get_write_buffer_size() <= len(_BLOCK):
            asyncio.get_running_loop().call_later(_BREATH, self._pour)


async def _serve(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, sock=listener, backlog=2048)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="a bound socket")
    listener = socket.socket(fileno=parser.parse_args().fd)
    uvloop.run(_serve(listener))


if __name__ == "__main__":
    main()
