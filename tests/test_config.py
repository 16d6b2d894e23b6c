"""Wrong arguments fail at construction, with a sentence that says what to write instead."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import httpx
import pytest

from ai_proxy_mw import (
    DEFAULT_ENDPOINTS,
    AIProxy,
    AIProxyMiddleware,
    AIProxyWSGIMiddleware,
    ConfigurationError,
    ProxyOptions,
    Timeouts,
    Unauthorized,
    Upstream,
    asgi,
    from_route,
    wsgi,
)
from ai_proxy_mw._endpoints import Endpoints
from ai_proxy_mw._errors import MethodNotAllowed, NotFound
from ai_proxy_mw.testing import FakeUpstream

BASE = "http://127.0.0.1:1/v1"


def _who(request: object) -> str:
    return "me"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nobody named": ({}, "exactly one way"),
    "two ways": ({"anonymous": True, "api_keys": {"a": "k"}}, "exactly one way"),
    "three ways": (
        {"anonymous": True, "api_keys": {"a": "k"}, "identify": _who},
        "exactly one way",
    ),
    "anonymous is a word": ({"anonymous": "no"}, "write True"),
    "identify is no function": ({"identify": "me"}, "give a function"),
    "no keys": ({"api_keys": {}}, "nobody could call"),
    "empty key": ({"api_keys": {"a": " "}}, "visible ASCII"),
    "empty subject": ({"api_keys": {" ": "k"}}, "not blank"),
    "same key": ({"api_keys": {"a": "k", "b": "k"}}, "the same key"),
    "prefix without slash": ({"anonymous": True, "prefix": "v1"}, "write a path like"),
    "prefix with slash": ({"anonymous": True, "prefix": "/v1/"}, "no slash at its end"),
    "prefix is all": ({"anonymous": True, "prefix": "/"}, "write a path"),
    "prefix climbs": ({"anonymous": True, "prefix": "/a/../b"}, "write a path"),
    "max_body": ({"anonymous": True, "max_body": 0}, "above 0"),
    "max_body text": ({"anonymous": True, "max_body": "64M"}, "above 0"),
    "cors is a list": (
        {"anonymous": True, "cors": ["https://app.example"]},
        "write CORS",
    ),
    "endpoint": ({"anonymous": True, "endpoints": ["/models"]}, "write one like"),
    "endpoint with prefix": ({"anonymous": True, "endpoints": ["GET models"]}, "without the"),
    "endpoint climbs": ({"anonymous": True, "endpoints": ["GET /../x/{id"]}, "write one like"),
    "max_body is a switch": ({"anonymous": True, "max_body": True}, "above 0"),
    "key is no text": ({"api_keys": {"a": None}}, "visible ASCII"),
    "upstream key is no text": ({"anonymous": True, "api_key": 5}, "visible ASCII"),
    "upstream is no text": ({"anonymous": True, "upstream": 5}, "write a URL"),
    "forward is one text": ({"anonymous": True, "forward_headers": "x-a"}, "list of names"),
    "endpoints is one text": ({"anonymous": True, "endpoints": "GET /models"}, "a set of"),
    "forward cookie": ({"anonymous": True, "forward_headers": ["Cookie"]}, "cannot be passed"),
    "forward host": ({"anonymous": True, "forward_headers": ["HOST"]}, "cannot be passed"),
    "forward x_y": ({"anonymous": True, "forward_headers": ["x_y"]}, "cannot be passed"),
    "forward é": ({"anonymous": True, "forward_headers": ["é"]}, "cannot be passed"),
    "trusted_origins for all": (
        {"identify": _who, "trusted_origins": ["*"]},
        "trusted_origins: .*every site",
    ),
    "upstream object and key": (
        {"anonymous": True, "upstream": Upstream(base_url=BASE), "api_key": "k"},
        "give it api_key=",
    ),
    "upstream object and timeouts": (
        {"anonymous": True, "upstream": Upstream(base_url=BASE), "timeouts": Timeouts()},
        "timeouts=",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_refused(case: str) -> None:
    arguments, says = WRONG[case]
    for make in (AIProxy, AIProxyMiddleware, AIProxyWSGIMiddleware):
        with pytest.raises(ConfigurationError, match=says):
            make(**{"upstream": BASE, **arguments})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"base_url": "api.openai.com/v1"}, "whole URL"),
        ({"base_url": "ftp://api.openai.com"}, "whole URL"),
        ({"base_url": "https://"}, "whole URL"),
        ({"base_url": "https://a:0/v1"}, "whole URL"),
        ({"base_url": "https://a:99999/v1"}, "Port out of range"),
        ({"base_url": "https://[::1/v1"}, "base_url"),
        ({"base_url": "https://a/v1?key=1"}, "no query"),
        ({"base_url": "https://a/v1#x"}, "no query"),
        ({"base_url": "https://ä.example/v1"}, "ASCII"),
        ({"base_url": "https://a/v 1"}, "ASCII"),
        ({"auth": "basic"}, "write one of"),
        ({"api_key": "sk a"}, "visible ASCII"),
        ({"api_key": ""}, "visible ASCII"),
        ({"headers": {"a b": "c"}}, "cannot be sent"),
        ({"headers": {"a": "c\r\nd: e"}}, "cannot be sent"),
        ({"client": object(), "transport": FakeUpstream().transport()}, "not both"),
        ({"max_connections": 0}, "above 0"),
        ({"keepalive": -1}, "write seconds"),
    ],
)
def test_a_wrong_upstream_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Upstream(**{"base_url": BASE, **arguments})


def test_what_is_wrong_with_a_base_url_is_told_without_its_query() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Upstream(base_url="https://api.example/v1?key=hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("challenge", ["", 'Basic realm="caf\u00e9"', "Basic\r\nset-cookie: a=b"])
def test_a_challenge_is_one_line_of_ascii(challenge: str) -> None:
    with pytest.raises(ValueError, match="challenge"):
        Unauthorized(challenge=challenge)


def test_a_password_in_the_base_url_is_refused_and_not_shown() -> None:
    for rest in ("api.example/v1", "api.example:99999/v1", "[api.example/v1"):
        with pytest.raises(ConfigurationError) as caught:
            Upstream(base_url=f"https://user:hunter2@{rest}")
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "5", None, True])
def test_timeouts_are_numbers_above_zero(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="above 0"):
        Timeouts(idle=seconds)


def test_no_repr_shows_a_key() -> None:
    upstream = Upstream(base_url=BASE, api_key="sk-secret", headers={"x-token": "sk-secret"})
    proxy = AIProxy(upstream=upstream, api_keys={"alice": "sk-secret"})
    shown = [repr(proxy), repr(upstream), repr(AIProxyMiddleware(proxy=proxy)), str(vars(proxy))]
    assert "sk-secret" not in "".join(shown)
    assert "upstream" in shown[0]


@pytest.mark.parametrize(
    ("base_url", "authority", "path"),
    [
        ("https://api.openai.com/v1", "api.openai.com", "/v1"),
        ("https://api.openai.com:443/v1/", "api.openai.com", "/v1"),
        ("http://[::1]:8080", "[::1]:8080", ""),
        ("http://HOST:80/a/b", "host", "/a/b"),
    ],
)
def test_a_base_url_is_taken_apart(base_url: str, authority: str, path: str) -> None:
    upstream = Upstream(base_url=base_url)
    assert upstream.authority == authority
    assert upstream.path == path


def test_the_doors_take_a_proxy_or_its_arguments_but_not_both() -> None:
    proxy = AIProxy(upstream=BASE, anonymous=True)
    for door in (AIProxyMiddleware, AIProxyWSGIMiddleware):
        assert door(proxy=proxy).proxy is proxy
        assert door(upstream=BASE, anonymous=True, prefix="/ai").proxy.prefix == "/ai"
        with pytest.raises(ConfigurationError, match="not both"):
            door(proxy=proxy, anonymous=True)
        with pytest.raises(ConfigurationError, match="give proxy="):
            door(anonymous=True)


def test_a_middleware_and_a_route_ask_in_different_ways() -> None:
    by_route = AIProxy(upstream=BASE, identify=from_route)
    for door in (AIProxyMiddleware, AIProxyWSGIMiddleware):
        with pytest.raises(ConfigurationError, match="is for proxy_router"):
            door(proxy=by_route)
    with_hook = AIProxy(upstream=BASE, identify=lambda request: "me")
    for route in (asgi.RouteDoor, wsgi.RouteDoor):
        assert route(by_route).proxy is by_route
        with pytest.raises(ConfigurationError, match="identify=from_route"):
            route(with_hook)


def test_the_options_are_the_proxys_arguments() -> None:
    parameters = inspect.signature(AIProxy.__init__).parameters
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name != "self")
    written = {name: p.annotation for name, p in parameters.items() if name != "self"}
    options = {n: ref.__forward_arg__ for n, ref in ProxyOptions.__annotations__.items()}
    assert options == written


def test_endpoints_are_narrowed_and_widened_as_a_set() -> None:
    endpoints = Endpoints(DEFAULT_ENDPOINTS - {"GET /files"} | {"POST /rerank", "GET /a/{id}/b"})
    assert endpoints.find("POST", "/rerank") == "POST /rerank"
    assert endpoints.find("GET", "/a/7/b") == "GET /a/{id}/b"
    assert endpoints.find("HEAD", "/models/meta/llama:3") == "GET /models/{id...}"
    with pytest.raises(MethodNotAllowed):
        endpoints.find("GET", "/files")
    with pytest.raises(NotFound):
        endpoints.find("GET", "/a/7/b/c")


def test_an_httpx_client_is_taken(fake: FakeUpstream) -> None:
    client = httpx.AsyncClient()
    proxy = AIProxy(upstream=Upstream(base_url=BASE, client=client), anonymous=True)
    assert type(proxy._ways.lanes[0].provider.transport).__name__ == "HttpxTransport"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"keys": "one"}, "write a list of keys"),
        ({"api_key": "a", "keys": ["b"]}, "not both"),
        ({"keys": ["a", "a"]}, "twice"),
        ({"keys": ["a", "b c"]}, "visible ASCII"),
        ({"name": "a b"}, "write a word"),
        ({"name": 5}, "write a word"),
        ({"weight": 0}, "above 0"),
        ({"weight": True}, "above 0"),
        ({"weight": float("nan")}, "above 0"),
        ({"weight": float("inf")}, "above 0"),
        ({"priority": 1.5}, "whole number"),
        ({"priority": True}, "whole number"),
        ({"idempotency_key": 1}, "True or False"),
        ({"query": {"a": "b&c"}}, "query"),
        ({"query": {"a": 5}}, "query"),
        ({"query": {"": "x"}}, "query"),
        ({"models": "gpt-4"}, "list of names"),
        ({"models": [""]}, "write names"),
        ({"models": {"fast": ""}}, "write names"),
        ({"models": [5]}, "write names"),
        ({"endpoints": "POST /embeddings"}, "write a set"),
        ({"endpoints": []}, "write a set"),
        ({"endpoints": ["embeddings"]}, "write a set"),
        ({"endpoints": [5]}, "write a set"),
        ({"max_concurrent": 0}, "above 0"),
    ],
)
def test_wrong_terms_of_an_upstream_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Upstream(**{"base_url": BASE, **arguments})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "give upstream="),
        ({"upstream": BASE, "upstreams": [Upstream(base_url=BASE)]}, "give upstream="),
        ({"upstreams": [BASE]}, "write a list"),
        ({"upstreams": BASE}, "write a list"),
        ({"upstreams": Upstream(base_url=BASE)}, "write a list"),
        ({"upstreams": [Upstream(base_url=BASE)] * 2}, "name= of its own"),
        ({"upstreams": [Upstream(base_url=BASE)], "api_key": "k"}, "give it api_key="),
    ],
)
def test_wrong_upstreams_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        AIProxy(anonymous=True, **arguments)


def test_an_upstream_can_be_made_of_another() -> None:
    for keys in ({"api_key": "a"}, {"keys": ["a", "b"]}):
        first = Upstream(base_url=BASE, models={"fast": "x"}, endpoints=["POST /x"], **keys)
        second = dataclasses.replace(first, name="second")
        assert (second.keys, second.names) == (first.keys, first.names)
        assert second.endpoints == {"POST /x"}
