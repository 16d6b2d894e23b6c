"""Records as Prometheus metrics: what is counted, under which labels, and how many of them."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.accounting.record import Record
from ai_proxy_mw.metrics import prometheus
from ai_proxy_mw.metrics.prometheus import PrometheusMetrics
from ai_proxy_mw.routing.standing import UpstreamStats
from tests.servers import ROOT

CHAT = "POST /chat/completions"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def record(**fields: Any) -> Record:
    """A call that an upstream has answered, unless the fields say something else."""
    answered = {
        "endpoint": CHAT,
        "model": "gpt-4.1",
        "upstream": "openai",
        "attempts": 1,
        "status": 200,
        "measured": True,
        "input_tokens": 100,
        "output_tokens": 20,
        "cost": 960,
        "bytes_in": 1500,
        "bytes_out": 900,
        "first_byte": 0.3,
        "total": 1.25,
        "overhead": 0.0004,
    }
    return Record(time=1.0, request_id="r", **{**answered, **fields})


def refused(**fields: Any) -> Record:
    nothing = {"outcome": "refused", "status": 400, "upstream": None, "attempts": 0}
    used = {"measured": None, "input_tokens": 0, "output_tokens": 0, "cost": 0}
    return record(**{**nothing, **used, "first_byte": None, **fields})


def total(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """The sum of a sample over the labels that are not given."""
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"ai_proxy_{name}" and labels.items() <= sample.labels.items()
    )


def labels_of(registry: CollectorRegistry, label: str) -> set[str]:
    return {
        sample.labels[label]
        for family in registry.collect()
        for sample in family.samples
        if label in sample.labels
    }


def series(registry: CollectorRegistry) -> int:
    return sum(len(family.samples) for family in registry.collect())


def test_a_call_is_counted_by_what_it_was(registry: CollectorRegistry) -> None:
    PrometheusMetrics(registry=registry)(record(cache="miss"))
    assert registry.get_sample_value(
        "ai_proxy_requests_total",
        {
            "endpoint": CHAT,
            "model": "gpt-4.1",
            "upstream": "openai",
            "outcome": "complete",
            "status": "200",
            "cache": "miss",
        },
    )
    assert total(registry, "request_duration_seconds_sum", cache="miss") == 1.25
    assert total(registry, "first_byte_seconds_sum", stream="no") == 0.3
    assert total(registry, "overhead_seconds_sum") == 0.0004
    assert total(registry, "tokens_total", kind="input") == 100
    assert total(registry, "tokens_total", kind="output") == 20
    assert total(registry, "cost_dollars_total") == 0.00096
    assert total(registry, "request_bytes_total", endpoint=CHAT) == 1500
    assert total(registry, "response_bytes_total", endpoint=CHAT) == 900
    assert total(registry, "upstream_attempts_total") == 1
    assert total(registry, "retries_total") == 0


def test_what_is_missing_is_none(registry: CollectorRegistry) -> None:
    PrometheusMetrics(registry=registry)(
        refused(endpoint="", model=None, status=0, outcome="cancelled")
    )
    for label in ("endpoint", "model", "upstream", "status", "cache"):
        assert total(registry, "requests_total", **{label: "none"}) == 1, label


def test_a_stream_is_timed_to_its_first_words(registry: CollectorRegistry) -> None:
    hook = PrometheusMetrics(registry=registry)
    hook(record(stream=True, first_content=0.5))
    hook(record(stream=True, first_content=None))
    hook(record(first_content=0.5))
    assert total(registry, "first_content_seconds_count") == 1
    assert total(registry, "first_byte_seconds_count", stream="yes") == 2
    assert total(registry, "first_byte_seconds_count", stream="no") == 1


def test_only_answers_of_an_upstream_are_timed(registry: CollectorRegistry) -> None:
    hook = PrometheusMetrics(registry=registry)
    for cache in ("hit", "stale", "collapsed"):
        hook(record(cache=cache, stream=True, first_content=0.1))
    hook(record(upstream=None, stream=True, first_content=0.1))
    hook(record(outcome="failed", status=502, stream=True, first_content=0.1))
    hook(record(first_byte=None))
    assert total(registry, "first_byte_seconds_count") == 0
    assert total(registry, "first_content_seconds_count") == 0
    assert total(registry, "request_duration_seconds_count") == 5
    assert total(registry, "overhead_seconds_count") == 6


def test_errors_are_counted_by_code(registry: CollectorRegistry) -> None:
    hook = PrometheusMetrics(registry=registry)
    for _ in range(2):
        hook(refused(status=429, error="rate_limit_exceeded"))
    for number in range(1000):
        hook(refused(error=f"code-{number}"))
    assert total(registry, "errors_total", code="rate_limit_exceeded") == 2
    assert len(labels_of(registry, "code")) == 101
    assert total(registry, "errors_total") == 1002


def test_a_call_that_nobody_waited_for_costs_but_is_none_of_the_calls(
    registry: CollectorRegistry,
) -> None:
    PrometheusMetrics(registry=registry, subjects=True)(record(background=True, subject="u"))
    assert total(registry, "background_requests_total", model="gpt-4.1") == 1
    assert total(registry, "cost_dollars_total") == 0.00096
    assert total(registry, "subject_cost_dollars_total", subject="u") == 0.00096
    for name in ("requests_total", "overhead_seconds_count", "subject_requests_total"):
        assert total(registry, name) == 0, name


def test_what_is_not_priced_is_counted_and_costs_nothing(registry: CollectorRegistry) -> None:
    hook = PrometheusMetrics(registry=registry)
    hook(record(cost=None))
    hook(record(saved=None, cost=0, cache="hit"))
    hook(record())
    assert total(registry, "unpriced_requests_total") == 2
    assert total(registry, "cost_dollars_total") == 0.00096
    assert total(registry, "saved_dollars_total") == 0


def test_values_are_the_sums_over_the_records(registry: CollectorRegistry) -> None:
    luck = random.Random(8)
    records = [
        record(
            model=luck.choice(["gpt-4.1", "gpt-4.1-turbo"]),
            attempts=luck.randrange(4),
            measured=luck.choice([True, False]),
            input_tokens=luck.randrange(1000),
            cached_input_tokens=luck.randrange(100),
            cache_write_tokens=luck.randrange(100),
            output_tokens=luck.randrange(1000),
            reasoning_tokens=luck.randrange(100),
            audio_tokens=luck.randrange(100),
            image_tokens=luck.randrange(100),
            images=luck.randrange(3),
            seconds=luck.randrange(60) / 4,
            cost=luck.randrange(10**6),
            saved=luck.randrange(10**6),
            saved_tokens=luck.randrange(1000),
            bytes_in=luck.randrange(10**5),
            bytes_out=luck.randrange(10**5),
            total=luck.random(),
        )
        for _ in range(500)
    ]
    hook = PrometheusMetrics(registry=registry)
    for each in records:
        hook(each)

    def summed(field: str) -> float:
        return sum(float(getattr(each, field)) for each in records)

    assert total(registry, "requests_total") == 500
    for kind in ("input", "output"):
        assert total(registry, "tokens_total", kind=kind) == summed(f"{kind}_tokens")
    for kind in ("cached_input", "cache_write", "reasoning", "audio", "image"):
        assert total(registry, "token_parts_total", kind=kind) == summed(f"{kind}_tokens")
    assert total(registry, "images_total") == summed("images")
    assert total(registry, "audio_seconds_total") == summed("seconds")
    assert total(registry, "saved_tokens_total") == summed("saved_tokens")
    assert total(registry, "request_bytes_total") == summed("bytes_in")
    assert total(registry, "response_bytes_total") == summed("bytes_out")
    assert total(registry, "upstream_attempts_total") == summed("attempts")
    assert total(registry, "retries_total") == sum(max(0, r.attempts - 1) for r in records)
    assert total(registry, "estimated_requests_total") == sum(not r.measured for r in records)
    # Dollars in binary: exact to less than a micro-dollar.
    assert total(registry, "cost_dollars_total") * 1e6 == pytest.approx(summed("cost"), abs=0.5)
    assert total(registry, "saved_dollars_total") * 1e6 == pytest.approx(summed("saved"), abs=0.5)
    assert total(registry, "request_duration_seconds_sum") == pytest.approx(summed("total"))
    turbo = sum(each.cost or 0 for each in records if each.model == "gpt-4.1-turbo")
    in_dollars = total(registry, "cost_dollars_total", model="gpt-4.1-turbo")
    assert in_dollars * 1e6 == pytest.approx(turbo, abs=0.5)


class TestCardinality:
    def test_an_attack_mints_nothing(self, registry: CollectorRegistry) -> None:
        luck = random.Random(1)
        hook = PrometheusMetrics(registry=registry)
        for number in range(10_000):
            hook(
                refused(
                    model=f"evil-{number}",
                    endpoint=f"POST /{number}",
                    upstream=f"up-{number}",
                    status=luck.randrange(1000),
                    outcome=luck.choice(["refused", "failed", "cut", "cancelled", "stopped"]),
                )
            )
        assert labels_of(registry, "model") == {"other"}
        assert labels_of(registry, "endpoint") == {"other"}
        assert len(labels_of(registry, "upstream")) == 101
        assert len(labels_of(registry, "status")) < 70
        # With the time of its making that the library adds to each, and what is left of outcome
        # and status when names are gone.
        assert series(registry) < 2 * (prometheus.MOST_SERIES + 70 * 5) + 1000
        assert total(registry, "requests_total") == 10_000

    def test_models_that_are_there_are_found_up_to_a_number(
        self, registry: CollectorRegistry
    ) -> None:
        hook = PrometheusMetrics(registry=registry)
        for number in range(200):
            hook(record(model=f"real-{number}"))
        hook(record(model="claude-sonnet-4"))
        found = labels_of(registry, "model")
        assert len(found) == prometheus.MOST_MODELS + 2
        assert {"real-0", "real-49", "other", "claude-sonnet-4"} <= found
        assert total(registry, "requests_total", model="other") == 150
        hook(refused(model="real-3"))
        assert total(registry, "requests_total", model="real-3") == 2

    @pytest.mark.parametrize(
        ("fields", "label"),
        [
            ({}, "new"),
            ({"cache": "hit", "upstream": None}, "new"),
            ({"upstream": None}, "other"),
            ({"status": 404}, "other"),
            ({"status": 0}, "other"),
            ({"outcome": "cut"}, "other"),
            ({"outcome": "cancelled"}, "other"),
        ],
    )
    def test_only_an_answer_proves_that_a_model_is_there(
        self, fields: dict[str, Any], label: str, registry: CollectorRegistry
    ) -> None:
        PrometheusMetrics(registry=registry)(record(model="new", **fields))
        assert labels_of(registry, "model") == {label}

    @pytest.mark.parametrize("name", ["a\nb", "a\x00", "\ud800", "x" * 101, "\u202egpt"])
    def test_names_that_are_no_labels_are_other(
        self, name: str, registry: CollectorRegistry
    ) -> None:
        PrometheusMetrics(registry=registry, subjects=True)(
            record(model=name, upstream=name, endpoint=name, error=name, subject=name)
        )
        for label in ("model", "upstream", "endpoint", "code", "subject"):
            assert labels_of(registry, label) == {"other"}
        assert list(parse(generate_latest(registry).decode()))

    def test_names_with_quotes_stay_whole(self, registry: CollectorRegistry) -> None:
        name = 'a"} 1 # \\ Zoë'
        PrometheusMetrics(registry=registry)(record(model=name))
        shown = parse(generate_latest(registry).decode())
        models = {each.labels.get("model") for family in shown for each in family.samples}
        assert models - {None} == {name}

    @pytest.mark.parametrize(
        ("asked", "label"),
        [
            ("gpt-4.1", "gpt-4.1"),
            ("gpt-4.1-mini", "gpt-4.1-*"),
            ("gpt-5", "gpt-*"),
            ("claude-sonnet-4", "other"),
            ("gpt-" + "x" * 10_000, "gpt-*"),
        ],
    )
    def test_listed_models_are_the_labels(
        self, asked: str, label: str, registry: CollectorRegistry
    ) -> None:
        hook = PrometheusMetrics(registry=registry, models=["gpt-*", "gpt-4.1-*", "gpt-4.1"])
        hook(record(model=asked))
        assert labels_of(registry, "model") == {label}

    def test_an_empty_list_tells_no_models_apart(self, registry: CollectorRegistry) -> None:
        PrometheusMetrics(registry=registry, models=[])(record())
        assert labels_of(registry, "model") == {"other"}

    def test_the_proxys_own_endpoints(self, registry: CollectorRegistry) -> None:
        hook = PrometheusMetrics(registry=registry, endpoints={"POST /rerank"})
        hook(record(endpoint="POST /rerank"))
        hook(record())
        assert labels_of(registry, "endpoint") == {"POST /rerank", "other"}

    def test_a_full_metric_takes_no_new_names(
        self, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prometheus, "MOST_SERIES", 20)
        hook = PrometheusMetrics(registry=registry)
        for number in range(40):
            hook(record(model=f"m-{number}"))
            hook(record(model=f"m-{number}", outcome="failed", status=500))
        assert total(registry, "requests_total") == 80
        assert total(registry, "requests_total", model="m-0", status="500") == 1
        assert total(registry, "requests_total", model="m-30") == 0
        kept = {"endpoint": "other", "upstream": "other", "status": "500", "outcome": "failed"}
        assert total(registry, "requests_total", model="other", **kept) == 30
        assert total(registry, "request_duration_seconds_count", model="m-1") == 1
        assert total(registry, "request_duration_seconds_count", model="other") == 38

    def test_subjects_only_where_they_are_asked_for(self, registry: CollectorRegistry) -> None:
        PrometheusMetrics(registry=registry)(record(subject="ann@example.com"))
        assert b"ann" not in generate_latest(registry)
        assert b"subject" not in generate_latest(registry)

    def test_the_first_subjects(self, registry: CollectorRegistry) -> None:
        hook = PrometheusMetrics(registry=registry, subjects=True)
        hook(record(subject=""))
        for number in range(500):
            hook(record(subject=f"user {number}"))
        assert len(labels_of(registry, "subject")) == prometheus.MOST_SUBJECTS + 2
        assert total(registry, "subject_requests_total", subject="none", outcome="complete") == 1
        assert total(registry, "subject_tokens_total", subject="other", kind="input") == 40_000
        assert total(registry, "subject_tokens_total", kind="output") == 501 * 20

    def test_subjects_by_name(self, registry: CollectorRegistry) -> None:
        hook = PrometheusMetrics(registry=registry, subjects=["team-a"])
        hook(record(subject="team-a"))
        hook(record(subject="team-b"))
        assert labels_of(registry, "subject") == {"team-a", "other"}


def filled(registry: CollectorRegistry) -> None:
    """Every family has samples."""
    hook = PrometheusMetrics(registry=registry, subjects=True)
    hook(record(subject="u", stream=True, first_content=0.4, attempts=2, error="x", saved=5))
    hook(record(background=True, measured=False, images=1, seconds=2.0, cost=None))
    hook(record(cached_input_tokens=5, saved_tokens=7))
    hook.watch(Watched())


class Watched:
    def upstream_stats(self) -> Iterator[UpstreamStats]:
        yield UpstreamStats(
            name="openai", state="open", calls=9, failures=8, opened=3, in_flight=2, wait=1.0
        )


class TestText:
    def test_it_parses_strictly(self, registry: CollectorRegistry) -> None:
        filled(registry)
        plain = list(parse(generate_latest(registry).decode()))
        text = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        strict = list(parse_openmetrics(text.decode()))  # type: ignore[no-untyped-call]
        wanted = {each.name.removesuffix("_total") for each in prometheus.FAMILIES}
        wanted |= {each.name.removesuffix("_total") for each in prometheus.SUBJECT_FAMILIES}
        wanted |= {
            "upstream_in_flight",
            "upstream_circuit_state",
            "upstream_circuit_opened",
        }
        assert {each.name for each in strict} == {f"ai_proxy_{name}" for name in wanted}
        assert all(each.samples for each in [*plain, *strict])

    def test_names_follow_the_conventions(self, registry: CollectorRegistry) -> None:
        filled(registry)
        for family in registry.collect():
            samples = {each.name for each in family.samples}
            assert family.documentation.endswith(".")
            assert "_ms" not in family.name
            assert family.name.islower()
            if family.type == "counter":
                assert samples <= {f"{family.name}_total", f"{family.name}_created"}
            else:
                assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_info"))
            if family.type == "histogram":
                assert family.name.endswith("_seconds")

    def test_the_page_has_each_and_no_others(self) -> None:
        page = (ROOT / "docs" / "prometheus.md").read_text()
        rows = re.findall(
            r"^\| `ai_proxy_(\w+)` \| (counter|histogram) \| (.*?) \|", page, re.MULTILINE
        )
        ours = [*prometheus.FAMILIES, *prometheus.SUBJECT_FAMILIES]
        assert rows == [
            (
                each.name,
                "histogram" if each.buckets else "counter",
                ", ".join(f"`{label}`" for label in each.labels),
            )
            for each in ours
        ]

    def test_buckets_ascend_and_reach_the_longest_call(self) -> None:
        for family in prometheus.FAMILIES:
            assert list(family.buckets) == sorted(set(family.buckets))
            assert len(family.buckets) <= 15


class TestRegistry:
    def test_the_apps_own_is_the_default(self) -> None:
        hook = PrometheusMetrics(namespace="in_the_apps_own")
        hook(record())
        assert b"in_the_apps_own_requests_total{" in generate_latest(REGISTRY)

    def test_proxies_of_one_registry_count_together(self, registry: CollectorRegistry) -> None:
        PrometheusMetrics(registry=registry)(record())
        PrometheusMetrics(registry=registry, subjects=True)(record(subject="u"))
        PrometheusMetrics(registry=registry)(record())
        assert total(registry, "requests_total") == 3
        assert total(registry, "subject_requests_total") == 1

    def test_or_apart_by_namespace(self, registry: CollectorRegistry) -> None:
        PrometheusMetrics(registry=registry)(record())
        PrometheusMetrics(registry=registry, namespace="chat_ai")(record())
        assert total(registry, "requests_total") == 1
        assert b"chat_ai_requests_total{" in generate_latest(registry)

    def test_a_registry_that_was_emptied_is_filled_again(self, registry: CollectorRegistry) -> None:
        mine = Counter("mine", "The host's own.", registry=registry)
        PrometheusMetrics(registry=registry)(record())
        for collector in {*registry._collector_to_names} - {mine}:
            registry.unregister(collector)
        PrometheusMetrics(registry=registry)(record(model="new"))
        assert total(registry, "requests_total", model="new") == 1

    def test_a_name_that_is_taken(self, registry: CollectorRegistry) -> None:
        Counter("ai_proxy_errors_total", "Somebody else's.", registry=registry)
        with pytest.raises(ConfigurationError, match="namespace="):
            PrometheusMetrics(registry=registry)
        names = {family.name for family in registry.collect()}
        assert names == {"ai_proxy_errors"}  # nothing of ours is left

    @pytest.mark.parametrize(
        ("options", "wrong"),
        [
            ({"namespace": "a-b"}, "namespace='a-b'"),
            ({"namespace": 1}, "namespace=1"),
            ({"registry": object()}, "registry: write"),
            ({"models": "gpt-4.1"}, "models: write a list"),
            ({"models": ["a\n"]}, "models: write a list"),
            ({"models": [""]}, "models: write a list"),
            ({"endpoints": [1]}, "endpoints: write a list"),
            ({"subjects": "ann"}, "subjects: write a list"),
        ],
    )
    def test_wrong_arguments(self, options: dict[str, Any], wrong: str) -> None:
        with pytest.raises(ConfigurationError, match=wrong):
            PrometheusMetrics(**{"registry": CollectorRegistry(), **options})

    def test_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        with pytest.raises(ConfigurationError, match=r"pip install 'ai_proxy_mw\[prometheus\]'"):
            PrometheusMetrics()

    def test_nothing_is_imported_before_it_is_used(self) -> None:
        code = (
            "import sys, ai_proxy_mw.metrics.prometheus\n"
            "assert not any(name.startswith('prometheus_client') for name in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestWatch:
    def test_it_asks_when_it_is_asked(self, registry: CollectorRegistry) -> None:
        PrometheusMetrics(registry=registry).watch(Watched())
        assert total(registry, "upstream_in_flight", upstream="openai") == 2
        assert total(registry, "upstream_circuit_opened_total") == 3
        assert total(registry, "upstream_circuit_state", state="open") == 1
        assert total(registry, "upstream_circuit_state") == 1

    def test_one_in_each_namespace(self, registry: CollectorRegistry) -> None:
        PrometheusMetrics(registry=registry).watch(Watched())
        PrometheusMetrics(registry=registry, namespace="b").watch(Watched())
        with pytest.raises(ConfigurationError, match="ai_proxy_upstream_in_flight"):
            PrometheusMetrics(registry=registry).watch(Watched())

    def test_not_with_several_processes(
        self, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/somewhere")
        with pytest.raises(ConfigurationError, match="multiprocess"):
            PrometheusMetrics(registry=registry).watch(Watched())
