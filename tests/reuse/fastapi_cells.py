"""FastAPI under ASGI: dependencies in route mode, and its session before a middleware."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from starlette.middleware.sessions import SessionMiddleware

import ai_proxy_mw
from ai_proxy_mw import AIProxy, AIProxyMiddleware, from_route
from ai_proxy_mw.contrib.fastapi import proxy_router
from ai_proxy_mw.contrib.starlette import session_user
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


@dataclass
class User:
    name: str


def session_name(request: Request) -> str | None:
    name: str | None = request.session.get("user")
    return name


async def async_user(name: Annotated[str | None, Depends(session_name)]) -> User:
    user = checked(name)
    if name == "slow":
        await asyncio.sleep(SLOW)
    return user


def sync_user(name: Annotated[str | None, Depends(session_name)]) -> User:
    user = checked(name)
    if name == "slow":
        time.sleep(SLOW)
    return user


async def middlewares_user(call: ai_proxy_mw.Request) -> Any:
    user: Any = await session_user("user")(call)
    assert current.get() == user
    if user == "boom":
        raise RuntimeError("boom")
    if user == "slow":
        await asyncio.sleep(SLOW)
    return user


def checked(name: str | None) -> User:
    assert current.get() == name
    if name is None:
        raise HTTPException(401, "Sign in first.", {"WWW-Authenticate": "Session"})
    if name == "boom":
        raise RuntimeError("boom")
    return User(name)


def app_with_a_login() -> FastAPI:
    app = FastAPI()

    @app.post("/login")
    async def login(request: Request, user: str) -> str:
        request.session["user"] = user
        return "welcome"

    return app


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    app.add_middleware(SetsCurrent)
    app.add_middleware(SessionMiddleware, secret_key="a secret of the tests")
    with serve_asgi(app) as url:
        yield url


@contextmanager
def routes(
    fake: FakeUpstream, recorder: Recorder, *, dependency: Callable[..., Any]
) -> Iterator[str]:
    app = app_with_a_login()
    proxy = AIProxy(upstream=upstream(fake), identify=from_route, cors=cors())
    app.include_router(
        proxy_router(recorder.watch(proxy), identify=dependency, subject=lambda user: user.name)
    )
    with serve(app) as url:
        yield url


@contextmanager
def middleware(fake: FakeUpstream, recorder: Recorder) -> Iterator[str]:
    app = app_with_a_login()
    proxy = AIProxy(upstream=upstream(fake), identify=middlewares_user, cors=cors())
    app.add_middleware(AIProxyMiddleware, proxy=recorder.watch(proxy))
    with serve(app) as url:
        yield url


CELLS = [
    Cell("fastapi-dependency-async", partial(routes, dependency=async_user)),
    Cell("fastapi-dependency-sync", partial(routes, dependency=sync_user)),
    Cell("fastapi-session-user", middleware),
]
