"""What four workers of a real server count together, of which one is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from ai_proxy_mw import DiskCache, StatsReport
from ai_proxy_mw.metrics.stats import Stats
from ai_proxy_mw.testing import FakeUpstream
from tests.ledger import KINDS, ask_all, ledger, prepare
from tests.servers import gunicorn, serve_process

pytestmark = pytest.mark.slow

NUMBER = 56
"""Calls of each kind, in each half."""

SERVERS = {
    "gthread": ("-k", "gthread", "-w", "4", "--threads", "8"),
    "sync": ("-k", "sync", "-w", "4"),
}


@pytest.mark.parametrize("server", SERVERS)
def test_they_count_what_the_upstream_was_asked(server: str, tmp_path: Path) -> None:
    fake = FakeUpstream()
    with fake.serve() as upstream:
        env = {"COUNTED_UPSTREAM": upstream.base_url, "COUNTED_FOLDER": str(tmp_path)}
        command = gunicorn("tests.apps.counted:app", *SERVERS[server])
        with serve_process(command, env) as running:
            right = _half(fake, running.url)
            _wait_for(tmp_path, len(KINDS) * NUMBER)
            os.kill(int(httpx.get(f"{running.url}/worker").text), signal.SIGKILL)
            right += _half(fake, running.url)
        fake.wait_until_quiet(20)
        report = asyncio.run(_read(tmp_path))
    # Each worker has a cache of its own, so that some are asked again; all are answered rightly.
    assert right == len(KINDS) * NUMBER * 2
    total = report.total
    assert total.requests == right
    known = ledger(fake.requests)
    assert (total.input_tokens, total.output_tokens) == (known.input_tokens, known.output_tokens)
    assert total.cost == known.cost
    assert total.unpriced == 0
    assert total.refused == total.cancelled == 2 * NUMBER
    assert sum(row.requests for row in report.rows.values()) == right


def _half(fake: FakeUpstream, url: str) -> int:
    prepare(fake, NUMBER)
    return sum(asyncio.run(ask_all(url, NUMBER, at_once=8)).values())


async def _read(folder: Path) -> StatsReport:
    stats = Stats(name="default", store=DiskCache(folder))
    try:
        return await stats.read("1h", "model")
    finally:
        await stats.aclose()


def _wait_for(folder: Path, requests: int) -> None:
    """Until the workers have written down that many: who is killed takes the rest with him."""
    deadline = time.monotonic() + 30
    while asyncio.run(_read(folder)).total.requests < requests:
        assert time.monotonic() < deadline
        time.sleep(0.5)
