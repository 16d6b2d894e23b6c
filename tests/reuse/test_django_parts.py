"""Django's forms without a server: how they are configured, and what no server brings about."""

from __future__ import annotations

import asyncio
import importlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.test import AsyncClient, Client
from django.test.utils import override_settings
from django.urls import re_path

from ai_proxy_mw import AIProxy, ConfigurationError, from_route
from ai_proxy_mw.contrib.django import ProxyMiddleware, proxy_view
from ai_proxy_mw.contrib.django._bodies import receiver
from ai_proxy_mw.contrib.django._pulled import AHEAD, Pulled
from ai_proxy_mw.contrib.django._response import ProxyResponse
from ai_proxy_mw.testing import FakeUpstream
from tests.reuse import django_site
from tests.reuse.cell import upstream

CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}


def anybody(request: HttpRequest) -> str:
    return "anybody"


@contextmanager
def _middleware(options: Any) -> Iterator[None]:
    middleware = [*django_site.MIDDLEWARE, django_site.PROXY]
    with override_settings(MIDDLEWARE=middleware, AI_PROXY=options):
        yield


# -- configuration ---------------------------------------------------------------------------


def test_the_middleware_takes_the_arguments_of_a_proxy(fake: FakeUpstream) -> None:
    options = {
        "upstream": upstream(fake),
        "prefix": "/ai",
        "identify": "tests.reuse.test_django_parts.anybody",
    }
    with _middleware(options):
        assert Client().get("/ai/models").status_code == 200
        assert Client().get("/v1/models").status_code == 404
    assert [seen.path for seen in fake.requests] == ["/v1/models"]


def test_without_a_hook_the_user_is_asked_for(fake: FakeUpstream) -> None:
    with _middleware({"upstream": upstream(fake)}):
        assert Client().get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (None, "write {"),
        (["https://api.example/v1"], "write {"),
        ({}, "give proxy=AIProxy"),
        ({"upstream": "ftp://api.example"}, "base_url"),
        ({"upstream": "https://api.example/v1", "colour": "red"}, "colour"),
        ({"upstream": "https://api.example/v1", "anonymous": True}, "anonymous: identify says"),
        ({"upstream": "https://api.example/v1", "identify": "no.such.function"}, "no"),
        ({"upstream": "https://api.example/v1", "identify": 7}, "sync or async"),
        ({"upstream": "https://api.example/v1", "identify": from_route}, "Django's request"),
        ({"proxy": AIProxy(upstream="https://a.example", anonymous=True)}, "identify=from_route"),
        ({"proxy": AIProxy(upstream="https://a.example", identify=from_route), "cors": 1}, "both"),
        ({"proxy": 7}, "give an AIProxy"),
    ],
)
def test_wrong_settings_are_refused_at_the_start(options: Any, sentence: str) -> None:
    with override_settings(AI_PROXY=options), pytest.raises(ImproperlyConfigured) as caught:
        ProxyMiddleware(lambda request: ProxyResponse(200, [], []))
    assert str(caught.value).startswith("settings.AI_PROXY: ")
    assert sentence in str(caught.value)


def test_settings_that_are_not_there_are_refused() -> None:
    assert not hasattr(settings, "AI_PROXY")
    with pytest.raises(ImproperlyConfigured, match=r"settings\.AI_PROXY"):
        ProxyMiddleware(lambda request: ProxyResponse(200, [], []))


def test_a_view_refuses_a_proxy_that_is_not_for_routes() -> None:
    with pytest.raises(ConfigurationError, match="identify=from_route"):
        proxy_view(AIProxy(upstream="https://api.example/v1", anonymous=True))


def test_without_django_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ai_proxy_mw.contrib.django"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "django", None)
    with pytest.raises(ImportError, match=r"pip install 'ai_proxy_mw\[django\]'"):
        importlib.import_module(name)


# -- Django's own test clients ---------------------------------------------------------------


def test_djangos_test_clients_get_answers(fake: FakeUpstream) -> None:
    proxy = AIProxy(upstream=upstream(fake), identify=from_route)
    urls = (re_path(r"^v1/(?P<path>.*)$", proxy_view(proxy, identify=anybody)),)

    async def ask() -> bytes:
        answer: Any = await AsyncClient().post(
            "/v1/chat/completions", CHAT, content_type="application/json"
        )
        assert answer.status_code == 200
        return b"".join([piece async for piece in answer.streaming_content])

    with override_settings(ROOT_URLCONF=urls):
        answer: Any = Client(enforce_csrf_checks=True).post(
            "/v1/chat/completions", CHAT, content_type="application/json"
        )
        assert answer.status_code == 200
        assert b"".join(answer.streaming_content) == asyncio.run(ask())


# -- responses -------------------------------------------------------------------------------


def test_a_status_that_django_does_not_know_passes() -> None:
    assert ProxyResponse(799, [], []).status_code == 799


def test_an_answer_that_is_thrown_away_is_closed() -> None:
    closed: list[bool] = []

    class Content:
        def __iter__(self) -> Iterator[bytes]:
            return iter(())

        def close(self) -> None:
            closed.append(True)

    response = ProxyResponse(200, [], Content())
    assert closed == []
    del response
    assert closed == [True]


# -- pulling ---------------------------------------------------------------------------------


def _start(**more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": [], **more}


def test_a_call_that_fails_before_its_head_is_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def call(send: Any) -> None:
        raise ValueError("a fault")

    async def main() -> None:
        with pytest.raises(RuntimeError, match="without an answer"):
            await Pulled(call).head()

    asyncio.run(main())
    assert "the answer could not be sent" in caplog.text


def test_a_call_that_fails_after_its_head_is_broken_off(caplog: pytest.LogCaptureFixture) -> None:
    async def call(send: Any) -> None:
        await send(_start())
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise ValueError("a fault")

    async def main() -> None:
        pulled = Pulled(call)
        assert (await pulled.head())["status"] == 200
        assert await anext(pulled) == b"a"
        with pytest.raises(asyncio.CancelledError):
            await anext(pulled)
        pulled.close()

    asyncio.run(main())
    assert "the answer could not be sent" in caplog.text


def test_the_upstream_is_waited_with_while_django_does_not_pull() -> None:
    sent: list[bytes] = []

    async def call(send: Any) -> None:
        await send(_start())
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            sent.append(b"a")
        await send({"type": "http.response.body", "body": b""})

    async def main() -> None:
        pulled = Pulled(call)
        await pulled.head()
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(sent) == AHEAD
        assert b"".join([piece async for piece in pulled]) == b"a" * 100

    asyncio.run(main())


def test_whoever_stops_pulling_ends_the_call() -> None:
    ended: list[str] = []

    async def call(send: Any) -> None:
        await send(_start())
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    async def main() -> None:
        pulled = Pulled(call)
        await pulled.head()
        puller = asyncio.ensure_future(anext(pulled))
        await asyncio.sleep(0)
        puller.cancel()
        await asyncio.wait((puller,))
        assert puller.cancelled()
        assert ended == ["ended"]

    asyncio.run(main())


def test_a_file_that_django_has_closed_is_a_caller_that_has_left() -> None:
    async def main() -> None:
        file = io.BytesIO(b"body")
        file.close()
        assert (await receiver(file)())["type"] == "http.disconnect"

    asyncio.run(main())


def test_after_the_body_nothing_is_received_until_the_call_ends() -> None:
    async def main() -> None:
        receive = receiver(io.BytesIO(b"body"))
        assert await receive() == {"type": "http.request", "body": b"body", "more_body": False}
        waiting = asyncio.ensure_future(receive())
        await asyncio.wait((waiting,), timeout=0.05)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert waiting.cancelled()

    asyncio.run(main())
