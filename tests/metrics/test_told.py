"""All that tells of calls at once: what each call is told as, and what is never told."""

from __future__ import annotations

import asyncio
import json
import logging

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ai_proxy_mw import AccessLog, AIProxy, AIProxyMiddleware, MemoryCache, Record, Upstream
from ai_proxy_mw._records import desk_of
from ai_proxy_mw.metrics import genai_names
from ai_proxy_mw.metrics.base import RecordHook
from ai_proxy_mw.metrics.prometheus import PrometheusMetrics
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.dashboard.house import signed_in
from tests.metrics.test_opentelemetry import House
from tests.servers import ROOT

UPSTREAM_KEY = "cnryUP17"
CALLER_KEY = "cnryCA28"
COOKIE = "cnryCO40"
PROMPT = "cnryPR51"
HEADERS = {
    "authorization": f"Bearer {CALLER_KEY}",
    "x-api-key": CALLER_KEY,
    "cookie": f"session={COOKIE}; admin=me",
}


class Told:
    """What a proxy with everything on has told of a few calls."""

    def __init__(self, log: AccessLog) -> None:
        self.house = House(subjects=True, from_headers=True)
        self.registry = CollectorRegistry()
        self.records: list[Record] = []
        self.answers: list[int] = []
        self.seen = ""
        self._log = log

    async def run(self) -> None:
        proxy = AIProxy(
            upstream=Upstream(
                base_url=FAKE_BASE_URL, api_key=UPSTREAM_KEY, transport=FakeUpstream().transport()
            ),
            api_keys={"alice": CALLER_KEY},
            cache=MemoryCache(),
            access_log=self._log,
            on_record=[self.records.append, PrometheusMetrics(registry=self.registry)],
            tracing=self.house.otel,
            dashboard="/ai",
            dashboard_identify=signed_in,
        )
        door = httpx.ASGITransport(AIProxyMiddleware(proxy=proxy))
        async with httpx.AsyncClient(transport=door, base_url="http://app.example") as client:
            for model, stream, headers in (
                ("gpt-4.1", False, HEADERS),
                ("gpt-4.1", False, HEADERS),  # from the cache
                ("gpt-4.1", True, HEADERS),
                ("", False, HEADERS),
                ("gpt-4.1", False, {**HEADERS, "authorization": f"Bearer {CALLER_KEY}x"}),
            ):
                said = [{"role": "user", "content": PROMPT}]
                call = {"model": model, "messages": said, "stream": stream}
                answer = await client.post("/v1/chat/completions", json=call, headers=headers)
                self.answers.append(answer.status_code)
            for path in ("", "/data", "/stats", "/stats.csv", "/calls.csv"):
                self.seen += (await client.get(f"/ai{path}", headers=HEADERS)).text
        await proxy.aclose()

    def signals(self) -> dict[str, str]:
        spans = [span.to_json() for span in self.house.exporter.get_finished_spans()]
        metrics = self.house.reader.get_metrics_data()
        return {
            "dashboard": self.seen,
            "prometheus": generate_latest(self.registry).decode(),
            "spans": "\n".join(spans),
            "metrics": "" if metrics is None else metrics.to_json(),
            "records": repr(self.records),
        }


@pytest.mark.parametrize("log_bodies", [False, True])
def test_no_key_cookie_or_prompt(log_bodies: bool, caplog: pytest.LogCaptureFixture) -> None:
    told = Told(AccessLog(log_bodies=log_bodies))
    with caplog.at_level(logging.INFO):
        asyncio.run(told.run())
    assert told.answers == [200, 200, 200, 400, 401]
    for name, text in told.signals().items():
        assert "gpt-4.1" in text, name
        for secret in (UPSTREAM_KEY, CALLER_KEY, COOKIE, PROMPT):
            assert secret not in text, name
    for secret in (UPSTREAM_KEY, CALLER_KEY, COOKIE):
        assert secret not in caplog.text
    assert (PROMPT in caplog.text) is log_bodies


def test_a_call_is_one_line_one_span_and_one_of_each_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = Told(AccessLog())
    with caplog.at_level(logging.INFO, "ai_proxy_mw.access"):
        asyncio.run(told.run())
    written = [json.loads(each.message) for each in caplog.records if "access" in each.name]
    # What has gone upstream is told when all is known of it, which may be after the next call.
    lines = sorted(written, key=lambda line: str(line["time"]))
    assert [(each["status"], each["outcome"], each["cache"]) for each in lines] == [
        (200, "complete", "miss"),
        (200, "complete", "hit"),
        (200, "complete", "miss"),
        (400, "refused", None),
        (401, "refused", None),
    ]
    ids = {each["request_id"] for each in lines}
    assert len(ids) == len(told.records) == 5
    assert {each.request_id for each in told.records} == ids
    spans = told.house.exporter.get_finished_spans()
    assert len(spans) == 5
    assert {(each.attributes or {})[genai_names.OWN_REQUEST_ID] for each in spans} == ids
    shown = generate_latest(told.registry).decode().splitlines()
    counts = [each for each in shown if each.startswith("ai_proxy_requests_total{")]
    assert sum(float(each.rpartition(" ")[2]) for each in counts) == len(ids)


@pytest.mark.parametrize(("log_bodies", "most"), [(0, 10_000), (True, 10_000), (1 << 20, 63)])
def test_what_waits_with_its_bodies_is_bounded_in_bytes(log_bodies: int, most: int) -> None:
    hooks: list[RecordHook] = [list[Record]().append, _takes_none]
    desk = desk_of(hooks, access_log=AccessLog(log_bodies=log_bodies), stats=None, tracing=None)
    assert desk is not None
    assert [outlet._most for outlet in desk._outlets] == [most] * 3


async def _takes_none(record: Record) -> None:
    raise AssertionError(record)


def test_the_names_of_the_conventions_are_in_one_module() -> None:
    package = ROOT / "ai_proxy_mw"
    named = {path.name for path in package.rglob("*.py") if '"gen_ai.' in path.read_text()}
    assert named == {"genai_names.py"}


def test_without_a_path_there_is_no_dashboard() -> None:
    proxy = AIProxy(upstream="http://localhost:1/v1", anonymous=True)
    assert proxy.dashboard is None
