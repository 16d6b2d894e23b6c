"""Every patience ends in its own error, and a slow upstream that keeps going is no fault."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from ai_proxy_mw._errors import RequestTimeout, UpstreamTimeout
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.upstream.base import Origin
from tests.transport._harness import (
    collect,
    deaf_port,
    every_kind,
    fetch,
    get,
    in_loop,
    outbound,
    read,
    transport,
    upload,
)
from tests.transport._raw_server import Peer, RawServer, answering, ok

SHORT = 0.2


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.until_closed()


async def deaf(peer: Peer) -> None:
    await peer.head()
    await asyncio.Event().wait()


@every_kind
@in_loop
async def test_connect(kind: str) -> None:
    with ExitStack() as stack:
        port = deaf_port(stack)
        async with transport(kind) as upstream:
            with pytest.raises(UpstreamTimeout) as caught:
                await upstream.send(get(Origin("http", "127.0.0.1", port), connect=SHORT))
            assert caught.value.waited_for == "connect"


@every_kind
@in_loop
async def test_first_byte(kind: str) -> None:
    async with RawServer(silent) as server, transport(kind) as upstream:
        with pytest.raises(UpstreamTimeout) as caught:
            await upstream.send(outbound(server, body=b"{}", first_byte=SHORT))
        assert caught.value.waited_for == "first_byte"
        await server.peers[0].gone.wait()


@every_kind
@in_loop
async def test_first_byte_is_for_the_whole_head(kind: str) -> None:
    async with (
        RawServer(answering(ok(b"x"), piece=1, pause=0.05)) as server,
        transport(kind) as upstream,
    ):
        with pytest.raises(UpstreamTimeout) as caught:
            await upstream.send(get(server, first_byte=SHORT))
        assert caught.value.waited_for == "first_byte"


@every_kind
@in_loop
async def test_first_byte_counts_from_the_end_of_the_request(kind: str) -> None:
    async def slowly() -> tuple[bytes, bool]:
        await asyncio.sleep(0.1)
        parts.append(b"x")
        return b"x", len(parts) == 5

    parts: list[bytes] = []
    body = RequestBody(slowly, declared=None, limit=100, patience=5)
    async with RawServer(answering(ok(b"yes"))) as server, transport(kind) as upstream:
        _, answer = await fetch(upstream, outbound(server, body=body, first_byte=0.3))
        assert answer == b"yes"
        assert server.requests[0].body == b"xxxxx"


@every_kind
@in_loop
async def test_first_byte_is_over_with_the_head(kind: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        await asyncio.sleep(3 * SHORT)
        await peer.send(b"hello")
        await peer.until_closed()

    async with RawServer(script) as server, transport(kind) as upstream:
        _, body = await fetch(upstream, get(server, first_byte=SHORT))
        assert body == b"hello"


@every_kind
@in_loop
async def test_idle(kind: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello")
        await peer.until_closed()

    async with RawServer(script) as server, transport(kind) as upstream:
        response = await upstream.send(get(server, idle=SHORT))
        got = bytearray()
        with pytest.raises(UpstreamTimeout) as caught:
            await collect(response, got)
        assert (caught.value.waited_for, bytes(got)) == ("idle", b"hello")
        await server.peers[0].gone.wait()


@every_kind
@in_loop
async def test_a_slow_answer_that_keeps_coming_is_fine(kind: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n")
        await peer.send(b"slow but steady"[:14], piece=1, pause=0.05)
        await peer.until_closed()

    async with RawServer(script) as server, transport(kind) as upstream:
        _, body = await fetch(upstream, get(server, idle=0.4))
        assert body == b"slow but stead"


@every_kind
@in_loop
async def test_a_reader_that_takes_its_time_is_not_the_upstreams_silence(kind: str) -> None:
    async with RawServer(answering(ok(b"hello" * 1000))) as server, transport(kind) as upstream:
        response = await upstream.send(get(server, idle=SHORT))
        await asyncio.sleep(2 * SHORT)
        assert await read(response) == b"hello" * 1000


@every_kind
@in_loop
async def test_total_while_waiting_for_the_head(kind: str) -> None:
    async with RawServer(silent) as server, transport(kind) as upstream:
        with pytest.raises(UpstreamTimeout) as caught:
            await upstream.send(get(server, total=SHORT))
        assert caught.value.waited_for == "total"


@every_kind
@in_loop
async def test_total_within_the_body(kind: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        await peer.send(b"x" * 1000, piece=1, pause=0.02)

    async with RawServer(script) as server, transport(kind) as upstream:
        response = await upstream.send(get(server, total=SHORT, idle=0.15))
        with pytest.raises(UpstreamTimeout) as caught:
            await read(response)
        assert caught.value.waited_for == "total"
        await server.peers[0].gone.wait()


@every_kind
@pytest.mark.parametrize("streamed", [False, True])
@in_loop
async def test_write(kind: str, streamed: bool) -> None:
    megabyte = bytes(1 << 20)
    async with RawServer(deaf, receive_buffer=65536) as server, transport(kind) as upstream:
        body = upload([megabyte] * 20) if streamed else megabyte * 20
        with pytest.raises(UpstreamTimeout) as caught:
            await upstream.send(outbound(server, body=body, write=SHORT))
        assert caught.value.waited_for == "write"


@every_kind
@in_loop
async def test_an_upstream_that_reads_slowly_but_steadily_is_fine(kind: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        for _ in range(20):
            await peer.read(400_000)
            await asyncio.sleep(0.03)
        await peer.send(ok(b"thanks"))

    async with RawServer(script, receive_buffer=65536) as server, transport(kind) as upstream:
        _, body = await fetch(upstream, outbound(server, body=bytes(8_000_000), write=0.4))
        assert body == b"thanks"


@every_kind
@in_loop
async def test_a_caller_who_stops_sending_is_not_the_upstreams_fault(kind: str) -> None:
    async def never() -> tuple[bytes, bool]:
        await asyncio.Event().wait()
        raise AssertionError

    body = RequestBody(never, declared=10, limit=100, patience=SHORT)

    async def watch() -> None:
        while True:  # as the door does
            await asyncio.sleep(SHORT / 10)
            body.check(asyncio.get_running_loop().time())

    async with RawServer(silent) as server, transport(kind) as upstream:
        watching = asyncio.ensure_future(watch())
        with pytest.raises(RequestTimeout):
            await upstream.send(outbound(server, body=body, write=SHORT / 2))
        watching.cancel()
        await server.peers[0].gone.wait()
