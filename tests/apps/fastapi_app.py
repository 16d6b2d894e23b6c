"""A FastAPI app with the proxy in it."""

from fastapi import FastAPI

from ai_proxy_mw import AIProxy, AIProxyMiddleware

app = FastAPI()


@app.get("/")
async def home() -> dict[str, str]:
    return {"app": "fastapi"}


app.add_middleware(AIProxyMiddleware, proxy=AIProxy.from_env())
