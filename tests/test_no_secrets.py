"""No key, cookie or prompt is in what a process writes; no key is in what it answers."""

from __future__ import annotations

import json
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ai_proxy_mw import (
    CORS,
    AIProxy,
    AIProxyMiddleware,
    AIProxyWSGIMiddleware,
    ConfigurationError,
    Headers,
    Identity,
    NativeTransport,
    Origin,
    Outbound,
    Record,
    Request,
    Response,
    SubrequestIdentify,
    Timeouts,
    Upstream,
)
from ai_proxy_mw._api_keys import ApiKeys
from ai_proxy_mw._identify import AppAnswer
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.accounting.record import Bodies
from ai_proxy_mw.testing import FakeUpstream
from tests.servers import Process, free_port, gunicorn, serve_process, uvicorn_command

# Short, since logs of arguments cut them after some ten characters.
UPSTREAM_KEY = "cnryUP17"
CALLER_KEY = "cnryCA28"
WRONG_KEY = "cnryWR39"
COOKIE = "cnryCO40"
PROMPT = "cnryPR51"
KEYS = (UPSTREAM_KEY, CALLER_KEY, WRONG_KEY, COOKIE)

SERVERS: dict[str, tuple[Callable[[int], list[str]], dict[str, str]]] = {
    "uvicorn": (
        uvicorn_command("tests.apps.guarded:asgi_app", "--log-level", "debug", "--access-log"),
        {},
    ),
    "uvicorn in asyncio's debug mode": (
        uvicorn_command(
            *("tests.apps.guarded:asgi_app", "--log-level", "debug", "--access-log"),
            *("--loop", "asyncio", "--http", "h11"),
        ),
        {"GUARDED_DEBUG": "1"},
    ),
    "gunicorn": (
        gunicorn(
            *("tests.apps.guarded:wsgi_app", "-k", "gthread", "--threads", "8"),
            *("--log-level", "debug", "--access-logfile", "-", "--capture-output"),
        ),
        {},
    ),
}


class Guarded:
    def __init__(self, process: Process, fake: FakeUpstream) -> None:
        self.process = process
        self.fake = fake
        self.got: list[str] = []

    def call(self, prefix: str, expected: int, **options: Any) -> None:
        """A call whose answer has the status that is expected, and no key."""
        key = options.pop("key", CALLER_KEY)
        headers = {"authorization": f"Bearer {key}", "cookie": f"session={COOKIE}"}
        headers |= options.pop("headers", {})
        path = options.pop("path", "chat/completions")
        method = options.pop("method", "POST")
        if method == "POST":
            headers = {"content-type": "application/json", **headers}
        if method == "POST" and "content" not in options:
            options["content"] = _question(**options.pop("body", {}))
        url = f"{self.process.url}/{prefix}/v1/{path}"
        with httpx.stream(method, url, headers=headers, timeout=20, **options) as answer:
            text = f"{answer.status_code} {list(answer.headers.raw)}"
            try:
                for piece in answer.iter_text():
                    text += piece
            except httpx.RemoteProtocolError:
                text += "cut"
        self.got.append(text)
        assert answer.status_code == expected, text
        for secret in KEYS:
            assert secret not in text


def _question(**more: Any) -> bytes:
    messages = [{"role": "user", "content": f"My secret is {PROMPT}"}]
    return json.dumps({"model": "fake-1", "messages": messages, **more}).encode()


@contextmanager
def _guarded(server: str) -> Iterator[Guarded]:
    command, env = SERVERS[server]
    fake = FakeUpstream()
    with fake.serve() as upstream:
        env = {
            **env,
            "GUARDED_UPSTREAM": upstream.base_url,
            "GUARDED_NOWHERE": f"http://127.0.0.1:{free_port()}/v1",
            "GUARDED_UPSTREAM_KEY": UPSTREAM_KEY,
            "GUARDED_CALLER_KEY": CALLER_KEY,
            "GUARDED_COOKIE": COOKIE,
        }
        with serve_process(command, env) as process:
            yield Guarded(process, fake)


def _succeed(guarded: Guarded) -> None:
    for prefix in ("keys", "find", "later", "session", "asked", "httpx"):
        guarded.call(prefix, 200)
        guarded.call(prefix, 200, body={"stream": True})
    guarded.call("keys", 200, method="GET", path="models")
    guarded.call("keys", 200, headers={"x-api-key": CALLER_KEY})
    assert guarded.fake.requests


def _be_refused(guarded: Guarded) -> None:
    guarded.call("keys", 401, key=WRONG_KEY)
    guarded.call("keys", 401, headers={"x-api-key": WRONG_KEY})
    guarded.call("keys", 401, key=CALLER_KEY + "=")
    wrong_cookie = {"cookie": f"session={WRONG_KEY}"}
    guarded.call("session", 401, headers=wrong_cookie)
    guarded.call("asked", 401, headers=wrong_cookie)
    guarded.call("session", 403, headers={"sec-fetch-site": "cross-site", "authorization": ""})
    guarded.call("find", 403, body={"model": "fake-2"})
    guarded.call("find", 400, content=b'{"model": "fake-1", "' + PROMPT.encode())
    guarded.call("find", 400, headers={"content-encoding": "br"})
    guarded.call("find", 415, headers={"content-encoding": "compress"})
    guarded.call("keys", 400, body={"messages": PROMPT})
    guarded.call("keys", 400, body={"messages": [{"role": PROMPT, "content": PROMPT}]})
    guarded.call("keys", 404, path="admin/users", method="GET")
    guarded.call("keys", 405, method="DELETE")
    guarded.call("keys", 413, body={"user": "x" * 5000})
    guarded.call("keys", 413, content=iter([_question(user="x" * 5000)]))


def _meet_faults(guarded: Guarded) -> None:
    guarded.call("find", 500, key=WRONG_KEY)
    guarded.call("later", 500, key=WRONG_KEY)
    guarded.call("session", 500, headers={"x-odd": WRONG_KEY})
    guarded.call("fails", 500)
    guarded.call("gone", 502)
    for prefix in ("keys", "httpx"):
        guarded.fake.fail(500)
        guarded.call(prefix, 500)
        guarded.fake.disconnect(after="request", times=3)
        guarded.call(prefix, 502)
        guarded.fake.reset()
        guarded.fake.fail(200, headers={"content-encoding": "br"}, body=b"x")
        guarded.call(prefix, 502, headers={"accept-encoding": "gzip"})
        guarded.fake.disconnect(after="chunk:2")
        guarded.call(prefix, 200, body={"stream": True})
        guarded.fake.disconnect(after="chunk:1")
        guarded.call(prefix, 200, path="files/f/content", method="GET")


def _leave(guarded: Guarded) -> None:
    for number, prefix in enumerate(("keys", "httpx"), 1):
        with guarded.fake.hold("headers") as gate:
            address = urlsplit(guarded.process.url)
            assert address.hostname
            assert address.port
            body = _question(stream=True)
            head = (
                f"POST /{prefix}/v1/chat/completions HTTP/1.1\r\nHost: app\r\n"
                f"Authorization: Bearer {CALLER_KEY}\r\nCookie: session={COOKIE}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            with socket.create_connection((address.hostname, address.port), 10) as sock:
                sock.sendall(head.encode() + body)
                gate.wait_until_held()
            guarded.fake.wait_for_disconnect(20, n=number)
        with socket.create_connection((address.hostname, address.port), 10) as sock:
            sock.sendall(head.encode() + body[:10])  # and in the middle of the upload


def _wait_for(guarded: Guarded, words: str) -> None:
    deadline = time.monotonic() + 20
    while words not in guarded.process.log:
        assert time.monotonic() < deadline, guarded.process.log
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_nothing_secret_is_written_or_answered(server: str) -> None:
    with _guarded(server) as guarded:
        _succeed(guarded)
        _be_refused(guarded)
        _meet_faults(guarded)
        guarded.fake.reset()
        _leave(guarded)
        guarded.call("keys", 200)
        # The tracebacks are there: what they do not show was not left out with them.
        _wait_for(guarded, "LookupError: whose key this is cannot be looked up")
        _wait_for(guarded, "LookupError: the session store is gone")
        _wait_for(guarded, "ValueError: Request(")
        _wait_for(guarded, "an answer was cut")
        assert "/keys/v1/chat/completions" in guarded.process.log  # the access log
        assert "DEBUG" in guarded.process.log
        assert ("Executing <" in guarded.process.log) == ("debug mode" in server)
        guarded.process.process.terminate()
        guarded.process.process.wait(20)
        log = guarded.process.log
    for secret in (*KEYS, PROMPT):
        assert secret not in log, _around(log, secret)


def _around(log: str, secret: str) -> str:
    at = log.index(secret)
    return log[max(0, at - 300) : at + 100]


# -- what Python shows of an object -------------------------------------------------------------


async def _no_body() -> tuple[bytes, bool]:
    return b"", True


async def _never(function: Any) -> Any:
    raise AssertionError(function)


LINES = [(b"authorization", f"Bearer {CALLER_KEY}".encode()), (b"cookie", COOKIE.encode())]


def _request() -> Request:
    return Request(
        method="POST",
        path="/chat/completions",
        query=f"key={CALLER_KEY}".encode(),
        headers=LINES,
        body=RequestBody(_no_body, declared=None, limit=1),
        client=None,
        request_id="r1",
        run_sync=_never,
        scope={"type": "http", "headers": LINES},
    )


def _objects() -> dict[str, object]:
    upstream = Upstream(
        base_url="https://api.example/v1",
        api_key=UPSTREAM_KEY,
        headers={"x-extra": UPSTREAM_KEY},
        timeouts=Timeouts(),
    )
    proxy = AIProxy(
        upstream=upstream,
        api_keys={"alice": CALLER_KEY},
        cors=CORS(allow_origins=["https://a.example"]),
    )
    origin = Origin("https", "api.example", 443)
    request = _request()
    said = {"request": PROMPT.encode(), "response": CALLER_KEY.encode()}
    bodies = Bodies(**said, request_is_whole=True, response_is_whole=True)
    return {
        "upstream": upstream,
        "proxy": proxy,
        "asgi": AIProxyMiddleware(proxy=proxy),
        "wsgi": AIProxyWSGIMiddleware(proxy=proxy),
        "keys": ApiKeys({"alice": CALLER_KEY}),
        "asked": SubrequestIdentify(f"/me?key={CALLER_KEY}", cache_ttl=60),
        "headers": Headers(LINES),
        "request": request,
        "body": request.body,
        "response": Response(200, LINES, CALLER_KEY.encode()),
        "answer": AppAnswer(Response(401, LINES, CALLER_KEY.encode())),
        "origin": origin,
        "outbound": Outbound("POST", origin, b"/v1", LINES, CALLER_KEY.encode(), Timeouts()),
        "transport": NativeTransport(),
        "identity": Identity("alice", tags={"team": "red"}),
        "record": Record(time=1.0, request_id="r", bodies=bodies),
    }


def test_no_object_shows_a_secret() -> None:
    for name, shown in _objects().items():
        for text in (repr(shown), str(shown), f"{shown}", ascii(shown)):
            for secret in (*KEYS, PROMPT):
                assert secret not in text, name


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": f"{UPSTREAM_KEY} "},
        {"upstream": f"https://user:{UPSTREAM_KEY}@api.example/v1"},
        {"upstream": Upstream(base_url="https://a.example", api_key=UPSTREAM_KEY), "api_key": "x"},
        {"api_keys": {"alice": f"{CALLER_KEY}\n"}},
        {"api_keys": {"alice": [CALLER_KEY, None]}},
        {"api_keys": {"alice": CALLER_KEY, "bob": CALLER_KEY}},
        {"api_keys": {"alice": CALLER_KEY}, "anonymous": True},
        {"api_keys": [CALLER_KEY]},
    ],
)
def test_no_wrong_argument_is_shown_that_may_be_a_key(options: dict[str, Any]) -> None:
    given = {"upstream": "https://api.example/v1", "api_keys": {"alice": "sk-1"}, **options}
    with pytest.raises(ConfigurationError) as caught:
        AIProxy(**given)
    text = "".join(traceback.format_exception(caught.value))
    for secret in KEYS:
        assert secret not in text


def test_no_variable_is_shown_that_may_hold_a_key() -> None:
    for name, value in (
        ("AI_PROXY_API_KEYS", f"{CALLER_KEY}"),
        ("AI_PROXY_API_KEYS", f"alice={CALLER_KEY},bob={CALLER_KEY}"),
        ("AI_PROXY_API_KEYS", f"alice={CALLER_KEY} x"),
        ("AI_PROXY_API_KEY", f"{UPSTREAM_KEY} x"),
        ("AI_PROXY_UPSTREAM", f"https://user:{UPSTREAM_KEY}@api.example/v1"),
    ):
        environ = {"AI_PROXY_UPSTREAM": "fake", "AI_PROXY_ANONYMOUS": "1", name: value}
        with pytest.raises(ConfigurationError, match=name) as caught:
            AIProxy.from_env(environ)
        text = "".join(traceback.format_exception(caught.value))
        for secret in KEYS:
            assert secret not in text
