"""Which limits of whom are close to exhaustion, for the owner to look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from ai_proxy_mw._limits import Limit
from ai_proxy_mw.limiting.ledger import Standing
from ai_proxy_mw.limiting.windows import LEASE

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request

CLOSE = 5
"""A limit is close when no more than one part of so many is left."""

MOST = 100
"""How many are kept in mind: those with the least left."""

_PAUSE = 1.0
"""Seconds for which it is taken for granted that there was no room."""

_LONGEST = 256
"""Characters of a name: a model is whatever a caller writes, however long."""

_Key = tuple[str, bool, str | None]


class Closest(Struct, frozen=True, kw_only=True):
    """A limit that somebody has nearly used up, as it stood at their last call.

    limit: as it was written, `100/minute`. of: what it counts. per: whose count it is.
    who: the subject, address or model; None where a function of the app says whose it is.
    amount, remaining: dollars in micro-dollars.
    resets: when it is whole again if nothing more is used, in seconds since 1970; None for
        `concurrent`, which is free again when calls end.
    """

    limit: str
    of: str
    per: str
    who: str | None
    amount: int
    remaining: int
    resets: float | None


class _Kept(Struct, frozen=True):
    told: Closest
    share: float  # of the amount, which remains
    until: float


class Watch:
    """Of this process. Looks at how each call's limits stand, and keeps the closest in mind."""

    __slots__ = ("_again", "_clock", "_farthest", "_kept")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: dict[_Key, _Kept] = {}
        self._farthest = 0.0
        self._again = 0.0

    def look(self, request: Request, standings: list[Standing]) -> None:
        """Take note of what is close, and forget what is no longer."""
        for standing in standings:
            limit = standing.limit
            if standing.remaining * CLOSE <= limit.amount:
                self._keep(limit, standing, request)
            elif self._kept and isinstance(limit.per, str):
                self._kept.pop((limit.id, limit.shared, _who(limit, request)), None)

    def closest(self) -> list[Closest]:
        """Those with the least left first."""
        self._forget(self._clock())
        kept = sorted(list(self._kept.values()), key=_share)  # noqa: C414 - other threads may add
        return [each.told for each in kept]

    def _keep(self, limit: Limit, standing: Standing, request: Request) -> None:
        now = self._clock()
        key = (limit.id, limit.shared, _who(limit, request))
        share = standing.remaining / limit.amount
        known = self._kept.get(key)
        if key[2] is None and known is not None and known.share < share and known.until > now:
            return  # whose they are is not known, so the closest of them is told
        if known is None and len(self._kept) >= MOST and not self._make_room(share, now):
            return
        self._kept[key] = _kept(limit, standing, key[2], share, now)

    def _make_room(self, share: float, now: float) -> bool:
        """Whether there is room for another, be it in the place of one with more left."""
        if share >= self._farthest and now < self._again:
            return False
        self._forget(now)
        if len(self._kept) < MOST:
            return True
        last, kept = max(list(self._kept.items()), key=lambda item: item[1].share)
        if kept.share <= share:
            # A crowd of callers who are no closer shall not have it looked for with each call.
            self._farthest, self._again = kept.share, now + _PAUSE
            return False
        self._kept.pop(last, None)
        return True

    def _forget(self, now: float) -> None:
        for key, kept in list(self._kept.items()):
            if kept.until <= now:
                self._kept.pop(key, None)


def _kept(limit: Limit, standing: Standing, who: str | None, share: float, now: float) -> _Kept:
    resets = now + standing.reset if limit.window else None
    told = Closest(
        limit=limit.rate,
        of=limit.of,
        per=limit.per if isinstance(limit.per, str) else "other",
        who=who,
        amount=limit.amount,
        remaining=standing.remaining,
        resets=resets,
    )
    # Of what ends with calls, nobody says when: it is told as long as a place is held at most.
    return _Kept(told, share, now + LEASE if resets is None else resets)


def _share(kept: _Kept) -> float:
    return kept.share


def _who(limit: Limit, request: Request) -> str | None:
    per = limit.per
    if per == "subject":
        return request.subject
    if per == "ip":
        return request.client or "unknown"
    model = "" if request.call is None else (request.call.model or "")[:_LONGEST]
    if per == "model":
        return model
    return f"{request.subject}, {model}" if per == "subject+model" else None
