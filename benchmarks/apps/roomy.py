"""The proxy through its ASGI door, with room for uploads of 256 MB."""

from __future__ import annotations

from ai_proxy_mw import AIProxy
from ai_proxy_mw.asgi import AIProxyMiddleware

ROOM = 256 * 2**20


def make(upstream: str) -> AIProxyMiddleware:
    proxy = AIProxy(upstream=f"{upstream}/v1", api_key="sk-upstream", anonymous=True, max_body=ROOM)
    return AIProxyMiddleware(None, proxy=proxy)
