"""A TCP server that does what a script says, byte for byte, and remembers what it got."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Self

from ai_proxy_mw.upstream.base import Origin

Script = Callable[["Peer"], Awaitable[None]]
"""What to do with one connection; it is closed when the script returns."""

GONE = (ConnectionError, asyncio.IncompleteReadError)


class Received:
    """A request as it came over the wire."""

    def __init__(self, head: bytes, body: bytes, raw_body: bytes) -> None:
        self.head = head
        self.body = body
        self.raw = head + raw_body

    @property
    def lines(self) -> list[bytes]:
        return self.head.split(b"\r\n")[:-2]

    def header(self, name: bytes) -> bytes | None:
        for line in self.lines[1:]:
            key, _, value = line.partition(b":")
            if key.lower() == name:
                return value.strip()
        return None


class Peer:
    """The server's end of one connection."""

    def __init__(
        self, server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self.sent = 0
        self.gone = asyncio.Event()

    @property
    def closing(self) -> bool:
        """Whether our end is closed, or about to be."""
        return self._writer.transport.is_closing()

    async def head(self) -> bytes:
        """Read the head of a request and nothing behind it."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def request(self) -> Received:
        """Read a whole request."""
        head = await self.head()
        request = Received(head, b"", b"")
        if (length := request.header(b"content-length")) is not None:
            body = await self._reader.readexactly(int(length))
            request = Received(head, body, body)
        elif request.header(b"transfer-encoding") == b"chunked":
            request = Received(head, *await self._chunks())
        self._server.requests.append(request)
        return request

    async def _chunks(self) -> tuple[bytes, bytes]:
        body, raw = bytearray(), bytearray()
        while True:
            line = await self._reader.readuntil(b"\r\n")
            size = int(line, 16)
            data = await self._reader.readexactly(size + 2)
            raw += line + data
            body += data[:-2]
            if size == 0:
                return bytes(body), bytes(raw)

    async def read(self, count: int) -> bytes:
        return await self._reader.readexactly(count)

    async def send(self, data: bytes, *, piece: int = 0, pause: float = 0.0) -> None:
        """Write it, at once or in pieces of that many bytes with a pause (seconds) between."""
        for start in range(0, len(data), piece or len(data) or 1):
            part = data[start : start + (piece or len(data))]
            if self._writer.transport.is_closing():
                raise ConnectionResetError  # uvloop would call it a RuntimeError
            self._writer.write(part)
            await self._writer.drain()
            self.sent += len(part)
            if piece:
                await asyncio.sleep(pause)

    def reset(self) -> None:
        """Break the connection off with a RST instead of a FIN."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def finish(self) -> None:
        """Say that nothing more will be sent, and go on reading."""
        self._writer.write_eof()

    async def until_closed(self) -> None:
        """Read and drop until the other side has closed."""
        try:
            while await self._reader.read(65536):
                pass
        except GONE:
            pass

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass
        self.gone.set()


class RawServer:
    """Listens on loopback. The n-th connection gets the n-th script, later ones the last.

    A script that fails with anything but a broken connection fails the test, at the end of the
    `async with` block.
    """

    def __init__(
        self,
        *scripts: Script,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self._scripts = scripts
        self._host = host
        self._tls = tls
        self._receive_buffer = receive_buffer
        self._running: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self.peers: list[Peer] = []
        self.requests: list[Received] = []
        self.open = 0

    @property
    def accepted(self) -> int:
        return len(self.peers)

    def idle(self) -> bool:
        """Whether no connection is open."""
        return self.open == 0

    @property
    def origin(self) -> Origin:
        return Origin("https" if self._tls else "http", self._host, self.port)

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        if self._receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self._socket.bind((self._host, 0))
        self._socket.listen(512)
        self.port: int = self._socket.getsockname()[1]
        # Not asyncio.start_server: when it is closed while it accepts, it leaks the connection.
        asyncio.get_running_loop().add_reader(self._socket, self._accept)
        return self

    async def __aexit__(self, *exception: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        await asyncio.sleep(0)  # every task has taken its first step, so cancelling cleans up
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        if self._failures:
            raise self._failures[0]

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except BlockingIOError:
            return  # it went away again
        task = asyncio.get_running_loop().create_task(self._connected(sock))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _connected(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._tls)
        except (OSError, asyncio.CancelledError):  # ssl.SSLError is an OSError
            sock.close()
            return
        peer = Peer(self, reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
        self.peers.append(peer)
        self.open += 1
        await self._serve(script, peer)

    async def _serve(self, script: Script, peer: Peer) -> None:
        try:
            await script(peer)
        except (*GONE, ssl.SSLError):
            pass
        except Exception as error:  # noqa: BLE001 - kept, and raised at the end of the test
            self._failures.append(error)
        finally:
            self.open -= 1
            await peer.close()


def answering(*answers: bytes, piece: int = 0, pause: float = 0.0) -> Script:
    """Read a request, send the next answer, and so on; then wait for the other side to close."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer, piece=piece, pause=pause)
        await peer.until_closed()

    return script


def closing(answer: bytes, *, piece: int = 0) -> Script:
    """Read a request, send the answer, close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer, piece=piece)

    return script


def ok(body: bytes, *lines: bytes) -> bytes:
    """A plain 200 with its length."""
    head = [b"HTTP/1.1 200 OK", *lines, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body
