"""The proxy through its ASGI door, with nothing but the relay."""

from __future__ import annotations

from ai_proxy_mw import AIProxy
from ai_proxy_mw.asgi import AIProxyMiddleware


def make(upstream: str) -> AIProxyMiddleware:
    proxy = AIProxy(
        upstream=f"{upstream}/v1",
        api_key="sk-upstream",
        anonymous=True,
        validate=False,
        stats=False,
        access_log=False,
    )
    return AIProxyMiddleware(None, proxy=proxy)
