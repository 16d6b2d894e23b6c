"""Many calls at once, many of them given up at any point: nothing leaks, nothing is mixed up."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import warnings

import pytest
import uvloop

from ai_proxy_mw._errors import UpstreamError
from ai_proxy_mw._http import Response
from ai_proxy_mw.upstream.base import Outbound, Transport
from ai_proxy_mw.upstream.native import NativeTransport
from tests.transport._harness import every_kind, in_loop, outbound, transport, until, upload
from tests.transport._raw_server import Peer, RawServer, Received

pytestmark = pytest.mark.slow

CALLS = 200
ROUNDS = 3


def content(seed: bytes, size: int) -> bytes:
    """Bytes that no other call has."""
    return hashlib.shake_256(seed).digest(size)


async def answer_all(peer: Peer) -> None:
    """Answers each request by what its target asks for: /json, /stream or /upload, and a number."""
    while True:
        request = await peer.request()
        _, how, number = request.lines[0].split()[1].rsplit(b"/", 2)
        if how == b"stream":
            await _stream(peer, number)
        else:
            await _whole(peer, number, request)


async def _whole(peer: Peer, number: bytes, request: Received) -> None:
    await asyncio.sleep(0.001 * (int(number) % 7))
    digest = hashlib.sha256(request.body).hexdigest().encode()
    body = digest + content(number, int(number) * 37 % 5000)
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


async def _stream(peer: Peer, number: bytes) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    body = content(number, 400)
    for start in range(0, 400, 40):
        await peer.send(b"28\r\n%b\r\n" % body[start : start + 40])
        await asyncio.sleep(0.001)
    await peer.send(b"0\r\n\r\n")


class Caller:
    """One call of the mix, and what it should bring."""

    def __init__(self, by: Transport, server: RawServer, number: int, rng: random.Random) -> None:
        self._by = by
        self._server = server
        self.number = b"%d" % number
        self.how = rng.choice([b"json", b"json", b"stream", b"upload"])
        self._sent = content(b"sent" + self.number, rng.choice([0, 10, 3000, 400_000]))
        # Give up after that many seconds, or after that many pieces of the answer, or never.
        self.patience = rng.choice([None, rng.random() * 0.08, rng.random() * 0.08])
        self._pieces = rng.choice([None, None, rng.randrange(10)])

    async def run(self) -> bytes | None:
        """The body, or None if it was given up on the way."""
        response = await self._by.send(self._request())
        try:
            return await self._read(response)
        finally:
            await response.body.aclose()

    async def _read(self, response: Response) -> bytes | None:
        got = b""
        pieces = 0
        async for piece in response.body:
            got += piece
            pieces += 1
            if pieces == self._pieces and self.how == b"stream":
                return None
        return got

    def _request(self) -> Outbound:
        target = b"/v1/%b/%b" % (self.how, self.number)
        if self.how != b"upload":
            return outbound(self._server, target=target, body=self._sent)
        pieces = [self._sent[at : at + 30_000] for at in range(0, len(self._sent), 30_000)]
        return outbound(self._server, target=target, body=upload(pieces))

    def expected(self) -> bytes:
        if self.how == b"stream":
            return content(self.number, 400)
        digest = hashlib.sha256(self._sent).hexdigest().encode()
        return digest + content(self.number, int(self.number) * 37 % 5000)


async def one_round(by: Transport, server: RawServer, start: int, rng: random.Random) -> int:
    """Returns how many calls were answered whole."""
    callers = [Caller(by, server, start + number, rng) for number in range(CALLS)]
    tasks = [asyncio.create_task(caller.run()) for caller in callers]
    loop = asyncio.get_running_loop()
    for caller, task in zip(callers, tasks, strict=True):
        if caller.patience is not None:
            loop.call_later(caller.patience, task.cancel)
    await asyncio.wait(tasks)
    whole = 0
    for caller, task in zip(callers, tasks, strict=True):
        if task.cancelled():
            continue
        body = task.result()
        if body is not None:
            assert body == caller.expected()
            whole += 1
    return whole


async def soak(kind: str, seed: int, max_connections: int) -> None:
    rng = random.Random(seed)
    async with RawServer(answer_all) as server:
        async with transport(kind, max_connections=max_connections, keepalive=30) as upstream:
            for number in range(ROUNDS):
                whole = await one_round(upstream, server, 1 + number * CALLS, rng)
                assert 20 < whole < CALLS
                await settle(upstream, server)
        await until(server.idle)


async def settle(upstream: Transport, server: RawServer) -> None:
    if isinstance(upstream, NativeTransport):
        await until(lambda: upstream.open_connections == upstream.idle_connections)
        await until(lambda: server.open == upstream.idle_connections)
    else:
        pool = upstream._client._transport._pool  # type: ignore[attr-defined]
        await until(lambda: not pool._requests)
        assert all(connection.is_idle() for connection in pool.connections), pool.connections
        await until(lambda: server.open == len(pool.connections))


@every_kind
@pytest.mark.parametrize(
    ("loop", "seed"),
    [(asyncio.new_event_loop, 1), (uvloop.new_event_loop, 2)],
    ids=["asyncio", "uvloop"],
)
def test_200_calls_with_random_cancellation(kind: str, loop: object, seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_loop(soak, loop_factory=loop)(kind, seed, 1000)  # type: ignore[arg-type]
        gc.collect()


@pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_200_calls_through_ten_connections(loop: object) -> None:
    in_loop(soak, loop_factory=loop)("native", 3, 10)  # type: ignore[arg-type]
    gc.collect()


@every_kind
def test_errors_of_the_upstream_leak_nothing(kind: str) -> None:
    """The same with an upstream that breaks off at random."""

    async def faulty(peer: Peer) -> None:
        while True:
            request = await peer.request()
            number = request.lines[0].split()[1].rsplit(b"/", 1)[1]
            answer = content(number, 200)
            wire = b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n" + answer
            cut = rng.randrange(2 * len(wire))
            await peer.send(wire[:cut])
            if cut < len(wire):
                if cut % 2:
                    peer.reset()
                return

    rng = random.Random(4)

    async def one(upstream: Transport, server: RawServer, number: int) -> bool:
        target = b"/v1/any/%d" % number
        try:
            response = await upstream.send(outbound(server, target=target, method="GET"))
            body = b"".join([piece async for piece in response.body])
        except UpstreamError:
            return False
        assert body == content(b"%d" % number, 200)
        return True

    @in_loop
    async def check() -> None:
        async with RawServer(faulty) as server:
            async with transport(kind, keepalive=30) as upstream:
                for start in range(0, 300, 100):
                    calls = (one(upstream, server, start + number) for number in range(100))
                    done = await asyncio.gather(*calls)
                    assert 10 < sum(done) < 95
                    await settle(upstream, server)
            await until(server.idle)

    check()
    gc.collect()
