"""What each kind of call is recorded as."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_proxy_mw import (
    AccessLog,
    AIProxy,
    AIProxyMiddleware,
    AIProxyWSGIMiddleware,
    Cache,
    ConfigurationError,
    DiskCache,
    MemoryCache,
    Models,
    Price,
    Prices,
    ProxyError,
    Record,
    Request,
    Retry,
    Upstream,
    from_route,
)
from ai_proxy_mw._hook_threads import run_sync
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.accounting.note import Note
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.servers import serve_asgi, serve_wsgi

MESSAGES = [{"role": "user", "content": "Say it"}]
CHAT = {"model": "fake-1", "messages": MESSAGES}
PRICES = Prices({"fake-1": Price(2.0, 8.0)}, default=False)
KEEN = {"x-user": "ann"}


class House:
    """A proxy in front of a fake, and the records of its calls."""

    def __init__(self, door: str, **options: Any) -> None:
        self.door = door
        self.records: list[Record] = []
        self.fake = FakeUpstream(words=["one", "two", "six"])
        self.proxy = AIProxy(
            **{
                "upstream": Upstream(base_url=FAKE_BASE_URL, transport=self.fake.transport()),
                "identify": lambda request: request.headers.get("x-user"),
                "on_record": [self.records.append],
                "prices": PRICES,
                **options,
            }
        )

    @contextmanager
    def served(self) -> Iterator[httpx.Client]:
        doors: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
            "asgi": (serve_asgi, AIProxyMiddleware),
            "wsgi": (serve_wsgi, AIProxyWSGIMiddleware),
        }
        serve, door = doors[self.door]
        with (
            serve(door(proxy=self.proxy)) as url,
            httpx.Client(base_url=f"{url}/v1", headers=KEEN, timeout=20) as client,
        ):
            yield client

    def record(self, number: int = 1) -> Record:
        """The nth one, when it is there."""
        return self.all(number)[number - 1]

    def all(self, number: int) -> list[Record]:
        deadline = time.monotonic() + 10
        while len(self.records) < number and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(self.records) == number
        return self.records


@pytest.fixture(params=["asgi", "wsgi"])
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_answer_that_is_complete(door: str) -> None:
    house = House(door)
    with house.served() as client:
        before = time.time()
        answer = client.post("/chat/completions", json=CHAT)
        record = house.record()
    assert record.request_id == answer.headers["x-request-id"]
    assert before - 1 < record.time < time.time() + 1
    assert (record.subject, record.endpoint) == ("ann", "POST /chat/completions")
    assert (record.model, record.model_used, record.upstream) == ("fake-1", "fake-1", "default")
    assert (record.attempts, record.status, record.error) == (1, 200, None)
    assert (record.outcome, record.stream, record.cache) == ("complete", False, None)
    assert (record.input_tokens, record.output_tokens, record.measured) == (2, 3, True)
    assert (record.cost, record.saved, record.saved_tokens) == (2 * 2 + 3 * 8, 0, 0)
    assert record.bytes_in == len(answer.request.content)
    assert record.bytes_out == len(answer.content)
    assert record.first_byte is not None
    assert record.first_content is not None
    assert 0 < record.first_byte <= record.first_content <= record.total < 10
    assert 0 <= record.overhead <= record.first_byte
    assert record.max_gap is None
    assert not record.background
    assert record.bodies is None


def test_a_stream_with_its_gaps_and_its_first_words(door: str) -> None:
    house = House(door)
    house.fake.pace = 0.03
    with house.served() as client:
        client.post("/chat/completions", json={**CHAT, "stream": True})
        record = house.record()
    assert record.stream
    assert record.outcome == "complete"
    assert (record.output_tokens, record.measured) == (3, False)
    assert record.max_gap is not None
    assert record.max_gap >= 0.02
    assert record.first_byte is not None
    assert record.first_content is not None
    # The first event of a stream has a role and no words.
    assert record.first_content - record.first_byte >= 0.02
    assert record.total >= record.first_content + 0.02


def test_one_who_is_nobody_is_refused(door: str) -> None:
    house = House(door)
    with house.served() as client:
        client.post("/chat/completions", json=CHAT, headers={"x-user": ""})
        record = house.record()
    assert (record.subject, record.status, record.error) == ("", 401, "invalid_api_key")
    assert (record.outcome, record.attempts, record.upstream) == ("refused", 0, None)
    assert (record.measured, record.cost, record.model) == (None, 0, None)


def test_what_is_on_no_list_and_what_is_wrong_are_refused(door: str) -> None:
    house = House(door, limits=["2/hour"])
    with house.served() as client:
        client.get("/secrets")
        client.post("/chat/completions", json={"model": "fake-1"})
        client.post("/chat/completions", json=CHAT)
        client.post("/chat/completions", json=CHAT)
        records = house.all(4)
    assert [each.status for each in records] == [404, 400, 200, 429]
    assert [each.outcome for each in records] == ["refused", "refused", "complete", "refused"]
    assert records[0].endpoint == ""
    assert [each.error for each in records[1:]] == [
        "missing_required_parameter",
        None,
        "rate_limit_exceeded",
    ]


def test_what_the_upstream_refuses_has_failed_by_its_own_word(door: str) -> None:
    house = House(door)
    house.fake.fail(status=404, code="model_not_found")
    house.fake.fail(status=500, body=b"<html>")
    house.fake.fail(status=429, body=b'{"error": {"type": "too_much", "code": null}}')
    with house.served() as client:
        for _ in range(3):
            client.post("/chat/completions", json=CHAT)
        records = house.all(3)
    assert [each.outcome for each in records] == ["failed"] * 3
    assert [each.error for each in records] == ["model_not_found", None, "too_much"]
    assert [each.attempts for each in records] == [1, 1, 1]
    assert [each.cost for each in records] == [0, 0, 0]


def test_an_upstream_that_is_away_or_breaks_off(door: str) -> None:
    house = House(door)
    house.fake.disconnect(after="request")
    house.fake.disconnect(after="chunk:2")
    with house.served() as client:
        client.post("/chat/completions", json=CHAT)
        client.post("/chat/completions", json={**CHAT, "stream": True})
        records = house.all(2)
    assert [each.outcome for each in records] == ["failed", "cut"]
    assert [each.status for each in records] == [502, 200]
    assert [each.error for each in records] == ["upstream_disconnected"] * 2
    assert [each.measured for each in records] == [False, False]  # it may have to be paid for
    assert records[1].output_tokens == 1


def test_a_fault_of_ours(door: str) -> None:
    def broken(request: Any) -> str:
        raise RuntimeError("secret")

    house = House(door, identify=broken)
    with house.served() as client:
        client.post("/chat/completions", json=CHAT)
        record = house.record()
    assert (record.outcome, record.status, record.error) == ("failed", 500, "internal_error")


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_leaves(door: str, stream: bool) -> None:
    house = House(door)
    house.fake.stall(at="chunk:2" if stream else "headers")
    with house.served() as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/chat/completions", json={**CHAT, "stream": stream}, timeout=0.5)
        house.fake.wait_for_disconnect(10)
        record = house.record()
    assert (record.outcome, record.status) == ("cancelled", 200 if stream else 0)
    assert (record.attempts, record.upstream) == (1, "default")
    assert (record.output_tokens, record.measured) == (1 if stream else 0, False)
    assert record.input_tokens > 0
    assert record.overhead < 0.4


def test_by_which_name_a_model_was_asked_for(door: str) -> None:
    house = House(door, models=Models(aliases={"fast": "fake-1"}))
    with house.served() as client:
        client.post("/chat/completions", json={**CHAT, "model": "fast"})
        record = house.record()
    assert (record.model, record.model_used, record.cost) == ("fast", "fake-1", 28)


def test_a_price_that_is_not_known_is_not_nothing(door: str) -> None:
    house = House(door)
    with house.served() as client:
        client.post("/chat/completions", json={**CHAT, "model": "fake-2"})
        record = house.record()
    assert record.cost is None
    assert record.input_tokens == 2


def test_an_upload_that_names_its_model(door: str) -> None:
    house = House(door)
    with house.served() as client:
        client.post(
            "/audio/transcriptions",
            data={"model": "fake-1"},
            files={"file": ("a.wav", _silence(), "audio/wav")},
        )
        record = house.record()
    assert (record.model, record.outcome) == ("fake-1", "complete")
    assert record.input_tokens > 0
    assert record.cost == record.input_tokens * 2 + record.output_tokens * 8


def _silence() -> bytes:
    samples = b"\x00\x00" * 800
    head = struct.pack("<4sI4s", b"RIFF", 36 + len(samples), b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
    return head + form + struct.pack("<4sI", b"data", len(samples)) + samples


def test_questions_about_us_are_no_calls(door: str) -> None:
    house = House(door, health_endpoint=True, limits_endpoint=True, limits=["9/minute"])
    with house.served() as client:
        assert client.get("/_health").status_code == 200
        assert client.get("/_limits").status_code == 200
        assert client.options("/chat/completions").status_code == 204
        client.get("/models")
        assert house.record().endpoint == "GET /models"


def test_what_the_cache_does(door: str) -> None:
    house = House(door, cache=MemoryCache())
    with house.served() as client:
        client.post("/chat/completions", json=CHAT)
        client.post("/chat/completions", json=CHAT)
        client.post("/chat/completions", json=CHAT, headers={"cache-control": "no-store"})
        client.post("/chat/completions", json=CHAT, headers={"cache-control": "no-cache"})
        client.get("/models")
        records = house.all(5)
    assert [each.cache for each in records] == ["miss", "hit", "bypass", "miss", "miss"]
    assert [each.attempts for each in records] == [1, 0, 1, 1, 1]
    hit = records[1]
    assert (hit.saved, hit.saved_tokens, hit.cost, hit.input_tokens) == (28, 5, 0, 0)
    assert (hit.upstream, hit.outcome, hit.measured) == (None, "complete", None)


def _listeners(proxy: AIProxy) -> int:
    assert proxy._answers is not None
    loops = tuple(proxy._answers.flights._by_loop.values())
    return sum(len(flight._listeners) for flights in loops for flight in tuple(flights.values()))


def test_who_shares_an_answer_saves_what_it_costs(door: str) -> None:
    house = House(door, cache=MemoryCache())
    gate = house.fake.hold("headers")
    with house.served() as client:
        asking = [
            threading.Thread(target=lambda: client.post("/chat/completions", json=CHAT))
            for _ in range(3)
        ]
        for thread in asking:
            thread.start()
        _until(lambda: _listeners(house.proxy) == 3)
        time.sleep(0.1)
        gate.open()
        for thread in asking:
            thread.join(10)
        records = house.all(3)
    assert len(house.fake.requests) == 1
    assert sorted(each.cache or "" for each in records) == ["collapsed", "collapsed", "miss"]
    for each in records:
        if each.cache == "collapsed":
            assert (each.saved, each.saved_tokens, each.cost, each.attempts) == (28, 5, 0, 0)
            assert each.overhead < 0.1 <= each.total
        else:
            assert (each.saved, each.cost, each.attempts) == (0, 28, 1)


def test_the_use_of_what_others_hear_is_known_when_it_is_over(door: str) -> None:
    """The caller who has asked leaves, and his call goes on for another."""
    house = House(door, cache=MemoryCache())
    gate = house.fake.hold("headers")
    with house.served() as client:
        other = threading.Timer(0.3, lambda: client.post("/chat/completions", json=CHAT))
        other.start()
        with pytest.raises(httpx.ReadTimeout):
            client.post("/chat/completions", json=CHAT, timeout=1.0)
        _until(lambda: _listeners(house.proxy) == 1)
        assert not house.records  # it is not known yet what the first one's call will cost
        gate.open()
        other.join(10)
        records = house.all(2)
    left = next(each for each in records if each.outcome == "cancelled")
    assert (left.attempts, left.cost, left.input_tokens, left.status) == (1, 28, 2, 0)
    shared = next(each for each in records if each.outcome == "complete")
    assert (shared.cache, shared.cost) == ("collapsed", 0)


def test_what_another_process_brings_was_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, itself = Note.share, []

    def share(note: Note, other: Note | None) -> None:
        itself.append(other is note)
        real(note, other)

    monkeypatch.setattr(Note, "share", share)
    one, two = (House("asgi", cache=DiskCache(tmp_path)) for _ in range(2))
    gate = one.fake.hold("headers")
    with one.served() as client, two.served() as other:
        first = threading.Thread(target=lambda: client.post("/chat/completions", json=CHAT))
        first.start()
        one.fake.wait_for_request()
        timer = threading.Timer(0.7, gate.open)
        timer.start()
        assert other.post("/chat/completions", json=CHAT).status_code == 200
        first.join(10)
        record = two.record()
    assert (record.cache, record.attempts, record.saved) == ("collapsed", 0, None)
    assert record.first_byte is not None
    assert record.first_byte - record.overhead > 0.4
    assert itself == [False]  # else it would hold itself, until the garbage collector comes


def test_what_is_renewed_behind_an_answer_has_a_record_of_its_own(door: str) -> None:
    cache = Cache(MemoryCache(), ttl=0.2, stale_while_revalidate=60)
    house = House(door, cache=cache)
    with house.served() as client:
        client.post("/chat/completions", json=CHAT)
        house.record()
        time.sleep(0.25)
        client.post("/chat/completions", json=CHAT)
        records = house.all(3)
    renewal = next(each for each in records if each.background)
    stale = next(each for each in records if each.cache == "stale")
    assert (stale.attempts, stale.cost, stale.saved) == (0, 0, 28)
    assert (renewal.attempts, renewal.cost, renewal.outcome) == (1, 28, "complete")
    assert (renewal.subject, renewal.request_id) == ("ann", stale.request_id)


def test_a_renewal_that_fails_has_one_too(door: str) -> None:
    cache = Cache(MemoryCache(), ttl=0.2, stale_while_revalidate=60)
    house = House(door, cache=cache)
    with house.served() as client:
        client.post("/chat/completions", json=CHAT)
        house.record()
        time.sleep(0.25)
        house.fake.disconnect(after="accept")
        client.post("/chat/completions", json=CHAT)
        records = house.all(3)
    renewal = next(each for each in records if each.background)
    assert (renewal.outcome, renewal.error) == ("failed", "upstream_disconnected")


def test_a_warm_up_is_recorded_as_what_nobody_waits_for() -> None:
    house = House("asgi", cache=MemoryCache())

    async def main() -> None:
        async with house.proxy:
            await house.proxy.cache.warm([CHAT], who="boss")

    asyncio.run(main())
    record = house.record()
    assert record.background
    assert (record.subject, record.cost, record.attempts, record.cache) == ("boss", 28, 1, "miss")
    assert record.outcome == "complete"


@pytest.mark.parametrize(("body", "outcome"), [(CHAT, "failed"), ({"model": 5}, "refused")])
def test_a_warm_up_that_fails_says_so(body: Any, outcome: str) -> None:
    house = House("asgi", cache=MemoryCache())
    house.fake.disconnect(after="accept")

    async def main() -> None:
        async with house.proxy:
            with pytest.raises(ProxyError) as caught:
                await house.proxy.cache.warm([body])
            told.append(caught.value)

    told: list[ProxyError] = []
    asyncio.run(main())
    record = house.record()
    assert (record.outcome, record.background) == (outcome, True)
    assert (record.error, record.status) == (told[0].code, told[0].status)


def test_who_is_slow_to_send_his_body_is_no_overhead_of_ours(door: str) -> None:
    house = House(door)

    def slowly(body: bytes) -> Iterator[bytes]:
        yield body[:10]
        time.sleep(0.4)
        yield body[10:]

    with house.served() as client:
        for content in (json.dumps(CHAT).encode(), b"this is not JSON"):
            headers = {"content-type": "application/json", "content-length": str(len(content))}
            client.post("/chat/completions", content=slowly(content), headers=headers)
        records = house.all(2)
    assert [each.outcome for each in records] == ["complete", "refused"]
    for record in records:
        assert record.total > 0.39
        assert record.total - record.overhead > 0.3


def test_a_call_that_comes_when_the_process_stops(door: str) -> None:
    house = House(door)
    with house.served() as client:
        house.proxy.begin_shutdown()
        answer = client.post("/chat/completions", json=CHAT)
        record = house.record()
    assert (answer.status_code, record.status, record.outcome) == (503, 503, "refused")
    assert record.error == "unavailable"


def test_several_upstreams_and_what_was_asked_in_vain(door: str) -> None:
    fakes = [FakeUpstream(words=["one"]), FakeUpstream(words=["one", "two"])]
    upstreams = [
        Upstream(
            base_url=FAKE_BASE_URL, transport=fake.transport(), name=f"up{number}", priority=number
        )
        for number, fake in enumerate(fakes)
    ]
    house = House(door, upstream=None, upstreams=upstreams)
    fakes[0].fail(status=503, times=9)
    with house.served() as client:
        client.post("/chat/completions", json=CHAT)
        record = house.record()
    assert (record.upstream, record.outcome) == ("up1", "complete")
    assert record.attempts == len(fakes[0].requests) + 1
    assert (record.input_tokens, record.output_tokens) == (2, 2)


def test_bodies_are_there_if_they_are_asked_for(door: str) -> None:
    house = House(door, access_log=AccessLog(log_bodies=10), cache=MemoryCache())
    long = {**CHAT, "messages": [{"role": "user", "content": "word " * 1000}]}
    with house.served() as client:
        answer = client.post("/chat/completions", json=CHAT)
        client.post("/chat/completions", json=long)
        client.get("/models")
        records = house.all(3)
    bodies = [each.bodies for each in records]
    assert bodies[0] is not None
    assert json.loads(bodies[0].request) == CHAT
    assert bodies[0].response == answer.content
    assert bodies[0].request_is_whole
    assert bodies[0].response_is_whole
    assert bodies[1] is not None
    assert not bodies[1].request_is_whole
    assert len(bodies[1].request) == 10 + 512
    assert bodies[2] is not None
    assert bodies[2].request == b""


def test_who_wants_no_records_pays_for_none() -> None:
    proxy = AIProxy(upstream="http://127.0.0.1:9/v1", anonymous=True, stats=False, access_log=False)
    assert proxy._desk is None
    assert proxy.hook_stats() == []
    with pytest.raises(Exception, match="stats=False"):
        proxy.stats_sync()


def _until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("retry", [None, Retry(attempts=2)])
def test_what_was_never_sent_costs_nothing(door: str, retry: Retry | None) -> None:
    def away(key: str | None) -> dict[str, str]:
        raise LookupError("the vault is away")

    fake = FakeUpstream()
    upstream = Upstream(base_url=FAKE_BASE_URL, transport=fake.transport(), auth=away)
    house = House(door, upstream=upstream, retry=retry)
    with house.served() as client:
        client.post("/chat/completions", json=CHAT)
        record = house.record()
    assert (record.status, record.attempts) == (500, 0)
    assert (record.input_tokens, record.cost, record.measured) == (0, 0, None)


def test_without_records_all_is_answered_the_same() -> None:
    cache = Cache(MemoryCache(), ttl=0.2, stale_while_revalidate=60)
    house = House("asgi", cache=cache, on_record=(), stats=False, access_log=False)
    assert house.proxy._desk is None
    asked: list[str] = []
    gate = house.fake.hold("headers")
    with house.served() as client:

        def ask(**headers: str) -> None:
            answer = client.post("/chat/completions", json=CHAT, headers=headers)
            asked.append(answer.headers["cache-status"])

        asking = [threading.Thread(target=ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        _until(lambda: _listeners(house.proxy) == 2)
        gate.open()
        for thread in asking:
            thread.join(10)
        ask()
        ask(**{"cache-control": "no-store"})
        assert client.head("/models").status_code == 200
        time.sleep(0.25)
        ask()  # is stale, and renewed behind it
        _until(lambda: len(house.fake.requests) == 4)
        house.fake.disconnect(after="accept")
        time.sleep(0.25)
        ask()
        files = {"file": ("a.wav", _silence(), "audio/wav")}
        form = {"model": "fake-1", "language": "en"}
        answer = client.post("/audio/transcriptions", data=form, files=files)
        assert answer.status_code == 200
    assert len(asked) == 6

    async def warm() -> None:
        async with house.proxy:
            await house.proxy.cache.warm([{**CHAT, "n": 2}])
            with pytest.raises(ProxyError):
                await house.proxy.cache.warm([{"model": "fake-1"}])

    asyncio.run(warm())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"access_log": "yes"}, "write True, False or AccessLog"),
        ({"stats": "redis://localhost"}, "a store like RedisCache"),
        ({"stats": False, "dashboard": "/ai", "dashboard_identify": str}, "leave out stats=False"),
        ({"dashboard_identify": str}, "write dashboard='/ai'"),
        ({"dashboard": "/ai"}, "dashboard_identify=your_function"),
        ({"on_record": ["print"]}, "functions that take a Record"),
    ],
    ids=str,
)
def test_wrong_arguments_are_told_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        AIProxy(upstream="http://127.0.0.1:9/v1", anonymous=True, **options)


def test_a_proxy_of_routes_serves_no_dashboard() -> None:
    with pytest.raises(ConfigurationError, match="served by the middlewares"):
        AIProxy(
            upstream="http://127.0.0.1:9/v1",
            identify=from_route,
            dashboard="/ai",
            dashboard_identify=lambda _: "boss",
        )


def test_the_last_calls_can_be_asked_for() -> None:
    house = House("asgi")
    with house.served() as client:
        client.get("/models")
        house.record()

    async def main() -> list[Record]:
        async with house.proxy:
            await house.proxy.stats(window="24h", by="endpoint")
            return await house.proxy.recent(1)

    assert [each.endpoint for each in asyncio.run(main())] == ["GET /models"]


def test_what_is_renewed_has_its_bodies_too() -> None:
    cache = Cache(MemoryCache(), ttl=0.2, stale_while_revalidate=60)
    house = House("asgi", cache=cache, access_log=AccessLog(log_bodies=True))
    with house.served() as client:
        answer = client.post("/chat/completions", json=CHAT)
        house.record()
        time.sleep(0.25)
        client.post("/chat/completions", json=CHAT)
        renewal = next(each for each in house.all(3) if each.background)
    assert renewal.bodies is not None
    assert renewal.bodies.response == answer.content
    assert json.loads(renewal.bodies.request) == CHAT


def test_of_a_long_stream_the_beginning_is_there() -> None:
    house = House("asgi", access_log=AccessLog(log_bodies=10))
    house.fake.words = ["word"] * 20
    with house.served() as client:
        text = client.post("/chat/completions", json={**CHAT, "stream": True}).content
        bodies = house.record().bodies
    assert bodies is not None
    assert bodies.response == text[: 10 + 512]
    assert not bodies.response_is_whole


def test_a_call_is_over_once() -> None:
    records: list[Record] = []
    note = Note(records.append)
    asked = Request(
        method="GET",
        path="/models",
        query=b"",
        headers=[],
        body=RequestBody(_nothing, declared=0, limit=0, empty=True),
        client=None,
        request_id="r",
        run_sync=run_sync,
    )
    note.finish(asked)
    note.finish(asked, "upstream_disconnected")
    assert [(each.request_id, each.error) for each in records] == [("r", None)]


async def _nothing() -> tuple[bytes, bool]:
    return b"", True
