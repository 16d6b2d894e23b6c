"""Tracing that fails: the call goes on."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ai_proxy_mw import AIProxy, AIProxyMiddleware, Record, Request, Upstream
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.servers import serve_asgi

CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "Say it"}]}


class _Span:
    def __init__(self, fails: str) -> None:
        self._fails = fails
        self.records: list[Record] = []

    def headers(self) -> Any:
        if self._fails == "headers":
            raise ValueError("headers")
        return [(b"traceparent", b"00-ours")]

    def end(self, record: Record) -> None:
        self.records.append(record)
        if self._fails == "end":
            raise ValueError("end")


class _Tracing:
    def __init__(self, fails: str = "") -> None:
        self._fails = fails
        self.spans: list[_Span] = []

    def begin(self, request: Request) -> _Span:
        if self._fails == "begin":
            raise ValueError("begin")
        self.spans.append(_Span(self._fails))
        return self.spans[-1]


@pytest.mark.parametrize("fails", ["begin", "headers", "end", ""])
def test_a_call_is_answered_whatever_its_tracing_does(
    fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeUpstream()
    tracing = _Tracing(fails)
    proxy = AIProxy(
        upstream=Upstream(base_url=FAKE_BASE_URL, transport=fake.transport()),
        anonymous=True,
        tracing=tracing,
        stats=False,
        access_log=False,
        forward_headers=["traceparent"],
    )
    with serve_asgi(AIProxyMiddleware(proxy=proxy)) as url:
        answer = httpx.post(
            f"{url}/v1/chat/completions", json=CHAT, headers={"traceparent": "00-theirs"}
        )
    assert answer.status_code == 200
    sent = [value for name, value in fake.requests[0].headers if name == b"traceparent"]
    assert sent == ([b"00-theirs"] if fails in ("begin", "headers") else [b"00-ours"])
    assert [len(each.records) for each in tracing.spans] == ([] if fails == "begin" else [1])
    assert ("ValueError" in caplog.text) == bool(fails)
