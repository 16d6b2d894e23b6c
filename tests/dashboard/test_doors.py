"""The dashboard of a real proxy, through both doors."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from ai_proxy_mw import CORS, AIProxy, AIProxyMiddleware, MemoryCache
from ai_proxy_mw.testing import FakeUpstream
from tests.conftest import IN_PROCESS
from tests.dashboard.house import signed_in
from tests.metrics.calls import Wrapped
from tests.servers import serve_asgi

ORIGIN = "https://app.example"
CHAT = {"model": "=cmd", "messages": [{"role": "user", "content": "the prompt"}]}


@pytest.fixture(params=IN_PROCESS)
def client(request: pytest.FixtureRequest, fake: FakeUpstream) -> Iterator[httpx.Client]:
    with fake.serve() as upstream:
        proxy = AIProxy(
            upstream=upstream.base_url,
            api_keys={"alice": "sk-alice"},
            limits=["5/hour"],
            cors=CORS(allow_origins=[ORIGIN]),
            dashboard="/ai",
            dashboard_identify=signed_in,
        )
        with IN_PROCESS[request.param](proxy) as url, httpx.Client(base_url=url) as client:
            yield client


def test_calls_are_seen_by_who_may_see_them(client: httpx.Client) -> None:
    key = {"authorization": "Bearer sk-alice"}
    for _ in range(5):
        assert client.post("/v1/chat/completions", json=CHAT, headers=key).status_code == 200
    # Neither a key of the API nor an allowed origin lets anybody see this.
    for path in ("", "/data", "/calls.csv", "/nothing"):
        refused = client.get(f"/ai{path}", headers={**key, "origin": ORIGIN})
        assert refused.status_code == 401
        assert "access-control-allow-origin" not in refused.headers
    client.cookies.set("admin", "me")
    answer = client.get("/ai/data?window=1h&by=subject")
    told = answer.json()
    assert (told["report"]["total"]["requests"], told["report"]["rows"][0]["name"]) == (5, "alice")
    assert {(each["subject"], each["model"]) for each in told["recent"]} == {("alice", "=cmd")}
    assert (told["limits"][0]["who"], told["limits"][0]["remaining"]) == ("alice", 0)
    assert told["upstreams"][0]["state"] == "closed"
    assert "the prompt" not in answer.text
    assert ",'=cmd," in client.get("/ai/calls.csv").text


def test_a_part_of_the_numbers_is_not_told_as_all_of_them() -> None:
    store = Wrapped(MemoryCache())
    proxy = AIProxy(
        upstream="http://localhost:1/v1",
        anonymous=True,
        stats=store,
        dashboard="/ai",
        dashboard_identify=signed_in,
    )
    url_of = serve_asgi(AIProxyMiddleware(proxy=proxy))
    with url_of as url, httpx.Client(base_url=url, cookies={"admin": "me"}) as client:
        assert client.get("/ai/data").json()["report"]["total"]["requests"] == 0
        store.down = True
        assert client.get("/ai/data").json()["report"] is None
        assert client.get("/ai/stats.csv").status_code == 503


def test_methods_and_paths(client: httpx.Client) -> None:
    client.cookies.set("admin", "me")
    page = client.get("/ai")
    assert "<title>AI proxy</title>" in page.text
    head = client.head("/ai/")
    assert head.content == b""
    assert head.headers["content-length"] == page.headers["content-length"]
    assert client.post("/ai/data", content=b"x").status_code == 405
    assert client.get("/ai/..%2fdata").status_code == 404
    beside = client.get("/aix")  # is the app's
    assert "content-security-policy" not in beside.headers
