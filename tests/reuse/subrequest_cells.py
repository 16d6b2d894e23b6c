"""The app asked in process who is calling: FastAPI under ASGI, Flask under WSGI."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from flask import Flask, abort, session
from flask import request as flask_request
from starlette.middleware.sessions import SessionMiddleware
from werkzeug.datastructures import WWWAuthenticate

from ai_proxy_mw import AIProxy, AIProxyMiddleware, AIProxyWSGIMiddleware, SubrequestIdentify
from ai_proxy_mw.testing import FakeUpstream
from tests.reuse.cell import SLOW, Cell, Recorder, cors, upstream
from tests.servers import serve_asgi, serve_wsgi

SECRET = "a secret of the tests"

current: ContextVar[str | None] = ContextVar("current")
local = threading.local()


class SetsCurrent:
    """A middleware of the app that keeps the user in a context variable."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            current.set(scope["session"].get("user"))
        await self.app(scope, receive, send)


def _fastapi() -> FastAPI:
    app = FastAPI()

    @app.post("/login")
    async def login(request: Request, user: str) -> str:
        request.session["user"] = user
        return "welcome"

    @app.get("/auth/me")
    async def me(request: Request) -> dict[str, str]:
        user = request.session.get("user")
        assert current.get() == user
        if user is None:
            raise HTTPException(401, "sign in first", {"www-authenticate": "Session"})
        if user == "boom":
            raise RuntimeError("boom")
        if user == "slow":
            await asyncio.sleep(SLOW)
        return {"subject": user}

    return app


@contextmanager
def fastapi(fake: FakeUpstream, recorder: Recorder, *, session_outside: bool) -> Iterator[str]:
    app = _fastapi()
    proxy = AIProxy(upstream=upstream(fake), identify=SubrequestIdentify("/auth/me"), cors=cors())
    # What is added later stands around what was added before.
    if session_outside:
        app.add_middleware(AIProxyMiddleware, proxy=recorder.watch(proxy))
    app.add_middleware(SetsCurrent)
    app.add_middleware(SessionMiddleware, secret_key=SECRET)
    if not session_outside:
        app.add_middleware(AIProxyMiddleware, proxy=recorder.watch(proxy))
    with serve_asgi(app) as url:
        yield url


def _flask() -> Flask:
    app = Flask("subrequest")
    app.secret_key = SECRET

    @app.before_request
    def keep() -> None:
        local.user = session.get("user")

    @app.post("/login")
    def login() -> str:
        session["user"] = flask_request.args["user"]
        return "welcome"

    @app.get("/auth/me")
    def me() -> dict[str, str]:
        user = session.get("user")
        assert local.user == user
        if user is None:
            abort(401, www_authenticate=WWWAuthenticate("session"))
        if user == "boom":
            raise RuntimeError("boom")
        if user == "slow":
            time.sleep(SLOW)
        return {"subject": user}

    return app


@contextmanager
def flask(fake: FakeUpstream, recorder: Recorder) -> Iterator[str]:
    app = _flask()
    proxy = AIProxy(upstream=upstream(fake), identify=SubrequestIdentify("/auth/me"), cors=cors())
    app.wsgi_app = AIProxyWSGIMiddleware(  # type: ignore[method-assign]
        app.wsgi_app, proxy=recorder.watch(proxy)
    )
    with serve_wsgi(app) as url:
        yield url


CELLS = [
    Cell("fastapi-subrequest-session-inside", partial(fastapi, session_outside=False)),
    Cell("fastapi-subrequest-session-outside", partial(fastapi, session_outside=True)),
    Cell("flask-subrequest", flask),
]
