"""What models cost."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw import ConfigurationError, Price, Prices
from ai_proxy_mw.accounting.prices import DEFAULT_PRICES, DEFAULT_PRICES_DATE, cost, covers
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


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"cache_write": -1}, "cache_write=-1"),
        ({"audio_input": float("nan")}, "audio_input=nan"),
        ({"image": True}, "image=True"),
        ({"second": "1"}, "second='1'"),
        ({"above": {-1: Price(1, 1)}}, "above"),
        ({"above": {"200k": Price(1, 1)}}, "above"),
        ({"above": {1: 2}}, "above"),
        ({"above": {1: Price(1, 1, above={2: Price(1, 1)})}}, "above"),
        ({"above": [(1, Price(1, 1))]}, "above"),
    ],
)
def test_what_is_charged_apart_is_checked_too(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        Price(1, 1, **arguments)


RICH = Price(
    2,
    8,
    cached_input=0.5,
    cache_write=2.5,
    audio_input=40,
    audio_output=80,
    image_input=10,
    image_output=30.1,
    image=0.04,
    second=0.0001,
)


@pytest.mark.parametrize(
    ("usage", "micro_dollars"),
    [
        (Usage(100, 10), 280),
        (Usage(100, 10, cached_input_tokens=40), 220),
        (Usage(100, 10, cache_write_tokens=40), 300),
        (Usage(100, 10, cache_write_tokens=40, cached_input_tokens=60), 210),
        (Usage(100, 10, audio_input_tokens=1), 318),
        (Usage(100, 10, audio_output_tokens=10), 1000),
        (Usage(100, 10, image_input_tokens=100), 1080),
        (Usage(0, 10, image_output_tokens=10), 301),
        (Usage(0, 0, images=3), 120_000),
        (Usage(0, 0, seconds=60.0), 6000),
        (Usage(0, 0, seconds=0.1), 10),
        (Usage(0, 0, seconds=0.011), 2),
        (Usage(100, 0, cached_input_tokens=70, cache_write_tokens=70), 190),  # no token twice
        (Usage(100, 10, reasoning_tokens=10), 280),
    ],
)
def test_each_part_has_its_own_price(usage: Usage, micro_dollars: int) -> None:
    assert cost(RICH, usage) == micro_dollars


@given(st.lists(st.integers(0, 10**9), min_size=9, max_size=9), st.floats(0, 10**7))
def test_all_parts_are_summed_before_they_are_rounded(numbers: list[int], seconds: float) -> None:
    plain, cached, written, heard, seen, said, spoken, drawn, images = numbers
    usage = Usage(
        plain + cached + written + heard + seen,
        said + spoken + drawn,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        audio_input_tokens=heard,
        image_input_tokens=seen,
        audio_output_tokens=spoken,
        image_output_tokens=drawn,
        images=images,
        seconds=seconds,
    )
    exact = 2 * plain + Fraction(1, 2) * cached + Fraction(5, 2) * written + 40 * heard + 10 * seen
    exact += 8 * said + 80 * spoken + Fraction(301, 10) * drawn
    exact += 40_000 * images + 100 * Fraction(Decimal(str(seconds)))
    assert cost(RICH, usage) == ceil(exact)


def test_what_has_no_price_of_its_own_costs_as_the_others() -> None:
    usage = Usage(
        10, 10, cache_write_tokens=2, audio_input_tokens=2, image_input_tokens=2, images=1,
        audio_output_tokens=2, image_output_tokens=2, seconds=9.0,
    )  # fmt: skip
    assert cost(Price(1, 2), usage) == 30


def test_long_calls_may_have_a_price_of_their_own() -> None:
    price = Price(1, 1, above={200: Price(3, 3), 100: Price(2, 2)})
    costs = [cost(price, Usage(tokens, 0)) for tokens in (100, 101, 200, 201)]
    assert costs == [100, 202, 400, 603]
    assert cost(price, Usage(100, 1000)) == 1100
    assert price == Price(1, 1, above={100: Price(2, 2), 200: Price(3, 3)})
    assert price != Price(1, 1)
    assert hash(price) == hash(Price(1, 1))


def test_pictures_and_seconds_without_a_price_are_not_free() -> None:
    tokens_only = Price(1, 1)
    assert not covers(tokens_only, Usage(0, 0, seconds=1.0))
    assert not covers(tokens_only, Usage(0, 0, images=1))
    assert covers(tokens_only, Usage(10, 0, images=1))  # which are charged by tokens
    assert covers(tokens_only, Usage(0, 1, seconds=1.0))
    assert covers(RICH, Usage(0, 0, images=1, seconds=1.0))
    assert covers(tokens_only, Usage(0, 0))


def test_the_table_that_comes_with_it_is_dated_and_stays_as_it_is() -> None:
    assert re.fullmatch(r"20\d\d-[01]\d", DEFAULT_PRICES_DATE)
    assert len(DEFAULT_PRICES) == 6
    with pytest.raises(TypeError):
        DEFAULT_PRICES["gpt-4.1"] = Price(0, 0)  # type: ignore[index]


def test_a_table_is_taken_as_it_was_given() -> None:
    table = {"ours": Price(1, 1)}
    prices = Prices(table)
    assert prices.of("ours") == Price(1, 1)
    table["ours"] = table["later"] = Price(2, 2)
    assert prices.of("ours") == Price(1, 1)
    assert prices.of("later") is None
    assert Prices({"ours": Price(1, 1)}) == prices


def test_callers_who_invent_names_fill_no_memory() -> None:
    prices = Prices({"*": Price(1, 1)})
    assert prices.of("x" * 256) == Price(1, 1)
    assert prices.of("x" * 257) is None
    for number in range(3000):
        prices.of(f"model-{number}")
    assert prices._find.cache_info().currsize <= 1024  # type: ignore[attr-defined]


def test_a_pattern_that_fits_a_date_goes_before_the_name_without_it() -> None:
    prices = Prices({"m": Price(1, 1), "m-2025-*": Price(2, 2), "[ab]?": Price(3, 3)})
    assert prices.of("m-2025-04-14") == Price(2, 2)
    assert prices.of("m-2026-04-14") == Price(1, 1)
    assert prices.of("a1") == Price(3, 3)
    assert prices.of("c1") is None
