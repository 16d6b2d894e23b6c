"""The whole corridor, and each answer asked upstream and kept in memory."""

from __future__ import annotations

from itertools import count

from ai_proxy_mw import AIProxy, Cache, Identity, MemoryCache, Request
from ai_proxy_mw.asgi import AIProxyMiddleware

_calls = count()


async def identify(request: Request) -> Identity:  # noqa: ARG001 - everybody is the same
    return Identity("alice")


def make(upstream: str) -> AIProxyMiddleware:
    proxy = AIProxy(
        upstream=f"{upstream}/v1",
        api_key="sk-upstream",
        identify=identify,
        limits=["1000000000/hour"],
        cache=Cache(MemoryCache(), scope=lambda _: str(next(_calls))),
    )
    return AIProxyMiddleware(None, proxy=proxy)
