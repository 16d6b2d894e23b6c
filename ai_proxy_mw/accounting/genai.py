"""What the package genai-prices knows of prices, taken word for word.

It is of the extra [prices]. Its own search finds a model by parts of a name, which is right for a
chart and wrong for a bill: `claude-2-whatever` would cost what `claude-2` does. Here a name is one
that the catalogue spells out for a model and by which it finds that model itself, or such a name
with a date at its end by which it finds the same. Nothing is fetched: the prices are those that
were installed, as they were when a model was first asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.accounting.prices import Price, undated

if TYPE_CHECKING:
    from genai_prices.types import MatchLogic, ModelInfo, ModelPrice, Provider, TieredPrices

    Listed = Mapping[str, Decimal | TieredPrices]

_OURS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
    "input_image_mtok": "image_input",
    "output_image_mtok": "image_output",
}

_LEFT_OUT = {
    # Providers do not report them apart: a write for an hour counts as one, cached sound as sound.
    "cache_write_1h_mtok",
    "cache_audio_read_mtok",
    "cache_image_read_mtok",
    # Of tools that the provider runs; they are charged beside the tokens and not reported.
    "web_searches_kcount",
    "social_searches_kcount",
    "storage_searches_kcount",
    "code_executions_kcount",
}

_BY_TIME = {"input_audio_hours", "audio_hours"}

_HOUR = 3600

_BY_MINIMUM = ("groq",)
"""Providers that charge short sounds as longer ones, which a price a second cannot say."""


class Claim(NamedTuple):
    """A provider that calls a model by a name."""

    provider: Provider
    model: ModelInfo
    name: str


class Catalogue:
    """Finds prices in the catalogue.

    providers: those that are used, by the catalogue's ids. None is all: of a model that several
        of them offer the price of its maker counts, and if that is none of them, the price in
        which they agree.

    Raises ConfigurationError if the package is not installed.
    """

    def __init__(self, providers: Sequence[str] | None = None) -> None:
        self._providers = providers
        self._found: dict[str, Price | None] = {}
        known = {claim.provider.id for claims in _index().values() for claim in claims}
        for unknown in set(providers or ()) - known:
            shown = ", ".join(sorted(known))
            raise ConfigurationError(f"catalogue: there is no {unknown!r}; there are: {shown}")

    def of(self, model: str) -> Price | None:
        """The price of a model, or None."""
        if model not in self._found:
            found = self._price_of(_claims_of(model))
            if not _spelled_so(model):
                return found
            self._found[model] = found  # never more than the catalogue has names
        return self._found[model]

    def _price_of(self, claims: list[Claim]) -> Price | None:
        prices = [_price(claim) for claim in self._chosen(claims)]
        return prices[0] if prices and all(price == prices[0] for price in prices) else None

    def _chosen(self, claims: list[Claim]) -> list[Claim]:
        if self._providers is None:
            return [claim for claim in claims if _is_maker(claim)] or claims
        for provider in self._providers:
            own = [claim for claim in claims if claim.provider.id == provider]
            if own:
                return own
        return []


def _claims_of(model: str) -> list[Claim]:
    """Who offers a model by that name, or says that a date at its end makes no difference."""
    named = [claim for claim in _spelled_so(model) if _finds(claim, model)]
    plain = undated(model)
    if plain == model:
        return named
    # Whether it fits is asked first: callers may write any date, and to find takes a millisecond.
    dated = (claim for claim in _spelled_so(plain) if claim.model.is_match(model))
    return named + [claim for claim in dated if _finds(claim, model)]


def _spelled_so(name: str) -> list[Claim]:
    """Who has a name, if anybody spells it just so: what another spelling is, nobody can say."""
    claims = _index().get(name.lower(), [])
    return claims if any(claim.name == name for claim in claims) else []


def _finds(claim: Claim, name: str) -> bool:
    """Whether the catalogue itself finds that model by a name, and no other before it."""
    return claim.provider.find_model(name) is claim.model


def _is_maker(claim: Claim) -> bool:
    match = claim.provider.model_match
    return match is not None and match.is_match(claim.name.lower())


@cache
def _index() -> dict[str, list[Claim]]:
    """All names that are spelled out, in lower case as the catalogue compares them."""
    try:
        from genai_prices.data import providers  # noqa: PLC0415 - of the extra [prices], and large
    except ImportError:
        raise ConfigurationError(
            "catalogue: it is in another package: pip install 'ai_proxy_mw[prices]'"
        ) from None
    index: dict[str, list[Claim]] = defaultdict(list)
    for provider in providers:
        for model in provider.models:
            for name in {model.id, *_spelled(model.match)}:
                index[name.lower()].append(Claim(provider, model, name))
    return dict(index)


def _spelled(match: MatchLogic) -> Iterator[str]:
    """The names and the beginnings of names by which the catalogue knows a model."""
    from genai_prices.types import ClauseEquals, ClauseOr, ClauseStartsWith  # noqa: PLC0415

    if isinstance(match, ClauseOr):
        for each in match.or_:
            yield from _spelled(each)
    elif isinstance(match, ClauseEquals):
        yield match.equals
    elif isinstance(match, ClauseStartsWith):
        yield match.starts_with


def _price(claim: Claim) -> Price | None:
    """A price in our words; None for one that they cannot tell, or that is nothing at all."""
    prices = [_told(claim.model.get_prices(at), claim) for at in _moments(claim.model)]
    known = [price for price in prices if price is not None]
    # Of the hours of a day the dearest counts.
    dearest = max(known, key=lambda price: price.input + price.output, default=None)
    return dearest if len(known) == len(prices) else None


def _moments(model: ModelInfo) -> list[datetime]:
    """Now, and when a price of the day begins or ends."""
    from genai_prices.types import TimeOfDateConstraint  # noqa: PLC0415

    now = datetime.now(UTC)
    terms = [] if not isinstance(model.prices, list) else [each.constraint for each in model.prices]
    hours = [
        hour
        for term in terms
        if isinstance(term, TimeOfDateConstraint)
        for hour in (term.start_time, term.end_time)
    ]
    return [now, *(datetime.combine(now, hour, hour.tzinfo or UTC) for hour in hours)]


def _told(price: ModelPrice, claim: Claim) -> Price | None:
    listed = {key: value for key, value in vars(price).items() if value is not None}
    if listed.keys() <= _BY_TIME and "input_audio_hours" in listed:
        second = float(_at(listed["input_audio_hours"], 0) / _HOUR)
        return None if claim.provider.id in _BY_MINIMUM else Price(0, 0, second=second)
    if "input_mtok" not in listed or listed.keys() - _OURS.keys() - _LEFT_OUT:
        return None
    above = {start: Price(**_dollars(listed, start + 1)) for start in _starts(listed)}
    found = replace(Price(**_dollars(listed, 0)), above=above)
    # Zeros there are what was given away for a while, or what nobody has looked up.
    return found if found.input or found.output else None


def _starts(listed: Listed) -> set[int]:
    return {tier.start for value in listed.values() for tier in getattr(value, "tiers", ())}


def _dollars(listed: Listed, tokens: int) -> dict[str, Any]:
    """The arguments of a price for calls with so many tokens in."""
    given = {_OURS[key]: float(_at(value, tokens)) for key, value in listed.items() if key in _OURS}
    return {"output": 0.0, **given}  # what makes no output, such as embeddings, lists none


def _at(value: Decimal | TieredPrices, tokens: int) -> Decimal:
    if isinstance(value, Decimal):
        return value
    reached = [tier.price for tier in value.tiers if tokens > tier.start]
    return reached[-1] if reached else value.base
