"""What a call has cost that was sent more than once, and by which model it is priced."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ai_proxy_mw import Limit, Price, Prices, Request, Response
from ai_proxy_mw._errors import InvalidRequest, UpstreamDisconnected, UpstreamUnreachable
from ai_proxy_mw._http import Ending
from ai_proxy_mw.accounting.costs import Costs
from ai_proxy_mw.accounting.estimate import Estimate
from ai_proxy_mw.accounting.usage import Usage
from ai_proxy_mw.routing.served import Served, Told
from ai_proxy_mw.schema.call import Call
from ai_proxy_mw.stages.budget import BudgetStage
from tests.routing.scripted import ANSWER, answer, case, request

TOKENS = Limit("1000/day", of="tokens")
USD = Limit("5/day", of="usd")
PRICES = Prices({"cheap": Price(1, 1), "dear": Price(10, 10)}, default=False)


class Tally:
    """Notes what is reserved and settled."""

    needs_call = True

    def __init__(self) -> None:
        self.costs: list[Any] = []

    async def take_late(self, expected: Any) -> None:
        assert expected(TOKENS) > 0

    def settle(self, cost: Any) -> None:
        self.costs.append(cost)


def told(model: str) -> Told:
    return Told("a", "m", model, instead=False)


def costs() -> Costs:
    behind = (("m", "cheap"), ("m", "dear"))
    return Costs(PRICES, lambda call: Estimate(100, 50), lambda model: behind)


async def settled(
    served: Served | None, step: Response | BaseException, call: Request | None = None
) -> tuple[int, int]:
    """Tokens and micro-dollars that are settled, once."""
    asked, tally = call or request("m"), Tally()
    asked.tally = tally  # type: ignore[assignment]

    async def handler(request: Request) -> Response:
        request.served = served
        if isinstance(step, BaseException):
            raise step
        return step

    if isinstance(step, BaseException):
        with pytest.raises(type(step)):
            await BudgetStage(costs())(asked, handler)
    else:
        response = await BudgetStage(costs())(asked, handler)
        for observer in response.observers:
            observer.chunk(ANSWER)
            observer.end(Ending.COMPLETE)
    (cost,) = tally.costs
    return cost(TOKENS), cost(USD)


def served(by: Told | None = None, unanswered: int = 0, *lost: tuple[Told, Usage]) -> Served:
    found = Served()
    found.by, found.unanswered, found.lost = by, unanswered, list(lost)
    return found


@case
async def test_each_send_in_vain_is_charged_once_at_the_dearest_price() -> None:
    for unanswered in (0, 1, 3):
        found = served(told("cheap"), unanswered)
        assert await settled(found, answer()) == (12 + 100 * unanswered, 12 + 1000 * unanswered)
        assert await settled(found, answer(500)) == (100 * unanswered, 1000 * unanswered)
        for error in (UpstreamDisconnected(), UpstreamUnreachable(), KeyError()):
            paid = await settled(found, error)
            assert paid == (100 * unanswered, 1000 * unanswered)


@case
async def test_what_answers_have_used_that_nobody_was_given_is_charged() -> None:
    found = served(told("cheap"), 0, (told("dear"), Usage(3, 4)))
    assert await settled(found, answer()) == (12 + 7, 12 + 70)
    assert await settled(found, answer(500)) == (7, 70)


@case
async def test_it_is_priced_by_the_model_that_has_answered() -> None:
    for by, dollars in ((told("cheap"), 12), (told("dear"), 120), (None, 120)):
        assert await settled(served(by), answer()) == (12, dollars)
    assert await settled(served(told("unknown")), answer()) == (12, 120)
    assert await settled(served(Told("a", None, None, instead=False)), answer()) == (12, 120)


@pytest.mark.parametrize("members", [{"models": ["x"]}, {"tools": [{"Model": "x"}]}])
def test_where_another_model_may_have_answered_the_dearest_counts(members: Any) -> None:
    """The second one raises where it is looked at; it must be settled all the same."""

    @case
    async def work() -> None:
        tally_of = await settled_tokens(served(told("cheap")), request("m", **members))
        assert tally_of == 12

    work()


async def settled_tokens(found: Served, call: Request) -> int:
    tally = Tally()
    call.tally = tally  # type: ignore[assignment]

    async def handler(request: Request) -> Response:
        request.served = found
        return answer()

    response = await BudgetStage(costs())(call, handler)
    response.observers[-1].chunk(ANSWER)
    response.observers[-1].end(Ending.CUT)
    return int(tally.costs[0](TOKENS))


@case
async def test_where_nothing_is_sent_twice_an_error_tells_itself_whether_it_was_sent() -> None:
    for error, tokens in (
        (UpstreamDisconnected(), 100),
        (UpstreamUnreachable(), 0),
        (InvalidRequest("no"), 0),
    ):
        assert (await settled(None, error))[0] == tokens
    for sends, tokens in ((0, 0), (1, 100)):
        call = request("m")
        call.sends = sends
        assert (await settled(None, KeyError(), call))[0] == tokens
    assert await settled(None, answer()) == (12, 120)
    upload = request(endpoint="POST /audio/transcriptions", upload=[b"x"])
    assert await settled(served(told("cheap")), answer(), upload) == (12, 12)


def test_one_amount_of_each_kind() -> None:
    bill = costs().bill(request("m"))
    found = {of: bill.expected(Limit("9/day", of=of)) for of in ("input_tokens", "output_tokens")}
    assert found == {"input_tokens": 100, "output_tokens": 50}
    assert bill.amount(TOKENS, bill.used(None)) == 100
    assert bill.amount(TOKENS, bill.used(Usage(1, 2, measured=False))) == 102


def test_what_one_of_the_prices_does_not_tell_of_is_not_known() -> None:
    pictures = Prices({"m": Price(1.0, 1.0, image=0.02), "n": Price(1.0, 1.0)}, default=False)
    drawn = Usage(0, 0, images=1)
    for named, known in (({}, 20_000), ({"models": ["n"]}, None)):
        call = Call("POST /chat/completions", msgspec.json.encode({"model": "m", **named}))
        asked = request("m")
        asked.call = call
        assert Costs(pictures, None).bill(asked).micro_usd(drawn, None) == known
