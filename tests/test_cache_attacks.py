"""What callers, stores and upstreams try on the cache: each of these once worked."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ai_proxy_mw import AIProxy, Cache, ConfigurationError, Limit, MemoryCache, Request, Upstream
from ai_proxy_mw._http import Body, Response
from ai_proxy_mw.caching import flight as flights
from ai_proxy_mw.caching.flight import WINDOW, Flight
from ai_proxy_mw.caching.flights import Flights
from ai_proxy_mw.caching.keeper import Keeper
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.conftest import IN_PROCESS
from tests.test_cache import QUESTION, Shop, open_shop

STALE: dict[str, Any] = {"scope": "shared", "stale_while_revalidate": 3600.0}


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=IN_PROCESS)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def models(shop: Shop, method: str = "GET", **headers: str) -> httpx.Response:
    lines = {name.replace("_", "-"): text for name, text in headers.items()}
    return httpx.request(method, f"{shop.url}/models", headers={"x-user": "alice", **lines})


def set_clock(shop: Shop) -> Clock:
    clock = Clock()
    assert shop.proxy._answers is not None
    shop.proxy._answers.clock = clock
    return clock


def _has_stored(shop: Shop, answers: int) -> bool:
    return shop.proxy.cache._answers.counts.stored == answers


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_list_of_models_is_renewed_when_its_caller_has_left(door: str) -> None:
    with open_shop(Cache(MemoryCache(), ttl=60, **STALE), door=door) as shop:
        clock = set_clock(shop)
        models(shop)
        clock.now += 61
        assert models(shop).headers["x-cache"] == "HIT"
        wait_for(lambda: shop.proxy.cache._answers.counts.stored == 2)
        assert models(shop).headers["cache-status"] == "ai_proxy_mw; hit; ttl=60"
        assert shop.asked == 2


def test_who_asks_for_a_head_does_not_renew_the_answer_of_others(door: str) -> None:
    with open_shop(Cache(MemoryCache(), ttl=60, **STALE), door=door) as shop:
        clock = set_clock(shop)
        whole = models(shop).content
        clock.now += 61
        with shop.fake.hold("headers") as gate, ThreadPoolExecutor() as pool:
            assert models(shop, "HEAD").headers["x-cache"] == "HIT"
            asked = pool.submit(models, shop, cache_control="max-age=0")
            gate.wait_until_held()
            gate.open()
            assert asked.result().content == whole
        assert [seen.method for seen in shop.fake.requests] == ["GET", "GET"]


def test_nobody_waits_for_the_body_of_another_who_gets_a_list(door: str) -> None:
    with open_shop(Cache(MemoryCache(), scope="shared"), door=door) as shop:
        address = urlsplit(shop.url)
        request = (
            b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-user: mallory\r\ncontent-length: 9\r\n\r\n"
        )
        with socket.create_connection((str(address.hostname), address.port or 80)) as slow:
            slow.sendall(request)
            time.sleep(0.1)
            answer = httpx.get(f"{shop.url}/models", headers={"x-user": "alice"}, timeout=3)
            assert answer.headers["x-cache"] == "MISS"


def test_a_body_where_none_belongs_is_not_for_the_cache() -> None:
    with open_shop(Cache(MemoryCache(), scope="shared")) as shop:
        lines = {"x-user": "mallory"}
        answer = httpx.request("GET", f"{shop.url}/models", headers=lines, content=b"{}")
        assert answer.headers["x-cache"] == "BYPASS"
        assert models(shop).headers["x-cache"] == "MISS"


def test_who_wants_no_kept_answer_does_not_take_it_from_others() -> None:
    with open_shop(Cache(MemoryCache(), scope="shared")) as shop:
        shop.ask()
        with shop.fake.hold("headers") as gate, ThreadPoolExecutor() as pool:
            fresh = pool.submit(shop.ask, user="mallory", cache_control="no-cache")
            gate.wait_until_held()
            assert shop.ask().headers["x-cache"] == "HIT"
            assert shop.ask(cache_control="only-if-cached").status_code == 200
            gate.open()
            assert fresh.result().headers["x-cache"] == "MISS"


def test_who_finds_a_fresh_answer_too_old_is_told_that_it_was_his_wish() -> None:
    with open_shop(MemoryCache()) as shop:
        shop.ask()
        status = shop.ask(cache_control="min-fresh=99999").headers["cache-status"]
        assert status == "ai_proxy_mw; fwd=request; stored"  # RFC 9211, section 2.2


def test_a_stale_answer_is_one_call_of_each_limit() -> None:
    cache = Cache(MemoryCache(), ttl=60, **STALE)
    limits = [Limit("9/minute", models=["fake-1"])]
    with open_shop(cache, limits=limits) as shop:
        clock = set_clock(shop)
        left = [_left(shop.ask())]
        for stored in (2, 3):
            clock.now += 61
            left.append(_left(shop.ask()))
            wait_for(partial(_has_stored, shop, stored))
        assert left == [8, 7, 6]


def test_a_stale_answer_in_the_place_of_an_error_is_one_call_of_each_limit() -> None:
    cache = Cache(MemoryCache(), ttl=60, stale_if_error=3600)
    with open_shop(cache, limits=[Limit("9/minute", models=["fake-1"])]) as shop:
        clock = set_clock(shop)
        left = [_left(shop.ask())]
        clock.now += 61
        shop.fake.fail(500, times=2)
        left += [_left(shop.ask()) for _ in range(2)]
        assert left == [8, 7, 6]


def test_a_renewal_that_is_refused_gives_no_call_back() -> None:
    cache = Cache(MemoryCache(), ttl=60, **STALE)
    question = {**QUESTION, "max_tokens": 20}
    limits = ["9/minute", Limit("30/minute", of="tokens")]
    with open_shop(cache, limits=limits) as shop:
        clock = set_clock(shop)
        shop.ask(question, user="rich")
        clock.now += 61
        with shop.fake.hold("headers") as gate, ThreadPoolExecutor() as pool:
            taken = pool.submit(shop.ask, {**question, "seed": 1})  # all of the tokens
            gate.wait_until_held()
            found = []
            for _ in range(3):
                found.append(_left(shop.ask(question)))
                time.sleep(0.05)
            gate.open()
            taken.result()
        assert found == [7, 6, 5]
        assert shop.asked == 2


def _left(answer: httpx.Response) -> int:
    assert answer.status_code == 200
    return int(answer.headers["x-ratelimit-remaining-requests"])


# -- questions that look the same, and answers that are none ------------------------------------


def test_what_only_some_accept_is_not_given_to_others() -> None:
    with open_shop(Cache(MemoryCache(), scope="shared")) as shop:
        assert shop.ask(accept="text/event-stream").headers["x-cache"] == "MISS"
        assert shop.ask().headers["x-cache"] == "MISS"
        stream = {**QUESTION, "stream": True}
        assert shop.ask(stream, accept="text/event-stream").headers["x-cache"] == "MISS"
        assert shop.ask(stream).headers["x-cache"] == "HIT"


def test_an_idempotency_key_cannot_bring_another_answer_under_a_shared_question() -> None:
    with open_shop(Cache(MemoryCache(), scope="shared")) as shop:
        assert shop.ask(user="mallory", idempotency_key="of something else").status_code == 200
        assert shop.ask().headers["x-cache"] == "MISS"
    with open_shop(MemoryCache()) as shop:
        assert shop.ask(idempotency_key="1").headers["x-cache"] == "MISS"
        assert shop.ask(idempotency_key="2").headers["x-cache"] == "HIT"


def test_accounts_with_one_provider_share_no_answers() -> None:
    store, fake = MemoryCache(), FakeUpstream()
    accounts: list[dict[str, Any]] = [
        {"api_key": "one"},
        {"api_key": "two"},
        {"api_key": "one", "headers": {"OpenAI-Organization": "three"}},
    ]
    for account in accounts:
        upstream = Upstream(base_url=FAKE_BASE_URL, transport=fake.transport(), **account)
        proxy = AIProxy(upstream=upstream, anonymous=True, cache=store)
        with IN_PROCESS["uvicorn"](proxy) as url:
            for _ in range(2):
                assert httpx.post(f"{url}/v1/chat/completions", json=QUESTION).is_success
    assert len(fake.requests) == len(accounts)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"detail": "overloaded"}',
        b'{"choices": null}',
        b'{"choices": []}',
        b'{"choices": {}}',
        b'{"choices": [{"finish_reason": "error", "message": {"content": ""}}]}',
        b'{"choices": [{"error": {"code": 502}}]}',
    ],
)
def test_a_failure_that_says_it_is_none_is_not_kept(body: bytes) -> None:
    with open_shop(MemoryCache()) as shop:
        shop.fake.fail(200, body=body, headers={"content-type": "application/json"})
        assert shop.ask().content == body
        assert shop.ask().headers["x-cache"] == "MISS"


# -- stores that are not ours ------------------------------------------------------------------


class Odd(MemoryCache):
    """A store that answers as `odd` does."""

    is_sure = False

    def __init__(self, odd: Callable[[], Any], *, shared: bool) -> None:
        super().__init__()
        self._odd = odd
        self._shared = shared

    @property
    def shared(self) -> bool:
        return self._shared

    async def get(self, key: str) -> Any:
        return self._odd()

    async def lock(self, name: str, owner: str, *, lease: float) -> Any:
        return self._odd()


def _fail() -> None:
    raise OSError("the store is away")


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("odd", [_fail, lambda: 5, lambda: b"holder", lambda: memoryview(b"x")])
def test_a_store_that_fails_or_talks_nonsense_is_a_miss(
    odd: Callable[[], Any], shared: bool
) -> None:
    with open_shop(Odd(odd, shared=shared)) as shop:
        assert [shop.ask().status_code for _ in range(2)] == [200, 200]
        assert shop.asked == 2


def test_a_text_from_a_store_is_a_miss() -> None:
    with open_shop(Odd(lambda: "text", shared=False)) as shop:
        assert shop.ask().status_code == 200


# -- flights -----------------------------------------------------------------------------------


class Endless(Body):
    """Comes piece by piece until it is closed."""

    def __init__(self, size: int) -> None:
        self._piece = b"x" * size

    @property
    def ended(self) -> bool:
        return False

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        return self._piece

    async def aclose(self) -> None:
        pass


async def _never_kept(flight: Flight) -> bool:
    raise AssertionError(flight)


def _begin(here: Flights, body: Body) -> Flight:
    async def source() -> Response:
        return Response(200, [], body)

    return here.begin("key", source, _never_kept, alone=False, apart=False)


def _flights(most: int) -> Flights:
    return Flights(Keeper(MemoryCache()), most=most, is_fresh=lambda _: True)


def test_nobody_joins_a_call_that_all_have_left() -> None:
    async def main() -> None:
        here = _flights(2**20)
        flight = _begin(here, Endless(10))
        listener = flight.listen(began=True)
        await listener.head()
        assert here.under_way("key") is flight
        await listener.aclose()
        assert here.under_way("key") is None  # it is cancelled in the loop's next round
        await here.aclose()

    asyncio.run(main())


def test_all_who_read_too_slowly_are_cut_off_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "GRACE", 0.05)

    async def main() -> None:
        here = _flights(WINDOW)
        flight = _begin(here, Endless(WINDOW // 4))
        reader = flight.listen(began=True)
        slow = [flight.listen() for _ in range(40)]
        async with asyncio.timeout(1):  # 40 times GRACE would be 2
            for number in range(40):
                await anext(reader)
                for each in slow[:number]:
                    if not each._cut and each.at < number // 2:
                        await anext(each)  # some are further than others
        await here.aclose()

    asyncio.run(main())


def test_who_listens_alone_may_take_his_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "GRACE", 0.01)

    async def main() -> None:
        here = _flights(WINDOW)
        flight = _begin(here, Endless(WINDOW // 4))
        reader = flight.listen(began=True)
        await reader.head()
        await asyncio.sleep(0.05)  # some times GRACE, while the answer waits for him
        for _ in range(9):
            await anext(reader)
        await here.aclose()

    asyncio.run(main())


# -- what the owner says -----------------------------------------------------------------------


async def _asks(request: Request) -> Any:
    return False


@pytest.mark.parametrize("name", ["when", "scope", "ttl"])
def test_functions_that_would_have_to_be_awaited_are_refused(name: str) -> None:
    options: dict[str, Any] = {name: _asks}
    with pytest.raises(ConfigurationError, match=f"{name}=...\\): write a function without async"):
        Cache(MemoryCache(), **options)
