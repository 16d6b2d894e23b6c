"""Several upstreams over real sockets, at both doors: who is asked, and what callers get."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import openai
import pytest

from ai_proxy_mw import (
    AIProxy,
    AIProxyMiddleware,
    AIProxyWSGIMiddleware,
    Circuit,
    MemoryCache,
    Price,
    Prices,
    Request,
    Retry,
    Timeouts,
    Upstream,
)
from ai_proxy_mw.testing import FakeUpstream
from tests.servers import serve_asgi, serve_wsgi

SAY = {"model": "fake-1", "messages": [{"role": "user", "content": "hello there"}]}
STREAM = {**SAY, "stream": True}
QUICK = Timeouts(first_byte=0.3, idle=0.4, total=5.0)


class House:
    """An app with a proxy before some fakes."""

    def __init__(
        self, url: str, proxy: AIProxy, fakes: dict[str, FakeUpstream], client: httpx.Client
    ) -> None:
        self.proxy = proxy
        self.fakes = fakes
        self.url = url
        self.client = client

    def post(self, body: dict[str, Any] = SAY, **headers: str) -> httpx.Response:
        return self.client.post("/chat/completions", json=body, headers=headers)

    def asked(self) -> dict[str, int]:
        return {name: len(fake.requests) for name, fake in self.fakes.items()}


@pytest.fixture(params=["asgi", "wsgi"])
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def house(door: str, *upstreams: dict[str, Any], **options: Any) -> Iterator[House]:
    """A proxy before one fake for each of these descriptions of an upstream."""
    with ExitStack() as stack:
        fakes = {}
        found = []
        for number, each in enumerate(upstreams):
            name = each.get("name", "ab"[number])
            fakes[name] = FakeUpstream()
            server = stack.enter_context(fakes[name].serve())
            base_url = server.base_url + each.get("below", "")
            more = {key: value for key, value in each.items() if key != "below"}
            arguments = {"name": name, "base_url": base_url, "timeouts": QUICK, **more}
            found.append(Upstream(**arguments))
        options.setdefault("anonymous", True)
        proxy = AIProxy(upstreams=found, **options)
        if door == "asgi":
            url = stack.enter_context(serve_asgi(AIProxyMiddleware(proxy=proxy)))
        else:
            url = stack.enter_context(serve_wsgi(AIProxyWSGIMiddleware(proxy=proxy)))
        client = stack.enter_context(httpx.Client(base_url=f"{url}/v1", timeout=20))
        yield House(url, proxy, fakes, client)


FIRST = {"name": "a", "api_key": "key-a", "priority": 0}
SECOND = {"name": "b", "api_key": "key-b", "auth": "x-api-key", "priority": 1}


@pytest.mark.parametrize("body", [SAY, STREAM], ids=["json", "stream"])
@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_another_upstream_answers_for_one_that_fails(
    door: str, body: dict[str, Any], status: int
) -> None:
    with house(door, FIRST, SECOND, retry=Retry(attempts=1)) as home:
        home.fakes["a"].fail(status)
        answer = home.post(body)
        assert answer.status_code == 200
        assert answer.headers["x-ai-proxy-upstream"] == "b"
        assert answer.headers["x-ai-proxy-attempts"] == "2"
        assert home.asked() == {"a": 1, "b": 1}


def test_each_upstream_gets_its_own_key_and_no_other(door: str) -> None:
    with house(door, FIRST, SECOND, retry=Retry(attempts=1)) as home:
        home.fakes["a"].fail(503)
        home.post(SAY, Authorization="Bearer of-the-caller")
        (first,), (second,) = home.fakes["a"].requests, home.fakes["b"].requests
        assert first.header("authorization") == "Bearer key-a"
        assert second.header("x-api-key") == "key-b"
        assert second.header("authorization") is None
        assert "key-a" not in repr(second.headers)
        assert first.body == second.body


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_the_caller_did_wrong_is_told_at_once(door: str, status: int) -> None:
    with house(door, FIRST, SECOND) as home:
        home.fakes["a"].fail(status, message="you did wrong")
        answer = home.post()
        assert answer.status_code == status
        assert answer.json()["error"]["message"] == "you did wrong"
        assert home.asked() == {"a": 1, "b": 0}


def test_one_upstream_is_asked_again_after_a_pause(door: str) -> None:
    with house(door, FIRST, retry=Retry(attempts=3, backoff=0.05)) as home:
        home.fakes["a"].fail(500, times=2)
        answer = home.post()
        assert answer.status_code == 200
        assert answer.headers["x-ai-proxy-attempts"] == "3"
        bodies = {seen.body for seen in home.fakes["a"].requests}
        assert len(bodies) == 1


def test_the_last_failure_is_told_as_the_upstream_told_it(door: str) -> None:
    with house(door, FIRST, retry=Retry(attempts=3, backoff=0.01)) as home:
        home.fakes["a"].fail(503, times=9, message="so sorry", headers={"x-request-id": "up-1"})
        answer = home.post()
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "so sorry"
        assert answer.headers["x-upstream-request-id"] == "up-1"
        assert answer.headers["x-ai-proxy-attempts"] == "3"


def test_retry_after_is_waited_for(door: str) -> None:
    with house(door, FIRST, retry=Retry(attempts=2, backoff=0.0)) as home:
        home.fakes["a"].fail(503, headers={"retry-after-ms": "400"})
        began = time.monotonic()
        assert home.post().status_code == 200
        assert time.monotonic() - began >= 0.4


def test_a_retry_after_beyond_the_callers_patience_is_not_waited_for(door: str) -> None:
    with house(door, FIRST, retry=Retry(attempts=3)) as home:
        home.fakes["a"].fail(503, times=9, headers={"retry-after": "20"})
        began = time.monotonic()
        answer = home.post(SAY, **{"X-Stainless-Timeout": "5"})
        assert answer.status_code == 503
        assert time.monotonic() - began < 3
        assert home.asked() == {"a": 1}


@pytest.mark.parametrize("kind", ["reset", "timeout"])
def test_what_may_have_been_worked_on_is_not_sent_twice(door: str, kind: str) -> None:
    with house(door, FIRST, SECOND) as home:
        fail(home.fakes["a"], kind)
        answer = home.post()
        assert answer.status_code == {"reset": 502, "timeout": 504}[kind]
        assert answer.headers["x-ai-proxy-upstream"] == "a"
        assert home.asked() == {"a": 1, "b": 0}


@pytest.mark.parametrize("kind", ["reset", "timeout"])
def test_the_owner_may_have_it_sent_twice(door: str, kind: str) -> None:
    retry = Retry(attempts=1, unsafe={"reset", "timeout"})
    with house(door, FIRST, SECOND, retry=retry) as home:
        fail(home.fakes["a"], kind)
        assert home.post().status_code == 200
        assert home.asked() == {"a": 1, "b": 1}


@pytest.mark.parametrize("kind", ["reset", "timeout"])
def test_the_callers_idempotency_key_makes_it_safe(door: str, kind: str) -> None:
    with house(door, FIRST, SECOND, retry=Retry(attempts=1, on={"reset", "timeout"})) as home:
        fail(home.fakes["a"], kind)
        answer = home.post(SAY, **{"Idempotency-Key": "once"})
        assert answer.status_code == 200
        assert home.fakes["b"].requests[0].header("idempotency-key") == "once"


def test_an_idempotency_key_is_added_where_the_upstream_takes_one(door: str) -> None:
    first = {**FIRST, "idempotency_key": True}
    with house(door, first, retry=Retry(attempts=3, backoff=0.01)) as home:
        home.fakes["a"].disconnect()
        assert home.post().status_code == 200
        keys = {seen.header("idempotency-key") for seen in home.fakes["a"].requests}
        assert len(home.fakes["a"].requests) == 2
        assert len(keys) == 1


def fail(fake: FakeUpstream, kind: str) -> None:
    if kind == "reset":
        fake.disconnect()
    else:
        fake.stall()


def test_an_upload_that_was_passed_on_is_not_sent_again_and_says_so(door: str) -> None:
    with house(door, FIRST, SECOND) as home:
        home.fakes["a"].disconnect(after="accept", path="/files")
        big = b"x" * 3_000_000
        answer = home.client.post("/files", data={"purpose": "batch"}, files={"file": big})
        assert answer.status_code == 502
        assert home.asked()["b"] == 0


def test_a_model_goes_to_the_upstream_that_has_it(door: str) -> None:
    first = {**FIRST, "models": ["gpt-*"]}
    second = {**SECOND, "models": {"fast": "claude-haiku", "claude-*": "claude-opus"}}
    with house(door, first, second) as home:
        for model, name, real in (
            ("gpt-4.1", "a", "gpt-4.1"),
            ("fast", "b", "claude-haiku"),
            ("claude-x", "b", "claude-opus"),
        ):
            answer = home.post({**SAY, "model": model})
            assert answer.headers["x-ai-proxy-upstream"] == name
            assert json.loads(home.fakes[name].requests[-1].body)["model"] == real
        answer = home.post({**SAY, "model": "llama"})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"


def test_another_model_answers_for_one_that_fails(door: str) -> None:
    first = {**FIRST, "models": ["gpt-4.1", "gpt-4o"]}
    second = {**SECOND, "models": ["claude-sonnet-4.5"]}
    fallback = {"gpt-4.1": ["gpt-4o", "claude-sonnet-4.5"]}
    with house(door, first, second, fallback=fallback, retry=Retry(attempts=1)) as home:
        home.fakes["a"].fail(500, times=2)
        answer = home.post({**SAY, "model": "gpt-4.1"})
        assert answer.status_code == 200
        assert answer.headers["x-ai-proxy-model"] == "claude-sonnet-4.5"
        models = [json.loads(seen.body)["model"] for seen in home.fakes["a"].requests]
        assert models == ["gpt-4.1", "gpt-4o"]
        assert json.loads(home.fakes["b"].requests[0].body)["model"] == "claude-sonnet-4.5"


def test_what_another_model_has_answered_is_not_kept(door: str) -> None:
    fallback = {"fake-1": ["fake-2"]}
    options: dict[str, Any] = {"fallback": fallback, "retry": Retry(attempts=1)}
    with house(door, FIRST, cache=MemoryCache(), **options) as home:
        home.fakes["a"].fail(500)
        assert home.post().headers["x-ai-proxy-model"] == "fake-2"
        assert "x-ai-proxy-model" not in home.post().headers
        assert home.post().headers["cache-status"].startswith("ai_proxy_mw; hit")
        assert home.asked() == {"a": 3}


def test_keys_take_turns_and_rest_when_they_are_told_to(door: str) -> None:
    first = {"name": "a", "keys": ["key-1", "key-2"]}
    with house(door, first, retry=Retry(attempts=1)) as home:
        home.fakes["a"].fail(429, headers={"retry-after": "30"})
        for _ in range(6):
            assert home.post().status_code == 200
        keys = [seen.header("authorization") for seen in home.fakes["a"].requests]
        assert len(keys) == 7
        assert set(keys[1:]) == {({"Bearer key-1", "Bearer key-2"} - {keys[0]}).pop()}


def test_a_failing_upstream_is_left_alone(door: str) -> None:
    circuit = Circuit(calls=4, open_for=60)
    with house(door, FIRST, SECOND, circuit=circuit, retry=Retry(attempts=1)) as home:
        home.fakes["a"].fail(500, times=100)
        for _ in range(20):
            assert home.post().status_code == 200
        assert home.asked() == {"a": 4, "b": 20}


def test_when_all_are_left_alone_that_is_told(door: str) -> None:
    circuit = Circuit(calls=2, open_for=60)
    with house(door, FIRST, circuit=circuit) as home:
        home.fakes["a"].fail(500, times=100)
        for _ in range(2):
            assert home.post().status_code == 500
        answer = home.post()
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "upstream_unavailable"
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert home.asked() == {"a": 2}


def test_a_stream_that_begins_with_an_error_has_failed(door: str) -> None:
    body = b'data: {"error":{"message":"overloaded","type":"server_error","code":null}}\n\n'
    headers = {"content-type": "text/event-stream"}
    with house(door, FIRST, SECOND, retry=Retry(attempts=1)) as home:
        home.fakes["a"].fail(200, body=body, headers=headers)
        answer = home.post(STREAM)
        assert "overloaded" not in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")
        assert answer.headers["x-ai-proxy-upstream"] == "b"


def test_an_error_behind_the_first_words_is_passed_on(door: str) -> None:
    with house(door, FIRST, SECOND, retry=Retry(unsafe={"reset", "timeout"})) as home:
        home.fakes["a"].disconnect(after="chunk:3")
        answer = home.post(STREAM)
        assert answer.headers["x-ai-proxy-upstream"] == "a"
        assert "event: error" in answer.text
        assert home.asked() == {"a": 1, "b": 0}


def test_a_silent_upstream_is_hedged(door: str) -> None:
    slow = Timeouts(first_byte=10)
    with house(door, {**FIRST, "timeouts": slow}, SECOND, hedge_after=0.1) as home:
        home.fakes["a"].stall()
        began = time.monotonic()
        answer = home.post()
        assert answer.status_code == 200
        assert time.monotonic() - began < 3
        assert answer.headers["x-ai-proxy-upstream"] == "b"
        home.fakes["a"].wait_for_disconnect()


def test_the_owner_may_choose(door: str) -> None:
    def route(request: Request) -> list[str] | str | None:
        chosen: dict[str, list[str] | str] = {"first": ["b", "a"], "only": "b"}
        return chosen.get(request.headers.get("x-pick") or "")

    with house(door, FIRST, SECOND, route=route, retry=Retry(attempts=1)) as home:
        assert home.post().headers["x-ai-proxy-upstream"] == "a"
        assert home.post(SAY, **{"x-pick": "first"}).headers["x-ai-proxy-upstream"] == "b"
        home.fakes["b"].fail(500, times=2)
        assert home.post(SAY, **{"x-pick": "first"}).headers["x-ai-proxy-upstream"] == "a"
        assert home.post(SAY, **{"x-pick": "only"}).status_code == 500


def test_deployments_stand_in_the_path(door: str) -> None:
    azure = {
        "name": "azure",
        "below": "/openai/deployments/{model}",
        "api_key": "key",
        "auth": "api-key",
        "query": {"api-version": "2024-10-21"},
    }
    with house(door, azure) as home:
        home.client.post("/chat/completions?api-version=old&x=1", json=SAY)
        (seen,) = home.fakes["azure"].requests
        assert seen.path.endswith("/openai/deployments/fake-1/chat/completions")
        assert seen.header("api-key") == "key"
        for odd in ("../x", "..", "a/b", "a%2fb", "a?b", "é"):
            answer = home.post({**SAY, "model": odd})
            assert answer.json()["error"]["code"] == "model_not_found"
        assert len(home.fakes["azure"].requests) == 1


def test_an_owners_function_signs(door: str) -> None:
    async def sign(key: str | None) -> dict[str, str]:
        return {"Authorization": f"Token {key}"}

    with house(door, {**FIRST, "auth": sign}) as home:
        home.post()
        assert home.fakes["a"].requests[0].header("authorization") == "Token key-a"


def test_what_was_sent_in_vain_is_charged(door: str) -> None:
    retry = Retry(attempts=1, unsafe={"timeout"})
    prices = Prices({"fake-1": Price(input=1.0, output=2.0)})
    options: dict[str, Any] = {"limits": ["100000 tokens/day", "5 usd/day"], "prices": prices}
    with house(door, FIRST, SECOND, retry=retry, limits_endpoint=True, **options) as home:
        plain = used(home, home.post)
        home.fakes["a"].stall()
        twice = used(home, home.post)
        assert plain["tokens"] < twice["tokens"] < 2 * plain["tokens"] + 20
        home.fakes["a"].fail(500)
        assert used(home, home.post) == plain


def used(home: House, call: Any) -> dict[str, float]:
    before = standings(home)
    assert call().status_code == 200
    after = standings(home)
    return {of: round(before[of] - after[of], 9) for of in before}


def standings(home: House) -> dict[str, float]:
    data = home.client.get("/_limits").json()["data"]
    assert all(not each["reserved"] for each in data)
    return {each["of"]: each["remaining"] for each in data}


def test_the_official_client_reads_what_a_second_upstream_answers(door: str) -> None:
    with ExitStack() as stack:
        home = stack.enter_context(house(door, FIRST, SECOND, retry=Retry(attempts=1)))
        client = stack.enter_context(
            openai.OpenAI(base_url=f"{home.url}/v1", api_key="any", max_retries=0)
        )
        home.fakes["a"].fail(500, times=2)
        answer = client.chat.completions.create(model="fake-1", messages=SAY["messages"])  # type: ignore[arg-type]
        assert answer.choices[0].message.content == "You said: hello there"
        stream: Any = client.chat.completions.create(
            model="fake-1",
            messages=SAY["messages"],  # type: ignore[arg-type]
            stream=True,
        )
        words = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(words) == "You said: hello there"


def test_who_leaves_in_a_pause_leaves_no_place_taken(door: str) -> None:
    first = {**FIRST, "max_concurrent": 1}
    with house(door, first, retry=Retry(attempts=2, backoff=0.0)) as home:
        home.fakes["a"].fail(503, headers={"retry-after-ms": "1500"})
        with pytest.raises(httpx.ReadTimeout):
            home.client.post("/chat/completions", json=SAY, timeout=0.3)
        assert home.post().status_code == 200
        lane = home.proxy._ways.lanes[0]
        deadline = time.monotonic() + 5
        while lane.in_flight and time.monotonic() < deadline:
            time.sleep(0.02)
        assert lane.in_flight == 0


def test_who_waits_for_another_try_keeps_nobody_from_his_first(door: str) -> None:
    first = {**FIRST, "max_concurrent": 1}
    retry = Retry(attempts=2, backoff=0.0)
    with house(door, first, retry=retry) as home, ThreadPoolExecutor(1) as pool:
        home.fakes["a"].fail(503, headers={"retry-after-ms": "1500"})
        waiting = pool.submit(home.post)
        home.fakes["a"].wait_for_request()
        time.sleep(0.1)
        began = time.monotonic()
        assert home.post().headers["x-ai-proxy-attempts"] == "1"
        assert time.monotonic() - began < 1
        assert waiting.result().headers["x-ai-proxy-attempts"] == "2"


@pytest.mark.parametrize("model", ["../../admin?x=", "a b", "x\r\nX-Evil: 1", "é", "x" * 300])
def test_no_choice_of_the_owner_lets_a_model_name_another_path(door: str, model: str) -> None:
    azure = {"name": "azure", "below": "/deployments/{model}"}
    with house(door, azure, SECOND, route=lambda request: request.headers.get("x-to")) as home:
        answer = home.post({**SAY, "model": model}, **{"x-to": "azure"})
        assert answer.json()["error"]["code"] == "model_not_found"
        assert home.client.get("/models/a%2Fb", headers={"x-to": "azure"}).status_code >= 400
        assert home.asked() == {"azure": 0, "b": 0}
        assert home.post(SAY, **{"x-to": "azure"}).headers["x-ai-proxy-upstream"] == "azure"


def test_a_call_that_is_too_large_for_all_keys_does_not_close_all_of_them(door: str) -> None:
    with house(door, {"name": "a", "keys": ["key-1", "key-2"]}) as home:
        home.fakes["a"].fail(429, times=2, headers={"retry-after": "60"})
        assert home.post().status_code == 429
        assert home.asked() == {"a": 2}
        assert home.post().status_code == 200


def test_the_only_one_that_has_a_model_does_not_rest(door: str) -> None:
    with house(door, {**FIRST, "models": ["x"]}, {**SECOND, "models": ["y"]}) as home:
        home.fakes["a"].fail(429, headers={"retry-after": "60"})
        assert home.post({**SAY, "model": "x"}).status_code == 429
        assert home.post({**SAY, "model": "x"}).status_code == 200


def test_a_short_deadline_says_nothing_about_the_upstream(door: str) -> None:
    def deadline(request: Request) -> float:
        return float(request.headers.get("x-within") or 5)

    circuit = Circuit(calls=2, open_for=60)
    with house(door, FIRST, deadline=deadline, circuit=circuit) as home:
        home.fakes["a"].stall(times=3)
        for _ in range(3):
            assert home.post(SAY, **{"x-within": "0.02"}).status_code == 504
        assert home.post().status_code == 200


def test_a_process_that_stops_does_not_blame_the_upstream(door: str) -> None:
    patient = {**FIRST, "timeouts": Timeouts(first_byte=9, idle=9)}
    circuit = Circuit(calls=1, ratio=0.1)
    with house(door, patient, circuit=circuit, drain=0.1) as home, ThreadPoolExecutor(1) as pool:
        home.fakes["a"].stall(at="chunk:3")
        stream = pool.submit(home.post, STREAM)
        home.fakes["a"].wait_for_request()
        time.sleep(0.3)
        home.proxy.begin_shutdown()
        assert "event: error" in stream.result().text
        assert home.proxy._ways.lanes[0].breaker.state == "closed"


def test_an_answer_that_takes_too_long_in_all_does_not_blame_the_upstream(door: str) -> None:
    brief = {**FIRST, "timeouts": Timeouts(total=0.5)}
    with house(door, brief, circuit=Circuit(calls=1, ratio=0.1)) as home:
        home.fakes["a"].stall(at="chunk:3")
        assert "upstream_timeout" in home.post(STREAM).text
        assert home.proxy._ways.lanes[0].breaker.state == "closed"


def test_a_hedged_call_is_charged_for_the_one_that_nobody_needed(door: str) -> None:
    patient = {**FIRST, "timeouts": Timeouts(first_byte=9)}
    options: dict[str, Any] = {"limits": ["100000 tokens/day"], "limits_endpoint": True}
    with house(door, patient, SECOND, hedge_after=0.1, **options) as home:
        plain = used(home, home.post)
        home.fakes["a"].stall()
        assert used(home, home.post)["tokens"] > plain["tokens"]


def test_what_was_never_sent_is_not_charged(door: str) -> None:
    def route(request: Request) -> str:
        return {"on": "a"}[request.headers.get("x-to") or ""]

    options: dict[str, Any] = {"limits": ["100000 tokens/day"], "limits_endpoint": True}
    with house(door, FIRST, route=route, **options) as home:
        assert home.post().status_code == 500
        assert home.client.get("/_limits").json()["data"][0]["remaining"] == 100000


def test_who_leaves_is_charged_for_what_was_sent(door: str) -> None:
    patient = {**FIRST, "max_concurrent": 1, "timeouts": Timeouts(first_byte=9)}
    options: dict[str, Any] = {"limits": ["100000 tokens/day"], "limits_endpoint": True}
    with house(door, patient, **options) as home:
        home.fakes["a"].stall()
        with pytest.raises(httpx.ReadTimeout):
            home.client.post("/chat/completions", json=SAY, timeout=0.3)
        home.fakes["a"].wait_for_disconnect()
        deadline = time.monotonic() + 5
        while (now := home.client.get("/_limits").json()["data"][0])["reserved"]:
            assert time.monotonic() < deadline
        assert 99980 < now["remaining"] < 100000


@pytest.mark.parametrize("odd", ["API-Version=old", "x=1;api-version=old", "api%2Dversion=old"])
def test_the_owners_query_is_not_the_callers_to_say(door: str, odd: str) -> None:
    with house(door, {**FIRST, "query": {"api-version": "1"}}) as home:
        home.client.post(f"/chat/completions?{odd}&y=2", json=SAY)
        assert "old" not in home.fakes["a"].requests[0].query
        assert home.fakes["a"].requests[0].query.endswith("y=2")


@pytest.mark.parametrize(
    "auth", ["api-key", lambda key: {"Api-Key": key}], ids=["name", "function"]
)
def test_no_forwarded_header_stands_beside_our_credential(door: str, auth: Any) -> None:
    with house(door, {**FIRST, "auth": auth}, forward_headers=["api-key"]) as home:
        home.post(SAY, **{"Api-Key": "of-the-caller"})
        lines = home.fakes["a"].requests[0].headers
        assert [value for name, value in lines if name.lower() == b"api-key"] == [b"key-a"]
