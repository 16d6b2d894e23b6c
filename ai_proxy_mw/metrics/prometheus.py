"""Records as counters and histograms for Prometheus, in the app's own registry."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from ai_proxy_mw._endpoints import DEFAULT_ENDPOINTS
from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.accounting.prices import DEFAULT_PRICES

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

    from ai_proxy_mw.accounting.record import Record

OTHER = "other"
"""For what is in no set of known names."""

NONE = "none"
"""For what a call does not have, such as a model."""

MOST_MODELS = 50
MOST_SUBJECTS = 100
_MOST_UPSTREAMS = 100
_MOST_CODES = 100
MOST_SERIES = 2000
"""Sets of labels that a counter has before new ones lose their names; a histogram: a tenth."""

_NAMESPACE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_NAMES = ("endpoint", "model", "upstream", "subject")
_STATUSES = {0: NONE} | {status.value: str(status.value) for status in HTTPStatus}
_MICRO = 1_000_000

# Seconds. A call takes from a hundredth (kept answers) to the ten minutes of `Timeouts.total`.
_DURATIONS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 600)
_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 25, 60)
_OVERHEADS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)


class Family(NamedTuple):
    """One metric: its name without the namespace, what it says, and its labels.

    buckets: for a histogram; a counter has none.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


FAMILIES = (
    Family(
        "requests_total",
        "Calls that somebody waited for.",
        ("endpoint", "model", "upstream", "outcome", "status", "cache"),
    ),
    Family("background_requests_total", "Calls that nobody waited for.", ("model",)),
    Family("errors_total", "Calls that ended with an error, by its code.", ("code",)),
    Family(
        "request_duration_seconds",
        "How long complete calls took.",
        ("model", "cache"),
        _DURATIONS,
    ),
    Family(
        "first_byte_seconds",
        "Time to the first byte of answers that came from an upstream.",
        ("model", "stream"),
        _WAITS,
    ),
    Family(
        "first_content_seconds",
        "Time to the first words of event streams that came from an upstream.",
        ("model",),
        _WAITS,
    ),
    Family(
        "overhead_seconds",
        "What the proxy itself added to each call.",
        ("cache",),
        _OVERHEADS,
    ),
    Family("tokens_total", "Tokens used upstream, in and out.", ("model", "kind")),
    Family(
        "token_parts_total",
        "Tokens that are part of those used upstream, by what they were.",
        ("model", "kind"),
    ),
    Family("images_total", "Pictures made upstream.", ("model",)),
    Family("audio_seconds_total", "Sound that an upstream counts by time.", ("model",)),
    Family("cost_dollars_total", "Cost of calls whose price is known.", ("model",)),
    Family("saved_dollars_total", "Cost of calls that a kept answer has saved.", ("model",)),
    Family("saved_tokens_total", "Tokens that a kept answer has saved.", ("model",)),
    Family(
        "unpriced_requests_total",
        "Calls whose cost or saving is not known for want of a price.",
        ("model",),
    ),
    Family(
        "estimated_requests_total",
        "Calls whose use the provider has not told and we have estimated.",
        ("model",),
    ),
    Family("upstream_attempts_total", "How often calls were sent upstream.", ("model",)),
    Family("retries_total", "How often calls were sent upstream once more.", ("model",)),
    Family("request_bytes_total", "Bytes of the bodies of requests.", ("endpoint",)),
    Family("response_bytes_total", "Bytes of the bodies of answers.", ("endpoint",)),
)
"""What is always counted."""

SUBJECT_FAMILIES = (
    Family("subject_requests_total", "Calls of a subject.", ("subject", "outcome")),
    Family("subject_tokens_total", "Tokens used upstream, in and out.", ("subject", "kind")),
    Family("subject_cost_dollars_total", "Cost of calls whose price is known.", ("subject",)),
)
"""What is counted besides where `subjects` is given."""


class Watched(Protocol):
    """A proxy, as far as its upstreams are watched."""

    def upstream_stats(self) -> Iterable[Any]: ...


class PrometheusMetrics:
    """A hook for `on_record=` that counts calls for Prometheus.

    registry: of `prometheus_client`, where the metrics are shown; its default one if None.
    namespace: what their names begin with. Proxies of one registry and namespace count together.
    models: names and patterns (`gpt-4.1*`, which is then the label); all others are "other". None:
        those that are priced by default, and the first 50 more that an upstream has answered.
    endpoints: those that are told apart, as the proxy's `endpoints=` says them.
    subjects: True counts by subject, too, for the first 100 of them; or the subjects to tell apart.

    Callers choose the models and paths they ask for, and each new label is memory here and in
    Prometheus for good. So no label holds what only a caller has said, and no metric has more than
    a bounded number of series. Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry | None = None,
        namespace: str = "ai_proxy",
        models: Iterable[str] | None = None,
        endpoints: Iterable[str] = DEFAULT_ENDPOINTS,
        subjects: bool | Iterable[str] = False,
    ) -> None:
        library = _library()
        if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
            raise ConfigurationError(f"namespace={namespace!r}: write a word like 'ai_proxy'")
        self._registry = library.REGISTRY if registry is None else registry
        if not isinstance(self._registry, library.CollectorRegistry):
            raise ConfigurationError("registry: write a prometheus_client.CollectorRegistry")
        self._namespace = namespace
        self._endpoints = {name: name for name in _texts("endpoints", endpoints)} | {"": NONE}
        self._models = _Models(None if models is None else _texts("models", models))
        self._upstreams = _Known((), _MOST_UPSTREAMS)
        self._codes = _Known((), _MOST_CODES)
        self._subjects = _subjects(subjects)
        wanted = FAMILIES if self._subjects is None else FAMILIES + SUBJECT_FAMILIES
        self._of = _counted(self._registry, namespace, wanted)

    def __call__(self, record: Record) -> None:
        model = self._models.label(record)
        if record.background:
            self._of["background_requests_total"].child(model).inc()
        else:
            self._count_request(record, model)
        self._count_use(record, model)
        if self._subjects is not None:
            self._count_subject(record, self._subjects)

    def watch(self, proxy: Watched) -> None:
        """Show how the proxy's upstreams stand, whenever the registry is asked.

        Only where one process serves: with PROMETHEUS_MULTIPROC_DIR the metrics of all processes
        are read from files, and what is asked for at that moment cannot be among them.
        Raises ConfigurationError there, and where one is watched in this namespace already.
        """
        if any(name.upper() == "PROMETHEUS_MULTIPROC_DIR" for name in os.environ):
            raise ConfigurationError(
                "watch: Prometheus' multiprocess mode shows no state of upstreams; leave it out "
                "where PROMETHEUS_MULTIPROC_DIR is set"
            )
        try:
            self._registry.register(_Watch(proxy, self._namespace))
        except ValueError:
            raise ConfigurationError(
                f"watch: names like {self._namespace}_upstream_in_flight are taken; give each "
                "watched proxy a namespace= of its own"
            ) from None

    def _count_request(self, record: Record, model: str) -> None:
        of, cache = self._of, record.cache or NONE
        endpoint = self._endpoints.get(record.endpoint, OTHER)
        upstream = NONE if record.upstream is None else self._upstreams.label(record.upstream)
        status = _STATUSES.get(record.status, OTHER)
        labels = (endpoint, model, upstream, record.outcome, status, cache)
        of["requests_total"].child(*labels).inc()
        of["overhead_seconds"].child(cache).observe(max(0.0, record.overhead))
        if record.outcome == "complete":
            of["request_duration_seconds"].child(model, cache).observe(max(0.0, record.total))
        if record.error is not None:
            of["errors_total"].child(self._codes.label(record.error)).inc()
        if record.status < 400 and cache not in _SERVED_BY_CACHE:
            self._time_answer(record, model)
        _add(of["request_bytes_total"], record.bytes_in, endpoint)
        _add(of["response_bytes_total"], record.bytes_out, endpoint)

    def _time_answer(self, record: Record, model: str) -> None:
        if record.upstream is not None and record.first_byte is not None:
            stream = "yes" if record.stream else "no"
            self._of["first_byte_seconds"].child(model, stream).observe(max(0.0, record.first_byte))
        if record.upstream is not None and record.stream and record.first_content is not None:
            self._of["first_content_seconds"].child(model).observe(max(0.0, record.first_content))

    def _count_use(self, record: Record, model: str) -> None:
        of = self._of
        if record.attempts:
            _add(of["upstream_attempts_total"], record.attempts, model)
            _add(of["retries_total"], record.attempts - 1, model)
        if record.measured is not None:
            _count_tokens(record, model, of)
            _add(of["images_total"], record.images, model)
            _add(of["audio_seconds_total"], record.seconds, model)
            _add(of["estimated_requests_total"], not record.measured, model)
        _add(of["cost_dollars_total"], (record.cost or 0) / _MICRO, model)
        _add(of["saved_dollars_total"], (record.saved or 0) / _MICRO, model)
        _add(of["saved_tokens_total"], record.saved_tokens, model)
        _add(of["unpriced_requests_total"], record.cost is None or record.saved is None, model)

    def _count_subject(self, record: Record, subjects: _Known) -> None:
        of, subject = self._of, subjects.label(record.subject) if record.subject else NONE
        if not record.background:
            of["subject_requests_total"].child(subject, record.outcome).inc()
        _add(of["subject_tokens_total"], record.input_tokens, subject, "input")
        _add(of["subject_tokens_total"], record.output_tokens, subject, "output")
        _add(of["subject_cost_dollars_total"], (record.cost or 0) / _MICRO, subject)


_SERVED_BY_CACHE = ("hit", "stale", "collapsed")


def _count_tokens(record: Record, model: str, of: dict[str, _Counted]) -> None:
    whole, parts = of["tokens_total"], of["token_parts_total"]
    _add(whole, record.input_tokens, model, "input")
    _add(whole, record.output_tokens, model, "output")
    _add(parts, record.cached_input_tokens, model, "cached_input")
    _add(parts, record.cache_write_tokens, model, "cache_write")
    _add(parts, record.reasoning_tokens, model, "reasoning")
    _add(parts, record.audio_tokens, model, "audio")
    _add(parts, record.image_tokens, model, "image")


def _add(counted: _Counted, amount: float, *labels: str) -> None:
    if amount > 0:  # a counter takes nothing below, and nothing is not worth a series
        counted.child(*labels).inc(amount)


class _Known:
    """Labels for names: those that are known, the first `most` others, then "other"."""

    def __init__(self, names: Iterable[str], most: int) -> None:
        self._labels = {name: name for name in names}
        self._most = len(self._labels) + most

    def label(self, name: str, *, may_be_new: bool = True) -> str:
        found = self._labels.get(name)
        if found is not None:
            return found
        # Threads that come here together may each add one more; there are few of them.
        if may_be_new and len(self._labels) < self._most and _is_label(name):
            return self._labels.setdefault(name, name)
        return OTHER


class _Models:
    """Labels for models: as the owner has listed them, else as they prove to be there."""

    def __init__(self, listed: tuple[str, ...] | None) -> None:
        self._found = _Known(DEFAULT_PRICES, MOST_MODELS) if listed is None else None
        self._listed = listed or ()
        # Patterns cost some µs each, and callers choose what they are held against.
        self._label_listed = lru_cache(maxsize=1024)(self._look_up)

    def label(self, record: Record) -> str:
        model = record.model
        if not model:
            return NONE
        if self._found is None:
            return self._label_listed(model[:101])  # no listed name is longer
        return self._found.label(model, may_be_new=_is_answered(record))

    def _look_up(self, model: str) -> str:
        if model in self._listed:
            return model
        return max(
            (name for name in self._listed if fnmatchcase(model, name)), key=len, default=OTHER
        )


def _is_answered(record: Record) -> bool:
    """Whether there is such a model: a name that was refused or has failed proves nothing."""
    return (
        record.outcome == "complete"
        and 200 <= record.status < 300
        and (record.upstream is not None or record.cache in _SERVED_BY_CACHE)
    )


class _Counted:
    """A metric with what it has for each set of labels: the library takes 2 µs to find it."""

    def __init__(self, metric: Any, family: Family) -> None:
        self.metric = metric
        self._children: dict[tuple[str, ...], Any] = {}
        self._most = MOST_SERIES // 10 if family.buckets else MOST_SERIES
        self._is_name = [label in _NAMES for label in family.labels]

    def child(self, *labels: str) -> Any:
        return self._children.get(labels) or self._make(labels)

    def _make(self, labels: tuple[str, ...]) -> Any:
        if len(self._children) >= self._most:
            pairs = zip(labels, self._is_name, strict=True)
            labels = tuple(OTHER if is_name else label for label, is_name in pairs)
            if labels in self._children:
                return self._children[labels]
        return self._children.setdefault(labels, self.metric.labels(*labels))


_COUNTED: WeakKeyDictionary[CollectorRegistry, dict[str, _Counted]] = WeakKeyDictionary()
"""What each registry has, by full name: it takes each name but once."""


def _counted(
    registry: CollectorRegistry, namespace: str, families: Iterable[Family]
) -> dict[str, _Counted]:
    """The metrics, by their names without the namespace; made where they are not there yet."""
    there = _COUNTED.setdefault(registry, {})
    made: dict[str, _Counted] = {}
    try:
        for family in families:
            name = f"{namespace}_{family.name}"
            if name in there:
                _show_again(registry, there[name])
            else:
                made[name] = _Counted(_metric(registry, name, family), family)
    except ValueError:
        for counted in made.values():
            registry.unregister(counted.metric)
        raise ConfigurationError(
            f"{name} is in the registry already, of somebody else's; give PrometheusMetrics a "
            "namespace= or a registry= of its own"
        ) from None
    there.update(made)
    return {family.name: there[f"{namespace}_{family.name}"] for family in families}


def _show_again(registry: CollectorRegistry, counted: _Counted) -> None:
    """What the host has taken out: some empty their registry for each test, or each reload."""
    with suppress(ValueError):  # it is there
        registry.register(counted.metric)


def _metric(registry: CollectorRegistry, name: str, family: Family) -> Any:
    from prometheus_client import Counter, Histogram  # noqa: PLC0415 - an extra

    if not family.buckets:
        return Counter(name, family.help, family.labels, registry=registry)
    return Histogram(name, family.help, family.labels, registry=registry, buckets=family.buckets)


_STATES = ("closed", "open", "half_open", "cooling")


class _Watch:
    """How upstreams stand when somebody asks."""

    def __init__(self, proxy: Watched, namespace: str) -> None:
        self._proxy = proxy
        self._name = f"{namespace}_upstream"

    def describe(self) -> Iterator[Metric]:
        """The names without the values, which need not be asked for."""
        return iter(self._families())

    def collect(self) -> Iterator[Metric]:
        in_flight, state, opened = families = self._families()
        for stats in self._proxy.upstream_stats():
            in_flight.add_metric([stats.name], stats.in_flight)
            opened.add_metric([stats.name], stats.opened)
            for each in _STATES:
                state.add_metric([stats.name, each], float(each == stats.state))
        return iter(families)

    def _families(self) -> tuple[Any, Any, Any]:
        from prometheus_client.core import (  # noqa: PLC0415 - an extra
            CounterMetricFamily,
            GaugeMetricFamily,
        )

        name, labels = self._name, ["upstream"]
        return (
            GaugeMetricFamily(f"{name}_in_flight", "Calls that have not ended.", labels=labels),
            GaugeMetricFamily(
                f"{name}_circuit_state",
                "1 for the state that the circuit is in.",
                labels=["upstream", "state"],
            ),
            CounterMetricFamily(
                f"{name}_circuit_opened", "How often the circuit has opened.", labels=labels
            ),
        )


def _subjects(given: bool | Iterable[str]) -> _Known | None:
    if isinstance(given, bool):
        return _Known((), MOST_SUBJECTS) if given else None
    return _Known(_texts("subjects", given), 0)


def _texts(argument: str, given: Iterable[str]) -> tuple[str, ...]:
    texts = (given,) if isinstance(given, str) else tuple(given)
    if isinstance(given, str) or not all(_is_label(text) for text in texts):
        raise ConfigurationError(
            f"{argument}: write a list of names, each printable and of up to 100 characters"
        )
    return texts


def _is_label(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= 100 and text.isprintable()


def _library() -> Any:
    try:
        import prometheus_client  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            "PrometheusMetrics needs prometheus-client: pip install 'ai_proxy_mw[prometheus]'"
        ) from None
    return prometheus_client
