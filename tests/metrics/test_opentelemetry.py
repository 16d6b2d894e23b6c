"""Spans and metrics of OpenTelemetry, straight through the protocol."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from ai_proxy_mw import ConfigurationError, Record, Request
from ai_proxy_mw.metrics import genai_names as names
from ai_proxy_mw.metrics.base import Span, Tracing
from ai_proxy_mw.metrics.opentelemetry import OpenTelemetry
from ai_proxy_mw.metrics.otel_meters import MOST_ERRORS, MOST_MODELS
from tests.servers import ROOT

CHAT = "POST /chat/completions"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class House:
    """OpenTelemetry, and what it has told."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(sampler=options.pop("sampler", None), shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.otel = OpenTelemetry(
            tracer_provider=self.tracers, meter_provider=self.meters, **options
        )

    def call(self, record: Record, *, headers: Any = ()) -> ReadableSpan:
        self.exporter.clear()
        self.otel.begin(request(headers=headers)).end(record)
        (span,) = self.exporter.get_finished_spans()
        return span

    def points(self, metric: str) -> list[HistogramDataPoint]:
        data = self.reader.get_metrics_data()
        return [
            cast(HistogramDataPoint, point)
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
        ]


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    assert made.otel.failures == 0


def request(
    path: str | None = "/chat/completions", method: str = "POST", headers: Any = ()
) -> Request:
    return Request(
        method=method,
        path=path,
        query=b"",
        headers=list(headers),
        body=cast(Any, None),
        client=None,
        request_id="r1",
        run_sync=cast(Any, None),
    )


def record(**changes: Any) -> Record:
    usual: dict[str, Any] = {
        "time": 1_800_000_000.0,
        "request_id": "r1",
        "endpoint": CHAT,
        "model": "gpt-4.1",
        "model_used": "gpt-4.1-2025-04-14",
        "upstream": "default",
        "attempts": 1,
        "status": 200,
        "input_tokens": 12,
        "output_tokens": 34,
        "measured": True,
        "cost": 150,
        "total": 1.5,
    }
    return Record(**{**usual, **changes})


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_it_is_what_a_proxy_takes() -> None:
    tracing: Tracing = OpenTelemetry()
    span: Span = tracing.begin(request())
    assert span.headers() == []  # nothing is configured
    span.end(record())
    assert repr(tracing) == "OpenTelemetry()"


def test_a_call_is_a_span_of_the_conventions(house: House) -> None:
    span = house.call(record())
    assert span.name == "chat gpt-4.1"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert span.start_time is not None
    assert span.end_time == span.start_time + 1_500_000_000
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4.1",
        "gen_ai.response.model": "gpt-4.1-2025-04-14",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 34,
        "http.response.status_code": 200,
        "ai_proxy.request_id": "r1",
        "ai_proxy.endpoint": CHAT,
        "ai_proxy.outcome": "complete",
        "ai_proxy.upstream": "default",
        "ai_proxy.attempts": 1,
        "ai_proxy.usage.measured": True,
        "ai_proxy.cost_micro_usd": 150,
    }
    scope = span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == ("ai_proxy_mw", names.SCHEMA_URL)


def full() -> Record:
    return record(
        endpoint="POST /images/generations",
        subject="u1",
        stream=True,
        first_byte=0.25,
        cached_input_tokens=3,
        cache_write_tokens=4,
        reasoning_tokens=5,
        outcome="cut",
        error="upstream_disconnected",
        cache="miss",
        saved=7,
    )


def test_what_is_not_of_every_call(house: House) -> None:
    found = attributes(House(subjects=True).call(full()))
    assert found["gen_ai.output.type"] == "image"
    assert found["gen_ai.request.stream"] is True
    assert found["gen_ai.response.time_to_first_chunk"] == 0.25
    assert found["gen_ai.usage.cache_read.input_tokens"] == 3
    assert found["gen_ai.usage.cache_creation.input_tokens"] == 4
    assert found["gen_ai.usage.reasoning.output_tokens"] == 5
    assert found["ai_proxy.subject"] == "u1"
    assert found["ai_proxy.cache"] == "miss"
    assert found["ai_proxy.saved_micro_usd"] == 7
    assert "ai_proxy.subject" not in attributes(house.call(full()))
    assert "ai_proxy.subject" not in attributes(House(subjects=True).call(record()))


def test_a_call_of_which_little_is_known(house: House) -> None:
    empty = Record(
        time=0, request_id="r1", outcome="cancelled", stream=True, cost=None, measured=None
    )
    span = house.call(empty)
    assert span.name == "ai_proxy"
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",  # as samplers were told by its path
        "gen_ai.provider.name": "openai",
        "gen_ai.request.stream": True,
        "ai_proxy.request_id": "r1",
        "ai_proxy.outcome": "cancelled",
        "ai_proxy.attempts": 0,
    }
    other = house.call(record(endpoint="GET /models", model=None, model_used=None))
    assert other.name == "GET /models"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (
            {"outcome": "failed", "status": 429, "error": "rate_limit_exceeded"},
            "rate_limit_exceeded",
        ),
        ({"outcome": "failed", "status": 503}, "503"),
        ({"outcome": "cut"}, "cut"),
        ({"outcome": "stopped", "status": 0}, "stopped"),
        ({"outcome": "refused", "status": 401, "error": "invalid_api_key"}, "invalid_api_key"),
        ({"outcome": "cancelled", "status": 0}, None),
        ({"outcome": "complete"}, None),
    ],
)
def test_errors(house: House, changes: dict[str, Any], error: str | None) -> None:
    span = house.call(record(**changes))
    assert attributes(span).get("error.type") == error
    assert span.status.status_code is (StatusCode.UNSET if error is None else StatusCode.ERROR)
    assert [
        dict(point.attributes or {}).get("error.type") for point in house.points(names.DURATION)
    ] == [error]


@pytest.mark.parametrize(
    ("changes", "provider"),
    [
        ({"upstream": "default"}, "openai"),
        ({"upstream": None}, "openai"),
        ({"upstream": "default", "endpoint": "POST /messages"}, "anthropic"),
        ({"upstream": "deepseek"}, "deepseek"),
        ({"upstream": "eu"}, "azure.ai.openai"),
    ],
)
def test_providers(changes: dict[str, Any], provider: str) -> None:
    house = House(providers={"eu": "azure.ai.openai"})
    assert attributes(house.call(record(**changes)))["gen_ai.provider.name"] == provider
    (point, *_) = house.points(names.DURATION)
    assert dict(point.attributes or {})["gen_ai.provider.name"] == provider


def test_samplers_see_the_operation_from_the_beginning(house: House) -> None:
    seen = []

    class Watch(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            seen.append((span.name, dict(span.attributes)))

    house.tracers.add_span_processor(Watch())
    house.otel.begin(request("/embeddings"))
    house.otel.begin(request("/nowhere"))
    house.otel.begin(request(None))
    assert seen == [
        ("embeddings", {"gen_ai.operation.name": "embeddings"}),
        ("ai_proxy", {}),
        ("ai_proxy", {}),
    ]


@pytest.mark.parametrize(("method", "path"), [("GET", "/_health"), ("OPTIONS", "/embeddings")])
def test_what_is_no_call_is_not_traced(house: House, method: str, path: str) -> None:
    call = house.otel.begin(request(path, method))
    assert call.headers() == []
    call.end(record(endpoint="GET /_health", attempts=0))
    assert house.exporter.get_finished_spans() == ()


# -- the trace ---------------------------------------------------------------------------------


def test_it_joins_the_hosts_trace_and_hands_it_on(house: House) -> None:
    with house.tracers.get_tracer("host").start_as_current_span("host") as host:
        call = house.otel.begin(request())
    ((name, value),) = call.headers()  # also where the host's span is current no more
    call.end(record())
    mine = house.exporter.get_finished_spans()[-1]
    assert mine.parent == host.get_span_context()
    assert mine.context is not None
    assert name == b"traceparent"
    assert value[:-2].decode() == f"00-{mine.context.trace_id:032x}-{mine.context.span_id:016x}-"
    assert int(value[-2:], 16) & 1  # sampled


def test_who_is_not_sampled_says_so_upstream_and_is_counted() -> None:
    house = House(sampler=ALWAYS_OFF)
    call = house.otel.begin(request())
    ((name, value),) = call.headers()
    assert name == b"traceparent"
    assert not int(value[-2:], 16) & 1
    call.end(record())
    assert house.exporter.get_finished_spans() == ()
    assert len(house.points(names.DURATION)) == 1


def test_the_hosts_baggage_stays_at_home(house: House) -> None:
    token = context.attach(baggage.set_baggage("user", "mallory"))
    try:
        sent = house.otel.begin(request()).headers()
    finally:
        context.detach(token)
    assert [name for name, _ in sent] == [b"traceparent"]


CALLERS = [(b"traceparent", PARENT.encode()), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")]


def test_a_callers_trace_is_taken_only_if_the_owner_says_so(house: House) -> None:
    assert house.call(record(), headers=CALLERS).parent is None
    trusting = House(from_headers=True)
    span = trusting.call(record(), headers=[*CALLERS, (b"baggage", b"user=mallory")])
    assert span.parent is not None
    assert span.parent.is_remote
    assert f"{span.parent.trace_id:032x}" == TRACE
    sent = dict(trusting.otel.begin(request(headers=CALLERS)).headers())
    assert sent[b"tracestate"] == b"a=1,b=2"
    assert trusting.call(record(), headers=[(b"traceparent", b"00-0-0-01")]).parent is None


def test_the_hosts_trace_goes_before_the_callers() -> None:
    house = House(from_headers=True)
    with house.tracers.get_tracer("host").start_as_current_span("host") as host:
        house.otel.begin(request(headers=CALLERS)).end(record())
    assert house.exporter.get_finished_spans()[0].parent == host.get_span_context()


def test_what_is_no_header_line_is_not_sent(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def inject(carrier: dict[str, str], _: object) -> None:
        carrier.update({"X-B3": "1", "a b": "1", "x": "1\r\nauthorization: mine", "y": "ü"})

    monkeypatch.setattr("opentelemetry.propagate.inject", inject)
    assert house.otel.begin(request()).headers() == [(b"x-b3", b"1")]


# -- the metrics -------------------------------------------------------------------------------


def told(house: House, metric: str) -> list[tuple[dict[str, Any], float]]:
    return [(dict(point.attributes or {}), point.sum) for point in house.points(metric)]


LABELS = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4.1",
    "gen_ai.response.model": "gpt-4.1-2025-04-14",
}


def test_tokens_and_seconds(house: House) -> None:
    house.call(record())
    house.call(record(stream=True, first_byte=0.5, total=2.5))
    assert told(house, names.TOKEN_USAGE) == [
        ({**LABELS, "gen_ai.token.type": "input"}, 24),
        ({**LABELS, "gen_ai.token.type": "output"}, 68),
    ]
    assert told(house, names.DURATION) == [(LABELS, 4.0)]
    assert told(house, names.TIME_TO_FIRST_CHUNK) == [(LABELS, 0.5)]
    (point,) = house.points(names.DURATION)
    assert list(point.explicit_bounds) == [
        *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
        *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    ]
    assert house.points(names.TOKEN_USAGE)[0].explicit_bounds[-2:] == (16777216, 67108864)


def test_only_what_is_known_is_counted(house: House) -> None:
    house.call(record(measured=False))  # an estimate
    house.call(record(input_tokens=0, output_tokens=0))  # measured in seconds of sound, perhaps
    house.call(record(output_tokens=0, endpoint="POST /embeddings", model=None, model_used=None))
    assert [labels for labels, _ in told(house, names.TOKEN_USAGE)] == [
        {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.token.type": "input",
        }
    ]


def test_only_calls_that_went_upstream_are_counted(house: House) -> None:
    house.call(record(attempts=0, cache="hit", upstream=None))
    house.call(record(attempts=0, outcome="refused", status=429))
    house.call(record(endpoint="GET /files"))
    assert told(house, names.DURATION) == []


def test_a_caller_cannot_make_up_names(house: House) -> None:
    for number in range(300):
        span = house.call(record(model=f"m{number}", model_used=None, status=404, outcome="failed"))
        assert span.name == "chat"
    ((labels, _),) = told(house, names.DURATION)
    assert labels["gen_ai.request.model"] == "_OTHER"


def test_nor_can_an_upstream_that_says_yes_to_all(house: House) -> None:
    assert house.call(record(model="x" * 257, model_used=None)).name == "chat"
    for number in range(3 * MOST_MODELS):
        house.call(record(model=f"m{number}", model_used=f"u{number}"))
        house.call(record(outcome="cut", status=0, error=f"e{number}", model="m1"))
    seen = [labels for labels, _ in told(house, names.DURATION)]
    for name, most in (
        ("gen_ai.request.model", MOST_MODELS),
        ("gen_ai.response.model", MOST_MODELS),
        ("error.type", MOST_ERRORS),
    ):
        values = {labels[name] for labels in seen if name in labels}
        assert len(values) == most + 1, name
        assert "_OTHER" in values


def test_what_cannot_be_exported_is_replaced(house: House) -> None:
    span = house.call(record(model="é\ud800" + "x" * 1000, status=404, outcome="failed"))
    model = attributes(span)["gen_ai.request.model"]
    assert model == "é?" + "x" * 254
    model.encode()


def test_a_point_has_a_span_as_its_example(house: House) -> None:
    span = house.call(record())
    (point,) = house.points(names.DURATION)
    assert span.context is not None
    assert [each.span_id for each in point.exemplars] == [span.context.span_id]


# -- faults ------------------------------------------------------------------------------------


class Broken(Exception):
    pass


def test_a_fault_of_theirs_fails_no_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house = House()

    def broken(*_: object, **__: object) -> Any:
        raise Broken

    whole = house.otel.begin(request())
    with monkeypatch.context() as patch:
        patch.setattr("opentelemetry.propagate.inject", broken)
        assert whole.headers() == []
    for where in ("_spans.begin", "_spans._attributes", "_meters.count"):
        part, method = where.split(".")
        with monkeypatch.context() as patch:
            patch.setattr(getattr(house.otel, part), method, broken)
            house.otel.begin(request()).end(record())
    whole.end(record())
    assert house.otel.failures == 4
    assert [each.levelno for each in caplog.records] == [logging.ERROR]
    assert caplog.records[0].exc_info is not None
    # Each span that was begun has ended, and each call but one is counted.
    assert len(house.exporter.get_finished_spans()) == 3
    assert sum(point.count for point in house.points(names.DURATION)) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"subjects": "no"},
        {"from_headers": 1},
        {"providers": ["openai"]},
        {"providers": {"default": ""}},
        {"providers": {"default": 1}},
    ],
)
def test_wrong_arguments_are_told(options: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"OpenTelemetry\(.*write"):
        OpenTelemetry(**options)


def test_what_to_install_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.propagate", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'ai_proxy_mw\[opentelemetry\]'"):
        OpenTelemetry()


# -- names and docs ----------------------------------------------------------------------------


def test_the_names_are_those_of_the_conventions() -> None:
    incubating = "opentelemetry.semconv._incubating"
    known = pytest.importorskip(f"{incubating}.attributes.gen_ai_attributes")
    metrics = pytest.importorskip(f"{incubating}.metrics.gen_ai_metrics")
    theirs = {
        value
        for value in [*vars(known).values(), *vars(metrics).values()]
        if isinstance(value, str)
    }
    ours = {value for name, value in vars(names).items() if str(value).startswith("gen_ai.")}
    assert len(ours) > 12
    assert ours <= theirs
    assert set(names.OPERATIONS.values()) <= {each.value for each in known.GenAiOperationNameValues}
    assert set(names.OUTPUT_TYPES.values()) <= {each.value for each in known.GenAiOutputTypeValues}
    assert {each.value for each in known.GenAiProviderNameValues} >= names.PROVIDERS


def test_the_docs_know_every_attribute() -> None:
    text = (ROOT / "docs" / "opentelemetry.md").read_text()
    spans, metrics = text.split("## Metrics")
    assert set(re.findall(r"^\| `([a-z_.]+)`", spans, re.MULTILINE)) == set(
        attributes(House(subjects=True).call(full()))
    )
    house = House()
    house.call(full())
    told_of = [names.TOKEN_USAGE, names.DURATION, names.TIME_TO_FIRST_CHUNK]
    table = dict(re.findall(r"^\| `(gen_ai\.client[a-z_.]+)` \| (.*) \|", metrics, re.MULTILINE))
    assert set(table) == set(told_of)
    for name, row in table.items():
        labels = {label for point in house.points(name) for label in point.attributes or {}}
        assert labels == set(re.findall(r"`([a-z_.]+)`", row)), name
    assert names.VERSION in text
    assert str(MOST_MODELS) in text
