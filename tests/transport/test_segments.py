"""However the network cuts an answer, what is read is the same."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ai_proxy_mw._errors import UpstreamError
from tests.transport._harness import every_kind, fetch, get, in_loop, transport
from tests.transport._raw_server import Peer, RawServer

BODIES = st.binary(max_size=60)
NAMES = st.sampled_from([b"X-One", b"server", b"CF-Ray", b"content-type"])
VALUES = st.sampled_from([b"", b"a", b"text/event-stream; charset=utf-8", b"caf\xe9"])
INTERIM = st.sampled_from(
    [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 X\r\na: b\r\n\r\n"]
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """The bytes of an answer, its body, and its header lines but for the framing."""
    body = draw(BODIES)
    lines = draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % line for line in lines)
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if framing == "length":
        wire = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    elif framing == "chunked":
        size = draw(st.integers(1, 30))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        wire = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    else:
        wire = head + b"\r\n" + body
    return draw(INTERIM) + wire, body, [(name.lower(), value) for name, value in lines]


@every_kind
@settings(max_examples=40, deadline=None)
@given(answer=answers(), data=st.data())
@in_loop
async def test_any_split_gives_the_same_answer(
    kind: str, answer: tuple[bytes, bytes, list[tuple[bytes, bytes]]], data: st.DataObject
) -> None:
    wire, body, lines = answer
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(wire) - 1)), max_size=8)))

    async def script(peer: Peer) -> None:
        await peer.request()
        for start, end in pairwise([0, *cuts, len(wire)]):
            await peer.send(wire[start:end])
            for _ in range(3):  # let the other side read this piece before the next one
                await asyncio.sleep(0)

    async with RawServer(script) as server, transport(kind) as upstream:
        response, got = await fetch(upstream, get(server))
        assert (response.status, got) == (200, body)
        framing = (b"content-length", b"transfer-encoding")
        assert [line for line in response.headers if line[0] not in framing] == lines


@every_kind
@settings(max_examples=40, deadline=None)
@given(answer=answers(), data=st.data())
@in_loop
async def test_any_damage_ends_in_an_answer_or_an_error_of_ours(
    kind: str, answer: tuple[bytes, bytes, list[tuple[bytes, bytes]]], data: st.DataObject
) -> None:
    wire = bytearray(answer[0])
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(bytes(wire))

    async with RawServer(script) as server, transport(kind) as upstream:
        try:
            response, _ = await fetch(upstream, get(server, first_byte=5.0, idle=5.0))
        except UpstreamError:
            return
        assert 200 <= response.status <= 999
