"""The same, with spans and metrics for OpenTelemetry, which go nowhere."""

from __future__ import annotations

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from ai_proxy_mw import AIProxy, Identity, Request
from ai_proxy_mw.asgi import AIProxyMiddleware
from ai_proxy_mw.metrics.opentelemetry import OpenTelemetry


class Nowhere(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        """What an exporter takes is not what is measured."""


async def identify(request: Request) -> Identity:  # noqa: ARG001 - everybody is the same
    return Identity("alice")


def make(upstream: str) -> AIProxyMiddleware:
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(Nowhere())
    proxy = AIProxy(
        upstream=f"{upstream}/v1",
        api_key="sk-upstream",
        identify=identify,
        limits=["1000000000/hour"],
        tracing=OpenTelemetry(tracer_provider=tracer_provider, meter_provider=MeterProvider()),
    )
    return AIProxyMiddleware(None, proxy=proxy)
