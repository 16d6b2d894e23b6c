"""The numbers as JSON. Money is in micro-dollars, times in seconds, moments since 1970."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from ai_proxy_mw.dashboard.texts import shown

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.record import Record
    from ai_proxy_mw.limiting.closest import Closest
    from ai_proxy_mw.metrics.base import StatsReport, StatsRow
    from ai_proxy_mw.routing.standing import UpstreamStats

MOST_ROWS = 50
"""Names in one answer; the file for spreadsheets has all."""

ROW = (
    "requests", "errors", "refused", "cancelled", "error_rate", "hits", "misses", "hit_rate",
    "input_tokens", "cached_input_tokens", "output_tokens", "cost", "unpriced", "saved",
    "saved_unpriced", "saved_tokens", "mean", "p50", "p95", "p99",
)  # fmt: skip
"""What is told of some calls together."""

# Named one by one: what a record may hold besides, such as bodies, is not shown.
RECORD = (
    "time", "request_id", "subject", "endpoint", "model", "model_used", "upstream", "attempts",
    "status", "error", "outcome", "stream", "cache", "background", "input_tokens",
    "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "audio_tokens", "image_tokens", "images", "seconds", "measured", "cost", "saved",
    "saved_tokens", "bytes_in", "bytes_out", "first_byte", "first_content", "total", "max_gap",
    "overhead",
)  # fmt: skip
"""What is told of one call."""


def encode(value: object) -> bytes:
    return msgspec.json.encode(value)


def report(told: StatsReport) -> dict[str, Any]:
    """rows: a list, since JavaScript would sort names that look like numbers.

    rows_left_out: how many names were too many to be told here. other: of those that were too
    many to be counted apart, if there are such.
    """
    rows = list(told.rows.items())
    return {
        "window": told.window,
        "by": told.by,
        "since": told.since,
        "until": told.until,
        "total": _row(told.total),
        "rows": [{"name": shown(name), **_row(row)} for name, row in rows[:MOST_ROWS]],
        "rows_left_out": max(0, len(rows) - MOST_ROWS),
        "other": None if told.other is None else _row(told.other),
        "series": [{"time": point.time, **_row(point.row)} for point in told.series],
    }


def recent(records: Iterable[Record]) -> list[dict[str, Any]]:
    return [_fields(record, RECORD) for record in records]


def upstreams(stats: Iterable[UpstreamStats]) -> list[dict[str, Any]]:
    names = ("name", "state", "calls", "failures", "opened", "in_flight", "wait")
    return [_fields(each, names) for each in stats]


def limits(closest: Iterable[Closest]) -> list[dict[str, Any]]:
    names = ("limit", "of", "per", "who", "amount", "remaining", "resets")
    return [_fields(each, names) for each in closest]


def _row(row: StatsRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ROW}


def _fields(told: object, names: tuple[str, ...]) -> dict[str, Any]:
    values = ((name, getattr(told, name)) for name in names)
    return {name: shown(value) if isinstance(value, str) else value for name, value in values}
