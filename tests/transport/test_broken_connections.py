"""Connections that end where they should not, and calls that are sent a second time for it."""

from __future__ import annotations

import asyncio
import socket

import pytest

from ai_proxy_mw._errors import (
    StaleConnection,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamUnreachable,
)
from ai_proxy_mw.upstream.base import Origin
from tests.transport._harness import (
    by_kind,
    collect,
    every_kind,
    fetch,
    get,
    in_loop,
    outbound,
    read,
    transport,
    upload,
)
from tests.transport._raw_server import Peer, RawServer, Script, answering, ok


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def breaking(answer: bytes, *, reset: bool) -> Script:
    """Read the request, send that much of an answer, break off."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        if reset:
            # Let the answer through first: a reset throws away what is still on its way.
            await asyncio.sleep(0.05)
            peer.reset()

    return script


@every_kind
@in_loop
async def test_nobody_listens(kind: str) -> None:
    async with transport(kind) as upstream:
        with pytest.raises(UpstreamUnreachable):
            await upstream.send(get(Origin("http", "127.0.0.1", free_port())))


@every_kind
@in_loop
async def test_a_host_without_an_address(kind: str) -> None:
    # Both fail before any name server is asked: RFC 6761 (.invalid), a label that is too long.
    async with transport(kind) as upstream:
        for host in ("a" * 64 + ".invalid", "."):
            with pytest.raises(UpstreamUnreachable):
                await upstream.send(get(Origin("http", host, 80)))


@every_kind
@pytest.mark.parametrize("reset", [False, True])
@in_loop
async def test_accepted_and_closed(kind: str, reset: bool) -> None:
    async def script(peer: Peer) -> None:
        if reset:
            peer.reset()

    async with RawServer(script) as server, transport(kind) as upstream:
        with pytest.raises(UpstreamDisconnected):
            await upstream.send(get(server))
        assert server.accepted == 1


@every_kind
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
    ids=["nothing", "status", "line", "name", "headers", "interim"],
)
@in_loop
async def test_broken_off_within_the_head(kind: str, part: bytes, reset: bool) -> None:
    async with RawServer(breaking(part, reset=reset)) as server, transport(kind) as upstream:
        with pytest.raises(UpstreamDisconnected):
            await upstream.send(get(server))
        assert server.accepted == 1


@every_kind
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
    ids=["length", "between-chunks", "in-chunk", "in-last-chunk"],
)
@in_loop
async def test_broken_off_within_the_body(kind: str, head: bytes, reset: bool) -> None:
    async with RawServer(breaking(head, reset=reset)) as server, transport(kind) as upstream:
        response = await upstream.send(get(server))
        got = bytearray()
        with pytest.raises(UpstreamDisconnected):
            await collect(response, got)
        assert got == b"hello"
        with pytest.raises(UpstreamDisconnected):
            await anext(response.body)


@every_kind
@in_loop
async def test_a_reset_is_no_end_of_a_body_that_ends_with_the_connection(kind: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\nhello"
    async with RawServer(breaking(answer, reset=True)) as server, transport(kind) as upstream:
        response = await upstream.send(get(server))
        with pytest.raises(UpstreamDisconnected):
            await read(response)


def stale() -> Script:
    """Answer once; on the second request, close without a word."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"first"))
        await peer.request()

    return script


@every_kind
@pytest.mark.parametrize(
    ("method", "headers"), [("GET", []), ("POST", [(b"idempotency-key", b"k1")])]
)
@in_loop
async def test_a_repeatable_call_is_sent_again_when_its_kept_connection_closes(
    kind: str, method: str, headers: list[tuple[bytes, bytes]]
) -> None:
    repeats = by_kind(
        kind,
        native=True,
        library=False,
        why="whether a connection had been used before cannot be learnt from httpx",
    )
    async with (
        RawServer(stale(), answering(ok(b"second"))) as server,
        transport(kind) as upstream,
    ):
        call = outbound(server, method=method, headers=headers)
        await fetch(upstream, call)
        if repeats:
            assert (await fetch(upstream, call))[1] == b"second"
            assert len(server.requests) == 3
            assert server.requests[1].raw == server.requests[2].raw
        else:
            with pytest.raises(UpstreamDisconnected):
                await fetch(upstream, call)
            assert len(server.requests) == 2


@every_kind
@in_loop
async def test_what_is_not_repeatable_is_sent_once(kind: str) -> None:
    async with (
        RawServer(stale(), answering(ok(b"second"))) as server,
        transport(kind) as upstream,
    ):
        await fetch(upstream, outbound(server, body=b"x"))
        with pytest.raises(UpstreamDisconnected):
            await upstream.send(outbound(server, body=b"x"))
        assert (len(server.requests), server.accepted) == (2, 1)


@every_kind
@in_loop
async def test_an_upload_is_sent_once_even_if_its_method_is_repeatable(kind: str) -> None:
    async with (
        RawServer(stale(), answering(ok(b"second"))) as server,
        transport(kind) as upstream,
    ):
        await fetch(upstream, get(server))
        with pytest.raises(UpstreamDisconnected):
            await upstream.send(outbound(server, method="PUT", body=upload([b"x"])))
        assert server.accepted == 1


@in_loop
async def test_a_call_is_repeated_once_and_no_more() -> None:
    async def closes(peer: Peer) -> None:
        await peer.request()

    async with RawServer(stale(), closes) as server, transport("native") as upstream:
        await fetch(upstream, get(server))
        with pytest.raises(StaleConnection):
            await upstream.send(get(server))
        assert (len(server.requests), server.accepted) == (3, 2)


@in_loop
async def test_a_call_is_not_repeated_once_something_of_the_answer_came() -> None:
    async def starts(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"first"))
        await peer.request()
        await peer.send(b"HTTP/1.1 2")

    async with RawServer(starts) as server, transport("native") as upstream:
        await fetch(upstream, get(server))
        with pytest.raises(UpstreamDisconnected) as caught:
            await upstream.send(get(server))
        assert not isinstance(caught.value, StaleConnection)
        assert server.accepted == 1


@every_kind
@in_loop
async def test_an_error_never_names_the_upstream(kind: str) -> None:
    async with transport(kind) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await upstream.send(get(Origin("http", "127.0.0.1", free_port())))
        assert b"127.0.0.1" not in caught.value.body()
