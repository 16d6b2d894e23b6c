"""What models cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import translate
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._numbers import is_number
from ai_proxy_mw.accounting.usage import Usage

_MILLION = 1_000_000

_KEPT_IN_MIND = 1024
_LONGEST_NAME = 256
"""Characters of a model's name that is looked up: callers choose the names."""

# A dated snapshot of a model costs what the model costs.
_DATED = re.compile(r"-20[0-9]{2}-?[01][0-9]-?[0-3][0-9]$")


class Rates(NamedTuple):
    """A price in millionths of a micro-dollar: for each token, picture and second."""

    input: int
    output: int
    cached_input: int
    cache_write: int
    audio_input: int
    audio_output: int
    image_input: int
    image_output: int
    image: int
    second: int


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens in and out, and for what is charged apart from them.

    cached_input, cache_write: for tokens read from and written to a prompt cache.
    audio_input, image_input: for those of sound and pictures that went in; audio_output,
        image_output: that came out.
    image: for each picture that is made. second: of sound, where the provider counts by time.
    above: the whole price of calls with more tokens in than that: `{200_000: Price(6, 22.5)}`.

    Tokens without a price of their own cost what others do that went the same way. Raises
    ConfigurationError.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = field(default=None, kw_only=True)
    audio_input: float | None = field(default=None, kw_only=True)
    audio_output: float | None = field(default=None, kw_only=True)
    image_input: float | None = field(default=None, kw_only=True)
    image_output: float | None = field(default=None, kw_only=True)
    image: float | None = field(default=None, kw_only=True)
    second: float | None = field(default=None, kw_only=True)
    above: Mapping[int, Price] = field(
        default_factory=lambda: MappingProxyType({}), kw_only=True, hash=False
    )
    rates: Rates = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in Rates._fields:
            value = getattr(self, name)
            if value is None and name not in ("input", "output"):
                continue
            if not is_number(value) or value < 0:
                raise ConfigurationError(f"Price({name}={value!r}): write dollars, 0 or more")
        object.__setattr__(self, "above", _steps(self.above))
        object.__setattr__(self, "rates", _rates(self))

    def at(self, input_tokens: int) -> Price:
        """The price of a call with so many tokens in."""
        for start, price in self.above.items():
            if input_tokens > start:
                return price
        return self


def _steps(above: Mapping[int, Price]) -> Mapping[int, Price]:
    """The highest first. Raises ConfigurationError."""
    for start, price in above.items() if isinstance(above, Mapping) else [(None, None)]:
        if type(start) is not int or start < 0 or not isinstance(price, Price) or price.above:
            raise ConfigurationError("Price(above=): write {200_000: Price(input, output)}")
    return MappingProxyType(dict(sorted(above.items(), reverse=True)))


def _rates(price: Price) -> Rates:
    into, out = _rate(price.input), _rate(price.output)
    return Rates(
        into,
        out,
        _rate(price.cached_input, into),
        _rate(price.cache_write, into),
        _rate(price.audio_input, into),
        _rate(price.audio_output, out),
        _rate(price.image_input, into),
        _rate(price.image_output, out),
        _rate(price.image) * _MILLION,
        _rate(price.second, scale=_MILLION * _MILLION),
    )


def _rate(dollars: float | None, otherwise: int = 0, *, scale: int = _MILLION) -> int:
    """Exactly what a price is written with, not its binary; no more than a trillionth is kept."""
    return otherwise if dollars is None else int(Decimal(str(dollars)) * scale)


def cost(price: Price, usage: Usage) -> int:
    """Micro-dollars for a use, rounded up. Exact: no part is rounded before the sum."""
    rates = price.at(usage.input_tokens).rates if price.above else price.rates
    total, into, out = 0, usage.input_tokens, usage.output_tokens
    if (
        usage.cache_write_tokens
        or usage.audio_input_tokens
        or usage.image_input_tokens
        or usage.audio_output_tokens
        or usage.image_output_tokens
    ):
        total, into, out = _apart(rates, usage)
    cached = min(usage.cached_input_tokens, into)
    total += rates.input * (into - cached) + rates.cached_input * cached + rates.output * out
    total += rates.image * usage.images
    if not usage.seconds:
        return -(-total // _MILLION)
    seconds, parts = Decimal(str(usage.seconds)).as_integer_ratio()
    return -(-(total * parts + rates.second * seconds) // (_MILLION * parts))


def _apart(rates: Rates, usage: Usage) -> tuple[int, int, int]:
    """What the rarer parts cost, and the tokens in and out that are left to be charged."""
    # Those in two parts, such as cached sound, may be counted as both; but no token twice.
    into = usage.input_tokens
    into -= (sound := min(usage.audio_input_tokens, into))
    into -= (seen := min(usage.image_input_tokens, into))
    into -= (written := min(usage.cache_write_tokens, into))
    out = usage.output_tokens
    out -= (spoken := min(usage.audio_output_tokens, out))
    out -= (drawn := min(usage.image_output_tokens, out))
    total = rates.audio_input * sound + rates.image_input * seen + rates.cache_write * written
    return total + rates.audio_output * spoken + rates.image_output * drawn, into, out


def covers(price: Price, usage: Usage) -> bool:
    """Whether the price tells of what was used: else its cost is not known, and not 0."""
    if usage.input_tokens or usage.output_tokens:
        return True
    return not (usage.images and price.image is None) and not (
        usage.seconds and price.second is None
    )


DEFAULT_PRICES_DATE = "2026-11"
"""The month that `DEFAULT_PRICES` are of."""

DEFAULT_PRICES: Mapping[str, Price] = MappingProxyType(
    {
        "claude-sonnet-4": Price(3.00, 15.00),
        "claude-sonnet-4.5": Price(15.00, 75.00),
        "deepseek-v3.2": Price(0.42, 1.68),
        "gemini-2.5-flash": Price(2.50, 10.00),
        "gpt-4.1": Price(8.00, 8.00),
        "gpt-4.1-turbo": Price(2.00, 8.00),
    }
)
"""Dollars per million tokens in and out, as of `DEFAULT_PRICES_DATE`."""

Find = Callable[[str], Price | None]


@dataclass(frozen=True, slots=True)
class Prices:
    """Finds a model's price: by its name, else by the longest pattern, your table first.

    table: prices by name or pattern (`my-model-*`).
    default: whether `DEFAULT_PRICES` are asked after it.
    catalogue: whether the package genai-prices, of the extra [prices], is asked after both: True,
        or those of its providers that you use, the first to know a model before others:
        `["openai", "anthropic"]`.

    A price that is not known is None: never 0, and never another model's. Dates at the end of a
    name are left out (`gpt-4.1-2025-04-14`). Raises ConfigurationError.
    """

    table: Mapping[str, Price] = field(default_factory=dict)
    default: bool = field(default=True, kw_only=True)
    catalogue: bool | Iterable[str] = field(default=False, kw_only=True)
    _find: Find = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, price in self.table.items():
            if not isinstance(name, str) or not isinstance(price, Price):
                raise ConfigurationError("Prices: write {'model': Price(input, output)}")
        if not isinstance(self.catalogue, bool):
            object.__setattr__(self, "catalogue", _providers(self.catalogue))
        tables = [dict(self.table), DEFAULT_PRICES] if self.default else [dict(self.table)]
        object.__setattr__(self, "table", MappingProxyType(tables[0]))
        ways: list[Find] = [_Table(each).of for each in tables]
        if self.catalogue:
            ways.append(_catalogue(None if self.catalogue is True else tuple(self.catalogue)))
        object.__setattr__(self, "_find", lru_cache(maxsize=_KEPT_IN_MIND)(_first(ways)))

    def of(self, model: str) -> Price | None:
        """The price of a model, or None."""
        return self._find(model) if len(model) <= _LONGEST_NAME else None


def _providers(given: object) -> tuple[str, ...]:
    if isinstance(given, Iterable) and not isinstance(given, str):
        found = tuple(given)
        if found and all(isinstance(each, str) for each in found):
            return found
    raise ConfigurationError("Prices(catalogue=): write True, or a list of providers: ['openai']")


def _catalogue(providers: tuple[str, ...] | None) -> Find:
    # Not by who does without: it takes half a second, and tens of megabytes.
    from ai_proxy_mw.accounting.genai import Catalogue  # noqa: PLC0415

    return Catalogue(providers).of


def _first(ways: list[Find]) -> Find:
    def find(model: str) -> Price | None:
        return next((found for way in ways if (found := way(model)) is not None), None)

    return find


def undated(model: str) -> str:
    """A model's name without the date at its end."""
    return _DATED.sub("", model) if "-20" in model else model


class _Table:
    """Prices by name and pattern."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = prices
        patterns = (each for each in prices if any(letter in each for letter in "*?["))
        self._patterns = [
            (re.compile(translate(each)).match, prices[each])
            for each in sorted(patterns, key=len, reverse=True)
        ]

    def of(self, model: str) -> Price | None:
        found = self._named(model)
        if found is None and (plain := undated(model)) != model:
            found = self._named(plain)
        return found

    def _named(self, model: str) -> Price | None:
        found = self._prices.get(model)
        if found is not None:
            return found
        return next((price for fits, price in self._patterns if fits(model)), None)
