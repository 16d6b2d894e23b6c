"""Counts in a real Memcached."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from limits.storage import storage_from_string

from ai_proxy_mw import ConfigurationError, Limit
from ai_proxy_mw.limiting.books import Book, Books
from tests.redis_servers import until
from tests.servers import free_port

MEMCACHED = shutil.which("memcached")
pytestmark = [
    pytest.mark.skipif(MEMCACHED is None, reason="no memcached is installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("memcachio") is None, reason="memcachio is not installed"
    ),
]


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    assert MEMCACHED is not None
    port = free_port()
    process = subprocess.Popen([MEMCACHED, "-l", "127.0.0.1", "-p", str(port), "-u", "nobody"])
    try:
        until(lambda: _accepts(port), "memcached's start")
        yield f"memcached://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _run(storage: object, work: Callable[[Book], Awaitable[None]]) -> None:
    async def main() -> None:
        books = Books(storage)
        await work(books.here())
        await books.aclose()

    asyncio.run(main())


RATES = ["100/hour", "100/day", "100/month", "100/year"]  # some live longer than 30 days


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("strategy", ["sliding", "fixed"])
def test_exactly_as_many_as_may_get_in(uri: str, strategy: Any, rate: str) -> None:
    limit = Limit(rate, strategy=strategy)

    async def work(book: Book) -> None:
        takes = [book.ledger.take(limit, f"many:{limit.id}", 1) for _ in range(150)]
        taken = await asyncio.gather(*takes)
        assert sum(each is not None for each, _ in taken) == 100
        assert (await book.ledger.standing(limit, f"many:{limit.id}")).remaining == 0

    _run(uri, work)


def test_a_budget_settles_up_and_down(uri: str) -> None:
    limit = Limit("1000/month", of="tokens")

    async def work(book: Book) -> None:
        ledger = book.ledger
        held = await asyncio.gather(*[ledger.take(limit, "budget", 100) for _ in range(50)])
        taken = [each for each, _ in held if each is not None]
        assert len(taken) == 10
        await asyncio.gather(*[ledger.settle(each, 0) for each in taken[:2]])
        await asyncio.gather(*[ledger.settle(each, 70) for each in taken[2:6]])
        await asyncio.gather(*[ledger.settle(each, 110) for each in taken[6:]])
        assert (await ledger.standing(limit, "budget")).remaining == 1000 - 4 * 70 - 4 * 110
        await ledger.reset(limit, "budget")
        assert (await ledger.standing(limit, "budget")).remaining == 1000
        await ledger.settle(taken[0], 0)  # of a count that is forgotten: no credit
        assert (await ledger.standing(limit, "budget")).remaining == 1000

    _run(uri, work)


def test_places_are_taken_renewed_and_freed(uri: str) -> None:
    limit = Limit("2", of="concurrent")

    async def work(book: Book) -> None:
        first, _ = await book.ledger.take(limit, "places", 1)
        second, _ = await book.ledger.take(limit, "places", 1)
        assert first is not None
        assert second is not None
        assert (await book.ledger.take(limit, "places", 1))[0] is None
        await book.ledger.settle(await book.ledger.renew(first), 0)
        assert (await book.ledger.standing(limit, "places")).remaining == 1

    _run(uri, work)


def test_a_storage_that_was_made_elsewhere(uri: str) -> None:
    limit = Limit("1/month")

    async def work(book: Book) -> None:
        got = [(await book.ledger.take(limit, "elsewhere", 1))[0] for _ in range(2)]
        assert [each is not None for each in got] == [True, False]

    _run(storage_from_string(f"async+{uri}"), work)


def test_it_keeps_no_times(uri: str) -> None:
    books = Books(uri)
    with pytest.raises(ConfigurationError, match="MemcachedCounts keeps no times"):
        books.check(Limit("5/minute", strategy="moving"))

    async def never_asked() -> None:
        books.here()
        await books.aclose()

    asyncio.run(never_asked())
