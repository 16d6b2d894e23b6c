"""SubrequestIdentify: the host app is asked, in process, who is calling."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, Response
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, Route

from ai_proxy_mw import (
    CORS,
    AIProxy,
    AIProxyMiddleware,
    AIProxyWSGIMiddleware,
    ConfigurationError,
    Forbidden,
    Identity,
    Request,
    SubrequestIdentify,
    Unauthorized,
)
from ai_proxy_mw._errors import Unavailable
from ai_proxy_mw._identify import AppAnswer
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw._subrequest_answer import MAX_ANSWER, Target
from ai_proxy_mw._subrequest_asgi import ask_asgi
from ai_proxy_mw._subrequest_cache import Credentials, Remembered
from ai_proxy_mw._subrequest_wsgi import ask_wsgi
from ai_proxy_mw.testing import FakeUpstream
from tests.reuse.cell import PAGE, Recorder, upstream
from tests.servers import serve_asgi, serve_wsgi

CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}
PATIENCE = 10.0

Lines = list[tuple[str, str]]


class Host:
    """A host app of both kinds that answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: Lines = [("content-type", "application/json")]
        self.body: bytes = b'{"subject": "alice"}'
        self.error: BaseException | None = None
        self.hold: threading.Event | None = None
        self.entered = threading.Event()
        self.cancelled = threading.Event()
        self.asked: list[Any] = []

    def says(self, body: object, status: int = 200, headers: Lines | None = None) -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status = status
        self.headers = headers or []

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.asked.append(scope)
        message = await receive()
        assert message == {"type": "http.request", "body": b"", "more_body": False}
        self.entered.set()
        if self.hold is not None:
            try:
                assert await asyncio.to_thread(self.hold.wait, PATIENCE)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if self.error is not None:
            raise self.error
        lines = [(name.encode(), value.encode("latin-1")) for name, value in self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": lines})
        await send({"type": "http.response.body", "body": self.body})

    def wsgi(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        self.asked.append(environ)
        assert environ["wsgi.input"].read() == b""
        self.entered.set()
        if self.hold is not None:
            assert self.hold.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        start_response(f"{self.status} Whatever", self.headers)
        yield self.body

    def header(self, name: str) -> str | None:
        """A header line that the app was last asked with."""
        asked = self.asked[-1]
        if "headers" not in asked:
            key = name.upper().replace("-", "_")
            found: str | None = asked.get(key if key in asked else f"HTTP_{key}")
            return found
        values = [value for key, value in asked["headers"] if key == name.encode()]
        assert len(values) < 2
        return values[0].decode() if values else None


class Served:
    def __init__(self, door: str) -> None:
        self.door = door
        self.host = Host()
        self.fake = FakeUpstream()
        self.recorder = Recorder()

    @contextmanager
    def by(self, identify: SubrequestIdentify, **options: Any) -> Iterator[httpx.Client]:
        proxy = AIProxy(upstream=upstream(self.fake), identify=identify, **options)
        self.recorder.watch(proxy)
        with self._serve(proxy) as url, httpx.Client(base_url=url, timeout=20) as client:
            yield client

    @contextmanager
    def _serve(self, proxy: AIProxy) -> Iterator[str]:
        if self.door == "asgi":
            with serve_asgi(AIProxyMiddleware(self.host.asgi, proxy=proxy), lifespan="off") as url:
                yield url
        else:
            with serve_wsgi(AIProxyWSGIMiddleware(self.host.wsgi, proxy=proxy)) as url:
                yield url

    @property
    def subjects(self) -> list[str]:
        return list(self.recorder.subjects.values())


@pytest.fixture(params=["asgi", "wsgi"])
def served(request: pytest.FixtureRequest) -> Served:
    return Served(request.param)


# -- who is admitted ----------------------------------------------------------------------------


def test_the_member_that_is_named_names_the_caller(served: Served) -> None:
    with served.by(SubrequestIdentify("/auth/me", subject="user.id")) as client:
        for found in ("alice", 7, "日本 🙂"):
            served.host.says({"user": {"id": found, "name": "A"}, "id": 1})
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        served.host.says({"user": {"id": "bob"}}, status=206)
        assert client.get("/v1/models").status_code == 200
    assert served.subjects == ["alice", "7", "日本 🙂", "bob"]


def test_a_header_can_name_the_caller(served: Served) -> None:
    with served.by(SubrequestIdentify("/auth/me", header="X-User")) as client:
        served.host.says(b"no JSON", headers=[("X-User", "zo\xeb"), ("x-users", "mallory")])
        assert client.get("/v1/models").status_code == 200
        for lines in ([], [("x-user", "a"), ("X-User", "b")]):
            served.host.says(b"", headers=lines)
            assert client.get("/v1/models").status_code == 500
        served.host.says(b"", headers=[("x-user", "")])
        assert client.get("/v1/models").status_code == 401
    assert served.subjects == ["zo\xeb", "", "", ""]


def test_a_function_can_read_the_answer(served: Served) -> None:
    def caller(answer: Any) -> Identity | None:
        return Identity(answer["id"], models=answer["models"]) if answer["id"] else None

    with served.by(SubrequestIdentify("/auth/me", subject=caller)) as client:
        served.host.says({"id": "alice", "models": ["fake-2"]})
        assert client.get("/v1/models").status_code == 200
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 403
        served.host.says({"id": ""})
        assert client.get("/v1/models").status_code == 401
        served.host.says({})
        assert client.get("/v1/models").status_code == 500
    assert served.subjects == ["alice", "alice", "", ""]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": None},
        {"user": "canary"},
        {"user": {}},
        {"user": {"id": None}},
        {"user": {"id": True}},
        {"user": {"id": 1.5}},
        {"user": {"id": ["canary"]}},
        ["canary"],
        b"canary",
        b'{"user": {"id": "canary"}',
        b"",
        b"\xff",
        b'{"user": {"id": "canary' + b"y" * MAX_ANSWER + b'"}}',
    ],
)
def test_an_answer_that_names_nobody_is_a_fault_of_the_app(
    served: Served, body: object, caplog: pytest.LogCaptureFixture
) -> None:
    with served.by(SubrequestIdentify("/auth/me", subject="user.id")) as client:
        served.host.says(body)
        answer = client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert served.fake.requests == []
    assert "'user.id'" in caplog.text or "not JSON" in caplog.text
    assert "canary" not in caplog.text


# -- who is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_the_apps_own_refusal_is_passed_on_as_it_is(served: Served, status: int) -> None:
    lines = [
        ("content-type", "text/html; charset=utf-8"),
        ("www-authenticate", 'Session realm="app"'),
        ("set-cookie", "a=1; HttpOnly"),
        ("set-cookie", "b=2"),
        ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("server", "the app's"),
        ("x-request-id", "the-apps"),
        ("access-control-allow-origin", "https://elsewhere.example"),
        ("vary", "Cookie"),
        ("x-own", "kept"),
    ]
    if served.door == "asgi":  # WSGI servers and apps may not say these at all
        lines += [("connection", "close, X-Hop"), ("x-hop", "1"), ("keep-alive", "timeout=5")]
        lines += [("content-length", "9999")]
    cors = CORS(allow_origins=[PAGE], allow_credentials=True)
    with served.by(SubrequestIdentify("/auth/me"), cors=cors) as client:
        served.host.says(b"<h1>No</h1>", status, lines)
        mine = {"origin": PAGE, "x-request-id": "call-1"}
        answer = client.post("/v1/chat/completions", json=CHAT, headers=mine)
        head = client.head("/v1/models", headers=mine)
    assert (answer.status_code, answer.text) == (status, "<h1>No</h1>")
    assert (head.status_code, head.content) == (status, b"")
    for got in (answer, head):
        assert got.headers["content-length"] == "11"
        assert got.headers.get_list("set-cookie") == ["a=1; HttpOnly", "b=2"]
        assert got.headers["www-authenticate"] == 'Session realm="app"'
        assert got.headers["content-type"] == "text/html; charset=utf-8"
        assert got.headers["x-own"] == "kept"
        assert got.headers.get_list("x-request-id") == ["call-1"]
        assert got.headers.get_list("access-control-allow-origin") == [PAGE]
        assert len(got.headers.get_list("date")) == 1
        assert "1970" not in got.headers["date"]
        assert "the app's" not in got.headers.get_list("server")
        assert "x-hop" not in got.headers
        assert "keep-alive" not in got.headers
        assert {"Cookie", "Origin"} <= set(", ".join(got.headers.get_list("vary")).split(", "))
    assert served.fake.requests == []


@pytest.mark.parametrize(("status", "code"), [(401, "invalid_api_key"), (403, "forbidden")])
def test_a_refusal_that_is_too_large_is_told_in_our_words(
    served: Served, status: int, code: str
) -> None:
    with served.by(SubrequestIdentify("/auth/me")) as client:
        served.host.says(b"x" * MAX_ANSWER, status)
        assert client.get("/v1/models").text == "x" * MAX_ANSWER
        served.host.says(b"x" * (MAX_ANSWER + 1), status)
        answer = client.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_way_to_the_login_page_is_401(
    served: Served, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with served.by(SubrequestIdentify("/auth/me")) as client:
        served.host.says(b"", status, [("location", "/login")])
        answer = client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "location" not in answer.headers
    assert ("the path has moved" in caplog.text) == (status in (301, 308))
    assert served.fake.requests == []


@pytest.mark.parametrize("status", [404, 405, 407, 429, 500, 503])
def test_any_other_answer_is_a_fault(
    served: Served, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with served.by(SubrequestIdentify("/auth/me?key=canary")) as client:
        served.host.says({"subject": "alice"}, status)
        answer = client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 500
    assert f"SubrequestIdentify('/auth/me'): the app answered {status}" in caplog.text
    assert "canary" not in caplog.text
    assert served.fake.requests == []


class _NoException(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError("why"), StopIteration("why"), TimeoutError("why")])
def test_an_app_that_raises_is_500(
    served: Served, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with served.by(SubrequestIdentify("/auth/me")) as client:
        served.host.error = error
        answer = client.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == 500
        assert answer.headers["x-request-id"] in caplog.text
        assert "the app has raised" in caplog.text
        assert "why" in caplog.text
        served.host.error = None
        assert client.get("/v1/models").status_code == 200
    assert len(served.fake.requests) == 1


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), _NoException()])
def test_a_wsgi_app_that_ends_its_thread_does_not_end_the_loop(error: BaseException) -> None:
    served = Served("wsgi")
    with served.by(SubrequestIdentify("/auth/me")) as client:
        served.host.error = error
        assert client.get("/v1/models").status_code == 500
        served.host.error = None
        assert client.get("/v1/models").status_code == 200


def test_an_app_that_is_too_slow_is_503(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    host = served.host
    host.hold = threading.Event()
    with served.by(SubrequestIdentify("/auth/me", timeout=0.2)) as client:
        answer = client.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["code"] == "unavailable"
        assert "took more than 0.2 s" in caplog.text
        assert answer.headers["x-request-id"] in caplog.text
        if served.door == "asgi":
            assert host.cancelled.wait(PATIENCE)
        host.hold.set()
        host.hold = None
        assert client.get("/v1/models").status_code == 200
    assert len(served.fake.requests) == 1


def test_one_who_is_asked_about_holds_up_nobody_else(served: Served) -> None:
    host = served.host
    host.hold = held = threading.Event()
    identify = SubrequestIdentify("/auth/me", timeout=PATIENCE)
    with served.by(identify) as client, ThreadPoolExecutor() as pool:
        slow = pool.submit(client.get, "/v1/models")
        assert host.entered.wait(PATIENCE)
        host.hold = None
        assert client.get("/v1/models").status_code == 200
        assert not slow.done()
        held.set()
        assert slow.result(PATIENCE).status_code == 200


def test_a_wsgi_app_is_asked_about_many_at_once() -> None:
    """More than the event loop has threads of its own, in which it also looks up names."""
    together = threading.Barrier(40)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        together.wait(PATIENCE * 3)
        start_response("200 OK", [])
        return [b'{"subject": "alice"}']

    identify = SubrequestIdentify("/auth/me", timeout=PATIENCE * 3)
    proxy = AIProxy(upstream=upstream(FakeUpstream()), identify=identify)
    with (
        serve_wsgi(AIProxyWSGIMiddleware(app, proxy=proxy)) as url,
        httpx.Client(timeout=PATIENCE * 4) as client,  # made once: its TLS takes time to set up
        ThreadPoolExecutor(together.parties) as pool,
    ):
        calls = [pool.submit(client.get, f"{url}/v1/models") for _ in range(together.parties)]
        assert {call.result(PATIENCE * 4).status_code for call in calls} == {200}


# -- what the app is asked ----------------------------------------------------------------------

SENT = {
    "authorization": "Bearer x",
    "cookie": "session=1; theme=dark",
    "x-tenant": "acme",
    "user-agent": "me/1",
    "accept-language": "de",
}
NOT_SENT = {
    "content-type": "application/json",
    "content-encoding": "identity",
    "content-md5": "x",
    "accept-encoding": "gzip",
    "range": "bytes=0-1",
    "if-none-match": "*",
    "if-modified-since": "Thu, 01 Jan 1970 00:00:00 GMT",
    "te": "trailers",
    "x-http-method-override": "DELETE",
}


def test_the_app_sees_the_caller_without_the_body(served: Served) -> None:
    with served.by(SubrequestIdentify("/auth/m%C3%A9?a=%20b&c")) as client:
        headers = {**SENT, **NOT_SENT, "accept": "text/event-stream"}
        content = json.dumps(CHAT).encode()
        answer = client.post("/v1/chat/completions?x=1", content=content, headers=headers)
        assert answer.status_code == 200, answer.text
    [asked] = served.host.asked
    assert [served.host.header(name) for name in SENT] == list(SENT.values())
    assert [served.host.header(name) for name in NOT_SENT] == [None] * len(NOT_SENT)
    assert served.host.header("content-length") is None
    assert served.host.header("transfer-encoding") is None
    assert served.host.header("accept") == "application/json, */*;q=0.5"
    if served.door == "asgi":
        assert asked["method"] == "GET"
        assert asked["path"] == "/auth/mé"
        assert asked["raw_path"] == b"/auth/m%C3%A9"
        assert asked["query_string"] == b"a=%20b&c"
        assert asked["client"][0] == "127.0.0.1"
        assert asked["scheme"] == "http"
    else:
        assert asked["REQUEST_METHOD"] == "GET"
        assert asked["PATH_INFO"].encode("latin-1").decode() == "/auth/mé"
        assert asked["QUERY_STRING"] == "a=%20b&c"
        assert asked["REMOTE_ADDR"] == "127.0.0.1"
        assert not [name for name in asked if name.startswith("werkzeug.")]
        assert not {"RAW_URI", "REQUEST_URI", "wsgi.file_wrapper"} & set(asked)


def _scope(**changes: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [],
        **changes,
    }


def _asked_asgi(**changes: Any) -> Any:
    host = Host()
    asyncio.run(ask_asgi(host.asgi, _scope(**changes), Target.of("/auth/me")))
    return host.asked[0]


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("", "/v1/models", "/auth/me"),
        ("/app", "/app/v1/models", "/app/auth/me"),
        ("/app", "/v1/models", "/auth/me"),  # servers that do not repeat it
        ("/app", "/application/v1", "/auth/me"),
        ("/v1", "/v1/models", "/v1/auth/me"),
        ("/é", "/é/v1/models", "/é/auth/me"),
    ],
)
def test_the_path_stands_where_the_app_is_mounted(root: str, path: str, expected: str) -> None:
    asked = _asked_asgi(root_path=root, path=path)
    assert (asked["path"], asked["root_path"]) == (expected, root)
    assert asked["raw_path"].endswith(b"/auth/me")
    assert asked["raw_path"].isascii()


def test_the_scope_is_the_callers_but_for_routing_and_the_servers_own() -> None:
    state, session = {"db": object()}, {"user": "alice"}
    asked = _asked_asgi(
        state=state,
        session=session,
        user="alice",
        endpoint=1,
        route=2,
        path_params={"a": "b"},
        router=3,
        fastapi={},
        extensions={"http.response.pathsend": {}, "http.response.debug": {}, "tls": {"x": 1}},
    )
    assert asked["session"] is session
    assert asked["user"] == "alice"
    assert asked["state"] == state
    assert asked["state"] is not state
    assert asked["extensions"] == {"tls": {"x": 1}}
    assert not {"endpoint", "route", "path_params", "router", "fastapi"} & set(asked)


def _environ(**changes: Any) -> dict[str, Any]:
    return {"REQUEST_METHOD": "POST", "PATH_INFO": "/v1/models", "SCRIPT_NAME": "/app", **changes}


def test_the_environ_is_the_callers_but_for_routing_and_the_servers_own() -> None:
    host = Host()
    gone = {
        "werkzeug.socket": 1,
        "gunicorn.socket": 1,
        "waitress.client_disconnected": 1,
        "uwsgi.node": 1,
        "wsgi.file_wrapper": 1,
        "wsgiorg.routing_args": 1,
        "REQUEST_URI": "/v1/models",
        "RAW_URI": "/v1/models",
        "CONTENT_LENGTH": "9",
        "CONTENT_TYPE": "text/plain",
        "HTTP_CONTENT_ENCODING": "gzip",
        "HTTP_IF_MATCH": "x",
    }
    kept = {"beaker.session": 1, "REMOTE_USER": "alice", "HTTP_X_TENANT": "acme"}
    ask_wsgi(host.wsgi, _environ(**gone, **kept), Target.of("/auth/me"))
    [asked] = host.asked
    assert not set(gone) & set(asked)
    assert {name: asked[name] for name in kept} == kept
    assert (asked["SCRIPT_NAME"], asked["PATH_INFO"]) == ("/app", "/auth/me")
    assert asked["wsgi.multithread"] is True


# -- real frameworks ----------------------------------------------------------------------------


async def _me(request: StarletteRequest) -> JSONResponse:
    return JSONResponse({"subject": request.headers.get("x-user"), "filler": "x" * 2000})


async def _streamed(request: StarletteRequest) -> StreamingResponse:
    async def pieces() -> Any:
        assert not await request.is_disconnected()
        for piece in ('{"subject":', ' "streamed"', "}"):
            yield piece.encode()

    return StreamingResponse(pieces(), media_type="application/json")


async def _fails(request: StarletteRequest) -> JSONResponse:
    raise ValueError("the endpoint fails")


async def _hangs(request: StarletteRequest) -> JSONResponse:
    await asyncio.Event().wait()
    raise AssertionError("never")


async def _adds_nothing(request: StarletteRequest, call_next: Any) -> Any:
    return await call_next(request)


def _starlette() -> Starlette:
    routes = [
        Route("/auth/me", _me),
        Route("/streamed", _streamed),
        Route("/fails", _fails),
        Route("/hangs", _hangs),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    app.add_middleware(BaseHTTPMiddleware, dispatch=_adds_nothing)
    app.add_middleware(BaseHTTPMiddleware, dispatch=_adds_nothing)
    return app


def _status(app: Any, path: str, recorder: Recorder, **options: Any) -> int:
    """Asks a whole app, its outermost middleware included."""
    identify = SubrequestIdentify(path, app=app, **options)
    proxy = AIProxy(upstream=upstream(FakeUpstream()), identify=identify, trusted_origins=[PAGE])
    with serve_asgi(AIProxyMiddleware(proxy=recorder.watch(proxy))) as url:
        headers = {"x-user": "alice", "accept-encoding": "gzip", "origin": PAGE}
        return httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=headers).status_code


def test_an_app_in_base_http_middleware_can_be_asked(caplog: pytest.LogCaptureFixture) -> None:
    recorder, app = Recorder(), _starlette()
    assert _status(app, "/auth/me", recorder) == 200
    assert _status(app, "/streamed", recorder) == 200
    assert list(recorder.subjects.values()) == ["alice", "streamed"]
    assert _status(app, "/hangs", recorder, timeout=0.2) == 503
    assert _status(app, "/fails", recorder) == 500
    assert "the endpoint fails" in caplog.text
    assert _status(app, "/elsewhere", recorder) == 500


def test_a_dependency_that_yields_and_a_background_task_end_before_the_call_goes_on() -> None:
    done: list[str] = []
    app = FastAPI()

    @app.get("/auth/me")
    def me(background: BackgroundTasks, response: Response) -> dict[str, int]:
        background.add_task(done.append, "background")
        return {"subject": 7}

    recorder = Recorder()
    assert _status(app, "/auth/me", recorder) == 200
    assert list(recorder.subjects.values()) == ["7"]
    assert done == ["background"]


@pytest.mark.parametrize("root_path", ["", "/behind/nginx"])
def test_in_a_mounted_app_the_path_is_that_apps(root_path: str) -> None:
    fake, recorder = FakeUpstream(), Recorder()
    sub = FastAPI()

    @sub.get("/auth/me")
    def me() -> dict[str, str]:
        return {"subject": "of the mounted app"}

    proxy = AIProxy(upstream=upstream(fake), identify=SubrequestIdentify("/auth/me"))
    sub.add_middleware(AIProxyMiddleware, proxy=recorder.watch(proxy))
    app = FastAPI()
    app.mount("/sub", sub)
    with serve_asgi(app, root_path=root_path) as url:
        answer = httpx.get(f"{url}/sub/v1/models")
        assert answer.status_code == 200, answer.text
    assert list(recorder.subjects.values()) == ["of the mounted app"]


# -- corners of the protocols -------------------------------------------------------------------


def _asgi_says(*messages: dict[str, Any]) -> Callable[..., Awaitable[None]]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


START = {"type": "http.response.start", "status": 200}


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (START,),
        ({"type": "http.response.body", "body": b"x"},),
        (START, {"type": "http.response.body", "body": b"{}", "more_body": True}),
    ],
)
def test_an_answer_that_is_not_whole_is_none(messages: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(RuntimeError, match="has not answered"):
        asyncio.run(ask_asgi(_asgi_says(*messages), _scope(), Target.of("/me")))


def test_pieces_are_put_together_and_the_client_leaves_after_the_last() -> None:
    left: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        await send(START)
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "more_body": True})
        await send({"type": "http.response.trailers"})
        await asyncio.sleep(0)
        assert not waiting.done()
        await send({"type": "http.response.body", "body": b"b"})
        left.append((await waiting)["type"])

    answer = asyncio.run(ask_asgi(app, _scope(), Target.of("/me")))
    assert (answer.status, answer.headers, answer.body) == (200, [], b"ab")
    assert left == ["http.disconnect"]


def test_an_app_that_will_not_be_cancelled_admits_nobody() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        await _asgi_says(START, {"type": "http.response.body", "body": b'{"subject":"a"}'})(
            scope, receive, send
        )

    async def gives_up(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("cancelled") from None

    for stubborn in (app, gives_up):
        with pytest.raises(Unavailable):
            _identify(SubrequestIdentify("/me", timeout=0.01, app=stubborn), _request())


class _Pieces:
    def __init__(self, *pieces: bytes) -> None:
        self.left = list(pieces)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        while self.left:
            yield self.left.pop(0)

    def close(self) -> None:
        self.closed += 1


def test_what_a_wsgi_app_gives_is_read_up_to_a_bound_and_closed() -> None:
    pieces = _Pieces(*[b"x" * 1024] * 100)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return pieces

    answer = ask_wsgi(app, _environ(), Target.of("/me"))
    assert answer.body is None
    assert len(pieces.left) == 35
    assert pieces.closed == 1


def test_what_a_wsgi_app_gives_is_closed_if_it_fails() -> None:
    class Failing(_Pieces):
        def __iter__(self) -> Iterator[bytes]:
            yield b"x"
            raise ValueError("in the middle")

    pieces = Failing()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return pieces

    with pytest.raises(RuntimeError, match="has raised") as caught:
        ask_wsgi(app, _environ(), Target.of("/me"))
    assert str(caught.value.__cause__) == "in the middle"
    assert pieces.closed == 1


def test_a_wsgi_app_may_write_and_change_its_mind() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("a", "b")])
        error = ValueError()
        write = start_response("403 No", [], (type(error), error, None))
        write(b"left ")
        return [b"", b"right"]

    answer = ask_wsgi(app, _environ(), Target.of("/me"))
    assert (answer.status, answer.headers, answer.body) == (403, [], b"left right")


def _too_late(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [])
    write(b"begun")
    error = ValueError("after the first byte")
    start_response("500 No", [], (type(error), error, None))


def _twice(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    start_response("200 OK", [])


def _without_head(environ: Any, start_response: Any) -> Any:
    return [b"x"]


def _odd_status(environ: Any, start_response: Any) -> Any:
    start_response("OK", [])


@pytest.mark.parametrize(
    ("app", "why"),
    [
        (_too_late, "after the first byte"),
        (_twice, "called twice"),
        (_without_head, "before start_response"),
        (_odd_status, "invalid literal"),
        (lambda environ, start_response: None, "not iterable"),
    ],
)
def test_a_wsgi_app_that_breaks_the_rules_admits_nobody(app: Any, why: str) -> None:
    with pytest.raises(RuntimeError, match="has raised") as caught:
        ask_wsgi(app, _environ(), Target.of("/me"))
    assert why in str(caught.value.__cause__)


def test_a_wsgi_app_that_says_nothing_admits_nobody() -> None:
    with pytest.raises(RuntimeError, match="has not answered"):
        ask_wsgi(lambda environ, start_response: [], _environ(), Target.of("/me"))


# -- the question must not come back ------------------------------------------------------------


def test_a_path_of_the_proxy_itself_is_refused(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """With app= given as the app around the proxy."""
    outer: list[Any] = []
    app: Any
    if served.door == "asgi":

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await outer[0](scope, receive, send)
    else:

        def app(environ: Any, start_response: Any) -> Any:
            return outer[0](environ, start_response)

    identify = SubrequestIdentify("/v1/models", app=app)
    proxy = AIProxy(upstream=upstream(served.fake), identify=identify)
    if served.door == "asgi":
        outer.append(AIProxyMiddleware(served.host.asgi, proxy=proxy))
        server = serve_asgi(outer[0], lifespan="off")
    else:
        outer.append(AIProxyWSGIMiddleware(served.host.wsgi, proxy=proxy))
        server = serve_wsgi(outer[0])
    with server as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT)
    assert answer.status_code == 500
    assert "came back to the proxy" in caplog.text
    assert served.fake.requests == []
    assert served.host.asked == []


def test_no_header_passes_for_the_mark(served: Served) -> None:
    with served.by(SubrequestIdentify("/auth/me")) as client:
        forged = {"ai_proxy_mw.subrequest": "1", "ai-proxy-mw.subrequest": "1"}
        assert client.get("/v1/models", headers=forged).status_code == 200


# -- without a server ---------------------------------------------------------------------------


async def _never(function: Any) -> Any:
    raise AssertionError(function)


async def _no_body() -> tuple[bytes, bool]:
    return b"", True


def _request(*headers: tuple[bytes, bytes], app: Any = None, **changes: Any) -> Request:
    request = Request(
        method="GET",
        path="/models",
        query=b"",
        headers=list(headers),
        body=RequestBody(_no_body, declared=None, limit=1),
        client=None,
        request_id="r1",
        run_sync=_never,
        scope=_scope(headers=list(headers), **changes),
    )
    request.app = app
    return request


def _identify(identify: SubrequestIdentify, request: Request) -> str | Identity | None:
    async def main() -> str | Identity | None:
        return await identify(request)

    return asyncio.run(main())


def test_without_an_app_it_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match="give it app=your_app"):
        _identify(SubrequestIdentify("/auth/me"), _request())
    proxy = AIProxy(upstream=upstream(FakeUpstream()), identify=SubrequestIdentify("/auth/me"))
    with serve_asgi(Starlette(routes=[Mount("/", AIProxyMiddleware(proxy=proxy))])) as url:
        assert httpx.get(f"{url}/v1/models").status_code == 500
    assert "give it app=your_app" in caplog.text


def test_an_app_that_is_given_goes_before_the_one_behind_the_door() -> None:
    given, behind = Host(), Host()
    identify = SubrequestIdentify("/auth/me", app=given.asgi)
    assert _identify(identify, _request(app=behind.asgi)) == "alice"
    assert (len(given.asked), len(behind.asked)) == (1, 0)


def test_refusals_are_exceptions_that_the_corridor_knows() -> None:
    host = Host()
    identify = SubrequestIdentify("/auth/me")
    for status, error, method in ((401, Unauthorized, "GET"), (403, Forbidden, "HEAD")):
        host.says(b"x" * (MAX_ANSWER + 1), status)
        with pytest.raises(error):
            _identify(identify, _request(app=host.asgi))
        host.says(b"no", status)
        request = _request(app=host.asgi)
        request.method = method
        with pytest.raises(AppAnswer) as caught:
            _identify(identify, request)
        assert caught.value.response.status == status
        assert caught.value.response.body.ended == (method == "HEAD")


def test_its_repr_shows_no_secret() -> None:
    identify = SubrequestIdentify("/auth/me?token=canary", cache_ttl=5)
    assert repr(identify) == "SubrequestIdentify('/auth/me')"
    assert "canary" not in repr(AIProxy(upstream=upstream(FakeUpstream()), identify=identify))


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "auth/me"},
        {"path": ""},
        {"path": "//auth/me"},
        {"path": "/auth/mé"},
        {"path": "/auth me"},
        {"path": "/auth/me#x"},
        {"path": "/auth/me\n"},
        {"path": b"/auth/me"},
        {"path": "https://app.example/auth/me"},
        {"subject": ""},
        {"subject": "user..id"},
        {"subject": 7},
        {"header": ""},
        {"header": "x user"},
        {"header": "x_user"},
        {"header": 7},
        {"header": "x-user", "subject": "id"},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": True},
        {"timeout": "5"},
        {"timeout": float("inf")},
        {"timeout": float("nan")},
        {"cache_ttl": -1},
        {"cache_ttl": float("inf")},
        {"cache_ttl": None},
        {"cache_size": 0},
        {"cache_size": 1.5},
        {"cache_size": True},
        {"credentials": "cookie"},
        {"credentials": ["a b"]},
        {"credentials": [b"cookie"]},
        {"app": "app"},
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    options: dict[str, Any] = {"path": "/auth/me", **wrong}
    with pytest.raises(ConfigurationError, match="SubrequestIdentify"):
        SubrequestIdentify(options.pop("path"), **options)


# -- the cache ----------------------------------------------------------------------------------


def test_a_caller_is_remembered_by_the_credentials(served: Served) -> None:
    identify = SubrequestIdentify("/auth/me", cache_ttl=600)
    with served.by(identify) as client:

        def asked(**headers: str) -> int:
            before = len(served.host.asked)
            lines = {name.replace("_", "-"): value for name, value in headers.items()}
            assert client.get("/v1/models", headers=lines).status_code == 200
            return len(served.host.asked) - before

        assert asked(cookie="s=1") == 1
        assert asked(cookie="s=1") == 0
        assert asked(cookie="s=1", x_tenant="other", user_agent="other") == 0
        served.host.says({"subject": "bob"})
        assert asked(cookie="s=2") == 1
        assert asked(cookie="s=1", authorization="Bearer x") == 1
        assert asked(cookie="s=1") == 0
        assert asked() == 1
        assert asked() == 1  # nobody's credentials are not a caller's
    assert served.subjects == ["alice", "alice", "alice", "bob", "bob", "alice", "bob", "bob"]


def test_only_who_is_admitted_is_remembered() -> None:
    host, identify = Host(), SubrequestIdentify("/auth/me", cache_ttl=600)
    request = _request((b"cookie", b"s=1"), app=host.asgi)
    for status in (401, 404):
        host.says({"subject": "alice"}, status)
        with pytest.raises((AppAnswer, RuntimeError)):
            _identify(identify, request)
    host.says(b"", 302)
    assert _identify(identify, request) is None
    for value in ("no-store", "private, No-Store", "max-age=0, no-cache"):
        host.says({"subject": "alice"}, headers=[("Cache-Control", value)])
        assert _identify(identify, request) == "alice"
    assert len(host.asked) == 6
    host.says({"subject": "alice"}, headers=[("Cache-Control", "private")])
    assert _identify(identify, request) == "alice"
    host.says({}, 401)
    assert _identify(identify, request) == "alice"
    assert len(host.asked) == 7


def test_who_is_known_to_one_app_is_not_known_to_another() -> None:
    """One object may serve two apps, which give out the same credentials to different callers."""
    one, other, identify = Host(), Host(), SubrequestIdentify("/auth/me", cache_ttl=600)
    other.says({"subject": "bob"})
    for app, subject in ((one.asgi, "alice"), (other.asgi, "bob")) * 2:
        assert _identify(identify, _request((b"cookie", b"s=1"), app=app)) == subject
    assert [len(host.asked) for host in (one, other)] == [1, 1]


def test_who_is_known_to_one_tenant_is_not_known_to_another(served: Served) -> None:
    identify = SubrequestIdentify("/auth/me", cache_ttl=600)
    with served.by(identify) as client:
        for host, subject in (("one.example", "alice"), ("two.example", "bob")) * 2:
            served.host.says({"subject": subject})
            headers = {"cookie": "s=1", "host": host}
            assert client.get("/v1/models", headers=headers).status_code == 200
    assert served.subjects == ["alice", "bob"] * 2
    assert len(served.host.asked) == 2


def test_an_app_that_is_gone_leaves_its_callers_to_no_other() -> None:
    """An object of Python may get the id of one that is gone."""
    identify = SubrequestIdentify("/auth/me", cache_ttl=600)
    for number in range(50):
        host = Host()
        host.says({"subject": f"user{number}"})
        request = _request((b"cookie", b"s=1"), app=host.asgi)
        assert _identify(identify, request) == f"user{number}"


@pytest.mark.parametrize("name", ["root_path", "SCRIPT_NAME"])
def test_who_is_known_at_one_mount_is_not_known_at_another(name: str) -> None:
    host, identify = Host(), SubrequestIdentify("/auth/me", cache_ttl=600)
    app: Any = host.asgi if name == "root_path" else host.wsgi
    for root in ("/one", "/two", "/one"):
        request = _request((b"cookie", b"s=1"), app=app, **{name: root})
        if name == "SCRIPT_NAME":
            request.scope, request.environ = None, {name: root}
        assert _identify(identify, request) == "alice"
    assert len(host.asked) == 2


def test_who_asked_for_no_cache_has_none() -> None:
    host, identify = Host(), SubrequestIdentify("/auth/me")
    for _ in range(2):
        assert _identify(identify, _request((b"cookie", b"s=1"), app=host.asgi)) == "alice"
    assert len(host.asked) == 2


def test_the_app_may_name_its_credentials() -> None:
    host = Host()
    app = host.asgi  # one object, as behind a door
    identify = SubrequestIdentify("/auth/me", cache_ttl=600, credentials=["X-Session"])
    for line in ((b"x-session", b"1"), (b"x-session", b"1"), (b"cookie", b"1"), (b"cookie", b"1")):
        _identify(identify, _request(line, app=app))
    assert len(host.asked) == 3


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_remembered_ends_in_time() -> None:
    clock = _Clock()
    remembered = Remembered(10, 3, clock)
    remembered.put(b"a", "alice")
    clock.now += 9.9
    assert remembered.get(b"a") == "alice"  # and is not kept longer for it
    clock.now += 0.1
    assert remembered.get(b"a") is None
    assert len(remembered) == 0
    remembered.put(b"a", "bob")
    assert remembered.get(b"a") == "bob"


def test_the_least_recently_used_go_first() -> None:
    remembered = Remembered(10, 3, _Clock())
    for name in ("a", "b", "c"):
        remembered.put(name.encode(), name)
    remembered.get(b"a")
    remembered.put(b"b", "b again")
    remembered.put(b"d", "d")
    assert [remembered.get(key) for key in (b"a", b"b", b"c", b"d")] == ["a", "b again", None, "d"]
    assert len(remembered) == 3


def test_many_threads_may_share_it() -> None:
    remembered = Remembered(60, 10, _Clock())

    def work(number: int) -> None:
        for step in range(2000):
            key = b"%d" % ((number * 7 + step) % 25)
            assert remembered.get(key) in (None, key.decode())
            remembered.put(key, key.decode())

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, number) for number in range(8)]:
            done.result(PATIENCE * 3)
    assert len(remembered) == 10


def test_no_two_lists_of_credentials_have_one_key() -> None:
    credentials = Credentials(["Cookie", "authorization"])
    lists = [
        [(b"cookie", b"a=1")],
        [(b"cookie", b"a=1"), (b"cookie", b"")],
        [(b"cookie", b""), (b"cookie", b"a=1")],
        [(b"authorization", b"a=1")],
        [(b"cookie", b"a=16:cookie")],
        [(b"cookie", b"a=1"), (b"authorization", b"x")],
        [(b"cookie", b"a=1"), (b"cookie", b"x")],
        [(b"cookie", b"a=1cookiex")],
    ]
    keys = [credentials.key(_request(*lines).headers) for lines in lists]
    assert len(set(keys)) == len(lists)
    assert None not in keys
    assert credentials.key(_request((b"x-cookie", b"a=1"), (b"accept", b"x")).headers) is None
    assert credentials.key(_request((b"x", b"1"), *lists[0]).headers) == keys[0]


def test_no_credential_is_kept() -> None:
    host, identify = Host(), SubrequestIdentify("/auth/me", cache_ttl=600)
    _identify(identify, _request((b"cookie", b"s=canary"), app=host.asgi))
    remembered = identify._remembered
    assert remembered is not None
    assert len(remembered) == 1
    assert "canary" not in repr(vars(remembered))
    assert "canary" not in repr(vars(identify))


def test_a_question_is_not_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ai_proxy_mw")
    with served.by(SubrequestIdentify("/auth/me?key=canary", cache_ttl=600)) as client:
        headers = {"cookie": "s=canary", "authorization": "Bearer canary"}
        assert client.get("/v1/models", headers=headers).status_code == 200
    assert "canary" not in "".join(record.getMessage() for record in caplog.records)
