"""Who asks upstream, of processes side by side and callers in each."""

from __future__ import annotations

import asyncio
import logging
import time

import httpx
import pytest
from starlette.applications import Starlette

from ai_proxy_mw import AIProxy, AIProxyMiddleware, MemoryCache
from ai_proxy_mw import Upstream as Provider
from ai_proxy_mw._errors import UpstreamDisconnected, UpstreamError
from ai_proxy_mw._http import Ending
from ai_proxy_mw.caching import lease
from ai_proxy_mw.caching.entry import encode
from ai_proxy_mw.caching.flights import Flights
from ai_proxy_mw.caching.keeper import Keeper
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.caching.side_by_side import (
    KEY,
    Caller,
    Process,
    SharedStore,
    Upstream,
    entry,
    nothing_left,
    quick,
    until,
)

pytestmark = pytest.mark.usefixtures("quick")
__all__ = ["quick"]


async def _never(_flight: object) -> bool:
    raise AssertionError("nothing is to be kept")


def test_of_many_at_once_one_asks() -> None:
    async def main() -> None:
        store, upstream = SharedStore(), Upstream()
        with nothing_left():
            processes = [Process(store, upstream) for _ in range(8)]
            callers = [process.ask() for process in processes for _ in range(20)]
            (await upstream.called()).begin(b"1", b"2", None)
            assert {await caller.end() for caller in callers} == {b"12"}
            for process in processes:
                await process.flights.aclose()
        assert len(upstream.calls) == 1
        assert store.holder is None

    asyncio.run(main())


@pytest.mark.parametrize("_again", range(10))
def test_of_many_at_once_all_hear_of_an_error_of_one(_again: int) -> None:
    async def main() -> None:
        store, upstream = SharedStore(), Upstream()
        callers = [Process(store, upstream).ask() for _ in range(8)]
        await until(lambda: len(store.asked) > 20)
        upstream.calls[0].answer.set_exception(UpstreamDisconnected())
        for caller in callers:
            assert isinstance(await caller.fails(), UpstreamError)
        assert len(upstream.calls) == 1

    asyncio.run(main())


def test_the_leading_caller_leaves_before_he_knows_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "FIRST_LOOK", 60.0)

    async def main() -> None:
        store, upstream = SharedStore(), Upstream()
        leader = Process(store, upstream).ask()
        await upstream.called()
        others = [Process(store, upstream).ask() for _ in range(4)]
        await leader.leave()
        (await upstream.called(2)).begin(b"1", None)
        assert {await other.end() for other in others} == {b"1"}
        assert len(upstream.calls) == 2

    asyncio.run(main())


def test_what_was_kept_in_the_meantime_is_not_asked_again() -> None:
    async def main() -> None:
        store, upstream = SharedStore(), Upstream()
        await store.set(KEY, encode(entry()), ttl=60)
        assert await Process(store, upstream).ask().end() == b"kept"
        await until(lambda: store.holder is None)
        assert upstream.calls == []

    asyncio.run(main())


def test_what_is_known_and_will_not_do_is_no_answer() -> None:
    """Neither to who gets the lock nor to who waits; a newer one is."""

    async def main() -> None:
        store, upstream = SharedStore(), Upstream()
        old = entry(created=time.time() - 10)
        await store.set(KEY, encode(old), ttl=60)
        leader = Process(store, upstream).ask(known=old)
        call = await upstream.called()
        follower = Process(store, upstream).ask(known=old)
        await asyncio.sleep(0.05)
        assert not follower.done
        call.begin(b"new", None, json=True)
        assert await leader.end() == await follower.end() == b"new"
        assert len(upstream.calls) == 1

    asyncio.run(main())


def test_what_is_asked_apart_takes_no_lock() -> None:
    async def main() -> None:
        store, upstream = SharedStore(), Upstream()
        await store.lock(KEY, "other", lease=60)
        flights = Flights(Keeper(store), most=9, is_fresh=lambda _entry: True)
        flight = flights.begin(KEY, upstream.ask, _never, alone=False, apart=True)
        caller = Caller(flight.listen(began=True))
        (await upstream.called()).answer.set_exception(UpstreamDisconnected())
        await caller.fails()

    asyncio.run(main())


def test_a_store_of_this_process_alone_is_asked_for_no_lock() -> None:
    async def main() -> None:
        upstream = Upstream()
        store = MemoryCache()
        flights = Flights(Keeper(store), most=9, is_fresh=lambda _entry: True)
        flight = flights.begin(KEY, upstream.ask, _never, alone=False, apart=False)
        assert flights.under_way(KEY) is flight
        caller = Caller(flight.listen(began=True))
        (await upstream.called()).begin(b"too large, this", None)
        await caller.end()
        assert flights.under_way(KEY) is None
        assert store._locks == {}

    asyncio.run(main())


def test_who_leaves_while_he_waits_for_the_lock_leaves_it_to_others() -> None:
    async def main() -> None:
        store, upstream = SharedStore(), Upstream()
        got = asyncio.Event()

        async def hang(_owner: str) -> None:
            got.set()
            await asyncio.sleep(60)

        store.before_lock = hang
        with nothing_left():
            caller = Process(store, upstream).ask()
            await got.wait()
            assert store.holder is not None
            await caller.leave()
            await until(lambda: store.holder is None, 0.05)
        assert upstream.calls == []

    asyncio.run(main())


def test_closing_gives_up_what_is_asked_and_waits_for_what_is_stored() -> None:
    async def main() -> None:
        store, upstream = SharedStore(), Upstream()
        process = Process(store, upstream)
        process.ask()
        call = await upstream.called()
        call.begin(b"1")
        await asyncio.sleep(0.01)
        await process.flights.aclose()
        assert call.how is Ending.CANCELLED
        assert store.holder is None

        storing = asyncio.Event()

        async def slow(_key: str) -> None:
            storing.set()
            await asyncio.sleep(0.02)

        store.before_set = slow
        caller = process.ask()
        (await upstream.called(2)).begin(b"2", None)
        await storing.wait()
        await process.flights.aclose()
        assert store.values("e:")
        assert await caller.end() == b"2"
        await process.flights.aclose()  # nothing to wait for

    asyncio.run(main())


def test_a_flight_that_has_another_in_its_place_does_not_take_it_away() -> None:
    async def main() -> None:
        upstream = Upstream()
        flights = Flights(Keeper(MemoryCache()), most=9, is_fresh=lambda _entry: True)

        async def kept(_flight: object) -> bool:
            return True

        first = flights.begin(KEY, upstream.ask, kept, alone=False, apart=True)
        second = flights.begin(KEY, upstream.ask, kept, alone=False, apart=True)
        (await upstream.called()).begin(None)
        assert first.task is not None
        await first.task
        assert flights.under_way(KEY) is second
        await flights.aclose()

    asyncio.run(main())


def test_what_cannot_be_renewed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        upstream = Upstream()
        flights = Flights(Keeper(SharedStore()), most=9, is_fresh=lambda _entry: True)
        flight = flights.begin(KEY, upstream.ask, _never, alone=True, apart=False)
        (await upstream.called()).answer.set_exception(UpstreamDisconnected())
        assert flight.task is not None
        await flight.task

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert "could not be renewed: UpstreamDisconnected" in caplog.text


def test_calls_of_a_loop_that_has_ended_are_forgotten() -> None:
    upstream = Upstream()
    flights = Flights(Keeper(MemoryCache()), most=9, is_fresh=lambda _entry: True)

    async def begin() -> None:
        assert flights.under_way(KEY) is None
        flights.begin(KEY, upstream.ask, _never, alone=False, apart=False)

    asyncio.run(begin())
    asyncio.run(begin())
    assert len(flights._by_loop) == 1


def test_what_is_too_old_for_the_caller_is_asked_anew() -> None:
    fake = FakeUpstream()
    upstream = Provider(base_url=FAKE_BASE_URL, transport=fake.transport())
    proxy = AIProxy(upstream=upstream, anonymous=True, cache=SharedStore())
    app = AIProxyMiddleware(Starlette(), proxy=proxy)
    chat = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}

    async def main() -> list[str]:
        transport = httpx.ASGITransport(app)
        said = []
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            for wish in ("", "", "max-age=0", "min-fresh=86400"):
                headers = {"cache-control": wish} if wish else {}
                answer = await client.post("/v1/chat/completions", json=chat, headers=headers)
                assert answer.status_code == 200
                said.append(answer.headers["x-cache"])
                await asyncio.sleep(0.03)
        await proxy.aclose()
        return said

    assert asyncio.run(main()) == ["MISS", "HIT", "MISS", "MISS"]
    assert len(fake.requests) == 3
