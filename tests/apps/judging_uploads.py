"""An app whose proxy is configured by the environment."""

from __future__ import annotations

from fastapi import FastAPI

from ai_proxy_mw import AIProxy, AIProxyMiddleware

app = FastAPI()
app.add_middleware(AIProxyMiddleware, proxy=AIProxy.from_env())
