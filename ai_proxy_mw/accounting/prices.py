"""What models cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.accounting.usage import Usage

_MILLION = 1_000_000

# A dated snapshot of a model costs what the model costs.
_DATED = re.compile(r"-20[0-9]{2}-?[01][0-9]-?[0-3][0-9]$")


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens in and out; `cached_input` for cached ones, as `input` if None."""

    input: float
    output: float
    cached_input: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is None and name == "cached_input":
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < float("inf"):
                raise ConfigurationError(f"Price({name}={value!r}): write dollars, 0 or more")


def cost(price: Price, usage: Usage) -> int:
    """Micro-dollars for a use, rounded up. Exact: no part is rounded before the sum."""
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    rate = price.input if price.cached_input is None else price.cached_input
    total = (
        _rate(price.input) * (usage.input_tokens - cached)
        + _rate(rate) * cached
        + _rate(price.output) * usage.output_tokens
    )
    return -(-total // _MILLION)


@lru_cache(maxsize=1024)
def _rate(dollars: float) -> int:
    """Millionths of a micro-dollar for a token; what a price is written with, not its binary."""
    return int(Decimal(str(dollars)) * _MILLION)


DEFAULT_PRICES: Mapping[str, Price] = {
    "claude-sonnet-4": Price(3.00, 15.00),
    "claude-sonnet-4.5": Price(15.00, 75.00),
    "deepseek-v3.2": Price(0.42, 1.68),
    "gemini-2.5-flash": Price(2.50, 10.00),
    "gpt-4.1": Price(8.00, 8.00),
    "gpt-4.1-turbo": Price(2.00, 8.00),
}
"""Dollars per million tokens in and out, as of November 2026."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Finds a model's price: by its name, else by the longest pattern, your table first.

    table: prices by name or pattern (`my-model-*`).
    default: whether `DEFAULT_PRICES` are asked after it.

    A price that is not known is None: never 0, and never another model's. Dates at the end of a
    name are left out (`gpt-4.1-2025-04-14`). Raises ConfigurationError.
    """

    table: Mapping[str, Price] = field(default_factory=dict)
    default: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        for name, price in self.table.items():
            if not isinstance(name, str) or not isinstance(price, Price):
                raise ConfigurationError("Prices: write {'model': Price(input, output)}")

    def of(self, model: str) -> Price | None:
        """The price of a model, or None."""
        for table in (self.table, DEFAULT_PRICES if self.default else {}):
            for name in (model, _DATED.sub("", model)):
                found = table.get(name) or _by_pattern(table, name)
                if found is not None:
                    return found
        return None


def _by_pattern(table: Mapping[str, Price], model: str) -> Price | None:
    fitting = [pattern for pattern in table if fnmatchcase(model, pattern)]
    return table[max(fitting, key=len)] if fitting else None
