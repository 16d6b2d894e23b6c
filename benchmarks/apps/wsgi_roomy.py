"""The proxy through its WSGI door, with room for uploads of 256 MB."""

from __future__ import annotations

from ai_proxy_mw import AIProxy
from ai_proxy_mw.wsgi import AIProxyWSGIMiddleware
from benchmarks.apps.roomy import ROOM


def make(upstream: str) -> AIProxyWSGIMiddleware:
    proxy = AIProxy(upstream=f"{upstream}/v1", api_key="sk-upstream", anonymous=True, max_body=ROOM)
    return AIProxyWSGIMiddleware(None, proxy=proxy)
