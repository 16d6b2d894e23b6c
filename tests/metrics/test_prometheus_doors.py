"""Prometheus' hook at a real proxy, over a real socket."""

from __future__ import annotations

import time

import httpx
from prometheus_client import CollectorRegistry

from ai_proxy_mw import AIProxy, AIProxyMiddleware, Upstream
from ai_proxy_mw.metrics.prometheus import PrometheusMetrics
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.servers import serve_asgi


def test_calls_are_counted_at_the_door() -> None:
    registry = CollectorRegistry()
    upstream = Upstream(base_url=FAKE_BASE_URL, transport=FakeUpstream().transport())
    hook = PrometheusMetrics(registry=registry)
    proxy = AIProxy(upstream=upstream, anonymous=True, on_record=[hook])
    hook.watch(proxy)
    call = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]}
    with serve_asgi(AIProxyMiddleware(proxy=proxy)) as url:
        assert httpx.post(f"{url}/v1/chat/completions", json=call).status_code == 200
        assert httpx.post(f"{url}/v1/chat/completions", json={"model": "evil"}).status_code == 400
        deadline = time.monotonic() + 10
        while _requests(registry) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert _requests(registry) == 2
    tokens = {"model": "gpt-4.1", "kind": "output"}
    assert registry.get_sample_value("ai_proxy_tokens_total", tokens)
    assert registry.get_sample_value("ai_proxy_upstream_in_flight", {"upstream": "default"}) == 0


def _requests(registry: CollectorRegistry) -> float:
    samples = [each for family in registry.collect() for each in family.samples]
    return sum(each.value for each in samples if each.name == "ai_proxy_requests_total")
