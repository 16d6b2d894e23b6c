"""The fake upstream over sockets: framing, clients that leave, faults, its own end."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import openai
import pytest
import uvloop

from ai_proxy_mw.testing import FakeServer, FakeUpstream, SeenRequest
from tests.wire import (
    CHAT,
    STREAM,
    dial,
    outbound,
    raw,
    read_all,
    read_all_counted,
    read_until,
)


@pytest.fixture
def server(fake: FakeUpstream) -> Iterator[FakeServer]:
    with fake.serve() as running:
        yield running


@pytest.fixture
def http(server: FakeServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, trust_env=False) as plain:
        yield plain


@pytest.fixture
def client(server: FakeServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="sk-x", max_retries=0) as sdk:
        yield sdk


# What goes over the wire.


def test_headers_of_a_provider(http: httpx.Client) -> None:
    answer = http.post("/chat/completions", json=CHAT)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["x-request-id"].startswith("req_")
    for name in ("openai-processing-ms", "openai-version", "x-ratelimit-limit-requests"):
        assert name in answer.headers
    assert answer.headers["set-cookie"].startswith("session=upstream")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["server"] == "fake"


def test_the_same_request_gets_the_same_bytes(server: FakeServer) -> None:
    def ask(path: str, body: Any) -> bytes:
        with closing(dial(server)) as connection:
            connection.sendall(raw(path, body, "Connection: close"))
            return read_all(connection)

    for body in (CHAT, STREAM):
        assert ask("/v1/chat/completions", body) == ask("/v1/chat/completions", body)
    other = {**CHAT, "seed": 1}
    assert ask("/v1/chat/completions", CHAT) != ask("/v1/chat/completions", other)


def test_unknown_urls_and_bad_bodies(http: httpx.Client) -> None:
    missing = http.get("/nothing")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "unknown_url"
    assert http.delete("/responses/1/cancel").status_code == 404
    url = "/chat/completions"
    assert "parse" in http.post(url, content=b"{").json()["error"]["message"]
    assert "object" in http.post(url, content=b"[]").json()["error"]["message"]
    assert "deeply" in http.post(url, content=b"[" * 100_000).json()["error"]["message"]
    missing = http.post(url, json={"model": "m"})
    assert missing.status_code == 400
    assert missing.json()["error"]["param"] == "messages"
    wrong = http.post(url, json={"model": 1})
    assert wrong.json()["error"]["code"] == "invalid_type"


def test_a_file_without_a_name_is_a_field(http: httpx.Client) -> None:
    answer = http.post("/files", files={"file": (None, b"text")})
    assert answer.json()["bytes"] == 0


def test_a_json_body_has_a_limit(http: httpx.Client) -> None:
    assert http.post("/embeddings", content=bytes(65 << 20)).status_code == 413


def test_head(http: httpx.Client) -> None:
    answer = http.head("/models")
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["content-length"] == http.get("/models").headers["content-length"]
    assert http.head("/files/file-1/content").headers["content-length"] == str(1 << 20)


def test_compression_where_it_is_accepted(http: httpx.Client, fake: FakeUpstream) -> None:
    plain = http.post("/chat/completions", json=CHAT).content
    fake.compress = "gzip"
    packed = http.post("/chat/completions", json=CHAT, headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain
    not_asked = http.post("/chat/completions", json=CHAT, headers={"accept-encoding": "br"})
    assert "content-encoding" not in not_asked.headers
    fake.compress = "always"
    forced = http.post("/chat/completions", json=CHAT, headers={"accept-encoding": "br"})
    assert forced.headers["content-encoding"] == "gzip"
    speech = {"model": "m", "input": "x", "voice": "v"}
    assert "content-encoding" not in http.post("/audio/speech", json=speech).headers


def test_compressed_events_come_one_by_one(fake: FakeUpstream) -> None:
    fake.compress = "always"

    async def main() -> tuple[list[bytes], bytes]:
        answer = await fake.transport().send(outbound(json.dumps(STREAM).encode()))
        pieces = [piece async for piece in answer.body]
        unpack = zlib.decompressobj(wbits=31)
        return [unpack.decompress(piece) for piece in pieces], b"".join(pieces)

    each, whole = asyncio.run(main())
    assert all(event.endswith(b"\n\n") for event in each[:-1])
    assert each[-1] == b""
    assert gzip.decompress(whole) == b"".join(each)


def test_expect_continue_and_chunked_upload(server: FakeServer, fake: FakeUpstream) -> None:
    with closing(dial(server)) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: fake\r\nExpect: 100-continue\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        body = json.dumps(CHAT).encode()
        for piece in (body[:10], body[10:]):
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
        assert read_until(connection, b'fake"}').startswith(b"HTTP/1.1 200 OK")
    assert fake.requests[0].body == body


def test_a_stream_to_an_http_1_0_client_ends_with_the_connection(server: FakeServer) -> None:
    with closing(dial(server)) as connection:
        connection.sendall(raw().replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = read_all(connection)
    assert b"transfer-encoding" not in answer
    assert answer.endswith(b"data: [DONE]\n\n")


def test_a_client_that_sent_all_it_had_is_still_answered(server: FakeServer) -> None:
    with closing(dial(server)) as connection:
        connection.sendall(raw(body=CHAT))
        connection.shutdown(socket.SHUT_WR)
        assert b"You said" in read_all(connection)


@pytest.mark.parametrize("sent", [b"garbage\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_what_is_not_http_is_refused(server: FakeServer, sent: bytes) -> None:
    with closing(dial(server)) as connection:
        connection.sendall(sent)
        assert read_all(connection).startswith(b"HTTP/1.1 400 Bad Request")


def test_pipelined_requests_are_answered_in_order(server: FakeServer, fake: FakeUpstream) -> None:
    with fake.hold() as gate, closing(dial(server)) as connection:
        connection.sendall(raw())
        gate.wait_until_held()
        asked = [raw(body={**CHAT, "messages": [{"content": f"({n})"}]}) for n in range(40)]
        for request in asked:
            connection.sendall(request)
        gate.open()
        answers = read_until(connection, b"(39)")
    order = [answers.index(f"({n})".encode()) for n in range(40)]
    assert order == sorted(order)
    assert answers.index(b"[DONE]") < order[0]


def test_a_pipeline_has_an_end(server: FakeServer, fake: FakeUpstream) -> None:
    fake.stall()
    with closing(dial(server)) as connection:
        connection.sendall(raw())
        fake.wait_for_request()
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            connection.sendall(raw() * 200_000)
    assert len(fake.requests) < 10_000


def test_connections_are_kept_and_counted(server: FakeServer, fake: FakeUpstream) -> None:
    with httpx.Client(base_url=server.base_url, trust_env=False) as http:
        for _ in range(3):
            http.get("/models")
        http.post("/chat/completions", json=STREAM)
        http.get("/models")
        assert (fake.connections_opened, fake.connections_open) == (1, 1)
        http.get("/models", headers={"connection": "close"})
        http.get("/models")
    fake.wait_until_quiet()
    assert (fake.connections_opened, fake.connections_open, fake.calls_open) == (2, 0, 0)
    assert [seen.connection for seen in fake.requests] == [1, 1, 1, 1, 1, 1, 2]


def wait_until_held_back(seen: SeenRequest) -> None:
    before = -1
    deadline = time.monotonic() + 10
    while seen.chunks_sent != before and time.monotonic() < deadline:
        before = seen.chunks_sent
        time.sleep(0.1)


def test_a_slow_reader_holds_back_a_download(server: FakeServer, fake: FakeUpstream) -> None:
    fake.download_bytes = 64 << 20
    with closing(dial(server)) as connection:
        connection.sendall(b"GET /v1/files/a/content HTTP/1.1\r\nConnection: close\r\n\r\n")
        seen = fake.wait_for_request()
        wait_until_held_back(seen)
        assert 0 < seen.chunks_sent < 512
        _, _, body = read_all_counted(connection)
    expected = hashlib.sha256()
    for piece in fake.download():
        expected.update(piece)
    assert body == expected.hexdigest()
    fake.wait_until_quiet()
    assert seen.outcome == "complete"


# Clients that leave.


def test_leaving_before_the_first_byte(server: FakeServer, fake: FakeUpstream) -> None:
    fake.stall()
    with closing(dial(server)) as connection:
        connection.sendall(raw())
        seen = fake.wait_for_request()
        assert seen.outcome is None
        assert fake.calls_open == 1
    left = time.monotonic()
    assert fake.wait_for_disconnect() is seen
    assert seen.disconnected_at is not None
    assert seen.disconnected_at - left < 2
    assert seen.chunks_sent == 0
    fake.wait_until_quiet()


def test_leaving_between_two_chunks(server: FakeServer, fake: FakeUpstream) -> None:
    with fake.hold() as gate, closing(dial(server)) as connection:
        connection.sendall(raw())
        gate.release(2)
        got = read_until(connection, b'"You"')
        gate.wait_until_held()
        assert b" said:" not in got
        connection.close()
        seen = fake.wait_for_disconnect()
        assert seen.chunks_sent == 2
        fake.wait_until_quiet()


def test_leaving_in_a_download_that_is_held_back(server: FakeServer, fake: FakeUpstream) -> None:
    fake.download_bytes = 64 << 20
    with closing(dial(server)) as connection:
        connection.sendall(b"GET /v1/files/a/content HTTP/1.1\r\n\r\n")
        read_until(connection, b"\r\n\r\n")
    assert fake.wait_for_disconnect().chunks_sent < 1024
    fake.wait_until_quiet()


def test_a_client_that_says_no_more_in_an_answer_has_left(
    server: FakeServer, fake: FakeUpstream
) -> None:
    fake.download_bytes = 64 << 20
    with closing(dial(server)) as connection:
        connection.sendall(b"GET /v1/files/a/content HTTP/1.1\r\n\r\n")
        wait_until_held_back(fake.wait_for_request())
        connection.shutdown(socket.SHUT_WR)
        fake.wait_for_disconnect()


def test_leaving_in_an_upload(server: FakeServer, fake: FakeUpstream) -> None:
    with closing(dial(server)) as connection:
        connection.sendall(raw()[:-5])
    seen = fake.wait_for_disconnect()
    assert not seen.arrived
    assert fake.wait_for_request() is seen


def test_leaving_with_requests_in_the_pipeline(server: FakeServer, fake: FakeUpstream) -> None:
    fake.stall()
    with closing(dial(server)) as connection:
        connection.sendall(raw() + raw(body=CHAT))
        fake.wait_for_request()
    fake.wait_for_disconnect(n=2)
    fake.wait_until_quiet()


# Faults, as a client on a socket meets them.


def test_errors_on_demand(client: openai.OpenAI, fake: FakeUpstream) -> None:
    fake.fail(
        429,
        times=2,
        code="rate_limit_exceeded",
        headers={"Retry-After": "2", "x-ratelimit-remaining-requests": "0"},
        path="/models",
    )
    client.embeddings.create(model="m", input="a")
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as caught:
            client.models.list()
        headers = caught.value.response.headers
        assert headers["retry-after"] == "2"
        assert headers.get_list("x-ratelimit-remaining-requests") == ["0"]
        assert caught.value.code == "rate_limit_exceeded"
    assert client.models.list().data
    assert fake.requests[-2].status == 429


def test_errors_of_somebody_in_between(http: httpx.Client, fake: FakeUpstream) -> None:
    fake.fail(599, body=b"<h1>Oops</h1>", headers={"content-type": "text/html"})
    answer = http.get("/models")
    assert (answer.status_code, answer.content) == (599, b"<h1>Oops</h1>")
    assert answer.headers["content-type"] == "text/html"


@pytest.mark.parametrize("after", ["accept", "request"])
def test_disconnect_before_the_answer(server: FakeServer, fake: FakeUpstream, after: str) -> None:
    fake.disconnect(after=after)
    with closing(dial(server)) as connection:
        connection.sendall(raw())
        with pytest.raises((ConnectionResetError, AssertionError)):
            read_until(connection, b"HTTP")
    assert fake.requests[0].outcome == "failed"
    assert fake.requests[0].arrived is (after == "request")
    fake.wait_until_quiet()


def test_disconnect_in_the_answer(server: FakeServer, fake: FakeUpstream) -> None:
    fake.disconnect(after="headers")
    fake.disconnect(after="chunk:2")
    fake.disconnect(after="chunk:1")
    answers = []
    for body in (STREAM, STREAM, CHAT):
        with closing(dial(server)) as connection:
            connection.sendall(raw(body=body))
            answers.append(read_all(connection).partition(b"\r\n\r\n"))
    head_only, two_chunks, half = answers
    assert head_only[2] == b""
    assert two_chunks[2].count(b"data: ") == 2
    length = int(half[0].split(b"content-length: ")[1].split(b"\r\n")[0])
    assert len(half[2]) == length // 2
    assert [seen.outcome for seen in fake.requests] == ["failed"] * 3


def test_stall_in_the_answer(server: FakeServer, fake: FakeUpstream) -> None:
    fake.stall(at="chunk:1")
    with closing(dial(server)) as connection:
        connection.sendall(raw())
        read_until(connection, b"data: ")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    assert fake.wait_for_disconnect().chunks_sent == 1


def test_stall_in_the_request(fake: FakeUpstream) -> None:
    fake.stall(at="accept", times=2)
    with fake.serve() as server, closing(dial(server)) as small, closing(dial(server)) as large:
        small.sendall(raw())
        large.settimeout(1)
        large.sendall(b"POST /v1/files HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n")
        with pytest.raises(TimeoutError):
            large.sendall(bytes(100_000_000))
        small.close()
        fake.wait_for_disconnect()
    assert sorted(str(seen.outcome) for seen in fake.requests) == ["disconnected", "failed"]


def test_a_held_head(server: FakeServer, fake: FakeUpstream) -> None:
    gate = fake.hold(at="headers")
    with closing(dial(server)) as connection:
        connection.sendall(raw(body=CHAT))
        gate.wait_until_held()
        assert gate.waiting == 1
        gate.release()
        assert b"200 OK" in read_until(connection, b'fake"}')
        connection.sendall(raw(body=CHAT))
        gate.wait_until_held()
        fake.reset()
        read_until(connection, b'fake"}')
        connection.sendall(raw(body=CHAT))
        read_until(connection, b'fake"}')


def test_faults_are_checked(fake: FakeUpstream) -> None:
    with pytest.raises(ValueError, match="chunk:N"):
        fake.disconnect(after="chunk:x")
    with pytest.raises(ValueError, match="above 0"):
        fake.stall(times=0)
    with pytest.raises(ValueError, match="'chunks' or 'headers'"):
        fake.hold(at="body")  # type: ignore[arg-type]


# The server itself.


def test_stopping_breaks_calls_off(fake: FakeUpstream) -> None:
    with fake.hold() as gate, fake.serve() as server, closing(dial(server)) as connection:
        connection.sendall(raw())
        gate.wait_until_held()
        server.__exit__(None, None, None)
        with pytest.raises((ConnectionResetError, AssertionError)):
            read_until(connection, b"data: ")
        server.__enter__()
    assert fake.requests[0].outcome == "failed"
    assert (fake.calls_open, fake.connections_open) == (0, 0)


def test_a_taken_port_is_told(server: FakeServer, fake: FakeUpstream) -> None:
    with pytest.raises(OSError, match="in use"), fake.serve(port=server.port):
        pass


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_serving_in_the_same_loop(
    fake: FakeUpstream, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        async with (
            fake.serve(host="::1") as server,
            httpx.AsyncClient(base_url=server.base_url, trust_env=False) as http,
        ):
            assert server.url == f"http://[::1]:{server.port}"
            whole = await http.post("/chat/completions", json=STREAM)
            assert whole.content.endswith(b"data: [DONE]\n\n")
            gate = fake.hold()
            async with http.stream("POST", "/chat/completions", json=STREAM):
                await asyncio.to_thread(gate.wait_until_held)
            await asyncio.to_thread(fake.wait_for_disconnect)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert (fake.calls_open, fake.connections_open) == (0, 0)


def test_a_bug_is_told_and_closes_the_connection(
    server: FakeServer, fake: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    fake.words = [object()]  # type: ignore[list-item]
    for body in (CHAT, STREAM):
        with closing(dial(server)) as connection:
            connection.sendall(raw(body=body))
            assert b"[DONE]" not in read_all(connection)
    fake.wait_until_quiet()
    assert [seen.outcome for seen in fake.requests] == ["failed"] * 2
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [TypeError] * 2
