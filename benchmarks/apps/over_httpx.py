"""The proxy with httpx as the client that sends."""

from __future__ import annotations

import httpx

from ai_proxy_mw import AIProxy, Upstream
from ai_proxy_mw.asgi import AIProxyMiddleware


def make(upstream: str) -> AIProxyMiddleware:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(limits=limits)
    chosen = Upstream(base_url=f"{upstream}/v1", api_key="sk-upstream", client=client)
    proxy = AIProxy(upstream=chosen, anonymous=True, validate=False, stats=False, access_log=False)
    return AIProxyMiddleware(None, proxy=proxy)
