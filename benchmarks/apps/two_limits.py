"""The proxy with an identity and limits of requests and tokens, counted in memory."""

from __future__ import annotations

from ai_proxy_mw import AIProxy, Identity, Limit, Request
from ai_proxy_mw.asgi import AIProxyMiddleware


async def identify(request: Request) -> Identity:  # noqa: ARG001 - everybody is the same
    return Identity("alice")


def make(upstream: str) -> AIProxyMiddleware:
    proxy = AIProxy(
        upstream=f"{upstream}/v1",
        api_key="sk-upstream",
        identify=identify,
        validate=False,
        stats=False,
        access_log=False,
        limits=["1000000000/hour", Limit("1000000000000/hour", of="tokens")],
    )
    return AIProxyMiddleware(None, proxy=proxy)
