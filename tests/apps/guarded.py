"""An app with a proxy for each way to log in, which logs everything that can be logged."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, HTTPException
from fastapi import Request as FastAPIRequest
from flask import Flask, abort
from flask import request as flask_request

from ai_proxy_mw import (
    AIProxy,
    AIProxyMiddleware,
    AIProxyWSGIMiddleware,
    Identity,
    Request,
    SubrequestIdentify,
    Upstream,
    hash_api_key,
)

logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)

UPSTREAM = os.environ["GUARDED_UPSTREAM"]
NOWHERE = os.environ["GUARDED_NOWHERE"]
UPSTREAM_KEY = os.environ["GUARDED_UPSTREAM_KEY"]
CALLER_KEY = os.environ["GUARDED_CALLER_KEY"]
COOKIE = os.environ["GUARDED_COOKIE"]


def _upstream(base_url: str = UPSTREAM) -> Upstream:
    return Upstream(base_url=base_url, api_key=UPSTREAM_KEY, headers={"x-extra": UPSTREAM_KEY})


def _find(key: str) -> Identity | None:
    if key != CALLER_KEY:
        raise LookupError("whose key this is cannot be looked up")
    return Identity("alice", models=["fake-1"])


async def _find_later(key: str) -> Identity | None:
    return _find(key)


def _session(request: Request) -> str | None:
    if request.headers.get("x-odd"):
        raise ValueError(f"{request!r} {request.headers!r}")
    return {COOKIE: "alice"}.get(request.cookies.get("session", ""))


PROXIES = [
    AIProxy(
        upstream=_upstream(),
        api_keys={"alice": CALLER_KEY, "bob": hash_api_key(CALLER_KEY + "b")},
        prefix="/keys/v1",
        max_body=5000,
    ),
    AIProxy(upstream=_upstream(), api_keys=_find, prefix="/find/v1"),
    AIProxy(upstream=_upstream(), api_keys=_find_later, prefix="/later/v1"),
    AIProxy(upstream=_upstream(), identify=_session, prefix="/session/v1"),
    AIProxy(upstream=_upstream(), identify=SubrequestIdentify("/me"), prefix="/asked/v1"),
    AIProxy(
        upstream=_upstream(),
        identify=SubrequestIdentify("/fails", cache_ttl=60),
        prefix="/fails/v1",
    ),
    AIProxy(upstream=_upstream(NOWHERE), api_keys={"alice": CALLER_KEY}, prefix="/gone/v1"),
    AIProxy(
        upstream=Upstream(
            base_url=UPSTREAM, api_key=UPSTREAM_KEY, client=httpx.AsyncClient(trust_env=False)
        ),
        api_keys={"alice": CALLER_KEY},
        prefix="/httpx/v1",
    ),
]


@asynccontextmanager
async def _logs_every_step(app: FastAPI) -> AsyncIterator[None]:
    if os.environ.get("GUARDED_DEBUG"):
        # Each callback is then logged with its arguments. Not by PYTHONASYNCIODEBUG, which some
        # versions of uvicorn overrule.
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0
    yield


asgi_app = FastAPI(lifespan=_logs_every_step)


@asgi_app.get("/me")
def me(request: FastAPIRequest) -> dict[str, str]:
    if request.cookies.get("session") != COOKIE:
        raise HTTPException(401)
    return {"subject": "alice"}


@asgi_app.get("/fails")
def fails() -> dict[str, str]:
    raise LookupError("the session store is gone")


wsgi_app = Flask(__name__)


@wsgi_app.get("/me")
def flask_me() -> dict[str, str]:
    if flask_request.cookies.get("session") != COOKIE:
        abort(401)
    return {"subject": "alice"}


@wsgi_app.get("/fails")
def flask_fails() -> dict[str, str]:
    raise LookupError("the session store is gone")


for proxy in PROXIES:
    asgi_app.add_middleware(AIProxyMiddleware, proxy=proxy)
    wsgi_app.wsgi_app = AIProxyWSGIMiddleware(  # type: ignore[method-assign]
        wsgi_app.wsgi_app, proxy=proxy
    )
