"""The numbers for spreadsheets: CSV as RFC 4180 has it, in UTF-8."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ai_proxy_mw.dashboard.data import RECORD, ROW
from ai_proxy_mw.dashboard.texts import cell

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.record import Record
    from ai_proxy_mw.metrics.base import StatsReport

_MARK = "\ufeff"
"""Tells spreadsheets that it is UTF-8."""


def of_report(told: StatsReport) -> bytes:
    """A line for each name, and one for what has none of its own, so that they add up."""
    rest = [] if told.other is None else [("(all others)", told.other)]
    rows = [*told.rows.items(), *rest]
    lines = [[name, *(getattr(row, field) for field in ROW)] for name, row in rows]
    return _written([[told.by, *_names(ROW)], *lines])


def of_calls(records: Iterable[Record]) -> bytes:
    """A line for each call."""
    lines = [[getattr(record, field) for field in RECORD] for record in records]
    return _written([_names(RECORD), *lines])


def _names(fields: tuple[str, ...]) -> list[str]:
    """The heads of the columns; those of money say that it is in micro-dollars."""
    return [f"{each}_micro_usd" if each in ("cost", "saved") else each for each in fields]


def _written(lines: Iterable[Iterable[object]]) -> bytes:
    text = "".join(",".join(map(cell, line)) + "\r\n" for line in lines)
    return (_MARK + text).encode("utf-8")
