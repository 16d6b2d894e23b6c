"""The same through the WSGI door."""

from __future__ import annotations

from ai_proxy_mw import AIProxy, Identity, Request
from ai_proxy_mw.wsgi import AIProxyWSGIMiddleware


async def identify(request: Request) -> Identity:  # noqa: ARG001 - everybody is the same
    return Identity("alice")


def make(upstream: str) -> AIProxyWSGIMiddleware:
    proxy = AIProxy(
        upstream=f"{upstream}/v1",
        api_key="sk-upstream",
        identify=identify,
        limits=["1000000000/hour"],
    )
    return AIProxyWSGIMiddleware(None, proxy=proxy)
