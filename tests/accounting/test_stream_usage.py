"""Streams are settled to what their upstream reports, over real sockets and at both doors, and who
has not asked for the report does not see it."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

from ai_proxy_mw import AIProxy, Limit, MemoryCache, Price, Prices, Retry, Upstream
from ai_proxy_mw.accounting.estimate import estimate
from ai_proxy_mw.accounting.readers import reader_for
from ai_proxy_mw.schema.call import Call
from ai_proxy_mw.stages.relay import _counts
from ai_proxy_mw.testing import FakeUpstream
from tests.conftest import IN_PROCESS

# Each is one token of the fake's, and by its length thirteen of an estimate's.
WORDS = ["word" * 13, "other" * 10, "last" * 13]
CHAT = "POST /chat/completions"
MODEL = "fake-1"
AMOUNT = 1_000_000
ASKED: dict[str, Any] = {"stream_options": {"include_usage": True}}


def question(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hi there you"}]
    return {"model": MODEL, "stream": True, "max_tokens": 50, "messages": messages, **more}


MEASURED = 3 + len(WORDS)


def estimated(received: str) -> int:
    """What is settled for an answer that says nothing of its use, which is far from the truth."""
    reader = reader_for(CHAT, 200, "text/event-stream", None)
    reader.chunk(received.encode())
    usage = reader.usage()
    assert usage is not None
    assert not usage.measured
    tokens = estimate(Call(CHAT, json.dumps(question()).encode())).input_tokens
    return tokens + usage.output_tokens


class House:
    def __init__(
        self, url: str, proxy: AIProxy, fakes: list[FakeUpstream], client: httpx.Client
    ) -> None:
        self.url = f"{url}/v1"
        self.proxy = proxy
        self.fakes = fakes
        self.client = client

    def post(self, path: str = "/chat/completions", **more: Any) -> str:
        body = question(**more) if path.startswith("/chat") else more
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        return answer.text

    def until_used(self, tokens: int) -> None:
        """What is settled is settled behind the answer, in a moment."""
        deadline = time.monotonic() + 5
        while self._used() != tokens and time.monotonic() < deadline:
            time.sleep(0.005)
        assert self._used() == tokens

    def _used(self) -> int:
        [standing] = self.proxy.limits.status_sync("127.0.0.1")
        return AMOUNT - standing.remaining


@pytest.fixture(params=IN_PROCESS)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def house(door: str, *upstreams: dict[str, Any], **options: Any) -> Iterator[House]:
    with ExitStack() as stack:
        fakes = []
        given = []
        for number, said in enumerate(upstreams or [{"stream_usage": True}]):
            each = dict(said)
            fake = FakeUpstream(words=WORDS, **each.pop("fake", {}))
            base_url = stack.enter_context(fake.serve()).base_url
            fakes.append(fake)
            given.append(Upstream(base_url=base_url, name="abc"[number], **each))
        limits = [Limit(f"{AMOUNT}/day", of="tokens")]
        proxy = AIProxy(upstreams=given, anonymous=True, **{"limits": limits, **options})
        url = stack.enter_context(IN_PROCESS[door](proxy))
        client = stack.enter_context(httpx.Client(base_url=f"{url}/v1", timeout=30))
        yield House(url, proxy, fakes, client)


def has_report(text: str) -> bool:
    """Whether one of the chunks has no choices."""
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert text.endswith("data: [DONE]\n\n")
    assert len(chunks) > len(WORDS)
    return any(not chunk["choices"] for chunk in chunks)


def test_what_is_not_asked_for_is_asked_for_counted_and_not_seen(door: str) -> None:
    with house(door) as home:
        assert not has_report(home.post())
        home.until_used(MEASURED)
        [seen] = home.fakes[0].requests
        assert seen.json() == question(**ASKED)
        assert seen.body.endswith(b',"stream_options":{"include_usage":true}}')
        assert has_report(home.post(**ASKED))
        home.until_used(2 * MEASURED)
        assert not has_report(home.post(stream_options={"include_usage": False}))
        home.until_used(3 * MEASURED)
        assert not has_report(home.post(n=2))
        home.until_used(4 * MEASURED + len(WORDS))
        assert not has_report(home.post("/completions", model=MODEL, prompt="Hi", stream=True))
        home.until_used(5 * MEASURED + len(WORDS) - 2)


def test_where_it_is_not_taken_it_is_not_asked_for(door: str) -> None:
    with house(door, {"fake": {"stream_options": False}}) as home:
        text = home.post()
        assert '"usage"' not in text
        assert estimated(text) > 4 * MEASURED
        home.until_used(estimated(text))
        assert home.fakes[0].requests[-1].json() == question()
        answer = home.client.post("/chat/completions", json=question(**ASKED))
        assert answer.status_code == 400  # that is his own wish


@pytest.mark.parametrize("options", [{"limits": []}, {"limits": ["100/day"]}], ids=str)
def test_where_nobody_counts_it_is_not_asked_for(door: str, options: dict[str, Any]) -> None:
    with house(door, stats=False, access_log=False, **options) as home:
        assert not has_report(home.post())
        assert home.fakes[0].requests[-1].json() == question()


def test_who_wants_to_know_of_calls_wants_to_know_it() -> None:
    both = SimpleNamespace(note=None, tally=None), SimpleNamespace(note=object(), tally=None)
    assert [_counts(each) for each in both] == [False, True]  # type: ignore[arg-type]


def test_coded_bodies_and_answers(door: str) -> None:
    with house(door) as home:
        home.fakes[0].compress = "always"
        answer = home.client.post(
            "/chat/completions",
            content=gzip.compress(json.dumps(question()).encode()),
            headers={"content-type": "application/json", "content-encoding": "gzip"},
        )
        assert not has_report(answer.text)
        home.until_used(MEASURED)
        [seen] = home.fakes[0].requests
        assert seen.header("content-encoding") is None
        assert seen.json() == question(**ASKED)


def test_whole_answers_are_asked_for_as_they_were(door: str) -> None:
    with house(door) as home:
        answer = home.client.post("/chat/completions", json=question(stream=False))
        assert answer.json()["usage"]["total_tokens"] == MEASURED
        home.until_used(MEASURED)
        assert home.fakes[0].requests[-1].json() == question(stream=False)


def test_fallback_between_who_takes_it_and_who_does_not(door: str) -> None:
    once: Any = {"retry": Retry(attempts=1)}
    takes: Any = {"stream_usage": True, "models": [MODEL]}
    strict: Any = {"fake": {"stream_options": False}, "models": {MODEL: "own"}}
    with house(door, takes, {**strict, "priority": 1}, **once) as home:
        first, second = home.fakes
        first.fail(503)
        text = home.post()
        assert '"usage"' not in text
        home.until_used(estimated(text))
        assert first.requests[-1].json() == question(**ASKED)
        assert second.requests[-1].json() == question(model="own")
    with house(door, strict, {**takes, "models": {MODEL: "x"}, "priority": 1}, **once) as home:
        first, second = home.fakes
        first.fail(503)
        assert not has_report(home.post())
        home.until_used(MEASURED)
        assert first.requests[-1].json() == question(model="own")
        assert second.requests[-1].json() == question(model="x", **ASKED)


def test_each_is_given_from_the_cache_what_he_has_asked_for(door: str) -> None:
    prices = Prices({MODEL: Price(2.00, 8.00)}, default=False)
    with house(door, cache=MemoryCache(), prices=prices) as home:
        plain, report = home.post(), home.post(**ASKED)
        home.until_used(2 * MEASURED)
        assert (has_report(plain), has_report(report)) == (False, True)
        assert home.post() == plain
        assert home.post(**ASKED) == report
        assert len(home.fakes[0].requests) == 2
        home.until_used(2 * MEASURED)
        stats = home.proxy.cache.stats_sync()
        assert stats.hits == 2
        assert (stats.saved_input_tokens, stats.saved_output_tokens) == (2 * 3, 2 * len(WORDS))
        assert stats.saved_usd * 1_000_000 == pytest.approx(2 * (3 * 2 + len(WORDS) * 8))


def test_the_official_client(door: str) -> None:
    with house(door) as home, openai.OpenAI(base_url=home.url, api_key="k") as client:
        messages: Any = [{"role": "user", "content": "Hi there you"}]
        chunks = list(client.chat.completions.create(model=MODEL, messages=messages, stream=True))
        assert all(chunk.choices for chunk in chunks)
        assert not any(chunk.usage for chunk in chunks)
        home.until_used(MEASURED)
        chunks = list(
            client.chat.completions.create(
                model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}
            )
        )
        assert [bool(chunk.choices) for chunk in chunks].count(False) == 1
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == MEASURED
        home.until_used(2 * MEASURED)


def test_who_leaves_pays_for_what_came(door: str) -> None:
    with house(door) as home, home.fakes[0].hold() as gate:
        with home.client.stream("POST", "/chat/completions", json=question()) as answer:
            pieces = answer.iter_raw()
            gate.wait_until_held(1, 10)
            gate.release(3)
            received = b""
            while received.count(b"\n\n") < 3:
                received += next(pieces)
        home.fakes[0].wait_for_disconnect(10)
        home.until_used(estimated(received.decode()))
