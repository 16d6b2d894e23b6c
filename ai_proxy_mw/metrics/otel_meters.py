"""The metrics of calls. Imported only where OpenTelemetry is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry import metrics

from ai_proxy_mw import __version__
from ai_proxy_mw.metrics import genai_names as names
from ai_proxy_mw.metrics.known_names import KnownNames

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram, Meter, MeterProvider

    from ai_proxy_mw.accounting.record import Record

MOST_MODELS = 100
MOST_ERRORS = 50


class Meters:
    """Counts the calls that went upstream, under names of which there are only so many."""

    def __init__(self, provider: MeterProvider | None, *, providers: Mapping[str, str]) -> None:
        meter = metrics.get_meter("ai_proxy_mw", __version__, provider, names.SCHEMA_URL)
        self._providers = providers
        self._asked = KnownNames(MOST_MODELS)
        self._used = KnownNames(MOST_MODELS)
        self._errors = KnownNames(MOST_ERRORS)
        self._tokens = meter.create_histogram(
            names.TOKEN_USAGE,
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=names.TOKEN_BOUNDARIES,
        )
        self._duration = _seconds(meter, names.DURATION, "GenAI operation duration.")
        self._first_chunk = _seconds(
            meter, names.TIME_TO_FIRST_CHUNK, "Time until the first chunk was received."
        )

    def learn(self, record: Record) -> None:
        """Take the names of an answer that an upstream has given; anybody can ask for more."""
        if 0 < record.status < 400:
            self._asked.learn(record.model)
            self._used.learn(record.model_used)

    def knows(self, model: str | None) -> bool:
        return model is not None and model in self._asked

    def count(self, record: Record, context: Context | None) -> None:
        """`context` has the span that may stand as an example."""
        operation = names.OPERATIONS.get(record.endpoint)
        if operation is None or not record.attempts:
            return
        labels = self._labels(record, operation)
        if record.measured:
            self._count_tokens(record, labels, context)
        if record.stream and record.first_byte is not None:
            self._first_chunk.record(record.first_byte, labels, context)
        error = names.error_of(record)
        if error is not None:
            self._errors.learn(error)
            labels = {**labels, names.ERROR_TYPE: self._errors.told(error)}
        self._duration.record(record.total, labels, context)

    def _labels(self, record: Record, operation: str) -> dict[str, str]:
        labels = {
            names.OPERATION: operation,
            names.PROVIDER: names.provider_of(record, self._providers),
        }
        if record.model is not None:
            labels[names.REQUEST_MODEL] = self._asked.told(record.model)
        if record.model_used is not None:
            labels[names.RESPONSE_MODEL] = self._used.told(record.model_used)
        return labels

    def _count_tokens(
        self, record: Record, labels: dict[str, str], context: Context | None
    ) -> None:
        for kind, tokens in (("input", record.input_tokens), ("output", record.output_tokens)):
            if tokens:
                self._tokens.record(tokens, {**labels, names.TOKEN_TYPE: kind}, context)


def _seconds(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, "s", description, explicit_bucket_boundaries_advisory=names.SECONDS_BOUNDARIES
    )
