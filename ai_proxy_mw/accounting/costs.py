"""What a call is expected to use, and what it has used, in the units that limits count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import PriceUnknown
from ai_proxy_mw._limits import Limit
from ai_proxy_mw.accounting.estimate import Estimate, estimate
from ai_proxy_mw.accounting.prices import Price, Prices, cost
from ai_proxy_mw.accounting.usage import Usage
from ai_proxy_mw.schema.call import Call, runs_a_model

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw.limiting.tally import Cost

Estimator = Callable[[Call], Estimate]

Answerer = tuple[str, str]
"""The model as it was asked for, and as the upstream that has answered calls it."""

Behind = Callable[[str], Sequence[Answerer]]
"""Who may answer for a model."""

_LONGEST_NAME = 256
"""Characters of a model's name that is looked up and kept in mind."""

_FREE = ("POST /messages/count_tokens", "POST /moderations")

_UNSEEN = Estimate(input_tokens=1000, output_tokens=4096)
"""Of a call that cannot be read, such as an upload."""


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
        self._price = lru_cache(maxsize=1024)(self._prices.of)

    def bill(self, request: Request) -> Bill:
        """What a call may cost."""
        call = request.call
        if not runs_a_model(request.endpoint) or request.endpoint in _FREE:
            nothing = Estimate(input_tokens=0, output_tokens=0)
            return Bill(nothing, tuple, self._price_of, runs=False)
        expected = _UNSEEN if call is None else self._estimate(call)
        return Bill(expected, partial(self._priced, call), self._price_of, runs=True)

    def micro_usd(self, model: str, usage: Usage) -> int:
        """What a model's use costs, in micro-dollars; 0 where that is not known."""
        price = self._price(model) if len(model) <= _LONGEST_NAME else None
        return 0 if price is None else cost(price, usage)

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
        return self._prices.of(own) or self._prices.of(asked)


def _itself(model: str) -> Sequence[Answerer]:
    return ((model, model),)


class Bill:
    """The costs of one call, as functions of the limit that counts them."""

    __slots__ = ("_expected", "_find_prices", "_found", "_price_of", "_runs")

    def __init__(
        self,
        expected: Estimate,
        find_prices: Callable[[], tuple[Price, ...]],
        price_of: Callable[[str, str], Price | None],
        *,
        runs: bool,
    ) -> None:
        self._expected = expected
        self._find_prices = find_prices
        self._price_of = price_of
        self._found: tuple[Price, ...] | None = None
        self._runs = runs

    def expected(self, limit: Limit) -> int:
        """What to reserve; of what is counted at all at least 1. Raises PriceUnknown."""
        if limit.of in ("requests", "concurrent"):
            return 1
        if not self._runs:
            return 0
        if limit.of == "usd" and not self._prices:
            raise PriceUnknown
        tokens = self._expected
        return max(1, self._amount(limit, Usage(tokens.input_tokens, tokens.output_tokens)))

    def asked(self, limit: Limit) -> int:
        """What was asked, where nothing of an answer is known."""
        return self._amount(limit, Usage(self._expected.input_tokens, 0))

    def nothing(self, limit: Limit) -> int:  # noqa: ARG002 - whatever it counts
        """What a call costs that has not reached a model."""
        return 0

    def used(self, usage: Usage | None, by: Answerer | None = None) -> Cost:
        """What a call has cost. Without a report, what went in is our estimate.

        by: the one model that has answered, where that is known.
        """
        if usage is None:
            usage = Usage(self._expected.input_tokens, 0)
        elif not usage.measured:
            usage = Usage(self._expected.input_tokens, usage.output_tokens)
        return partial(self._amount, usage=usage, by=by)

    @property
    def _prices(self) -> tuple[Price, ...]:
        """Found when money is counted, for what it costs to look for them."""
        if self._found is None:
            self._found = self._find_prices()
        return self._found

    def _amount(self, limit: Limit, usage: Usage, by: Answerer | None = None) -> int:
        if limit.of == "usd":
            price = None if by is None else self._price_of(*by)
            # Whichever of them answers, it is no more than the dearest costs.
            prices = self._prices if price is None else (price,)
            return max((cost(price, usage) for price in prices), default=0)
        if limit.of == "tokens":
            return usage.input_tokens + usage.output_tokens
        return usage.input_tokens if limit.of == "input_tokens" else usage.output_tokens
