"""The cache, over sockets: what is answered from it, to whom, and what it says of itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import anthropic
import httpx
import openai
import pytest

from ai_proxy_mw import (
    AIProxy,
    Cache,
    ConfigurationError,
    DiskCache,
    Identity,
    Limit,
    MemoryCache,
    Price,
    Prices,
    RedisCache,
    Request,
    TieredCache,
    Upstream,
)
from ai_proxy_mw.stores.base import CacheStore
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.conftest import IN_PROCESS, KEY
from tests.redis_servers import redis_executable, serve_redis

Body = dict[str, Any]

QUESTION: Body = {"model": "fake-1", "messages": [{"role": "user", "content": "Where is it?"}]}
STREAMS: dict[str, Body] = {
    "/chat/completions": QUESTION,
    "/responses": {"model": "fake-1", "input": "Where is it?"},
    "/messages": {**QUESTION, "max_tokens": 99},
}


def by_header(request: Request) -> str | Identity | None:
    user = unquote(request.headers.get("x-user") or "")
    group = request.headers.get("x-group")
    return Identity(user, scope=group) if group else user or None


class Shop:
    """A proxy with a cache behind a real server, in front of a real upstream."""

    def __init__(self, url: str, fake: FakeUpstream, proxy: AIProxy) -> None:
        self.url = f"{url}/v1"
        self.fake = fake
        self.proxy = proxy

    def ask(
        self,
        body: Body = QUESTION,
        path: str = "/chat/completions",
        *,
        user: str = "alice",
        **headers: str,
    ) -> httpx.Response:
        lines = {"x-user": user, **{name.replace("_", "-"): text for name, text in headers.items()}}
        return httpx.post(f"{self.url}{path}", json=body, headers=lines)

    @property
    def asked(self) -> int:
        """How often the upstream was asked."""
        return len(self.fake.requests)


@contextmanager
def open_shop(
    cache: Cache | CacheStore,
    *,
    door: str = "uvicorn",
    fake: FakeUpstream | None = None,
    named: str | None = None,
    **options: Any,
) -> Iterator[Shop]:
    """`named`: the upstream's base URL where it must be the same in two shops."""
    fake = fake or FakeUpstream()
    with fake.serve() as server:
        upstream = Upstream(base_url=server.base_url, api_key=KEY)
        if named is not None:
            upstream = Upstream(base_url=named, transport=fake.transport())
        proxy = AIProxy(
            upstream=upstream,
            identify=by_header,
            cache=cache,
            **options,
        )
        with IN_PROCESS[door](proxy) as url:
            yield Shop(url, fake, proxy)


@pytest.fixture(params=IN_PROCESS)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_same_question_is_answered_from_the_cache(door: str) -> None:
    with open_shop(MemoryCache(), door=door) as shop:
        first = shop.ask()
        again = shop.ask({**dict(reversed(QUESTION.items())), "user": "someone"})
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.content == first.content
        assert shop.asked == 1
        assert first.headers["x-cache"] == "MISS"
        assert first.headers["cache-status"] == "ai_proxy_mw; fwd=miss; stored"
        assert again.headers["x-cache"] == "HIT"
        assert again.headers["cache-status"].startswith("ai_proxy_mw; hit; ttl=3")
        assert again.headers["age"] in ("0", "1")
        assert again.headers["content-type"] == first.headers["content-type"]
        assert int(again.headers["content-length"]) == len(first.content)
        # What was said of the first call is not said of the second.
        assert "openai-processing-ms" in first.headers
        for name in ("openai-processing-ms", "x-upstream-request-id", "request-id"):
            assert name not in again.headers
        assert not [name for name in again.headers if name.startswith("x-ratelimit")]
        assert again.headers["x-request-id"] != first.headers["x-request-id"]


@pytest.mark.parametrize("path", STREAMS)
def test_a_replayed_stream_is_the_same_to_the_last_byte(path: str, door: str) -> None:
    with open_shop(MemoryCache(), door=door) as shop:
        body = {**STREAMS[path], "stream": True}
        first = shop.ask(body, path)
        again = shop.ask(body, path)
        whole = shop.ask(STREAMS[path], path)
        assert first.headers["content-type"].startswith("text/event-stream")
        assert again.content == first.content
        assert again.headers["content-type"] == first.headers["content-type"]
        assert (first.headers["x-cache"], again.headers["x-cache"]) == ("MISS", "HIT")
        assert whole.headers["x-cache"] == "MISS"
        assert shop.asked == 2


def test_the_official_clients_read_what_is_replayed() -> None:
    with open_shop(MemoryCache()) as shop:
        heard = [_everything(shop) for _ in range(2)]
        assert heard[0] == heard[1]
        assert all(heard[0])
        assert shop.asked == 5


def _everything(shop: Shop) -> list[Any]:
    """What the official clients make of an answer of each kind."""
    user = {"x-user": "alice"}
    root = shop.url.removesuffix("/v1")
    with (
        openai.OpenAI(base_url=shop.url, api_key="-", default_headers=user) as chat,
        anthropic.Anthropic(base_url=root, api_key="-", default_headers=user) as claude,
    ):
        stream = chat.chat.completions.create(
            model="fake-1", stream=True, messages=[{"role": "user", "content": "Hi"}]
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        with chat.responses.stream(model="fake-1", input="Hi") as events:
            response = events.get_final_response().output_text
        with claude.messages.stream(
            model="fake-1", max_tokens=99, messages=[{"role": "user", "content": "Hi"}]
        ) as messages:
            message = messages.get_final_text()
        vector = chat.embeddings.create(model="fake-1", input="Hi").data[0].embedding
        models = [model.id for model in chat.models.list()]
        return [text, response, message, vector, models]


def test_each_user_has_answers_of_their_own(door: str) -> None:
    with open_shop(MemoryCache(), door=door) as shop:
        assert [shop.ask(user=user).headers["x-cache"] for user in ("alice", "bob")] == ["MISS"] * 2
        assert shop.asked == 2
        assert shop.proxy.cache.stats_sync().entries == 2
        assert [shop.ask(user=user).headers["x-cache"] for user in ("alice", "bob")] == ["HIT"] * 2


def test_shared_answers_and_groups() -> None:
    with open_shop(Cache(MemoryCache(), scope="shared")) as shop:
        marks = [shop.ask(user=user).headers["x-cache"] for user in ("alice", "bob")]
        assert marks == ["MISS", "HIT"]
    with open_shop(MemoryCache()) as shop:
        assert shop.ask(user="alice", x_group="staff").headers["x-cache"] == "MISS"
        assert shop.ask(user="bob", x_group="staff").headers["x-cache"] == "HIT"
        assert shop.ask(user="staff").headers["x-cache"] == "MISS"  # whose name is a group's
    named = Cache(MemoryCache(), scope=lambda request: request.headers.get("x-shop"))
    with open_shop(named) as shop:
        assert shop.ask(user="alice", x_shop="1").headers["x-cache"] == "MISS"
        assert shop.ask(user="bob", x_shop="1").headers["x-cache"] == "HIT"
        assert shop.ask(user="bob").headers["x-cache"] == "BYPASS"


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("another name", {"user": "mallory"}),
    ("nearly the name", {"user": "alice%20"}),
    ("capitals", {"user": "Alice"}),
    ("a name that goes on", {"user": "alice5:"}),
    ("a name with a length", {"user": "7:subject5:alice"}),
    ("another alphabet", {"user": quote("\u0430lice")}),
    ("letters of another form", {"user": quote("\uff41lice")}),
    ("a letter that is not seen", {"user": quote("alice\u200b")}),
    ("the group of that name", {"user": "mallory", "x_group": "alice"}),
    ("a header of the subject", {"user": "mallory", "x_subject": "alice"}),
    ("a header of the scope", {"user": "mallory", "x_scope": "alice", "x_cache_scope": "shared"}),
    ("a key in a header", {"user": "mallory", "x_cache_key": "*", "cache_key": "*"}),
    ("a cookie", {"user": "mallory", "cookie": "user=alice"}),
    ("a request id", {"user": "mallory", "x_request_id": "alice"}),
    ("stale will do", {"user": "mallory", "cache_control": "max-stale"}),
    ("only if cached", {"user": "mallory", "cache_control": "only-if-cached"}),
    ("an etag", {"user": "mallory", "if_none_match": "*"}),
    ("vary", {"user": "mallory", "vary": "x-user"}),
    ("the user in the body", {"user": "mallory", "body": {**QUESTION, "user": "alice"}}),
    ("metadata", {"user": "mallory", "body": {**QUESTION, "metadata": {"subject": "alice"}}}),
    ("a cache key", {"user": "mallory", "body": {**QUESTION, "prompt_cache_key": "alice"}}),
    ("a scope in the body", {"user": "mallory", "body": {**QUESTION, "scope": "alice"}}),
    ("a query", {"user": "mallory", "path": "/chat/completions?scope=alice"}),
    ("a path", {"user": "mallory", "path": "/chat/../chat/completions"}),
]


@pytest.mark.parametrize(("how", "call"), WAYS, ids=[how for how, _ in WAYS])
def test_nobody_reads_the_answer_of_another(how: str, call: dict[str, Any]) -> None:
    fake = FakeUpstream(words=["alice's", " secret"])
    with open_shop(MemoryCache(), fake=fake) as shop:
        assert "secret" in shop.ask().text
        fake.words = ["nothing"]
        answer = shop.ask(**call)
        assert "secret" not in answer.text
        assert answer.headers.get("x-cache") not in ("HIT", "COLLAPSED")
        assert answer.status_code in (200, 404, 504)
        assert "secret" in shop.ask().text  # it was there all the time


CROWD = 12


def _crowd(shop: Shop, body: Body, **headers: str) -> list[httpx.Response]:
    """Many who ask the same at once; the upstream answers when all of them are waiting."""
    with (
        ThreadPoolExecutor(CROWD) as pool,
        shop.fake.hold("headers") as gate,
    ):
        calls = [pool.submit(shop.ask, body, **headers) for _ in range(CROWD)]
        gate.wait_until_held()
        _until(lambda: _listeners(shop) == CROWD)
        gate.open()
        return [call.result() for call in calls]


def _listeners(shop: Shop) -> int:
    answers = shop.proxy._answers
    assert answers is not None
    flights = [flight for loop in answers.flights._by_loop.values() for flight in loop.values()]
    return sum(len(flight._listeners) for flight in flights)


def _until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("stream", [False, True])
def test_a_crowd_that_asks_the_same_is_one_call(stream: bool, door: str) -> None:
    with open_shop(MemoryCache(), door=door) as shop:
        answers = _crowd(shop, {**QUESTION, "stream": stream})
        assert shop.asked == 1
        assert len({answer.content for answer in answers}) == 1
        marks = sorted(answer.headers["x-cache"] for answer in answers)
        assert marks == ["COLLAPSED"] * (CROWD - 1) + ["MISS"]
        stats = shop.proxy.cache.stats_sync()
        assert (stats.misses, stats.collapsed, stats.stored) == (1, CROWD - 1, 1)
        assert stats.hit_rate == (CROWD - 1) / CROWD


def test_what_has_come_is_heard_first_and_then_live() -> None:
    fake = FakeUpstream(words=["one", " two", " three", " four"])
    body = {**QUESTION, "stream": True}
    with open_shop(MemoryCache(), fake=fake) as shop, fake.hold() as gate:
        with _stream(shop, body) as early:
            heard = early.iter_raw()
            gate.release(2)
            first = _read(heard, b"one")
            with _stream(shop, body) as late:
                assert late.headers["x-cache"] == "COLLAPSED"
                lately = late.iter_raw()
                second = _read(lately, b"one")
                assert second.startswith(first) or first.startswith(second)
                gate.open()
                assert first + b"".join(heard) == second + b"".join(lately)
        assert shop.asked == 1


def _stream(shop: Shop, body: Body) -> AbstractContextManager[httpx.Response]:
    return httpx.stream(
        "POST", f"{shop.url}/chat/completions", json=body, headers={"x-user": "alice"}
    )


def _read(pieces: Iterator[bytes], word: bytes) -> bytes:
    found = b""
    while word not in found:
        found += next(pieces)
    return found


def test_who_leaves_first_does_not_end_it_and_who_leaves_last_does(door: str) -> None:
    fake = FakeUpstream(words=["one", " two", " three", " four"])
    body = {**QUESTION, "stream": True}
    with open_shop(MemoryCache(), door=door, fake=fake) as shop, fake.hold() as gate:
        with _stream(shop, body) as leader, ExitStack() as stack:
            gate.release(2)
            begun = leader.iter_raw()
            _read(begun, b"one")
            follower = stack.enter_context(_stream(shop, body))
            heard = follower.iter_raw()
            _read(heard, b"one")
            leader.close()
            gate.release(1)
            _read(heard, b"two")
            assert fake.requests[0].outcome is None
        left = fake.wait_for_disconnect()
        assert left.chunks_sent < 6
        assert shop.asked == 1
        gate.open()
        assert shop.ask(body).headers["x-cache"] == "MISS"  # half an answer is not kept


def test_an_error_reaches_each_and_is_not_kept() -> None:
    with open_shop(MemoryCache()) as shop:
        shop.fake.fail(500, times=1)
        answers = _crowd(shop, QUESTION)
        assert {answer.status_code for answer in answers} == {500}
        assert shop.asked == 1
        assert len({answer.headers["x-request-id"] for answer in answers}) == CROWD
        shop.fake.disconnect(after="headers")
        cut = _crowd(shop, QUESTION)
        assert {answer.status_code for answer in cut} == {502}
        assert {answer.json()["error"]["code"] for answer in cut} == {"upstream_disconnected"}
        assert shop.asked == 2
        assert shop.ask().headers["x-cache"] == "MISS"


def test_a_stream_that_breaks_off_is_not_kept() -> None:
    with open_shop(MemoryCache()) as shop:
        shop.fake.disconnect(after="chunk:2")
        body = {**QUESTION, "stream": True}
        assert "upstream_disconnected" in shop.ask(body).text
        assert shop.ask(body).headers["x-cache"] == "MISS"
        assert shop.proxy.cache.stats_sync().stored == 1


def test_what_a_request_may_ask_of_the_cache() -> None:
    with open_shop(MemoryCache()) as shop:
        shop.ask()
        assert shop.ask(cache_control="no-store").headers["x-cache"] == "BYPASS"
        assert shop.ask(cache_control="max-age=60").headers["x-cache"] == "HIT"
        fresh = shop.ask(cache_control="no-cache")
        assert fresh.headers["cache-status"] == "ai_proxy_mw; fwd=request; stored"
        other = shop.ask({**QUESTION, "n": 1}, cache_control="only-if-cached")
        assert (other.status_code, other.json()["error"]["code"]) == (504, "not_cached")
        assert shop.ask(cache_control="only-if-cached").headers["x-cache"] == "HIT"
        assert shop.asked == 3


@pytest.mark.parametrize(
    "change",
    [
        {"store": True},
        {"tools": [{"type": "web_search"}]},
        {"web_search_options": {}},
    ],
)
def test_what_has_an_effect_is_always_asked(change: Body) -> None:
    with open_shop(MemoryCache()) as shop:
        marks = [shop.ask({**QUESTION, **change}).headers["x-cache"] for _ in range(2)]
        assert marks == ["BYPASS", "BYPASS"]
        assert shop.asked == 2


def test_what_the_owner_keeps_out() -> None:
    cache = Cache(
        MemoryCache(),
        when=lambda request: request.subject != "bob",
        endpoints={"POST /chat/completions"},
        temperature_zero_only=True,
        vary=["user", "X-Language"],
    )
    with open_shop(cache) as shop:
        certain = {**QUESTION, "temperature": 0}
        marks = [
            shop.ask(certain).headers["x-cache"],
            shop.ask(certain).headers["x-cache"],
            shop.ask(certain, user="bob").headers["x-cache"],
            shop.ask().headers["x-cache"],
            shop.ask({**certain, "user": "42"}).headers["x-cache"],
            shop.ask(certain, x_language="de").headers["x-cache"],
            shop.ask(certain, x_language="de").headers["x-cache"],
        ]
        assert marks == ["MISS", "HIT", "BYPASS", "BYPASS", "MISS", "MISS", "HIT"]
        embeddings = shop.ask({"model": "fake-1", "input": "a"}, "/embeddings")
        assert "x-cache" not in embeddings.headers


def test_the_list_of_models_has_an_etag(door: str) -> None:
    with open_shop(MemoryCache(), door=door) as shop:
        headers = {"x-user": "alice"}
        first = httpx.get(f"{shop.url}/models", headers=headers)
        tag = first.headers["etag"]
        again = httpx.get(f"{shop.url}/models", headers={**headers, "if-none-match": tag})
        assert (first.headers["x-cache"], again.headers["x-cache"]) == ("MISS", "HIT")
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        head = httpx.head(f"{shop.url}/models", headers=headers)
        assert (head.status_code, head.headers["x-cache"], head.content) == (200, "HIT", b"")
        assert shop.asked == 1


def test_a_stale_answer_while_a_new_one_is_fetched() -> None:
    with open_shop(Cache(MemoryCache(), ttl=60, stale_while_revalidate=60)) as shop:
        now = _clock(shop)
        first = shop.ask()
        now[0] += 61
        stale = shop.ask()
        assert stale.content == first.content
        assert stale.headers["cache-status"] == "ai_proxy_mw; hit; ttl=-1"
        assert stale.headers["age"] == "61"
        _until(lambda: shop.proxy.cache.stats_sync().stored == 2)
        assert shop.ask().headers["cache-status"] == "ai_proxy_mw; hit; ttl=60"
        assert shop.asked == 2
        now[0] += 121
        assert shop.ask().headers["cache-status"] == "ai_proxy_mw; fwd=stale; stored"


@pytest.mark.parametrize("how", ["refuses", "breaks off"])
def test_a_stale_answer_when_the_upstream_fails(how: str) -> None:
    with open_shop(Cache(MemoryCache(), ttl=60, stale_if_error=600)) as shop:
        now = _clock(shop)
        first = shop.ask()
        now[0] += 100
        for _ in range(2):
            if how == "refuses":
                shop.fake.fail(503)
            else:
                shop.fake.disconnect()
            stale = shop.ask()
            assert stale.status_code == 200
            assert stale.content == first.content
            assert "stale-if-error" in stale.headers["cache-status"]
        now[0] += 600
        shop.fake.fail(503)
        assert shop.ask().status_code == 503


def _clock(shop: Shop) -> list[float]:
    """The time of the cache, in the hands of the test; that of its store runs slower."""
    answers = shop.proxy._answers
    assert answers is not None
    now = [time.time()]
    answers.clock = lambda: now[0]
    return now


def test_limits_of_calls_count_what_the_owner_says() -> None:
    for counted, most in ((True, 3), (False, 9)):
        cache = Cache(MemoryCache(), count_hits=counted)
        limits = ["3/hour", Limit("10000/hour", of="tokens")]
        with open_shop(cache, limits=limits) as shop:
            answers = [shop.ask() for _ in range(9)]
            assert sum(answer.status_code == 200 for answer in answers) == most
            _, tokens = shop.proxy.limits.status_sync("alice")
            used = answers[0].json()["usage"]["total_tokens"]
            assert tokens.remaining == 10000 - used  # once, however many were answered


def test_the_owners_tools() -> None:
    with open_shop(MemoryCache()) as shop:
        cache = shop.proxy.cache
        for user in ("alice", "bob"):
            shop.ask(user=user)
            shop.ask({"model": "fake-2", "input": "a"}, "/embeddings", user=user)
        assert cache.stats_sync().entries == 4
        assert cache.purge_sync(subject="alice") == 2
        assert cache.purge_sync(model="fake-2") == 1
        assert shop.ask(user="bob").headers["x-cache"] == "HIT"
        assert cache.purge_sync(endpoint="POST /chat/completions") == 1
        cache.warm_sync([QUESTION, {**QUESTION, "stream": True}], who="carol")
        assert shop.ask(user="carol").headers["x-cache"] == "HIT"
        assert shop.ask({**QUESTION, "stream": True}, user="carol").headers["x-cache"] == "HIT"
        assert cache.purge_sync() == 2
        with pytest.raises(ConfigurationError, match="one of"):
            cache.purge_sync(subject="alice", model="fake-1")


def test_savings_are_told() -> None:
    prices = Prices({"fake-1": Price(input=1.0, output=2.0)})
    with open_shop(MemoryCache(), prices=prices) as shop:
        usage = shop.ask().json()["usage"]
        for _ in range(3):
            shop.ask()
        stats = shop.proxy.cache.stats_sync()
        assert stats.saved_input_tokens == 3 * usage["prompt_tokens"]
        assert stats.saved_output_tokens == 3 * usage["completion_tokens"]
        spent = usage["prompt_tokens"] * 1e-6 + usage["completion_tokens"] * 2e-6
        assert stats.saved_usd == pytest.approx(3 * spent)


def test_a_proxy_without_a_cache_says_so() -> None:
    proxy = AIProxy(upstream="http://127.0.0.1:1/v1", anonymous=True)
    with pytest.raises(ConfigurationError, match="cache=MemoryCache"):
        _ = proxy.cache


def test_packed_answers_are_kept_for_all() -> None:
    fake = FakeUpstream(compress="gzip")
    with open_shop(MemoryCache(), fake=fake) as shop:
        packed = shop.ask(accept_encoding="gzip")
        assert packed.headers["content-encoding"] == "gzip"
        plain = shop.ask(accept_encoding="identity")
        assert plain.headers["x-cache"] == "HIT"
        assert "content-encoding" not in plain.headers
        assert plain.content == packed.content


def test_answers_that_are_too_large_pass(door: str) -> None:
    fake = FakeUpstream(words=["word"] * 2000)
    with open_shop(Cache(MemoryCache(), max_entry_bytes=4096), door=door, fake=fake) as shop:
        body = {**QUESTION, "stream": True}
        answers = [shop.ask(body) for _ in range(2)]
        assert answers[0].text.count("word") == 2000
        assert answers[0].content == answers[1].content
        assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "MISS"]


def test_streams_can_be_replayed_at_their_pace() -> None:
    fake = FakeUpstream(words=["one", " two", " three"], pace=0.1)
    with open_shop(Cache(MemoryCache(), replay="paced"), fake=fake) as shop:
        body = {**QUESTION, "stream": True}
        first = shop.ask(body)
        again = shop.ask(body)
        assert again.headers["x-cache"] == "HIT"
        assert again.content == first.content
        assert again.elapsed.total_seconds() > 0.2


def test_on_disk_answers_outlive_the_process(tmp_path: Path, door: str) -> None:
    for mark in ("MISS", "HIT"):
        with open_shop(DiskCache(tmp_path / "cache"), door=door, named=FAKE_BASE_URL) as shop:
            for stream in (False, True):
                answer = shop.ask({**QUESTION, "stream": stream})
                assert answer.headers["x-cache"] == mark
            assert shop.proxy.cache.stats_sync().entries == 2


def test_one_user_on_disk_is_one_call(tmp_path: Path, door: str) -> None:
    with open_shop(DiskCache(tmp_path / "cache"), door=door) as shop:
        answers = _crowd(shop, {**QUESTION, "stream": True})
        assert shop.asked == 1
        assert len({answer.content for answer in answers}) == 1


@pytest.mark.skipif(redis_executable() is None, reason="there is no redis-server for this machine")
def test_in_redis_answers_outlive_the_process(door: str) -> None:
    with serve_redis() as server:
        for mark in ("MISS", "HIT"):
            store = TieredCache(MemoryCache(), RedisCache(server.uri))
            with open_shop(store, door=door, named=FAKE_BASE_URL) as shop:
                for stream in (False, True):
                    answer = shop.ask({**QUESTION, "stream": stream})
                    assert answer.headers["x-cache"] == mark
        with open_shop(RedisCache(server.uri), door=door) as shop:
            server.kill()
            assert shop.ask().headers["x-cache"] == "MISS"
            assert shop.ask().status_code == 200
            assert shop.proxy._answers is not None
            assert shop.proxy._answers.failures > 0
