"""What the cache has done, and what answers say of it."""

from __future__ import annotations

from ai_proxy_mw.caching import marks
from ai_proxy_mw.caching.counts import Counts, stats_of
from ai_proxy_mw.caching.savings import Saving
from ai_proxy_mw.stores.base import StoreStats

SAVING = Saving(3, 4, 1_500_000)


def test_hits_save_what_the_answer_has_cost() -> None:
    counts = Counts(misses=1, collapsed=1, bypassed=5, stored=1)
    counts.hit(SAVING, stale=False)
    counts.hit(SAVING, stale=True)
    stats = stats_of(counts, StoreStats(6, 700), failures=8)
    assert (stats.hits, stats.stale, stats.misses, stats.collapsed) == (2, 1, 1, 1)
    assert (stats.bypassed, stats.stored, stats.failures) == (5, 1, 8)
    assert (stats.saved_input_tokens, stats.saved_output_tokens, stats.saved_usd) == (6, 8, 3.0)
    assert (stats.entries, stats.size) == (6, 700)
    assert stats.hit_rate == 0.75


def test_nothing_has_no_rate() -> None:
    assert stats_of(Counts(bypassed=3), StoreStats(0, 0), failures=0).hit_rate == 0.0


def test_marks() -> None:
    assert dict(marks.hit(age=3.9, ttl=-4.2)) == {
        b"age": b"3",
        b"cache-status": b"ai_proxy_mw; hit; ttl=-4",
        b"x-cache": b"HIT",
    }
    assert dict(marks.hit(age=-1, ttl=2))[b"age"] == b"0"  # clocks of two machines
    assert dict(marks.stale_for_error(age=9, ttl=-2)) == {
        b"age": b"9",
        b"cache-status": b'ai_proxy_mw; fwd=stale; ttl=-2; detail="stale-if-error"',
        b"x-cache": b"HIT",
    }
    assert dict(marks.miss("stale", stored=True)) == {
        b"cache-status": b"ai_proxy_mw; fwd=stale; stored",
        b"x-cache": b"MISS",
    }
    assert dict(marks.miss("miss", stored=False))[b"cache-status"] == b"ai_proxy_mw; fwd=miss"
    assert dict(marks.collapsed()) == {
        b"cache-status": b"ai_proxy_mw; fwd=miss; collapsed",
        b"x-cache": b"COLLAPSED",
    }
