"""Bodies on their way to the upstream, and backpressure in both directions."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from ai_proxy_mw._errors import (
    ClientGone,
    InvalidRequest,
    PayloadTooLarge,
    UpstreamDisconnected,
    UpstreamTimeout,
)
from ai_proxy_mw._incoming import RequestBody
from tests.transport._harness import (
    by_kind,
    every_kind,
    fetch,
    get,
    in_loop,
    outbound,
    transport,
    until,
    upload,
)
from tests.transport._raw_server import Peer, RawServer, answering, ok

MB = 1 << 20
TOO_LARGE = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"


def pattern(size: int) -> bytes:
    return hashlib.sha256(b"seed").digest() * (size // 32)


@every_kind
@pytest.mark.parametrize("declared", [None, 20 * MB])
@in_loop
async def test_a_streamed_upload_arrives_whole(kind: str, declared: int | None) -> None:
    content = pattern(20 * MB)
    pieces = [content[start : start + 333_333] for start in range(0, len(content), 333_333)]
    async with (
        RawServer(answering(ok(b"one"), ok(b"two"))) as server,
        transport(kind) as upstream,
    ):
        body = upload(pieces, declared=declared)
        assert (await fetch(upstream, outbound(server, body=body)))[1] == b"one"
        request = server.requests[0]
        assert request.body == content
        if declared is None:
            assert request.header(b"transfer-encoding") == b"chunked"
            assert request.header(b"content-length") is None
        else:
            assert request.header(b"content-length") == b"%d" % declared
            assert request.header(b"transfer-encoding") is None
        # The connection is as good as after any other call.
        assert (await fetch(upstream, get(server)))[1] == b"two"
        assert server.accepted == 1


@every_kind
@in_loop
async def test_a_whole_body_of_20_mb_arrives(kind: str) -> None:
    content = pattern(20 * MB)
    async with RawServer(answering(ok(b"one"))) as server, transport(kind) as upstream:
        await fetch(upstream, outbound(server, body=content))
        assert server.requests[0].body == content


@every_kind
@pytest.mark.parametrize("declared", [None, 0])
@in_loop
async def test_an_upload_that_turns_out_empty(kind: str, declared: int | None) -> None:
    async with RawServer(answering(ok(b"one"))) as server, transport(kind) as upstream:
        await fetch(upstream, outbound(server, body=upload([], declared=declared)))
        assert server.requests[0].body == b""


@every_kind
@in_loop
async def test_an_upload_is_pulled_no_faster_than_the_upstream_takes_it(kind: str) -> None:
    pulled = 0

    async def pull() -> tuple[bytes, bool]:
        nonlocal pulled
        await asyncio.sleep(0)
        pulled += MB
        return bytes(MB), False

    async def deaf(peer: Peer) -> None:
        await peer.head()
        await asyncio.Event().wait()

    body = RequestBody(pull, declared=None, limit=1 << 40, patience=30)
    async with RawServer(deaf, receive_buffer=65536) as server, transport(kind) as upstream:
        with pytest.raises(UpstreamTimeout):
            await upstream.send(outbound(server, body=body, write=0.3))
        assert pulled < 16 * MB  # what the socket buffers hold


@every_kind
@in_loop
async def test_a_reader_that_does_not_read_holds_the_upstream_back(kind: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (200 * MB))
        for _ in range(200):
            await peer.send(bytes(MB))

    async with RawServer(script) as server, transport(kind) as upstream:
        response = await upstream.send(get(server))
        await response.body.ready()
        peer = server.peers[0]
        settled = -1
        while settled != peer.sent:
            settled = peer.sent
            await asyncio.sleep(0.1)
        assert settled < 24 * MB
        assert len(await anext(response.body)) < 2 * MB
        taken = 0
        async for piece in response.body:
            taken += len(piece)
            if taken > 60 * MB:
                break
        assert peer.sent > settled
        await response.body.aclose()
        await until(peer.gone.is_set)


@every_kind
@pytest.mark.parametrize("streamed", [False, True])
@in_loop
async def test_an_answer_before_the_upload_is_over_comes_at_once(kind: str, streamed: bool) -> None:
    async def refuses(peer: Peer) -> None:
        await peer.head()
        await peer.send(TOO_LARGE)
        await gone.wait()

    gone = asyncio.Event()
    sent = outbound
    body = upload([bytes(MB)] * 50) if streamed else bytes(50 * MB)
    async with (
        RawServer(refuses, answering(ok(b"next")), receive_buffer=65536) as server,
        transport(kind) as upstream,
    ):
        early = by_kind(
            kind,
            native=True,
            library=False,
            why="httpcore reads the answer only after the whole request is written",
        )
        if early:
            response, answer = await fetch(upstream, sent(server, body=body))
            assert (response.status, answer) == (413, b"no")
        else:
            with pytest.raises(UpstreamTimeout) as caught:
                await upstream.send(sent(server, body=body, write=0.3))
            assert caught.value.waited_for == "write"
        assert (await fetch(upstream, get(server)))[1] == b"next"
        assert server.accepted == 2
        gone.set()


@every_kind
@in_loop
async def test_an_answer_before_the_upload_is_over_when_the_upload_is_small(kind: str) -> None:
    """What is left of the upload fits the socket, so that every transport gets to the answer."""

    async def refuses(peer: Peer) -> None:
        await peer.head()
        await peer.send(TOO_LARGE)
        await peer.until_closed()

    body = upload([bytes(1000)] * 10)
    async with (
        RawServer(refuses, answering(ok(b"next"))) as server,
        transport(kind) as upstream,
    ):
        response, answer = await fetch(upstream, outbound(server, body=body))
        assert (response.status, answer) == (413, b"no")


FAULTS = [ClientGone(), PayloadTooLarge(10), ValueError("a bug"), ConnectionResetError("a bug")]


@every_kind
@pytest.mark.parametrize("declared", [None, 3 * MB])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@in_loop
async def test_a_fault_of_the_upload_comes_out_as_it_is(
    kind: str, fault: Exception, declared: int | None
) -> None:
    async def script(peer: Peer) -> None:
        await peer.until_closed()

    body = upload([bytes(MB), fault], declared=declared)
    async with (
        RawServer(script, answering(ok(b"next"))) as server,
        transport(kind) as upstream,
    ):
        with pytest.raises(type(fault)) as caught:
            await upstream.send(outbound(server, body=body))
        assert caught.value is fault
        await until(server.peers[0].gone.is_set)
        assert (await fetch(upstream, get(server)))[1] == b"next"
        assert server.accepted == 2


@every_kind
@pytest.mark.parametrize("pieces", [[b"too", b" long"], [b"to"]], ids=["longer", "shorter"])
@in_loop
async def test_an_upload_that_breaks_its_word_is_refused(kind: str, pieces: list[bytes]) -> None:
    async def script(peer: Peer) -> None:
        await peer.until_closed()

    async with RawServer(script) as server, transport(kind) as upstream:
        with pytest.raises(InvalidRequest):
            await upstream.send(outbound(server, body=upload(pieces, declared=5)))
        await until(server.peers[0].gone.is_set)


@every_kind
@in_loop
async def test_an_upstream_that_breaks_off_an_upload(kind: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    async with RawServer(script) as server, transport(kind) as upstream:
        with pytest.raises(UpstreamDisconnected):
            await upstream.send(outbound(server, body=upload([bytes(MB)] * 50)))


@in_loop
async def test_a_refusal_followed_by_a_close_is_heard_through_the_broken_pipe() -> None:
    """The native transport listens while it sends, so the close cannot hide the answer."""

    async def refuses(peer: Peer) -> None:
        await peer.head()
        await peer.send(TOO_LARGE)
        peer.finish()
        await gone.wait()

    gone = asyncio.Event()
    async with RawServer(refuses) as server, transport("native") as upstream:
        body = upload([bytes(MB)] * 50)
        response, answer = await fetch(upstream, outbound(server, body=body))
        assert (response.status, answer) == (413, b"no")
        gone.set()
