"""Corners of the native transport that only a certain moment reaches."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack
from typing import Any

import pytest

from ai_proxy_mw._config import Timeouts
from ai_proxy_mw._errors import StaleConnection, UpstreamTimeout, UpstreamUnreachable
from ai_proxy_mw.upstream import _dial
from ai_proxy_mw.upstream._connection import Connection
from ai_proxy_mw.upstream._pool import Pool
from ai_proxy_mw.upstream.base import Origin
from ai_proxy_mw.upstream.native import NativeTransport
from tests.servers import free_port
from tests.transport._certificates import authority
from tests.transport._harness import (
    deaf_port,
    fetch,
    get,
    in_loop,
    outbound,
    read,
    transport,
    until,
)
from tests.transport._raw_server import Peer, RawServer, answering, ok


@in_loop
async def test_a_connection_that_is_lost_before_its_first_call() -> None:
    loop = asyncio.get_running_loop()
    pool = Pool(Origin("http", "x", 1), loop, limit=1, keepalive=4, ssl_context=None)
    connection = Connection(pool, loop)  # never connected, which is as good as lost
    assert not connection.usable(loop.time())
    exchange = connection.begin("GET", Timeouts())
    connection.write(b"into the void")
    with pytest.raises(StaleConnection):
        await exchange.head
    pool.close()


@in_loop
async def test_rubbish_behind_a_whole_answer_does_not_spoil_it() -> None:
    async with (
        RawServer(answering(ok(b"first") + b"RUBBISH"), answering(ok(b"second"))) as server,
        transport("native") as upstream,
    ):
        assert (await fetch(upstream, get(server)))[1] == b"first"
        assert (await fetch(upstream, get(server)))[1] == b"second"
        assert len(server.peers) == 2


@in_loop
async def test_silence_while_our_own_reader_is_busy_is_forgiven() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc")
        await go_on.wait()
        await peer.send(b"def")
        await peer.until_closed()

    async with RawServer(script) as server, transport("native") as upstream:
        response = await upstream.send(get(server, idle=0.1))
        await asyncio.sleep(0.3)  # thrice the patience, with a piece that is not taken
        go_on.set()
        assert await read(response) == b"abcdef"


@in_loop
async def test_a_kept_connection_that_has_expired_unseen_is_not_used() -> None:
    async with (
        RawServer(answering(ok(b"a")), answering(ok(b"b"))) as server,
        transport("native", keepalive=0.2) as upstream,
    ):
        await fetch(upstream, get(server))
        time.sleep(0.3)  # the loop must not come to sweep it away
        assert (await fetch(upstream, get(server)))[1] == b"b"
        assert len(server.peers) == 2


@in_loop
async def test_a_kept_connection_that_is_long_idle_is_asked_before_its_use() -> None:
    async with (
        RawServer(answering(ok(b"a")), answering(ok(b"b"))) as server,
        transport("native", keepalive=30) as upstream,
    ):
        await fetch(upstream, outbound(server))
        await server.peers[0].close()
        time.sleep(0.6)  # the loop must not hear of the close
        assert (await fetch(upstream, outbound(server)))[1] == b"b"  # a POST, not lost


@in_loop
async def test_one_stale_connection_throws_doubt_on_all() -> None:
    """After a restart of the upstream no call runs into a second dead connection."""
    both = asyncio.Barrier(2)

    async def dying(peer: Peer) -> None:
        await peer.request()
        await both.wait()
        await peer.send(ok(b"before"))
        await peer.head()  # and dies without a word

    async with (
        RawServer(dying, dying, answering(ok(b"after"))) as server,
        transport("native") as upstream,
    ):
        await asyncio.gather(*(fetch(upstream, get(server)) for _ in range(2)))
        assert (await fetch(upstream, get(server)))[1] == b"after"
        assert len(server.peers) == 3


@in_loop
async def test_a_shorter_patience_is_kept_too() -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.until_closed()

    async with RawServer(silent, silent) as server, transport("native") as upstream:
        waiting = asyncio.ensure_future(upstream.send(get(server)))
        await until(lambda: len(server.requests) == 1)
        began = time.monotonic()
        with pytest.raises(UpstreamTimeout):
            await upstream.send(get(server, first_byte=0.1))
        assert time.monotonic() - began < 0.4  # the slow tick alone would take 0.5 s
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@in_loop
async def test_without_a_context_the_systems_trust_store_judges() -> None:
    tls = authority().server("127.0.0.1")
    async with RawServer(answering(ok(b"a")), tls=tls) as server:
        native = NativeTransport()
        with pytest.raises(UpstreamUnreachable):
            await native.send(get(server))
        await native.aclose()


def _resolve(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("127.0.0.1", port)) for port in ports]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


def test_an_address_that_does_not_answer_is_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    @in_loop
    async def check() -> None:
        with ExitStack() as stack:
            async with RawServer(answering(ok(b"found"))) as server:
                _resolve(monkeypatch, deaf_port(stack), server.port)
                async with transport("native") as upstream:
                    request = get(Origin("http", "two.test", server.port), connect=5)
                    assert (await fetch(upstream, request))[1] == b"found"

    check()


def test_when_no_address_answers_the_wait_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    @in_loop
    async def check() -> None:
        with ExitStack() as stack:
            _resolve(monkeypatch, deaf_port(stack), deaf_port(stack))
            async with transport("native") as upstream:
                with pytest.raises(UpstreamTimeout):
                    await upstream.send(get(Origin("http", "two.test", 1), connect=0.4))

    check()


@in_loop
async def test_a_connection_that_comes_too_late_is_closed() -> None:
    sock, other = socket.socketpair()

    async def connect() -> socket.socket:
        return sock

    task = asyncio.ensure_future(connect())
    await task
    _dial._close_late(task)
    assert sock.fileno() == -1
    other.close()


def test_an_address_that_refuses_does_not_end_the_wait_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @in_loop
    async def check() -> None:
        with ExitStack() as stack:
            _resolve(monkeypatch, deaf_port(stack), free_port())
            async with transport("native") as upstream:
                with pytest.raises(UpstreamTimeout):
                    await upstream.send(get(Origin("http", "two.test", 1), connect=0.5))

    check()


@in_loop
async def test_who_is_served_and_leaves_at_once_hands_it_on() -> None:
    loop = asyncio.get_running_loop()
    pool = Pool(Origin("http", "x", 1), loop, limit=1, keepalive=4, ssl_context=None)
    connection = Connection(pool, loop)
    for given in (None, connection):
        waiting = asyncio.ensure_future(pool._wait_in_line(5))
        await asyncio.sleep(0)
        if given is None:
            pool._pass_on_right()
            assert pool._dialling == 1
        else:
            pool.idle(given)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert pool._dialling == 0
    assert pool.kept() is None or pool.idle_connections == 0  # the lost one was taken out
    pool.close()


@in_loop
async def test_many_small_chunks_at_once_hold_the_upstream_back_once() -> None:
    body = bytes(1000) * 800
    chunks = b"".join(b"3e8\r\n%b\r\n" % body[i : i + 1000] for i in range(0, len(body), 1000))
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    async with RawServer(answering(answer)) as server, transport("native") as upstream:
        response = await upstream.send(get(server))
        await until(lambda: server.peers[0].sent > 0)
        await asyncio.sleep(0.1)
        assert await read(response) == body


@in_loop
async def test_a_keep_alive_header_may_say_more() -> None:
    more = b"keep-alive: max=100, timeout=30"
    script = answering(ok(b"a", more), ok(b"b", b"keep-alive: max=99"), ok(b"c"))
    async with RawServer(script) as server, transport("native") as upstream:
        for expected in (b"a", b"b", b"c"):
            assert (await fetch(upstream, get(server)))[1] == expected
        assert len(server.peers) == 1
