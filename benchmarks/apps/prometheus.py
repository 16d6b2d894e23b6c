"""The same, with metrics for Prometheus."""

from __future__ import annotations

from ai_proxy_mw import AIProxy, Identity, Request
from ai_proxy_mw.asgi import AIProxyMiddleware
from ai_proxy_mw.metrics.prometheus import PrometheusMetrics


async def identify(request: Request) -> Identity:  # noqa: ARG001 - everybody is the same
    return Identity("alice")


def make(upstream: str) -> AIProxyMiddleware:
    proxy = AIProxy(
        upstream=f"{upstream}/v1",
        api_key="sk-upstream",
        identify=identify,
        limits=["1000000000/hour"],
        on_record=[PrometheusMetrics()],
    )
    return AIProxyMiddleware(None, proxy=proxy)
