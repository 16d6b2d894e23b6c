"""Spans of calls through both doors: in the host's trace, one for each, however it ends."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

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

_numbers = itertools.count()


def chat(**more: object) -> dict[str, object]:
    """A question that has not been asked before."""
    question = {"role": "user", "content": f"What is {next(_numbers)} and two?"}
    return {"model": "gpt-4.1", "messages": [question], **more}


class Site:
    """An app that opens a span around the proxy, as instrumentation does."""

    def __init__(self, house: House, fake: FakeUpstream, url: str) -> None:
        self.house = house
        self.fake = fake
        self.url = f"{url}/v1/chat/completions"
        self.before = 0, 0

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

    def count(self, metric: str) -> int:
        return sum(point.count for point in self.house.points(metric))

    def host(self) -> ReadableSpan:
        (found,) = [
            each for each in self.house.exporter.get_finished_spans() if each.name == "host"
        ]
        return found


def _asgi(proxy: AIProxy, house: House) -> Any:
    app: Any = AIProxyMiddleware(Starlette(), proxy=proxy)

    async def host(scope: Any, receive: Any, send: Any) -> None:
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


@pytest.fixture(scope="module", params=DOORS)
def _sites(request: pytest.FixtureRequest) -> Iterator[Site]:
    with _site(
        request.param,
        retry=Retry(attempts=2, backoff=0.001),
        cache=MemoryCache(),
        health_endpoint=True,
    ) as site:
        yield site


@pytest.fixture
def site(_sites: Site) -> Site:
    """Each of the doors in turn; everything on it as new."""
    _sites.fake.reset()
    _sites.fake.pace = 0.0
    _sites.house.exporter.clear()
    _sites.before = _sites.count(names.DURATION), _sites.count(names.TIME_TO_FIRST_CHUNK)
    return _sites


def _ids(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}-{span.context.span_id:016x}"


def test_a_call_is_the_hosts_child_and_the_upstreams_parent(site: Site) -> None:
    answer = httpx.post(site.url, json=chat(), headers={"traceparent": "00-" + "a" * 32})
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
    assert site.count(names.DURATION) == site.before[0] + 1


def test_a_stream(site: Site) -> None:
    httpx.post(site.url, json=chat(stream=True))
    (span,) = site.spans()
    found = dict(span.attributes or {})
    assert found[names.OWN_OUTCOME] == "complete"
    assert found[names.REQUEST_STREAM] is True
    assert span.start_time is not None
    assert span.end_time is not None
    assert 0 < cast(float, found[names.FIRST_CHUNK]) * 1e9 < span.end_time - span.start_time
    assert site.count(names.TIME_TO_FIRST_CHUNK) == site.before[1] + 1


def test_a_caller_who_leaves(site: Site) -> None:
    site.fake.pace = 0.05
    with httpx.stream("POST", site.url, json=chat(stream=True)) as answer:
        next(answer.iter_raw())
    (span,) = site.spans()
    found = dict(span.attributes or {})
    assert found[names.OWN_OUTCOME] == "cancelled"
    assert names.ERROR_TYPE not in found


def test_an_error_of_the_upstreams(site: Site) -> None:
    site.fake.fail(429, times=2)
    assert httpx.post(site.url, json=chat()).status_code == 429
    (span,) = site.spans()
    assert dict(span.attributes or {})[names.STATUS] == 429
    assert not span.status.is_ok


def test_what_is_refused(site: Site) -> None:
    assert httpx.post(site.url, json=chat(messages=1)).status_code == 400
    (span,) = site.spans()
    found = dict(span.attributes or {})
    assert found[names.OWN_OUTCOME] == "refused"
    assert found[names.OWN_ATTEMPTS] == 0
    assert site.count(names.DURATION) == site.before[0]


def test_attempts_are_one_span_and_each_is_sent_its_id(site: Site) -> None:
    site.fake.fail(503, times=1)
    assert httpx.post(site.url, json=chat()).status_code == 200
    (span,) = site.spans()
    assert dict(span.attributes or {})[names.OWN_ATTEMPTS] == 2
    sent = [(each.header("traceparent") or "")[3:52] for each in site.fake.requests]
    assert sent == [_ids(span)] * 2


def test_what_the_cache_answers(site: Site) -> None:
    question = chat()
    for _ in range(2):
        assert httpx.post(site.url, json=question).status_code == 200
    first, second = (dict(span.attributes or {}) for span in site.spans(2))
    assert (first[names.OWN_CACHE], second[names.OWN_CACHE]) == ("miss", "hit")
    assert second[names.OWN_ATTEMPTS] == 0
    assert names.INPUT_TOKENS not in second
    assert site.count(names.DURATION) == site.before[0] + 1


def test_health_is_no_call(site: Site) -> None:
    httpx.get(site.url.replace("chat/completions", "_health"))
    httpx.post(site.url, json=chat())
    (span,) = site.spans()
    assert span.name == "chat gpt-4.1"
