"""One send: what it tells the lane, and that it gives back all it holds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ai_proxy_mw import Circuit, Concurrency, Request, Upstream
from ai_proxy_mw._errors import (
    ClientGone,
    InvalidRequest,
    UpstreamBusy,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ai_proxy_mw._http import Ending
from ai_proxy_mw.accounting.usage import Usage
from ai_proxy_mw.routing.lane import Lane
from ai_proxy_mw.routing.letter import Letter
from ai_proxy_mw.routing.sending import COOL, Sent, ask
from ai_proxy_mw.routing.served import Served, Told
from ai_proxy_mw.stages.relay import send
from tests.routing.scripted import (
    ANSWER,
    STREAM,
    Now,
    Pieces,
    answer,
    at_rest,
    case,
    lane,
    never,
    request,
    settle,
)

ONE = Circuit(calls=1, open_for=10)
TOLD = Told("a", "m", "m", instead=False)


def letter(of: Lane) -> Letter:
    upstream: Upstream = of.provider.upstream
    return Letter(body=b"{}", path="/v1", timeouts=upstream.timeouts, headers=[], rewritten=False)


async def asked(
    of: Lane, served: Served | None = None, call: Request | None = None, **options: Any
) -> Sent:
    terms = {"looks_in": True, "cools": lambda: True, **options}
    return await ask(
        call or request(), of, letter(of), send, told=TOLD, served=served or Served(), **terms
    )


@case
async def test_a_lane_is_held_until_the_answer_has_ended() -> None:
    for how in Ending:
        one = lane(max_concurrent=1)
        sent = await asked(one)
        response = sent.given()
        assert sent.good
        assert one.in_flight == 1
        assert sent.served.by == TOLD
        for observer in response.observers:
            observer.chunk(b"x")
            observer.end(how)
        assert at_rest(one), how


@pytest.mark.parametrize("status", [401, 500, 502, 503, 504, 529, 400, 402, 403, 404, 429])
def test_what_a_status_tells_of_the_lane(status: int) -> None:
    @case
    async def work() -> None:
        one = lane("a", answer(status), circuit=ONE)
        sent = await asked(one)
        assert sent.outcome is not None
        assert sent.outcome.what == status
        assert one.breaker.is_open == (status not in (400, 402, 403, 404, 429))
        await sent.discard(request())
        assert at_rest(one)
        assert (sent.served.unanswered, sent.served.lost) == (0, [])

    work()


@pytest.mark.parametrize(
    ("headers", "cools", "seconds"),
    [([], True, COOL), ([(b"retry-after", b"30")], True, 30), ([], False, 0)],
)
def test_a_key_that_asks_too_much_rests(headers: Any, cools: bool, seconds: float) -> None:
    @case
    async def work() -> None:
        one = lane("a", answer(429, headers=headers))
        sent = await asked(one, cools=lambda: cools)
        assert max(one.breaker.cool_left, 0) == seconds
        await sent.discard(request())

    work()


@pytest.mark.parametrize(
    ("error", "opens", "unanswered"),
    [
        (UpstreamUnreachable(), True, 0),
        (UpstreamDisconnected(), True, 1),
        (UpstreamTimeout("first_byte"), True, 1),
        (UpstreamTimeout("connect"), True, 0),
        (UpstreamTimeout("pool"), False, 0),
        (UpstreamBusy(), False, 0),
    ],
)
def test_what_an_error_tells_of_the_lane(
    error: UpstreamError, opens: bool, unanswered: int
) -> None:
    @case
    async def work() -> None:
        one = lane("a", error, circuit=ONE, max_concurrent=1)
        sent = await asked(one)
        assert one.breaker.is_open == opens
        assert sent.served.unanswered == unanswered
        assert at_rest(one)
        await sent.discard(request())
        with pytest.raises(type(error)) as caught:
            sent.given(consumed=True)
        assert "send it again" in caught.value.message

    work()


@pytest.mark.parametrize(
    ("error", "unanswered"), [(InvalidRequest("no"), 0), (ClientGone(), 1), (ValueError(), 1)]
)
def test_what_is_no_fault_of_the_upstream_tells_nothing(error: Exception, unanswered: int) -> None:
    @case
    async def work() -> None:
        one, served = lane("a", error, circuit=ONE, max_concurrent=1), Served()
        with pytest.raises(type(error)):
            await asked(one, served)
        assert (one.breaker.calls, served.unanswered) == (0, unanswered)
        assert at_rest(one)

    work()


@case
async def test_who_leaves_while_it_is_sent_may_have_to_pay_for_it() -> None:
    one, served = lane("a", never, circuit=ONE, max_concurrent=1), Served()
    call = asyncio.create_task(asked(one, served))
    await settle()
    assert one.in_flight == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (one.breaker.calls, served.unanswered) == (0, 1)
    assert at_rest(one)


@case
async def test_what_no_credentials_can_be_had_for_costs_nothing() -> None:
    def away(key: str | None) -> dict[str, str]:
        raise LookupError

    one, served = lane("a", auth=away, max_concurrent=1), Served()
    with pytest.raises(LookupError):
        await asked(one, served)
    assert served.unanswered == 0
    assert at_rest(one)


@case
async def test_who_leaves_while_a_place_is_waited_for_pays_nothing() -> None:
    one, served = lane(max_concurrent=1), Served()
    first = await asked(one)
    call = asyncio.create_task(asked(one, served))
    await settle()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await first.discard(request())
    assert served.unanswered == 0
    assert at_rest(one)


@case
async def test_no_place_in_time_is_busy() -> None:
    one = lane(max_concurrent=Concurrency(1, queue=0))
    first = await asked(one)
    second = await asked(one)
    assert isinstance(second.error, UpstreamBusy)
    assert (second.response, one.in_flight) == (None, 1)
    await first.discard(request())
    assert at_rest(one)


@case
async def test_a_lane_that_was_closed_off_meanwhile_is_busy_and_its_place_free() -> None:
    for limit in (None, 1):
        one = lane(circuit=ONE, max_concurrent=limit)
        one.breaker.failed(one.breaker.begin())
        sent = await asked(one)
        assert isinstance(sent.error, UpstreamBusy)
        assert at_rest(one)


@case
async def test_a_stream_that_is_cut_has_failed() -> None:
    one = lane(circuit=Circuit(calls=3))
    hold = (await asked(one)).given().observers[0]
    hold.end(Ending.CUT)
    assert (one.breaker.calls, one.breaker.failures) == (2, 1)
    assert not one.breaker.is_open


@case
async def test_a_stream_that_began_before_the_circuit_opened_is_no_probe() -> None:
    now = Now()
    one = lane(circuit=Circuit(calls=2, open_for=10), clock=now)
    old = (await asked(one)).given().observers[0]
    one.breaker.failed(one.breaker.begin())
    assert one.breaker.is_open
    now.now += 11
    old.end(Ending.CUT)
    assert one.breaker.state == "half_open"
    assert one.breaker.available


@pytest.mark.parametrize(
    ("response", "what"),
    [
        (lambda: answer(200, Pieces()), "bad_response"),
        (lambda: answer(200, headers=[(b"content-type", b"text/html")]), "bad_response"),
        (lambda: answer(200, Pieces(), STREAM), "bad_response"),
        (
            lambda: answer(200, b'data: {"error":{"type":"overloaded_error"}}\n\n', STREAM),
            529,
        ),
        (lambda: answer(200, b'data: {"error":{"message":"?"}}\n\n', STREAM), None),
        (lambda: answer(200, b'data: {"choices":[{"text":"a"}]}\n\n', STREAM), "fine"),
    ],
)
def test_what_a_good_status_hides(response: Any, what: Any) -> None:
    @case
    async def work() -> None:
        one = lane("a", response())
        sent = await asked(one)
        if what == "fine":
            assert sent.good
        else:
            assert sent.outcome is not None
            assert what in (None, sent.outcome.what)
        await sent.discard(request())
        assert at_rest(one)
        one = lane("a", response())
        sent = await asked(one, looks_in=False)
        assert sent.good
        await sent.discard(request())

    work()


@case
async def test_a_stream_that_breaks_at_its_beginning_is_closed() -> None:
    body = Pieces(UpstreamDisconnected())
    one = lane("a", answer(200, body, STREAM), circuit=ONE)
    sent = await asked(one)
    assert isinstance(sent.error, UpstreamDisconnected)
    assert body.closed
    assert at_rest(one)


# -- what nobody is given ------------------------------------------------------------------------


@case
async def test_an_answer_that_nobody_is_given_is_counted() -> None:
    body = Pieces(ANSWER)
    one = lane("a", answer(200, body), max_concurrent=1)
    sent = await asked(one)
    await sent.discard(request())
    assert sent.served.lost == [(TOLD, Usage(7, 5))]
    assert sent.served.unanswered == 0
    assert body.closed == 1
    assert at_rest(one)


@pytest.mark.parametrize(
    "response",
    [
        lambda: answer(200, Pieces(b'{"id":"a"', UpstreamDisconnected())),
        lambda: answer(200, b'{"id":"a"}'),
        lambda: answer(200, b'data: {"choices":[{"text":"a"}]}\n\n', STREAM),
    ],
    ids=["cut", "untold", "stream"],
)
def test_an_answer_that_tells_no_usage_was_in_vain(response: Any) -> None:
    @case
    async def work() -> None:
        one = lane("a", response())
        sent = await asked(one)
        await sent.discard(request())
        assert (sent.served.unanswered, sent.served.lost) == (1, [])
        assert at_rest(one)

    work()


@case
async def test_who_leaves_while_it_is_let_go_of_leaves_nothing_behind() -> None:
    class Slow(Pieces):
        async def aclose(self) -> None:
            await asyncio.get_running_loop().create_future()

    one = lane("a", answer(500, Slow(b"x")), max_concurrent=1)
    sent = await asked(one)
    call = asyncio.create_task(sent.discard(request()))
    await settle()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert at_rest(one)


def test_what_is_told_of_a_call() -> None:
    served = Served()
    assert served.lines() == [(b"x-ai-proxy-attempts", b"0")]
    for told, model in (
        (TOLD, None),
        (Told("a", None, None, instead=True), None),
        (Told("a", "fäst", "x", instead=True), b"f?st"),
    ):
        served.by = told
        found = dict(served.lines())
        assert found[b"x-ai-proxy-upstream"] == b"a"
        assert found.get(b"x-ai-proxy-model") == model
    assert TOLD.model_names == ("m", "m")
    assert Told("a", None, None, instead=False).model_names is None
    assert Told("a", "m", None, instead=False).model_names is None
