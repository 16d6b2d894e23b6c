"""Which limits are told to be close to exhaustion, and which are not any longer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ai_proxy_mw import AIProxy, AIProxyMiddleware, Identity, Limit, Request, Upstream
from ai_proxy_mw.limiting.closest import MOST, Watch
from ai_proxy_mw.limiting.ledger import Standing
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream

TEN = Limit("10/minute")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(clock)


def _request(subject: str = "a", **more: Any) -> Any:
    call = {"client": "::1", "call": SimpleNamespace(model="fake-1"), **more}
    return SimpleNamespace(subject=subject, **call)


def _told(watch: Watch) -> list[tuple[str | None, int]]:
    return [(each.who, each.remaining) for each in watch.closest()]


def test_a_fifth_is_close_and_more_is_not(watch: Watch) -> None:
    watch.look(_request("a"), [Standing(TEN, 2, 30.0)])
    watch.look(_request("b"), [Standing(TEN, 3, 30.0)])
    (told,) = watch.closest()
    assert (told.who, told.limit, told.of, told.per) == ("a", "10/minute", "requests", "subject")
    assert (told.amount, told.remaining, told.resets) == (10, 2, 1030.0)


def test_those_with_the_least_left_come_first(watch: Watch) -> None:
    for subject, left in (("a", 2), ("b", 0), ("c", 1)):
        watch.look(_request(subject), [Standing(TEN, left, 30.0)])
    assert _told(watch) == [("b", 0), ("c", 1), ("a", 2)]


def test_what_has_room_again_leaves(watch: Watch) -> None:
    watch.look(_request("a"), [Standing(TEN, 1, 30.0)])
    watch.look(_request("a"), [Standing(Limit("10/minute", shared=True), 9, 30.0)])
    watch.look(_request("b"), [Standing(TEN, 9, 30.0)])
    assert _told(watch) == [("a", 1)]
    watch.look(_request("a"), [Standing(TEN, 9, 30.0)])
    assert _told(watch) == []


def test_what_has_run_out_leaves(watch: Watch, clock: Clock) -> None:
    watch.look(_request("a"), [Standing(TEN, 1, 30.0)])
    clock.now += 29
    assert _told(watch) == [("a", 1)]
    clock.now += 1
    assert _told(watch) == []


def test_places_are_told_while_one_may_be_held(watch: Watch, clock: Clock) -> None:
    watch.look(_request("a"), [Standing(Limit("5", of="concurrent"), 0, 0.0)])
    assert [each.resets for each in watch.closest()] == [None]
    clock.now += 30
    assert _told(watch) == []


@pytest.mark.parametrize(
    ("per", "who"),
    [
        ("subject", "a"),
        ("ip", "::1"),
        ("model", "fake-1"),
        ("subject+model", "a, fake-1"),
        (lambda request: "team", None),
    ],
)
def test_it_says_whose_limit_it_is(watch: Watch, per: Any, who: str | None) -> None:
    watch.look(_request("a"), [Standing(Limit("10/minute", per=per), 1, 30.0)])
    (told,) = watch.closest()
    assert told.who == who
    assert told.per == (per if isinstance(per, str) else "other")


def test_who_has_no_address_and_no_model(watch: Watch) -> None:
    request = _request("a", client=None, call=None)
    for limit in (Limit("10/minute", per="ip"), Limit("10/minute", per="model")):
        watch.look(request, [Standing(limit, 1, 30.0)])
    assert sorted(each.who or "" for each in watch.closest()) == ["", "unknown"]


def test_a_long_name_is_cut(watch: Watch) -> None:
    request = _request("a", call=SimpleNamespace(model="m" * 100_000))
    watch.look(request, [Standing(Limit("10/minute", per="model"), 1, 30.0)])
    assert [len(each.who or "") for each in watch.closest()] == [256]


def test_of_those_that_only_a_function_knows_the_closest_is_told(
    watch: Watch, clock: Clock
) -> None:
    limit = Limit("10/minute", per=lambda request: "team")
    for left in (1, 2, 9):
        watch.look(_request("a"), [Standing(limit, left, 30.0)])
    assert _told(watch) == [(None, 1)]
    clock.now += 31
    watch.look(_request("a"), [Standing(limit, 2, 30.0)])
    assert _told(watch) == [(None, 2)]


def test_no_more_are_kept_than_so_many(watch: Watch, clock: Clock) -> None:
    hundred = Limit("1000/minute")
    for number in range(MOST):
        watch.look(_request(f"s{number}"), [Standing(hundred, 100 + number, 30.0)])
    for _ in range(2):
        watch.look(_request("far"), [Standing(hundred, 200, 30.0)])
    assert len(watch.closest()) == MOST
    watch.look(_request("near"), [Standing(hundred, 1, 60.0)])
    told = _told(watch)
    assert len(told) == MOST
    assert told[0] == ("near", 1)
    assert ("far", 200) not in told
    assert (f"s{MOST - 1}", 100 + MOST - 1) not in told
    clock.now += 40  # all but one of them have run out, which makes room
    watch.look(_request("far"), [Standing(hundred, 200, 30.0)])
    assert _told(watch) == [("near", 1), ("far", 200)]


def test_calls_tell_it_also_the_refused() -> None:
    async def who(request: Request) -> Identity:
        return Identity(request.headers.get("x-user") or "nobody")

    async def main() -> list[tuple[str | None, int]]:
        upstream = Upstream(base_url=FAKE_BASE_URL, transport=FakeUpstream().transport())
        async with AIProxy(upstream=upstream, identify=who, limits=["5/hour"]) as proxy:
            app: Any = AIProxyMiddleware(proxy=proxy)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
                for user, times in (("alice", 6), ("bob", 4), ("carol", 1)):
                    for _ in range(times):
                        await client.get("/v1/models", headers={"x-user": user})
            return [(each.who, each.remaining) for each in proxy.limits.closest()]

    assert asyncio.run(main()) == [("alice", 0), ("bob", 1)]
