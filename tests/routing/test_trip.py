"""The way of one call: who is asked after whom, how often, and what is left behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ai_proxy_mw import Circuit, ConfigurationError, Request, Response, Retry, Timeouts
from ai_proxy_mw._errors import (
    InvalidRequest,
    NotFound,
    UpstreamDisconnected,
    UpstreamsDown,
    UpstreamUnreachable,
)
from ai_proxy_mw._http import Ending
from ai_proxy_mw.routing.letter import within
from ai_proxy_mw.routing.retry_budget import RetryBudget
from ai_proxy_mw.routing.trip import House, Trip
from ai_proxy_mw.stages.resilience import Resilience
from tests.routing.scripted import (
    STREAM,
    Now,
    Pieces,
    answer,
    at_rest,
    case,
    house,
    lane,
    never,
    request,
    script,
    settle,
)


async def go(home: House, call: Request | None = None) -> Response:
    return await Trip(home, call or request()).answer()


def end(response: Response, how: Ending = Ending.COMPLETE) -> None:
    for observer in response.observers:
        observer.end(how)


def told(response: Response) -> dict[bytes, bytes]:
    return {name: value for name, value in response.headers if name.startswith(b"x-ai-proxy")}


def asked(*lanes: Any) -> list[int]:
    return [len(script(each).sent) for each in lanes]


@case
async def test_the_first_good_answer_is_given() -> None:
    a, b = lane("a", answer(500)), lane("b", priority=1)
    response = await go(house(a, b))
    assert told(response) == {b"x-ai-proxy-attempts": b"2", b"x-ai-proxy-upstream": b"b"}
    assert (a.in_flight, b.in_flight) == (0, 1)
    end(response)
    assert at_rest(a, b)


@case
async def test_the_last_failure_is_told_with_who_was_asked() -> None:
    a, b = lane("a", answer(500)), lane("b", UpstreamUnreachable(), priority=1)
    with pytest.raises(UpstreamUnreachable) as caught:
        await go(house(a, b))
    assert dict(caught.value.headers())[b"x-ai-proxy-upstream"] == b"b"
    assert at_rest(a, b)


@case
async def test_sends_are_bounded_whatever_fails() -> None:
    lanes = [lane(f"u{n}", answer(503), priority=n % 3) for n in range(9)]
    fallback = {"m": ["n", "m"], "n": ["m"]}
    now = Now()
    home = house(*lanes, retry=Retry(attempts=5, cap=1, total=999), fallback=fallback, now=now)
    response = await go(home)
    assert response.status == 503
    # Two models, three priorities, and of each five sends.
    assert sum(asked(*lanes)) == 2 * 3 * 5
    end(response, Ending.CUT)
    assert at_rest(*lanes)


@case
async def test_models_that_answer_for_each_other_are_no_circle() -> None:
    a = lane("a", answer(500))
    home = house(a, fallback={"a": ["b"], "b": ["a"]})
    for model, other in (("a", "b"), ("b", "a")):
        script(a).sent.clear()
        response = await go(home, request(model))
        bodies = [json.loads(each.body) for each in script(a).sent]  # type: ignore[arg-type]
        assert [body["model"] for body in bodies] == [model, other]
        assert told(response)[b"x-ai-proxy-model"] == other.encode()
        end(response)


@case
async def test_a_lane_that_closes_while_it_is_waited_for_is_not_asked() -> None:
    now = Now()
    circuit = Circuit(calls=1, open_for=100)
    a = lane("a", answer(500), circuit=circuit, clock=now)
    response = await go(house(a, retry=Retry(attempts=3), now=now))
    assert response.status == 500
    assert asked(a) == [1]
    assert now.slept == []
    end(response)
    b = lane("b", priority=1)
    a = lane("a", answer(500), circuit=circuit, clock=now)
    response = await go(house(a, b, retry=Retry(attempts=3), now=now))
    assert response.status == 200
    assert asked(a, b) == [1, 1]
    end(response)
    assert at_rest(a, b)


@case
async def test_where_others_close_the_last_lane_during_a_pause_that_is_told() -> None:
    a = lane("a", answer(500), circuit=Circuit())

    async def sleep(seconds: float) -> None:
        a.breaker.learn_open(60)

    with pytest.raises(UpstreamsDown):
        await go(house(a, retry=Retry(attempts=2), sleep=sleep))
    assert asked(a) == [1]
    assert at_rest(a)


@case
async def test_who_leaves_during_a_pause_leaves_nothing_behind() -> None:
    body = Pieces(b"sorry")
    a = lane("a", answer(500, body), max_concurrent=1)

    async def sleep(seconds: float) -> None:
        await asyncio.get_running_loop().create_future()

    call = asyncio.create_task(go(house(a, retry=Retry(attempts=2), sleep=sleep)))
    await settle()
    assert at_rest(a)  # who waits holds nothing
    assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert at_rest(a)
    assert body.closed


@case
async def test_when_all_are_closed_off_that_is_told() -> None:
    now = Now()
    a = lane("a", circuit=Circuit(calls=1, open_for=20), clock=now)
    b = lane("b", circuit=Circuit(calls=1, open_for=10), clock=now, priority=1)
    for each in (a, b):
        each.breaker.failed(each.breaker.begin())
    with pytest.raises(UpstreamsDown) as caught:
        await go(house(a, b))
    assert caught.value.retry_after == 10
    assert (b"x-ai-proxy-attempts", b"0") in caught.value.headers()


# -- the owner's choice ---------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["b", ["b"], ("b", "a"), iter(["b"])])
def test_the_owner_chooses(names: Any) -> None:
    @case
    async def work() -> None:
        a, b = lane("a"), lane("b", models={"x": "y"})

        async def later(call: Request) -> Any:
            return names

        for route in (lambda call: names, later):
            if not isinstance(names, str | list | tuple) and route is later:
                continue
            response = await go(house(a, b, route=route))
            assert told(response)[b"x-ai-proxy-upstream"] == b"b"
            end(response)
        # Chosen by name, it is asked also for what it was not said to have.
        assert json.loads(script(b).sent[-1].body)["model"] == "m"  # type: ignore[arg-type]
        assert at_rest(a, b)

    work()


@pytest.mark.parametrize("names", ["nobody", ["a", "nobody"], [], ()])
def test_a_wrong_choice_is_told_to_the_owner(names: Any) -> None:
    @case
    async def work() -> None:
        a = lane("a")
        with pytest.raises(ConfigurationError, match="route: "):
            await go(house(a, route=lambda call: names))
        assert asked(a) == [0]

    work()


@case
async def test_a_choice_of_none_leaves_it_to_the_rest() -> None:
    a = lane("a")
    end(await go(house(a, route=lambda call: None)))
    assert asked(a) == [1]


@pytest.mark.parametrize("model", ["../x", "a/b", "a?b=c", "a b", "é", "", None, "m" * 10_000_000])
def test_a_chosen_path_holds_no_odd_model(model: str | None) -> None:
    @case
    async def work() -> None:
        a = lane("a", base_url="http://a.test/{model}")
        with pytest.raises((InvalidRequest, NotFound)):
            await go(house(a, route=lambda call: "a"), request(model))
        assert asked(a) == [0]

    work()


# -- what is sent ----------------------------------------------------------------------------------


@case
async def test_a_key_is_for_one_body() -> None:
    a = lane("a", answer(500), idempotency_key=True)
    home = house(a, retry=Retry(attempts=2), fallback={"m": ["n"]})
    end(await go(home))
    keys = [dict(each.headers)[b"idempotency-key"] for each in script(a).sent]
    assert keys[0] == keys[1] != keys[2] == keys[3]


@case
async def test_the_callers_key_goes_before_ours() -> None:
    a = lane("a", idempotency_key=True)
    end(await go(house(a), request(headers=[(b"idempotency-key", b"mine")])))
    lines = [line for line in script(a).sent[0].headers if line[0] == b"idempotency-key"]
    assert lines == [(b"idempotency-key", b"mine")]


@pytest.mark.parametrize(
    ("endpoint", "options", "sends"),
    [
        ("POST /chat/completions", {}, 1),
        ("POST /chat/completions", {"idempotency_key": True}, 2),
        ("GET /models", {}, 2),
    ],
)
def test_what_is_safe_is_sent_again(endpoint: str, options: Any, sends: int) -> None:
    @case
    async def work() -> None:
        a = lane("a", UpstreamDisconnected(), **options)
        with pytest.raises(UpstreamDisconnected):
            await go(house(a, retry=Retry(attempts=2)), request(endpoint=endpoint))
        assert asked(a) == [sends]

    work()


@case
async def test_an_upload_of_which_nothing_has_left_is_sent_again() -> None:
    a, b = lane("a", UpstreamUnreachable()), lane("b")
    home = house(a, b, route=lambda call: ["a", "b"])
    call = request(endpoint="POST /files", upload=[b"abc", b"def"])
    end(await go(home, call))
    assert script(b).bodies == [b"abcdef"]


@case
async def test_an_upload_that_was_passed_on_is_gone() -> None:
    async def reads_and_breaks() -> Response:
        raise UpstreamDisconnected

    a, b = lane("a", reads_and_breaks), lane("b")
    home = house(a, b, route=lambda call: ["a", "b"], retry=Retry(unsafe={"reset"}))
    with pytest.raises(UpstreamDisconnected, match="broke off") as caught:
        await go(home, request(endpoint="POST /files", upload=[b"abc", b"def"]))
    assert "send it again" in caught.value.message
    assert asked(b) == [0]


# -- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("deadline", [2.0, lambda call: 2.0])
def test_a_deadline_bounds_each_step_and_the_repeats(deadline: Any) -> None:
    @case
    async def work() -> None:
        now = Now()

        async def slowly() -> Response:
            now.now += 1.5
            return answer(503)

        a = lane("a", slowly)
        home = house(a, retry=Retry(attempts=9, backoff=0), now=now, deadline=deadline)
        response = await go(home)
        assert response.status == 503
        assert [each.timeouts.first_byte for each in script(a).sent] == [2.0, 0.5]
        assert script(a).sent[1].timeouts.connect == 0.5
        end(response)

    work()


@case
async def test_a_function_may_say_that_there_is_no_deadline() -> None:
    a = lane("a")
    end(await go(house(a, deadline=lambda call: None)))
    assert script(a).sent[0].timeouts == Timeouts()


@case
async def test_the_callers_patience_bounds_the_repeats() -> None:
    now = Now()
    a = lane("a", answer(503, headers=[(b"retry-after", b"5")]))
    home = house(a, retry=Retry(attempts=3), now=now)
    end(await go(home, request(headers=[(b"x-stainless-timeout", b"8")])))
    assert now.slept == [5.0]


def test_the_same_patience_where_there_is_more_time() -> None:
    mine = Timeouts()
    assert within(mine, None) is within(mine, 60.0) is mine
    short = within(mine, -1.0)
    assert (short.first_byte, short.connect, short.idle) == (0.001, 0.001, mine.idle)


# -- hedging --------------------------------------------------------------------------------------


def hedged(*lanes: Any, **options: Any) -> House:
    return house(*lanes, hedge_after=0.0, **options)


@case
async def test_a_silent_lane_is_hedged_and_may_have_to_be_paid_for() -> None:
    a, b = lane("a", never, max_concurrent=1), lane("b", priority=1)
    call = request()
    response = await go(hedged(a, b), call)
    assert told(response)[b"x-ai-proxy-upstream"] == b"b"
    assert call.served is not None
    assert (call.served.unanswered, call.served.attempts) == (1, 2)
    end(response)
    assert at_rest(a, b)


@case
async def test_who_leaves_twice_pays_for_all_that_was_sent() -> None:
    async def slow_to_end() -> Response:
        try:
            return await never()
        finally:
            await settle()

    a, b = lane("a", slow_to_end), lane("b", slow_to_end)
    call = request()
    trip = asyncio.create_task(go(hedged(a, b), call))
    while sum(asked(a, b)) < 2:
        await asyncio.sleep(0)
    trip.cancel()
    await asyncio.sleep(0)
    trip.cancel()  # before what the first time has ended could say so
    with pytest.raises(asyncio.CancelledError):
        await trip
    assert call.served is not None
    assert call.served.unanswered == 2
    await settle()
    assert call.served.unanswered == 2
    assert at_rest(a, b)


@case
async def test_hedged_lanes_of_one_group_are_not_asked_twice() -> None:
    async def slow_and_bad() -> Response:
        await settle()
        return answer(500)

    a, b = lane("a", slow_and_bad), lane("b", slow_and_bad)
    response = await go(hedged(a, b))
    assert response.status == 500
    assert asked(a, b) == [1, 1]
    end(response)
    assert at_rest(a, b)


@case
async def test_both_that_answer_at_once_are_counted() -> None:
    gate = asyncio.Event()

    async def waits() -> Response:
        await gate.wait()
        return answer()

    a, b = lane("a", waits), lane("b", waits)
    call = request()
    trip = asyncio.create_task(go(hedged(a, b), call))
    while sum(asked(a, b)) < 2:
        await asyncio.sleep(0)
    gate.set()
    response = await trip
    assert call.served is not None
    assert len(call.served.lost) + call.served.unanswered == 1
    end(response)
    assert at_rest(a, b)


@case
async def test_one_lane_or_an_upload_is_not_hedged() -> None:
    a = lane("a")
    end(await go(hedged(a)))
    b = lane("b")
    call = request(endpoint="POST /audio/transcriptions", upload=[b"a", b"b"])
    end(await go(hedged(a, b), call))
    assert sum(asked(a, b)) == 2


@case
async def test_a_caller_who_leaves_a_hedged_call_leaves_nothing_behind() -> None:
    for turns in range(0, 60, 3):
        a = lane("a", never, max_concurrent=1)
        b = lane("b", answer(200, b'data: {"choices":[{"text":"a"}]}\n\n', STREAM))
        trip = asyncio.create_task(go(hedged(a, b)))
        for _ in range(turns):
            await asyncio.sleep(0)
        trip.cancel()
        (response,) = await asyncio.gather(trip, return_exceptions=True)
        if isinstance(response, Response):
            end(response)
        await settle()
        assert at_rest(a, b), turns


# -- the stage ------------------------------------------------------------------------------------


@case
async def test_each_call_pays_into_the_budget_and_looks_at_what_others_tell() -> None:
    class Shared:
        touched = 0

        def touch(self) -> None:
            self.touched += 1

    shared: Any = Shared()
    budget = RetryBudget(1.0, reserve=0, clock=Now())
    a = lane("a")
    for home in (house(a, budget=budget, shared=shared), house(a)):
        end(await Resilience(home)(request()))
    assert shared.touched == 1
    assert budget.withdraw()
    assert not budget.withdraw()


@case
async def test_a_body_is_untouched_until_something_of_it_is_handed_on() -> None:
    body = request(endpoint="POST /files", upload=[b"a", b"b"]).body
    seen = [body.untouched]
    assert await body.whole() is None
    seen.append(body.untouched)
    assert await anext(body) == b"a"
    seen.append(body.untouched)
    assert seen == [True, True, False]
    closed = request(endpoint="POST /files", upload=[b"a", b"b"]).body
    await closed.whole()
    await closed.aclose()
    assert not closed.untouched
