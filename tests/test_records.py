"""What is known of calls that are over: through both doors, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ai_proxy_mw import AIProxy, AIProxyMiddleware, AIProxyWSGIMiddleware, MemoryCache, Record
from ai_proxy_mw.testing import FakeUpstream
from tests.ledger import KINDS, ask_all, ledger, mixed_proxy, prepare, sums
from tests.servers import serve_asgi, serve_wsgi

DOORS = ["asgi", "wsgi"]


@contextmanager
def _served(door: str, proxy: Any) -> Iterator[str]:
    if door == "asgi":
        with serve_asgi(AIProxyMiddleware(proxy=proxy)) as url:
            yield url
    else:
        with serve_wsgi(AIProxyWSGIMiddleware(proxy=proxy)) as url:
            yield url


def test_two_proxies_that_share_memory_and_a_name_count_together() -> None:
    async def main() -> None:
        store = MemoryCache()
        url = "http://fake.invalid/v1"
        two = [AIProxy(upstream=url, anonymous=True, cache=store) for _ in range(2)]
        other = AIProxy(upstream=url, anonymous=True, cache=store, name="other")
        alone = AIProxy(upstream=url, anonymous=True, cache=MemoryCache())
        for proxy in two:
            proxy._counted().add(Record(time=1.0, request_id="1"))
        totals = [(await each.stats(window="1h")).total.requests for each in (*two, other, alone)]
        assert totals == [2, 2, 0, 0]
        for proxy in (*two, other, alone):
            await proxy.aclose()

    asyncio.run(main())


def _until(ready: Callable[[], bool], patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("door", DOORS)
def test_the_sum_of_the_records_is_the_upstreams_own_ledger(door: str) -> None:
    number = 112
    records: list[Record] = []
    fake = FakeUpstream()
    prepare(fake, number)
    with fake.serve() as upstream:
        proxy = mixed_proxy(upstream.base_url, on_record=[records.append])
        with _served(door, proxy) as url:
            right = asyncio.run(ask_all(url, number))
            _until(lambda: len(records) >= len(KINDS) * number)
            fake.wait_until_quiet(20)
    assert right == dict.fromkeys(KINDS, number)
    assert len(records) == len(KINDS) * number == 1008
    assert sums(records) == ledger(fake.requests)
    assert sum(each.cost or 0 for each in records) == ledger(fake.requests).cost
    assert all(each.cost is not None for each in records)
    outcomes = Counter(each.outcome for each in records)
    assert outcomes == {
        "complete": 5 * number,
        "cancelled": number,
        "failed": 2 * number,
        "refused": number,
    }
    assert Counter(each.cache for each in records)["hit"] == 2 * number
    saved = [each for each in records if each.cache == "hit"]
    assert sum(each.saved or 0 for each in saved) == sum(
        each.cost or 0
        for each in records
        if each.cache == "miss"
        and each.outcome == "complete"
        and each.endpoint == "POST /chat/completions"
    )
    assert [each.lost for each in proxy.hook_stats()] == [0, 0]
    assert sum(each.delivered for each in proxy.hook_stats()) == len(records)  # nobody logs
    total = proxy.stats_sync(window="1h").total
    assert (total.requests, total.input_tokens, total.output_tokens, total.cost) == (
        len(records),
        *ledger(fake.requests)[1:],
        ledger(fake.requests).cost,
    )
