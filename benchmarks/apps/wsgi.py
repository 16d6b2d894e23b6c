"""The proxy through its WSGI door, with the default settings."""

from __future__ import annotations

from ai_proxy_mw import AIProxy
from ai_proxy_mw.wsgi import AIProxyWSGIMiddleware


def make(upstream: str) -> AIProxyWSGIMiddleware:
    proxy = AIProxy(
        upstream=f"{upstream}/v1",
        api_key="sk-upstream",
        anonymous=True,
        validate=False,
        stats=False,
        access_log=False,
    )
    return AIProxyWSGIMiddleware(None, proxy=proxy)
