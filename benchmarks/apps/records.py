"""The relay, with a record of each call, its use and its cost: what `stats=` counts."""

from __future__ import annotations

from ai_proxy_mw import AIProxy
from ai_proxy_mw.asgi import AIProxyMiddleware


def make(upstream: str) -> AIProxyMiddleware:
    proxy = AIProxy(
        upstream=f"{upstream}/v1",
        api_key="sk-upstream",
        anonymous=True,
        validate=False,
        access_log=False,
    )
    return AIProxyMiddleware(None, proxy=proxy)
