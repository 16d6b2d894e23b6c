"""One cell of the table in docs/identity.md: a host framework, a door, and a way of reuse."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ai_proxy_mw import CORS, AIProxy, Request, Response, Upstream
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream

PAGE = "http://page.example"
"""The origin of a page that may call with cookies."""

SLOW = 2.0
"""Seconds that the hook takes for the user `slow`."""


class Recorder:
    """What the proxy took each call's caller for, by request id."""

    def __init__(self) -> None:
        self.subjects: dict[str, str] = {}

    def watch(self, proxy: AIProxy) -> AIProxy:
        inner = proxy.handle

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            finally:
                self.subjects[request.id] = request.subject

        proxy.handle = handle
        return proxy


def upstream(fake: FakeUpstream) -> Upstream:
    return Upstream(base_url=FAKE_BASE_URL, api_key="sk-upstream", transport=fake.transport())


def cors() -> CORS:
    return CORS(allow_origins=[PAGE], allow_credentials=True)


@dataclass(frozen=True)
class Cell:
    """An app with a login and the proxy in it.

    `serve(fake, recorder)` serves it over a real socket and gives its URL. The app must have
    `POST /login?user=NAME`, which signs in with cookies as any app would, and the proxy at `/v1`
    with `cors()`, watched by the recorder. Its hook raises RuntimeError for the user `boom`, takes
    SLOW seconds for the user `slow`, and otherwise returns the name, after it has asserted that
    a context variable or thread-local which the app's own middleware has set for this request
    says the same (only where that middleware runs before the proxy).
    """

    name: str
    serve: Callable[[FakeUpstream, Recorder], AbstractContextManager[str]]
