"""A FastAPI app with the limited proxy in it."""

from __future__ import annotations

from fastapi import FastAPI

from ai_proxy_mw import AIProxyMiddleware
from tests.apps.limited import limited_proxy

app = FastAPI()
app.add_middleware(AIProxyMiddleware, proxy=limited_proxy())
