"""One HTTP/1.1 connection to the fake's server."""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, cast

import httptools

from ai_proxy_mw.testing._exchange import BrokenOff, Exchange, Open

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.testing._record import Outcome, Record

_MOST_PIPELINED = 16
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class _Turn(NamedTuple):
    """A request that waits for its answer to be sent."""

    exchange: Exchange
    keep_alive: bool
    takes_chunks: bool


class Connection(asyncio.Protocol):
    """Reads requests, answers them in their order, and notices when the client leaves.

    Reading goes on while an answer is sent, since a paused reader hears of no hang-up; what is
    pipelined meanwhile waits in a short queue. An answer that is whole leaves without a task.
    """

    def __init__(self, open_exchange: Open, record: Record, connections: set[Connection]) -> None:
        self._open = open_exchange
        self._record = record
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: RawHeaders = []
        self._incoming: Exchange
        self._calls: set[Exchange] = set()
        self._turns: deque[_Turn] = deque()
        self._silent = False
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost: asyncio.Future[None]
        self.task: asyncio.Task[None] | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._number = self._record.connected()
        self._connections.add(self)
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.write(_BAD_REQUEST)
            self._transport.close()
            return
        if len(self._turns) > _MOST_PIPELINED or (self._silent and self._reads_body):
            self._transport.pause_reading()
        self._take_turns()

    def eof_received(self) -> None:
        # Nobody is left to read what is still being made; what is already written is flushed.
        if self.task is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self._end_all("disconnected")
        self._connections.discard(self)
        self._record.disconnected()
        if self.task is not None:
            self.task.cancel()
        self.lost.set_result(None)

    def break_off(self) -> None:
        """Close at once; calls under way have failed."""
        self._end_all("failed")
        self._transport.abort()

    def _end_all(self, outcome: Outcome) -> None:
        self._turns.clear()
        for exchange in self._calls:
            exchange.end(outcome)
        self._calls.clear()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = []

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        method = self._parser.get_method().decode("ascii")
        exchange = self._open(method, self._target, self._headers, self._number)
        self._incoming = exchange
        self._calls.add(exchange)
        self._reads_body = True
        self._silent = self._silent or exchange.stalls
        if exchange.disconnects:
            exchange.end("failed")
            self._transport.close()
        elif not self._silent and (b"expect", b"100-continue") in self._headers:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._incoming.feed(data)

    def on_message_complete(self) -> None:
        self._reads_body = False
        if self._silent or self._transport.is_closing():
            return
        takes_chunks = self._parser.get_http_version() != "1.0"
        keep_alive = self._parser.should_keep_alive()
        self._turns.append(_Turn(self._incoming, keep_alive, takes_chunks))

    # Answers.

    def _take_turns(self) -> None:
        while self._turns and self.task is None and not self._transport.is_closing():
            turn = self._turns.popleft()
            whole = self._answer(turn.exchange)
            if whole is None:
                self.task = asyncio.get_running_loop().create_task(self._play(turn))
                self.task.add_done_callback(self._played)
            else:
                turn.exchange.sent_at_once()
                self._transport.write(_head(turn) + whole)
                self._finish(turn)

    def _answer(self, exchange: Exchange) -> bytes | None:
        try:
            exchange.finish()
        except Exception:
            self.break_off()
            raise
        return exchange.at_once

    def _finish(self, turn: _Turn) -> None:
        self._calls.discard(turn.exchange)
        if not turn.keep_alive:
            self._transport.close()

    async def _play(self, turn: _Turn) -> None:
        exchange = turn.exchange
        write = self._transport.write
        chunked = _is_chunked(turn)
        try:
            await exchange.head()
            write(_head(turn))
            while (piece := await exchange.piece()) is not None:
                write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await self._writable.wait()
        except BrokenOff:
            exchange.end("failed")
            self._transport.close()
            return
        exchange.end("complete")
        if chunked:
            write(b"0\r\n\r\n")
        self._finish(turn)

    def _played(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if task.cancelled():
            return
        if task.exception() is not None:
            self.break_off()
            task.result()  # raises, so that the loop reports it
        self._transport.resume_reading()
        self._take_turns()


def _is_chunked(turn: _Turn) -> bool:
    answer = turn.exchange.answer
    unknown = not isinstance(answer.body, bytes) and answer.length is None
    return unknown and turn.takes_chunks


def _head(turn: _Turn) -> bytes:
    answer = turn.exchange.answer
    lines = [_STATUS_LINES.get(answer.status) or b"HTTP/1.1 %d Odd\r\n" % answer.status]
    lines += [b"%b: %b\r\n" % line for line in answer.headers]
    if _is_chunked(turn):
        lines.append(b"transfer-encoding: chunked\r\n")
    if not turn.keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
