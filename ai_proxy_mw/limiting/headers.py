"""What an answer says of the limits that it was counted against."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from ai_proxy_mw._limits import MICRO
from ai_proxy_mw.limiting.ledger import Standing

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

_REQUESTS, _TOKENS = (
    [f"x-ratelimit-{what}-{kind}".encode() for what in ("limit", "remaining", "reset")]
    for kind in ("requests", "tokens")
)


def lines(standings: list[Standing]) -> RawHeaders:
    """OpenAI's `x-ratelimit-*`, of the tightest limit of each kind, and the IETF pair.

    draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy` says what there is, `RateLimit` what
    is left of it. Money is told in whole cents, rounded down.
    """
    found: RawHeaders = []
    if not standings:
        return found  # no limit was for this call: an empty list is no field
    requests = tokens = None
    policies, lefts = [], []
    for name, standing in _named(standings):
        limit = standing.limit
        of, amount, left, window = limit.of, limit.amount, standing.remaining, limit.window
        if of == "requests":
            requests = standing if requests is None else _tighter(requests, standing)
        elif of == "usd":
            amount, left = _cents(amount), _cents(left)
        elif of != "concurrent":
            tokens = standing if tokens is None else _tighter(tokens, standing)
        if window:
            policies.append(f'"{name}";q={amount};w={window}')
            lefts.append(f'"{name}";r={left};t={ceil(standing.reset)}')
        else:
            policies.append(f'"{name}";q={amount}')
            lefts.append(f'"{name}";r={left}')
    if requests is not None:
        found += _openai(_REQUESTS, requests)
    if tokens is not None:
        found += _openai(_TOKENS, tokens)
    found.append((b"ratelimit-policy", ", ".join(policies).encode("ascii")))
    found.append((b"ratelimit", ", ".join(lefts).encode("ascii")))
    return found


def _tighter(one: Standing, other: Standing) -> Standing:
    return other if _share(other) < _share(one) else one


def _share(standing: Standing) -> float:
    return standing.remaining / standing.limit.amount


def _openai(names: list[bytes], standing: Standing) -> RawHeaders:
    limit, remaining, reset = names
    return [
        (limit, b"%d" % standing.limit.amount),
        (remaining, b"%d" % standing.remaining),
        (reset, duration(standing.reset).encode()),
    ]


def duration(seconds: float) -> str:
    """A time as OpenAI writes it: `6m0s`, `1.25s`, `20ms`."""
    if seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


def _named(standings: list[Standing]) -> list[tuple[str, Standing]]:
    """Each with a name that says what it is, as long as no other has the same."""
    if len(standings) == 1:  # as mostly
        return [(standings[0].limit.label, standings[0])]
    names = [standing.limit.label for standing in standings]
    return [
        (name if names.count(name) == 1 else f"{name}-{standing.limit.id}", standing)
        for name, standing in zip(names, standings, strict=True)
    ]


def _cents(amount: int) -> int:
    return amount * 100 // MICRO
