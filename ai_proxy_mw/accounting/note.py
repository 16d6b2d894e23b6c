"""What is written down of a call while it goes on."""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ai_proxy_mw._errors import ProxyError, UpstreamError
from ai_proxy_mw._http import Ending
from ai_proxy_mw.accounting.record import Bodies, Record
from ai_proxy_mw.accounting.usage import Usage

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw.accounting.readers import UsageReader
    from ai_proxy_mw.accounting.record import CacheStatus, Outcome
    from ai_proxy_mw.caching.savings import Saving
    from ai_proxy_mw.metrics.base import Span
    from ai_proxy_mw.routing.served import Served

LONGEST = 256
"""Characters that are kept of what others have written: names of models, codes of errors."""

_OUTCOMES: dict[Ending, Outcome] = {
    Ending.CUT: "cut",
    Ending.STOPPED: "stopped",
    Ending.CANCELLED: "cancelled",
    Ending.FAILED: "failed",
}

_OWN = "GET /_"


class _Told(msgspec.Struct):
    code: str | int | None = None
    type: str | None = None


class _Error(msgspec.Struct):
    error: _Told


_error = msgspec.json.Decoder(_Error)


class Note:
    """One for each call: it watches the answer leave, and becomes a record when all is known.

    That is when the call is over, and nothing is under way any more that it has caused upstream:
    others may listen to that when its own caller has left.

    put: takes the record.
    """

    __slots__ = (
        "_away",
        "_away_since",
        "_began",
        "_first_byte",
        "_first_content",
        "_how",
        "_last",
        "_max_gap",
        "_outstanding",
        "_pending",
        "_put",
        "_quiet",
        "_refused",
        "_seen",
        "_served",
        "_shares",
        "_size",
        "attempts",
        "background",
        "cache",
        "cost",
        "error",
        "model",
        "model_used",
        "said",
        "saved",
        "saved_tokens",
        "span",
        "status",
        "time",
        "upstream",
        "usage",
        "waited_for_caller",
    )

    def __init__(self, put: Callable[[Record], None]) -> None:
        self._put = put
        self.time = time.time()
        self._began = time.perf_counter()
        self.background = False
        self.status = 0
        self.error: str | None = None
        self.model: str | None = None
        """As it was asked for; None where the call says it."""
        self.model_used: str | None = None
        self.upstream: str | None = None
        self.attempts = 0
        self.waited_for_caller = 0.0
        """Seconds, until it was sent upstream for the first time."""
        self.cache: CacheStatus | None = None
        self.said: UsageReader | None = None
        """Who reads the answer as it comes."""
        self.span: Span | None = None
        self.usage: Usage | None = None
        self.cost: int | None = 0
        self.saved: int | None = 0
        self.saved_tokens = 0
        self._refused = False
        self._how: Ending | None = None
        self._first_byte: float | None = None
        self._first_content: float | None = None
        self._last = 0.0
        self._max_gap: float | None = None
        self._size = 0
        self._outstanding = 0
        self._away = 0.0
        self._away_since = 0.0
        self._pending = 0
        self._quiet = False
        self._served: Served | None = None
        self._shares: Note | None = None
        self._seen: dict[str, Any] | None = None

    def behind(self) -> Note:
        """For what goes on and nobody waits for."""
        note = Note(self._put)
        note.background = True
        return note

    # -- what the stages tell ------------------------------------------------------------------

    def refuse(self, code: str, *, refused: bool) -> None:
        """An error is what the caller is told; `refused` if it is his own."""
        self.error = code
        self._refused = refused

    def fail(self, error: BaseException) -> None:
        """There will be no answer."""
        self._how = Ending.CANCELLED if isinstance(error, CancelledError) else Ending.FAILED
        if isinstance(error, ProxyError):
            self.error, self.status = error.code, error.status
            if not isinstance(error, UpstreamError):
                self._how, self._refused = Ending.COMPLETE, True  # as if somebody were told

    def hit(self, saving: Saving, *, stale: bool) -> None:
        """It is answered with what is kept."""
        self.cache = "stale" if stale else "hit"
        self.saved = saving.micro_usd
        self.saved_tokens = saving.input_tokens + saving.output_tokens

    def share(self, other: Note | None) -> None:
        """It is given the answer of another call; None if of another process' one."""
        self.cache = "collapsed"
        self._shares = other
        self.saved = None  # until it is known

    def answered(self, status: int) -> None:
        """The head of the answer is there."""
        self.status = status
        self._first_byte = time.perf_counter()

    def leaves(self, upstream: str, model: str | None) -> None:
        """The call is sent upstream, where the model is called so."""
        self.upstream = upstream
        self.model_used = model
        self.attempts += 1
        self.waits()

    def waits(self) -> None:
        """From now on it waits for others; once more for each time that this is said."""
        if not self._outstanding:
            self._away_since = time.perf_counter()
        self._outstanding += 1

    def back(self) -> None:
        """One of those has done its part."""
        self._outstanding -= 1
        if not self._outstanding:
            self._away += time.perf_counter() - self._away_since

    def waited_since(self, began: float) -> None:
        """Until now it has waited for others, as was not known when that began."""
        self._away += time.perf_counter() - began

    def holds(self) -> None:
        """Something was begun that will cost."""
        self._pending += 1

    def settled(self) -> None:
        """All that it has cost is written down."""
        self._pending -= 1
        if self._seen is not None and not self._pending:
            self._write()

    def spend(self, usage: Usage, cost: int | None) -> None:
        """Something was used; cost in micro-dollars, None if no price is known."""
        self.usage = usage if self.usage is None else _sum(self.usage, usage)
        self.cost = None if cost is None or self.cost is None else self.cost + cost

    # -- as an observer ------------------------------------------------------------------------

    def chunk(self, data: bytes) -> None:
        now = time.perf_counter()
        self._size += len(data)
        if self._last:
            gap = now - self._last
            if self._max_gap is None or gap > self._max_gap:
                self._max_gap = gap
        self._last = now
        if self._first_content is None:
            self._hear(data, now)

    def end(self, how: Ending) -> None:
        self._how = how

    def _hear(self, data: bytes, now: float) -> None:
        """A piece before which nothing was said."""
        if self.said is None or self.said.has_said:
            self._first_content = now
            self.said = None
        if self.status >= 400 and self.error is None and len(data) <= 1 << 16:
            self.error = _code_in(data)

    # -- the end -------------------------------------------------------------------------------

    def finish(self, request: Request, error: str | None = None) -> None:
        """The call is over, says the door. Only the first time counts.

        error: what has broken it off.
        """
        if self._seen is not None:
            return
        self._served = request.served
        # Who watches over us asks how we are all the time, and no browser's question is a call.
        self._quiet = request.endpoint.startswith(_OWN) or request.method == "OPTIONS"
        self._seen = self._what_was_seen(request, error)
        if not self._pending:
            self._write()

    def _what_was_seen(self, request: Request, error: str | None) -> dict[str, Any]:
        """All of the record that is no matter of what was sent and used upstream."""
        now, call = time.perf_counter(), request.call
        first, began, away = self._first_byte, self._began, self._away
        if self._outstanding:
            away += now - self._away_since
        away += self.waited_for_caller if self.attempts else request.body.waited
        shared = self._shares
        if shared is not None and shared.usage is not None:
            self.saved = shared.cost
            self.saved_tokens = shared.usage.input_tokens + shared.usage.output_tokens
        if call is not None and self.model is None:
            self.model = call.model
        return {
            "time": self.time,
            "request_id": request.id,
            "subject": request.subject,
            "endpoint": request.endpoint,
            "status": self.status,
            "error": error or self.error,
            "outcome": self._outcome(),
            "stream": call is not None and call.stream,
            "cache": self.cache,
            "background": self.background,
            "saved": self.saved,
            "saved_tokens": self.saved_tokens,
            "bytes_in": request.body.received,
            "bytes_out": self._size,
            "first_byte": None if first is None else first - began,
            "first_content": None if self._first_content is None else self._first_content - began,
            "total": now - began,
            "max_gap": self._max_gap,
            "overhead": max(0.0, (first or now) - began - away),
        }

    def _outcome(self) -> Outcome:
        if self._how is None:
            return "cancelled"
        if self._how is not Ending.COMPLETE:
            return _OUTCOMES[self._how]
        if self.status < 400:
            return "complete"
        return "refused" if self._refused and not self.attempts else "failed"

    def _write(self) -> None:
        seen, by = self._seen, None if self._served is None else self._served.by
        assert seen is not None
        upstream, used = self.upstream, self.model_used
        if by is not None:
            upstream, used = by.upstream, by.model
        seen["model"] = self.model and self.model[:LONGEST]
        seen["model_used"] = used and used[:LONGEST]
        seen["upstream"] = upstream
        seen["attempts"] = self.attempts
        usage = self.usage
        if usage is not None:
            seen["cost"] = self.cost
            seen["input_tokens"] = usage.input_tokens
            seen["cached_input_tokens"] = usage.cached_input_tokens
            seen["cache_write_tokens"] = usage.cache_write_tokens
            seen["output_tokens"] = usage.output_tokens
            seen["reasoning_tokens"] = usage.reasoning_tokens
            seen["audio_tokens"] = usage.audio_input_tokens + usage.audio_output_tokens
            seen["image_tokens"] = usage.image_input_tokens + usage.image_output_tokens
            seen["images"] = usage.images
            seen["seconds"] = usage.seconds
            seen["measured"] = usage.measured
        record = Record(**seen)
        if self.span is not None:
            self.span.end(record)
        if not self._quiet:
            self._put(record)


class NoteOfBodies(Note):
    """One that also keeps what was said: so many bytes of the beginning, both ways."""

    __slots__ = ("_most", "_reply")

    def __init__(self, put: Callable[[Record], None], most: int) -> None:
        super().__init__(put)
        self._most = most
        self._reply = bytearray()

    def behind(self) -> NoteOfBodies:
        note = NoteOfBodies(self._put, self._most)
        note.background = True
        return note

    def chunk(self, data: bytes) -> None:
        super().chunk(data)
        room = self._most - len(self._reply)
        if room > 0:
            self._reply += data[:room]

    def _what_was_seen(self, request: Request, error: str | None) -> dict[str, Any]:
        seen = super()._what_was_seen(request, error)
        asked = b"" if request.call is None else request.call.body()
        seen["bodies"] = Bodies(
            request=asked[: self._most],
            response=bytes(self._reply),
            request_is_whole=len(asked) <= self._most and request.body.received == len(asked),
            response_is_whole=self._size == len(self._reply),
        )
        return seen


def _sum(one: Usage, other: Usage) -> Usage:
    names = Usage.__struct_fields__[:-1]
    summed = {name: getattr(one, name) + getattr(other, name) for name in names}
    return Usage(**summed, measured=one.measured and other.measured)


def _code_in(data: bytes) -> str | None:
    """What an upstream's error is called by itself."""
    try:
        told = _error.decode(data).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    code = told.code if told.code is not None else told.type
    return None if code is None else str(code)[:LONGEST]
