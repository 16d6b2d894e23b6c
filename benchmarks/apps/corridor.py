"""The proxy with all of the corridor that there is: identity, a limit, validation, records."""

from __future__ import annotations

from ai_proxy_mw import AIProxy, Identity, Request
from ai_proxy_mw.asgi import AIProxyMiddleware


async def identify(request: Request) -> Identity:  # noqa: ARG001 - everybody is the same
    return Identity("alice")


def make(upstream: str) -> AIProxyMiddleware:
    proxy = AIProxy(
        upstream=f"{upstream}/v1",
        api_key="sk-upstream",
        identify=identify,
        limits=["1000000000/hour"],
    )
    return AIProxyMiddleware(None, proxy=proxy)
