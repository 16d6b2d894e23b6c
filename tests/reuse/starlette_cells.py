"""Starlette under ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import ai_proxy_mw
from ai_proxy_mw import AIProxy, AIProxyMiddleware
from ai_proxy_mw.testing import FakeUpstream
from tests.reuse.cell import SLOW, Cell, Recorder, cors, upstream
from tests.servers import serve_asgi

current: ContextVar[str | None] = ContextVar("current")


class SetsCurrent:
    """A middleware of the app that keeps the user in a context variable."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            current.set(scope["session"].get("user"))
        await self.app(scope, receive, send)


async def login(request: Request) -> Response:
    request.session["user"] = request.query_params["user"]
    return PlainTextResponse("welcome")


async def session_user(call: ai_proxy_mw.Request) -> str | None:
    assert call.scope is not None
    user: str | None = call.scope["session"].get("user")
    assert current.get() == user
    if user == "boom":
        raise RuntimeError("boom")
    if user == "slow":
        await asyncio.sleep(SLOW)
    return user


@contextmanager
def by_hand(fake: FakeUpstream, recorder: Recorder) -> Iterator[str]:
    app = Starlette(routes=[Route("/login", login, methods=["POST"])])
    proxy = AIProxy(upstream=upstream(fake), identify=session_user, cors=cors())
    app.add_middleware(AIProxyMiddleware, proxy=recorder.watch(proxy))
    app.add_middleware(SetsCurrent)
    app.add_middleware(SessionMiddleware, secret_key="a secret of the tests")
    with serve_asgi(app) as url:
        yield url


CELLS = [Cell("starlette-session-by-hand", by_hand)]
