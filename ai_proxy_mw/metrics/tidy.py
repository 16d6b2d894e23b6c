"""Makes one document of many: where workers are begun anew all day, each leaves some behind.

What is over since an hour is written by nobody any more. The sum says which documents are in it
before these are removed, so whoever is killed in between leaves nothing that counts twice, and a
document that comes back is not counted.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ai_proxy_mw.metrics.buckets import ALL, TIERS, Tier, place_of
from ai_proxy_mw.metrics.cells import MOST_PLACES, Cells
from ai_proxy_mw.metrics.documents import MOST_PARTS, decode_all, encode

if TYPE_CHECKING:
    from ai_proxy_mw.metrics.shelf import Shelf

AFTER = 3600.0
"""Seconds since a part is over. Who could not write for longer has written in vain."""

FEW = 8
"""Documents of one part that may stay: as many as there are workers at a time."""

LEASE = 600.0
"""Seconds until somebody else may do it."""

WITHIN = 120.0
"""Seconds after which the rest is left to the next: two at once must never be at it."""

_TIDIED = (TIERS["24h"], TIERS["30d"])


async def tidy(shelf: Shelf, prefix: str, now: float) -> None:
    """Do it, if nobody else has done it lately. Raises StoreDown."""
    if not await shelf.is_first(f"{prefix}tidy", lease=LEASE):
        return
    until = time.monotonic() + WITHIN
    for tier in _TIDIED:
        for start, names in (await _found(shelf, f"{prefix}{tier.name}:", tier, now)).items():
            if len(names) > FEW and time.monotonic() < until:
                await _add_up(shelf, f"{prefix}{tier.name}:{start}:", names, tier.keep(start, now))


async def _found(shelf: Shelf, prefix: str, tier: Tier, now: float) -> dict[int, list[str]]:
    """The names of documents of parts that are over, by when these have begun."""
    found: dict[int, list[str]] = {}
    for key in await shelf.keys(prefix, anew=True):
        place = place_of(key, prefix)
        if place is None or place.name == ALL:
            continue
        is_over = place.start + tier.length + AFTER <= now
        if is_over and tier.keep(place.start, now) > 0:
            found.setdefault(place.start, []).append(place.name)
    return found


async def _add_up(shelf: Shelf, prefix: str, names: list[str], ttl: float) -> None:
    cells, parts = decode_all(await shelf.get(prefix + ALL) or b"") or (Cells(), [])
    known = set(parts)
    for name in names:
        if name not in known and len(known) < MOST_PARTS:
            found = decode_all(await shelf.get(prefix + name) or b"")
            if found is not None:
                cells.merge(found[0], MOST_PLACES)
                known.add(name)
    if await shelf.put(prefix + ALL, encode(cells, sorted(known)), ttl=ttl):
        for name in known.intersection(names):
            await shelf.forget(prefix + name)
