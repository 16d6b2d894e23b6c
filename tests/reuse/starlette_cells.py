"""Starlette under ASGI: its session, and the user of its AuthenticationMiddleware."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import ai_proxy_mw
from ai_proxy_mw import AIProxy, AIProxyMiddleware
from ai_proxy_mw.contrib.starlette import authenticated_user, session_user
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


async def checked(user: str | None) -> str | None:
    assert current.get() == user
    if user == "boom":
        raise RuntimeError("boom")
    if user == "slow":
        await asyncio.sleep(SLOW)
    return user


async def by_hand(call: ai_proxy_mw.Request) -> str | None:
    assert call.scope is not None
    return await checked(call.scope["session"].get("user"))


async def ready_made(call: ai_proxy_mw.Request) -> Any:
    user: Any = await session_user("user")(call)
    return await checked(user)


class Person(SimpleUser):
    """A user whose identity is asked in the context of the request."""

    @property
    def identity(self) -> str:
        assert current.get() == self.username
        if self.username == "boom":
            raise RuntimeError("boom")
        return self.username


class Backend(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        user = conn.session.get("user")
        if user is None:
            return None
        if user == "slow":
            await asyncio.sleep(SLOW)
        return AuthCredentials(), Person(user)


@contextmanager
def app_with(
    fake: FakeUpstream, recorder: Recorder, *, identify: Any, authentication: bool = False
) -> Iterator[str]:
    app = Starlette(routes=[Route("/login", login, methods=["POST"])])
    proxy = AIProxy(upstream=upstream(fake), identify=identify, cors=cors())
    app.add_middleware(AIProxyMiddleware, proxy=recorder.watch(proxy))
    app.add_middleware(SetsCurrent)
    if authentication:
        app.add_middleware(AuthenticationMiddleware, backend=Backend())
    app.add_middleware(SessionMiddleware, secret_key="a secret of the tests")
    with serve_asgi(app) as url:
        yield url


CELLS = [
    Cell("starlette-session-by-hand", partial(app_with, identify=by_hand)),
    Cell("starlette-session-user", partial(app_with, identify=ready_made)),
    Cell(
        "starlette-authentication-middleware",
        partial(app_with, identify=authenticated_user(), authentication=True),
    ),
]
