"""What the holder of a lock tells, and to whom."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ai_proxy_mw._errors import RateLimited, UpstreamDisconnected
from ai_proxy_mw._http import Ending
from ai_proxy_mw.caching import lease
from ai_proxy_mw.caching.parts import Part, decode
from tests.caching.side_by_side import (
    KEY,
    Caller,
    Process,
    SharedStore,
    Upstream,
    nothing_left,
    quick,
    until,
)

pytestmark = pytest.mark.usefixtures("quick")
__all__ = ["quick"]


class One:
    """A process that leads, and what it puts into the store."""

    def __init__(self, most: int = 1000) -> None:
        self.store = SharedStore()
        self.upstream = Upstream()
        self.process = Process(self.store, self.upstream, most=most)
        self.leader = self.process.ask()

    async def want(self) -> None:
        """As a follower does who stays."""
        await until(lambda: self.store.holder is not None)
        await self.store.set(f"w:{KEY[2:]}:{self.store.holder}", b"1", ttl=60)

    async def forget(self) -> None:
        await self.store.purge(prefix="w:")

    def follow(self, most: int = 1000) -> Caller:
        return Process(self.store, self.upstream, most=most).ask()

    @property
    def parts(self) -> list[Part]:
        found = sorted(self.store.values("p:").items(), key=lambda each: int(each[0][-1:]))
        return [part for key, value in found if (part := decode(key, value)) is not None]


def _text(parts: list[Part]) -> bytes:
    return b"".join(piece for part in parts for piece in part.pieces)


def test_nothing_is_told_that_nobody_wants() -> None:
    async def main() -> None:
        one = One()
        with nothing_left():
            (await one.upstream.called()).begin(b"1", b"2")
            await one.leader.hears(b"12")
            await asyncio.sleep(0.05)
            one.upstream.calls[0].body.say(None)
            await one.leader.end()
            await until(lambda: one.store.holder is None)
        assert one.parts == []

    asyncio.run(main())


def test_the_lock_is_kept_for_longer_than_a_lease() -> None:
    async def main() -> None:
        one = One()
        call = await one.upstream.called()
        holder = one.store.holder
        for _ in range(30):
            await asyncio.sleep(0.01)
            assert one.store.holder == holder is not None
        call.begin(None)
        await one.leader.end()
        await until(lambda: one.store.holder is None)

    asyncio.run(main())


def test_the_head_comes_with_the_first_piece_and_the_end_with_the_last() -> None:
    async def main() -> None:
        one = One()
        await one.want()
        call = await one.upstream.called()
        call.begin()
        await asyncio.sleep(0.05)
        assert one.parts == []
        call.body.say(b"1")
        await until(lambda: len(one.parts) == 1)
        call.body.say(b"2", None)
        await one.leader.end()
        await until(lambda: one.store.holder is None)
        first, *rest, last = one.parts
        assert first.head is not None
        assert [part.head for part in (*rest, last)] == [None] * (len(rest) + 1)
        assert last.whole
        assert _text(one.parts) == b"12"
        # Once is enough, however long it takes to keep the answer.
        assert [part.whole for part in one.parts].count(True) == 1

    asyncio.run(main())


def test_the_end_is_told_while_the_answer_is_being_kept() -> None:
    """So that a process which dies then has told it."""

    async def main() -> None:
        one = One()
        hold = asyncio.Event()

        async def hang(key: str) -> None:
            if key == KEY:
                await hold.wait()

        one.store.before_set = hang
        follower = one.follow()
        call = await one.upstream.called()
        call.begin(b"1")
        await follower.hears(b"1")
        call.body.say(b"2", None)
        assert await follower.end() == b"12"
        assert len(one.parts) <= 3
        hold.set()

    asyncio.run(main())


def test_a_part_that_is_being_written_at_the_end_is_not_lost() -> None:
    async def main() -> None:
        one = One()
        writing = asyncio.Event()

        async def hang(key: str) -> None:
            if key.startswith("p:") and not writing.is_set():
                writing.set()
                await asyncio.sleep(0.04)

        follower = one.follow()
        call = await one.upstream.called()
        call.begin(b"1")
        await follower.hears(b"1")
        one.store.before_set = hang
        call.body.say(b"2")
        await writing.wait()
        call.body.say(b"3", None)
        assert await follower.end() == b"123"
        assert len(one.upstream.calls) == 1

    asyncio.run(main())


def test_a_part_that_the_store_does_not_take_is_tried_again() -> None:
    async def main() -> None:
        one = One()
        follower = one.follow()
        call = await one.upstream.called()
        call.begin(b"1")
        await follower.hears(b"1")
        one.store.broken = {"set"}
        call.body.say(b"2")
        await asyncio.sleep(0.03)
        one.store.broken = set()
        await follower.hears(b"12")
        call.body.say(b"3", None)
        assert await follower.end() == b"123"

    asyncio.run(main())


def test_when_no_other_listens_either_the_call_is_cancelled() -> None:
    async def main() -> None:
        one = One()
        follower = one.follow()
        call = await one.upstream.called()
        call.begin(b"1")
        await follower.hears(b"1")
        await one.leader.leave()
        call.body.say(b"2")
        await follower.hears(b"12")
        assert call.how is None
        await follower.leave()
        await until(lambda: call.how is Ending.CANCELLED, lease.LOOK + lease.WANTED + 0.1)
        await until(lambda: one.store.holder is None)

    asyncio.run(main())


def test_who_listens_again_goes_on_where_he_was() -> None:
    """A slow follower has not said for a while that he still wants it."""

    async def main() -> None:
        one = One()
        await one.want()
        call = await one.upstream.called()
        call.begin(b"1")
        await until(lambda: _text(one.parts) == b"1")
        await one.forget()
        await asyncio.sleep(0.05)
        call.body.say(b"2")
        await asyncio.sleep(0.05)
        assert _text(one.parts) == b"1"
        follower = one.follow()
        await follower.hears(b"12")
        assert [part.first for part in one.parts] == [0, 1]
        call.body.say(b"3", None)
        assert await follower.end() == b"123"

    asyncio.run(main())


def test_who_asks_again_just_before_the_end_hears_it() -> None:
    async def main() -> None:
        one = One()
        await one.want()
        call = await one.upstream.called()
        call.begin(b"1")
        await until(lambda: _text(one.parts) == b"1")
        await one.forget()
        await asyncio.sleep(0.05)
        await one.want()
        call.body.say(b"2", None)
        await one.leader.end()
        await until(lambda: one.store.holder is None)
        assert _text(one.parts) == b"12"
        assert one.parts[-1].whole

    asyncio.run(main())


def test_what_only_concerns_the_caller_is_not_told() -> None:
    async def main() -> None:
        one = One()
        await one.want()
        await asyncio.sleep(0.03)
        error = RateLimited("no", kind="requests", retry_after=1)
        (await one.upstream.called()).answer.set_exception(error)
        await one.leader.fails()
        await until(lambda: one.store.holder is None)
        assert one.parts == []

    asyncio.run(main())


def test_of_an_answer_that_is_cancelled_no_end_is_told() -> None:
    async def main() -> None:
        one = One()
        await one.want()
        call = await one.upstream.called()
        call.begin(b"1")
        await until(lambda: bool(one.parts))
        await one.process.flights.aclose()
        assert one.store.holder is None
        assert [(part.whole, part.failed) for part in one.parts] == [(False, None)]

    asyncio.run(main())


def test_an_answer_too_large_that_nobody_has_waited_for_is_let_go_of() -> None:
    async def main() -> None:
        one = One(most=3)
        call = await one.upstream.called()
        call.begin(b"1234")
        await one.leader.hears(b"1234")
        await until(lambda: one.store.holder is None)
        assert not one.leader.done
        second = one.follow(most=3)
        (await one.upstream.called(2)).begin(b"5", None)
        assert await second.end() == b"5"
        call.body.say(None)
        await one.leader.end()

    asyncio.run(main())


def test_who_is_cut_off_is_not_told_that_it_was_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store takes nothing more, and others wait for the rest of an answer that is not held."""

    async def main() -> None:
        one = One(most=10)
        follower = one.follow()
        call = await one.upstream.called()
        call.begin(b"1")
        await follower.hears(b"1")
        hold = asyncio.Event()

        async def hang(key: str) -> None:
            if key.startswith("p:"):
                await hold.wait()

        monkeypatch.setattr("ai_proxy_mw.caching.flight.WINDOW", 10)
        monkeypatch.setattr("ai_proxy_mw.caching.flight.GRACE", 0.01)
        monkeypatch.setattr("ai_proxy_mw.stores.guard.PATIENCE", 5.0)
        one.store.before_set = hang
        call.body.say(b"2" * 8)
        await asyncio.sleep(0.02)
        call.body.say(b"3" * 20, b"4" * 20, b"5" * 20)
        await one.leader.hears(b"1" + b"2" * 8 + b"3" * 20 + b"4" * 20 + b"5" * 20)
        hold.set()
        call.body.say(None)
        told: Any = await follower.fails()
        assert told.code == UpstreamDisconnected.code
        assert b"".join(follower.heard) != b"1" + b"2" * 8 + b"3" * 20 + b"4" * 20 + b"5" * 20
        await one.leader.end()

    asyncio.run(main())


def test_the_lock_is_let_go_of_by_a_task_that_is_cancelled_at_its_end() -> None:
    async def main() -> None:
        one = One()
        (await one.upstream.called()).begin(b"1")
        await one.leader.hears(b"1")
        flight = one.process.flight
        assert flight is not None
        assert flight.task is not None
        flight.task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        flight.task.cancel()
        await asyncio.wait([flight.task])
        await until(lambda: one.store.holder is None, 0.05)

    asyncio.run(main())
