"""OpenTelemetry: a span for each call in the host's trace, and metrics of those sent upstream."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from ai_proxy_mw._http import Request
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.accounting.record import Record

logger = logging.getLogger("ai_proxy_mw")


class OpenTelemetry:
    """What `AIProxy(tracing=)` takes.

    tracer_provider, meter_provider: where spans and metrics go; None is the global ones, also when
        they are set later.
    providers: what the conventions call the provider behind an upstream, by the upstream's name,
        such as `{"default": "azure.ai.openai"}`. An upstream that has such a name needs none.
    subjects: whether spans say who has called.
    from_headers: whether a caller's `traceparent` is taken where the host has no span: he can then
        have his calls recorded, and put them into any trace.

    Prompts and answers are never told. `failures` counts what OpenTelemetry could not do, of which
    the first is logged; the call goes on without. Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        providers: Mapping[str, str] = MappingProxyType({}),
        subjects: bool = False,
        from_headers: bool = False,
    ) -> None:
        _check(providers, subjects=subjects, from_headers=from_headers)
        _require("opentelemetry.propagate")
        # These need it to be there.
        from ai_proxy_mw.metrics import otel_spans  # noqa: PLC0415
        from ai_proxy_mw.metrics.otel_meters import Meters  # noqa: PLC0415

        self.failures = 0
        self._spans = otel_spans.Spans(
            tracer_provider,
            providers=dict(providers),
            subjects=subjects,
            from_headers=from_headers,
        )
        self._meters = Meters(meter_provider, providers=dict(providers))
        self._no_span = otel_spans.NO_SPAN
        self._lines_of = otel_spans.lines_of
        self._context_of = otel_spans.context_of

    def begin(self, request: Request) -> Traced:
        """A span in the trace that is current where the call came in."""
        now = time.time_ns()
        try:
            span = self._spans.begin(request, now)
        except Exception as error:  # noqa: BLE001 - whatever the host's SDK raises: the call goes on
            self._failed(error)
            span = self._no_span
        return Traced(self, span, now)

    def lines_of(self, span: Span) -> RawHeaders:
        """See `Traced.headers`."""
        try:
            return self._lines_of(span)
        except Exception as error:  # noqa: BLE001 - see above
            self._failed(error)
            return []

    def end(self, span: Span, record: Record, now: int) -> None:
        """See `Traced.end`. The metrics do not suffer from a fault of the spans."""
        self._meters.learn(record)
        try:
            known = self._meters.knows(record.model)
            self._spans.end(span, record, model_is_known=known, now=now)
        except Exception as error:  # noqa: BLE001 - see above
            self._failed(error)
        try:
            recorded = span.get_span_context().is_valid
            self._meters.count(record, self._context_of(span) if recorded else None)
        except Exception as error:  # noqa: BLE001 - see above
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if self.failures == 1:
            logger.error("OpenTelemetry fails; what follows is only counted", exc_info=error)

    def __repr__(self) -> str:
        return "OpenTelemetry()"


class Traced:
    """One call."""

    __slots__ = ("_owner", "_since", "_span")

    def __init__(self, owner: OpenTelemetry, span: Span, since: int) -> None:
        self._owner = owner
        self._span = span
        self._since = since  # nanoseconds since 1970

    def headers(self) -> RawHeaders:
        """The lines of the global propagator, such as `traceparent`; never the host's baggage."""
        return self._owner.lines_of(self._span)

    def end(self, record: Record) -> None:
        """The call is over, and took as long as the record says."""
        self._owner.end(self._span, record, self._since + int(record.total * 1e9))


def _check(providers: object, **flags: object) -> None:
    if not isinstance(providers, Mapping) or not all(
        isinstance(text, str) and text for pair in providers.items() for text in pair
    ):
        raise ConfigurationError(
            f"OpenTelemetry(providers={providers!r}): write the names of upstreams and providers, "
            "like {'default': 'azure.ai.openai'}"
        )
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ConfigurationError(f"OpenTelemetry({name}={value!r}): write True or False")


def _require(module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError:
        raise ConfigurationError(
            "OpenTelemetry needs its API: pip install 'ai_proxy_mw[opentelemetry]'"
        ) from None
