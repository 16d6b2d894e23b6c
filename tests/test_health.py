"""Whether calls can be answered, for load balancers and for the owner, through both doors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from ai_proxy_mw import CORS, AIProxy, Record, Upstream
from ai_proxy_mw._circuit import Circuit
from ai_proxy_mw._retry import Retry
from ai_proxy_mw.testing import FakeUpstream
from tests.conftest import IN_PROCESS

CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}
ORIGIN = "https://app.example"


class Served:
    def __init__(self, client: httpx.Client, proxy: AIProxy, fakes: list[FakeUpstream]) -> None:
        self.client = client
        self.proxy = proxy
        self.fakes = fakes

    def health(self, **more: Any) -> httpx.Response:
        return self.client.get("/v1/_health", **more)

    def chat(self) -> int:
        key = {"authorization": "Bearer sk-alice"}
        return self.client.post("/v1/chat/completions", json=CHAT, headers=key).status_code


@pytest.fixture(params=IN_PROCESS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serve(request.param, health_endpoint=True) as served:
        yield served


@contextmanager
def serve(kind: str, **options: Any) -> Iterator[Served]:
    fakes = [FakeUpstream(), FakeUpstream()]
    with fakes[0].serve() as first, fakes[1].serve() as second:
        proxy = AIProxy(
            upstreams=[
                Upstream(name="one", base_url=first.base_url, keys=["a", "b"]),
                Upstream(name="two", base_url=second.base_url, priority=1),
            ],
            circuit=Circuit(calls=1, ratio=0.5, open_for=60.0),
            retry=Retry(attempts=1),
            api_keys={"alice": "sk-alice"},
            cors=CORS(allow_origins=[ORIGIN]),
            **options,
        )
        with IN_PROCESS[kind](proxy) as url, httpx.Client(base_url=url, verify=False) as client:
            yield Served(client, proxy, fakes)


def test_it_goes_from_ready_to_down(served: Served) -> None:
    assert _told(served.health()) == (200, "ready")
    one, two = served.fakes
    one.fail(500)
    assert served.chat() == 200  # by the other key
    assert _told(served.health()) == (200, "ready")
    one.fail(500)
    assert served.chat() == 200  # by the other upstream
    assert _told(served.health()) == (200, "degraded")
    two.fail(500)
    assert served.chat() == 500
    down = served.health()
    assert _told(down) == (503, "down")
    assert 0 < int(down.headers["retry-after"]) <= 60
    assert served.chat() == 503
    head = served.client.head("/v1/_health")
    assert (head.status_code, head.content) == (503, b"")


def _told(answer: httpx.Response) -> tuple[int, str]:
    assert set(answer.json()) == {"status"}
    assert answer.headers["cache-control"] == "no-store"
    assert ("retry-after" in answer.headers) == (answer.status_code == 503)
    return answer.status_code, answer.json()["status"]


def test_nobody_needs_a_key_and_no_other_method_is_taken(served: Served) -> None:
    lines = {"origin": ORIGIN, "sec-fetch-site": "cross-site"}
    answer = served.health(headers=lines)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "x-request-id" in answer.headers
    assert "x-ratelimit-limit-requests" not in answer.headers
    assert served.client.post("/v1/_health", headers=lines).status_code == 405
    assert served.client.get("/v1/models").status_code == 401
    assert [fake.requests for fake in served.fakes] == [[], []]


@pytest.mark.parametrize("kind", IN_PROCESS)
def test_it_is_off_unless_it_is_asked_for(kind: str) -> None:
    with serve(kind) as served:
        assert served.health().status_code != 200
        assert served.health().json() != {"status": "ready"}


def test_the_owner_sees_each_lane(served: Served) -> None:
    before = served.proxy.upstream_stats()
    assert [(each.name, each.state, each.calls) for each in before] == [
        ("one#1", "closed", 0),
        ("one#2", "closed", 0),
        ("two", "closed", 0),
    ]
    served.fakes[0].fail(500)
    served.fakes[0].fail(429, headers={"retry-after": "30"})
    assert served.chat() == 200
    after = {each.state: each for each in served.proxy.upstream_stats()}
    assert set(after) == {"open", "cooling", "closed"}
    assert (after["open"].opened, after["cooling"].opened) == (1, 0)
    assert 0 < after["cooling"].wait <= 30 < after["open"].wait <= 60
    closed = after["closed"]
    assert (closed.name, closed.calls, closed.failures) == ("two", 1, 0)
    assert (closed.in_flight, closed.wait) == (0, 0.0)
    assert "sk-" not in repr(served.proxy.upstream_stats())


@pytest.mark.parametrize("kind", IN_PROCESS)
def test_it_is_down_while_it_stops(kind: str) -> None:
    records: list[Record] = []
    with serve(kind, health_endpoint=True, on_record=[records.append]) as served:
        served.proxy.begin_shutdown()
        answer = served.health()
        assert (answer.status_code, answer.json()) == (503, {"status": "down"})
        assert answer.headers["retry-after"] == "5"
        assert served.chat() == 503
        until = time.monotonic() + 10
        while not records and time.monotonic() < until:
            time.sleep(0.005)
    # Who watches over us makes no calls, then as little as ever.
    assert [each.endpoint for each in records] == ["POST /chat/completions"]
