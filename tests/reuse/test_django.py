"""Django's view and middleware, under WSGI and ASGI, over a real socket."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import connection, connections
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path, re_path

from ai_proxy_mw import AIProxy, Forbidden, Identity, Response, from_route
from ai_proxy_mw._identify import AppAnswer
from ai_proxy_mw.contrib.django import proxy_urls, proxy_view, user_id
from ai_proxy_mw.testing import FakeUpstream
from tests.forms import HEADERS, form
from tests.reuse import django_site
from tests.reuse.cell import PAGE, Recorder, cors, upstream
from tests.wire import read_until

CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "Grüße 👋"}]}
STREAM = {**CHAT, "stream": True}
FILE = ("clip.wav", b"RIFF....WAVE" * 1000, "audio/wav")


def anybody(request: HttpRequest) -> str:
    return "anybody"


@dataclass
class Site:
    """A site with the proxy at /v1, by one of the forms."""

    form: str
    door: str
    url: str
    fake: FakeUpstream
    subjects: dict[str, str]

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=20, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=20, **options)


Serve = Callable[..., AbstractContextManager[Site]]


def _serve(form: str, door: str) -> Serve:
    @contextmanager
    def serve(
        identify: Any = anybody,
        urls: Any = (),
        before: Any = (),
        behind: Any = (),
        settings: Any = None,
        **options: Any,
    ) -> Iterator[Site]:
        """`before` and `behind`: middlewares around the proxy's place, besides the usual ones."""
        fake, recorder = FakeUpstream(), Recorder()
        proxy = AIProxy(upstream=upstream(fake), identify=from_route, cors=cors(), **options)
        recorder.watch(proxy)
        middleware = [*django_site.MIDDLEWARE, *before]
        urls = [path("login", django_site.login), *urls]
        settings = settings or {}
        if form == "view":
            urls = [*proxy_urls(proxy, identify=identify), *urls]
        else:
            middleware.append(django_site.PROXY)
            middleware += behind
            settings = {**settings, "AI_PROXY": {"proxy": proxy, "identify": identify}}
        with django_site.serve(door, urls, middleware, **settings) as url:
            yield Site(form, door, url, fake, recorder.subjects)

    return serve


WAYS = [(form, door) for form in ("view", "middleware") for door in ("wsgi", "asgi")]


@pytest.fixture(params=WAYS, ids="-".join)
def serve(request: pytest.FixtureRequest) -> Serve:
    """Each form under each door."""
    return _serve(*request.param)


@pytest.fixture(params=["wsgi", "asgi"])
def serve_view(request: pytest.FixtureRequest) -> Serve:
    return _serve("view", request.param)


def _connect(site: Site) -> socket.socket:
    address = urlsplit(site.url)
    assert address.hostname
    return socket.create_connection((address.hostname, address.port or 80), timeout=10)


def _call(site: Site) -> socket.socket:
    sock, body = _connect(site), json.dumps(STREAM).encode()
    sock.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: site\r\ncontent-type: application/json\r\n"
        b"accept-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    return sock


def passes_on(get_response: Any) -> Any:
    """A middleware of the old kind, for which Django makes threads under ASGI."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = get_response(request)
        return response

    return middleware


PASSES_ON = "tests.reuse.test_django.passes_on"


# -- who is calling --------------------------------------------------------------------------


def test_the_subject_is_the_primary_key_of_the_apps_user(serve: Serve) -> None:
    with serve(user_id) as site, httpx.Client(base_url=site.url, timeout=20) as client:
        assert client.get("/v1/models").status_code == 401
        client.post("/login", params={"user": "ada"})
        answer = client.get("/v1/models", headers={"x-request-id": "call-1"})
        assert answer.status_code == 200
        assert answer.headers["vary"] == "Origin, Cookie"
    assert site.subjects["call-1"] == django_site.primary_key("ada")


async def _async_name(request: HttpRequest) -> Identity | None:
    user = await request.auser()
    return Identity(user.get_username()) if user.is_authenticated else None


class _Caller:
    async def __call__(self, request: HttpRequest) -> Identity | None:
        return await _async_name(request)


def _pending(request: HttpRequest) -> Any:
    return _async_name(request)  # a plain function that hands out a coroutine


@pytest.mark.parametrize("identify", [_async_name, _Caller(), _pending])
def test_an_async_hook_may_ask_the_database(serve: Serve, identify: Any) -> None:
    with serve(identify) as site, httpx.Client(base_url=site.url, timeout=20) as client:
        assert client.get("/v1/models").status_code == 401
        client.post("/login", params={"user": "grace"})
        assert client.get("/v1/models", headers={"x-request-id": "a"}).status_code == 200
    assert site.subjects["a"] == "grace"


def _raising(error: Exception, *, is_async: bool) -> Any:
    def sync_hook(request: HttpRequest) -> str:
        raise error

    async def async_hook(request: HttpRequest) -> str:
        raise error

    return async_hook if is_async else sync_hook


@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_hook_raises_is_told_in_one_shape(serve: Serve, is_async: bool) -> None:
    told: list[tuple[Exception, int, str]] = [
        (PermissionDenied("Your plan has no AI."), 403, "Your plan has no AI."),
        (PermissionDenied(), 403, "You may not call this API."),
        (Http404("No Secret matches"), 404, "There is nothing here for you."),
        (SuspiciousOperation("secret"), 400, "The request cannot be accepted."),
        (Forbidden("Not you."), 403, "Not you."),
        (StopIteration("secret"), 500, "Something went wrong on our side."),
        (ValueError("secret"), 500, "Something went wrong on our side."),
    ]
    current: list[Exception] = []

    def sync_hook(request: HttpRequest) -> str:
        raise current[0]

    async def async_hook(request: HttpRequest) -> str:
        raise current[0]

    with serve(async_hook if is_async else sync_hook) as site:
        for error, status, message in told:
            if is_async and isinstance(error, StopIteration):
                continue  # a coroutine makes a RuntimeError of it
            current[:] = [error]
            answer = site.post("/v1/chat/completions", json=CHAT, headers={"origin": PAGE})
            assert answer.status_code == status
            assert answer.json()["error"]["message"] == message
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["content-type"] == "application/json"
    assert site.fake.requests == []


def test_a_fault_of_the_hook_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with serve(_raising(ValueError("the reason"), is_async=False)) as site:
        assert site.get("/v1/models").status_code == 500
    [record] = [record for record in caplog.records if record.name == "ai_proxy_mw"]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "the reason"


def test_nobody_is_asked_about_what_is_not_let_through_anyway(serve: Serve) -> None:
    asked: list[str] = []

    def identify(request: HttpRequest) -> str:
        asked.append(request.path)
        return "anybody"

    with serve(identify) as site:
        preflight = {"origin": PAGE, "access-control-request-method": "POST"}
        assert (
            httpx.options(f"{site.url}/v1/chat/completions", headers=preflight).status_code == 204
        )
        plain = httpx.options(f"{site.url}/v1/chat/completions")
        assert plain.status_code == 204
        assert "content-type" not in plain.headers
        assert "POST" in plain.headers["allow"]
        for unknown in (
            "",
            "/",
            "/admin",
            "//models",
            "/models/",
            "/%0amodels",
            "/a%0a",
            "/%C3%BC",
        ):
            answer = site.get(f"/v1{unknown}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
        assert httpx.put(f"{site.url}/v1/models").status_code == 405
        assert site.get("/v1x/models").headers["content-type"].startswith("text/html")
        assert asked == []
        assert site.get("/v1/models").status_code == 200
        assert asked == ["/v1/models"]


def test_without_the_apps_users_nobody_is_let_in(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(_without_user) as site:
        assert site.get("/v1/models").status_code == 500
    assert "put AuthenticationMiddleware into settings.MIDDLEWARE" in caplog.text


def _without_user(request: HttpRequest) -> str | None:
    del request.user
    return user_id(request)


# -- decorators ------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["wsgi", "asgi"])
def test_the_apps_decorators_may_stand_around_the_view(door: str) -> None:
    fake = FakeUpstream()
    proxy = AIProxy(upstream=upstream(fake), identify=from_route)
    view = login_required(proxy_view(proxy), login_url="/login")
    urls = [path("login", django_site.login), re_path(r"^ai/(?P<path>.*)$", view)]
    with django_site.serve(door, urls) as url, httpx.Client(base_url=url, timeout=20) as client:
        refused = client.post("/ai/chat/completions", json=CHAT)
        assert (refused.status_code, refused.headers["location"][:7]) == (302, "/login?")
        client.post("/login", params={"user": "ada"})
        with client.stream("POST", "/ai/chat/completions", json=STREAM) as answer:
            assert b"".join(answer.iter_bytes()).endswith(b"data: [DONE]\n\n")


def test_no_transaction_is_held(serve_view: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    seen: list[bool] = []

    def identify(request: HttpRequest) -> str:
        seen.append(connection.in_atomic_block)
        return "anybody"

    def other(request: HttpRequest) -> HttpResponse:
        seen.append(connection.in_atomic_block)
        return HttpResponse()

    with serve_view(identify, [path("other", other)]) as site:
        assert site.get("/v1/models").status_code == 200
        assert site.get("/other").status_code == 200
    assert seen == [False, True]


def test_no_connection_to_the_database_is_held(serve: Serve) -> None:
    """While an answer streams, which may take minutes."""
    used: list[Any] = []

    def identify(request: HttpRequest) -> str:
        connection.ensure_connection()
        used.append(connections["default"])  # the thread's own, which `connection` stands for
        return "anybody"

    with serve(identify) as site, site.fake.hold() as gate:
        sock = _call(site)
        gate.wait_until_held()
        assert used[0].connection is None
        sock.close()


# -- what comes back -------------------------------------------------------------------------


GZIP = "django.middleware.gzip.GZipMiddleware"


@pytest.mark.parametrize("others", [{}, {"before": [GZIP]}, {"behind": [PASSES_ON]}])
def test_the_first_piece_comes_before_the_second_is_sent(
    serve: Serve, others: dict[str, list[str]]
) -> None:
    with serve(**others) as site, site.fake.hold() as gate:
        sock = _call(site)
        gate.wait_until_held()
        gate.release()
        received = read_until(sock, b"data: ")
        gate.wait_until_held()
        assert site.fake.requests[0].chunks_sent == 1
        assert received.count(b"data: ") == 1
        gate.open()
        assert b"[DONE]" in read_until(sock, b"[DONE]")
        sock.close()


def test_header_lines_are_those_of_the_answer(serve: Serve) -> None:
    lines = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"link", b"<x>"), (b"link", b"<y>")]

    def identify(request: HttpRequest) -> str:
        raise AppAnswer(Response(402, [*lines, (b"x-one", b"1")], b"pay"))

    with serve(identify) as site:
        answer = site.get("/v1/models")
    assert answer.status_code == 402
    assert answer.content == b"pay"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert answer.headers.get_list("link") == ["<x>", "<y>"]
    assert answer.headers.get_list("vary") == ["Origin, Cookie"]  # the session's middleware adds
    assert answer.headers.get_list("x-one") == ["1"]
    assert "content-type" not in answer.headers


def test_head_is_the_head_alone(serve: Serve) -> None:
    with serve() as site:
        got = site.get("/v1/models")
        head = httpx.head(f"{site.url}/v1/models")
    assert head.status_code == got.status_code == 200
    assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content))
    assert head.content == b""


@pytest.mark.parametrize("fault", ["chunk:2", "headers"])
def test_a_stream_that_is_cut_says_so(serve: Serve, fault: str) -> None:
    with serve() as site:
        site.fake.disconnect(after=fault)
        sock = _call(site)
        received = b""
        while piece := sock.recv(65536):
            received += piece
            if received.endswith(b"\r\n0\r\n\r\n"):
                break
        sock.close()
    assert b'event: error\ndata: {"error":{' in received
    assert b"[DONE]" not in received


def test_a_download_that_breaks_off_before_its_first_piece_is_502(serve: Serve) -> None:
    with serve() as site:
        site.fake.disconnect(after="headers")
        answer = site.get("/v1/files/f-1/content")
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "upstream_disconnected"
        assert site.get("/v1/models").status_code == 200


def test_a_download_that_is_cut_is_not_ended_as_if_whole(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with serve() as site:
        site.fake.disconnect(after="chunk:3")
        sock = _connect(site)
        sock.sendall(b"GET /v1/files/f-1/content HTTP/1.1\r\nhost: site\r\n\r\n")
        received = b""
        while piece := sock.recv(65536):
            received += piece
        sock.close()
        _head, _, body = received.partition(b"\r\n\r\n")
        assert len(body) < site.fake.download_bytes
        assert b"<h1>" not in received
        assert site.get("/v1/models").status_code == 200
    assert [record for record in caplog.records if record.name == "django.request"] == [
        record for record in caplog.records if "Unknown Status Code" in record.getMessage()
    ]


def test_a_download_passes_whole(serve: Serve) -> None:
    with serve() as site:
        answer = site.get("/v1/files/f-1/content")
        assert answer.headers["content-length"] == str(site.fake.download_bytes)
        expected = hashlib.sha256(b"".join(site.fake.download())).digest()
    assert hashlib.sha256(answer.content).digest() == expected


def test_the_official_client(serve: Serve) -> None:
    with serve() as site:
        client = openai.OpenAI(base_url=f"{site.url}/v1", api_key="unused", max_retries=0)
        with client:
            messages: Any = CHAT["messages"]
            chat = client.chat.completions.create(model="fake-1", messages=messages)
            assert chat.choices[0].message.content
            stream = client.chat.completions.create(model="fake-1", messages=messages, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            assert text == chat.choices[0].message.content
            assert [model.id for model in client.models.list()]
            assert client.files.create(file=FILE, purpose="batch").bytes == len(FILE[1])
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("no-such-model")


# -- what goes up ----------------------------------------------------------------------------


def reads_body(get_response: Any) -> Any:
    """A middleware of the old kind that logs bodies."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        assert len(request.body) == int(request.META.get("CONTENT_LENGTH") or len(request.body))
        response: HttpResponseBase = get_response(request)
        return response

    return middleware


def reads_form(get_response: Any) -> Any:
    """A middleware of the old kind that looks into forms."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        assert request.POST is not None
        response: HttpResponseBase = get_response(request)
        return response

    return middleware


def _upload(size: int) -> tuple[bytes, dict[str, str]]:
    content = bytes(range(256)) * (size // 256)
    return form(content, purpose="batch"), HEADERS


@pytest.mark.parametrize("before", [[], ["tests.reuse.test_django.reads_body"]])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upload_passes_byte_for_byte(serve: Serve, framing: str, before: list[str]) -> None:
    body, headers = _upload(2_000_000)
    content: Any = body if framing == "length" else iter([body[:1000], body[1000:]])
    with serve(before=before) as site:
        answer = site.post("/v1/files", content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        [seen] = site.fake.requests
    assert seen.sha256 == hashlib.sha256(body).hexdigest()


def test_a_large_upload_passes_through_djangos_file(serve: Serve) -> None:
    body, headers = _upload(12_000_000)
    with serve() as site:
        assert site.post("/v1/files", content=body, headers=headers).status_code == 200
        [seen] = site.fake.requests
    assert seen.sha256 == hashlib.sha256(body).hexdigest()


def test_an_upload_that_a_middleware_has_read_is_refused(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    body, headers = _upload(1_000)
    with serve(before=["tests.reuse.test_django.reads_form"]) as site:
        answer = site.post("/v1/files", content=body, headers=headers)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        # What is no form is still there.
        assert site.post("/v1/chat/completions", json=CHAT).status_code == 200
        assert len(site.fake.requests) == 1
    assert "a middleware has read the caller's upload" in caplog.text


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_above_the_cap_is_413(serve: Serve, framing: str) -> None:
    body, headers = _upload(200_000)
    content: Any = body if framing == "length" else iter([body])
    with serve(max_body=100_000) as site:
        answer = site.post("/v1/files", content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


# -- leaving ---------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [{}, {"before": [PASSES_ON]}, {"behind": [PASSES_ON]}])
def test_leaving_before_the_first_byte_ends_the_upstream_call(
    serve: Serve, others: dict[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    with serve(**others) as site, site.fake.hold("headers") as gate:
        sock = _call(site)
        gate.wait_until_held()
        left = time.monotonic()
        sock.close()
        seen = site.fake.wait_for_disconnect()
        assert seen.disconnected_at is not None
        assert seen.disconnected_at - left < 1
        assert seen.chunks_sent == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("others", [{}, {"before": [PASSES_ON]}, {"behind": [PASSES_ON]}])
def test_leaving_in_mid_stream_ends_the_upstream_call(
    serve: Serve, others: dict[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    with serve(**others) as site, site.fake.hold() as gate:
        sock = _call(site)
        gate.wait_until_held()
        gate.release()
        read_until(sock, b"data: ")
        gate.wait_until_held()
        left = time.monotonic()
        sock.close()
        seen = site.fake.wait_for_disconnect()
        assert seen.disconnected_at is not None
        assert seen.disconnected_at - left < 1
        assert seen.chunks_sent == 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def fails_afterwards(get_response: Any) -> Any:
    """A middleware that has a fault, after the proxy has answered."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        get_response(request)
        raise ValueError("afterwards")

    return middleware


def test_an_answer_that_a_middleware_loses_ends_the_upstream_call(serve: Serve) -> None:
    middleware = "tests.reuse.test_django.fails_afterwards"
    with serve(before=[middleware]) as site, site.fake.hold():
        assert site.post("/v1/chat/completions", json=STREAM).status_code == 500
        assert site.fake.wait_for_disconnect().chunks_sent == 0


# -- where it lives --------------------------------------------------------------------------


def _page(request: HttpRequest, **_: str) -> HttpResponse:
    return HttpResponse("a page")


def test_the_apps_pages_are_left_alone_and_no_slash_is_appended(serve: Serve) -> None:
    """Also not where the app would take every path that ends in a slash."""
    urls = [re_path(r"^(?P<page>([\w-]+/)*)\Z", _page)]
    with serve(urls=urls, settings={"PREPEND_WWW": False}) as site:
        assert site.get("/about/").text == "a page"
        assert site.get("/about").headers["location"] == "/about/"
        for call in ("/v1/admin", "/v1"):
            answer = site.get(call)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
        assert site.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_below_a_script_name(serve: Serve) -> None:
    with serve(settings={"FORCE_SCRIPT_NAME": "/shop"}) as site:
        prefix = "" if site.door == "wsgi" else "/shop"  # the server would have taken it off
        assert site.get(f"{prefix}/v1/models").status_code == 200
        assert site.get("/shopping/v1/models").status_code == 404
    assert [seen.path for seen in site.fake.requests] == ["/v1/models"]
