"""What a call is expected to use, and what it has used, in the units that limits count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import PriceUnknown
from ai_proxy_mw._limits import Limit
from ai_proxy_mw.accounting.estimate import Estimate, estimate
from ai_proxy_mw.accounting.prices import Price, Prices, cost, covers
from ai_proxy_mw.accounting.usage import Usage
from ai_proxy_mw.schema.call import Call, runs_a_model

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request

Estimator = Callable[[Call], Estimate]

Answerer = tuple[str, str]
"""The model as it was asked for, and as the upstream that has answered calls it."""

Behind = Callable[[str], Sequence[Answerer]]
"""Who may answer for a model."""

_FREE = ("POST /messages/count_tokens", "POST /moderations")


class Costs:
    """Estimates and prices, ready for each call.

    behind: under which names a model may be answered: as it is asked for, and as the upstream that
        answers calls it.
    """

    def __init__(
        self, prices: Prices | None, estimator: Estimator | None, behind: Behind | None = None
    ) -> None:
        self._prices = prices or Prices()
        self._estimate = estimator or estimate
        self._behind = behind or _itself

    def bill(self, request: Request) -> Bill:
        """What a call may cost."""
        call = request.call
        if is_free(request.endpoint):
            return Bill(_nothing, tuple, self._price_of, runs=False)
        expected = _unseen if call is None else partial(self._estimate, call)
        return Bill(expected, partial(self._priced, call), self._price_of, runs=True)

    def micro_usd(self, model: str, usage: Usage) -> int | None:
        """What a model's use costs, in micro-dollars; None where that is not known."""
        price = self._prices.of(model)
        return cost(price, usage) if price is not None and covers(price, usage) else None

    def _priced(self, call: Call | None) -> tuple[Price, ...]:
        """The prices of all models that may answer; none if one of them is not known."""
        if call is None or call.model is None:
            return ()
        names = [
            pair
            for model in (call.model, *call.other_models)
            for pair in self._behind(model) or _itself(model)
        ]
        found = [self._price_of(*pair) for pair in names]
        known = tuple(price for price in found if price is not None)
        return known if len(known) == len(found) else ()

    def _price_of(self, asked: str, own: str) -> Price | None:
        """By the upstream's own name for a model, or else by that which it was asked for by."""
        return self._prices.of(own) or (None if own == asked else self._prices.of(asked))


def _dearest(prices: tuple[Price, ...], usage: Usage) -> int | None:
    """Whichever of them answers, it is no more than that."""
    if not all(covers(each, usage) for each in prices):
        return None
    return max((cost(each, usage) for each in prices), default=None)


def is_free(endpoint: str) -> bool:
    """Whether its calls use nothing that is paid for."""
    return not runs_a_model(endpoint) or endpoint in _FREE


def _nothing() -> Estimate:
    return Estimate(input_tokens=0, output_tokens=0)


def _unseen() -> Estimate:
    """Of a call that cannot be read, such as an upload."""
    return Estimate(input_tokens=1000, output_tokens=4096)


def _itself(model: str) -> Sequence[Answerer]:
    return ((model, model),)


class Bill:
    """The costs of one call, as functions of the limit that counts them.

    estimate: finds what the call is expected to use, when that is first needed.
    find_prices: those of all models that may answer, likewise.
    runs: whether the call runs a model at all.
    """

    __slots__ = ("_asked", "_estimate", "_find_prices", "_found", "_price_of", "runs")

    def __init__(
        self,
        estimate: Callable[[], Estimate],
        find_prices: Callable[[], tuple[Price, ...]],
        price_of: Callable[[str, str], Price | None],
        *,
        runs: bool,
    ) -> None:
        self._estimate = estimate
        self._asked: Estimate | None = None
        self._find_prices = find_prices
        self._price_of = price_of
        self._found: tuple[Price, ...] | None = None
        self.runs = runs

    def expected(self, limit: Limit) -> int:
        """What to reserve; of what is counted at all at least 1. Raises PriceUnknown."""
        if limit.of in ("requests", "concurrent"):
            return 1
        if not self.runs:
            return 0
        if limit.of == "usd" and not self._prices:
            raise PriceUnknown
        tokens = self._tokens
        return max(1, self.amount(limit, Usage(tokens.input_tokens, tokens.output_tokens)))

    def asked(self) -> Usage:
        """What was asked, where nothing of an answer is known."""
        return Usage(self._tokens.input_tokens, 0, measured=False)

    def used(self, usage: Usage | None) -> Usage:
        """What a call has used. Without a report, what went in is our estimate."""
        if usage is None:
            return self.asked()
        if usage.measured:
            return usage
        return Usage(self._tokens.input_tokens, usage.output_tokens, measured=False)

    def amount(self, limit: Limit, usage: Usage, by: Answerer | None = None) -> int:
        """How much of what a limit counts was used.

        by: the one model that has answered, where that is known.
        """
        if limit.of == "usd":
            return self.micro_usd(usage, by) or 0
        if limit.of == "tokens":
            return usage.input_tokens + usage.output_tokens
        return usage.input_tokens if limit.of == "input_tokens" else usage.output_tokens

    def micro_usd(self, usage: Usage, by: Answerer | None) -> int | None:
        """What was used costs, in micro-dollars; None where that is not known."""
        price = None if by is None else self._price_of(*by)
        if price is None:
            prices = self._prices
            if len(prices) != 1:
                return _dearest(prices, usage)
            price = prices[0]
        return cost(price, usage) if covers(price, usage) else None

    @property
    def _prices(self) -> tuple[Price, ...]:
        if self._found is None:
            self._found = self._find_prices()
        return self._found

    @property
    def _tokens(self) -> Estimate:
        if self._asked is None:
            self._asked = self._estimate()
        return self._asked
