"""Prometheus' multiprocess mode under gunicorn: the sum over its workers, dead ones among them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.servers import gunicorn, serve_process

CONFIGURATION = """
from prometheus_client import multiprocess

def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
"""


def _total(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    samples = [each for family in parse(text) for each in family.samples]
    return sum(each.value for each in samples if each.name == name)


def _count(url: str) -> int:
    """Which process has counted. Each on a connection of its own, so that all get some."""
    return int(httpx.post(f"{url}/count?cost=1000").text)


@pytest.mark.slow
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preload"])
def test_workers_add_up_and_dead_ones_keep_their_counts(
    preload: tuple[str, ...], tmp_path: Path
) -> None:
    configuration = tmp_path / "gunicorn.conf.py"
    configuration.write_text(CONFIGURATION)
    counts = tmp_path / "counts"
    counts.mkdir()
    command = gunicorn(
        "tests.apps.prometheus_flask:app", "-w", "2", "-c", str(configuration), *preload
    )
    with serve_process(command, {"PROMETHEUS_MULTIPROC_DIR": str(counts)}) as server:
        answered_by: list[int] = []
        while len(set(answered_by)) < 2:
            answered_by.append(_count(server.url))
        dead = answered_by[-1]
        os.kill(dead, signal.SIGKILL)
        while len(set(answered_by)) < 3:
            try:
                answered_by.append(_count(server.url))
            except httpx.TransportError:
                continue  # the dead worker had taken the connection, and counted nothing
        done = len(answered_by)
        assert _total(server.url, "ai_proxy_requests_total") == done
        assert _total(server.url, "ai_proxy_request_duration_seconds_count") == done
        spent = _total(server.url, "ai_proxy_cost_dollars_total")
        assert spent == pytest.approx(done * 0.001)
