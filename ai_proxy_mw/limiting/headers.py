"""What an answer says of the limits that it was counted against."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import TYPE_CHECKING

from ai_proxy_mw._limits import MICRO, Limit
from ai_proxy_mw.limiting.ledger import Standing

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

_KINDS = (("requests", ("requests",)), ("tokens", ("tokens", "input_tokens", "output_tokens")))


def lines(standings: list[Standing]) -> RawHeaders:
    """OpenAI's `x-ratelimit-*`, of the tightest limit of each kind, and the IETF pair.

    draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy` says what there is, `RateLimit` what
    is left of it. Money is told in whole cents, rounded down.
    """
    found: RawHeaders = []
    if not standings:
        return found  # no limit was for this call: an empty list is no field
    for kind, counted in _KINDS:
        of_kind = [standing for standing in standings if standing.limit.of in counted]
        if of_kind:
            tightest = of_kind[0] if len(of_kind) == 1 else min(of_kind, key=_share)
            found += _openai(kind, tightest)
    named = _named(standings)
    found.append((b"ratelimit-policy", _list(map(_policy, named))))
    found.append((b"ratelimit", _list(map(_left, named))))
    return found


def _share(standing: Standing) -> float:
    return standing.remaining / standing.limit.amount


def _openai(kind: str, standing: Standing) -> RawHeaders:
    return [
        (f"x-ratelimit-limit-{kind}".encode(), b"%d" % standing.limit.amount),
        (f"x-ratelimit-remaining-{kind}".encode(), b"%d" % standing.remaining),
        (f"x-ratelimit-reset-{kind}".encode(), duration(standing.reset).encode()),
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
    names = [_name(standing.limit) for standing in standings]
    return [
        (name if names.count(name) == 1 else f"{name}-{standing.limit.id}", standing)
        for name, standing in zip(names, standings, strict=True)
    ]


def _name(limit: Limit) -> str:
    return f"{limit.of}-{limit.window}s" if limit.window else limit.of


def _policy(named: tuple[str, Standing]) -> str:
    name, standing = named
    limit = standing.limit
    window = f";w={limit.window}" if limit.window else ""
    return f'"{name}";q={_amount(limit, limit.amount)}{window}'


def _left(named: tuple[str, Standing]) -> str:
    name, standing = named
    reset = f";t={ceil(standing.reset)}" if standing.limit.window else ""
    return f'"{name}";r={_amount(standing.limit, standing.remaining)}{reset}'


def _amount(limit: Limit, amount: int) -> int:
    return amount * 100 // MICRO if limit.of == "usd" else amount


def _list(items: Iterable[str]) -> bytes:
    return ", ".join(items).encode("ascii")
