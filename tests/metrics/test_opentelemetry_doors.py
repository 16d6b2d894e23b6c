"""Spans of calls through both doors: in the trace of the host, one for each, whatever becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan
from starlette.applications import Starlette

from ai_proxy_mw import (
    AIProxy,
    AIProxyMiddleware,
    AIProxyWSGIMiddleware,
    MemoryCache,
    Retry,
    Upstream,
)
from ai_proxy_mw.metrics import genai_names as names
from ai_proxy_mw.testing import FakeUpstream
from tests.metrics.test_opentelemetry import House
from tests.servers import serve_asgi, serve_wsgi

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "How are you today?"}]}


class Site:
    """An app that opens a span around the proxy, as instrumentation does."""

    def __init__(self, house: House, fake: FakeUpstream, url: str) -> None:
        self.house = house
        self.fake = fake
        self.url = f"{url}/v1/chat/completions"

    def spans(self, number: int = 1) -> list[ReadableSpan]:
        """Those of the proxy, of which there are so many."""
        deadline = time.monotonic() + 5
        while len(self._found()) < number and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.02)  # there are no more
        found = self._found()
        assert len(found) == number
        return found

    def _found(self) -> list[ReadableSpan]:
        return [each for each in self.house.exporter.get_finished_spans() if each.name != "host"]

    def host(self) -> ReadableSpan:
        (found,) = [
            each for each in self.house.exporter.get_finished_spans() if each.name == "host"
        ]
        return found


def _asgi(proxy: AIProxy, house: House) -> Any:
    app: Any = AIProxyMiddleware(Starlette(), proxy=proxy)

    async def host(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        with house.tracers.get_tracer("host").start_as_current_span("host"):
            await app(scope, receive, send)

    return serve_asgi(host)


def _wsgi(proxy: AIProxy, house: House) -> Any:
    app = AIProxyWSGIMiddleware(Flask("host").wsgi_app, proxy=proxy)

    def host(environ: Any, start_response: Any) -> Any:
        with house.tracers.get_tracer("host").start_as_current_span("host"):
            return app(environ, start_response)

    return serve_wsgi(host)


DOORS: dict[str, Callable[[AIProxy, House], Any]] = {"asgi": _asgi, "wsgi": _wsgi}


@contextmanager
def _site(door: str, **options: Any) -> Iterator[Site]:
    house, fake = House(), FakeUpstream()
    with ExitStack() as stack:
        upstream = stack.enter_context(fake.serve())
        proxy = AIProxy(
            upstream=Upstream(base_url=upstream.base_url, api_key="sk-up"),
            anonymous=True,
            tracing=house.otel,
            **options,
        )
        yield Site(house, fake, stack.enter_context(DOORS[door](proxy, house)))
    assert house.otel.failures == 0


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _ids(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}-{span.context.span_id:016x}"


def test_a_call_is_the_hosts_child_and_the_upstreams_parent(door: str) -> None:
    with _site(door) as site:
        answer = httpx.post(site.url, json=CHAT, headers={"traceparent": "00-" + "a" * 32})
        assert answer.status_code == 200
        (span,) = site.spans()
        assert span.name == "chat gpt-4.1"
        assert span.parent == site.host().context
        (sent,) = site.fake.requests
        assert [value for name, value in sent.headers if name == b"traceparent"] == [
            (sent.header("traceparent") or "").encode()
        ]
        assert (sent.header("traceparent") or "")[3:52] == _ids(span)
        found = dict(span.attributes or {})
        usage = answer.json()["usage"]
        assert found[names.INPUT_TOKENS] == usage["prompt_tokens"]
        assert found[names.OUTPUT_TOKENS] == usage["completion_tokens"]
        assert found[names.OWN_REQUEST_ID] == answer.headers["x-request-id"]
        assert found[names.OWN_ATTEMPTS] == 1
        assert len(site.house.points(names.DURATION)) == 1


def test_a_stream(door: str) -> None:
    with _site(door) as site:
        httpx.post(site.url, json={**CHAT, "stream": True})
        (span,) = site.spans()
        found = dict(span.attributes or {})
        assert found[names.OWN_OUTCOME] == "complete"
        assert found[names.REQUEST_STREAM] is True
        assert span.start_time is not None
        assert span.end_time is not None
        assert 0 < found[names.FIRST_CHUNK] * 1e9 < span.end_time - span.start_time
        assert len(site.house.points(names.TIME_TO_FIRST_CHUNK)) == 1


def test_a_caller_who_leaves(door: str) -> None:
    with _site(door) as site:
        site.fake.pace = 0.05
        with httpx.stream("POST", site.url, json={**CHAT, "stream": True}) as answer:
            next(answer.iter_raw())
        (span,) = site.spans()
        found = dict(span.attributes or {})
        assert found[names.OWN_OUTCOME] == "cancelled"
        assert names.ERROR_TYPE not in found


def test_an_error_of_the_upstreams(door: str) -> None:
    with _site(door) as site:
        site.fake.fail(429, times=1)
        assert httpx.post(site.url, json=CHAT).status_code == 429
        (span,) = site.spans()
        assert span.name == "chat"
        assert dict(span.attributes or {})[names.STATUS] == 429
        assert not span.status.is_ok


def test_what_is_refused(door: str) -> None:
    with _site(door) as site:
        assert httpx.post(site.url, json={**CHAT, "messages": 1}).status_code == 400
        (span,) = site.spans()
        found = dict(span.attributes or {})
        assert found[names.OWN_OUTCOME] == "refused"
        assert found[names.OWN_ATTEMPTS] == 0
        assert site.house.points(names.DURATION) == []


def test_attempts_are_one_span_and_each_is_sent_its_id(door: str) -> None:
    with _site(door, retry=Retry(attempts=2, backoff=0.001)) as site:
        site.fake.fail(503, times=1)
        assert httpx.post(site.url, json=CHAT).status_code == 200
        (span,) = site.spans()
        assert dict(span.attributes or {})[names.OWN_ATTEMPTS] == 2
        sent = [(each.header("traceparent") or "")[3:52] for each in site.fake.requests]
        assert sent == [_ids(span)] * 2


def test_what_the_cache_answers(door: str) -> None:
    with _site(door, cache=MemoryCache()) as site:
        for _ in range(2):
            assert httpx.post(site.url, json=CHAT).status_code == 200
        first, second = (dict(span.attributes or {}) for span in site.spans(2))
        assert (first[names.OWN_CACHE], second[names.OWN_CACHE]) == ("miss", "hit")
        assert second[names.OWN_ATTEMPTS] == 0
        assert names.INPUT_TOKENS not in second
        (point,) = site.house.points(names.DURATION)
        assert point.count == 1


def test_health_is_no_call(door: str) -> None:
    with _site(door, health_endpoint=True) as site:
        httpx.get(site.url.replace("chat/completions", "_health"))
        httpx.post(site.url, json=CHAT)
        (span,) = site.spans()
        assert span.name == "chat gpt-4.1"
