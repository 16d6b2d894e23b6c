"""A caller that leaves: whatever was under way at the upstream ends at once."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from ai_proxy_mw._errors import UpstreamDisconnected
from ai_proxy_mw._http import Response
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.upstream.base import Origin, Outbound, Transport
from tests.transport._certificates import authority
from tests.transport._harness import (
    deaf_port,
    every_kind,
    fetch,
    get,
    in_loop,
    outbound,
    transport,
    until,
)
from tests.transport._raw_server import Peer, RawServer, answering, ok

AT_ONCE = 1.0
"""Seconds; 0.1 is what is promised, the rest is for a busy machine (no timeout here is shorter)."""

STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"


async def silent(peer: Peer) -> None:
    await peer.head()
    await peer.until_closed()


async def streaming(peer: Peer) -> None:
    await peer.request()
    await peer.send(STREAM)
    await peer.until_closed()


async def cancelled(by: Transport, request: Outbound, server: RawServer) -> None:
    """Send, cancel once the upstream has the head, and see that the upstream hears of it."""
    call = asyncio.create_task(by.send(request))
    await until(lambda: server.accepted == 1)
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(server.peers[0].gone.is_set, within=AT_ONCE)


@every_kind
@in_loop
async def test_while_connecting(kind: str) -> None:
    with ExitStack() as stack:
        port = deaf_port(stack)
        async with transport(kind) as upstream:
            call = asyncio.create_task(upstream.send(get(Origin("http", "127.0.0.1", port))))
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call


@every_kind
@in_loop
async def test_before_anything_was_done(kind: str) -> None:
    async with RawServer(silent) as server, transport(kind) as upstream:
        call = asyncio.create_task(upstream.send(get(server)))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(server.idle)


@every_kind
@pytest.mark.parametrize("tls", [False, True])
@in_loop
async def test_while_waiting_for_the_head(kind: str, tls: bool) -> None:
    context = authority().server("127.0.0.1") if tls else None
    async with (
        RawServer(silent, tls=context) as server,
        transport(kind, ssl_context=authority().trust()) as upstream,
    ):
        await cancelled(upstream, get(server), server)


@every_kind
@in_loop
async def test_while_uploading_what_the_upstream_does_not_take(kind: str) -> None:
    async def deaf(peer: Peer) -> None:
        await peer.head()
        await left.wait()
        await peer.until_closed()

    async def pull() -> tuple[bytes, bool]:
        await asyncio.sleep(0)
        return bytes(1 << 20), False

    left = asyncio.Event()
    body = RequestBody(pull, declared=None, limit=1 << 40, patience=30)
    async with RawServer(deaf, receive_buffer=65536) as server, transport(kind) as upstream:
        call = asyncio.create_task(upstream.send(outbound(server, body=body)))
        await until(lambda: server.accepted == 1)
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        left.set()
        await until(server.peers[0].gone.is_set, within=AT_ONCE)


@every_kind
@in_loop
async def test_while_the_caller_is_uploading(kind: str) -> None:
    async def never() -> tuple[bytes, bool]:
        await asyncio.Event().wait()
        raise AssertionError

    body = RequestBody(never, declared=None, limit=100, patience=30)
    async with RawServer(silent) as server, transport(kind) as upstream:
        await cancelled(upstream, outbound(server, body=body), server)


@every_kind
@pytest.mark.parametrize("tls", [False, True])
@in_loop
async def test_closing_the_body_in_the_middle(kind: str, tls: bool) -> None:
    context = authority().server("127.0.0.1") if tls else None
    async with (
        RawServer(streaming, answering(ok(b"next")), tls=context) as server,
        transport(kind, ssl_context=authority().trust()) as upstream,
    ):
        response = await upstream.send(get(server))
        assert await anext(response.body) == b"hello"
        await response.body.aclose()
        await until(server.peers[0].gone.is_set, within=AT_ONCE)
        await response.body.aclose()
        with pytest.raises(UpstreamDisconnected):
            await anext(response.body)
        assert (await fetch(upstream, get(server)))[1] == b"next"
        assert server.accepted == 2


@every_kind
@in_loop
async def test_closing_a_body_that_nobody_began_to_read(kind: str) -> None:
    async with RawServer(streaming) as server, transport(kind) as upstream:
        response = await upstream.send(get(server))
        await response.body.aclose()
        await until(server.peers[0].gone.is_set, within=AT_ONCE)


@every_kind
@in_loop
async def test_a_reader_that_is_cancelled_and_closes(kind: str) -> None:
    async def reader() -> None:
        try:
            async for _ in response.body:
                pass
        finally:
            await response.body.aclose()

    async with RawServer(streaming) as server, transport(kind) as upstream:
        response = await upstream.send(get(server))
        reading = asyncio.create_task(reader())
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(server.peers[0].gone.is_set, within=AT_ONCE)


@every_kind
@in_loop
async def test_closing_the_body_under_its_reader(kind: str) -> None:
    async def reader() -> None:
        async for _ in response.body:
            pass

    async with RawServer(streaming) as server, transport(kind) as upstream:
        response = await upstream.send(get(server))
        reading = asyncio.create_task(reader())
        await asyncio.sleep(0.05)
        await response.body.aclose()
        await until(server.peers[0].gone.is_set, within=AT_ONCE)
        with pytest.raises(UpstreamDisconnected):
            async with asyncio.timeout(AT_ONCE):
                await reading


@every_kind
@in_loop
async def test_an_answer_that_comes_as_its_caller_leaves(kind: str) -> None:
    """Cancel at every step of the event loop around the head's arrival: nothing stays open."""
    for steps in range(60):
        async with RawServer(streaming) as server, transport(kind) as upstream:
            call = asyncio.create_task(upstream.send(get(server)))
            for _ in range(steps):
                await asyncio.sleep(0)
            call.cancel()
            try:
                response = await call
            except asyncio.CancelledError:
                pass
            else:
                await response.body.aclose()
            # Nothing but the transport's own closing, which comes later, may be needed.
            await until(server.idle, within=AT_ONCE)


@every_kind
@in_loop
async def test_a_caller_that_is_cancelled_twice(kind: str) -> None:
    async with RawServer(silent) as server, transport(kind) as upstream:
        call = asyncio.create_task(upstream.send(get(server)))
        await until(lambda: server.accepted == 1)
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(server.peers[0].gone.is_set, within=AT_ONCE)


@every_kind
@pytest.mark.parametrize("rounds", range(6))
@in_loop
async def test_twice_while_reading(kind: str, rounds: int) -> None:
    """The second time falls into the closing that the first has begun. With a pool of one place,
    a connection that is only half closed shows: the next call finds no place.
    """
    async with (
        RawServer(streaming, answering(ok(b"sound"))) as server,
        transport(kind, max_connections=1) as upstream,
    ):
        response = await upstream.send(get(server))
        assert await anext(response.body) == b"hello"
        reading = asyncio.create_task(_next(response))
        await asyncio.sleep(0.01)
        reading.cancel()
        for _ in range(rounds):
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await response.body.aclose()
        _, body = await fetch(upstream, get(server, pool=AT_ONCE))
        assert body == b"sound"


async def _next(response: Response) -> bytes:
    return await anext(response.body)
