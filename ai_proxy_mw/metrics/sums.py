"""Adds up what many have counted, and makes a report of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw.metrics.base import By, StatsPoint, StatsReport, StatsRow, Window
from ai_proxy_mw.metrics.buckets import TIERS
from ai_proxy_mw.metrics.cells import MOST_PLACES, Cell, Table

if TYPE_CHECKING:
    from ai_proxy_mw.metrics.documents import Counted


class Sums:
    """The parts of one window, by one dimension."""

    def __init__(self, window: Window, by: By, now: float) -> None:
        self.tier = TIERS[window]
        self.by = by
        self._window = window
        self._now = now
        self._parts = {start: Cell() for start in self.tier.starts(now)}
        self._table = Table()

    def __contains__(self, start: int) -> bool:
        return start in self._parts

    def add(self, start: int, counted: Counted) -> None:
        self._parts[start].merge(counted.total)
        self._table.merge(counted.table, MOST_PLACES)

    def report(self, *, whole: bool) -> StatsReport:
        total = Cell()
        for part in self._parts.values():
            total.merge(part)
        rows = {name: cell.row() for name, cell in self._table.names.items()}
        other = self._table.other.row()
        return StatsReport(
            window=self._window,
            by=self.by,
            since=float(min(self._parts)),
            until=self._now,
            total=total.row(),
            rows=dict(sorted(rows.items(), key=_place)),
            other=None if other == StatsRow() else other,
            series=[
                StatsPoint(time=float(start), row=cell.row()) for start, cell in self._parts.items()
            ],
            whole=whole,
        )


def _place(item: tuple[str, StatsRow]) -> tuple[int, int, str]:
    name, row = item
    return -row.requests, -row.cost, name
