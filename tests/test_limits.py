"""Limits and budgets over a real socket, through both doors."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ai_proxy_mw import AIProxy, Identity, Limit, Request, Upstream
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.conftest import IN_PROCESS


@dataclass
class Limited:
    v1: str
    fake: FakeUpstream
    proxy: AIProxy
    client: httpx.Client

    def chat(self, user: str = "alice", **more: Any) -> httpx.Response:
        headers = {"x-user": user, **more.pop("headers", {})}
        return self.client.post("/chat/completions", json=question(**more), headers=headers)

    def remaining(self, user: str = "alice") -> list[int]:
        return [standing.remaining for standing in self.proxy.limits.status_sync(user)]

    def until_remaining(self, expected: list[int], user: str = "alice") -> None:
        """What is settled is settled behind the answer, in a moment."""
        deadline = time.monotonic() + 5
        while self.remaining(user) != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.remaining(user) == expected


def question(**more: Any) -> dict[str, Any]:
    body = {"model": "fake-1", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
    return {**body, **more}


async def by_header(request: Request) -> str | None:
    return request.headers.get("x-user")


Serve = Callable[..., AbstractContextManager[Limited]]


@pytest.fixture(autouse=True)
def _within_one_minute() -> None:
    """Windows are aligned to the clock of the machine, which a server cannot be given another of;
    a test that begins shortly before a border waits for it."""
    left = 60 - time.time() % 60
    if left < 2:
        time.sleep(left)


@pytest.fixture(params=IN_PROCESS)
def serve(request: pytest.FixtureRequest) -> Serve:
    """Serves a proxy with limits, behind each of the doors in turn."""

    @contextmanager
    def open_it(*limits: str | Limit, **options: Any) -> Iterator[Limited]:
        fake = FakeUpstream()
        upstream = Upstream(base_url=FAKE_BASE_URL, transport=fake.transport())
        given = {"upstream": upstream, "identify": by_header, "limits": limits, **options}
        proxy = AIProxy(**given)
        with (
            IN_PROCESS[request.param](proxy) as url,
            httpx.Client(base_url=f"{url}/v1", timeout=30) as client,
        ):
            yield Limited(f"{url}/v1", fake, proxy, client)

    return open_it


def test_as_many_as_may_and_then_429(serve: Serve) -> None:
    with serve("3/minute") as limited:
        answers = [limited.chat() for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        for left, answer in zip((2, 1, 0, 0), answers, strict=True):
            assert answer.headers["x-ratelimit-limit-requests"] == "3"
            assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
            assert answer.headers["ratelimit-policy"] == '"requests-60s";q=3;w=60'
            assert answer.headers["ratelimit"].startswith(f'"requests-60s";r={left};t=')
        refused = answers[-1]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.json()["error"]["type"] == "requests"
        assert "3 requests" in refused.json()["error"]["message"]
        assert limited.chat("bob").status_code == 200
        assert len(limited.fake.requests) == 4


def test_who_is_refused_uploads_nothing(serve: Serve) -> None:
    with serve("1/minute") as limited:
        assert limited.chat().status_code == 200
        address = urlsplit(limited.v1)
        assert address.hostname
        assert address.port
        with socket.create_connection((address.hostname, address.port), timeout=5) as sock:
            sock.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-user: alice\r\n"
                b"content-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
            )
            assert sock.recv(100).startswith(b"HTTP/1.1 429")


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_reserved_and_settled(serve: Serve, stream: bool) -> None:
    with serve(Limit("1000/minute", of="tokens")) as limited:
        more: dict[str, Any] = {"stream": stream}
        if stream:
            more["stream_options"] = {"include_usage": True}
        answer = limited.chat(**more)
        assert answer.status_code == 200
        assert 900 <= int(answer.headers["x-ratelimit-remaining-tokens"]) < 950
        assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
        limited.until_remaining([1000 - _used(answer)])


def _used(answer: httpx.Response) -> int:
    """The tokens that an answer says were used."""
    if answer.headers["content-type"].startswith("application/json"):
        total: int = answer.json()["usage"]["total_tokens"]
        return total
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    return int(json.loads(events[-1])["usage"]["total_tokens"])


@pytest.mark.parametrize("of", ["tokens", "usd"])
def test_no_two_calls_pass_on_one_remainder(serve: Serve, of: Any) -> None:
    rate = "600/minute" if of == "tokens" else "0.0048/day"  # of gpt-4.1, 8 micro-dollars a token
    with serve(Limit(rate, of=of)) as limited, limited.fake.hold("headers") as gate:
        with ThreadPoolExecutor(40) as pool:
            calls = [pool.submit(limited.chat, model="gpt-4.1") for _ in range(40)]
            gate.wait_until_held(5, timeout=20)
            deadline = time.monotonic() + 20
            while sum(call.done() for call in calls) + gate.waiting < 40:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            gate.open()
            answers = [call.result() for call in calls]
        admitted = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(admitted) + len(refused) == 40
        assert 5 <= len(admitted) <= 600 // 52
        assert len(limited.fake.requests) == len(admitted)
        codes = {answer.json()["error"]["code"] for answer in refused}
        assert codes == {"rate_limit_exceeded" if of == "tokens" else "insufficient_quota"}
        used = sum(_used(answer) for answer in admitted)
        limited.until_remaining([600 - used if of == "tokens" else 4800 - 8 * used])


def test_a_cancelled_stream_is_paid_for_and_no_more(serve: Serve) -> None:
    with serve(Limit("1000/minute", of="tokens"), "5 concurrent") as limited:
        with limited.fake.hold() as gate:
            url = f"{limited.v1}/chat/completions"
            headers = {"x-user": "alice"}
            body = question(stream=True)
            with httpx.stream("POST", url, json=body, headers=headers) as answer:
                gate.release(3)
                next(answer.iter_raw())
                assert limited.remaining()[1] == 4
            limited.fake.wait_for_disconnect()
        deadline = time.monotonic() + 5
        while limited.remaining()[0] < 985 and time.monotonic() < deadline:
            time.sleep(0.01)
        left, places = limited.remaining()
        assert 985 <= left < 1000  # what was asked and the words that came, by estimate
        assert places == 5
        assert limited.proxy.limits.reserved == {}


@pytest.mark.parametrize("fault", ["unreachable", "status", "cut"])
def test_what_failed_is_given_back(serve: Serve, fault: str) -> None:
    options: dict[str, Any] = {}
    if fault == "unreachable":
        options["upstream"] = "http://127.0.0.1:1/v1"
    with serve(Limit("1000/minute", of="tokens"), "10/minute", **options) as limited:
        if fault == "status":
            limited.fake.fail(500)
        if fault == "cut":
            limited.fake.disconnect(after="request")
        answer = limited.chat()
        assert answer.status_code >= 500
        assert answer.headers["x-ratelimit-remaining-requests"] == "9"
        assert "x-ratelimit-remaining-tokens" in answer.headers
        if fault == "cut":  # it may have worked on what it was asked
            deadline = time.monotonic() + 5
            while limited.remaining()[0] < 980 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert 980 <= limited.remaining()[0] < 1000
        else:
            limited.until_remaining([1000, 9])


def test_calls_under_way_are_counted_until_they_end(serve: Serve) -> None:
    with serve(Limit("2", of="concurrent")) as limited:
        with limited.fake.hold("headers") as gate, ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(limited.chat) for _ in range(2)]
            gate.wait_until_held(2)
            refused = limited.chat()
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
            assert "2 calls under way" in refused.json()["error"]["message"]
            assert limited.remaining() == [0]
            gate.open()
            assert [call.result().status_code for call in calls] == [200, 200]
        limited.until_remaining([2])
        assert limited.chat().status_code == 200


def test_a_refused_call_counts_nowhere(serve: Serve) -> None:
    with serve("100/minute", "1/hour", "5 concurrent") as limited:
        assert [limited.chat().status_code for _ in range(4)] == [200, 429, 429, 429]
        limited.until_remaining([99, 0, 5])


def test_limits_of_their_own(serve: Serve) -> None:
    async def identify(request: Request) -> Identity:
        user = request.headers.get("x-user") or ""
        return Identity(user, limits=["5/minute"] if user == "vip" else None)

    with serve("1/minute", identify=identify) as limited:
        assert [limited.chat("vip").status_code for _ in range(6)] == [200] * 5 + [429]
        assert [limited.chat("bob").status_code for _ in range(2)] == [200, 429]
        vip = Identity("vip", limits=["5/minute"])
        [standing] = limited.proxy.limits.status_sync(vip)
        assert (standing.remaining, standing.limit.amount) == (0, 5)


def test_limits_by_a_function(serve: Serve) -> None:
    def limits(request: Request) -> list[str]:
        return [] if request.subject == "root" else ["1/minute"]

    with serve(limits=limits) as limited:
        assert [limited.chat("root").status_code for _ in range(3)] == [200] * 3
        assert [limited.chat("bob").status_code for _ in range(2)] == [200, 429]


def test_per_what_is_counted(serve: Serve) -> None:
    def team(request: Request) -> str | None:
        return request.headers.get("x-team")

    by_team = Limit("2/minute", per=team)
    by_model = Limit("1/minute", per="subject+model", models=["gpt-*"])
    with serve(by_team, by_model) as limited:
        for user in ("a", "b"):
            assert limited.chat(user, headers={"x-team": "red"}).status_code == 200
        assert limited.chat("c", headers={"x-team": "red"}).status_code == 429
        assert limited.chat("c", headers={"x-team": "blue"}).status_code == 200
        statuses = [
            limited.chat(user, model=model).status_code
            for user, model in [("a", "gpt-1"), ("a", "gpt-1"), ("a", "gpt-2"), ("b", "gpt-1")]
        ]
        assert statuses == [200, 429, 200, 200]
        assert [limited.chat().status_code for _ in range(3)] == [200] * 3


def test_per_address_and_per_model(serve: Serve) -> None:
    with serve(Limit("2/minute", per="ip")) as limited:
        assert [limited.chat(user).status_code for user in "abc"] == [200, 200, 429]
        [standing] = limited.proxy.limits.status_sync("a", ip="127.0.0.1")
        assert standing.remaining == 0
        assert limited.proxy.limits.status_sync("a") == []
    with serve(Limit("1/minute", per="model")) as limited:
        assert [limited.chat(user).status_code for user in "ab"] == [200, 429]
        assert limited.chat(model="fake-2").status_code == 200


def test_only_the_endpoints_that_are_named_count(serve: Serve) -> None:
    with serve(Limit("1/minute", endpoints=["POST *"])) as limited:
        headers = {"x-user": "alice"}
        for _ in range(3):
            answer = httpx.get(f"{limited.v1}/models", headers=headers)
            assert answer.status_code == 200
        assert [limited.chat().status_code for _ in range(2)] == [200, 429]


def test_a_moving_window(serve: Serve) -> None:
    with serve(Limit("2/minute", strategy="moving")) as limited:
        answers = [limited.chat() for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 50 < int(answers[-1].headers["retry-after"]) <= 60


def test_money_whose_amount_nobody_knows_is_not_spent(serve: Serve) -> None:
    with serve(Limit("5/day", of="usd")) as limited:
        refused = limited.chat(model="never-heard-of")
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "price_unknown"
        upload = httpx.post(
            f"{limited.v1}/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("a.wav", b"RIFF")},
            headers={"x-user": "alice"},
        )
        assert upload.status_code == 403
        listed = httpx.get(f"{limited.v1}/models", headers={"x-user": "alice"})
        assert listed.status_code == 200
        assert limited.remaining() == [5_000_000]


def test_a_call_larger_than_the_limit_says_so(serve: Serve) -> None:
    with serve(Limit("100/minute", of="output_tokens"), Limit("0.01/day", of="usd")) as limited:
        answer = limited.chat(model="gpt-4.1", max_tokens=101)
        assert answer.status_code == 429
        assert "101 output tokens, which is more than the limit" in answer.text
        assert answer.headers["retry-after"]
        answer = limited.chat(model="gpt-4.1", max_tokens=90, n=128)
        assert answer.status_code == 429


def test_the_upstreams_own_limits_are_not_the_callers(serve: Serve) -> None:
    with serve("5/minute") as limited:
        limited.fake.fail(429, headers={"x-ratelimit-remaining-requests": "77"})
        answer = limited.chat()
        assert answer.status_code == 429
        assert answer.headers.get_list("x-ratelimit-remaining-requests") == ["4"]


def test_callers_may_ask_where_allowed(serve: Serve) -> None:
    with serve("5/minute", "100 tokens/hour", limits_endpoint=True) as limited:
        assert limited.chat().status_code == 200
        limited.until_remaining([4, 100 - _used(limited.chat("bob"))])
        answer = httpx.get(f"{limited.v1}/_limits", headers={"x-user": "alice"})
        assert answer.headers["cache-control"] == "no-store"
        told = answer.json()["data"]
        assert [(each["limit"], each["remaining"]) for each in told] == [
            ("5/minute", 4),
            ("100/hour", limited.remaining()[1]),
        ]
        assert httpx.head(f"{limited.v1}/_limits", headers={"x-user": "alice"}).content == b""
        assert httpx.get(f"{limited.v1}/_limits").status_code == 401
        limited.proxy.limits.reset_sync("alice")
        assert limited.remaining() == [5, 100]
    with serve("5/minute") as limited:
        answer = httpx.get(f"{limited.v1}/_limits", headers={"x-user": "alice"})
        assert answer.status_code == 404
    with serve(limits=lambda request: ["7/minute"], limits_endpoint=True) as limited:
        assert limited.chat().status_code == 200
        answer = httpx.get(f"{limited.v1}/_limits", headers={"x-user": "alice"})
        assert [each["remaining"] for each in answer.json()["data"]] == [6]


def test_apps_of_two_names_count_apart(serve: Serve) -> None:
    from ai_proxy_mw.stores.local import LocalStorage

    storage = LocalStorage()
    own, shared = Limit("2/minute"), Limit("3/minute", shared=True, per="ip")
    with (
        serve(own, shared, limits_storage=storage, name="shop") as shop,
        serve(own, shared, limits_storage=storage, name="office") as office,
    ):
        assert [shop.chat().status_code for _ in range(3)] == [200, 200, 429]
        assert [office.chat().status_code for _ in range(2)] == [200, 429]


def test_an_uncounted_method_waits_for_nobody(serve: Serve) -> None:
    with serve("1/minute") as limited:
        assert limited.chat().status_code == 200
        options = httpx.options(f"{limited.v1}/chat/completions")
        assert options.status_code == 204
        assert "ratelimit" not in options.headers


def test_a_caller_that_leaves_frees_its_place(serve: Serve) -> None:
    with serve(Limit("1", of="concurrent")) as limited, limited.fake.hold("headers") as gate:
        left = threading.Event()

        def leave() -> None:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(
                    f"{limited.v1}/chat/completions",
                    json=question(),
                    headers={"x-user": "alice"},
                    timeout=0.5,
                )
            left.set()

        thread = threading.Thread(target=leave)
        thread.start()
        gate.wait_until_held()
        assert limited.remaining() == [0]
        assert left.wait(10)
        thread.join()
        limited.until_remaining([1])
