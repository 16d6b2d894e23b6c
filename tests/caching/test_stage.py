"""The stage in its corridor: what is answered from where, and what is counted for it."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ai_proxy_mw import Identity, Limit, MemoryCache, Request, Response
from ai_proxy_mw._delivery import Truncated
from ai_proxy_mw._errors import UpstreamDisconnected, UpstreamTimeout
from ai_proxy_mw.accounting.estimate import Estimate
from ai_proxy_mw.accounting.prices import Price, Prices
from ai_proxy_mw.caching.flight import Flight, Listener
from ai_proxy_mw.limiting.tally import Tally
from ai_proxy_mw.testing import FakeUpstream
from tests.caching.house import (
    ANSWER,
    EVENTS,
    JSON,
    STREAM,
    Answer,
    Hand,
    House,
    ask,
    get,
    hear,
    house,
    question,
    request,
    settle,
    streamed,
    whole,
)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test()
        await settle()
        assert not asyncio.all_tasks() - {asyncio.current_task()}

    asyncio.run(main())


async def nothing_flies(home: House) -> bool:
    await settle()
    flights = home.proxy._answers.flights  # type: ignore[union-attr]
    return not flights._tasks and not any(flights._by_loop.values())


def held(gate: asyncio.Event, answer: Answer) -> Answer:
    async def wait(outbound: Any) -> Response:
        await gate.wait()
        return await answer(outbound)

    return wait


def wanting(text: str) -> dict[str, str]:
    return {"cache-control": text}


# -- hits, misses and wishes -------------------------------------------------------------------


def test_the_second_time_it_comes_from_the_cache() -> None:
    async def test() -> None:
        home = house(ttl=60.0)
        first = await ask(home.proxy)
        assert (first.status, first.body, first.cached) == (200, ANSWER, "MISS")
        assert first.headers["cache-status"] == "ai_proxy_mw; fwd=miss; stored"
        home.clock.now += 9
        second = await ask(home.proxy)
        assert (second.status, second.body, second.cached) == (200, ANSWER, "HIT")
        assert second.headers["cache-status"] == "ai_proxy_mw; hit; ttl=51"
        assert second.headers["age"] == "9"
        assert (await ask(home.proxy, user="bob")).cached == "MISS"
        home.clock.now += 51
        third = await ask(home.proxy)
        assert third.headers["cache-status"] == "ai_proxy_mw; fwd=miss; stored"
        assert len(home.upstream.calls) == 3
        stats = await home.proxy.cache.stats()
        assert (stats.hits, stats.misses, stats.stored, stats.saved_output_tokens) == (1, 3, 3, 5)
        assert await nothing_flies(home)

    run(test)


@pytest.mark.parametrize(
    ("wish", "cached", "why"),
    [
        ("no-cache", "MISS", "fwd=request"),
        ("no-store", "BYPASS", "fwd=bypass"),
        ("max-age=9", "MISS", "fwd=request"),
        ("max-age=10", "HIT", "hit"),
        ("min-fresh=50", "HIT", "hit"),
        ("min-fresh=51", "MISS", "fwd=request"),
        ("max-stale", "HIT", "hit"),
        ("only-if-cached", "HIT", "hit"),
    ],
)
def test_wishes_of_a_fresh_answer(wish: str, cached: str, why: str) -> None:
    async def test() -> None:
        home = house(ttl=60.0)
        await ask(home.proxy)
        home.clock.now += 10
        got = await ask(home.proxy, headers=wanting(wish))
        assert got.cached == cached
        assert why in got.headers["cache-status"]

    run(test)


@pytest.mark.parametrize(
    ("wish", "status", "cached"),
    [
        ("", 200, "HIT"),
        ("max-stale", 200, "HIT"),
        ("max-stale=10", 200, "HIT"),
        ("max-stale=9", 200, "MISS"),
        ("max-age=70", 200, "MISS"),
        ("max-age=70, max-stale=10", 200, "HIT"),
        ("max-age=69, max-stale=10", 200, "MISS"),
        ("min-fresh=1", 200, "MISS"),
        ("only-if-cached", 200, "HIT"),
        ("only-if-cached, no-cache", 504, None),
        ("only-if-cached, no-store", 504, None),
        ("only-if-cached, max-stale=3", 504, None),
    ],
)
def test_wishes_of_an_answer_past_its_time(wish: str, status: int, cached: str | None) -> None:
    async def test() -> None:
        home = house(ttl=60.0, stale_while_revalidate=20.0)
        await ask(home.proxy)
        home.clock.now += 70
        got = await ask(home.proxy, headers=wanting(wish) if wish else {})
        assert (got.status, got.cached) == (status, cached)
        await settle()
        asked_anew = status == 200 and "only-if-cached" not in wish
        assert len(home.upstream.calls) == (2 if asked_anew else 1)

    run(test)


def test_max_stale_goes_beyond_what_the_owner_renews_for() -> None:
    async def test() -> None:
        home = house(ttl=60.0, stale_while_revalidate=5.0, stale_if_error=500.0)
        await ask(home.proxy)
        home.clock.now += 100
        assert (await ask(home.proxy, headers=wanting("max-stale=40"))).cached == "HIT"
        await settle()
        assert len(home.upstream.calls) == 1
        assert (await ask(home.proxy)).headers["cache-status"].endswith("fwd=stale; stored")

    run(test)


def test_only_if_cached_is_504_where_nothing_is() -> None:
    async def test() -> None:
        home = house()
        got = await ask(home.proxy, headers=wanting("only-if-cached"))
        assert got.status == 504
        assert home.upstream.calls == []

    run(test)


def test_what_is_not_for_the_cache() -> None:
    async def test() -> None:
        home = house(when=lambda request: "x-not" not in request.headers)
        assert (await ask(home.proxy, headers={"x-not": "1"})).cached == "BYPASS"
        got = await ask(home.proxy, headers={"x-not": "1", **wanting("only-if-cached")})
        assert got.status == 504
        other = await ask(home.proxy, method="GET", path="/files")
        assert other.cached is None
        assert (await home.proxy.cache.stats()).bypassed == 1

    run(test)


@pytest.mark.parametrize("status", [202, 400, 429, 500])
def test_what_is_not_kept_is_passed_on(status: int) -> None:
    async def test() -> None:
        home = house(whole(b'{"error": {}}', status))
        for _ in range(2):
            got = await ask(home.proxy)
            assert (got.status, got.cached) == (status, "MISS")
            assert got.headers["cache-status"] == "ai_proxy_mw; fwd=miss"
        assert len(home.upstream.calls) == 2

    run(test)


def test_answers_above_the_cap_pass_and_are_not_kept() -> None:
    async def test() -> None:
        home = house(max_entry_bytes=50)
        for _ in range(2):
            assert (await ask(home.proxy)).body == ANSWER
        assert len(home.upstream.calls) == 2

    run(test)


# -- one call for many -------------------------------------------------------------------------


def test_many_who_ask_the_same_share_one_call() -> None:
    async def test() -> None:
        gate = asyncio.Event()
        home = house(held(gate, whole()))
        asking = [asyncio.create_task(ask(home.proxy)) for _ in range(20)]
        await settle()
        gate.set()
        got = await asyncio.gather(*asking)
        assert {each.body for each in got} == {ANSWER}
        assert sorted(each.cached or "" for each in got) == ["COLLAPSED"] * 19 + ["MISS"]
        assert len(home.upstream.calls) == 1
        assert (await home.proxy.cache.stats()).hit_rate == 0.95

    run(test)


def test_what_was_put_aside_of_a_stream_goes_with_each_answer() -> None:
    async def test() -> None:
        body = Hand(EVENTS[0])
        response = Response(200, [*STREAM], body)
        response.aside = aside = [b"data: 7\n\n"]
        home = house(response)
        asked = question(stream=True)
        answers = [await home.proxy.handle(request(asked)) for _ in range(2)]
        body.put(*EVENTS[1:], None)
        heard = [await hear(each) for each in answers]
        assert await nothing_flies(home)
        answers.append(await home.proxy.handle(request(asked)))
        heard.append(await hear(answers[-1]))
        assert [each.cached for each in heard] == ["MISS", "COLLAPSED", "HIT"]
        assert {each.body for each in heard} == {b"".join(EVENTS)}
        assert [each.aside for each in answers] == [aside] * 3

    run(test)


def test_a_stream_is_heard_by_who_comes_in_the_middle() -> None:
    async def test() -> None:
        body = Hand(EVENTS[0])
        home = house(Response(200, [*STREAM], body))
        asked = question(stream=True)
        first = asyncio.create_task(ask(home.proxy, asked))
        await settle()
        second = asyncio.create_task(ask(home.proxy, asked))
        await settle()
        body.put(*EVENTS[1:], None)
        assert (await first).body == (await second).body == b"".join(EVENTS)
        assert second.result().headers["x-accel-buffering"] == "no"
        assert (await ask(home.proxy, asked)).body == b"".join(EVENTS)

    run(test)


def test_an_error_of_the_upstream_is_told_to_each() -> None:
    async def test() -> None:
        gate = asyncio.Event()

        async def fail(outbound: Any) -> Response:
            await gate.wait()
            raise UpstreamTimeout("first_byte")

        home = house(fail, options={"limits": ["100/minute"]})
        asking = [asyncio.create_task(ask(home.proxy)) for _ in range(3)]
        await settle()
        gate.set()
        got = await asyncio.gather(*asking)
        assert [each.status for each in got] == [504] * 3
        assert {each.headers["x-ratelimit-limit-requests"] for each in got} == {"100"}
        assert len(home.upstream.calls) == 1

    run(test)


def test_an_upstream_that_breaks_off_breaks_off_for_each() -> None:
    async def test() -> None:
        body = Hand(b'{"a"')
        home = house(Response(200, [*JSON], body), whole())
        responses = [await home.proxy.handle(request()) for _ in range(2)]
        body.put(UpstreamDisconnected())
        for response in responses:
            with pytest.raises(Truncated):
                await hear(response)
        assert (await ask(home.proxy)).cached == "MISS"

    run(test)


def _sixty(call: Any) -> Estimate:
    return Estimate(input_tokens=60, output_tokens=0)


async def _left(home: House, who: str | Identity = "alice", **more: Any) -> list[int]:
    await home.proxy.limits.aclose()  # waits for what is being settled
    return [each.remaining for each in await home.proxy.limits.status(who, **more)]


def test_who_is_refused_hands_over_to_one_of_the_others() -> None:
    rates = {"alice": "50", "bob": "51"}

    def who_is(name: str) -> Identity:
        return Identity(name, limits=[Limit(f"{rates.get(name, '100')}/minute", of="tokens")])

    async def who(request: Request) -> Identity:
        return who_is(request.headers.get("x-user") or "")

    async def test() -> None:
        gate = asyncio.Event()
        options = {"estimate": _sixty, "identify": who}
        home = house(held(gate, whole()), scope="shared", options=options)
        names = ["alice", "bob", "carol", "dave", "erin"]
        asking = [asyncio.create_task(ask(home.proxy, user=name)) for name in names]
        await settle(60)
        assert len(home.upstream.calls) == 1
        gate.set()
        got = await asyncio.gather(*asking)
        # Who came first of those who wait is the next to ask.
        assert [each.status for each in got] == [429, 429, 200, 200, 200]
        assert [each.cached for each in got[2:]] == ["MISS", "COLLAPSED", "COLLAPSED"]
        assert len(home.upstream.calls) == 1
        left = [await _left(home, who_is(name)) for name in names]
        assert left == [[50], [51], [88], [100], [100]]

    run(test)


def test_a_fault_of_ours_is_told_to_one() -> None:
    async def test() -> None:
        home = house(RuntimeError("a bug"), whole())
        asking = [asyncio.create_task(ask(home.proxy)) for _ in range(3)]
        got = await asyncio.gather(*asking)
        assert [each.status for each in got] == [500, 200, 200]
        assert len(home.upstream.calls) == 2

    run(test)


@pytest.mark.parametrize("when", [0, 1, 30])
def test_who_has_begun_it_leaves(when: int) -> None:
    async def test() -> None:
        gate = asyncio.Event()
        limits = [Limit("5", of="concurrent"), Limit("5", of="concurrent", models=["fake-*"])]
        home = house(held(gate, whole()), options={"limits": limits})
        leader = asyncio.create_task(ask(home.proxy))
        await settle(when)
        other = asyncio.create_task(ask(home.proxy))
        await settle(when)
        leader.cancel()
        await settle()
        gate.set()
        assert (await other).body == ANSWER
        assert leader.cancelled()
        assert len(home.upstream.calls) == 1
        assert await _left(home) == [5, 5]

    run(test)


def test_when_all_have_left_nothing_goes_on() -> None:
    async def test() -> None:
        home = house(held(asyncio.Event(), whole()), options={"limits": ["5 concurrent"]})
        asking = [asyncio.create_task(ask(home.proxy)) for _ in range(3)]
        await settle(30)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await settle()
        assert await nothing_flies(home)
        assert await _left(home) == [5]

    run(test)


def test_while_somebody_insists_others_are_given_what_is_kept() -> None:
    async def test() -> None:
        gate = asyncio.Event()
        home = house(whole(), held(gate, whole(b'{"id":"new","choices":[{}]}')))
        await ask(home.proxy)
        asking = asyncio.create_task(ask(home.proxy, headers=wanting("no-cache")))
        await settle()
        assert (await ask(home.proxy)).cached == "HIT"
        assert (await ask(home.proxy, headers=wanting("only-if-cached"))).status == 200
        gate.set()
        assert (await asking).body == b'{"id":"new","choices":[{}]}'
        assert (await ask(home.proxy)).body == b'{"id":"new","choices":[{}]}'

    run(test)


def test_who_insists_shares_nothing() -> None:
    async def test() -> None:
        gate = asyncio.Event()
        home = house(held(gate, whole()))
        asking = [
            asyncio.create_task(ask(home.proxy, headers=wanting("no-cache"))) for _ in range(2)
        ]
        await settle()
        gate.set()
        assert {each.cached for each in await asyncio.gather(*asking)} == {"MISS"}
        assert len(home.upstream.calls) == 2

    run(test)


def test_what_is_packed_is_given_to_each_as_he_takes_it() -> None:
    async def test() -> None:
        gate = asyncio.Event()
        packed = whole(gzip.compress(ANSWER), headers=[*JSON, (b"content-encoding", b"gzip")])
        for names in (("gzip", "identity", "br"), ("identity", "gzip")):
            gate.clear()
            home = house(held(gate, packed))
            asking = [
                asyncio.create_task(ask(home.proxy, headers={"accept-encoding": name}))
                for name in names
            ]
            await settle()
            gate.set()
            got = await asyncio.gather(*asking)
            for name, each in zip(names, got, strict=True):
                coded = each.headers.get("content-encoding") == "gzip"
                assert coded == (name == names[0] == "gzip")
                assert (gzip.decompress(each.body) if coded else each.body) == ANSWER
            await home.proxy.aclose()
            for name in names:
                hit = await ask(home.proxy, headers={"accept-encoding": name})
                assert (hit.cached, hit.body) == ("HIT", ANSWER)
                assert hit.headers["content-length"] == str(len(ANSWER))
            assert len(home.upstream.calls) == 1

    run(test)


# -- stale -------------------------------------------------------------------------------------


def test_one_renewal_for_many() -> None:
    async def test() -> None:
        gate = asyncio.Event()
        home = house(
            whole(),
            held(gate, whole(b'{"id":"new","choices":[{}]}')),
            ttl=60,
            stale_while_revalidate=30,
        )
        await ask(home.proxy)
        home.clock.now += 70
        for _ in range(5):
            got = await ask(home.proxy)
            assert (got.cached, got.body) == ("HIT", ANSWER)
            assert got.headers["cache-status"] == "ai_proxy_mw; hit; ttl=-10"
            await settle()
        assert len(home.upstream.calls) == 2
        gate.set()
        await settle()
        assert (await ask(home.proxy)).body == b'{"id":"new","choices":[{}]}'
        assert (await home.proxy.cache.stats()).stale == 5

    run(test)


def test_who_may_have_nothing_stale_hears_the_renewal() -> None:
    async def test() -> None:
        gate = asyncio.Event()
        home = house(
            whole(),
            held(gate, whole(b'{"id":"new","choices":[{}]}')),
            ttl=60,
            stale_while_revalidate=30,
        )
        await ask(home.proxy)
        home.clock.now += 70
        await ask(home.proxy)
        asking = asyncio.create_task(ask(home.proxy, headers=wanting("max-age=5")))
        await settle()
        asking.cancel()  # it goes on without him
        asking = asyncio.create_task(ask(home.proxy, headers=wanting("max-age=5")))
        await settle()
        gate.set()
        assert ((await asking).cached, asking.result().body) == (
            "COLLAPSED",
            b'{"id":"new","choices":[{}]}',
        )
        assert len(home.upstream.calls) == 2

    run(test)


@pytest.mark.parametrize("failure", [UpstreamDisconnected(), 500, 502, 503, 504])
@pytest.mark.parametrize("count_hits", [True, False])
def test_stale_if_error(failure: Any, count_hits: bool) -> None:
    async def test() -> None:
        bad = failure if isinstance(failure, Exception) else whole(b"{}", failure)
        limits = [
            Limit("9/day"),
            Limit("9/day", models=["fake-*"]),
            Limit("3", of="concurrent", models=["fake-*"]),
        ]
        home = house(
            whole(),
            bad,
            ttl=60,
            stale_if_error=30,
            count_hits=count_hits,
            options={"limits": limits},
        )
        await ask(home.proxy)
        home.clock.now += 89
        asking = [asyncio.create_task(ask(home.proxy)) for _ in range(3)]
        for got in await asyncio.gather(*asking):
            assert (got.status, got.cached, got.body) == (200, "HIT", ANSWER)
            assert got.headers["cache-status"].endswith('ttl=-29; detail="stale-if-error"')
        assert len(home.upstream.calls) == 2
        assert await _left(home) == ([5, 5, 3] if count_hits else [8, 8, 3])
        home.clock.now += 2
        assert (await ask(home.proxy)).status >= 500

    run(test)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 501])
def test_errors_that_are_no_failures_are_passed_on(status: int) -> None:
    async def test() -> None:
        home = house(whole(), whole(b"{}", status), ttl=60, stale_if_error=30)
        await ask(home.proxy)
        home.clock.now += 70
        assert (await ask(home.proxy)).status == status

    run(test)


@pytest.mark.parametrize("owner_wants_it", [True, False])
def test_a_fresh_answer_that_was_not_wanted(owner_wants_it: bool) -> None:
    async def test() -> None:
        home = house(whole(), UpstreamDisconnected(), stale_if_error=30 if owner_wants_it else 0)
        await ask(home.proxy)
        home.clock.now += 10
        got = await ask(home.proxy, headers=wanting("max-age=0"))
        assert got.status == (200 if owner_wants_it else 502)

    run(test)


def test_a_body_that_fails_before_it_is_whole() -> None:
    async def test() -> None:
        gate = asyncio.Event()

        async def broken(outbound: Any) -> Response:
            await gate.wait()
            return Response(200, [*JSON], Hand(b"{", UpstreamDisconnected()))

        home = house(whole(), broken, ttl=60, stale_if_error=30, options={"limits": ["9/day"]})
        await get(home.proxy)
        home.clock.now += 70
        asking = [asyncio.create_task(get(home.proxy)) for _ in range(2)]
        await settle()
        gate.set()
        assert [each.cached for each in await asyncio.gather(*asking)] == ["HIT", "HIT"]
        assert await _left(home) == [6]

    run(test)


# -- GET and HEAD ------------------------------------------------------------------------------


def test_conditional_gets() -> None:
    async def test() -> None:
        home = house()
        first = await get(home.proxy)
        tag = first.headers["etag"]
        assert (first.cached, first.body) == ("MISS", ANSWER)
        for wish in ("", "no-cache"):
            headers = {"if-none-match": tag, **(wanting(wish) if wish else {})}
            again = await get(home.proxy, headers=headers)
            assert (again.status, again.body) == (304, b"")
            assert "content-length" not in again.headers
            assert again.headers["etag"] == tag
        other = await get(home.proxy, headers={"if-none-match": '"other"'})
        assert (other.status, other.cached, other.headers["etag"]) == (200, "HIT", tag)
        assert await nothing_flies(home)

    run(test)


def test_posts_are_not_conditional() -> None:
    async def test() -> None:
        home = house()
        for _ in range(2):
            got = await ask(home.proxy, headers={"if-none-match": "*"})
            assert got.status == 200
            assert "etag" not in got.headers

    run(test)


def test_gets_that_cannot_be_conditional() -> None:
    async def test() -> None:
        headers = {"if-none-match": "*", "accept-encoding": "gzip"}
        packed = whole(gzip.compress(ANSWER), headers=[*JSON, (b"content-encoding", b"gzip")])
        for answer, more in (
            (packed, {}),
            (whole(status=404), {}),
            (whole(), {"max_entry_bytes": 5}),
        ):
            home = house(answer, **more)
            got = await get(home.proxy, headers=headers)
            assert got.status == (404 if got.status == 404 else 200)
            assert got.body
            await home.proxy.aclose()

    run(test)


def test_head() -> None:
    async def test() -> None:
        home = house(ttl=60, stale_while_revalidate=30)
        miss = await get(home.proxy, method="HEAD")
        assert (miss.status, miss.body, miss.cached) == (200, b"", "MISS")
        assert miss.headers["cache-status"] == "ai_proxy_mw; fwd=method"
        await get(home.proxy)
        hit = await get(home.proxy, method="HEAD")
        assert (hit.body, hit.cached) == (b"", "HIT")
        assert hit.headers["content-length"] == str(len(ANSWER))
        tag = hit.headers["etag"]
        same = await get(home.proxy, method="HEAD", headers={"if-none-match": tag})
        assert same.status == 304
        # What it brings could not be given to who asks with GET.
        home.clock.now += 70
        stale = await get(home.proxy, method="HEAD")
        assert (stale.cached, len(home.upstream.calls)) == ("HIT", 2)
        await settle()
        assert [each.method for each in home.upstream.calls] == ["HEAD", "GET"]
        assert (await home.proxy.cache.stats()).misses == 2

    run(test)


# -- limits ------------------------------------------------------------------------------------

PRICES = Prices({"fake-*": Price(input=1, output=1)})


@pytest.mark.parametrize("count_hits", [True, False])
def test_hits_and_shared_answers_take_no_tokens_and_no_money(count_hits: bool) -> None:
    async def test() -> None:
        gate = asyncio.Event()
        limits = [
            Limit("90/day"),
            Limit("90/day", models=["fake-*"]),
            Limit("5", of="concurrent"),
            Limit("5", of="concurrent", models=["fake-*"]),
            Limit("1000/day", of="tokens"),
            Limit("1/day", of="usd"),
        ]
        home = house(
            held(gate, whole()), count_hits=count_hits, options={"limits": limits, "prices": PRICES}
        )
        asking = [asyncio.create_task(ask(home.proxy)) for _ in range(3)]
        await settle(30)
        gate.set()
        await asyncio.gather(*asking)
        hit = await ask(home.proxy)
        calls = 86 if count_hits else 89
        assert hit.cached == "HIT"
        assert hit.headers["x-ratelimit-remaining-requests"] == str(calls)
        assert "x-ratelimit-remaining-tokens" not in hit.headers
        assert await _left(home) == [calls, calls, 5, 5, 988, 1_000_000 - 12]

    run(test)


def test_hits_are_refused_where_they_count() -> None:
    async def test() -> None:
        for limit, count_hits, status in (
            (Limit("1/day"), True, 429),
            (Limit("1/day", models=["fake-*"]), True, 429),
            (Limit("1/day", models=["fake-*"]), False, 200),
        ):
            home = house(
                ttl=60,
                stale_while_revalidate=30,
                count_hits=count_hits,
                options={"limits": [limit]},
            )
            await ask(home.proxy)
            home.clock.now += 70
            assert (await ask(home.proxy)).status == status
            await settle()
            # Who is refused sets nothing going.
            assert len(home.upstream.calls) == (2 if status == 200 else 1)

    run(test)


@pytest.mark.parametrize("outcome", ["answer", "failure", "fault", "refused"])
@pytest.mark.parametrize("count_hits", [True, False])
def test_a_renewal_takes_tokens_and_places_and_gives_places_back(
    outcome: str, count_hits: bool
) -> None:
    async def test() -> None:
        gate = asyncio.Event()
        limits = [
            Limit("9/day"),
            Limit("9/day", models=["fake-*"]),
            Limit("1", of="concurrent", models=["fake-*"]),
            Limit("80/day" if outcome == "refused" else "1000/day", of="tokens"),
        ]
        answers: dict[str, Any] = {"failure": UpstreamDisconnected(), "fault": RuntimeError()}

        async def later(outbound: Any) -> Response:
            await gate.wait()
            error = answers.get(outcome)
            if error is not None:
                raise error
            return await whole()(outbound)

        home = house(
            whole(),
            later,
            ttl=60,
            stale_while_revalidate=30,
            count_hits=count_hits,
            options={"limits": limits, "estimate": lambda call: Estimate(70, 0)},
        )
        await ask(home.proxy)
        home.clock.now += 70
        got = await ask(home.proxy)
        assert got.cached == "HIT"
        await settle()
        if outcome != "refused":
            assert (await _left(home))[2] == 0  # it goes on, and has the place
        gate.set()
        await settle()
        calls = 7 if count_hits else 8
        tokens = {"answer": 976, "failure": 918, "fault": 918, "refused": 68}
        assert await _left(home) == [calls, calls, 1, tokens[outcome]]
        assert await nothing_flies(home)

    run(test)


def test_a_renewal_without_a_place_to_hold() -> None:
    async def test() -> None:
        limits = ["9/day", Limit("1000/day", of="tokens")]
        home = house(ttl=60, stale_while_revalidate=30, options={"limits": limits})
        await ask(home.proxy)
        home.clock.now += 70
        await ask(home.proxy)
        await settle()
        assert await _left(home) == [7, 976]

    run(test)


# -- replay ------------------------------------------------------------------------------------


@pytest.mark.parametrize("replay", ["instant", "paced"])
@pytest.mark.parametrize("path", ["/chat/completions", "/responses", "/messages"])
def test_streams_come_again_byte_for_byte(path: str, replay: str) -> None:
    async def test() -> None:
        fake = FakeUpstream()
        home = house(replay=replay)
        transport = home.proxy._ways.lanes[0].provider.transport
        transport.send = fake.transport().send  # type: ignore[method-assign]
        body = question(stream=True)
        if path == "/responses":
            body = {"model": "fake-1", "input": "Hi", "stream": True, "store": False}
        first = await ask(home.proxy, body, path=path)
        again = await ask(home.proxy, body, path=path)
        assert (first.cached, again.cached) == ("MISS", "HIT")
        assert first.body == again.body
        assert len(fake.requests) == 1
        assert (len(again.pieces) == len(first.pieces)) == (replay == "paced")

    run(test)


@pytest.mark.parametrize("replay", ["instant", "paced"])
def test_streams_in_odd_pieces_come_again(replay: str) -> None:
    async def test() -> None:
        odd = [EVENTS[0][:5], b"", EVENTS[0][5:], EVENTS[1] + EVENTS[2], b""]
        home = house(streamed(*odd), replay=replay)
        asked = question(stream=True)
        for cached in ("MISS", "HIT"):
            got = await ask(home.proxy, asked)
            assert (got.cached, got.body) == (cached, b"".join(EVENTS))

    run(test)


# -- garbage -----------------------------------------------------------------------------------


def _any_answer(chance: random.Random) -> Answer:
    async def answer(outbound: Any) -> Response:
        await settle(chance.randrange(8))
        kind = chance.randrange(5)
        if kind == 0:
            raise UpstreamDisconnected
        if kind == 1:
            return Response(500, [*JSON], b"{}")
        if kind == 2:
            return Response(200, [*STREAM], Hand(EVENTS[0], UpstreamDisconnected()))
        return await (streamed() if kind == 3 else whole())(outbound)

    return answer


async def _any_call(home: House, chance: random.Random) -> None:
    wish = chance.choice([{}, {}, {}, wanting("no-cache"), wanting("max-age=0")])
    text, user = str(chance.randrange(3)), f"u{chance.randrange(3)}"
    asking = asyncio.create_task(ask(home.proxy, question(text), user=user, headers=wish))
    if chance.randrange(3) == 0:
        await settle(chance.randrange(12))
        asking.cancel()
    home.clock.now += chance.random() / 8
    await asyncio.wait([asking])
    error = None if asking.cancelled() else asking.exception()
    assert error is None or isinstance(error, Truncated)


def _alive() -> list[type]:
    # Not isinstance, which wakes the lazy objects that other libraries have lying about.
    kinds = (Flight, Listener, Tally, Request)
    return [type(each) for each in gc.get_objects() if type(each) in kinds]


def test_after_a_thousand_calls_nothing_is_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # what is captured is kept
    limits = [
        "9 concurrent",
        Limit("9", of="concurrent", models=["fake-*"]),
        Limit("100000000/day", of="tokens"),
    ]

    async def test() -> None:
        chance = random.Random(7)
        home = house(
            _any_answer(chance),
            store=MemoryCache(max_bytes=1 << 20),
            ttl=1.0,
            stale_while_revalidate=1.0,
            stale_if_error=1.0,
            options={"limits": limits},
        )
        for _ in range(100):
            await asyncio.gather(*[_any_call(home, chance) for _ in range(10)])
        assert await nothing_flies(home)
        for user in ("u0", "u1", "u2"):
            assert (await _left(home, user))[:2] == [9, 9]
        assert _alive() == before
        await home.proxy.aclose()

    gc.collect()
    gc.disable()
    try:
        before = _alive()
        run(test)
    finally:
        gc.enable()
