from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest
from fastapi import FastAPI
from flask import Flask
from hypothesis import settings

from ai_proxy_mw import AIProxy, AIProxyMiddleware, AIProxyWSGIMiddleware, Upstream
from ai_proxy_mw.testing import FakeUpstream
from tests.servers import gunicorn, serve_asgi, serve_process, serve_wsgi

# How long one example takes says more about the machine than about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

KEY = "sk-upstream-secret"


class House:
    """An app with the proxy inside, behind a real server, in front of a fake upstream."""

    def __init__(self, kind: str, url: str, fake: FakeUpstream, direct: str) -> None:
        self.kind = kind
        self.url = url
        self.v1 = f"{url}/v1"
        self.fake = fake
        self.direct = direct

    @property
    def is_wsgi(self) -> bool:
        return self.kind != "uvicorn"


def _fastapi(proxy: AIProxy) -> AbstractContextManager[str]:
    app = FastAPI()
    app.add_middleware(AIProxyMiddleware, proxy=proxy)
    return serve_asgi(app)


def _flask(proxy: AIProxy) -> AbstractContextManager[str]:
    app = Flask("house")
    app.wsgi_app = AIProxyWSGIMiddleware(app.wsgi_app, proxy=proxy)  # type: ignore[method-assign]
    return serve_wsgi(app)


IN_PROCESS: dict[str, Callable[[AIProxy], AbstractContextManager[str]]] = {
    "uvicorn": _fastapi,
    "werkzeug": _flask,
}
GUNICORN = {
    "gunicorn-sync": ["-k", "sync", "-w", "2"],
    "gunicorn-gthread": ["-k", "gthread", "-w", "1", "--threads", "16"],
}


@contextmanager
def open_house(kind: str) -> Iterator[House]:
    fake = FakeUpstream()
    with fake.serve() as upstream, ExitStack() as stack:
        if kind in IN_PROCESS:
            proxy = AIProxy(
                upstream=Upstream(base_url=upstream.base_url, api_key=KEY),
                anonymous=True,
                max_body=512 << 20,
            )
            url = stack.enter_context(IN_PROCESS[kind](proxy))
        else:
            env = {
                "AI_PROXY_UPSTREAM": upstream.base_url,
                "AI_PROXY_API_KEY": KEY,
                "AI_PROXY_ANONYMOUS": "1",
                "AI_PROXY_MAX_BODY": "512M",
            }
            command = gunicorn("tests.apps.flask_app:app", *GUNICORN[kind])
            url = stack.enter_context(serve_process(command, env)).url
        yield House(kind, url, fake, upstream.base_url)


@pytest.fixture(
    scope="session",
    params=[*IN_PROCESS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in GUNICORN)],
)
def _house(request: pytest.FixtureRequest) -> Iterator[House]:
    with open_house(request.param) as house:
        yield house


@pytest.fixture
def house(_house: House) -> Iterator[House]:
    """Each of the doors in turn, its fake upstream fresh."""
    _house.fake.reset()
    yield _house
    _house.fake.reset()
    _house.fake.pace = 0.0
    _house.fake.compress = None


@pytest.fixture
def fake() -> FakeUpstream:
    return FakeUpstream()
