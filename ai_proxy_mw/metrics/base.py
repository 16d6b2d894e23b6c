"""What those who want to know of the calls are asked for, and what they are told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.accounting.record import Record

RecordHook = Callable[["Record"], None] | Callable[["Record"], Awaitable[None]]
"""Called with each record, after the call. A sync one runs in a thread of its own."""

Window = Literal["1h", "24h", "30d"]

By = Literal["model", "subject", "endpoint", "upstream"]


class Span(Protocol):
    """One call, as it is traced."""

    def headers(self) -> RawHeaders:
        """Header lines that go upstream with it, such as `traceparent`."""
        ...

    def end(self, record: Record) -> None:
        """The call is over."""
        ...


class Tracing(Protocol):
    """Traces calls. Called in the event loop, in the context of the caller's request."""

    def begin(self, request: Request) -> Span: ...


class StatsRow(msgspec.Struct, frozen=True, kw_only=True):
    """What some calls were, together.

    requests: calls that somebody waited for, of which: errors (failed, cut or stopped), refused,
        cancelled.
    hits: answered by the cache, with what was kept or what another has asked for; misses: which it
        could not answer.
    input_tokens, cached_input_tokens, output_tokens: used upstream.
    cost: micro-dollars, of the calls whose price is known; unpriced: how many have used tokens at
        a price that is not.
    saved: micro-dollars that hits would have cost, as far as it is known; saved_unpriced: hits of
        which it is not. saved_tokens: both ways.
    mean, p50, p95, p99: seconds that complete calls have taken; None without such calls. The
        percentiles are exact to 2 %.
    """

    requests: int = 0
    errors: int = 0
    refused: int = 0
    cancelled: int = 0
    hits: int = 0
    misses: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    unpriced: int = 0
    saved: int = 0
    saved_unpriced: int = 0
    saved_tokens: int = 0
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None

    @property
    def error_rate(self) -> float:
        """The part of the calls that ended in an error, from 0 to 1."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def hit_rate(self) -> float:
        """The part of the calls that the cache was asked for and has answered, from 0 to 1."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class StatsPoint(msgspec.Struct, frozen=True, kw_only=True):
    """time: when its part of the window begins, in seconds since 1970."""

    time: float
    row: StatsRow


class StatsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a window of time was like.

    since, until: its ends, in seconds since 1970; until is the moment of reading.
    rows: by the name that was asked for, the one with most requests first; "" is of calls that
        have none: no model was named, nobody upstream was asked.
    other: what has found no row of its own, since there were too many names; None where all have.
    series: parts of equal length, the oldest first, none left out; the last one is still going on.
    whole: False where the store did not answer, so that what other processes have counted is
        missing, or some of it.
    """

    window: Window
    by: By
    since: float
    until: float
    total: StatsRow
    rows: dict[str, StatsRow]
    other: StatsRow | None = None
    series: list[StatsPoint]
    whole: bool = True
