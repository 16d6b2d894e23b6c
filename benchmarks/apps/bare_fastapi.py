"""The proxy as a middleware of a FastAPI application."""

from __future__ import annotations

from fastapi import FastAPI

from ai_proxy_mw import AIProxy
from ai_proxy_mw.asgi import AIProxyMiddleware


def make(upstream: str) -> FastAPI:
    proxy = AIProxy(
        upstream=f"{upstream}/v1",
        api_key="sk-upstream",
        anonymous=True,
        validate=False,
        stats=False,
        access_log=False,
    )
    app = FastAPI()
    app.add_middleware(AIProxyMiddleware, proxy=proxy)
    return app
