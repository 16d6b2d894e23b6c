"""Every error has the documented shape, through every door, and says nothing of the inside."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ai_proxy_mw import AIProxy, AIProxyMiddleware, Timeouts, Upstream
from ai_proxy_mw._identify import Identify
from ai_proxy_mw.testing import FakeUpstream
from tests.conftest import IN_PROCESS, KEY, House
from tests.forms import CONTENT_TYPE, HEADERS, form_of
from tests.servers import free_port

CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}


def _raw(url: str, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send exact bytes; gives status, headers and body of the answer."""
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    with socket.create_connection((address.hostname, address.port), timeout=10) as sock:
        sock.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            piece = sock.recv(65536)
            if not piece:
                break
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        while len(body) < int(headers.get("content-length", 0)):
            body += sock.recv(65536)
    return int(lines[0].split()[1]), headers, body


def _error(body: bytes) -> dict[str, Any]:
    error = json.loads(body)
    assert set(error) == {"error"}
    assert set(error["error"]) == {"message", "type", "param", "code"}
    found: dict[str, Any] = error["error"]
    assert KEY not in str(found)
    assert "Traceback" not in str(found)
    return found


TRICKS = [
    "/v1/../admin",
    "/v1/models/..",
    "/v1/models/../files",
    "/v1/models/.",
    "/v1/models/%2e%2e/files",
    "/v1/models/%2E%2E%2Ffiles",
    "/v1/models/..%2ffiles",
    "/v1/models/a%2fb",
    "/v1/models/a%2Fb",
    "/v1/models/a%5cb",
    "/v1/models/a\\b",
    "/v1/models//a",
    "/v1//models",
    "/v1/models/",
    "/v1/models/a;b=c",
    "/v1/models/a%3bb",
    "/v1/models/a%00",
    "/v1/models/a%0d%0aHost:%20x",
    "/v1/models/a%252e",
    "/v1/models/%ff",
    "/v1/models/%c3%a9",
    "/v1/models/a%20b",
    "/v1/models/a?b#c",
    "/v1/models/-x",
    "/v1/files/a/b",
    "/v1/files/../models",
    "/v1/admin/users",
    "/v1/organization/api_keys",
    "/v1",
    "/v1/",
    "/v1/MODELS",
]


@pytest.mark.parametrize("path", TRICKS)
def test_no_trick_with_the_path_reaches_the_upstream(house: House, path: str) -> None:
    status, headers, body = _raw(
        house.url, f"GET {path} HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n".encode()
    )
    if path.endswith("#c"):
        # Some servers cut a fragment off, some refuse it; sent on it must never be.
        assert all("#" not in seen.query for seen in house.fake.requests)
        return
    assert house.fake.requests == []
    assert status in (400, 404)  # 400: the server itself would not have it
    if headers.get("content-type") == "application/json":
        assert _error(body)["code"] == "unknown_url"
        assert headers["x-request-id"].startswith("req_")


def test_an_unlisted_method_is_405_and_says_what_is_taken(house: House) -> None:
    answer = httpx.put(f"{house.v1}/chat/completions", json=CHAT)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert _error(answer.content)["code"] == "method_not_allowed"
    assert httpx.post(f"{house.v1}/models").status_code == 405
    forged = httpx.get(f"{house.v1}/files/f", headers={"x-http-method-override": "DELETE"})
    assert forged.status_code == 200
    assert [seen.method for seen in house.fake.requests] == ["GET"]


def test_a_query_that_is_not_encoded_is_refused(house: House) -> None:
    request = b'GET /v1/models?a="b" HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n'
    status, _, body = _raw(house.url, request)
    assert status == 400
    assert _error(body)["type"] == "invalid_request_error"
    assert house.fake.requests == []


@pytest.fixture(params=IN_PROCESS)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_upstream_that_refuses_is_502(door: str) -> None:
    proxy = AIProxy(upstream=f"http://127.0.0.1:{free_port()}/v1", anonymous=True)
    with IN_PROCESS[door](proxy) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT)
        assert answer.status_code == 502
        error = _error(answer.content)
        assert error["code"] == "upstream_unreachable"
        assert "127.0.0.1" not in answer.text
        assert answer.headers["x-request-id"]
        head = httpx.head(f"{url}/v1/models")
        assert (head.status_code, head.content) == (502, b"")


@pytest.mark.parametrize("after", ["accept", "request", "headers"])
def test_an_upstream_that_breaks_off_is_502(door: str, fake: FakeUpstream, after: str) -> None:
    """Also when its head was out already, for nothing had gone to the caller."""
    with fake.serve() as upstream:
        proxy = AIProxy(upstream=upstream.base_url, anonymous=True)
        with IN_PROCESS[door](proxy) as url:
            fake.disconnect(after=after)
            answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT)
            assert answer.status_code == 502
            assert _error(answer.content)["code"] == "upstream_disconnected"
            assert len(fake.requests) == 1  # a POST is not repeated


@pytest.mark.parametrize("at", ["headers", "chunk:0"])
def test_an_upstream_that_goes_silent_is_504(door: str, fake: FakeUpstream, at: str) -> None:
    with fake.serve() as upstream:
        patience = Timeouts(first_byte=0.2, idle=0.2)
        proxy = AIProxy(upstream=upstream.base_url, anonymous=True, timeouts=patience)
        with IN_PROCESS[door](proxy) as url:
            fake.stall(at=at)
            answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT)
            assert answer.status_code == 504
            assert _error(answer.content)["code"] == "upstream_timeout"
            fake.wait_for_disconnect()


def test_a_stream_that_goes_silent_ends_with_an_error_event(door: str, fake: FakeUpstream) -> None:
    with fake.serve() as upstream:
        proxy = AIProxy(upstream=upstream.base_url, anonymous=True, timeouts=Timeouts(idle=0.2))
        with IN_PROCESS[door](proxy) as url:
            fake.stall(at="chunk:2")
            answer = httpx.post(f"{url}/v1/chat/completions", json={**CHAT, "stream": True})
            assert answer.status_code == 200
            last = answer.text.rstrip().split("\n\n")[-1]
            assert last.startswith("event: error\ndata: ")
            told = json.loads(last.partition("data: ")[2])
            assert told.pop("type") == "error"
            assert _error(json.dumps(told).encode())["code"] == "upstream_timeout"


def test_all_connections_in_use_is_503_and_says_when_to_come_back(
    door: str, fake: FakeUpstream
) -> None:
    with fake.serve() as served, fake.hold("headers") as gate:
        upstream = Upstream(
            base_url=served.base_url, max_connections=1, timeouts=Timeouts(pool=0.2)
        )
        with IN_PROCESS[door](AIProxy(upstream=upstream, anonymous=True)) as url:
            address = urlsplit(url)
            with socket.create_connection((str(address.hostname), address.port or 80)) as first:
                first.sendall(b"GET /v1/models HTTP/1.1\r\nhost: app\r\n\r\n")
                gate.wait_until_held()
                answer = httpx.get(f"{url}/v1/models")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert _error(answer.content)["code"] == "upstream_busy"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_above_the_cap_is_413(door: str, fake: FakeUpstream, framing: str) -> None:
    with fake.serve() as upstream:
        proxy = AIProxy(upstream=upstream.base_url, anonymous=True, max_body=100_000)
        with IN_PROCESS[door](proxy) as url:
            body: Any = form_of(300_000, purpose="batch")
            if framing == "chunked":
                body = iter([body[:100_000], body[100_000:200_000], body[200_000:]])
            answer = httpx.post(f"{url}/v1/files", content=body, headers=HEADERS)
            assert answer.status_code == 413
            assert _error(answer.content)["code"] == "request_too_large"
            assert all(seen.outcome != "complete" for seen in fake.requests)
            whole = form_of(100_000, purpose="batch")
            answer = httpx.post(f"{url}/v1/files", content=whole, headers=HEADERS)
            assert answer.status_code == 200


def test_a_body_that_never_comes_is_408(fake: FakeUpstream) -> None:
    """Under ASGI. A WSGI worker cannot stop reading; its server's own timeout guards it."""
    with fake.serve() as upstream:
        proxy = AIProxy(upstream=upstream.base_url, anonymous=True, timeouts=Timeouts(body=0.2))
        with IN_PROCESS["uvicorn"](proxy) as url:
            head = (
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: app\r\n"
                b"content-type: application/json\r\ncontent-length: 10\r\n\r\n"
            )
            for sent in (b"", b"{"):
                status, _, body = _raw(url, head + sent)
                assert status == 408
                assert _error(body)["code"] == "request_timeout"
            assert all(seen.outcome != "complete" for seen in fake.requests)


def test_an_upload_that_stops_half_way_is_408_and_given_up(fake: FakeUpstream) -> None:
    with fake.serve() as upstream:
        proxy = AIProxy(upstream=upstream.base_url, anonymous=True, timeouts=Timeouts(body=0.3))
        with IN_PROCESS["uvicorn"](proxy) as url:
            head = (
                f"POST /v1/files HTTP/1.1\r\nhost: app\r\n"
                f"content-type: {CONTENT_TYPE}\r\ncontent-length: 9000000\r\n\r\n"
            )
            body = form_of(9_000_000, purpose="batch")
            status, _, _ = _raw(url, head.encode() + body[:1_000_000])
            assert status == 408
            fake.wait_for_disconnect()


async def _nobody(request: object) -> None:
    return None


async def _blank(request: object) -> str:
    return " "


def _broken(request: object) -> str:
    raise RuntimeError("the database password is hunter2")


async def _number(request: object) -> Any:
    return 7


IDENTIFIERS: dict[str, tuple[Identify, int]] = {
    "nobody": (_nobody, 401),
    "blank": (_blank, 401),
    "broken": (_broken, 500),
    "number": (_number, 500),
}


@pytest.mark.parametrize("case", IDENTIFIERS)
def test_who_is_nobody_is_not_let_in(
    door: str, fake: FakeUpstream, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    identify, status = IDENTIFIERS[case]
    with fake.serve() as upstream:
        proxy = AIProxy(upstream=upstream.base_url, api_key=KEY, identify=identify)
        with IN_PROCESS[door](proxy) as url:
            answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT)
    assert answer.status_code == status
    error = _error(answer.content)
    assert "hunter2" not in answer.text
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert error["type"] == "authentication_error"
    else:
        assert error["code"] == "internal_error"
        assert answer.headers["x-request-id"] in caplog.text  # where the traceback is
    assert fake.requests == []


def test_an_upstream_that_packs_in_a_way_nobody_asked_for_is_502(
    door: str, fake: FakeUpstream
) -> None:
    with fake.serve() as upstream:
        proxy = AIProxy(upstream=upstream.base_url, anonymous=True)
        with IN_PROCESS[door](proxy) as url:
            fake.fail(500, headers={"content-encoding": "br"}, body=b"\x1b\x00\x00")
            answer = httpx.get(f"{url}/v1/models", headers={"accept-encoding": "gzip"})
    assert answer.status_code == 502
    assert _error(answer.content)["code"] == "upstream_bad_response"


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_no_length_and_is_not_unpacked(
    door: str, fake: FakeUpstream, status: int
) -> None:
    with fake.serve() as upstream:
        proxy = AIProxy(upstream=upstream.base_url, anonymous=True)
        with IN_PROCESS[door](proxy) as url:
            fake.fail(status, headers={"content-encoding": "gzip", "etag": '"a"'}, body=b"")
            answer = httpx.get(f"{url}/v1/models", headers={"accept-encoding": "identity"})
    assert answer.status_code == status
    assert answer.headers.get("content-length", "0") == "0"
    assert answer.headers["etag"] == '"a"'


@pytest.mark.parametrize("body", [b"", b"this is no gzip"])
def test_a_packed_answer_is_empty_or_whole_or_a_502(
    door: str, fake: FakeUpstream, body: bytes
) -> None:
    with fake.serve() as upstream:
        proxy = AIProxy(upstream=upstream.base_url, anonymous=True)
        with IN_PROCESS[door](proxy) as url:
            fake.fail(404, headers={"content-encoding": "gzip"}, body=body)
            answer = httpx.get(f"{url}/v1/models", headers={"accept-encoding": "identity"})
    assert answer.status_code == (502 if body else 404)


def test_a_packed_request_is_sent_on_as_such(door: str, fake: FakeUpstream) -> None:
    with fake.serve() as upstream:
        proxy = AIProxy(upstream=upstream.base_url, anonymous=True)
        with IN_PROCESS[door](proxy) as url:
            packed = gzip.compress(json.dumps({"model": "fake-1", "input": "Hi"}).encode())
            headers = {"content-type": "application/json", "content-encoding": "gzip"}
            httpx.post(f"{url}/v1/moderations", content=packed, headers=headers)
    assert fake.requests[0].body == packed
    assert fake.requests[0].header("content-encoding") == "gzip"


def test_a_header_that_would_be_two_is_refused(fake: FakeUpstream) -> None:
    """Servers refuse such bytes; where one does not, we do."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(CHAT).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"openai-beta", b"a\r\nx-evil: 1"),
        ],
    }

    async def main(base_url: str) -> None:
        async with AIProxy(upstream=base_url, anonymous=True) as proxy:
            await AIProxyMiddleware(proxy=proxy)(scope, receive, send)

    with fake.serve() as upstream:
        asyncio.run(main(upstream.base_url))
    assert sent[0]["status"] == 400
    assert fake.requests == []
