"""Answers that break the protocol, or go on for ever."""

from __future__ import annotations

import asyncio

import pytest

from ai_proxy_mw._errors import (
    UpstreamDisconnected,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from tests.transport._harness import by_kind, collect, every_kind, fetch, get, in_loop, transport
from tests.transport._raw_server import Peer, RawServer, answering, closing, ok

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@every_kind
@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46" * 20,
        b"<html>no</html>\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 600 Odd\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx : space\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: nul\x00byte\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: nameless\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nhello",
        CHUNKED[:-2] + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"FFFFFFFFFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhello___\r\n0\r\n\r\n",
        CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    ],
)
@in_loop
async def test_what_cannot_be_read_is_refused(kind: str, answer: bytes) -> None:
    async with RawServer(answering(answer)) as server, transport(kind) as upstream:
        with pytest.raises(UpstreamProtocolError):
            await fetch(upstream, get(server, first_byte=5.0, idle=5.0))
        await server.peers[0].gone.wait()


@every_kind
@pytest.mark.parametrize(
    ("answer", "library_reads"),
    [
        (
            CHUNKED[:-2] + b"content-length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"hello",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\nx: y\ncontent-length: 5\n\nhello", b"hello"),
        (b"HTTP/9.9 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\nx-a: b\r\n c\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
    ],
    ids=["length-and-chunked", "length-twice", "bare-lf", "http99", "length-list", "folded"],
)
@in_loop
async def test_what_can_be_read_in_two_ways(kind: str, answer: bytes, library_reads: bytes) -> None:
    expected = by_kind(
        kind,
        native=UpstreamProtocolError,
        library=library_reads,
        why="h11 takes these (RFC 9112 leaves it to the reader) and cannot be told not to",
    )
    async with RawServer(closing(answer)) as server, transport(kind) as upstream:
        if isinstance(expected, bytes):
            assert (await fetch(upstream, get(server)))[1] == expected
        else:
            with pytest.raises(expected):
                await fetch(upstream, get(server))


@every_kind
@in_loop
async def test_a_body_shorter_than_promised_is_a_disconnect(kind: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"
    async with RawServer(closing(answer)) as server, transport(kind) as upstream:
        response = await upstream.send(get(server))
        got = bytearray()
        with pytest.raises(UpstreamDisconnected):
            await collect(response, got)
        assert got == b"hello"
        assert not response.body.ended


SURPLUS = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL"


@every_kind
@in_loop
async def test_surplus_bytes_never_reach_the_next_answer(kind: str) -> None:
    expected = by_kind(
        kind,
        native=b"second",
        library=b"EVIL",
        why="h11 keeps what came behind an answer and httpcore does not look; a client without "
        "keep-alive is the way around (see the test of HttpxTransport)",
    )
    both = RawServer(answering(ok(b"first") + SURPLUS), answering(ok(b"second")))
    async with both as server, transport(kind) as upstream:
        _, first = await fetch(upstream, get(server))
        _, second = await fetch(upstream, get(server))
        assert (first, second) == (b"first", expected)


@every_kind
@in_loop
async def test_bytes_on_an_idle_connection_make_it_useless(kind: str) -> None:
    read, sent = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"first"))
        await read.wait()
        await peer.send(SURPLUS)
        sent.set()
        await peer.until_closed()

    async with (
        RawServer(script, answering(ok(b"second"))) as server,
        transport(kind) as upstream,
    ):
        _, first = await fetch(upstream, get(server))
        read.set()
        await sent.wait()
        await asyncio.sleep(0.05)  # the way through the loopback
        _, second = await fetch(upstream, get(server))
        assert (first, second) == (b"first", b"second")


@every_kind
@in_loop
async def test_a_large_head_is_taken(kind: str) -> None:
    lines = [b"x-%d: " % number + b"v" * 1000 for number in range(60)]
    async with RawServer(answering(ok(b"ok", *lines))) as server, transport(kind) as upstream:
        response, body = await fetch(upstream, get(server))
        assert body == b"ok"
        assert len(response.headers) == 61


ENDLESS = {
    "status": (b"HTTP/1.1 200 ", b"O" * 4096),
    "header-value": (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 4096),
    "header-name": (b"HTTP/1.1 200 OK\r\n", b"y" * 4096),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x-line: value\r\n" * 300),
    "chunk-extension": (CHUNKED + b"5;", b"x" * 4096),
    "chunk-size": (CHUNKED, b"0" * 4096),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\n", b"x-line: value\r\n" * 300),
}


def endless(start: bytes, more: bytes) -> RawServer:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(start)
        while peer.sent < 50_000_000:
            await peer.send(more)

    return RawServer(script)


@every_kind
@pytest.mark.parametrize("what", ENDLESS)
@in_loop
async def test_an_endless_head_is_cut_off(kind: str, what: str) -> None:
    async with endless(*ENDLESS[what]) as server, transport(kind) as upstream:
        with pytest.raises(UpstreamError):
            await fetch(upstream, get(server))
        await server.peers[0].gone.wait()
        # What the socket buffers hold (some MB) counts as sent, though nobody has read it.
        assert server.peers[0].sent < 20_000_000


@every_kind
@in_loop
async def test_endless_interim_answers_are_cut_off(kind: str) -> None:
    expected = by_kind(
        kind,
        native=UpstreamProtocolError,
        library=UpstreamTimeout,
        why="httpcore drops interim answers without counting them; our timeout ends it",
    )
    async with (
        endless(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100) as server,
        transport(kind) as upstream,
    ):
        with pytest.raises(expected):
            await fetch(upstream, get(server, first_byte=0.3))
        await server.peers[0].gone.wait()
