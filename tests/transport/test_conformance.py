"""What goes out and what comes back when both sides keep to the protocol."""

from __future__ import annotations

import pytest

from ai_proxy_mw._errors import InvalidRequest, UpstreamProtocolError
from tests.transport._harness import (
    at_end,
    by_kind,
    every_kind,
    fetch,
    get,
    in_loop,
    outbound,
    read,
    transport,
)
from tests.transport._raw_server import RawServer, answering, closing, ok

JSON = b'{"object": "list"}'


@every_kind
@in_loop
async def test_a_get_goes_out_as_given_and_its_answer_comes_back(kind: str) -> None:
    async with RawServer(answering(ok(JSON, b"Content-Type: application/json"))) as server:
        async with transport(kind) as upstream:
            response, body = await fetch(upstream, get(server, headers=[(b"accept", b"*/*")]))
        assert response.status == 200
        assert response.headers == [
            (b"content-type", b"application/json"),
            (b"content-length", b"18"),
        ]
        assert body == JSON
        assert server.requests[0].raw == (
            b"GET /v1/models HTTP/1.1\r\nhost: upstream.test\r\naccept: */*\r\n\r\n"
        )


@every_kind
@in_loop
async def test_a_post_gets_its_length_and_nothing_else(kind: str) -> None:
    async with RawServer(answering(ok(b"yes"))) as server:
        async with transport(kind) as upstream:
            sent = outbound(server, body=b'{"a": 1}', headers=[(b"x-key", b"caf\xe9")])
            _, body = await fetch(upstream, sent)
        assert body == b"yes"
        assert server.requests[0].raw == (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: upstream.test\r\n"
            b"x-key: caf\xe9\r\ncontent-length: 8\r\n\r\n"
            b'{"a": 1}'
        )


@every_kind
@in_loop
async def test_an_empty_post_says_that_it_is_empty(kind: str) -> None:
    async with RawServer(answering(ok(b"yes"))) as server:
        async with transport(kind) as upstream:
            await fetch(upstream, outbound(server))
        assert server.requests[0].header(b"content-length") == b"0"


@every_kind
@pytest.mark.parametrize(
    "target",
    [
        b"/v1/a%7Eb/%2e?q=%20x&y=/?:@!$'()*+,;",
        b"/?",
        b"//x",
        b"/v1/a?b=%ZZ",
        b"/a|b^c",
        b"/a/../b/./c",
        b'/"{x}`<y>',
    ],
)
@in_loop
async def test_the_target_goes_out_as_it_is(kind: str, target: bytes) -> None:
    async with RawServer(answering(ok(b""))) as server:
        async with transport(kind) as upstream:
            await fetch(upstream, outbound(server, method="GET", target=target))
        assert server.requests[0].lines[0] == b"GET %b HTTP/1.1" % target


@every_kind
@pytest.mark.parametrize("value", [b"a\r\nx-more: b", b"a\nb", b"a\rb", b"a\0b"])
@in_loop
async def test_a_header_cannot_become_two(kind: str, value: bytes) -> None:
    expected = by_kind(
        kind,
        native=InvalidRequest,
        library=UpstreamProtocolError,
        why="h11 refuses it as a protocol error of our side, which has many other causes",
    )
    async with RawServer(answering(ok(b""))) as server, transport(kind) as upstream:
        with pytest.raises(expected):
            await upstream.send(get(server, headers=[(b"x-key", value)]))
        assert not server.requests


@every_kind
@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ],
)
@in_loop
async def test_answers_without_a_body(kind: str, method: str, answer: bytes) -> None:
    async with RawServer(answering(answer, answer)) as server, transport(kind) as upstream:
        response, body = await fetch(upstream, outbound(server, method=method))
        assert body == b""
        assert b"%d" % response.status == answer[9:12]
        assert response.body.ended
        await response.body.ready()
        _, again = await fetch(upstream, outbound(server, method=method))
        assert again == b""


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world"
HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"

HELLO_WORLD = {
    "length": PLAIN,
    "chunked": CHUNKED + b"\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    "chunked-case": CHUNKED[:17] + CHUNKED[17:].title() + b"\r\nB\r\nhello world\r\n0\r\n\r\n",
    "chunk-extensions": CHUNKED + b'\r\nb;name="value"\r\nhello world\r\n0;x\r\n\r\n',
    "chunk-zeros": CHUNKED + b"\r\n00B\r\nhello world\r\n000\r\n\r\n",
    "trailers": CHUNKED + b"\r\nb\r\nhello world\r\n0\r\nx-sum: 1\r\nset-cookie: a=b\r\n\r\n",
    "close-delimited": b"HTTP/1.1 200 OK\r\n\r\nhello world",
    "no-reason": b"HTTP/1.1 200\r\n\r\nhello world",
    "http10": b"HTTP/1.0 200 OK\r\n\r\nhello world",
    "http10-length": PLAIN.replace(b"1.1", b"1.0"),
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN,
    "early-hints": HINTS + PLAIN,
    "interim-with-framing": (
        b"HTTP/1.1 103 Early Hints\r\ncontent-length: 0\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked\r\n\r\n"
        b"HTTP/1.1 200 OK\r\n\r\nhello world"
    ),
    "length-with-space": PLAIN.replace(b": 11", b": \t 11 \t"),
    "chunked-with-space": CHUNKED[:-2] + b"  \r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
}


@every_kind
@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize("framing", HELLO_WORLD)
@in_loop
async def test_every_framing(kind: str, framing: str, piece: int) -> None:
    answer = HELLO_WORLD[framing]
    async with RawServer(closing(answer, piece=piece)) as server, transport(kind) as upstream:
        response, body = await fetch(upstream, get(server))
        assert response.status == 200
        assert body == b"hello world"
        names = {name for name, _ in response.headers}
        assert names <= {b"content-length", b"transfer-encoding"}
        assert response.body.ended


@every_kind
@in_loop
async def test_header_names_become_lower_case_and_values_stay(kind: str) -> None:
    head = [
        b"X-Thing: \t Caf\xe9  au lait \t ",
        b"X-EMPTY:",
        b"x-thing: again",
        b"Set-Cookie: a=B; Path=/",
    ]
    async with RawServer(answering(ok(b"", *head))) as server, transport(kind) as upstream:
        response, _ = await fetch(upstream, get(server))
        assert response.headers == [
            (b"x-thing", b"Caf\xe9  au lait"),
            (b"x-empty", b""),
            (b"x-thing", b"again"),
            (b"set-cookie", b"a=B; Path=/"),
            (b"content-length", b"0"),
        ]


@every_kind
@in_loop
async def test_a_compressed_answer_stays_compressed(kind: str) -> None:
    zipped = b"\x1f\x8b\x08 no gzip at all"
    async with (
        RawServer(answering(ok(zipped, b"Content-Encoding: gzip"))) as server,
        transport(kind) as upstream,
    ):
        _, body = await fetch(upstream, get(server))
    assert body == zipped


@every_kind
@in_loop
async def test_redirects_are_answers_like_others(kind: str) -> None:
    moved = b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 2\r\n\r\ngo"
    async with RawServer(answering(moved)) as server, transport(kind) as upstream:
        response, body = await fetch(upstream, get(server))
        assert (response.status, body) == (302, b"go")
        assert len(server.requests) == 1


@every_kind
@in_loop
async def test_switching_protocols_is_refused(kind: str) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
    async with RawServer(answering(switch)) as server, transport(kind) as upstream:
        with pytest.raises(UpstreamProtocolError):
            await upstream.send(get(server))
        await server.peers[0].gone.wait()


@every_kind
@in_loop
async def test_a_kept_connection_carries_the_next_call(kind: str) -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
    async with (
        RawServer(answering(ok(b"one"), chunked, ok(b"three"))) as server,
        transport(kind) as upstream,
    ):
        bodies = [(await fetch(upstream, get(server)))[1] for _ in range(3)]
        assert bodies == [b"one", b"two", b"three"]
        assert server.accepted == 1


@every_kind
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx",
    ],
)
@in_loop
async def test_a_connection_that_the_upstream_ends_is_not_kept(kind: str, answer: bytes) -> None:
    async with RawServer(answering(answer, answer)) as server, transport(kind) as upstream:
        for number in (1, 2):
            _, body = await fetch(upstream, get(server))
            assert body == b"x"
            assert server.accepted == number
            await server.peers[-1].gone.wait()


@every_kind
@in_loop
async def test_ready_sees_an_end_without_a_piece(kind: str) -> None:
    async with (
        RawServer(answering(CHUNKED + b"\r\n0\r\n\r\n")) as server,
        transport(kind) as upstream,
    ):
        response = await upstream.send(get(server))
        await response.body.ready()
        assert response.body.ended
        assert await read(response) == b""
        with pytest.raises(StopAsyncIteration):
            await anext(response.body)


@every_kind
@in_loop
async def test_ready_waits_for_the_first_piece_and_keeps_it(kind: str) -> None:
    async with RawServer(answering(ok(b"hello"))) as server, transport(kind) as upstream:
        response = await upstream.send(get(server))
        await response.body.ready()
        await response.body.ready()
        assert not at_end(response)
        assert await read(response) == b"hello"
        assert at_end(response)
        await response.body.aclose()
        await response.body.aclose()
