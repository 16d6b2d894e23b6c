"""A FastAPI app with the proxy that keeps answers in it."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from ai_proxy_mw import AIProxyMiddleware
from tests.apps.cached import cached_proxy, worker

app = FastAPI()


@app.get("/worker", response_class=PlainTextResponse)
async def busy_worker() -> str:
    return worker()


app.add_middleware(AIProxyMiddleware, proxy=cached_proxy())
