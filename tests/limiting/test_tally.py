"""What one call takes, and what it gives back whatever happens to it."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from ai_proxy_mw import Limit
from ai_proxy_mw._errors import PriceUnknown, RateLimited, Unavailable
from ai_proxy_mw._http import Ending, Response
from ai_proxy_mw._loop import LoopThread
from ai_proxy_mw.accounting.costs import Costs
from ai_proxy_mw.accounting.estimate import Estimate
from ai_proxy_mw.accounting.prices import Price, Prices
from ai_proxy_mw.limiting import headers, keys
from ai_proxy_mw.limiting.ledger import Ledger
from ai_proxy_mw.limiting.limiter import Limiter
from ai_proxy_mw.limiting.tally import Tally
from ai_proxy_mw.schema.call import Call
from ai_proxy_mw.stages.budget import BudgetStage
from ai_proxy_mw.stages.rate_limit import STATUS, RateLimitStage
from ai_proxy_mw.stores.local import LocalStorage

CHAT = "POST /chat/completions"


class Slow(LocalStorage):
    """Answers when it is told to, after it has counted."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        count = await super().incr(key, expiry, amount)
        self.counted.set()
        await self.answers.wait()
        return count


class Down(LocalStorage):
    async def get(self, key: str) -> int:
        raise OSError(key)


def _request(endpoint: str = CHAT) -> Any:
    call = SimpleNamespace(model="fake-1", other_models=[])
    return SimpleNamespace(
        served=None,
        subject="a",
        client="::1",
        call=call,
        endpoint=endpoint,
        identity=None,
        note=None,
        sends=1,
        tally=None,
    )


def _hundred(limit: Limit) -> int:
    return 100


@pytest.mark.parametrize("outcome", ["fits", "refused"])
def test_a_caller_that_leaves_while_the_store_is_asked_holds_nothing(outcome: str) -> None:
    async def main() -> None:
        store = Slow()
        amount = 1000 if outcome == "fits" else 50
        limits = (Limit(f"{amount}/year", of="tokens"), Limit("5", of="concurrent"))
        limiter = Limiter(limits, name="a", storage=store)
        tally = Tally(limiter, _request(), limits)
        await tally.take_early()
        store.answers.clear()
        store.counted.clear()
        asking = asyncio.create_task(tally.take_late(_hundred))
        await store.counted.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        tally.release()
        store.answers.set()
        await limiter.books.here().leases.aclose()  # waits also for what that leaves behind
        assert [each.remaining for each in await limiter.status("a")] == [amount, 5]
        assert limiter.reserved == {}

    asyncio.run(main())


@pytest.mark.parametrize("storage", [None, "remote"])
def test_who_is_refused_in_the_end_counts_nowhere(storage: str | None) -> None:
    async def main() -> None:
        limits = (Limit("5/year"), Limit("5", of="concurrent"), Limit("50/year", of="tokens"))
        limiter = Limiter(limits, name="a", storage=None if storage is None else Slow())
        tally = Tally(limiter, _request(), limits)
        await tally.take_early()
        assert [each.remaining for each in tally.standings] == [4, 4]
        with pytest.raises(RateLimited):
            await tally.take_late(_hundred)
        assert [each.remaining for each in tally.standings] == [5, 4, 50]
        tally.release()
        await limiter.books.here().leases.aclose()
        assert [each.remaining for each in await limiter.status("a")] == [5, 5, 50]

    asyncio.run(main())


def test_a_moving_window_is_asked_last() -> None:
    async def main() -> None:
        limits = (Limit("5/year", strategy="moving"), Limit("3/year"), Limit("1/day"))
        limiter = Limiter(limits, name="a")
        statuses = []
        for _ in range(3):
            tally = Tally(limiter, _request(), limits)
            try:
                await tally.take_early()
                statuses.append(200)
            except RateLimited:
                statuses.append(429)
        assert statuses == [200, 429, 429]
        assert [each.remaining for each in await limiter.status("a")] == [4, 2, 0]
        # What the answer tells is what holds.
        assert [(each.limit.window, each.remaining) for each in tally.standings] == [
            (limits[1].window, 2),
            (limits[2].window, 0),
            (limits[0].window, 4),
        ]

    asyncio.run(main())


@pytest.mark.parametrize("used", [0, 40, 130])
def test_a_store_far_away_is_settled_through_its_guard(used: int) -> None:
    async def main() -> None:
        limits = (Limit("1000/year", of="tokens"),)
        limiter = Limiter(limits, name="a", storage=Slow())
        tally = Tally(limiter, _request(), limits)
        await tally.take_late(_hundred)
        [standing] = await limiter.status("a")
        assert (standing.remaining, standing.reserved) == (900, 100)
        tally.settle(lambda _: used)
        tally.settle(lambda _: 500)  # settled already
        await limiter.aclose()
        [standing] = await limiter.status("a")
        assert (standing.remaining, standing.reserved) == (1000 - used, 0)

    asyncio.run(main())


def test_two_calls_reserve_on_one_count() -> None:
    async def main() -> None:
        limits = (Limit("1000/year", of="tokens"),)
        limiter = Limiter(limits, name="a")
        tallies = [Tally(limiter, _request(), limits) for _ in range(2)]
        for tally in tallies:
            await tally.take_late(_hundred)
        reserved = []
        for tally in tallies:
            tally.settle(_hundred)
            reserved += [each.reserved for each in await limiter.status("a")]
        assert reserved == [100, 0]

    asyncio.run(main())


@pytest.mark.parametrize(("error", "left"), [(ValueError(), 93), (Unavailable(), 100)])
def test_a_call_that_failed_within_is_paid_for_if_it_may_have_been_sent(
    error: Exception, left: int
) -> None:
    async def fails(request: Any) -> Response:
        raise error

    async def main() -> None:
        limits = (Limit("100/year", of="tokens"),)
        limiter = Limiter(limits, name="a")
        request = _request()
        request.tally = Tally(limiter, request, limits)
        stage = BudgetStage(Costs(None, lambda _: Estimate(7, 20)))
        with pytest.raises(type(error)):
            await stage(request, fails)
        await limiter.aclose()
        assert [each.remaining for each in await limiter.status("a")] == [left]

    asyncio.run(main())


@pytest.mark.parametrize("packed", [True, False])
def test_an_answer_is_settled_by_the_first_line_of_each_name(packed: bool) -> None:
    answer = b'{"usage": {"prompt_tokens": 3, "completion_tokens": 4}}'
    coding = [(b"content-encoding", b"gzip")] if packed else []

    async def handler(request: Any) -> Response:
        lines = [(b"content-type", b"application/json"), *coding, (b"date", b"today")]
        lines += [(b"content-type", b"audio/mpeg"), (b"content-encoding", b"br")] if packed else []
        return Response(200, lines)

    async def main() -> None:
        limits = (Limit("100/year", of="tokens"),)
        limiter = Limiter(limits, name="a")
        request = _request()
        request.tally = Tally(limiter, request, limits)
        stage = BudgetStage(Costs(None, lambda _: Estimate(7, 20)))
        [observer] = (await stage(request, handler)).observers
        observer.chunk(gzip.compress(answer) if packed else answer)
        observer.end(Ending.COMPLETE)
        assert [each.remaining for each in await limiter.status("a")] == [93]

    asyncio.run(main())


def test_who_asks_how_it_stands_while_nobody_knows_is_told_so() -> None:
    async def never(request: Any) -> Response:
        raise AssertionError

    async def main() -> None:
        limiter = Limiter(["5/year"], name="a", storage=Down())
        request = _request(STATUS)
        with pytest.raises(Unavailable):
            await RateLimitStage(limiter)(request, never)

    asyncio.run(main())


def test_a_call_that_no_limit_is_for_is_told_of_none() -> None:
    assert headers.lines([]) == []


class Torn(LocalStorage):
    """Counts one limit, and fails at another."""

    def __init__(self, limit: Limit) -> None:
        super().__init__()
        self.limit = limit

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        if self.limit.id in key:
            raise OSError(key)
        return await super().incr(key, expiry, amount)


def test_who_could_not_be_counted_everywhere_is_counted_nowhere() -> None:
    async def main() -> None:
        limits = (Limit("100/year", of="tokens"), Limit("100/day", of="tokens"))
        limiter = Limiter(limits, name="a", storage=Torn(limits[1]), on_failure="allow")
        tally = Tally(limiter, _request(), limits)
        await tally.take_late(_hundred)
        book = limiter.books.here()
        await book.leases.aclose()
        base = limiter.base(limits[0], keys.digest("a"))
        assert (await book.ledger.standing(limits[0], base)).remaining == 100

    asyncio.run(main())


@pytest.mark.parametrize("strategies", [("sliding", "fixed"), ("sliding", "moving")])
def test_who_is_refused_by_several_is_told_the_longest_wait(strategies: Any) -> None:
    async def main() -> None:
        limits = (
            Limit("1/second", strategy=strategies[0]),
            Limit("2/year", strategy=strategies[1]),
            Limit("9/day"),
        )
        now = time.time()
        limiter = Limiter(limits, name="a", clock=lambda: now)
        for _ in range(2):
            await Tally(limiter, _request(), limits[1:]).take_early()
        await Tally(limiter, _request(), limits[:1]).take_early()
        tally = Tally(limiter, _request(), limits)
        with pytest.raises(RateLimited, match="You have used the 2 requests") as refused:
            await tally.take_early()
        assert refused.value.retry_after is not None
        assert refused.value.retry_after > 2
        assert sorted(each.remaining for each in tally.standings) == [0, 0, 7]

    asyncio.run(main())


def test_an_incident_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise OSError

    async def works() -> None:
        pass

    async def main() -> None:
        leases = Limiter(["1/day"], name="a").books.here().leases
        for incident in ([fails, fails, works], [fails]):
            for work in incident:
                leases.later(work())
                await leases.aclose()

    asyncio.run(main())
    assert [record.message for record in caplog.records] == ["limits: not settled: OSError"] * 2


def test_nobody_escapes_the_limit_of_a_model_by_naming_it_second() -> None:
    async def main() -> None:
        limits = (Limit("1/year", models=["dear-*"]),)
        limiter = Limiter(limits, name="a")
        request = _request()
        for body, fits in [
            (b'{"model": "a", "models": ["b", "dear-1"]}', True),
            (b'{"model": "a", "fallbacks": ["dear-2"]}', False),
            (b'{"model": "a", "models": ["b"]}', True),
        ]:
            request.call = Call(CHAT, body)
            tally = Tally(limiter, request, limits)
            if fits:
                await tally.take_late(lambda _: 1)
                continue
            with pytest.raises(RateLimited):
                await tally.take_late(lambda _: 1)

    asyncio.run(main())


def test_the_dearest_of_the_models_that_may_answer_is_reserved() -> None:
    prices = Prices({"cheap": Price(0, 1), "in": Price(5, 2), "out": Price(1, 9)}, default=False)
    costs = Costs(prices, lambda _: Estimate(10, 10))
    limit = Limit("1/day", of="usd")

    def expected(**body: Any) -> int:
        request = _request()
        request.call = Call(CHAT, json.dumps(body).encode())
        return costs.bill(request).expected(limit)

    assert expected(model="cheap") == 10
    assert expected(model="cheap", models=["cheap", "in"]) == 70
    assert expected(model="in", fallbacks=["out"]) == 100
    for unknown in ({"models": ["x"]}, {"tools": [{"type": "image_generation", "model": "x"}]}):
        with pytest.raises(PriceUnknown):
            expected(model="cheap", **unknown)


def test_the_end_of_the_process_waits_for_what_is_being_settled() -> None:
    thread = LoopThread()
    settled = []

    async def begin() -> None:
        ending = asyncio.Event()
        leases = Limiter(["1/day"], name="a").books.here().leases

        async def settle() -> None:
            await ending.wait()
            settled.append(1)

        async def close() -> None:
            ending.set()
            await leases.aclose()

        leases.later(settle())
        thread.at_stop(leases, close)

    thread.run(begin())
    thread.stop()
    assert settled == [1]


class Forgetful:
    """A store whose counts may go below 0."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        self.counts[key] = count = self.counts.get(key, 0) + amount
        await asyncio.sleep(0)
        return count

    async def get(self, key: str) -> int:
        return self.counts.get(key, 0)

    async def clear(self, key: str) -> None:
        self.counts.pop(key, None)


def test_what_is_given_back_to_a_forgotten_count_is_no_credit() -> None:
    async def main() -> None:
        ledger = Ledger(Forgetful(), lambda: 60_000.0)
        limit = Limit("1000/minute", of="tokens")
        held = [(await ledger.take(limit, "a", 100))[0] for _ in range(3)]
        await ledger.reset(limit, "a")
        again, _ = await ledger.take(limit, "a", 50)
        assert again is not None
        await asyncio.gather(*[ledger.settle(each, 10) for each in held if each is not None])
        assert (await ledger.standing(limit, "a")).remaining == 1000
        taken, _ = await ledger.take(limit, "a", 1000)
        assert taken is not None
        assert (await ledger.take(limit, "a", 1))[0] is None

    asyncio.run(main())


def test_a_place_that_is_taken_when_the_caller_has_left_is_free_at_once() -> None:
    limits = (Limit("1", of="concurrent", models=["fake-*"]),)

    async def main() -> None:
        limiter = Limiter(limits, name="test")
        request = _request()
        request.call = Call(CHAT, b'{"model": "fake-1"}')
        tally = Tally(limiter, request, limits)
        tally.release()
        await tally.take_late(lambda limit: 1)  # what it asks goes on for others
        assert not tally.holds_places
        await Tally(limiter, request, limits).take_late(lambda limit: 1)

    asyncio.run(main())
