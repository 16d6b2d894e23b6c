"""How much: the limits of a caller, a model or an address."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, cast, get_args

from ai_proxy_mw._errors import ConfigurationError

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request

Of = Literal["requests", "tokens", "input_tokens", "output_tokens", "usd", "concurrent"]
Strategy = Literal["sliding", "fixed", "moving"]
Per = Literal["subject", "ip", "model", "subject+model"]

MICRO = 1_000_000
"""Micro-dollars in a dollar: money is counted in whole ones."""

_RATE = re.compile(
    r"\s*([0-9]{1,16}(?:\.[0-9]{1,6})?)\s*(?:(?:/|per)\s*((?:[1-9][0-9]{0,6}\s*)?[a-z]+)\s*)?",
    re.IGNORECASE,
)
_UNIT = re.compile(r"\s*([0-9.]+)\s*(?!per\b)([a-z_]+)\s*(|/.*|per\b.*)", re.IGNORECASE)
_MOST = 2**53  # what every store counts exactly


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so much in a time.

    rate: in the notation of the `limits` library: `"100/minute"`, `"5000 per 2 hours"`; dollars
        may have decimals (`"2.50/day"`); of `"concurrent"` a number alone.
    of: what is counted. Tokens and dollars are reserved from an estimate when a call is let in,
        and settled to what it used when it ends.
    per: whose count it is; or a function `(Request) -> str | None`, None for a call without one.
    strategy: `sliding` weighs the window before by what of it is still in the last `window`
        seconds; `fixed` starts anew with each window, aligned to the clock (UTC); `moving` keeps
        the time of each request, for requests only.
    models, endpoints: the calls that count, as names or patterns (`gpt-4.1*`); all if None.
    shared: whether apps of other names that use the same storage count together with this one.

    Raises ConfigurationError.
    """

    rate: str
    of: Of = field(default="requests", kw_only=True)
    per: Per | Callable[[Request], str | None] = field(default="subject", kw_only=True)
    strategy: Strategy = field(default="sliding", kw_only=True)
    models: Iterable[str] | None = field(default=None, kw_only=True)
    endpoints: Iterable[str] | None = field(default=None, kw_only=True)
    shared: bool = field(default=False, kw_only=True)
    amount: int = field(init=False, repr=False)
    window: int = field(init=False, repr=False)
    id: str = field(init=False, repr=False)
    # Made here once, since each call needs them.
    needs_call: bool = field(init=False, repr=False, compare=False)
    label: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("models", "endpoints"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        self._check()
        amount, window = _read(self.rate, self.of)
        object.__setattr__(self, "amount", amount)
        object.__setattr__(self, "window", window)
        object.__setattr__(self, "id", self._identify())
        object.__setattr__(self, "needs_call", self._needs_call())
        object.__setattr__(self, "label", f"{self.of}-{window}s" if window else self.of)

    def covers(self, endpoint: str, model: str | None) -> bool:
        """Whether calls of this endpoint and model count."""
        if self.endpoints is not None and not _matches(endpoint, self.endpoints):
            return False
        return self.models is None or (model is not None and _matches(model, self.models))

    def __str__(self) -> str:
        return f"{self.rate} ({self.of} per {self._per_name})"

    def _needs_call(self) -> bool:
        """Whether the call must be read before it can be counted."""
        return (
            self.of not in ("requests", "concurrent")
            or self.models is not None
            or self.per in ("model", "subject+model")
        )

    @property
    def _per_name(self) -> str:
        if isinstance(self.per, str):
            return self.per
        return getattr(self.per, "__qualname__", type(self.per).__qualname__)

    def _identify(self) -> str:
        # Not the amount: who is given more or less goes on from where they stand.
        parts = [
            self.of, self._per_name, self.strategy, str(self.window),
            *(self.models or ["*"]), "|", *(self.endpoints or ["*"]),
        ]  # fmt: skip
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _check(self) -> None:
        if self.of not in get_args(Of):
            raise ConfigurationError(f"Limit(of={self.of!r}): write one of {get_args(Of)}")
        if self.strategy not in get_args(Strategy):
            raise ConfigurationError(
                f"Limit(strategy={self.strategy!r}): write one of {get_args(Strategy)}"
            )
        if self.strategy == "moving" and self.of != "requests":
            raise ConfigurationError(
                f"Limit(of={self.of!r}, strategy='moving'): that would keep the time of each "
                "token; write strategy='sliding'"
            )
        if self.per not in get_args(Per) and not callable(self.per):
            raise ConfigurationError(
                f"Limit(per={self.per!r}): write one of {get_args(Per)}, or a function of the "
                "request"
            )
        if not isinstance(self.shared, bool):
            raise ConfigurationError(f"Limit(shared={self.shared!r}): write True or False")


def limits_of(given: Iterable[str | Limit]) -> tuple[Limit, ...]:
    """The limits that were written, those in one text apart. Raises ConfigurationError."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigurationError(f"limits={given!r}: write a list, like ['100/minute']")
    found: list[Limit] = []
    for item in given:
        if isinstance(item, Limit):
            found.append(item)
        elif isinstance(item, str):
            found += _written(item)
        else:
            raise ConfigurationError(f"limits: {item!r}: write '100/minute' or Limit(...)")
    return tuple(found)


@lru_cache(maxsize=1024)  # the limits of a caller come with each of their calls
def _written(text: str) -> tuple[Limit, ...]:
    return tuple(_one(part) for part in re.split(r"[,;|]", text))


def _one(text: str) -> Limit:
    """A limit in one text: `100/minute`, or with what is counted after the number."""
    unit = _UNIT.fullmatch(text)
    if unit is None:
        return Limit(text.strip())
    of = cast("Of", unit[2].lower())  # another word is refused there
    return Limit(f"{unit[1]}{unit[3].replace('per', ' per', 1)}", of=of)


def _read(rate: str, of: Of) -> tuple[int, int]:
    """The amount, money in micro-dollars, and the window in seconds (0 for none)."""
    match = _RATE.fullmatch(rate) if isinstance(rate, str) else None
    example = {"concurrent": "10", "usd": "2.50/day"}.get(of, "100/minute")
    wrong = ConfigurationError(f"Limit({rate!r}, of={of!r}): write a rate like {example!r}")
    if match is None or (match[2] is None) != (of == "concurrent"):
        raise wrong
    amount = Decimal(match[1]) * (MICRO if of == "usd" else 1)
    if amount != int(amount) or not 0 < amount <= _MOST:
        raise wrong
    try:
        return int(amount), 0 if match[2] is None else _seconds(match[2])
    except ValueError:
        raise wrong from None


def _seconds(period: str) -> int:
    from limits import parse  # noqa: PLC0415 - 40 ms of import, needed only where there are limits

    return parse(f"1 per {period}").get_expiry()


def _names(name: str, value: Iterable[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = () if isinstance(value, str) else tuple(value)
    if not names or not all(isinstance(item, str) for item in names):
        raise ConfigurationError(f"Limit({name}={value!r}): write a list of names")
    return names


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
