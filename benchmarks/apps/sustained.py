"""The proxy as an app would have it: identity, limits of calls and tokens, judged, and a cache."""

from __future__ import annotations

from ai_proxy_mw import AIProxy, Cache, Identity, Limit, MemoryCache, Request
from ai_proxy_mw.asgi import AIProxyMiddleware


async def identify(request: Request) -> Identity:  # noqa: ARG001 - everybody is the same
    return Identity("alice")


def make(upstream: str) -> AIProxyMiddleware:
    proxy = AIProxy(
        upstream=f"{upstream}/v1",
        api_key="sk-upstream",
        identify=identify,
        limits=["1000000000/hour", Limit("1000000000000/hour", of="tokens")],
        cache=Cache(MemoryCache(), scope="shared"),
    )
    return AIProxyMiddleware(None, proxy=proxy)
