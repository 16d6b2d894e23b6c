"""What those hear who wait for another process, and what they do when it is gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ai_proxy_mw._errors import UpstreamDisconnected, UpstreamTimeout
from ai_proxy_mw.caching import follow
from ai_proxy_mw.caching.entry import encode as encode_entry
from ai_proxy_mw.caching.follow import Followed, Remote
from ai_proxy_mw.caching.keeper import Keeper
from ai_proxy_mw.caching.parts import Part, decode, encode, part_key
from tests.caching.side_by_side import (
    KEY,
    STREAM,
    Call,
    Caller,
    Process,
    SharedStore,
    Upstream,
    entry,
    quick,
    until,
)

pytestmark = pytest.mark.usefixtures("quick")
__all__ = ["quick"]

OTHER = "0123456789abcdef"
HEAD = (200, STREAM, True)


class Two:
    """A process that leads, one that follows, and their callers."""

    def __init__(self, most: int = 1000) -> None:
        self.store = SharedStore()
        self.upstream = Upstream()
        self.leading = Process(self.store, self.upstream, most=most)
        self.following = Process(self.store, self.upstream, most=most)

    async def begin(self) -> tuple[Call, Caller, Caller]:
        leader = self.leading.ask()
        call = await self.upstream.called()
        follower = self.following.ask()
        await until(lambda: bool(self.store.values("w:")))
        return call, leader, follower


async def _put(store: SharedStore, number: int, part: Part) -> None:
    key = part_key(KEY, OTHER, number)
    await store.set(key, encode(key, part), ttl=60)


async def _held(store: SharedStore, seconds: float = 60) -> None:
    await store.lock(KEY, OTHER, lease=seconds)


def test_a_stream_is_heard_while_it_comes() -> None:
    async def main() -> None:
        two = Two()
        call, leader, follower = await two.begin()
        call.begin(b"1", b"2")
        await follower.hears(b"12")
        call.body.say(b"3")
        await follower.hears(b"123")
        call.body.say(b"4", None)
        assert await follower.end() == await leader.end() == b"1234"
        assert follower.head == leader.head
        assert two.following.flight is not None
        assert two.following.flight.second_hand
        assert len(two.upstream.calls) == 1
        await until(lambda: two.store.holder is None)

    asyncio.run(main())


@pytest.mark.parametrize("first", [b"", b"1"], ids=["one part", "two parts"])
def test_what_was_put_aside_of_a_stream_is_told_with_its_end(first: bytes) -> None:
    async def main() -> None:
        two = Two()
        two.leading.keeps = False
        call, leader, follower = await two.begin()
        aside: list[bytes] = []
        if first:
            call.begin(first, aside=aside)
            await follower.hears(first)
        aside.append(b"data: 7\n\n")
        if not first:
            call.begin(aside=aside)
        call.body.say(b"2", None)
        assert await follower.end() == await leader.end() == first + b"2"
        for process in (two.leading, two.following):
            assert process.flight is not None
            assert list(process.flight.aside) == aside

    asyncio.run(main())


def test_a_quick_answer_is_found_among_what_is_kept() -> None:
    async def main() -> None:
        two = Two()
        call, leader, follower = await two.begin()
        call.begin(b"1", None, json=True)
        assert await leader.end() == await follower.end() == b"1"
        assert len(two.upstream.calls) == 1

    asyncio.run(main())


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_an_answer_that_is_not_kept_is_told(pause: float) -> None:
    async def main() -> None:
        two = Two()
        two.leading.keeps = False
        call, leader, follower = await two.begin()
        await asyncio.sleep(pause)
        call.begin(b"no", None, json=True, status=500)
        assert await leader.end() == await follower.end() == b"no"
        assert follower.head is not None
        assert follower.head.status == 500
        assert len(two.upstream.calls) == 1

    asyncio.run(main())


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_an_error_is_told(pause: float) -> None:
    async def main() -> None:
        two = Two()
        call, leader, follower = await two.begin()
        await asyncio.sleep(pause)
        call.answer.set_exception(UpstreamTimeout("first_byte"))
        assert isinstance(await leader.fails(), UpstreamTimeout)
        told: Any = await follower.fails()
        assert (told.status, told.code) == (504, "upstream_timeout")
        assert len(two.upstream.calls) == 1
        await until(lambda: two.store.holder is None)

    asyncio.run(main())


def test_an_error_in_mid_stream_is_told_after_what_has_come() -> None:
    async def main() -> None:
        two = Two()
        call, _, follower = await two.begin()
        call.begin(b"1")
        await follower.hears(b"1")
        call.body.say(b"2", UpstreamTimeout("idle"))
        told: Any = await follower.fails()
        assert told.status == 504
        assert follower.heard == [b"1", b"2"]
        assert len(two.upstream.calls) == 1

    asyncio.run(main())


def test_who_was_told_a_part_hears_the_end_though_it_is_not_kept() -> None:
    async def main() -> None:
        two = Two()
        two.leading.keeps = False
        call, _, follower = await two.begin()
        call.begin()
        for heard in (b"1", b"12", b"123"):
            call.body.say(heard[-1:])
            await follower.hears(heard)
        call.body.say(b"4", None)
        assert await follower.end() == b"1234"

    asyncio.run(main())


@pytest.mark.parametrize("lines", [None, [], [b"half"]])
def test_when_the_holder_dies_one_who_has_given_nothing_asks(lines: list[bytes] | None) -> None:
    """A JSON answer is only given when it is whole."""

    async def main() -> None:
        two = Two()
        call, _, follower = await two.begin()
        if lines is not None:
            call.begin(*lines, json=True)
            await asyncio.sleep(0.05)
        third = Process(two.store, two.upstream).ask()
        two.leading.die()
        again = await two.upstream.called(2)
        again.begin(b"whole", None, json=True)
        assert await follower.end() == await third.end() == b"whole"
        assert len(two.upstream.calls) == 2

    asyncio.run(main())


def test_the_head_alone_of_a_stream_is_nothing_given() -> None:
    async def main() -> None:
        two = Two()
        call, _, follower = await two.begin()
        call.begin()
        await asyncio.sleep(0.05)
        two.leading.die()
        (await two.upstream.called(2)).begin(b"whole", None)
        assert await follower.end() == b"whole"

    asyncio.run(main())


def test_no_second_answer_follows_what_was_given_of_the_first() -> None:
    async def main() -> None:
        two = Two()
        call, _, follower = await two.begin()
        call.begin(b"1")
        await follower.hears(b"1")
        two.leading.die()
        assert isinstance(await follower.fails(), UpstreamDisconnected)
        assert follower.heard == [b"1"]
        assert two.store.holder is None  # taken to see, and let go of
        assert len(two.upstream.calls) == 1

    asyncio.run(main())


def test_the_lock_that_a_follower_has_just_got_when_he_leaves_is_let_go_of() -> None:
    async def main() -> None:
        two = Two()
        call, _, follower = await two.begin()
        call.begin(b"1")
        await follower.hears(b"1")
        got = asyncio.Event()

        async def hang(owner: str) -> None:
            if two.store.holder == owner != first:
                got.set()
                await asyncio.sleep(60)

        first = two.store.holder
        two.store.before_lock = hang
        two.leading.die()
        await got.wait()
        await follower.leave()
        two.store.before_lock = None
        await until(lambda: two.store.holder is None, 0.1)

    asyncio.run(main())


def test_last_words_are_heard_though_another_has_the_lock_by_then() -> None:
    async def main() -> None:
        store, upstream = SharedStore(), Upstream()
        await _held(store)
        follower = Process(store, upstream).ask()
        await until(lambda: "lock" in store.asked[1:] or len(store.asked) > 4)
        # Between two looks of the follower: told, let go of, taken by somebody else.
        await _put(store, 0, Part(0, [b"whole"], head=HEAD, whole=True))
        await store.unlock(KEY, OTHER)
        await store.lock(KEY, "somebody", lease=60)
        assert await follower.end() == b"whole"
        assert upstream.calls == []

    asyncio.run(main())


def _without(wrong: list[tuple[int, Part]], head: list[tuple[int, Part]]) -> Any:
    async def main() -> tuple[bytes | BaseException, int]:
        store, upstream = SharedStore(), Upstream()
        await _held(store, 0.15)
        for number, part in [*head, *wrong]:
            await _put(store, number, part)
        caller = Process(store, upstream).ask()
        await until(lambda: caller.done or bool(upstream.calls))
        for call in upstream.calls:
            call.begin(b"asked", None)
        await until(lambda: caller.done)
        return caller.error or b"".join(caller.heard), len(upstream.calls)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "part",
    [
        Part(1, [b"x"], head=HEAD, whole=True),
        Part(-1, [b"x"], head=HEAD, whole=True),
        Part(0, [b"x"], whole=True),
        Part(0, [b"x"], head=(200, [(b"a", b"1\r\nb: 2")], True), whole=True),
        Part(0, [b"x"], head=(99, [], True), whole=True),
    ],
)
def test_a_first_part_that_is_none_is_no_answer(part: Part) -> None:
    assert _without([(0, part)], []) == (b"asked", 1)


@pytest.mark.parametrize(
    "part",
    [Part(0, [b"x"]), Part(2, [b"x"], whole=True), Part(-1, [b"x"], whole=True)],
)
def test_what_does_not_follow_what_was_heard_is_not_given(part: Part) -> None:
    found, calls = _without([(1, part)], [(0, Part(0, [b"1"], head=HEAD))])
    assert isinstance(found, UpstreamDisconnected)
    assert calls == 0


def test_a_planted_entry_is_no_answer() -> None:
    async def main() -> None:
        two = Two()
        _, _, follower = await two.begin()
        await two.store.set(KEY, encode_entry(entry(key=KEY[:-1] + "b")), ttl=60)
        await asyncio.sleep(0.03)
        assert not follower.done
        await two.store.set(KEY, encode_entry(entry(ttl=0.5)), ttl=60)
        await asyncio.sleep(0.03)
        assert not follower.done
        await two.store.set(KEY, encode_entry(entry()), ttl=60)
        assert await follower.end() == b"kept"

    asyncio.run(main())


@pytest.mark.parametrize("broken", [{"get"}, {"lock", "set"}, {"get", "set", "lock", "unlock"}])
def test_when_the_store_dies_who_has_heard_nothing_asks(broken: set[str]) -> None:
    async def main() -> None:
        two = Two()
        _, _, follower = await two.begin()
        two.store.broken = broken
        (await two.upstream.called(2)).begin(b"whole", None)
        assert await follower.end() == b"whole"

    asyncio.run(main())


def test_a_store_that_is_away_is_waited_for_once() -> None:
    async def main() -> None:
        store, upstream = SharedStore(), Upstream()
        store.broken = {"lock"}
        caller = Process(store, upstream).ask()
        (await upstream.called()).begin(b"whole", None)
        assert store.asked == ["lock"]
        assert await caller.end() == b"whole"

    asyncio.run(main())


def test_a_store_that_is_away_for_a_moment_breaks_no_stream() -> None:
    async def main() -> None:
        two = Two()
        call, _, follower = await two.begin()
        call.begin(b"1")
        await follower.hears(b"1")
        two.store.broken = {"get", "set", "lock", "unlock"}
        call.body.say(b"2")
        await asyncio.sleep(0.06)
        two.store.broken = set()
        await follower.hears(b"12")
        call.body.say(b"3", None)
        assert await follower.end() == b"123"
        assert len(two.upstream.calls) == 1

    asyncio.run(main())


def test_a_store_that_stays_away_ends_the_stream() -> None:
    async def main() -> None:
        two = Two()
        call, _, follower = await two.begin()
        call.begin(b"1")
        await follower.hears(b"1")
        two.store.broken = {"get", "set", "lock", "unlock"}
        assert isinstance(await follower.fails(), UpstreamDisconnected)

    asyncio.run(main())


def test_what_is_no_stream_is_given_as_it_comes_when_it_is_large() -> None:
    async def main() -> None:
        two = Two(most=10)
        call, _, follower = await two.begin()
        await until(lambda: two.store.values("w:") != {})
        await asyncio.sleep(0.05)
        call.begin(b"123456", json=True)
        await asyncio.sleep(0.05)
        assert follower.heard == []
        call.body.say(b"789012")
        await follower.hears(b"123456789012")
        call.body.say(None)
        await follower.end()
        assert len(two.upstream.calls) == 1

    asyncio.run(main())


def test_a_remote_body_that_is_closed_has_ended() -> None:
    async def main() -> None:
        followed: Any = None
        body = Remote(followed, OTHER, Part(0, [b"1", b"2"], head=HEAD, whole=True))
        assert [body.ended] == [False]
        assert [piece async for piece in body] == [b"1", b"2"]
        assert [body.ended] == [True]
        body = Remote(followed, OTHER, Part(0, [b"1"], head=HEAD))
        await body.aclose()
        assert [body.ended] == [True]
        assert [piece async for piece in body] == []

    asyncio.run(main())


def test_all_parts_are_of_the_one_answer() -> None:
    """However they are cut, and whoever comes when."""

    async def main() -> None:
        two = Two(most=10**6)
        call, leader, follower = await two.begin()
        call.begin()
        others = []
        for number in range(60):
            call.body.say(b"%d " % number)
            if number % 20 == 10:
                others.append(Process(two.store, two.upstream, most=10**6).ask())
            await asyncio.sleep(0.002)
        call.body.say(None)
        whole = await leader.end()
        assert [await each.end() for each in (follower, *others)] == [whole] * 4
        parts = [decode(key, value) for key, value in two.store.values("p:").items()]
        assert len(parts) > 3
        assert len(two.upstream.calls) == 1

    asyncio.run(main())


def test_a_lock_that_never_runs_out_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "LONGEST", 0.05)

    async def main() -> None:
        store = SharedStore()
        await store.lock(KEY, "somebody", lease=10**6)
        followed = Followed(Keeper(store), KEY, "me", accepts=lambda entry: True, most=9)
        assert await followed.answer() is None
        await followed.let_go()
        assert await store.lock(KEY, "another", lease=1) == "somebody"

    asyncio.run(main())
