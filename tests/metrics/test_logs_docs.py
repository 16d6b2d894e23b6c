"""The configurations and hooks that docs/logs.md shows do what it says."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from typing import Any

import httpx
import pytest
import sentry_sdk

import ai_proxy_mw
from ai_proxy_mw.accounting.record import Record
from ai_proxy_mw.metrics.access_log import AccessLog
from tests.servers import ROOT

PAGE = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

FAILED = Record(
    time=1.0,
    request_id="req-1",
    subject="alice",
    model="gpt-4.1",
    upstream="openai",
    outcome="failed",
    error="upstream_timeout",
    input_tokens=3,
    output_tokens=4,
    cost=30_000_000,
)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the block that makes a name makes of it."""
    for value in (Record, AccessLog):
        monkeypatch.setattr(ai_proxy_mw, value.__name__, value, raising=False)

    def run(name: str) -> dict[str, Any]:
        pattern = re.compile(rf"^(?:\w+ )*{name}\b", re.MULTILINE)
        (code,) = filter(pattern.search, BLOCKS)
        made: dict[str, Any] = {"__name__": "shown"}
        exec(compile(code, "shown", "exec"), made)
        return made

    return run


def test_the_configuration_writes_bare_lines(shown: Any) -> None:
    # In a process of its own: what it configures holds for all of it.
    code = (
        "import json, logging.config, sys\n"
        "from ai_proxy_mw.accounting.record import Record\n"
        "from ai_proxy_mw.metrics.access_log import AccessLog\n"
        "access_log = AccessLog()\n"
        "before = access_log.is_on\n"
        "access_log(Record(time=0, request_id='unseen'))\n"
        "logging.config.dictConfig(json.loads(sys.argv[1]))\n"
        "access_log(Record(time=0, request_id='req-1'))\n"
        "print(before, access_log.is_on)\n"
    )
    command = [sys.executable, "-c", code, json.dumps(shown("LOGGING")["LOGGING"])]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    line, switches = told.stdout.splitlines()
    assert json.loads(line)["request_id"] == "req-1"
    assert switches == "False True"
    assert told.stderr == ""


def test_the_example_of_a_line_is_one() -> None:
    (line,) = re.findall(r"^```json\n(.*)\n```", PAGE, re.MULTILINE)
    named = re.findall(r"`(\w+)`", PAGE.partition("\n## What a line tells")[2])
    assert set(json.loads(line)) <= set(named)
    assert len(json.loads(line)) == len(Record.__struct_fields__) - 1


def test_sentry_is_told_of_failed_calls_only(shown: Any) -> None:
    events: list[Any] = []
    client = sentry_sdk.Client(
        dsn="http://key@127.0.0.1:1/1",
        default_integrations=False,
        auto_enabling_integrations=False,
        before_send=lambda event, hint: events.append(event),  # and does not send it
    )
    tell_sentry = shown("tell_sentry")["tell_sentry"]
    with sentry_sdk.isolation_scope() as scope:
        scope.set_client(client)
        tell_sentry(FAILED)
        tell_sentry(Record(time=0, request_id="req-2"))
    client.close()
    (event,) = events
    assert event["message"] == "AI call failed: upstream_timeout"
    assert event["tags"]["ai.upstream"] == "openai"
    assert event["fingerprint"] == ["ai_proxy_mw", "openai", "upstream_timeout"]


def test_a_row_is_inserted(shown: Any) -> None:
    made = shown("insert")
    rows: list[tuple[Any, ...]] = []

    class Database:
        async def execute(self, *row: Any) -> None:
            rows.append(row)

    made["database"] = Database()
    asyncio.run(made["insert"](FAILED))
    (row,) = rows
    assert row[1:] == ("req-1", 1.0, "alice", "gpt-4.1", "failed", 7, 30_000_000)
    assert row[0].count("$") == len(row) - 1


def test_a_message_comes_with_each_step_of_spend(
    shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def post(url: str, *, json: dict[str, str], timeout: float) -> httpx.Response:
        told.append(json["text"])
        return httpx.Response(200, request=httpx.Request("POST", url))

    monkeypatch.setattr(httpx, "post", post)
    tell = shown("tell_of_spend")["tell_of_spend"]
    for _ in range(4):
        tell(FAILED)
    tell(Record(time=0, request_id="r", cost=None))
    assert told == [f"AI calls have cost ${sum_}.00 since the start" for sum_ in (60, 120)]


def test_mail_addresses_go_by_the_function_that_is_shown(shown: Any) -> None:
    made = shown("redact")
    assert made["redact"]("write to alice@example.com!") == "write to [email]!"
    assert made["redact"]("a" * 100_000 + "@") == "a" * 100_000 + "@"
