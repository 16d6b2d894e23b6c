"""`proxy_router`: a FastAPI dependency decides, and FastAPI keeps out of the rest."""

from __future__ import annotations

import importlib
import json
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from fastapi import (
    BackgroundTasks,
    Body,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from fastapi.security import APIKeyCookie, OAuth2PasswordBearer, SecurityScopes

from ai_proxy_mw import CORS, AIProxy, ConfigurationError, Forbidden, Identity, from_route
from ai_proxy_mw._http import Response as Answered
from ai_proxy_mw._identify import AppAnswer
from ai_proxy_mw.contrib.fastapi import proxy_router
from ai_proxy_mw.testing import FakeUpstream
from tests.forms import CONTENT_TYPE, form_of
from tests.reuse.cell import PAGE, Recorder, cors, upstream
from tests.servers import serve_asgi

CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = CHAT | {"stream": True}

cookie = APIKeyCookie(name="user", auto_error=False)


def from_cookie(user: Annotated[str | None, Depends(cookie)]) -> str | None:
    return user


def proxy_to(fake: FakeUpstream, recorder: Recorder | None = None, **options: Any) -> AIProxy:
    proxy = AIProxy(upstream=upstream(fake), identify=from_route, cors=cors(), **options)
    return proxy if recorder is None else recorder.watch(proxy)


def app_with(fake: FakeUpstream, identify: Any = from_cookie, **options: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(proxy_router(proxy_to(fake), identify=identify, **options))
    return app


@contextmanager
def client_of(app: Any, user: str | None = "alice", **options: Any) -> Iterator[httpx.Client]:
    cookies = {} if user is None else {"user": user}
    with (
        serve_asgi(app, **options) as url,
        httpx.Client(base_url=url, cookies=cookies, timeout=20) as client,
    ):
        yield client


def ask(client: httpx.Client, prefix: str = "/v1", **options: Any) -> httpx.Response:
    options.setdefault("json", CHAT)
    return client.post(f"{prefix}/chat/completions", **options)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# -- what a dependency may be ----------------------------------------------------------------


class ByHeader:
    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, request: Request) -> str | None:
        return request.headers.get(self.name)


class AsyncByHeader(ByHeader):
    async def __call__(self, request: Request) -> str | None:  # type: ignore[override]
        return request.headers.get(self.name)


async def yielding(request: Request) -> AsyncIterator[str | None]:
    yield request.headers.get("x-user")


def identity(x_user: Annotated[str, Header()]) -> Identity:
    return Identity(x_user, tags={"team": "red"})


@pytest.mark.parametrize(
    "dependency",
    [
        ByHeader("x-user"),
        AsyncByHeader("x-user"),
        yielding,
        identity,
        Depends(yielding),
        Depends(ByHeader("x-user"), use_cache=False),
    ],
)
def test_any_kind_of_dependency_says_who_is_calling(fake: FakeUpstream, dependency: Any) -> None:
    recorder = Recorder()
    app = FastAPI()
    app.include_router(proxy_router(proxy_to(fake, recorder), identify=dependency))
    with client_of(app) as client:
        assert ask(client, headers={"x-user": "alice", "x-request-id": "r1"}).status_code == 200
        refused = ask(client)
        assert refused.status_code == (422 if dependency is identity else 401)
    assert recorder.subjects["r1"] == "alice"
    assert len(fake.requests) == 1


def test_overrides_hold_for_the_dependency_and_for_what_it_depends_on(fake: FakeUpstream) -> None:
    recorder = Recorder()
    app = FastAPI()
    app.include_router(proxy_router(proxy_to(fake, recorder), identify=from_cookie))
    with client_of(app, None) as client:
        assert ask(client).status_code == 401
        app.dependency_overrides[cookie] = lambda: "of the cookie"
        assert ask(client, headers={"x-request-id": "r1"}).status_code == 200
        app.dependency_overrides[from_cookie] = lambda: "of the test"
        assert ask(client, headers={"x-request-id": "r2"}).status_code == 200
        app.dependency_overrides.clear()
        assert ask(client).status_code == 401
    assert (recorder.subjects["r1"], recorder.subjects["r2"]) == ("of the cookie", "of the test")


# -- Security and OpenAPI --------------------------------------------------------------------

oauth2 = OAuth2PasswordBearer("token", scopes={"ai": "Ask the AI", "admin": "Do anything"})
TOKENS = {"t-ai": ["ai"], "t-none": []}


def scoped_user(wanted: SecurityScopes, token: Annotated[str, Depends(oauth2)]) -> str:
    challenge = f'Bearer scope="{wanted.scope_str}"'
    if token not in TOKENS:
        raise HTTPException(401, "No such token.", {"WWW-Authenticate": challenge})
    if not set(wanted.scopes) <= set(TOKENS[token]):
        raise HTTPException(403, "The token is not for this.", {"WWW-Authenticate": challenge})
    return f"owner of {token}"


def test_security_scopes_are_asked_for(fake: FakeUpstream) -> None:
    app = app_with(fake, Security(scoped_user, scopes=["ai"]))
    with client_of(app) as client:
        missing = ask(client)
        assert (missing.status_code, missing.headers["www-authenticate"]) == (401, "Bearer")
        assert error_of(missing)["code"] == "invalid_api_key"
        wrong = ask(client, headers={"authorization": "Bearer t-else"})
        assert wrong.status_code == 401
        assert wrong.headers.get_list("www-authenticate") == ['Bearer scope="ai"']
        narrow = ask(client, headers={"authorization": "Bearer t-none"})
        assert narrow.status_code == 403
        assert narrow.headers["www-authenticate"] == 'Bearer scope="ai"'
        assert error_of(narrow)["message"] == "The token is not for this."
        assert ask(client, headers={"authorization": "Bearer t-ai"}).status_code == 200
    assert len(fake.requests) == 1


def test_the_openapi_tells_of_every_endpoint(fake: FakeUpstream) -> None:
    app = FastAPI()
    proxy = proxy_to(fake)
    router = proxy_router(proxy, identify=Security(scoped_user, scopes=["ai"]), tags=["models"])
    app.include_router(router, prefix="/api")
    schema = app.openapi()
    told = {
        f"{method.upper()} {path}"
        for path, operations in schema["paths"].items()
        for method in operations
    }
    assert {line.replace("{object_id}", "{id}") for line in told} == {
        endpoint.replace(" ", " /api/v1").replace("...", "") for endpoint in proxy.endpoints.written
    }
    assert schema["components"]["securitySchemes"].keys() == {"OAuth2PasswordBearer"}
    operations = [op for path in schema["paths"].values() for op in path.values()]
    for operation in operations:
        assert operation["security"] == [{"OAuth2PasswordBearer": ["ai"]}]
        assert operation["tags"] == ["models"]
        assert operation["summary"]
        assert operation["responses"].keys() == {"200", "401", "4XX", "5XX"}
        refused = operation["responses"]["401"]["content"]["application/json"]["schema"]
        assert refused == {"$ref": "#/components/schemas/AIProxyErrorBody"}
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert schema["components"]["schemas"].keys() == {"AIProxyErrorBody", "AIProxyError"}


def test_the_openapi_tells_what_goes_in_and_out(fake: FakeUpstream) -> None:
    paths = app_with(fake).openapi()["paths"]
    chat = paths["/v1/chat/completions"]["post"]
    assert chat["requestBody"]["required"] is True
    assert chat["requestBody"]["content"].keys() == {"application/json"}
    assert chat["responses"]["200"]["content"].keys() == {"application/json", "text/event-stream"}
    assert chat["operationId"] == "post_chat_completions_v1_chat_completions_post"
    assert (chat["summary"], chat["tags"]) == ("Chat completions", ["ai"])
    assert paths["/v1/files"]["post"]["requestBody"]["content"].keys() == {"multipart/form-data"}
    assert "requestBody" not in paths["/v1/files"]["get"]
    assert paths["/v1/batches/{object_id}/cancel"]["post"]["requestBody"]["required"] is False
    content = paths["/v1/files/{object_id}/content"]["get"]
    assert content["responses"]["200"]["content"].keys() == {"application/octet-stream"}
    assert content["parameters"] == [
        {"name": "object_id", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    assert paths["/v1/models/{object_id}"]["get"]["summary"] == "Models by id"


def test_the_openapi_can_leave_it_out(fake: FakeUpstream) -> None:
    assert app_with(fake, include_in_schema=False).openapi()["paths"] == {}


# -- which calls the dependency is asked about -----------------------------------------------


class Counting:
    """A dependency that admits everybody and counts them."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, request: Request) -> str:
        self.calls.append(f"{request.method} {request.url.path}")
        return "alice"


def test_what_cannot_reach_the_upstream_asks_nobody(fake: FakeUpstream) -> None:
    counting = Counting()
    with client_of(app_with(fake, counting)) as client:
        for method, path, status in (
            ("GET", "/v1", 404),
            ("GET", "/v1/", 404),
            ("POST", "/v1/admin", 404),
            ("HEAD", "/v1/admin", 404),
            ("POST", "/v1/chat/completions/", 404),
            ("POST", "/v1//chat/completions", 404),
            ("GET", "/v1/files/a%2Fb", 404),
            ("GET", "/v1/embeddings", 405),
            ("HEAD", "/v1/embeddings", 405),
            ("PUT", "/v1/chat/completions", 405),
            ("TRACE", "/v1/models", 405),
            ("POST", "/v1/models", 405),
        ):
            answer = client.request(method, path)
            assert answer.status_code == status, (method, path, answer.text)
            if method != "HEAD":
                code = "unknown_url" if status == 404 else "method_not_allowed"
                assert error_of(answer)["code"] == code
        assert client.options("/v1/models").headers["allow"] == "GET, HEAD, OPTIONS"
        preflight = {"origin": PAGE, "access-control-request-method": "POST"}
        allowed = client.options("/v1/chat/completions", headers=preflight)
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-origin"] == PAGE
        for path in ("/v1beta", "/v", "/v1beta/models", "/"):  # the app's own
            assert client.get(path).json() == {"detail": "Not Found"}
    assert counting.calls == []
    assert fake.requests == []


def test_a_head_asks_as_a_get_does(fake: FakeUpstream) -> None:
    with client_of(app_with(fake), None) as client:
        for path in ("/v1/models", "/v1/models/fake-1", "/v1/files/f-1"):
            assert client.head(path).status_code == 401
        assert fake.requests == []
        client.cookies.set("user", "alice")
        for path in ("/v1/models", "/v1/models/fake-1"):
            assert client.head(path).status_code == 200
    assert [(seen.method, seen.path) for seen in fake.requests] == [
        ("HEAD", "/v1/models"),
        ("HEAD", "/v1/models/fake-1"),
    ]


# -- paths -----------------------------------------------------------------------------------

ENDPOINTS = {
    "POST /chat/completions",
    "GET /models/{id...}",
    "GET /a.b/{id}/c-d/{id}",
    "PUT /things/{id}/parts/{id...}",
}
PATHS = {
    "/models/fake%2D1": "/models/fake-1",
    "/models/org/name:free@v1,=+~": "/models/org/name:free@v1,=+~",
    "/a.b/x/c-d/y": "/a.b/x/c-d/y",
}


def test_paths_go_upstream_as_from_a_middleware(fake: FakeUpstream) -> None:
    app = FastAPI()
    app.include_router(proxy_router(proxy_to(fake, endpoints=ENDPOINTS), identify=from_cookie))
    with client_of(app) as client:
        for path in PATHS:
            client.get(f"/v1{path}?a=%20b&c")
        client.put("/v1/things/1/parts/2/3", json={})
        assert client.get("/v1/a.b/x/c-d/..").status_code == 404
        assert client.get("/v1/models//").status_code == 404
        assert client.get("/v1/models/x%0a").status_code == 404
        assert client.get("/v1/models/x%7d").status_code == 404
    assert [seen.path for seen in fake.requests] == [
        *(f"/v1{path}" for path in PATHS.values()),
        "/v1/things/1/parts/2/3",
    ]
    assert {seen.query for seen in fake.requests[:-1]} == {"a=%20b&c"}


def of_tenant(tenant: str, user: Annotated[str | None, Depends(cookie)]) -> str | None:
    return None if user is None else f"{tenant}/{user}"


def test_a_router_may_be_included_anywhere_and_twice(fake: FakeUpstream) -> None:
    recorder = Recorder()
    app = FastAPI()
    router = proxy_router(proxy_to(fake, recorder), identify=of_tenant)
    app.include_router(router, prefix="/api/{tenant}")
    app.include_router(router, prefix="/old/{tenant}/ai", include_in_schema=False)
    with client_of(app) as client:
        for number, prefix in enumerate(("/api/red/v1", "/old/blue/ai/v1")):
            assert ask(client, prefix, headers={"x-request-id": f"r{number}"}).status_code == 200
            assert error_of(client.get(f"{prefix}/nothing"))["code"] == "unknown_url"
            assert client.get(f"{prefix}/models/fake-1").status_code == 200
        assert client.get("/v1/models").json() == {"detail": "Not Found"}
    assert recorder.subjects["r0"] == "red/alice"
    assert recorder.subjects["r1"] == "blue/alice"
    assert {seen.path for seen in fake.requests} == {"/v1/chat/completions", "/v1/models/fake-1"}


@pytest.mark.parametrize("root_path", ["", "/behind"])
def test_an_app_may_be_mounted_and_behind_a_prefix(fake: FakeUpstream, root_path: str) -> None:
    main = FastAPI()
    main.mount("/sub", app_with(fake))
    with client_of(main, root_path=root_path) as client:
        assert ask(client, "/sub/v1").status_code == 200
        assert client.get("/sub/v1/models/fake-1").status_code == 200
        assert client.head("/sub/v1/models/fake-1").status_code == 200
        assert error_of(client.get("/sub/v1/nothing"))["code"] == "unknown_url"
        client.cookies.clear()
        assert error_of(ask(client, "/sub/v1"))["code"] == "invalid_api_key"
    assert [seen.path for seen in fake.requests] == [
        "/v1/chat/completions",
        "/v1/models/fake-1",
        "/v1/models/fake-1",
    ]


# -- refusals --------------------------------------------------------------------------------


class NotSignedIn(Exception):
    """The app's own, with a handler."""


class NotSignedInAtAll(NotSignedIn):
    """Found by what it is a kind of."""


class Faulty(Exception):
    """Its handler raises."""


class Streamed(Exception):
    """Its handler answers with a stream."""


class Shown(Exception):
    """Its handler, a plain function, shows a page."""


def raising(error: Exception) -> Callable[[], None]:
    def dependency() -> None:
        raise error

    return dependency


def app_with_handlers(fake: FakeUpstream, error: Exception) -> FastAPI:
    app = app_with(fake, raising(error))

    @app.exception_handler(NotSignedIn)
    async def not_signed_in(request: Request, error: Exception) -> Response:
        challenge = {"WWW-Authenticate": "Cookie", "Access-Control-Allow-Origin": "*"}
        return JSONResponse({"who": "nobody"}, 401, challenge)

    @app.exception_handler(Faulty)
    async def faulty(request: Request, error: Exception) -> Response:
        raise ZeroDivisionError

    @app.exception_handler(Streamed)
    async def streamed(request: Request, error: Exception) -> Response:
        return StreamingResponse(iter(["no"]), 403)

    @app.exception_handler(Shown)
    def shown(request: Request, error: Exception) -> Response:
        return Response("Sign in!", 200)

    @app.exception_handler(PermissionError)
    def away(request: Request, error: Exception) -> Response:
        return RedirectResponse("/login")

    @app.exception_handler(Exception)
    async def anything(request: Request, error: Exception) -> Response:
        return Response("the app's own 500", 500)

    return app


REFUSALS: dict[str, tuple[Exception, int, str, str]] = {
    "401": (HTTPException(401), 401, "Unauthorized", "invalid_api_key"),
    "403": (HTTPException(403, "Not you."), 403, "Not you.", "forbidden"),
    "402": (HTTPException(402, {"due": 3}), 402, '{"due": 3}', "refused"),
    "429": (HTTPException(429, "Slowly."), 429, "Slowly.", "refused"),
    "503": (HTTPException(503, "No directory."), 503, "No directory.", "internal_error"),
    "login": (
        HTTPException(303, headers={"Location": "/login"}),
        401,
        "You need to be signed in to call this API.",
        "invalid_api_key",
    ),
    "ours": (Forbidden("Not today."), 403, "Not today.", "forbidden"),
    "redirect": (
        PermissionError(),
        401,
        "You need to be signed in to call this API.",
        "invalid_api_key",
    ),
    "page": (
        Shown(),
        401,
        "You need to be signed in to call this API.",
        "invalid_api_key",
    ),
    "stream": (Streamed(), 403, "The app has refused the call.", "forbidden"),
    "fault": (KeyError("secret"), 500, "Something went wrong on our side.", "internal_error"),
    "handler": (Faulty(), 500, "Something went wrong on our side.", "internal_error"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_a_dependency_raises_is_told_in_our_shape(fake: FakeUpstream, name: str) -> None:
    error, status, message, code = REFUSALS[name]
    with client_of(app_with_handlers(fake, error)) as client:
        answer = ask(client, headers={"origin": PAGE, "x-request-id": "r1"})
        told = error_of(answer)
        assert (answer.status_code, told["message"], told["code"]) == (status, message, code)
        assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
        assert answer.headers["x-request-id"] == "r1"
        assert ("www-authenticate" in answer.headers) is (status == 401)
        assert "location" not in answer.headers
    assert fake.requests == []


def test_headers_of_a_refusal_are_kept(fake: FakeUpstream) -> None:
    headers = {
        "WWW-Authenticate": 'Basic realm="app"',
        "Retry-After": "7",
        "Set-Cookie": "session=; Max-Age=0",
        "Content-Type": "text/html",
        "Content-Length": "3",
        "Access-Control-Allow-Origin": "https://else.example",
        "X-Request-ID": "theirs",
    }
    app = app_with(fake, raising(HTTPException(401, "Sign in.", headers)))
    with client_of(app) as client:
        answer = ask(client, headers={"origin": PAGE, "x-request-id": "ours"})
        assert error_of(answer)["message"] == "Sign in."
    assert answer.headers.get_list("www-authenticate") == ['Basic realm="app"']
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["set-cookie"] == "session=; Max-Age=0"
    assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
    assert answer.headers.get_list("x-request-id") == ["ours"]


@pytest.mark.parametrize("kind", [NotSignedIn, NotSignedInAtAll])
def test_the_apps_own_handler_answers_for_its_exceptions(
    fake: FakeUpstream, kind: type[Exception]
) -> None:
    with client_of(app_with_handlers(fake, kind())) as client:
        answer = ask(client, headers={"origin": PAGE})
        head = client.head("/v1/models")
    assert (answer.status_code, answer.json()) == (401, {"who": "nobody"})
    assert answer.headers["www-authenticate"] == "Cookie"
    assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
    assert answer.headers["x-request-id"]
    assert (head.status_code, head.content) == (401, b"")


def test_an_app_answer_passes_as_it_is(fake: FakeUpstream) -> None:
    error = AppAnswer(Answered(418, [(b"content-length", b"3")], b"tea"))
    with client_of(app_with(fake, raising(error))) as client:
        answer = ask(client)
    assert (answer.status_code, answer.text) == (418, "tea")


def asking_much(
    x_tenant: Annotated[int, Header()], token: Annotated[str, Query(min_length=40)]
) -> str:
    return f"{x_tenant} {token}"


def test_what_is_missing_is_named_and_what_was_sent_is_not(fake: FakeUpstream) -> None:
    with client_of(app_with(fake, asking_much)) as client:
        headers = {"x-tenant": "red-secret", "origin": PAGE}
        answer = ask(client, params={"token": "sk-secret"}, headers=headers)
    assert answer.status_code == 422
    assert error_of(answer)["message"] == (
        "What this app asks of its callers is not there: "
        "query.token (string_too_short), header.x-tenant (int_parsing)."
    )
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "secret" not in answer.text
    assert fake.requests == []


def test_a_validation_error_of_the_apps_own_may_be_empty(fake: FakeUpstream) -> None:
    with client_of(app_with(fake, raising(RequestValidationError([])))) as client:
        assert ask(client).status_code == 422


class User:
    def __init__(self, number: int) -> None:
        self.number = number


@pytest.mark.parametrize(
    ("value", "subject", "sentence"),
    [
        (7, None, "identify= gave int"),
        (User(7), None, "identify= gave User"),
        (True, None, "identify= gave bool"),
        (b"alice", None, "identify= gave bytes"),
        (User(7), lambda user: user.number, "subject= gave int"),
        (User(7), lambda user: user.name, "has no attribute 'name'"),
    ],
)
def test_a_value_that_names_nobody_is_a_fault(
    fake: FakeUpstream, caplog: pytest.LogCaptureFixture, value: Any, subject: Any, sentence: str
) -> None:
    app = app_with(fake, lambda: value, subject=subject)
    with client_of(app) as client, caplog.at_level(logging.ERROR, "ai_proxy_mw"):
        assert error_of(ask(client))["code"] == "internal_error"
    assert sentence in caplog.text
    assert fake.requests == []


@pytest.mark.parametrize(
    ("value", "status"), [(None, 401), (User(0), 401), (User(7), 200), ("", 401), ("a\0b", 401)]
)
def test_the_subject_is_asked_of_who_is_there(fake: FakeUpstream, value: Any, status: int) -> None:
    def subject(user: Any) -> str | None:
        assert user is not None
        if isinstance(user, User):
            return str(user.number) if user.number else None
        return str(user)

    with client_of(app_with(fake, lambda: value, subject=subject)) as client:
        assert ask(client).status_code == status


# -- bodies and streams ----------------------------------------------------------------------


def plain_app(fake: FakeUpstream) -> FastAPI:
    return app_with(fake)


def app_with_a_middleware(fake: FakeUpstream) -> FastAPI:
    """As most apps have one: a function between Starlette's BaseHTTPMiddleware and the app."""
    app = app_with(fake)

    @app.middleware("http")
    async def timed(request: Request, call_next: Any) -> Response:
        answer: Response = await call_next(request)
        answer.headers["x-timed"] = "1"
        return answer

    return app


APPS = pytest.mark.parametrize("app_of", [plain_app, app_with_a_middleware])
AppOf = Callable[[FakeUpstream], FastAPI]


@APPS
def test_a_stream_comes_piece_by_piece(fake: FakeUpstream, app_of: AppOf) -> None:
    with (
        client_of(app_of(fake)) as client,
        fake.hold() as gate,
        client.stream("POST", "/v1/chat/completions", json=STREAM) as answer,
    ):
        lines = answer.iter_lines()
        gate.release()
        assert '"role":"assistant"' in next(lines)
        gate.wait_until_held()
        assert fake.requests[-1].chunks_sent == 1
        gate.open()
        assert list(lines)[-2:] == ["data: [DONE]", ""]


def connect(client: httpx.Client, head: str, body: bytes) -> socket.socket:
    address = urlsplit(str(client.base_url))
    sock = socket.create_connection((str(address.hostname), address.port or 80), timeout=10)
    sock.sendall(f"{head}\r\nhost: x\r\ncookie: user=alice\r\n\r\n".encode() + body)
    return sock


@APPS
def test_who_leaves_ends_the_call_at_once(fake: FakeUpstream, app_of: AppOf) -> None:
    body = json.dumps(STREAM).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}"
    )
    took = []
    with client_of(app_of(fake)) as client:
        for _ in range(4):
            fake.reset()
            with fake.hold() as gate:
                sock = connect(client, head, body)
                gate.wait_until_held()
                gate.release()
                gate.wait_until_held()
                left = time.monotonic()
                sock.close()
                seen = fake.wait_for_disconnect()
            assert seen.disconnected_at is not None
            took.append(seen.disconnected_at - left)
    assert min(took) < 0.1  # the machine may be busy; kept once in a few is kept


def test_an_upload_goes_on_before_all_of_it_has_come(fake: FakeUpstream) -> None:
    head = f"POST /v1/files HTTP/1.1\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {1 << 24}"
    with client_of(app_with(fake)) as client:
        sock = connect(client, head, form_of(1 << 24, purpose="batch")[: 1 << 20])
        deadline = time.monotonic() + 10
        while not fake.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        [seen] = fake.requests
        assert not seen.arrived
        sock.close()
        assert fake.wait_for_disconnect().body_size <= 1 << 20


def chunked(size: int) -> Iterator[bytes]:
    for _ in range(size >> 10):
        yield b"x" * 1024


@pytest.mark.parametrize("where", ["proxy", "app", "router"])
@pytest.mark.parametrize("body", [b"x" * 20_000, None], ids=["declared", "chunked"])
def test_a_body_above_the_limit_is_413(fake: FakeUpstream, where: str, body: bytes | None) -> None:
    limit: dict[str, Any] = {"max_body_size": 10_000}
    app = FastAPI(**limit if where == "app" else {})
    proxy = proxy_to(fake, max_body=10_000 if where == "proxy" else 1 << 20)
    router = proxy_router(proxy, identify=from_cookie)
    app.include_router(router, **limit if where == "router" else {})
    with client_of(app) as client:
        headers = {"content-type": "application/json", "origin": PAGE}
        content = chunked(20_000) if body is None else body
        answer = ask(client, json=None, content=content, headers=headers)
        assert answer.status_code == 413
        if where == "proxy" or body is None:  # FastAPI answers itself where it knows the length
            assert error_of(answer)["type"] == "invalid_request_error"
            assert answer.headers["access-control-allow-origin"] == PAGE
    assert all(seen.outcome != "complete" for seen in fake.requests)


async def reads_the_body(request: Request) -> str:
    return (await request.body()).decode()


async def reads_a_stream(request: Request) -> str:
    return str([piece async for piece in request.stream()])


async def cannot_know(request: Request) -> str:
    return f"is gone: {await request.is_disconnected()}"


@pytest.mark.parametrize("dependency", [reads_the_body, reads_a_stream])
def test_a_dependency_does_not_get_the_body(
    fake: FakeUpstream, caplog: pytest.LogCaptureFixture, dependency: Any
) -> None:
    with client_of(app_with(fake, dependency)) as client, caplog.at_level(logging.ERROR):
        assert error_of(ask(client))["code"] == "internal_error"
    assert "a dependency reads the body" in caplog.text


def test_a_dependency_of_the_app_does_not_get_the_body_either(
    fake: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    def needs_all(body: Annotated[dict[str, Any], Body()]) -> None:
        raise AssertionError("not with a body")

    app = FastAPI()
    router = proxy_router(proxy_to(fake), identify=from_cookie)
    app.include_router(router, dependencies=[Depends(needs_all)])
    with client_of(app) as client, caplog.at_level(logging.ERROR, "ai_proxy_mw"):
        assert error_of(ask(client))["code"] == "internal_error"
    assert "a dependency reads the body" in caplog.text


def test_a_dependency_may_ask_whether_the_caller_is_there(fake: FakeUpstream) -> None:
    recorder = Recorder()
    app = FastAPI()
    app.include_router(proxy_router(proxy_to(fake, recorder), identify=cannot_know))
    with client_of(app) as client:
        assert ask(client, headers={"x-request-id": "r1"}).status_code == 200
    assert recorder.subjects["r1"] == "is gone: False"


# -- what dependencies do besides ------------------------------------------------------------


def test_dependencies_of_the_app_and_of_the_router_are_asked_too(fake: FakeUpstream) -> None:
    app = FastAPI(dependencies=[Depends(raising(HTTPException(403, "Closed.")))])
    app.include_router(proxy_router(proxy_to(fake), identify=from_cookie))
    with client_of(app) as client:
        answer = ask(client)
        assert (answer.status_code, error_of(answer)["message"]) == (403, "Closed.")
    assert fake.requests == []


def test_what_a_dependency_puts_on_the_answer_arrives(fake: FakeUpstream) -> None:
    done: list[str] = []

    def refreshing(response: Response, tasks: BackgroundTasks) -> str:
        response.set_cookie("session", "fresh")
        response.headers["x-plan"] = "gold"
        response.headers["content-type"] = "text/html"
        response.headers["access-control-allow-origin"] = "*"
        tasks.add_task(done.append, "after")
        return "alice"

    with client_of(app_with(fake, refreshing)) as client:
        answer = ask(client, json=STREAM, headers={"origin": PAGE})
        assert answer.text.endswith("data: [DONE]\n\n")
    assert answer.headers["set-cookie"].startswith("session=fresh;")
    assert answer.headers["x-plan"] == "gold"
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
    assert done == ["after"]


@pytest.mark.parametrize(
    ("scope", "open_while_streaming"), [("request", True), ("function", False)]
)
def test_how_long_a_yield_dependency_stays_open(
    fake: FakeUpstream, scope: Any, open_while_streaming: bool
) -> None:
    opened: list[str] = []

    async def connection() -> AsyncIterator[str]:
        opened.append("open")
        yield "alice"
        opened.append("closed")

    with (
        client_of(app_with(fake, Depends(connection, scope=scope))) as client,
        fake.hold() as gate,
        client.stream("POST", "/v1/chat/completions", json=STREAM) as answer,
    ):
        gate.wait_until_held()
        assert (opened == ["open"]) is open_while_streaming
        gate.open()
        answer.read()
    # The server has stopped, so the call is over.
    assert opened == ["open", "closed"]


# -- the life of the proxy -------------------------------------------------------------------


def test_the_router_closes_the_proxy_with_the_app(
    fake: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        told.append("starts")
        yield {}
        told.append("ends")

    proxy = proxy_to(fake)

    async def aclose() -> None:
        told.append("closed")

    monkeypatch.setattr(proxy, "aclose", aclose)
    app = FastAPI(lifespan=own)
    app.include_router(proxy_router(proxy, identify=from_cookie))
    with client_of(app) as client:
        assert client.get("/v1/nothing").status_code == 404
        assert told == ["starts"]
    assert told == ["starts", "closed", "ends"]


def test_the_official_client_works(fake: FakeUpstream) -> None:
    with serve_asgi(app_with(fake, Security(scoped_user, scopes=["ai"]))) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="t-ai", max_retries=0) as client:
            said: Any = CHAT["messages"]
            answer = client.chat.completions.create(model="fake-1", messages=said)
            assert answer.choices[0].message.content
            pieces = client.chat.completions.create(model="fake-1", messages=said, stream=True)
            assert len(list(pieces)) > 2
            assert [model.id for model in client.models.list()]
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="t-none", max_retries=0) as client,
            pytest.raises(openai.PermissionDeniedError, match="The token is not for this"),
        ):
            client.models.list()


# -- wrong arguments -------------------------------------------------------------------------


def with_a_body(body: Annotated[dict[str, Any], Body()]) -> str:
    return str(body)


def with_our_name(object_id: str) -> str:
    return object_id


def below_it(found: Annotated[str, Depends(with_our_name)]) -> str:
    return found


@pytest.mark.parametrize(
    ("identify", "options", "sentence"),
    [
        (None, {}, "give a dependency"),
        (Depends(), {}, "give a dependency"),
        ("current_user", {}, "give a dependency"),
        (with_a_body, {}, "depends on the body"),
        (with_our_name, {}, r"\['object_id'\]"),
        (below_it, {}, "give it another name"),
        (from_cookie, {"subject": "id"}, "subject=lambda user"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    fake: FakeUpstream, identify: Any, options: Any, sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        proxy_router(proxy_to(fake), identify=identify, **options)


def test_a_proxy_that_would_not_ask_the_route_is_refused(fake: FakeUpstream) -> None:
    proxy = AIProxy(upstream=upstream(fake), anonymous=True, cors=CORS(allow_origins=[PAGE]))
    with pytest.raises(ConfigurationError, match="identify=from_route"):
        proxy_router(proxy, identify=from_cookie)


def test_without_fastapi_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ai_proxy_mw.contrib.fastapi"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ImportError, match=r"pip install 'ai_proxy_mw\[fastapi\]'"):
        importlib.import_module(name)
