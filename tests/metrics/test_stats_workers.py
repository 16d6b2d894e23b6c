"""Four real processes, one of which is killed and another begun in its place."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ai_proxy_mw.metrics.base import StatsReport
from ai_proxy_mw.metrics.buckets import TIERS
from ai_proxy_mw.metrics.stats import Stats
from tests.metrics.stats_worker import TIME, opened
from tests.redis_servers import redis_executable, serve_redis
from tests.servers import ROOT

FLUSH = 0.5

WRITTEN_WITHIN = 0.5
"""Seconds that a flush itself may take on a busy machine."""

pytestmark = pytest.mark.slow


@contextmanager
def place(kind: str, tmp_path: Path) -> Iterator[str]:
    if kind == "disk":
        yield str(tmp_path / "cache")
        return
    if redis_executable() is None:
        pytest.skip("no redis-server is installed")
    with serve_redis() as server:
        yield server.uri


def begin(where: str, ledger: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.metrics.stats_worker", where, str(ledger), str(FLUSH)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=30)
    assert process.returncode == 0


def times(ledger: Path) -> list[float]:
    data = ledger.read_bytes()
    return [TIME.unpack_from(data, at)[0] for at in range(0, len(data), TIME.size)]


async def reports(where: str) -> list[StatsReport]:
    store = opened(where)
    stats = Stats(name="app", store=store)
    found = [await stats.read(window, "subject") for window in TIERS]
    await stats.aclose()
    await store.aclose()
    return found


@pytest.mark.parametrize("kind", ["disk", "redis"])
def test_one_of_four_is_killed(kind: str, tmp_path: Path) -> None:
    ledgers = [tmp_path / f"ledger-{number}" for number in range(5)]
    with place(kind, tmp_path) as where:
        processes = [begin(where, ledger) for ledger in ledgers[:4]]
        time.sleep(3 * FLUSH)
        processes[0].kill()
        processes[0].communicate()
        killed_at = time.monotonic()
        processes.append(begin(where, ledgers[4]))
        time.sleep(3 * FLUSH)
        for process in processes[1:]:
            end(process)
        found = asyncio.run(reports(where))
    calls = [times(ledger) for ledger in ledgers]
    assert all(len(each) > 100 for each in calls)
    total = sum(map(len, calls))
    late = sum(1 for each in calls[0] if each > killed_at - FLUSH - WRITTEN_WITHIN)
    for report in found:
        assert report.whole
        assert total - late <= report.total.requests <= total
        assert sum(row.requests for row in report.rows.values()) == report.total.requests
        assert report.total.input_tokens == 100 * report.total.requests
    assert late < len(calls[0])  # or else this would say nothing
