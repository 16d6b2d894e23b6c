"""The fixtures, as an app's own test-suite uses them."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = ["ai_proxy_mw.testing.fixtures"]'

TESTS = """
import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ai_proxy_mw import AIProxy, AIProxyMiddleware, Upstream
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream


@pytest.fixture
def app(fake_upstream):
    app = FastAPI()
    upstream = Upstream(base_url=FAKE_BASE_URL, transport=fake_upstream.transport())
    app.add_middleware(AIProxyMiddleware, proxy=AIProxy(upstream=upstream, anonymous=True))
    return app


def test_in_process(app, fake_upstream):
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    with TestClient(app) as client:
        answer = client.post("/v1/chat/completions", json=chat)
    assert answer.json()["choices"][0]["message"]["content"] == "You said: Hello"
    assert [seen.json() for seen in fake_upstream.requests] == [chat]
    fake_upstream.hold()


def test_each_test_has_its_own(fake_upstream):
    assert isinstance(fake_upstream, FakeUpstream)
    assert fake_upstream.requests == []


def test_on_a_port(fake_upstream_server, fake_upstream):
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"{fake_upstream_server.base_url}/models").status_code == 200
    assert len(fake_upstream.requests) == 1
"""


def test_fixtures_in_a_users_suite(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)
