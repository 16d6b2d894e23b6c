"""What the cache has done in this process."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy_mw.caching.savings import Saving
    from ai_proxy_mw.stores.base import StoreStats


@dataclass(slots=True)
class Counts:
    """As in `CacheStats`, while they grow."""

    hits: int = 0
    stale: int = 0
    misses: int = 0
    collapsed: int = 0
    bypassed: int = 0
    stored: int = 0
    saved_input_tokens: int = 0
    saved_output_tokens: int = 0
    saved_micro_usd: int = 0

    def hit(self, saving: Saving, *, stale: bool) -> None:
        """A call was answered from the cache."""
        self.hits += 1
        self.stale += stale
        self.saved_input_tokens += saving.input_tokens
        self.saved_output_tokens += saving.output_tokens
        self.saved_micro_usd += saving.micro_usd or 0


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheStats:
    """The counts of this process, and what the store holds, of all processes that share it.

    hits: calls that the cache has answered; `stale`: of these, with an answer past its time.
    misses: calls that went upstream. collapsed: calls that were given the answer of another's.
    bypassed: calls of endpoints that are kept which the cache had nothing to do with.
    stored: answers that were kept. failures: questions that the store did not answer.
    saved_input_tokens, saved_output_tokens, saved_usd: what the hits would have used upstream, as
        far as it is known.
    entries, size: how many entries the store holds, and the bytes that they take, about.
    """

    hits: int
    stale: int
    misses: int
    collapsed: int
    bypassed: int
    stored: int
    failures: int
    saved_input_tokens: int
    saved_output_tokens: int
    saved_usd: float
    entries: int
    size: int

    @property
    def hit_rate(self) -> float:
        """The part of the calls that did not go upstream, from 0 to 1."""
        saved = self.hits + self.collapsed
        return saved / (saved + self.misses) if saved else 0.0


def stats_of(counts: Counts, store: StoreStats, *, failures: int) -> CacheStats:
    found = asdict(counts)
    micro = found.pop("saved_micro_usd")
    return CacheStats(
        **found,
        saved_usd=micro / 1_000_000,
        failures=failures,
        entries=store.entries,
        size=store.size,
    )
