"""The proxy as a route of a Flask app: proxy_blueprint and proxy_view."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    g,
    make_response,
    redirect,
    request,
    session,
    url_for,
)
from flask_login import LoginManager, UserMixin, login_required, login_user

from ai_proxy_mw import AIProxy, ConfigurationError, Forbidden, Identity, from_route
from ai_proxy_mw.contrib.flask import login_user_id, proxy_blueprint, proxy_view
from ai_proxy_mw.testing import FakeUpstream
from tests.forms import HEADERS, form
from tests.reuse.cell import PAGE, Recorder, cors, upstream
from tests.schema.makers import wav
from tests.servers import serve_wsgi

CHAT: dict[str, Any] = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = CHAT | {"stream": True}

View = Callable[..., Any]


class User(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    def __init__(self, name: str) -> None:
        self.id = name


class House:
    """A Flask app to which a proxy is given as a route."""

    def __init__(self) -> None:
        self.app = Flask("house")
        self.app.secret_key = "a secret of the tests"
        self.fake = FakeUpstream()
        self.recorder = Recorder()
        self.asked: list[str] = []

    def proxy(self, **options: Any) -> AIProxy:
        proxy = AIProxy(upstream=upstream(self.fake), identify=from_route, cors=cors(), **options)
        return self.recorder.watch(proxy)

    def alice(self) -> str:
        self.asked.append(request.path)
        return "alice"

    def put(self, **options: Any) -> None:
        """The proxy as a blueprint, everybody in it being alice unless `options` say otherwise."""
        options = {"identify": self.alice} | options
        self.app.register_blueprint(proxy_blueprint(self.proxy(), **options))

    @contextmanager
    def serve(self) -> Iterator[httpx.Client]:
        with (
            serve_wsgi(self.app) as url,
            httpx.Client(base_url=url, timeout=20, headers={"origin": PAGE}) as client,
        ):
            yield client


@pytest.fixture
def house() -> House:
    return House()


def chat(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/chat/completions", json=CHAT)


def assert_ours(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code
    assert answer.headers.get_list("content-type") == ["application/json"]
    assert_around(answer)


def assert_around(answer: httpx.Response) -> None:
    """What the corridor puts around every answer, once."""
    assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
    assert len(answer.headers.get_list("x-request-id")) == 1


def with_login(app: Flask) -> LoginManager:
    logins = LoginManager(app)
    logins.user_loader(User)

    @app.post("/login")
    def login() -> str:
        login_user(User("alice"))
        return "welcome"

    return logins


# -- who is let in -------------------------------------------------------------------------------


def test_login_required(house: House) -> None:
    with_login(house.app)
    house.put(identify=login_user_id, decorators=[login_required])
    with house.serve() as client:
        refused = chat(client)
        assert_ours(refused, 401, "invalid_api_key")
        assert refused.headers["www-authenticate"] == "Bearer"
        client.post("/login")
        assert chat(client).status_code == 200


def test_the_way_to_the_login_is_told_as_401(house: House) -> None:
    with_login(house.app).login_view = "login"
    house.put(identify=login_user_id, decorators=[login_required])
    with house.serve() as client:
        refused = chat(client)
        assert_ours(refused, 401, "invalid_api_key")
        assert "location" not in refused.headers


def test_an_answer_in_our_place_is_passed_on_as_it_is(house: House) -> None:
    logins = with_login(house.app)

    @logins.unauthorized_handler  # type: ignore[untyped-decorator]
    def unauthorized() -> Any:
        answer = make_response({"own": "shape"}, 418)
        answer.set_cookie("tea", "1")
        return answer

    house.put(identify=login_user_id, decorators=[login_required])
    with house.serve() as client:
        for method, body in (("GET", b'{"own":"shape"}\n'), ("HEAD", b"")):
            answer = client.request(method, "/v1/models")
            assert (answer.status_code, answer.content) == (418, body)
            assert answer.headers.get_list("content-length") == ["16"]
            assert answer.headers["set-cookie"].startswith("tea=1")
            assert_around(answer)


def in_place(answer: Any) -> Callable[[View], View]:
    """A decorator that gives or raises something in the place of the view's answer."""

    def decorator(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer() if callable(answer) else answer

        return guarded

    return decorator


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (lambda: abort(403), 403, "forbidden"),
        (lambda: abort(429), 429, "refused"),
        (lambda: redirect("/login"), 401, "invalid_api_key"),
        (lambda: abort(redirect("/login")), 401, "invalid_api_key"),
        ("the page of the login", 401, "invalid_api_key"),
        (("", 204), 401, "invalid_api_key"),
        (Forbidden("Not you."), 403, "forbidden"),
        (None, 500, "internal_error"),
        (RuntimeError("boom"), 500, "internal_error"),
        (StopIteration(), 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("place", ["decorator", "identify"])
def test_what_lets_nobody_in(house: House, place: str, answer: Any, status: int, code: str) -> None:
    instead = in_place(answer)
    if place == "decorator":
        house.put(decorators=[instead])
    elif isinstance(answer, Exception) or getattr(answer, "__name__", "") == "<lambda>":
        house.put(identify=lambda: instead(house.alice)() and None)
    else:
        house.put(identify=lambda: None)
        status, code = 401, "invalid_api_key"
    with house.serve() as client:
        refused = chat(client)
        assert_ours(refused, status, code)
        assert "boom" not in refused.text
    assert house.fake.requests == []
    assert house.asked == []


def test_what_identify_says_is_what_the_proxy_takes(house: House) -> None:
    async def ask() -> Identity | None:
        await asyncio.sleep(0)
        user = request.headers.get("x-user")
        return None if user is None else Identity(user, scope=g.tenant)

    house.app.before_request(lambda: setattr(g, "tenant", "shop"))
    house.put(identify=ask)
    with house.serve() as client:
        assert_ours(chat(client), 401, "invalid_api_key")
        headers = {"x-user": "bob", "x-request-id": "call-1"}
        assert client.get("/v1/models", headers=headers).status_code == 200
    assert house.recorder.subjects["call-1"] == "bob"


def test_decorators_stand_around_the_call(house: House) -> None:
    """The last is outermost, as in `View.decorators` of Flask; their arguments are the rule's."""
    seen: list[Any] = []

    def note(name: str) -> Callable[[View], View]:
        def decorator(view: View) -> View:
            @wraps(view)
            def guarded(*args: Any, **kwargs: Any) -> Any:
                seen.append((name, args, kwargs))
                answer = make_response(view(*args, **kwargs))
                answer.headers.add("x-note", name)
                return answer

            return guarded

        return decorator

    async def nothing() -> None:
        await asyncio.sleep(0)

    def asynchronous(view: View) -> View:
        @wraps(view)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            await nothing()
            return view(*args, **kwargs)

        return guarded

    house.put(decorators=[note("inner"), note("outer"), asynchronous])
    with house.serve() as client:
        answer = client.get("/v1/models")
        assert answer.status_code == 200
        assert answer.headers.get_list("x-note") == ["inner", "outer"]
    assert seen == [(name, (), {"path": "models"}) for name in ("outer", "inner")]


def test_a_decorator_that_fails_after_the_call_ends_it(house: House) -> None:
    def fails(view: View) -> View:
        def guarded(**kwargs: Any) -> Any:
            answer = view(**kwargs)
            raise RuntimeError(f"what shall I do with {answer}?")

        return guarded

    house.put(decorators=[fails])
    client = house.app.test_client()  # has no socket whose end could end the call
    with house.fake.hold():
        refused = client.post("/v1/chat/completions", json=STREAM)
        assert refused.status_code == 500
        assert b"internal_error" in refused.data
        assert house.fake.wait_for_disconnect().chunks_sent == 0


def test_a_decorator_of_the_apps_own_around_the_view(house: House) -> None:
    """Its refusals are then the app's own, as for any other view."""
    with_login(house.app)
    view = login_required(proxy_view(house.proxy(), identify=login_user_id))
    house.app.add_url_rule("/v1/<path:path>", view_func=view)
    with house.serve() as client:
        refused = chat(client)
        assert refused.status_code == 401
        assert refused.headers["content-type"].startswith("text/html")
        client.post("/login")
        assert chat(client).status_code == 200
        assert client.delete("/v1/models").status_code == 405
        assert client.get("/v1/models/").status_code == 404


# -- what is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v1", 404),
        ("GET", "/v1/", 404),
        ("GET", "/v1/admin", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/v1//models", 404),
        ("GET", "/v1/models//fake-1", 404),
        ("GET", "/v1/../v1/models", 404),
        ("GET", "/v1/models/a%0Ab", 404),
        ("GET", "/v1/models/%C3%A4", 404),
        ("GET", "/v1/batches/a%2Fb", 404),
        ("DELETE", "/v1/models", 405),
        ("PUT", "/v1/chat/completions", 405),
        ("PATCH", "/v1/chat/completions", 405),
        ("TRACE", "/v1/models", 405),
        ("OPTIONS", "/v1/models", 204),
        ("OPTIONS", "/v1/nowhere", 404),
    ],
)
def test_what_is_no_endpoint_is_answered_before_anybody_is_asked(
    house: House, method: str, target: str, status: int
) -> None:
    house.put(decorators=[in_place(RuntimeError("boom"))])
    with house.serve() as client:
        address = urlsplit(str(client.base_url)).netloc
        # Over a socket: a client would tidy the path.
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            sock.sendall(
                f"{method} {target} HTTP/1.1\r\nhost: {address}\r\norigin: {PAGE}\r\n"
                "connection: close\r\n\r\n".encode()
            )
            received = b""
            while piece := sock.recv(65536):
                received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0].split()[1] == str(status)
    assert f"access-control-allow-origin: {PAGE}" in lines
    if status == 204:
        assert body == b""
        assert "allow: get, head, options" in lines
        assert not [line for line in lines if line.startswith("content-")]
    elif method != "TRACE":
        code = {404: "unknown_url", 405: "method_not_allowed"}[status]
        assert json.loads(body)["error"]["code"] == code
    assert house.fake.requests == []


def test_slashes_before_the_prefix_make_another_path(house: House) -> None:
    """Some servers drop them; where they come through, Werkzeug's routing does not see them."""
    house.put()
    client = house.app.test_client()
    for path, status in (("//v1/models", 404), ("/v1/models", 200)):
        answer = client.get(environ_overrides={"PATH_INFO": path})
        assert answer.status_code == status
        answer.close()
    assert house.asked == ["/v1/models"]


def test_a_preflight_is_answered_before_anybody_is_asked(house: House) -> None:
    house.put(decorators=[in_place(RuntimeError("boom"))])
    with house.serve() as client:
        answer = client.options(
            "/v1/chat/completions",
            headers={
                "access-control-request-method": "POST",
                "access-control-request-headers": "content-type",
            },
        )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-credentials"] == "true"


def test_an_unknown_method_is_the_apps_to_refuse(house: House) -> None:
    house.put()
    with house.serve() as client:
        assert client.request("BREW", "/v1/models").status_code == 405
    assert house.asked == []


def test_under_another_prefix_and_nested(house: House) -> None:
    api = Blueprint("api", __name__)
    api.register_blueprint(proxy_blueprint(house.proxy(), identify=house.alice))
    house.app.register_blueprint(api, url_prefix="/api")
    house.app.register_blueprint(
        proxy_blueprint(house.proxy(prefix="/ai/v2"), identify=house.alice, name="second"),
        url_prefix="/of/<tenant>",
    )

    @house.app.get("/v1/models")
    def models() -> str:
        return url_for("api.ai_proxy.ai_proxy", path="models/a b")

    @house.app.get("/api/v1/own")
    def own() -> str:
        return "the app's"

    with house.serve() as client:
        assert client.get("/api/v1/models").status_code == 200
        assert client.get("/of/shop/ai/v2/models").status_code == 200
        assert client.get("/v1/models").text == "/api/v1/models/a%20b"
        assert client.get("/api/v1/own").text == "the app's"
        assert client.get("/api/v1x/models").status_code == 404
    assert house.asked == ["/api/v1/models", "/of/shop/ai/v2/models"]


def test_only_a_proxy_for_routes_is_taken(house: House) -> None:
    other = AIProxy(upstream=upstream(house.fake), anonymous=True)
    with pytest.raises(ConfigurationError, match="from_route"):
        proxy_view(other, identify=house.alice)
    with pytest.raises(ConfigurationError, match="without arguments"):
        proxy_blueprint(house.proxy(), identify=None)  # type: ignore[arg-type]


# -- what comes back -----------------------------------------------------------------------------


def test_the_answer_is_the_proxys_to_the_byte(house: House) -> None:
    house.put()
    with house.serve() as client, house.fake.serve() as direct:
        for method, path in (
            ("GET", "/models"),
            ("HEAD", "/models"),
            ("GET", "/files/f-1/content"),
        ):
            expected = httpx.request(method, direct.base_url + path)
            answer = client.request(method, f"/v1{path}")
            assert answer.content == expected.content
            for name in ("content-length", "content-type"):
                assert answer.headers.get_list(name) == expected.headers.get_list(name)
            names = [name for name, _ in answer.headers.multi_items()]
            assert len(names) == len(set(names))


def test_an_answer_without_length_gets_none(house: House) -> None:
    """Also where the whole of it came at once: a HEAD would else be told a length of 0."""
    from ai_proxy_mw import Request
    from ai_proxy_mw import Response as ProxyResponse

    proxy = house.proxy()

    async def handle(request: Request) -> ProxyResponse:
        return ProxyResponse(200, [(b"content-type", b"x/y")], b"" if is_head else b"whole")

    proxy.handle = handle
    house.app.register_blueprint(proxy_blueprint(proxy, identify=house.alice))
    with house.serve() as client:
        is_head = True
        assert "content-length" not in client.head("/v1/models").headers
        is_head = False
        answer = client.get("/v1/models")
        assert answer.content == b"whole"
        assert "content-length" not in answer.headers


def test_a_stream_arrives_piece_by_piece(house: House) -> None:
    over: list[bool] = []
    house.app.teardown_request(lambda error: over.append(error is None))
    house.put()
    with (
        house.serve() as client,
        house.fake.hold() as gate,
        client.stream("POST", "/v1/chat/completions", json=STREAM) as answer,
    ):
        assert answer.headers["x-accel-buffering"] == "no"
        pieces = answer.iter_raw()
        gate.release()
        assert next(pieces).startswith(b"data: {")
        assert house.fake.requests[0].chunks_sent == 1
        assert over == [True]  # nothing of the request is kept open while the answer streams
        gate.open()
        assert b"".join(pieces).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("at", ["headers", "chunks"])
def test_a_caller_who_leaves_ends_the_call(
    house: House, at: Any, caplog: pytest.LogCaptureFixture
) -> None:
    house.put()
    with house.serve() as client, house.fake.hold(at) as gate:
        address = urlsplit(str(client.base_url)).netloc
        host, _, port = address.partition(":")
        body = json.dumps(STREAM).encode()
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            sock.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            gate.wait_until_held()
        seen = house.fake.wait_for_disconnect()
        assert seen.chunks_sent == 0
        _until_no_thread_answers()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def _until_no_thread_answers() -> None:
    """The server's threads have nothing more to log."""
    for thread in threading.enumerate():
        if "process_request" in thread.name:
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize("way", ["another", "fails"])
def test_an_answer_that_a_hook_throws_away_is_closed(house: House, way: str) -> None:
    def replace(response: Response) -> Response:
        if way == "fails":
            raise RuntimeError("boom")
        return Response("another", 200)

    house.app.after_request(replace)
    house.app.logger.disabled = True  # else the tests keep the exception, and it its frames
    house.put()
    client = house.app.test_client()  # has no socket whose end could end the call
    with house.fake.hold():
        answer = client.post("/v1/chat/completions", json=STREAM)
        assert answer.status_code == (200 if way == "another" else 500)
        gc.collect()  # Flask and an exception that it has told of hold each other
        house.fake.wait_for_disconnect()


def test_the_apps_hooks_and_session_are_at_work_on_answers(house: House) -> None:
    house.app.before_request(lambda: session.update(calls=session.get("calls", 0) + 1))

    @house.app.after_request
    def mark(response: Response) -> Response:
        assert response.is_streamed
        assert response.direct_passthrough  # so that none reads it to its end by mistake
        response.headers["x-own"] = "1"
        return response

    house.fake.compress = "gzip"
    house.put()
    with house.serve() as client:
        for _ in range(2):
            answer = chat(client)
            assert answer.headers["x-own"] == "1"
            assert answer.headers["set-cookie"].startswith("session=")
            [vary] = answer.headers.get_list("vary")
            assert {"Origin", "Accept-Encoding", "Cookie"} <= set(vary.split(", "))
            assert answer.json()["object"] == "chat.completion"


def test_what_the_app_adds_on_origins_takes_the_place_of_ours(house: House) -> None:
    """As Flask-CORS does. Two lines would be refused by browsers."""

    @house.app.after_request
    def add(response: Response) -> Response:
        response.headers.add("Access-Control-Allow-Origin", "https://of-the-app.example")
        response.headers.add("X-Own", "1")
        response.headers.add("X-Own", "2")
        return response

    house.put(identify=lambda: None)
    with house.serve() as client:
        for answer in (chat(client), client.get("/v1/nothing")):
            allowed = answer.headers.get_list("access-control-allow-origin")
            assert allowed == ["https://of-the-app.example"]
            assert answer.headers.get_list("x-own") == ["1", "2"]


# -- the caller's body ---------------------------------------------------------------------------


def test_the_apps_limits_of_a_body_are_not_the_proxys(house: House) -> None:
    house.app.config.update(MAX_CONTENT_LENGTH=10, MAX_FORM_MEMORY_SIZE=10)
    house.app.register_blueprint(
        proxy_blueprint(house.proxy(max_body=2 << 20), identify=house.alice)
    )
    with house.serve() as client:
        content = form(wav() + b"x" * (1 << 20), model="fake-1")
        for framed in (content, iter([content])):
            client.post("/v1/audio/transcriptions", content=framed, headers=HEADERS)
        sums = [(seen.body_size, seen.sha256) for seen in house.fake.requests]
        assert sums == [(len(content), hashlib.sha256(content).hexdigest())] * 2
        json_headers = {"content-type": "application/json"}
        long = b"x" * (3 << 20)
        answer = client.post("/v1/chat/completions", content=long, headers=json_headers)
        assert_ours(answer, 413, "request_too_large")


def test_a_body_that_a_hook_has_looked_at_is_still_there(house: House) -> None:
    house.app.before_request(lambda: seen.append(request.get_data()))
    seen: list[bytes] = []
    house.put()
    content = json.dumps(CHAT).encode()
    with house.serve() as client:
        for framed in (content, iter([content])):
            answer = client.post(
                "/v1/chat/completions",
                content=framed,
                headers={"content-type": "application/json"},
            )
            assert answer.status_code == 200
        assert client.get("/v1/models").status_code == 200
    assert seen == [content, content, b""]
    assert [each.body for each in house.fake.requests] == seen


def test_a_body_that_a_hook_has_eaten_is_a_fault_that_is_named(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.app.before_request(lambda: seen.append(request.stream.read()))
    seen: list[bytes] = []
    house.put()
    with house.serve() as client:
        assert_ours(chat(client), 500, "internal_error")
    assert "a before_request function has read the call's body" in caplog.text
    assert house.fake.requests == []


def test_the_openai_client(house: House) -> None:
    def ask() -> str | None:
        header = request.authorization
        return "alice" if header is not None and header.token == "sk-app" else None

    house.put(identify=ask)
    with serve_wsgi(house.app) as url:
        options: dict[str, Any] = {"base_url": f"{url}/v1", "max_retries": 0}
        with openai.OpenAI(api_key="sk-app", **options) as client:
            answer = client.chat.completions.create(**CHAT)
            assert answer.choices[0].message.content
            chunks = list(client.chat.completions.create(**CHAT, stream=True))
            assert len(chunks) > 2
            audio = ("a.wav", b"RIFF....WAVE" * 1000)
            assert client.audio.transcriptions.create(model="fake-1", file=audio).text
            assert list(client.models.list())
        with (
            openai.OpenAI(api_key="sk-other", **options) as client,
            pytest.raises(openai.AuthenticationError, match="signed in"),
        ):
            client.chat.completions.create(**CHAT)


def test_a_decorator_that_calls_the_view_twice_is_a_fault_and_keeps_nobody_waiting() -> None:
    def twice(view: Callable[..., Any]) -> Callable[..., Any]:
        def call(**values: Any) -> Any:
            view(**values)
            return view(**values)

        return call

    fake = FakeUpstream()
    app = Flask("twice")
    proxy = AIProxy(upstream=upstream(fake), identify=from_route)
    app.register_blueprint(proxy_blueprint(proxy, identify=lambda: "alice", decorators=[twice]))
    body = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}
    with serve_wsgi(app) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=10)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert len(fake.requests) == 1
