"""Prices out of the package genai-prices: word for word, or none."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices.data import providers
from genai_prices.types import (
    ClauseContains,
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from ai_proxy_mw import ConfigurationError, Price, Prices
from ai_proxy_mw.accounting import genai
from ai_proxy_mw.accounting.genai import Catalogue
from ai_proxy_mw.accounting.prices import cost
from ai_proxy_mw.accounting.usage import Usage


def listed(**prices: str | TieredPrices) -> ModelPrice:
    return ModelPrice(
        **{key: Decimal(each) if isinstance(each, str) else each for key, each in prices.items()}
    )


DEAR = listed(input_mtok="3", output_mtok="4")
CHEAP = listed(input_mtok="1", output_mtok="2")


def model(name: str, prices: Any = CHEAP, match: Any = None) -> ModelInfo:
    return ModelInfo(id=name, match=match or ClauseEquals(name), prices=prices)


def provider(name: str, *models: ModelInfo, makes: str | None = None) -> Provider:
    match = None if makes is None else ClauseStartsWith(makes)
    return Provider(id=name, name=name, api_pattern="", model_match=match, models=list(models))


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> list[Provider]:
    """A catalogue of our own, to be written into."""
    ours: list[Provider] = []
    monkeypatch.setattr("genai_prices.data.providers", ours)
    genai._index.cache_clear()
    monkeypatch.setattr(genai, "_index", genai._index.__wrapped__)
    return ours


def test_the_owners_tables_go_first() -> None:
    own = Price(9, 9)
    prices = Prices({"gpt-4o": own}, catalogue=True)
    assert prices.of("gpt-4o") is own
    assert prices.of("gpt-4.1") == Price(8, 8)
    assert prices.of("gpt-4.1-2025-04-14") == Price(8, 8)
    assert Prices(default=False, catalogue=True).of("gpt-4.1") != Price(8, 8)
    assert Prices(catalogue=True) == Prices(catalogue=True) != Prices()


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o-mini",
        "gpt-5",
        "o3",
        "claude-sonnet-4-5",
        "gemini-2.5-pro",
        "gpt-4o-2024-05-13",
    ],
)
def test_a_bill_is_what_the_package_itself_says(name: str) -> None:
    """Of names that it knows for sure; `gpt-4o-2024-05-13` has a price of its own."""
    from genai_prices import calc_price

    price = Prices(catalogue=True).of(name)
    assert price is not None
    for tokens in (1000, 250_000):
        counts = {"input_tokens": tokens, "output_tokens": 70, "cache_read_tokens": 300}
        theirs = calc_price(TheirUsage(**counts), name).total_price
        ours = cost(price, Usage(tokens, 70, cached_input_tokens=300))
        assert 0 <= ours - theirs * 1_000_000 < 1


@pytest.mark.parametrize(
    "name",
    ["GPT-4.1", "gpt-4o-whatever", "x/gpt-4o", " gpt-4o", "gpt-4o\n", "gpt-4o-2099-01-01", "", "é"],
)
def test_what_only_looks_alike_has_no_price(name: str) -> None:
    assert Prices(catalogue=True).of(name) is None


def test_all_that_is_in_it_can_be_read() -> None:
    claims = {id(claim.model): claim for each in genai._index().values() for claim in each}
    assert len(claims) == sum(len(each.models) for each in providers)
    found = [price for each in claims.values() if (price := genai._price(each)) is not None]
    assert len(found) > 1000
    assert all(price.input + price.output + (price.second or 0) > 0 for price in found)


def test_a_name_of_the_catalogue_has_the_price_of_who_gave_it() -> None:
    catalogue = Catalogue(["openrouter"])
    router = next(each for each in providers if each.id == "openrouter")
    for theirs in router.models[::40]:
        price = catalogue.of(theirs.id)
        assert price is None or price.input == float(_first(theirs.get_prices(datetime.now(UTC))))
    assert Catalogue().of("whisper-1") == Price(0, 0, second=0.0001)


def _first(price: ModelPrice) -> Decimal:
    value = price.input_mtok
    assert value is not None
    return value.base if isinstance(value, TieredPrices) else value


def test_who_calls_it_otherwise_is_not_believed(book: list[Provider]) -> None:
    begins = ClauseOr([ClauseStartsWith("claude-2"), ClauseContains("claude-v2")])
    # The catalogue finds the first that fits: `claude-2-big` is claimed in vain.
    book += [
        provider("a", model("known-as", match=begins), model("claude-2-big", DEAR)),
        provider("b", model("id-only", match=ClauseEquals("accounts/b/id-only"))),
    ]
    catalogue = Catalogue()
    assert catalogue.of("claude-2") == Price(1, 2)
    for name in ("claude-2-big", "claude-2x", "xclaude-v2", "known-as", "id-only", "CLAUDE-2"):
        assert catalogue.of(name) is None, name
    assert catalogue.of("accounts/b/id-only") == Price(1, 2)


def test_a_date_is_left_out_where_the_catalogue_says_so(book: list[Provider]) -> None:
    dated = ClauseOr([ClauseEquals("m"), ClauseRegex(r"^m-\d{8}$")])
    book.append(
        provider("a", model("m-20240101", DEAR), model("m", match=dated), model("n"), makes="m")
    )
    book.append(provider("b", model("m-20250101", DEAR)))
    catalogue = Catalogue()
    assert catalogue.of("m-20240101") == Price(3, 4)
    assert catalogue.of("m-20250101") == Price(1, 2)  # its maker's, not b's
    assert catalogue.of("m-20990101") == Price(1, 2)
    assert catalogue.of("m-2099-01-01") is None
    assert catalogue.of("n-20990101") is None


def test_the_makers_price_else_what_all_agree_in(book: list[Provider]) -> None:
    book += [
        provider("shop", model("made-1", DEAR), model("open"), model("same"), model("Odd")),
        provider("maker", model("made-1"), makes="made-"),
        provider("other", model("open", DEAR), model("same"), model("odd", DEAR)),
        provider("silent", model("made-1", listed())),
    ]
    catalogue = Catalogue()
    assert catalogue.of("made-1") == Price(1, 2)
    assert catalogue.of("same") == Price(1, 2)
    for name in ("open", "Odd", "odd"):
        assert catalogue.of(name) is None, name


def test_the_owner_says_whose_prices_count(book: list[Provider]) -> None:
    book += [
        provider("maker", model("made-1"), makes="made-"),
        provider("shop", model("made-1", DEAR), model("open"), model("free", listed())),
        provider("other", model("open", DEAR), model("free"), model("third")),
    ]
    prices = Prices(catalogue=["shop", "other"])
    assert prices.catalogue == ("shop", "other")
    assert prices.of("made-1") == Price(3, 4)
    assert prices.of("open") == Price(1, 2)
    assert prices.of("third") == Price(1, 2)
    assert prices.of("free") is None
    assert Prices(catalogue=["maker"]).of("open") is None
    with pytest.raises(ConfigurationError, match="no 'shopp'; there are: maker, other, shop"):
        Prices(catalogue=["shopp"])


@pytest.mark.parametrize("wrong", ["openai", [], None, [1], 5])
def test_a_wrong_choice_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="catalogue="):
        Prices(catalogue=wrong)


PARTS = {
    "input_mtok": "2",
    "output_mtok": "8",
    "cache_read_mtok": "0.5",
    "cache_write_mtok": "2.5",
    "cache_write_1h_mtok": "4",
    "input_audio_mtok": "40",
    "output_audio_mtok": "80",
    "input_image_mtok": "10",
    "output_image_mtok": "30",
    "cache_audio_read_mtok": "1",
    "web_searches_kcount": "10",
}
WHOLE = Price(
    2, 8, 0.5, cache_write=2.5, audio_input=40, audio_output=80, image_input=10, image_output=30
)
STEPS = TieredPrices(Decimal(1), [Tier(100, Decimal(2)), Tier(200, Decimal(3))])
HOUR = {"audio_hours": "0.36", "input_audio_hours": "0.36"}


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        (listed(**PARTS), WHOLE),
        (listed(input_mtok="0.02"), Price(0.02, 0)),
        (
            listed(input_mtok=STEPS, output_mtok="5"),
            Price(1, 5, above={100: Price(2, 5), 200: Price(3, 5)}),
        ),
        (listed(**HOUR), Price(0, 0, second=0.0001)),
        (listed(audio_hours="0.36"), None),  # of a talk, both ways
        (listed(**HOUR, input_mtok="1", output_mtok="1"), None),
        (listed(input_mtok="1", output_mtok="1", requests_kcount="12"), None),
        (listed(input_mtok="1", output_mtok="1", output_reasoning_mtok="3"), None),
        (listed(input_mchars="15"), None),
        (listed(output_mtok="1"), None),
        (listed(input_mtok="0", output_mtok="0"), None),
        (listed(), None),
        ([ConditionalPrice(prices=listed())], None),
    ],
)
def test_what_our_words_can_tell(book: list[Provider], prices: Any, expected: Price | None) -> None:
    book.append(provider("a", model("m", prices)))
    assert Catalogue().of("m") == expected


def test_who_charges_a_minimum_has_no_price_a_second(book: list[Provider]) -> None:
    book.append(provider("groq", model("whisper", listed(**HOUR)), model("llama")))
    assert Catalogue().of("whisper") is None
    assert Catalogue().of("llama") == Price(1, 2)


def test_the_dearest_of_the_day_and_no_price_of_tomorrow(book: list[Provider]) -> None:
    now = datetime.now(UTC)
    later = (now + timedelta(hours=8)).timetz()
    end = (now + timedelta(hours=10)).timetz().replace(tzinfo=None)
    peak = ConditionalPrice(TimeOfDateConstraint(later, end), prices=DEAR)
    today = ConditionalPrice(StartDateConstraint(now.date()), prices=CHEAP)
    tomorrow = ConditionalPrice(StartDateConstraint(date(2999, 1, 1)), prices=DEAR)
    unsaid = ConditionalPrice(TimeOfDateConstraint(time(0), time(0, 1)), prices=listed())
    base = ConditionalPrice(prices=listed(input_mtok="0.5", output_mtok="0.5"))
    book.append(
        provider(
            "a",
            model("day", [base, today, peak]),
            model("dated", [base, today, tomorrow]),
            model("unsaid", [base, unsaid]),
        )
    )
    catalogue = Catalogue()
    assert catalogue.of("day") == Price(3, 4)
    assert catalogue.of("dated") == Price(1, 2)
    assert catalogue.of("unsaid") is None


def test_a_model_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    look_up = genai._claims_of

    def asking(name: str) -> list[genai.Claim]:
        asked.append(name)
        return look_up(name)

    monkeypatch.setattr(genai, "_claims_of", asking)
    prices = Prices(catalogue=True)
    for _ in range(3):
        assert prices.of("gpt-4o") is not None
        assert prices.of("there-is-none") is None
    assert asked == ["gpt-4o", "there-is-none"]


def test_spellings_fill_no_memory() -> None:
    catalogue = Catalogue()
    for name in ("gpt-4o", "GPT-4o", "gpt-4O", "gpt-4o-20330101", "x"):
        catalogue.of(name)
    assert list(catalogue._found) == ["gpt-4o"]
    kept = catalogue._found["gpt-4o"]
    assert catalogue.of("gpt-4o") is kept


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genai, "_index", genai._index.__wrapped__)
    monkeypatch.setitem(sys.modules, "genai_prices.data", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'ai_proxy_mw\[prices\]'"):
        Prices(catalogue=True)
    assert Prices().of("gpt-4.1") == Price(8, 8)


def test_who_does_without_does_not_pay_for_it_and_nothing_is_fetched() -> None:
    code = """
import socket, sys, threading
from ai_proxy_mw import Prices
assert Prices().of("gpt-4o") is None
assert not [name for name in sys.modules if name.startswith(("genai_prices", "pydantic"))]
def no(*_): raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = no
assert Prices(catalogue=True).of("gpt-4o").input
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
