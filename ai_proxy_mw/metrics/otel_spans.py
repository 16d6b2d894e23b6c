"""The spans of calls. Imported only where OpenTelemetry is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, TracerProvider

from ai_proxy_mw import __version__
from ai_proxy_mw.metrics import genai_names as names
from ai_proxy_mw.metrics.known_names import LONGEST

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from ai_proxy_mw._http import Request
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.accounting.record import Record

_FOR_SAMPLERS = {
    endpoint: {names.OPERATION: operation} for endpoint, operation in names.OPERATIONS.items()
}
_FAILED = Status(StatusCode.ERROR)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\t -~]*")

NO_SPAN = INVALID_SPAN
"""What a call has that is not traced."""


class Spans:
    def __init__(
        self,
        provider: TracerProvider | None,
        *,
        providers: Mapping[str, str],
        subjects: bool,
        from_headers: bool,
    ) -> None:
        self._tracer = trace.get_tracer(
            "ai_proxy_mw", __version__, provider, schema_url=names.SCHEMA_URL
        )
        self._providers = providers
        self._subjects = subjects
        self._from_headers = from_headers

    def begin(self, request: Request, now: int) -> Span:
        """A span in the host's trace. `now` is in nanoseconds since 1970."""
        path = request.path or ""
        if path.startswith("/_") or request.method == "OPTIONS":
            return NO_SPAN  # who watches over us asks all the time; and a preflight is no call
        endpoint = f"{request.method} {path}"
        return self._tracer.start_span(
            names.OPERATIONS.get(endpoint, "ai_proxy"),
            self._parent(request) if self._from_headers else None,
            SpanKind.CLIENT,
            _FOR_SAMPLERS.get(endpoint),
            start_time=now,
        )

    def _parent(self, request: Request) -> Context | None:
        """What the caller has said, where the host has no span."""
        if trace.get_current_span().get_span_context().is_valid:
            return None
        carrier: dict[str, list[str]] = {}
        for name, value in request.headers:
            carrier.setdefault(name, []).append(value)
        return propagate.extract(carrier)

    def end(self, span: Span, record: Record, *, model_is_known: bool, now: int) -> None:
        try:
            if span.is_recording():
                span.update_name(_title(record, model_is_known=model_is_known))
                span.set_attributes(self._attributes(record))
                if names.error_of(record) is not None:
                    span.set_status(_FAILED)
        finally:
            span.end(now)

    def _attributes(self, record: Record) -> dict[str, AttributeValue]:
        found = _asked(record)
        found[names.PROVIDER] = names.provider_of(record, self._providers)
        found.update(_used(record))
        found.update(_own(record))
        if self._subjects and record.subject:
            found[names.OWN_SUBJECT] = _text(record.subject)
        return found


def context_of(span: Span) -> Context:
    """One that has nothing but the span: what else the host has in its own is not for others."""
    return trace.set_span_in_context(span, Context())


def lines_of(span: Span) -> RawHeaders:
    """Header lines by which the next one joins the trace; none where there is no trace."""
    if not span.get_span_context().is_valid:
        return []
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context_of(span))
    return [
        (name.lower().encode("ascii"), value.encode("ascii"))
        for name, value in carrier.items()
        if _NAME.fullmatch(name) and _VALUE.fullmatch(value)
    ]


def _title(record: Record, *, model_is_known: bool) -> str:
    """The span's name, of which there are only so many: a caller may ask for any model."""
    operation = names.OPERATIONS.get(record.endpoint)
    if operation is None:
        return record.endpoint or "ai_proxy"
    return f"{operation} {record.model}" if model_is_known else operation


def _asked(record: Record) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    operation = names.OPERATIONS.get(record.endpoint)
    if operation is not None:
        found[names.OPERATION] = operation
    output = names.OUTPUT_TYPES.get(record.endpoint)
    if output is not None:
        found[names.OUTPUT_TYPE] = output
    if record.model is not None:
        found[names.REQUEST_MODEL] = _text(record.model)
    if record.model_used is not None:
        found[names.RESPONSE_MODEL] = _text(record.model_used)
    if record.stream:
        found[names.REQUEST_STREAM] = True
        if record.first_byte is not None:
            found[names.FIRST_CHUNK] = record.first_byte
    if record.status:
        found[names.STATUS] = record.status
    error = names.error_of(record)
    if error is not None:
        found[names.ERROR_TYPE] = _text(error)
    return found


def _used(record: Record) -> dict[str, AttributeValue]:
    if record.measured is None:
        return {}
    found: dict[str, AttributeValue] = {
        names.INPUT_TOKENS: record.input_tokens,
        names.OUTPUT_TOKENS: record.output_tokens,
        names.OWN_MEASURED: record.measured,
    }
    if record.cached_input_tokens:
        found[names.CACHE_READ_TOKENS] = record.cached_input_tokens
    if record.cache_write_tokens:
        found[names.CACHE_WRITE_TOKENS] = record.cache_write_tokens
    if record.reasoning_tokens:
        found[names.REASONING_TOKENS] = record.reasoning_tokens
    return found


def _own(record: Record) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {
        names.OWN_REQUEST_ID: _text(record.request_id),
        names.OWN_OUTCOME: record.outcome,
        names.OWN_ATTEMPTS: record.attempts,
    }
    if record.endpoint:
        found[names.OWN_ENDPOINT] = record.endpoint
    if record.cache is not None:
        found[names.OWN_CACHE] = record.cache
    if record.upstream is not None:
        found[names.OWN_UPSTREAM] = record.upstream
    if record.cost is not None:
        found[names.OWN_COST] = record.cost
    if record.saved:
        found[names.OWN_SAVED] = record.saved
    return found


def _text(value: str) -> str:
    """As it can be exported: half a surrogate pair would cost the whole batch of spans."""
    value = value[:LONGEST]
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
