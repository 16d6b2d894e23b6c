"""The whole corridor, and each answer from the cache in memory."""

from __future__ import annotations

from ai_proxy_mw import AIProxy, Cache, Identity, MemoryCache, Request
from ai_proxy_mw.asgi import AIProxyMiddleware


async def identify(request: Request) -> Identity:  # noqa: ARG001 - everybody is the same
    return Identity("alice")


def make(upstream: str) -> AIProxyMiddleware:
    proxy = AIProxy(
        upstream=f"{upstream}/v1",
        api_key="sk-upstream",
        identify=identify,
        limits=["1000000000/hour"],
        cache=Cache(MemoryCache(), scope="shared"),
    )
    return AIProxyMiddleware(None, proxy=proxy)
