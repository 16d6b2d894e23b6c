"""What models cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw import ConfigurationError, Price, Prices
from ai_proxy_mw.accounting.prices import DEFAULT_PRICES, cost
from ai_proxy_mw.accounting.usage import Usage

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("model", "dollars"),
    [
        ("gpt-4.1", (8.00, 8.00)),
        ("gpt-4.1-turbo", (2.00, 8.00)),
        ("claude-sonnet-4.5", (15.00, 75.00)),
        ("claude-sonnet-4", (3.00, 15.00)),
        ("gemini-2.5-flash", (2.50, 10.00)),
        ("deepseek-v3.2", (0.42, 1.68)),
    ],
)
def test_the_table_that_comes_with_it(model: str, dollars: tuple[float, float]) -> None:
    price = Prices().of(model)
    assert price is not None
    assert (price.input, price.output) == dollars
    assert cost(price, Usage(MILLION, 0)) == round(dollars[0] * MILLION)
    assert cost(price, Usage(0, MILLION)) == round(dollars[1] * MILLION)
    assert Prices().of(f"{model}-2025-04-14") is price
    assert Prices().of(f"{model}-20250414") is price


@pytest.mark.parametrize(
    "model", ["", "gpt-4.1-mini", "gpt-4", "GPT-4.1", "gpt-4.1-2025", "x/gpt-4.1", "gpt-4.1 "]
)
def test_what_is_not_known_has_no_price(model: str) -> None:
    assert Prices().of(model) is None
    assert Prices(default=False).of("gpt-4.1") is None


def test_the_owners_table_goes_first_and_the_longest_pattern() -> None:
    own, wide, narrow = Price(1, 1), Price(2, 2), Price(3, 3)
    prices = Prices({"gpt-4.1": own, "our-*": wide, "our-big-*": narrow})
    assert prices.of("gpt-4.1") is own
    assert prices.of("gpt-4.1-2025-04-14") is own
    assert prices.of("our-small") is wide
    assert prices.of("our-big-one") is narrow
    assert prices.of("deepseek-v3.2") is DEFAULT_PRICES["deepseek-v3.2"]


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_cost_is_exact_and_rounded_up(into: int, cached: int, out: int) -> None:
    price = Price(0.42, 1.68, cached_input=0.1)
    charged = cost(price, Usage(into, out, cached_input_tokens=min(into, cached)))
    exact = 42 * (into - min(into, cached)) + 10 * min(into, cached) + 168 * out
    assert charged == -(-exact // 100)


def test_cached_tokens_without_a_price_of_their_own_cost_as_others() -> None:
    assert cost(Price(2, 8), Usage(10, 1, cached_input_tokens=10)) == 28


@pytest.mark.parametrize("dollars", [-1, float("nan"), float("inf"), True, "1", None])
def test_a_wrong_price_is_refused(dollars: Any) -> None:
    with pytest.raises(ConfigurationError, match="dollars"):
        Price(dollars, 1)
    if dollars is not None:
        with pytest.raises(ConfigurationError, match="dollars"):
            Price(1, 1, cached_input=dollars)


@pytest.mark.parametrize("table", [{"a": 5}, {5: Price(1, 1)}])
def test_a_wrong_table_is_refused(table: Any) -> None:
    with pytest.raises(ConfigurationError, match="Prices"):
        Prices(table)
