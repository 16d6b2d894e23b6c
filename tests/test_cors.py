"""Which pages on other origins may call: through both doors, over real sockets."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from flask import Flask, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from ai_proxy_mw import (
    CORS,
    AIProxy,
    AIProxyMiddleware,
    AIProxyWSGIMiddleware,
    ConfigurationError,
)
from ai_proxy_mw._cors import DEFAULT_EXPOSE_HEADERS
from ai_proxy_mw.testing import FakeUpstream
from tests.apps.cors_flask import who
from tests.conftest import GUNICORN, IN_PROCESS
from tests.servers import free_port, gunicorn, serve_asgi, serve_process, serve_wsgi

APP = "https://app.example"
EVIL = "https://evil.example"
CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}
ONE = CORS(allow_origins=[APP])
ALL = CORS(allow_origins=["*"])


@pytest.fixture(params=[*IN_PROCESS, pytest.param("gunicorn", marks=pytest.mark.slow)])
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Serve = Callable[[AIProxy], Any]


@contextmanager
def _serving(
    door: str | Serve, fake: FakeUpstream, cors: CORS | None, **options: Any
) -> Iterator[str]:
    """By one of the doors, or by what serves a proxy in some arrangement of its own."""
    with fake.serve() as upstream:
        options = {"upstream": upstream.base_url, "anonymous": True, "cors": cors, **options}
        served: AbstractContextManager[str]
        if door == "gunicorn":
            served = _gunicorn(options)
        else:
            serve = IN_PROCESS[door] if isinstance(door, str) else door
            served = serve(_proxy(options))
        with served as url:
            yield f"{url}/v1"


def _proxy(options: dict[str, Any]) -> AIProxy:
    return AIProxy(**options) if options["anonymous"] else AIProxy(**options, identify=who)


@contextmanager
def _gunicorn(options: dict[str, Any]) -> Iterator[str]:
    cors: CORS | None = options["cors"]
    if cors is not None:
        told = {field.name: getattr(cors, field.name) for field in fields(cors) if field.init}
        options = {**options, "cors": told}
    command = gunicorn("tests.apps.cors_flask:make_app()", *GUNICORN["gunicorn-gthread"])
    with serve_process(command, {"PROXY_OPTIONS": json.dumps(options)}) as process:
        yield process.url


def _preflight(url: str, origin: str = APP, method: str = "POST", **more: str) -> httpx.Response:
    asked = {f"access-control-request-{k.replace('_', '-')}": v for k, v in more.items()}
    headers = {"origin": origin, "access-control-request-method": method, **asked}
    return httpx.options(f"{url}/chat/completions", headers=headers)


def _get(url: str, origin: str | None = APP) -> httpx.Response:
    return httpx.get(f"{url}/models", headers={} if origin is None else {"origin": origin})


def _allowed(answer: httpx.Response) -> list[str]:
    """What the answer says of the origin; more than one line would be refused by browsers."""
    return answer.headers.get_list("access-control-allow-origin")


def _vary(answer: httpx.Response) -> set[str]:
    return {name.strip().lower() for name in answer.headers.get("vary", "").split(",") if name}


def _corsy(answer: httpx.Response) -> list[str]:
    return [name for name in answer.headers if name.startswith("access-control-")]


def test_without_cors_nothing_is_said(door: str, fake: FakeUpstream) -> None:
    with _serving(door, fake, None) as url:
        answers = [_get(url), _preflight(url)]
    assert [answer.status_code for answer in answers] == [200, 204]
    for answer in answers:
        assert _corsy(answer) == []
        assert _vary(answer) == set()
    assert answers[1].headers["allow"] == "GET, HEAD, OPTIONS, POST"  # an OPTIONS like any other


def test_a_listed_origin_may_call_and_read(door: str, fake: FakeUpstream) -> None:
    with _serving(door, fake, ONE) as url:
        answer = _get(url)
        stranger = _get(url, EVIL)
        nobody = _get(url, None)
        again = _get(url)
    assert _allowed(answer) == _allowed(again) == [APP]
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "retry-after", "x-ratelimit-remaining-tokens"} < set(exposed)
    assert "access-control-allow-credentials" not in answer.headers
    for refused in (stranger, nobody):
        # The call itself is not refused: whether the page may read it is the browser's to say.
        assert refused.status_code == 200
        assert _corsy(refused) == []
    assert [_vary(each) for each in (answer, stranger, nobody)] == [{"origin"}] * 3


def test_every_origin_may_call(door: str, fake: FakeUpstream) -> None:
    """The answer is the same for all, so that a cache keeps one, also from who has no origin."""
    with _serving(door, fake, ALL) as url:
        for origin in (APP, EVIL, "null", None):
            answer = _get(url, origin)
            assert _allowed(answer) == ["*"]
            assert _vary(answer) == set()
            assert "access-control-allow-credentials" not in answer.headers
        answer = _preflight(url, EVIL)
    assert answer.status_code == 204
    assert _allowed(answer) == ["*"]
    assert "origin" not in _vary(answer)


def test_credentials_name_the_origin(door: str, fake: FakeUpstream) -> None:
    cors = CORS(allow_origins=[APP, "http://localhost:3000"], allow_credentials=True)
    with _serving(door, fake, cors) as url:
        for origin in (APP, "http://localhost:3000"):
            for answer in (_get(url, origin), _preflight(url, origin)):
                assert _allowed(answer) == [origin]
                assert answer.headers["access-control-allow-credentials"] == "true"
                assert "origin" in _vary(answer)
        stranger = _get(url, EVIL)
    assert _corsy(stranger) == []
    assert _vary(stranger) == {"origin"}


def test_origins_by_pattern_match_as_a_whole(door: str, fake: FakeUpstream) -> None:
    cors = CORS(allow_origins=[APP], allow_origin_regex=r"https://[a-z]+\.shop\.example|.*l")
    with _serving(door, fake, cors) as url:
        for origin in (APP, "https://blue.shop.example"):
            answer = _get(url, origin)
            assert _allowed(answer) == [origin]
            assert _vary(answer) == {"origin"}
            assert _allowed(_preflight(url, origin)) == [origin]
        for origin in (
            "https://blue.shop.example.evil.example",
            "http://blue.shop.example",
            "https://blue.shop.example:444",
            "xhttps://blue.shop.example",
            "https://APP.example",
            "null",  # the pattern would match it
            "a l",
            "",
        ):
            assert _corsy(_get(url, origin)) == []
            refused = _preflight(url, origin)
            assert refused.status_code == 400
            assert _corsy(refused) == []


def test_null_only_where_it_is_written(door: str, fake: FakeUpstream) -> None:
    with _serving(door, fake, CORS(allow_origins=["null"])) as url:
        assert _allowed(_get(url, "null")) == ["null"]
        assert _allowed(_get(url)) == []


def test_two_origins_are_none(door: str, fake: FakeUpstream) -> None:
    with _serving(door, fake, ONE) as url:
        lines = [("origin", APP), ("origin", APP)]
        assert _corsy(httpx.get(f"{url}/models", headers=lines)) == []
        asks = [*lines, ("access-control-request-method", "GET")]
        assert httpx.options(f"{url}/models", headers=asks).status_code == 400


def test_a_preflight_is_answered_before_anybody_is_asked(door: str, fake: FakeUpstream) -> None:
    wanted = "Authorization, content-type,x-stainless-os,X-Stainless-Lang, openai-beta,user-agent"
    with _serving(door, fake, ONE, anonymous=False) as url:
        answer = _preflight(url, headers=wanted)
        bare = _preflight(url, method="GET")
        named = httpx.options(
            f"{url}/nothing/here",
            headers={
                "origin": APP,
                "access-control-request-method": "HEAD",
                "x-request-id": "mine",
            },
        )
    assert answer.status_code == 204
    assert answer.content == b""
    assert _allowed(answer) == [APP]
    assert answer.headers["access-control-allow-methods"] == "GET, POST, DELETE"
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["access-control-allow-headers"] == (
        "authorization, content-type, x-stainless-os, x-stainless-lang, openai-beta, user-agent"
    )
    assert "access-control-expose-headers" not in answer.headers
    assert answer.headers["x-request-id"].startswith("req_")
    assert _vary(answer) == {
        "origin",
        "access-control-request-method",
        "access-control-request-headers",
        "access-control-request-private-network",
    }
    assert "access-control-allow-headers" not in bare.headers
    # Also where there is nothing: the page shall be able to read the 404.
    assert (named.status_code, named.headers["x-request-id"]) == (204, "mine")
    assert fake.requests == []


@pytest.mark.parametrize(
    ("asks", "param"),
    [
        ({"origin": EVIL}, "Origin"),
        ({"origin": f"{APP}/"}, "Origin"),
        ({"method": "PUT"}, "Access-Control-Request-Method"),
        ({"method": "post"}, "Access-Control-Request-Method"),
        ({"headers": "x-evil"}, "Access-Control-Request-Headers"),
        ({"headers": "content-type, x-evil"}, "Access-Control-Request-Headers"),
        ({"headers": "x-stainless"}, "Access-Control-Request-Headers"),
        ({"headers": "x-stainless-a b"}, "Access-Control-Request-Headers"),
        ({"private_network": "true"}, "Access-Control-Request-Private-Network"),
    ],
)
def test_a_preflight_that_asks_too_much_is_refused(
    door: str, fake: FakeUpstream, asks: dict[str, str], param: str
) -> None:
    with _serving(door, fake, ONE) as url:
        answer = _preflight(url, **asks)
    assert answer.status_code == 400
    assert _corsy(answer) == []
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert answer.headers["x-request-id"]
    assert {"origin", "access-control-request-headers"} < _vary(answer)


def test_all_methods_and_headers(door: str, fake: FakeUpstream) -> None:
    cors = CORS(allow_origins=[APP], allow_methods=["*"], allow_headers=["*"], max_age=0)
    with _serving(door, fake, cors) as url:
        for method in ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"):
            answer = _preflight(url, method=method, headers="X-Anything, authorization")
            assert answer.status_code == 204
            assert method in answer.headers["access-control-allow-methods"].split(", ")
            # Written out: a bare * would not stand for `authorization`.
            assert answer.headers["access-control-allow-headers"] == "x-anything, authorization"
            assert answer.headers["access-control-max-age"] == "0"
        assert _preflight(url, method="BREW").status_code == 400
        assert _preflight(url, headers='x"y').status_code == 400


def test_get_is_not_given_with_post(door: str, fake: FakeUpstream) -> None:
    cors = CORS(allow_origins=[APP], allow_methods=["POST"], expose_headers=[], allow_headers=[])
    with _serving(door, fake, cors) as url:
        statuses = [_preflight(url, method=each).status_code for each in ("POST", "GET", "HEAD")]
        assert "access-control-expose-headers" not in _get(url).headers
        assert _preflight(url, headers="content-type").status_code == 400
    assert statuses == [204, 400, 400]


def test_a_private_network_is_opened_where_it_is_said(door: str, fake: FakeUpstream) -> None:
    cors = CORS(allow_origins=[APP], allow_private_network=True)
    with _serving(door, fake, cors) as url:
        asked = _preflight(url, private_network="true")
        unasked = _preflight(url)
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-private-network"] == "true"
    assert "access-control-allow-private-network" not in unasked.headers


def test_an_options_that_is_no_preflight_is_answered_as_ever(door: str, fake: FakeUpstream) -> None:
    asks = {"access-control-request-method": "POST"}
    with _serving(door, fake, ONE) as url:
        for headers in ({}, {"origin": APP}, asks):
            answer = httpx.options(f"{url}/models", headers=headers)
            assert answer.status_code == 204
            assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
            assert _allowed(answer) == ([APP] if headers.get("origin") else [])
            assert _vary(answer) == {"origin"}


def test_only_an_options_is_a_preflight(door: str, fake: FakeUpstream) -> None:
    with _serving(door, fake, ONE) as url:
        headers = {"origin": APP, "access-control-request-method": "POST"}
        answer = httpx.get(f"{url}/models", headers=headers)
    assert answer.json()["object"] == "list"


def test_by_environment_in_a_process_of_its_own(fake: FakeUpstream) -> None:
    with fake.serve() as upstream:
        env = {
            "AI_PROXY_UPSTREAM": upstream.base_url,
            "AI_PROXY_API_KEYS": "page=sk-page",
            "AI_PROXY_CORS_ORIGINS": f"{APP},http://localhost:3000",
        }
        command = gunicorn("tests.apps.flask_app:app", *GUNICORN["gunicorn-gthread"])
        with serve_process(command, env) as process:
            url = f"{process.url}/v1"
            refused = _get(url, "http://localhost:3000")
            answer = httpx.get(
                f"{url}/models", headers={"origin": APP, "authorization": "Bearer sk-page"}
            )
            preflight = _preflight(url, headers="authorization")
            too_much = _preflight(url, EVIL)
    assert (refused.status_code, _allowed(refused)) == (401, ["http://localhost:3000"])
    assert (answer.status_code, _allowed(answer)) == (200, [APP])
    assert (preflight.status_code, _allowed(preflight)) == (204, [APP])
    assert (too_much.status_code, _allowed(too_much)) == (400, [])


def test_every_answer_can_be_read(door: str, fake: FakeUpstream) -> None:
    """Errors most of all: without the headers a page sees nothing but `Failed to fetch`."""
    cors = CORS(allow_origins=[APP], allow_credentials=True)
    options = {"anonymous": False, "max_body": 10_000}
    found: dict[int, httpx.Response] = {}
    with (
        _serving(door, fake, cors, **options) as url,
        httpx.Client(base_url=url, headers={"origin": APP}) as client,
    ):

        def call(method: str, path: str, user: str = "alice", **more: Any) -> None:
            cookies = {"cookie": f"user={user}"} if user else {}
            answer = client.request(method, f"{url}/{path}", headers=cookies, **more)
            found[answer.status_code] = answer

        call("POST", "chat/completions", json=CHAT)
        call("GET", "models", user="")
        call("GET", "nothing/here")
        call("PUT", "models")
        large = {"file": ("a.bin", b"x" * 10_001)}
        call("POST", "files", data={"purpose": "batch"}, files=large)
        call("GET", "models", user="broken")
        fake.fail(429, message="Slow down.", headers={"retry-after": "7"})
        call("POST", "chat/completions", json=CHAT)
        fake.disconnect(after="request")
        call("POST", "chat/completions", json=CHAT)
    assert sorted(found) == [200, 401, 404, 405, 413, 429, 500, 502]
    for answer in found.values():
        assert _allowed(answer) == [APP]
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert _vary(answer) == {"origin"}
        assert answer.json()
    assert found[429].headers["retry-after"] == "7"


def test_a_stream_can_be_read_and_one_to_an_unreachable_upstream(
    door: str, fake: FakeUpstream
) -> None:
    headers = {"origin": APP}
    with (
        _serving(door, fake, ONE) as url,
        fake.hold() as gate,
        httpx.stream(
            "POST", f"{url}/chat/completions", json={**CHAT, "stream": True}, headers=headers
        ) as answer,
    ):
        assert _allowed(answer) == [APP]  # before the first event has come
        gate.open()
        assert "data: [DONE]" in "".join(answer.iter_text())
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    with _serving(door, fake, ONE, upstream=nowhere) as url:
        refused = _get(url)
    assert (refused.status_code, _allowed(refused)) == (502, [APP])


def test_the_upstreams_own_words_on_origins_stay_behind(door: str, fake: FakeUpstream) -> None:
    with _serving(door, fake, ONE) as url:
        own = {"access-control-allow-origin": "*", "access-control-allow-credentials": "true"}
        fake.fail(400, headers=own, times=2)
        assert _allowed(_get(url)) == [APP]
        assert _corsy(_get(url, EVIL)) == []


# -- beside the app's own ------------------------------------------------------------------------


def _in_starlette(order: str) -> Serve:
    def serve(proxy: AIProxy) -> Any:
        app = FastAPI()
        own: dict[str, Any] = {
            "allow_origins": [APP],
            "allow_credentials": True,
            "allow_headers": ["authorization"],
            "expose_headers": ["x-request-id"],
            "allow_methods": ["POST"],
        }
        if order == "the app's around ours":
            app.add_middleware(AIProxyMiddleware, proxy=proxy)
            app.add_middleware(CORSMiddleware, **own)
        else:
            app.add_middleware(CORSMiddleware, **own)
            app.add_middleware(AIProxyMiddleware, proxy=proxy)
        return serve_asgi(app)

    return serve


@pytest.mark.parametrize("status", [200, 502])
def test_starlettes_own_around_us_covers_errors_too(fake: FakeUpstream, status: int) -> None:
    """Documented: with the app's CORS around the proxy, leave `cors=` out."""
    with _serving(_in_starlette("the app's around ours"), fake, None) as url:
        if status == 502:
            fake.disconnect(after="request")
        answer = httpx.post(f"{url}/chat/completions", json=CHAT, headers={"origin": APP})
        preflight = _preflight(url, headers="authorization")
    assert answer.status_code == status
    assert _allowed(answer) == [APP]
    assert answer.headers.get_list("access-control-expose-headers") == ["x-request-id"]
    assert preflight.status_code == 200  # Starlette's
    assert _allowed(preflight) == [APP]


def test_starlettes_own_around_ours_doubles_nothing(fake: FakeUpstream) -> None:
    """Documented: it replaces ours, header by header."""
    cors = CORS(allow_origins=[APP, EVIL], allow_credentials=True)
    with _serving(_in_starlette("the app's around ours"), fake, cors) as url:
        answer = _get(url)
    for name in _corsy(answer):
        assert len(answer.headers.get_list(name)) == 1, name
    assert _allowed(answer) == [APP]
    assert answer.headers["access-control-expose-headers"] == "x-request-id"
    assert _vary(answer) == {"origin"}


def test_ours_around_starlettes_own_answers_for_the_proxy_alone(fake: FakeUpstream) -> None:
    """Documented: what was added last is outside; the two never see the same answer."""
    with _serving(_in_starlette("ours around the app's"), fake, ONE) as url:
        answer = _get(url)
        preflight = _preflight(url)
        app = httpx.get(url.removesuffix("/v1"), headers={"origin": APP})
    assert _allowed(answer) == [APP]
    assert "access-control-allow-credentials" not in answer.headers
    assert preflight.status_code == 204
    assert app.headers["access-control-allow-credentials"] == "true"


def test_compression_around_us_keeps_vary(fake: FakeUpstream) -> None:
    def serve(proxy: AIProxy) -> Any:
        return serve_asgi(GZipMiddleware(AIProxyMiddleware(proxy=proxy), minimum_size=1))

    with (
        _serving(serve, fake, ONE) as url,
        httpx.stream("GET", f"{url}/models", headers={"origin": APP}) as answer,
    ):
        assert json.loads(gzip.decompress(b"".join(answer.iter_raw())))
    assert _vary(answer) == {"origin", "accept-encoding"}


def test_a_flask_extension_never_sees_the_proxys_answers(fake: FakeUpstream) -> None:
    """Documented: the proxy stands around the app, and so around what `after_request` adds."""

    def serve(proxy: AIProxy) -> Any:
        app = Flask("house")

        @app.after_request
        def add(response: Response) -> Response:
            response.headers.add("Access-Control-Allow-Origin", "https://of-the-app.example")
            return response

        app.wsgi_app = AIProxyWSGIMiddleware(app.wsgi_app, proxy=proxy)  # type: ignore[method-assign]
        return serve_wsgi(app)

    with _serving(serve, fake, ONE) as url:
        answer = _get(url)
        app = httpx.get(url.removesuffix("/v1"))
    assert _allowed(answer) == [APP]
    assert _allowed(app) == ["https://of-the-app.example"]


@pytest.mark.parametrize(("cors", "lines"), [(None, ["*"]), (ALL, ["*", "*"])])
def test_what_adds_lines_around_us_must_be_the_only_one(
    fake: FakeUpstream, cors: CORS | None, lines: list[str]
) -> None:
    """Documented: a wrapper that adds its lines unseen comes after us, and nobody can undo it."""

    def serve(proxy: AIProxy) -> Any:
        inner = AIProxyWSGIMiddleware(proxy=proxy)

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            def start(status: str, headers: list[tuple[str, str]]) -> Any:
                return start_response(status, [*headers, ("Access-Control-Allow-Origin", "*")])

            return inner(environ, start)

        return serve_wsgi(app)

    with _serving(serve, fake, cors) as url:
        assert _allowed(_get(url)) == lines


# -- construction --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "http://localhost:3000",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "https://xn--bcher-kva.example",
        "capacitor://localhost",
        "chrome-extension://abcdefghijklmnop",
        "https://app.example:80",
        "null",
        "*",
    ],
)
def test_an_origin_as_browsers_send_it_is_taken(origin: str) -> None:
    assert CORS(allow_origins=[origin]).allow_origins == (origin,)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "nobody could call"),
    ({"allow_origins": []}, "nobody could call"),
    ({"allow_origins": APP}, "write a list"),
    ({"allow_origins": None}, "write a list"),
    ({"allow_origins": [1]}, "write a list"),
    ({"allow_origins": [""]}, "as browsers send it"),
    ({"allow_origins": ["app.example"]}, "as browsers send it"),
    ({"allow_origins": [f"{APP}/"]}, "as browsers send it"),
    ({"allow_origins": [f"{APP}/path"]}, "as browsers send it"),
    ({"allow_origins": [f"{APP}?a=b"]}, "as browsers send it"),
    ({"allow_origins": ["https://user@app.example"]}, "as browsers send it"),
    ({"allow_origins": ["https://App.example"]}, "small letters"),
    ({"allow_origins": ["https://bücher.example"]}, "as browsers send it"),
    ({"allow_origins": ["https://app.example:"]}, "as browsers send it"),
    ({"allow_origins": ["https://app.example\r\nx: y"]}, "as browsers send it"),
    ({"allow_origins": ["https://app.example:443"]}, "leave :443 out"),
    ({"allow_origins": ["http://app.example:80"]}, "leave :80 out"),
    ({"allow_origins": ["https://*.app.example"]}, "use allow_origin_regex="),
    ({"allow_origins": ["*", APP]}, "write it alone"),
    ({"allow_origins": ["*"], "allow_origin_regex": "a"}, "write it alone"),
    ({"allow_origins": ["*"], "allow_credentials": True}, "list the origins"),
    ({"allow_origin_regex": "("}, "write a regular expression"),
    ({"allow_origin_regex": 7}, "write a regular expression"),
    ({"allow_origin_regex": rb"https://.*"}, "write a regular expression"),
    ({"allow_origin_regex": ""}, "nobody could call"),
    ({"allow_methods": ["post"]}, "in capitals"),
    ({"allow_methods": "GET"}, "write a list"),
    ({"allow_headers": ["a b"]}, "header's name"),
    ({"allow_headers": ["x-*-y"]}, "header's name"),
    ({"allow_headers": [""]}, "header's name"),
    ({"expose_headers": ["x-ratelimit-*"]}, "whole name"),
    ({"expose_headers": ["*"], "allow_credentials": True}, "whole name"),
    ({"allow_credentials": "yes"}, "True or False"),
    ({"allow_private_network": 1}, "True or False"),
    ({"max_age": -1}, "whole seconds"),
    ({"max_age": 1.5}, "whole seconds"),
    ({"max_age": True}, "whole seconds"),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG)
def test_a_wrong_argument_says_what_to_write(arguments: dict[str, Any], says: str) -> None:
    if arguments and not any(name.startswith("allow_origin") for name in arguments):
        arguments = {"allow_origins": [APP], **arguments}
    with pytest.raises(ConfigurationError, match=says) as caught:
        CORS(**arguments)
    assert str(caught.value).startswith("CORS(")


def test_a_value_is_frozen_and_compares() -> None:
    origins = [APP]
    cors = CORS(allow_origins=origins, expose_headers=["*"])
    origins.append(EVIL)
    assert cors.allow_origins == (APP,)
    assert cors == CORS(allow_origins=(APP,), expose_headers=("*",))
    assert hash(cors) == hash(CORS(allow_origins=(APP,), expose_headers=("*",)))
    with pytest.raises(AttributeError):
        cors.max_age = 7  # type: ignore[misc]
    assert "*" not in "".join(DEFAULT_EXPOSE_HEADERS)
