"""The connections of the native transport: kept, capped, handed out in order."""

from __future__ import annotations

import asyncio

import pytest

from ai_proxy_mw._errors import UpstreamBusy, UpstreamDisconnected
from ai_proxy_mw.upstream.native import NativeTransport
from tests.transport._harness import every_kind, fetch, get, in_loop, read, transport, until
from tests.transport._raw_server import Peer, RawServer, answering, closing, ok


class Gate:
    """A server's script whose answers wait until they are let through, in any order."""

    def __init__(self) -> None:
        self.order: list[bytes] = []
        self._open = asyncio.Semaphore(0)

    async def script(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.order.append(request.header(b"x-number") or b"")
            await self._open.acquire()
            await peer.send(ok(request.header(b"x-number") or b""))

    def busy(self) -> bool:
        return len(self.order) == 1

    def let_through(self, count: int) -> None:
        for _ in range(count):
            self._open.release()


def call(
    by: NativeTransport, server: RawServer, number: int, **timeouts: float
) -> asyncio.Task[bytes]:
    async def run() -> bytes:
        sent = get(server, headers=[(b"x-number", b"%d" % number)], **timeouts)
        return (await fetch(by, sent))[1]

    return asyncio.create_task(run())


@in_loop
async def test_nobody_overtakes_in_the_line() -> None:
    gate = Gate()
    native = NativeTransport(max_connections=2)
    async with RawServer(gate.script) as server:
        calls = []
        for number in range(8):
            calls.append(call(native, server, number))
            await asyncio.sleep(0)
        await until(lambda: len(gate.order) == 2)
        assert native.open_connections == 2
        gate.let_through(8)
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(8)]
        assert gate.order[2:] == [b"%d" % number for number in range(2, 8)]
        assert server.accepted == 2
        assert native.open_connections == native.idle_connections == 2
        await native.aclose()


@pytest.mark.parametrize("promise", [b"", b"Keep-Alive: timeout=1"], ids=["ours", "theirs"])
@in_loop
async def test_nobody_overtakes_when_no_connection_is_kept(promise: bytes) -> None:
    async def script(peer: Peer) -> None:
        order.append((await peer.request()).header(b"x-number"))
        await asyncio.sleep(0.005)
        await peer.send(ok(b"x", *filter(None, [promise])))
        await peer.until_closed()

    order: list[bytes | None] = []
    native = NativeTransport(max_connections=1, keepalive=4 if promise else 0)
    async with RawServer(script) as server:
        await asyncio.gather(*(call(native, server, number) for number in range(8)))
        assert order == [b"%d" % number for number in range(8)]
        assert server.accepted == 8
        await native.aclose()


@in_loop
async def test_a_connection_that_closes_as_it_is_handed_over_is_replaced() -> None:
    async def first(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfir")
        await asyncio.sleep(0.02)
        await peer.send(b"st")

    native = NativeTransport(max_connections=1)
    async with RawServer(first, answering(ok(b"x"), ok(b"x"))) as server:
        response = await native.send(get(server))
        order: list[bytes] = []

        async def wait(name: bytes) -> None:
            await fetch(native, get(server, headers=[(b"x-number", name)]))
            order.append(name)

        waiting = [asyncio.create_task(wait(b"a")), asyncio.create_task(wait(b"b"))]
        assert await read(response) == b"first"
        # The first in line has the connection but has not run yet: break it under its hands.
        (connection,) = native._here()[server.origin]._all
        connection.keepalive = -1.0
        await asyncio.gather(*waiting)
        assert order == [b"a", b"b"]
        await native.aclose()


@in_loop
async def test_the_wait_in_line_is_bounded() -> None:
    gate = Gate()
    native = NativeTransport(max_connections=1)
    async with RawServer(gate.script) as server:
        first = call(native, server, 1)
        await until(gate.busy)
        with pytest.raises(UpstreamBusy):
            await call(native, server, 2, pool=0.1)
        gate.let_through(1)
        assert await first == b"1"
        gate.let_through(1)
        assert await call(native, server, 3) == b"3"
        assert gate.order == [b"1", b"3"]
        await native.aclose()


@in_loop
async def test_who_leaves_the_line_takes_nothing_along() -> None:
    gate = Gate()
    native = NativeTransport(max_connections=1)
    async with RawServer(gate.script) as server:
        first, second, third = (call(native, server, number) for number in range(3))
        await until(gate.busy)
        second.cancel()
        gate.let_through(2)
        assert await first == b"0"
        assert await third == b"2"
        assert second.cancelled()
        await native.aclose()


@pytest.mark.parametrize("keepalive", [4.0, 0.0], ids=["connection", "right"])
@in_loop
async def test_who_leaves_in_the_moment_of_being_served_takes_nothing_along(
    keepalive: float,
) -> None:
    gate = Gate()
    native = NativeTransport(max_connections=1, keepalive=keepalive)
    async with RawServer(gate.script) as server:
        first, second, third = (call(native, server, number) for number in range(3))
        await until(gate.busy)
        line = native._here()[server.origin]._line
        assert len(line) == 2
        gate.let_through(9)
        # What happens in one step of the event loop, its tasks learn of in the next: stopping
        # here is after the second was served and before it knows.
        while len(line) == 2:
            await asyncio.sleep(0)
        second.cancel()
        assert await first == b"0"
        async with asyncio.timeout(3):
            assert await third == b"2"
        assert second.cancelled()
        assert native.open_connections == native.idle_connections
        await native.aclose()


@in_loop
async def test_a_connection_that_breaks_gives_its_right_to_the_next() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.05)

    native = NativeTransport(max_connections=1)
    async with RawServer(breaks, answering(ok(b"second"))) as server:
        first, second = call(native, server, 1), call(native, server, 2)
        with pytest.raises(UpstreamDisconnected):
            await first
        assert await second == b"second"
        await native.aclose()


@in_loop
async def test_idle_connections_are_closed_without_another_call() -> None:
    native = NativeTransport(keepalive=0.1)
    async with RawServer(answering(ok(b"x"))) as server:
        await asyncio.gather(*(call(native, server, number) for number in range(5)))
        assert native.idle_connections == 5
        await until(server.idle)
        assert native.open_connections == 0
        await native.aclose()


@in_loop
async def test_the_servers_own_keep_alive_is_respected() -> None:
    answer = ok(b"x", b"Keep-Alive: max=9, timeout=1")
    native = NativeTransport(keepalive=30)
    async with RawServer(answering(answer, answer)) as server:
        await call(native, server, 1)
        await call(native, server, 2)
        assert server.accepted == 2  # a second of promise, less the second of margin
        await native.aclose()


@in_loop
async def test_no_keepalive_means_no_reuse() -> None:
    native = NativeTransport(keepalive=0)
    async with RawServer(answering(ok(b"x"))) as server:
        for number in (1, 2):
            await call(native, server, number)
            assert native.open_connections == 0
            assert server.accepted == number
        await native.aclose()


@in_loop
async def test_an_idle_connection_that_the_server_closes_is_dropped() -> None:
    native = NativeTransport()
    async with RawServer(closing(ok(b"x"))) as server:
        await call(native, server, 1)
        await until(lambda: native.open_connections == 0)
        await call(native, server, 2)
        assert server.accepted == 2
        await native.aclose()


@in_loop
async def test_bytes_on_an_idle_connection_close_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"x"))
        await asyncio.sleep(0.02)
        await peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await peer.until_closed()

    native = NativeTransport()
    async with RawServer(script) as server:
        await call(native, server, 1)
        assert native.idle_connections == 1
        await until(lambda: native.open_connections == 0)
        await until(server.idle)
        await native.aclose()


@in_loop
async def test_closing_ends_what_is_under_way() -> None:
    gate = Gate()
    native = NativeTransport(max_connections=1)
    async with RawServer(gate.script) as server:
        first = call(native, server, 1)
        await until(gate.busy)
        await native.aclose()
        with pytest.raises(UpstreamDisconnected):
            await first
        gate.let_through(1)
        await until(server.idle)


@in_loop
async def test_closing_leaves_nobody_waiting() -> None:
    gate = Gate()
    native = NativeTransport(max_connections=1)
    async with RawServer(gate.script) as server:
        calls = [call(native, server, number) for number in range(4)]
        await until(gate.busy)
        await native.aclose()
        calls[3].cancel()  # in the moment it is told
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [
            *[UpstreamDisconnected] * 3,
            asyncio.CancelledError,
        ]
        gate.let_through(1)
        await until(server.idle)
        assert (len(gate.order), server.accepted) == (1, 1)


@in_loop
async def test_closing_while_a_connection_is_being_opened() -> None:
    native = NativeTransport()
    async with RawServer(answering(ok(b"x"), ok(b"y"))) as server:
        for steps in range(12):
            first = call(native, server, 1)
            for _ in range(steps):
                await asyncio.sleep(0)
            await native.aclose()
            try:
                assert await first == b"x"
            except UpstreamDisconnected:
                pass
            await native.aclose()
            await until(server.idle)


@every_kind
@in_loop
async def test_origins_do_not_share_connections(kind: str) -> None:
    async with (
        RawServer(answering(ok(b"a"))) as a,
        RawServer(answering(ok(b"b"))) as b,
        transport(kind) as upstream,
    ):
        assert (await fetch(upstream, get(a)))[1] == b"a"
        assert (await fetch(upstream, get(b)))[1] == b"b"


def test_each_event_loop_has_connections_of_its_own() -> None:
    native = NativeTransport()

    @in_loop
    async def use() -> None:
        async with RawServer(answering(ok(b"x"))) as server:
            await call(native, server, 1)
            assert native.open_connections == 1
            await native.aclose()
            assert native.open_connections == 0

    use()
    use()
