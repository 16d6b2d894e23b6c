"""Ways around the login. None of them may bring anything to the upstream."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from ai_proxy_mw import AIProxy, Request
from ai_proxy_mw.testing import FakeUpstream
from tests.bare import DOORS, Got, exchange
from tests.conftest import GUNICORN
from tests.reuse.cell import Recorder, upstream
from tests.servers import gunicorn, serve_process

BODY = json.dumps({"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}).encode()
WAYS = ["identify", "api_keys"]
CHAT = "/v1/chat/completions"


def _session(request: Request) -> str | None:
    """The app's login: a cookie that it has set."""
    return {"of-alice": "alice"}.get(request.cookies.get("session", ""))


class Guarded:
    """A server whose proxy wants a login, and nobody who has one."""

    def __init__(self, url: str, fake: FakeUpstream, recorder: Recorder) -> None:
        self.url = url
        self.fake = fake
        self.recorder = recorder

    def send(self, method: str, target: str, *lines: bytes, body: bytes = b"") -> Got:
        first = f"{method} {target} HTTP/1.1\r\nHost: app\r\n".encode("latin-1")
        length = b"Content-Length: %d" % len(body) if body else b"X-No: body"
        if body and not any(line.startswith(b"Content-Type:") for line in lines):
            lines = (b"Content-Type: application/json", *lines)
        return exchange(self.url, first + b"\r\n".join([length, *lines, b"", body]))

    def nothing_passed(self) -> None:
        assert self.fake.requests == []
        assert set(self.recorder.subjects.values()) <= {""}


@contextmanager
def _guarded(door: str, way: str) -> Iterator[Guarded]:
    fake, recorder = FakeUpstream(), Recorder()
    with ExitStack() as stack:
        if door in DOORS:
            if way == "identify":
                proxy = AIProxy(upstream=upstream(fake), identify=_session)
            else:
                proxy = AIProxy(upstream=upstream(fake), api_keys={"alice": "sk-alice"})
            url = stack.enter_context(DOORS[door](recorder.watch(proxy)))
        else:
            env = {
                "AI_PROXY_UPSTREAM": stack.enter_context(fake.serve()).base_url,
                "AI_PROXY_API_KEYS": "alice=sk-alice",
            }
            command = gunicorn("tests.apps.flask_app:app", *GUNICORN[door])
            url = stack.enter_context(serve_process(command, env)).url
        yield Guarded(url, fake, recorder)


GUARDED = [*[(door, way) for door in DOORS for way in WAYS], ("gunicorn-gthread", "api_keys")]


@pytest.fixture(scope="module", params=GUARDED, ids="-".join)
def _guard(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    with _guarded(*request.param) as guarded:
        yield guarded


@pytest.fixture
def guarded(_guard: Guarded) -> Guarded:
    _guard.fake.reset()
    _guard.recorder.subjects.clear()
    return _guard


def test_the_login_itself_works(guarded: Guarded) -> None:
    """Else the rest of this page would hold for a proxy that lets in nobody."""
    mine = (b"Cookie: session=of-alice", b"Authorization: Bearer sk-alice")
    assert guarded.send("POST", CHAT, *mine, body=BODY).status == 200
    assert len(guarded.fake.requests) == 1


# -- headers that name somebody -----------------------------------------------------------------

NAMING = {
    "an address of the house": b"X-Forwarded-For: 127.0.0.1",
    "Forwarded": b"Forwarded: for=127.0.0.1;by=127.0.0.1",
    "a real address": b"X-Real-IP: 127.0.0.1",
    "an original address": b"X-Original-Forwarded-For: ::1",
    "the user": b"Remote-User: alice",
    "the user, forwarded": b"X-Forwarded-User: alice",
    "the user of an auth proxy": b"X-Auth-Request-User: alice\r\nX-Auth-Request-Email: a@b",
    "the user of a CGI": b"REMOTE_USER: alice",
    "a WSGI variable": b"HTTP_X_USER: alice",
    "our subject": b"Subject: alice\r\nX-Subject: alice\r\nX-AI-Proxy-Subject: alice",
    "our objects": b"Request.subject: alice\r\nIdentified: alice\r\nFrom-Route: 1",
    "our marks": b"ai_proxy_mw.subrequest: 1\r\nai-proxy-mw.identity: alice",
    "an ASGI extra": b"User: alice\r\nState: alice\r\nSession: of-alice",
    "an internal call": b"X-Internal: true\r\nX-Forwarded-Proto: https",
    "another host": b"X-Forwarded-Host: localhost\r\nX-Host: localhost",
    "another path": b"X-Original-URL: /v1/models\r\nX-Rewrite-URL: /",
    "Azure's easy auth": b"X-MS-Client-Principal: alice",
    "a certificate": b"X-SSL-Client-Verify: SUCCESS\r\nX-SSL-Client-S-DN: CN=alice",
    "the upstream's own": b"OpenAI-Organization: alice\r\nX-Proxy-Origin: ai_proxy_mw",
    "a loop through us": b"Via: 1.1 ai_proxy_mw\r\nUser-Agent: ai_proxy_mw/0.1.0",
    "underscores": b"x_api_key: sk-alice",
    "an underscore for a cookie": b"Cookie_: session=of-alice",
    "an underscore behind": b"AUTHORIZATION_: Bearer sk-alice",
    "the proxy's password": b"Proxy-Authorization: Bearer sk-alice",
    "a cookie of another name": b"Cookie: Session=of-alice; session =; xsession=of-alice",
    "a cookie, which is no key": b"Cookie: authorization=Bearer sk-alice",
    "a cookie to be set": b"Set-Cookie: session=of-alice",
    "a blank cookie first": b"Cookie: session=; session=of-alice",
    "a folded cookie": b"X-A: b\r\n Cookie: session=of-alice",
    "a request id": b"X-Request-ID: alice",
    "an origin": b"Origin: http://app\r\nSec-Fetch-Site: same-origin",
}


@pytest.mark.parametrize("name", NAMING)
def test_no_header_names_a_caller(guarded: Guarded, name: str) -> None:
    for method, target, body in (("POST", CHAT, BODY), ("GET", "/v1/models", b"")):
        got = guarded.send(method, target, NAMING[name], body=body)
        assert got.status in (400, 401)
    guarded.nothing_passed()


# -- methods ------------------------------------------------------------------------------------

OVERRIDES = [
    b"X-HTTP-Method-Override: OPTIONS",
    b"X-HTTP-Method: OPTIONS",
    b"X-Method-Override: HEAD",
    b"X-HTTP-Method-Override: GET",
]


@pytest.mark.parametrize("line", OVERRIDES)
def test_a_method_is_what_it_is(guarded: Guarded, line: bytes) -> None:
    assert guarded.send("POST", CHAT, line, body=BODY).status == 401
    assert guarded.send("POST", f"{CHAT}?_method=OPTIONS", line, body=BODY).status == 401
    form = b"Content-Type: application/x-www-form-urlencoded"
    assert guarded.send("POST", CHAT, form, body=b"_method=OPTIONS").status == 401
    assert guarded.send("DELETE", "/v1/models", line).status == 405
    guarded.nothing_passed()


@pytest.mark.parametrize(
    "method",
    [
        "options",
        "get",
        "post",
        "PUT",
        "PATCH",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "PRI",
        "X",
        "POST\t",
    ],
)
def test_no_other_method_passes(guarded: Guarded, method: str) -> None:
    got = guarded.send(method, CHAT, body=BODY)
    assert got.status in (400, 401, 404, 405, 501)
    guarded.nothing_passed()


def test_options_with_a_body_stays_here(guarded: Guarded) -> None:
    got = guarded.send("OPTIONS", CHAT, body=BODY)
    assert got.status == 204
    assert got.header("allow") == "GET, HEAD, OPTIONS, POST"
    assert got.body == b""
    forged = b"Origin: http://page.example\r\nAccess-Control-Request-Method: POST"
    assert guarded.send("OPTIONS", CHAT, forged, body=BODY).status == 204
    assert guarded.send("OPTIONS", "*").status in (204, 400, 404)
    assert guarded.send("OPTIONS", "/v1/admin", body=BODY).status == 404
    guarded.nothing_passed()


def test_head_wants_the_login_as_get_does(guarded: Guarded) -> None:
    for target, status in (
        ("/v1/models", 401),
        ("/v1/files/f/content", 401),
        (CHAT, 401),
        ("/v1/embeddings", 405),
    ):
        got = guarded.send("HEAD", target, b"Connection: close")
        assert (got.status, got.body) == (status, b""), target
    assert guarded.send("HEAD", CHAT, b"Connection: close", body=BODY).status == 401
    guarded.nothing_passed()


# -- paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        *("//v1/chat/completions", "/./v1/chat/completions", "/x/../v1/chat/completions"),
        *("/V1/chat/completions", "/v1/Chat/completions", "/v1;x/chat/completions"),
        *("/%76%31/chat/completions", "/v1%2fchat/completions", "/v1/chat%2fcompletions"),
        *("/v1/chat/completions/", "/v1/chat/completions;x=y", "/v1/chat/completions."),
        *("/v1/chat/completions%20", "/v1/chat/completions%00", "/v1/chat/completions%0a"),
        *("/v1/chat/./completions", "/v1/x/../chat/completions", "/v1/x/%2e%2e/chat/completions"),
        *("/v1\\chat\\completions", "\\v1/chat/completions", "v1/chat/completions", "*"),
        *("/v1./chat/completions", "/v1/chat/completions.json", "/v1/public/chat/completions"),
        *("http://app/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
        *("/v1/chat/completions?user=alice&api_key=sk-alice", "/v1/%63hat/completions"),
        *("/v1/chat/completions?/../public", "/v1/chat/completions#public", "/v1/%C3%A9"),
    ],
)
def test_no_spelling_of_the_path_needs_no_login(guarded: Guarded, target: str) -> None:
    got = guarded.send("POST", target, b"Connection: close", body=BODY)
    assert got.status in (400, 401, 404, 405)
    guarded.nothing_passed()


# -- connections --------------------------------------------------------------------------------

UPGRADE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.mark.parametrize("logged_in", [False, True])
def test_a_websocket_never_reaches_the_upstream(guarded: Guarded, logged_in: bool) -> None:
    """Not even of one who may call: nobody would count what it costs."""
    mine = (b"Cookie: session=of-alice", b"Authorization: Bearer sk-alice") if logged_in else ()
    for method, target in (("GET", CHAT), ("GET", "/v1/realtime"), ("GET", "/v1/responses")):
        got = guarded.send(method, target, *UPGRADE, *mine)
        assert got.status != 101
    # A server may take the upgrade off; what is left is a plain GET that is relayed as such.
    assert all(seen.method == "GET" and seen.path == CHAT for seen in guarded.fake.requests)
    assert all(seen.header("upgrade") is None for seen in guarded.fake.requests)
    if not logged_in:
        guarded.nothing_passed()


def test_http2_by_upgrade_wants_the_login_too(guarded: Guarded) -> None:
    lines = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
    assert guarded.send("POST", CHAT, *lines, body=BODY).status == 401
    guarded.nothing_passed()


def test_a_second_request_in_the_first_ones_body_is_a_body(guarded: Guarded) -> None:
    hidden = b"POST /v1/chat/completions HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n"
    for lines in (
        (),
        (b"Transfer-Encoding: chunked",),
        (b"Transfer-Encoding: xchunked",),
        (b"Transfer-Encoding : chunked",),
        (b"Content-Length: 0",),
        (b"Expect: 100-continue",),
    ):
        first = [b"POST /v1/chat/completions HTTP/1.1", b"Host: app", b"Connection: close", *lines]
        sent = b"\r\n".join([*first, b"Content-Length: %d" % len(hidden), b"", hidden])
        _send_all(guarded.url, sent)
    guarded.nothing_passed()


def _send_all(url: str, sent: bytes) -> None:
    """Sends, and reads until the server closes; what it says does not matter."""
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    with socket.create_connection((address.hostname, address.port), timeout=10) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        try:
            while sock.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass


def test_who_is_logged_in_on_a_connection_is_not_the_next_one_too(guarded: Guarded) -> None:
    address = urlsplit(guarded.url)
    assert address.hostname
    assert address.port
    head = b"GET /v1/models HTTP/1.1\r\nHost: app\r\n"
    mine = b"Cookie: session=of-alice\r\nAuthorization: Bearer sk-alice\r\n"
    sent = head + mine + b"\r\n" + head + b"Connection: close\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=10) as sock:
        sock.sendall(sent)
        received = b""
        while piece := sock.recv(1 << 16):
            received += piece
    statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses in ([b"200", b"401"], [b"200"])  # some servers take one request only
    assert len(guarded.fake.requests) == 1
