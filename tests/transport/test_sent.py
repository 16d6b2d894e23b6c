"""Whether the upstream may have had the whole of a request that came to nothing."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import ExitStack
from typing import Any

import pytest

from ai_proxy_mw._errors import UpstreamDisconnected, UpstreamError, UpstreamTimeout
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.upstream.base import Origin
from ai_proxy_mw.upstream.httpx import HttpxTransport
from tests.transport._harness import (
    deaf_port,
    every_kind,
    get,
    in_loop,
    outbound,
    transport,
    upload,
)
from tests.transport._raw_server import Peer, RawServer, Script, ok

MB = 1 << 20
both = pytest.mark.parametrize("name", ["httpx", "httpx2"])


async def failure(kind: str, script: Script, **request: Any) -> UpstreamError:
    """What a call comes to with a server that does so."""
    async with RawServer(script, receive_buffer=65536) as server, transport(kind) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await upstream.send(outbound(server, **request))
    return caught.value


async def resets_at_once(peer: Peer) -> None:
    await peer.head()
    peer.reset()


async def resets_after_all(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def closes_after_all(peer: Peer) -> None:
    await peer.request()


async def mumbles(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"rubbish\r\n\r\n")


async def listens(peer: Peer) -> None:
    await peer.until_closed()


async def is_deaf(peer: Peer) -> None:
    await asyncio.Event().wait()


def large(how: str) -> bytes | RequestBody:
    if how == "whole":
        return bytes(20 * MB)
    return upload([bytes(MB)] * 20, declared=20 * MB if how == "declared" else None)


ways = pytest.mark.parametrize("how", ["whole", "declared", "chunked"])


@every_kind
@ways
@in_loop
async def test_a_reset_in_the_middle(kind: str, how: str) -> None:
    error = await failure(kind, resets_at_once, body=large(how))
    assert isinstance(error, UpstreamDisconnected)
    assert error.sent is False


@every_kind
@ways
@pytest.mark.parametrize("script", [resets_after_all, closes_after_all, mumbles])
@in_loop
async def test_a_failure_after_all_of_it(kind: str, how: str, script: Script) -> None:
    assert (await failure(kind, script, body=large(how))).sent is True


@every_kind
@pytest.mark.parametrize("body", [b"", b"small"])
@in_loop
async def test_a_small_request_is_sent_at_once(kind: str, body: bytes) -> None:
    for script in (closes_after_all, resets_after_all, mumbles):
        assert (await failure(kind, script, body=body)).sent is True


@every_kind
@in_loop
async def test_timeouts(kind: str) -> None:
    async def waited(script: Script, **request: Any) -> tuple[str, bool]:
        error = await failure(kind, script, **request)
        assert isinstance(error, UpstreamTimeout)
        return error.waited_for, error.sent

    assert await waited(is_deaf, body=bytes(20 * MB), write=0.2) == ("write", False)
    assert await waited(is_deaf, body=bytes(20 * MB), total=0.2) == ("total", False)
    assert await waited(listens, body=b"x", first_byte=0.2) == ("first_byte", True)
    assert await waited(listens, body=b"x", total=0.2) == ("total", True)


@every_kind
@in_loop
async def test_a_connection_that_does_not_come(kind: str) -> None:
    with ExitStack() as stack:
        port = deaf_port(stack)
        async with transport(kind) as upstream:
            with pytest.raises(UpstreamTimeout) as caught:
                await upstream.send(get(Origin("http", "127.0.0.1", port), connect=0.2))
    assert (caught.value.waited_for, caught.value.sent) == ("connect", False)


@every_kind
@in_loop
async def test_all_of_it_is_sent_though_the_callers_end_mark_is_not_there(kind: str) -> None:
    """With its declared length a body is whole for the upstream, which may begin to work."""
    never = asyncio.Event()
    pieces = [b"abc", b"de"]

    async def pull() -> tuple[bytes, bool]:
        if not pieces:
            await never.wait()
        return pieces.pop(0), False

    body = RequestBody(pull, declared=5, limit=100)
    error = await failure(kind, listens, body=body, total=0.3, first_byte=0.3)
    assert error.sent is True


@every_kind
@in_loop
async def test_an_upload_that_the_caller_has_not_ended_is_not_sent(kind: str) -> None:
    never = asyncio.Event()
    pieces = [b"abc", b"de"]

    async def pull() -> tuple[bytes, bool]:
        if not pieces:
            await never.wait()
        return pieces.pop(0), False

    for declared in (6, None):
        pieces[:] = [b"abc", b"de"]
        body = RequestBody(pull, declared=declared, limit=100)
        error = await failure(kind, listens, body=body, total=0.3)
        assert error.sent is False


@every_kind
@in_loop
async def test_an_answer_that_breaks_off_was_worked_on(kind: str) -> None:
    async def breaks_off(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")

    async with RawServer(breaks_off) as server, transport(kind) as upstream:
        response = await upstream.send(outbound(server, body=b"x"))
        with pytest.raises(UpstreamDisconnected) as caught:
            await response.body.ready()
    assert caught.value.sent is True


@in_loop
async def test_a_kept_connection_that_is_closed_under_a_call() -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"first"))
        await peer.request()

    async with RawServer(once) as server, transport("native") as upstream:
        first = await upstream.send(get(server))
        assert await anext(first.body) == b"first"
        with pytest.raises(UpstreamDisconnected) as caught:
            await upstream.send(outbound(server, body=b"x"))
    assert caught.value.sent is True


@both
@pytest.mark.parametrize(
    ("fault", "reads", "sent"),
    [
        ("ConnectError", True, False),  # the body was read to be signed, before there was a line
        ("PoolTimeout", True, False),
        ("ConnectTimeout", True, False),
        ("WriteTimeout", True, True),  # of an HTTP/2 frame while the answer was waited for
        ("WriteTimeout", False, False),
        ("WriteError", True, True),
        ("WriteError", False, False),
        ("ReadError", True, True),
        ("ReadTimeout", False, False),
        ("InvalidURL", False, False),
    ],
)
@in_loop
async def test_a_client_whose_own_transport_fails(
    name: str, fault: str, reads: bool, sent: bool
) -> None:
    library: Any = importlib.import_module(name)

    class Failing(library.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            if reads:
                async for _ in request.stream:
                    pass
            raise getattr(library, fault)("a text")

    async with library.AsyncClient(transport=Failing()) as client:
        with pytest.raises(UpstreamError) as caught:
            await HttpxTransport(client).send(get(Origin("http", "upstream.test", 80)))
    assert caught.value.sent is sent
