"""The store behind its guards: away is a miss, and costs little."""

from __future__ import annotations

import asyncio
import logging

import pytest

from ai_proxy_mw import MemoryCache
from ai_proxy_mw.caching.keeper import Keeper
from tests.caching.side_by_side import KEY, SharedStore, entry, quick

pytestmark = pytest.mark.usefixtures("quick")
__all__ = ["quick"]


@pytest.mark.parametrize("store", [MemoryCache(), SharedStore()])
def test_what_is_kept_is_found(store: MemoryCache) -> None:
    async def main() -> None:
        keeper = Keeper(store)
        assert await keeper.find(KEY) is None
        kept = entry()
        assert await keeper.keep(kept, ["t"])
        assert await keeper.find(KEY) == kept
        assert await store.purge(tag="t") == 1
        assert keeper.is_readable
        assert await keeper.lock("a", "me", lease=9) == "me"
        assert await keeper.lock("a", "you", lease=9) == "me"
        await keeper.unlock("a", "me")
        assert await keeper.lock("a", "you", lease=9) == "you"
        assert keeper.failures == 0

    asyncio.run(main())


def test_an_entry_is_kept_for_as_long_as_it_may_be_of_use() -> None:
    async def main() -> None:
        store = SharedStore()
        await Keeper(store).keep(entry(ttl=40.0, keep=1000.0), [])
        due = store._entries[KEY].due
        assert 1000 < due - store._clock() <= 1040

    asyncio.run(main())


def test_what_fails_is_a_miss_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = SharedStore()
        keeper = Keeper(store)
        store.broken = {"get", "set", "lock", "unlock"}
        for _ in range(20):
            assert await keeper.find(KEY) is None
            assert await keeper.lock("a", "me", lease=9) is None
            assert not await keeper.keep(entry(), [])
            await keeper.unlock("a", "me")
        assert keeper.failures == 80
        assert not keeper.is_readable
        assert len(store.asked) < 80
        store.broken = set()
        await asyncio.sleep(0.1)
        assert await keeper.keep(entry(), [])
        assert await keeper.find(KEY) is not None
        assert keeper.is_readable

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 2


def test_what_cannot_be_written_can_be_read() -> None:
    async def main() -> None:
        store = SharedStore()
        keeper = Keeper(store)
        await keeper.keep(entry(), [])
        store.broken = {"set"}
        for _ in range(3):
            assert not await keeper.keep(entry(), [])
            assert await keeper.find(KEY) is not None

    asyncio.run(main())


def test_a_loop_that_has_ended_is_forgotten() -> None:
    store = SharedStore()
    keeper = Keeper(store)
    store.broken = {"get"}
    for _ in range(3):
        asyncio.run(keeper.find(KEY))
    # None of them knew what another had seen.
    assert len(store.asked) == 3
    assert len(keeper._guards) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_who_is_cancelled_while_the_answer_comes_is_cancelled(fails: bool) -> None:
    class Forgetful(SharedStore):
        async def get(self, key: str) -> bytes | None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if fails:
                    raise OSError(key) from None
            return b"forgotten"

    async def main() -> None:
        asking = asyncio.create_task(Keeper(Forgetful()).load(KEY))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()

    asyncio.run(main())


def test_who_has_been_cancelled_can_still_ask() -> None:
    async def main() -> None:
        keeper = Keeper(SharedStore())

        async def clean_up() -> str | None:
            try:
                await asyncio.sleep(60)
            finally:
                found.append(await keeper.lock("a", "me", lease=9))
            return None

        found: list[str | None] = []
        task = asyncio.create_task(clean_up())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert found == ["me"]

    asyncio.run(main())
