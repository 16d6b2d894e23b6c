"""An upstream that misbehaves by name, byte for byte."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tests.faults import answers
from tests.transport._raw_server import Peer, RawServer

T = TypeVar("T")

SETTLED = 0.05
"""Seconds in which what was written has surely been read, so that a reset cannot overtake it."""

DRIP = 0.1
"""Seconds between two bytes of one that drips: less than the patience of `idle`."""

HALF_A_HEAD = b"HTTP/1.1 200 OK\r\nContent-Ty"

HUGE = 100 * answers.MEBIBYTE

Play = Callable[["Act"], Awaitable[None]]


class Upstream:
    """One port that plays what `playing` names, on each request of each connection."""

    def __init__(self, server: Callable[..., RawServer] = RawServer) -> None:
        self.server = server(self._script)
        self.playing = "sound"
        self.promised = b""
        self.fingerprint = answers.fingerprint([])

    async def prepare(self, playing: str) -> None:
        """Close what is kept open, forget what was, and play something else."""
        for peer in self.server.peers:
            await peer.close()
        while self.server.open:
            await asyncio.sleep(0.002)
        self.server.peers.clear()
        self.server.requests.clear()
        self.playing = playing

    def prepare_much(self, stream: bool) -> None:
        """Make what is much before anybody looks at memory and clock."""
        answers.packed(stream, HUGE)
        answers.fingerprint_of_much(stream, HUGE)

    async def _script(self, peer: Peer) -> None:
        while not peer.closing:
            act = Act(self, peer)
            if self.playing not in BEFORE_THE_REQUEST:
                await act.asked()
            await PLAYS[self.playing](act)  # which may be another by now


class Act:
    """One play of a fault on one connection."""

    def __init__(self, upstream: Upstream, peer: Peer) -> None:
        self.upstream = upstream
        self.peer = peer
        self.stream = False

    async def asked(self) -> None:
        """Wait for the whole request; a kept connection may wait long."""
        request = await self.peer.request()
        self.stream = json.loads(request.body)["stream"]
        self.promise(self.sound)

    def promise(self, body: bytes) -> None:
        """The body that a caller gets if all goes well, or of which it gets the beginning."""
        self.upstream.promised = body
        self.upstream.fingerprint = answers.fingerprint([body])

    def promise_much(self) -> None:
        """The same of a body that is too long to be held."""
        self.upstream.promised = b""
        self.upstream.fingerprint = answers.fingerprint_of_much(self.stream, HUGE)

    @property
    def sound(self) -> bytes:
        return answers.STREAM if self.stream else answers.JSON

    @property
    def first(self) -> bytes:
        """The first event, or so much of the JSON."""
        return answers.FIRST_EVENT if self.stream else answers.JSON[:40]

    @property
    def kind(self) -> bytes:
        return b"text/event-stream" if self.stream else b"application/json"

    async def head(self, *lines: bytes, status: bytes = b"200 OK", kind: bytes = b"") -> None:
        """The head with the lines that say how the body ends."""
        start = [b"HTTP/1.1 " + status, b"Content-Type: " + (kind or self.kind), *lines]
        await self.peer.send(b"\r\n".join(start) + b"\r\n\r\n")

    async def chunked(self) -> None:
        await self.head(b"Transfer-Encoding: chunked")

    async def chunk(self, data: bytes) -> None:
        await self.peer.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.peer.send(b"0\r\n\r\n")

    async def whole(
        self, body: bytes, *lines: bytes, status: bytes = b"200 OK", kind: bytes = b""
    ) -> None:
        self.promise(body)
        await self.head(b"Content-Length: %d" % len(body), *lines, status=status, kind=kind)
        await self.peer.send(body)

    async def reset(self) -> None:
        await asyncio.sleep(SETTLED)
        self.peer.reset()

    async def silence(self) -> None:
        await self.peer.until_closed()
        await self.peer.close()


# -- well, and closing in some way ---------------------------------------------------------------


async def sound(act: Act) -> None:
    await act.chunked()
    await act.chunk(act.sound)
    await act.end()


async def accept_and_close(act: Act) -> None:
    await act.peer.close()


async def close_before_the_head(act: Act) -> None:
    await act.peer.close()


async def reset_before_the_head(act: Act) -> None:
    await act.reset()


async def half_a_head_and_close(act: Act) -> None:
    await act.peer.send(HALF_A_HEAD)
    await act.peer.close()


async def reset_behind_the_head(act: Act) -> None:
    await act.chunked()
    await act.reset()


async def reset_between_two_events(act: Act) -> None:
    await act.chunked()
    await act.chunk(act.first)
    await act.reset()


async def reset_in_a_chunk(act: Act) -> None:
    await act.chunked()
    await act.peer.send(b"%x\r\n%b" % (len(act.sound), act.sound[: len(act.first) + 20]))
    await act.reset()


async def reset_before_the_end_mark(act: Act) -> None:
    await act.chunked()
    await act.chunk(act.sound)
    await act.reset()


# -- against the rules of HTTP -------------------------------------------------------------------


async def length_too_short(act: Act) -> None:
    less = len(act.first)
    act.promise(act.sound[:less])
    await act.head(b"Content-Length: %d" % less)
    await act.peer.send(act.sound)


async def length_too_long(act: Act) -> None:
    await act.head(b"Content-Length: %d" % (len(act.sound) + 10))
    await act.peer.send(act.sound)
    await asyncio.sleep(SETTLED)
    await act.peer.close()


async def bad_first_chunk(act: Act) -> None:
    await act.chunked()
    await act.peer.send(b"zz\r\n" + act.sound)
    await act.silence()


async def bad_later_chunk(act: Act) -> None:
    await act.chunked()
    await act.chunk(act.first)
    await asyncio.sleep(SETTLED)
    await act.peer.send(b"zz\r\n")
    await act.silence()


async def garbage(act: Act) -> None:
    await act.peer.send(b"\x00\xff\x16\x03 this is no HTTP\r\n\r\n")
    await act.silence()


async def another_protocol(act: Act) -> None:
    await act.head(b"Upgrade: websocket", b"Connection: upgrade", status=b"101 Switching Protocols")
    await act.silence()


async def endless_head(act: Act) -> None:
    await act.peer.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await act.peer.send(b"X-More: %b\r\n" % (b"x" * 1000))


async def some_1xx(act: Act) -> None:
    await act.peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 20)
    await act.chunked()
    await act.chunk(act.sound)
    await act.end()


async def storm_of_1xx(act: Act) -> None:
    while True:
        await act.peer.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)


# -- errors that the upstream tells --------------------------------------------------------------


def _told(
    status: bytes, *lines: bytes, body: bytes = answers.ERROR, kind: bytes = b"application/json"
) -> Play:
    return lambda act: act.whole(body, *lines, status=status, kind=kind)


# -- 200, and something is wrong -----------------------------------------------------------------


def _body(body: bytes) -> Play:
    """A 200 with that body, well framed."""
    return lambda act: act.whole(body)


async def byte_by_byte(act: Act) -> None:
    await act.chunked()
    for byte in act.sound:
        await act.chunk(bytes([byte]))
    await act.end()


# -- silence -------------------------------------------------------------------------------------


async def silence(act: Act) -> None:
    await act.silence()


async def silence_in_the_head(act: Act) -> None:
    await act.peer.send(HALF_A_HEAD)
    await act.silence()


async def silence_behind_the_head(act: Act) -> None:
    await act.chunked()
    await act.silence()


async def silence_behind_the_first_event(act: Act) -> None:
    await act.chunked()
    await act.chunk(act.first)
    await act.silence()


async def silence_in_an_event(act: Act) -> None:
    await act.chunked()
    await act.chunk(act.sound[: len(act.first) + 20])
    await act.silence()


async def dripping_head(act: Act) -> None:
    await act.peer.send(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000, piece=1, pause=DRIP)


async def dripping_body(act: Act) -> None:
    await act.chunked()
    for byte in act.sound:
        await act.chunk(bytes([byte]))
        await asyncio.sleep(DRIP)


# -- much ----------------------------------------------------------------------------------------


async def huge(act: Act) -> None:
    act.promise_much()
    await act.chunked()
    for piece in answers.much(act.stream, HUGE):
        await act.chunk(piece)
    await act.end()


async def bomb(act: Act) -> None:
    """100 MiB packed into some hundred KiB, for a caller who has not asked for gzip."""
    act.promise_much()
    content = answers.packed(act.stream, HUGE)
    await act.head(b"Content-Encoding: gzip", b"Content-Length: %d" % len(content))
    await act.peer.send(content)


BEFORE_THE_REQUEST = ("accepts and closes",)

PLAYS: dict[str, Play] = {
    "sound": sound,
    "accepts and closes": accept_and_close,
    "reads the request and closes": close_before_the_head,
    "resets before the head": reset_before_the_head,
    "closes in the head": half_a_head_and_close,
    "resets behind the head": reset_behind_the_head,
    "resets between two events": reset_between_two_events,
    "resets in a chunk": reset_in_a_chunk,
    "resets before the end mark": reset_before_the_end_mark,
    "a length too short": length_too_short,
    "a length too long": length_too_long,
    "a bad first chunk": bad_first_chunk,
    "a bad later chunk": bad_later_chunk,
    "no HTTP": garbage,
    "another protocol": another_protocol,
    "a head without end": endless_head,
    "some 1xx": some_1xx,
    "a storm of 1xx": storm_of_1xx,
    "500": _told(b"500 Internal Server Error"),
    "502": _told(b"502 Bad Gateway"),
    "503": _told(b"503 Service Unavailable"),
    "503 with Retry-After": _told(b"503 Service Unavailable", b"Retry-After: 7"),
    "429": _told(b"429 Too Many Requests"),
    "429 with Retry-After": _told(b"429 Too Many Requests", b"Retry-After: 7"),
    "a page": _told(b"502 Bad Gateway", body=answers.PAGE, kind=b"text/html"),
    "an empty 200": _body(b""),
    "no JSON": _body(b'{"choices": [{"message'),
    "CRLF": _body(answers.events(*answers.PIECES, end=b"\r\n")),
    "CR": _body(answers.events(*answers.PIECES, end=b"\r")),
    "byte by byte": byte_by_byte,
    "a giant line": _body(answers.GIANT),
    "no last newline": _body(answers.STREAM.rstrip(b"\n")),
    "an error event first": _body(answers.events(answers.ERROR)),
    "an error event later": _body(answers.FIRST_EVENT + answers.events(answers.ERROR)),
    "silence": silence,
    "silence in the head": silence_in_the_head,
    "silence behind the head": silence_behind_the_head,
    "silence behind the first event": silence_behind_the_first_event,
    "silence in an event": silence_in_an_event,
    "a dripping head": dripping_head,
    "a dripping body": dripping_body,
    "huge": huge,
    "bomb": bomb,
}


class Loop:
    """An event loop in a thread of its own, for the upstreams."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@contextmanager
def open_loop() -> Iterator[Loop]:
    loop = Loop()
    try:
        yield loop
    finally:
        loop.stop()


@contextmanager
def listening(loop: Loop, server: RawServer) -> Iterator[RawServer]:
    loop.run(server.__aenter__())
    try:
        yield server
    finally:
        loop.run(server.__aexit__())
