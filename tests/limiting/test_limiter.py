"""What is asked of the limits from outside of calls."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from limits.aio.storage import Storage

from ai_proxy_mw import ConfigurationError, Identity, Limit
from ai_proxy_mw._errors import Unavailable
from ai_proxy_mw._loop import loop_thread
from ai_proxy_mw.limiting.books import Books, _options
from ai_proxy_mw.limiting.ledger import Ledger
from ai_proxy_mw.limiting.limiter import Limiter
from ai_proxy_mw.stores.local import LocalStorage


def test_wrong_values_are_told_at_construction(tmp_path: Path) -> None:
    wrong: Any = "sometimes"
    with pytest.raises(ConfigurationError, match="on_store_failure='sometimes'"):
        Limiter(["1/minute"], name="a", on_failure=wrong)
    with pytest.raises(ConfigurationError, match="a storage on disk"):
        Limiter(["1/minute"], name="a", storage=f"disk://{tmp_path}?x=1")


def by_team(request: Any) -> str | None:
    return str(request)


@pytest.mark.parametrize(
    "limits",
    [
        ["5/minute", "10/minute"],
        ["5/minute; 5/minute"],
        [Limit("5/minute", per=lambda _: "a"), Limit("5/minute", per=lambda _: "b")],
    ],
)
def test_two_limits_on_one_count_are_refused(limits: Any) -> None:
    with pytest.raises(ConfigurationError, match="count each call twice"):
        Limiter(limits, name="a")
    Limiter([Limit("5/minute", per=by_team), "5/minute", Limit("5/minute", shared=True)], name="a")


def test_what_is_never_needed_is_never_made() -> None:
    limiter = Limiter([], name="a")
    asyncio.run(limiter.aclose())
    assert "books" not in vars(limiter)
    used = Limiter(["1/minute"], name="a")
    asyncio.run(used.aclose())  # of a loop that has asked nothing


def test_status_and_reset_for_whoever_is_named() -> None:
    limiter = Limiter(
        [
            "5/minute",
            Limit("6/minute", per="ip"),
            Limit("7/minute", per="model"),
            Limit("8/minute", per="subject+model"),
            Limit("9/minute", per=by_team),
        ],
        name="a",
    )

    def amounts(who: str | Identity, **more: str) -> list[int]:
        return [standing.limit.amount for standing in limiter.status_sync(who, **more)]

    assert amounts("x") == [5]
    assert amounts("x", ip="::1") == [5, 6]
    assert amounts("x", ip="::1", model="m") == [5, 6, 7, 8]
    assert amounts(Identity("x")) == [5]
    assert amounts(Identity("x", limits=["3/minute"])) == [3]
    limiter.reset_sync(Identity("x"), ip="::1", model="m")
    assert [standing.remaining for standing in limiter.status_sync("x", model="m")] == [5, 7, 8]


class Closable(LocalStorage):
    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


def test_what_was_asked_without_a_loop_is_closed_with_the_process() -> None:
    storage = Closable()
    limiter = Limiter(["5/minute"], name="a", storage=storage)
    assert len(limiter.status_sync("x")) == 1
    loop_thread().stop()
    assert storage.closed == 1


def test_who_would_wait_for_himself_is_told_so() -> None:
    limiter = Limiter(["5/minute"], name="a")

    async def in_the_loop() -> None:
        limiter.reset_sync("x")

    with pytest.raises(RuntimeError, match="wait for itself"):
        loop_thread().run(in_the_loop())


def test_where_to_count_while_the_store_is_down() -> None:
    async def instead(policy: Any) -> object:
        return Limiter(["1/minute"], name="a", on_failure=policy).instead()

    assert asyncio.run(instead("allow")) is None
    assert asyncio.run(instead("memory")) is not None
    with pytest.raises(Unavailable):
        asyncio.run(instead("deny"))


def test_a_disk_counts_for_each_loop_and_is_closed(tmp_path: Path) -> None:
    books = Books(f"disk://{tmp_path}/limits")
    limit = Limit("3/month", strategy="fixed")

    async def take() -> int:
        _, standing = await books.here().ledger.take(limit, "a", 1)
        await books.aclose()
        return standing.remaining

    assert [asyncio.run(take()) for _ in range(3)] == [2, 1, 0]


def test_a_hundred_thousand_subjects_leave_nothing_behind() -> None:
    now = 60_000.0
    storage = LocalStorage(clock=lambda: now)
    ledger = Ledger(storage, lambda: now)
    limit = Limit("5/second")
    alive = 0

    async def main() -> None:
        nonlocal now, alive
        for number in range(100_000):
            now += 0.001  # so a thousand come in a second, and each is counted for three
            await ledger.take(limit, f"{number}", 1)
            alive = max(alive, len(storage._counters.entries))

    asyncio.run(main())
    assert 3_000 <= alive <= 3_100
    assert len(storage._counters._heap) == len(storage._counters.entries)


class NoTimes(Storage):
    """A storage that counts and keeps no times, as Memcached's."""

    STORAGE_SCHEME = ["async+no-times"]  # noqa: RUF012 - `limits` declares it so

    @property
    def base_exceptions(self) -> type[Exception]:
        return OSError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return amount

    async def get(self, key: str) -> int:
        return 0

    async def get_expiry(self, key: str) -> float:
        return 0.0

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        return None

    async def clear(self, key: str) -> None:
        """There is nothing to forget."""


def test_a_strategy_that_the_storage_cannot_do_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="NoTimes keeps no times"):
        Limiter([Limit("1/day", strategy="moving")], name="a", storage=NoTimes())
    assert isinstance(Limiter(["1/day"], name="a", storage=NoTimes()).books, Books)


def test_a_strategy_that_the_storage_cannot_do_is_no_failure_of_the_storage() -> None:
    moving = [Limit("1/day", strategy="moving")]
    request: Any = SimpleNamespace(identity=None)
    limiter = Limiter(lambda request: moving, name="a", storage=NoTimes())
    for identity in (None, Identity("x", limits=moving)):
        request.identity = identity
        with pytest.raises(ConfigurationError, match="NoTimes keeps no times"):
            limiter.limits_for(request)
    with pytest.raises(ConfigurationError, match="NoTimes keeps no times"):
        asyncio.run(limiter.status(Identity("x", limits=moving)))


def test_each_client_is_told_how_long_it_may_take() -> None:
    assert set(_options("memcached")) == {"connect_timeout", "read_timeout"}
    assert _options("mongodb") == {}


def test_counts_are_shared_where_other_processes_see_them(tmp_path: Path) -> None:
    assert Limiter(["1/minute"], name="a").shared_counts is None
    assert Limiter(["1/minute"], name="a", storage="memory://").shared_counts is None
    limiter = Limiter(["1/minute"], name="a", storage=f"disk://{tmp_path}")

    async def main() -> object:
        counts = limiter.shared_counts
        assert counts is not None
        try:
            return counts() is limiter.books.here().store
        finally:
            await limiter.aclose()

    assert asyncio.run(main())
