"""Puts together who is told of the calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.metrics.access_log import AccessLog
from ai_proxy_mw.metrics.desk import Desk
from ai_proxy_mw.metrics.outlet import MOST, ThreadOutlet, outlet_of
from ai_proxy_mw.metrics.stats import Stats, is_memory
from ai_proxy_mw.routing.standing import stats_of as standing_of
from ai_proxy_mw.stores.guard import StoreDown

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.record import Record
    from ai_proxy_mw.limiting.closest import Closest
    from ai_proxy_mw.limiting.limiter import Limiter
    from ai_proxy_mw.metrics.base import By, RecordHook, StatsReport, Tracing, Window
    from ai_proxy_mw.metrics.desk import Take
    from ai_proxy_mw.routing.lane import Lane
    from ai_proxy_mw.routing.standing import UpstreamStats
    from ai_proxy_mw.stores.base import CacheStore


BODIES_WAITING = 64 * 1024 * 1024
"""Bytes of bodies, each way, that may wait in records for a hook or the log that falls behind."""


class Seen(NamedTuple):
    """What the dashboard shows."""

    counted: Stats
    lanes: Sequence[Lane]
    limiter: Limiter

    async def stats(self, window: Window, by: By) -> StatsReport:
        """Raises StoreDown where it would be this process' part alone."""
        report = await self.counted.read(window, by)
        if not report.whole:
            raise StoreDown
        return report

    async def recent(self, most: int) -> list[Record]:
        return await self.counted.recent(most)

    def upstreams(self) -> list[UpstreamStats]:
        return [standing_of(lane) for lane in self.lanes]

    def limits(self) -> list[Closest]:
        return self.limiter.closest()


def stats_of(stats: CacheStore | bool, *, name: str, kept: CacheStore | None) -> Stats | None:
    """What counts the calls; None if nothing shall.

    kept: the store of the cache, which the processes share anyway.
    """
    if stats is False:
        return None
    if stats is not True and not hasattr(stats, "get"):
        raise ConfigurationError(f"stats={stats!r}: write True, False or a store like RedisCache()")
    store = kept if stats is True else stats
    if store is None or not is_memory(store):
        return Stats(name=name, store=store)
    # What others write in a store that is shared is seen there; in memory there is nothing to see.
    those = _in_memory.setdefault(store, {})
    return those.setdefault(name, Stats(name=name, store=store))


_in_memory: WeakKeyDictionary[CacheStore, dict[str, Stats]] = WeakKeyDictionary()
"""Proxies of one name that share memory count together, as with any other store."""


def desk_of(
    on_record: Iterable[RecordHook],
    *,
    access_log: AccessLog | bool,
    stats: Stats | None,
    tracing: Tracing | None,
) -> Desk | None:
    """Where the records are handed out; None where nobody wants any."""
    hooks = tuple(on_record)
    log = AccessLog() if access_log is True else access_log
    if log is not False and not isinstance(log, AccessLog):
        raise ConfigurationError(f"access_log={log!r}: write True, False or AccessLog(...)")
    if not hooks and not log and stats is None and tracing is None:
        return None
    body_bytes = log.body_bytes if log else 0
    most = MOST if not body_bytes else min(MOST, BODIES_WAITING // body_bytes)
    outlets = [outlet_of(hook, most) for hook in hooks]
    takers: list[Take] = [outlet.put for outlet in outlets]
    if stats is not None:
        takers.append(stats.add)
    if log:
        lines = ThreadOutlet("access_log", log, most)
        outlets.append(lines)
        takers.append(_if_on(log, lines))
    return Desk(takers, outlets, tracing=tracing, body_bytes=body_bytes)


def _if_on(log: AccessLog, outlet: ThreadOutlet) -> Callable[[Record], None]:
    """Nobody who has not asked for the log pays for a thread that would write none."""

    def put(record: Record) -> None:
        if log.is_on:
            outlet.put(record)

    return put
