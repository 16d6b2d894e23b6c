"""The look at the streams of real transports, of the fake, and over a socket."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from ai_proxy_mw._config import Timeouts
from ai_proxy_mw._encoding import Decoded
from ai_proxy_mw._errors import UpstreamDisconnected
from ai_proxy_mw._http import Response
from ai_proxy_mw._sse import EventParser
from ai_proxy_mw.routing.first_event import CONTENT, PRELUDE, Verdict, verdict
from ai_proxy_mw.routing.peek import Beginning, Peeked, peek
from ai_proxy_mw.testing import FakeUpstream
from ai_proxy_mw.upstream.base import Origin, Outbound
from tests.routing.bodies import rest
from tests.routing.test_peek import CHAT, DONE, ERROR, FAILED, LONG, ROLE, UNDECIDED, WORD
from tests.transport._harness import every_kind, in_loop, outbound, transport, until
from tests.transport._raw_server import Peer, RawServer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@every_kind
def test_the_look_over_a_socket(kind: str) -> None:
    @in_loop
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED + chunk(ROLE))
            await peer.send(chunk(ERROR[:20]))
            await peer.send(chunk(ERROR[20:]) + chunk(DONE) + chunk(b""))
            await peer.until_closed()

        async with RawServer(script) as server, transport(kind) as wire:
            response = await wire.send(outbound(server))
            assert await peek(response, CHAT, seconds=LONG) == FAILED
            assert await rest(response.body) == ROLE + ERROR + DONE
            await response.body.aclose()

    test()


@every_kind
@pytest.mark.parametrize("packed", [False, True])
def test_time_that_is_over_breaks_no_stream(kind: str, packed: bool) -> None:
    @in_loop
    async def test() -> None:
        go_on = asyncio.Event()
        whole = ROLE + WORD + DONE
        sent = gzip.compress(whole, mtime=0) if packed else whole

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED + chunk(sent[:12]))
            await go_on.wait()
            await peer.send(chunk(sent[12:]) + chunk(b""))
            await peer.until_closed()

        async with RawServer(script) as server, transport(kind) as wire:
            response = await wire.send(outbound(server))
            if packed:
                response.body = Decoded(response.body, b"gzip")
            assert await peek(response, CHAT, seconds=0.01) == UNDECIDED
            go_on.set()
            assert await rest(response.body) == whole
            await response.body.aclose()

    test()


@every_kind
def test_who_leaves_while_we_look_closes_the_connection(kind: str) -> None:
    @in_loop
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED + chunk(ROLE))
            await peer.until_closed()

        async with RawServer(script) as server, transport(kind) as wire:
            response = await wire.send(outbound(server))
            peeking = asyncio.ensure_future(peek(response, CHAT, seconds=LONG))
            await asyncio.sleep(0.01)
            peeking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await peeking
            await response.body.aclose()
            await until(server.idle)

    test()


@every_kind
def test_a_stream_that_breaks_off_while_we_look(kind: str) -> None:
    @in_loop
    async def test() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED + chunk(ROLE))

        async with RawServer(script) as server, transport(kind) as wire:
            response = await wire.send(outbound(server))
            with pytest.raises(UpstreamDisconnected):
                await peek(response, CHAT, seconds=LONG)
            await response.body.aclose()

    test()


# -- the fake ----------------------------------------------------------------------------------

TOOL = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n'
)


def asked(**body: object) -> bytes:
    return msgspec.json.encode({"model": "fake-1", "stream": True, **body})


NOWHERE = Origin("http", "fake", 80)
HELLO = [{"role": "user", "content": 'Say {"error": "x"}'}]
SPOKEN = {
    # endpoint, body, how many events say nothing yet
    "chat": (CHAT, asked(messages=HELLO), 1),
    "chat, with usage": (
        CHAT,
        asked(messages=HELLO, stream_options={"include_usage": True}),
        1,
    ),
    "chat, three": (CHAT, asked(messages=HELLO, n=3), 3),
    "chat, tool": (
        CHAT,
        asked(messages=HELLO, tools=[{"type": "function", "function": TOOL}]),
        0,
    ),
    "completions": ("POST /completions", asked(prompt='{"error": "x"}'), 0),
    "responses": ("POST /responses", asked(input='{"error": "x"}'), 4),
    "responses, tool": (
        "POST /responses",
        asked(input="x", tools=[{"type": "function", **TOOL}]),
        2,
    ),
    "messages": ("POST /messages", asked(messages=HELLO, max_tokens=99), 3),
    "messages, tool": (
        "POST /messages",
        asked(
            messages=HELLO,
            max_tokens=99,
            tools=[{"name": "f", "input_schema": TOOL["parameters"]}],
        ),
        1,
    ),
    "transcription": ("POST /audio/transcriptions", FORM, 0),
}
every_stream = pytest.mark.parametrize(
    ("endpoint", "body", "preludes"), SPOKEN.values(), ids=SPOKEN
)


def to_fake(endpoint: str, body: bytes, origin: Origin = NOWHERE) -> Outbound:
    kind = b"multipart/form-data; boundary=x" if body is FORM else b"application/json"
    return Outbound(
        method="POST",
        origin=origin,
        target=b"/v1" + endpoint.removeprefix("POST ").encode(),
        headers=[(b"host", b"fake"), (b"content-type", kind)],
        body=body,
        timeouts=Timeouts(),
    )


@asynccontextmanager
async def asked_of(fake: FakeUpstream, endpoint: str, body: bytes) -> AsyncIterator[Response]:
    response = await fake.transport().send(to_fake(endpoint, body))
    assert response.status == 200
    try:
        yield response
    finally:
        await response.body.aclose()


@every_stream
def test_every_event_of_the_fake_is_judged_as_it_should(
    endpoint: str, body: bytes, preludes: int, fake: FakeUpstream
) -> None:
    @in_loop
    async def test() -> None:
        async with asked_of(fake, endpoint, body) as response:
            text = await rest(response.body)
        said: list[Verdict] = [verdict(each, endpoint) for each in EventParser().feed(text)]
        assert said[:preludes] == [PRELUDE] * preludes
        assert said[preludes] is CONTENT
        assert all(each is CONTENT or each is PRELUDE for each in said)

    test()


@every_stream
def test_the_look_at_a_stream_of_the_fake(
    endpoint: str, body: bytes, preludes: int, fake: FakeUpstream
) -> None:
    @in_loop
    async def test() -> None:
        async with asked_of(fake, endpoint, body) as response:
            whole = await rest(response.body)
        async with asked_of(fake, endpoint, body) as response:
            assert await peek(response, endpoint, seconds=LONG) == Peeked(Beginning.CONTENT)
            assert await rest(response.body) == whole
        async with fake.serve() as server, transport("native") as wire:
            origin = Origin("http", "127.0.0.1", server.port)
            response = await wire.send(to_fake(endpoint, body, origin))
            assert await peek(response, endpoint, seconds=LONG) == Peeked(Beginning.CONTENT)
            assert await rest(response.body) == whole
            await response.body.aclose()

    test()


@in_loop
async def test_time_that_is_over_breaks_no_stream_of_the_fake() -> None:
    fake = FakeUpstream()
    gate = fake.hold()
    async with asked_of(fake, CHAT, asked(messages=HELLO)) as response:
        gate.release()
        assert await peek(response, CHAT, seconds=0.01) == UNDECIDED
        gate.open()
        assert (await rest(response.body)).endswith(DONE)
    assert fake.calls_open == 0


@in_loop
async def test_who_leaves_the_fake_while_we_look_is_seen_to_leave() -> None:
    fake = FakeUpstream()
    fake.stall(at="chunk:1")
    async with asked_of(fake, CHAT, asked(messages=HELLO)) as response:
        assert await peek(response, CHAT, seconds=0.01) == UNDECIDED
    assert fake.calls_open == 0
    assert fake.requests[0].outcome == "disconnected"
