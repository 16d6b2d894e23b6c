"""The metrics of calls. Imported only where OpenTelemetry is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

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
        # Most calls are like one before; making these anew costs more than all the rest here.
        self._labels = lru_cache(maxsize=1024)(_labels)
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
        model, used = record.model, record.model_used
        labels = self._labels(
            operation,
            names.provider_of(record, self._providers),
            None if model is None else self._asked.told(model),
            None if used is None else self._used.told(used),
        )
        if record.measured:
            if record.input_tokens:
                self._tokens.record(record.input_tokens, labels.read, context)
            if record.output_tokens:
                self._tokens.record(record.output_tokens, labels.written, context)
        if record.stream and record.first_byte is not None:
            self._first_chunk.record(record.first_byte, labels.all, context)
        error = names.error_of(record)
        if error is None:
            self._duration.record(record.total, labels.all, context)
        else:
            self._errors.learn(error)
            told = {**labels.all, names.ERROR_TYPE: self._errors.told(error)}
            self._duration.record(record.total, told, context)


class _Labels(NamedTuple):
    """all: of any measure. read, written: of tokens."""

    all: dict[str, str]
    read: dict[str, str]
    written: dict[str, str]


def _labels(operation: str, provider: str, model: str | None, used: str | None) -> _Labels:
    labels = {names.OPERATION: operation, names.PROVIDER: provider}
    if model is not None:
        labels[names.REQUEST_MODEL] = model
    if used is not None:
        labels[names.RESPONSE_MODEL] = used
    return _Labels(
        labels, {**labels, names.TOKEN_TYPE: "input"}, {**labels, names.TOKEN_TYPE: "output"}
    )


def _seconds(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, "s", description, explicit_bucket_boundaries_advisory=names.SECONDS_BOUNDARIES
    )
