"""flask_identify: who is calling, asked in a request context of the app before the app."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from flask import (
    Flask,
    Response,
    abort,
    current_app,
    g,
    has_app_context,
    has_request_context,
    make_response,
    redirect,
    request,
    session,
)
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import HTTPException, TooManyRequests
from werkzeug.test import Client

import ai_proxy_mw
from ai_proxy_mw import AIProxy, AIProxyWSGIMiddleware, ConfigurationError, Forbidden, Identity
from ai_proxy_mw.contrib.flask import flask_identify
from ai_proxy_mw.contrib.flask._asking import Ask
from ai_proxy_mw.testing import FakeUpstream
from tests.reuse.cell import PAGE, Recorder, cors, upstream
from tests.servers import gunicorn, serve_process, serve_wsgi

CHAT: dict[str, Any] = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}


def alice() -> str:
    return "alice"


class House:
    """A Flask app with the proxy before it; hooks may be added until it is served."""

    def __init__(self) -> None:
        self.app = Flask("house")
        self.app.secret_key = "a secret of the tests"
        self.fake = FakeUpstream()
        self.recorder = Recorder()

    def build(self, ask: Ask = alice) -> Flask:
        proxy = AIProxy(
            upstream=upstream(self.fake), identify=flask_identify(self.app, ask), cors=cors()
        )
        self.app.wsgi_app = AIProxyWSGIMiddleware(  # type: ignore[method-assign]
            self.app.wsgi_app, proxy=self.recorder.watch(proxy)
        )
        return self.app

    @contextmanager
    def serve(self, ask: Ask = alice) -> Iterator[httpx.Client]:
        with (
            serve_wsgi(self.build(ask)) as url,
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
    assert answer.headers["content-type"] == "application/json"
    assert_around(answer)


def assert_around(answer: httpx.Response) -> None:
    """What the corridor puts around every answer, once."""
    assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert len(answer.headers.get_list("content-length")) == 1


# -- what the app's code sees --------------------------------------------------------------------


def test_hooks_see_the_call_without_its_body(house: House) -> None:
    seen: list[Any] = []

    @house.app.url_value_preprocessor
    def note(endpoint: str | None, values: dict[str, Any] | None) -> None:
        seen.append((endpoint, values))

    @house.app.before_request
    def look() -> None:
        seen.append((request.method, request.path, request.headers["x-own"]))
        seen.append((request.get_data(), request.content_length, request.content_type))
        seen.append((request.environ["wsgi.input"].read(), dict(request.form)))
        request.environ["REQUEST_METHOD"] = "DELETE"
        request.environ["HTTP_X_OWN"] = "changed"

    spaced = json.dumps(CHAT).encode()
    tight = json.dumps(CHAT, separators=(",", ":")).encode()
    with house.serve() as client:
        for content in (spaced, iter([tight])):
            client.post(
                "/v1/chat/completions",
                content=content,
                headers={"x-own": "1", "content-type": "application/json"},
            )
    once: list[Any] = [
        (None, None),
        ("POST", "/v1/chat/completions", "1"),
        (b"", None, None),
        (b"", {}),
    ]
    assert seen == once * 2
    bodies = [(each.method, each.body) for each in house.fake.requests]
    assert bodies == [("POST", spaced), ("POST", tight)]


def test_nothing_of_another_request_is_in_the_environ(house: House) -> None:
    house.app.before_request(lambda: names.extend(request.environ))
    names: list[str] = []
    with house.serve() as client:
        assert chat(client).status_code == 200
    left = {name for name in names if name.startswith(("werkzeug.", "flask."))}
    assert left == {"werkzeug.request"}  # its own


def test_session_and_g_are_there(house: House) -> None:
    @house.app.before_request
    def load() -> None:
        g.user = session.get("user")
        session["seen"] = True  # is not saved

    @house.app.post("/login")
    def login() -> str:
        session["user"] = "alice"
        return "welcome"

    with house.serve(lambda: Identity(g.user, tags={"app": current_app.name})) as client:
        client.post("/login")
        answer = client.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "call-1"})
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
    assert house.recorder.subjects == {"call-1": "alice"}


def test_a_function_may_be_async(house: House) -> None:
    async def ask() -> str | None:
        await asyncio.sleep(0)
        return request.headers.get("x-user")

    with house.serve(ask) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"x-user": "alice"}).status_code == 200


def test_inside_the_same_request_nothing_is_opened_anew(house: House) -> None:
    """Where a view gives the middleware as its answer, which is a WSGI app."""
    opened: list[str] = []
    house.app.before_request(lambda: opened.append(request.path))
    proxy = AIProxy(
        upstream=upstream(house.fake), identify=flask_identify(house.app, lambda: g.user)
    )

    @house.app.get("/v1/models")
    def models() -> Any:
        g.user = "alice"
        return AIProxyWSGIMiddleware(proxy=proxy)

    answer = house.app.test_client().get("/v1/models")
    assert answer.status_code == 200
    assert opened == ["/v1/models"]


def test_a_context_that_a_thread_has_open_is_not_shared(house: House) -> None:
    """Flask-Login keeps the user in `g`: it must not be that of another call."""
    house.build(lambda: g.setdefault("user", request.headers["x-user"]))
    with house.app.app_context():
        for user in ("alice", "bob"):
            answer = Client(house.app).get(
                "/v1/models", headers={"x-user": user, "x-request-id": user}
            )
            assert answer.status_code == 200
        assert "user" not in g
    assert house.recorder.subjects == {"alice": "alice", "bob": "bob"}


def test_no_context_is_left_behind(house: House) -> None:
    class Broken(type(house.app.session_interface)):  # type: ignore[misc]
        def open_session(self, app: Flask, request: Any) -> Any:
            raise RuntimeError("the store of the sessions is down")

    house.build()
    house.app.session_interface = Broken()
    answer = Client(house.app).get("/v1/models")
    assert answer.status_code == 500
    assert not has_request_context()
    assert not has_app_context()


# -- what it means -------------------------------------------------------------------------------


def test_an_answer_of_a_hook_is_passed_on_as_it_is(house: House) -> None:
    @house.app.before_request
    def maintenance() -> Response:
        page = make_response("<h1>Back soon: grüß Gott</h1>", 503)
        page.headers.extend(
            {"Retry-After": "60", "Connection": "close, X-Hop", "X-Hop": "1", "X-Own": "kept"}
        )
        page.headers["Access-Control-Allow-Origin"] = "*"
        page.set_cookie("a", "1")
        page.set_cookie("b", "2")
        return page

    with house.serve() as client:
        for method in ("GET", "HEAD"):
            answer = client.request(method, "/v1/models")
            body = "<h1>Back soon: grüß Gott</h1>".encode()
            assert (answer.status_code, answer.content) == (503, body if method == "GET" else b"")
            assert answer.headers["content-length"] == str(len(body))
            assert answer.headers.get_list("content-type") == ["text/html; charset=utf-8"]
            assert (answer.headers["retry-after"], answer.headers["x-own"]) == ("60", "kept")
            cookies = answer.headers.get_list("set-cookie")
            assert [cookie.partition(";")[0] for cookie in cookies] == ["a=1", "b=2"]
            assert "x-hop" not in answer.headers
            assert_around(answer)
        # What is not behind the hooks is answered before them.
        assert client.get("/v1/nowhere").status_code == 404
    assert house.fake.requests == []


@pytest.mark.parametrize("value", ["the page of the login", redirect("/login"), ("", 204)])
def test_any_other_answer_means_not_signed_in(house: House, value: Any) -> None:
    house.app.before_request(lambda: value)
    with house.serve() as client:
        answer = chat(client)
        assert_ours(answer, 401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "location" not in answer.headers


def test_an_endless_answer_is_not_held(house: House) -> None:
    closed: list[bool] = []

    def pages() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 4096
        finally:
            closed.append(True)

    house.app.before_request(lambda: Response(pages(), 429))
    with house.serve() as client:
        assert_ours(chat(client), 429, "refused")
    assert closed == [True]


def answered(status: int) -> Callable[[], None]:
    return lambda: abort(make_response({"own": "shape"}, status))


class Nameless(HTTPException):
    """Without a status: a fault of the app."""


@pytest.mark.parametrize("place", ["hook", "function"])
def test_http_exceptions_are_told(house: House, place: str) -> None:
    raising: list[Callable[[], Any]] = []

    def fail() -> None:
        raising[-1]()

    if place == "hook":
        house.app.before_request(fail)
    with house.serve(alice if place == "hook" else fail) as client:

        def after(function: Callable[[], Any]) -> httpx.Response:
            raising.append(function)
            return chat(client)

        answer = after(lambda: abort(403, "Not for <trainees>."))
        assert_ours(answer, 403, "forbidden")
        assert answer.json()["error"]["message"] == "Not for <trainees>."

        answer = after(lambda: abort(401))
        assert_ours(answer, 401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"

        answer = after(lambda: abort(401, www_authenticate=WWWAuthenticate("session")))
        assert answer.headers.get_list("www-authenticate") == ["Session"]

        def too_many() -> None:
            raise TooManyRequests(retry_after=7)

        answer = after(too_many)
        assert_ours(answer, 429, "refused")
        assert answer.headers["retry-after"] == "7"

        assert_ours(after(lambda: abort(400, {"not": "text"})), 400, "refused")
        assert_ours(after(lambda: abort(redirect("/login"))), 401, "invalid_api_key")
        assert_ours(after(lambda: abort(500)), 500, "internal_error")

        answer = after(answered(402))
        assert (answer.status_code, answer.json()) == (402, {"own": "shape"})
        assert_around(answer)

        def forbid() -> None:
            raise Forbidden("Not you.")

        assert_ours(after(forbid), 403, "forbidden")

        def nameless() -> None:
            raise Nameless("unfinished")

        answer = after(nameless)
        assert_ours(answer, 500, "internal_error")
        assert "unfinished" not in answer.text
    assert house.fake.requests == []


def test_a_redirect_that_is_raised_means_not_signed_in(house: House) -> None:
    from werkzeug.routing import RequestRedirect

    def away() -> None:
        raise RequestRedirect("https://login.example")

    with house.serve(away) as client:
        assert_ours(chat(client), 401, "invalid_api_key")


def test_teardown_runs_and_is_told_of_faults_only(house: House) -> None:
    told: list[tuple[str, str, BaseException | None]] = []
    refusals: list[Callable[[], Any]] = [alice, lambda: None, lambda: abort(403)]

    @house.app.teardown_request
    def request_over(error: BaseException | None) -> None:
        told.append(("request", request.path, error))

    @house.app.teardown_appcontext
    def app_over(error: BaseException | None) -> None:
        told.append(("app", current_app.name, error))

    fault = RuntimeError("boom")

    def fail() -> str:
        raise fault

    asks = iter([*refusals, fail])

    def ask() -> Any:
        return next(asks)()

    with house.serve(ask) as client:
        for status in (200, 401, 403, 500):
            assert client.get("/v1/models").status_code == status
    quiet = [("request", "/v1/models", None), ("app", "house", None)]
    assert told == quiet * 3 + [("request", "/v1/models", fault), ("app", "house", fault)]


def test_a_host_that_is_not_trusted_is_refused(house: House) -> None:
    house.app.config["TRUSTED_HOSTS"] = ["127.0.0.1"]
    with house.serve() as client:
        assert client.get("/v1/models").status_code == 200
        refused = client.get("/v1/models", headers={"host": "evil.example"})
        assert_ours(refused, 400, "refused")


# -- how it is put up ----------------------------------------------------------------------------


def test_what_is_no_function_is_refused(house: House) -> None:
    with pytest.raises(ConfigurationError, match="without arguments"):
        flask_identify(house.app, "alice")  # type: ignore[arg-type]


def test_an_asgi_call_is_a_mistake_that_is_named(house: House) -> None:
    ask: Any = flask_identify(house.app, alice)
    body: Any = None
    call = ai_proxy_mw.Request(
        method="GET",
        path="/models",
        query=b"",
        headers=[],
        body=body,
        client=None,
        request_id="1",
        run_sync=body,
        scope={},
    )
    with pytest.raises(RuntimeError, match="AIProxyWSGIMiddleware"):
        ask(call)


def test_without_flask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("ai_proxy_mw.contrib.flask")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flask", None)
    with pytest.raises(ImportError, match=r"pip install 'ai_proxy_mw\[flask\]'"):
        importlib.import_module("ai_proxy_mw.contrib.flask")


@pytest.mark.slow
@pytest.mark.parametrize("mount", ["/before/v1", "/inside/v1"])
@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_behind_gunicorn(worker: str, mount: str, fake: FakeUpstream) -> None:
    with fake.serve() as direct:
        env = {"AI_PROXY_UPSTREAM": direct.base_url, "PAGE_ORIGIN": PAGE}
        threads = ["--threads", "4"] if worker == "gthread" else []
        command = gunicorn("tests.apps.flask_users_app:app", "-k", worker, *threads)
        with (
            serve_process(command, env) as process,
            httpx.Client(base_url=process.url, timeout=20) as client,
        ):
            url = f"{mount}/chat/completions"
            refused = client.post(url, json=CHAT, headers={"origin": PAGE})
            assert_ours(refused, 401, "invalid_api_key")
            assert client.post("/login", params={"user": "alice"}).status_code == 200
            assert client.post(url, json=CHAT).status_code == 200
            with (
                fake.hold() as gate,
                client.stream("POST", url, json=CHAT | {"stream": True}) as answer,
            ):
                pieces = answer.iter_raw()
                gate.release()
                assert next(pieces).startswith(b"data: {")
                assert fake.requests[-1].chunks_sent == 1
                gate.open()
                assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
            assert "Traceback" not in process.log
