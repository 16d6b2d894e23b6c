"""One call upstream that many listen to: whoever leaves, whatever fails."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw import MemoryCache
from ai_proxy_mw._errors import (
    ClientGone,
    PriceUnknown,
    UpstreamDisconnected,
    UpstreamTimeout,
)
from ai_proxy_mw._http import Ending, Response
from ai_proxy_mw.caching import flight as module
from ai_proxy_mw.caching.flight import Flight, HandedOver, Listener
from ai_proxy_mw.caching.flights import Flights
from ai_proxy_mw.caching.keeper import Keeper
from tests.caching.house import Hand, settle


class Watcher:
    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.ends: list[Ending] = []

    def chunk(self, data: bytes) -> None:
        self.chunks.append(data)

    def end(self, how: Ending) -> None:
        self.ends.append(how)


class Air:
    """Flights of one key; `head` lets the answer's head out."""

    def __init__(self, body: Hand | None = None, *, most: int = 1000) -> None:
        self.flights = Flights(Keeper(MemoryCache()), most=most, is_fresh=bool)
        self.body = Hand() if body is None else body
        self.watcher = Watcher()
        self.head = asyncio.Event()
        self.kept: list[bytes] = []
        self.errors: list[BaseException] = []
        self.asked = 0
        self.left = 0

    async def source(self) -> Response:
        self.asked += 1
        try:
            await self.head.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        if self.errors:
            raise self.errors.pop()  # and keep it not: its frames have this object
        response = Response(200, [], self.body)
        response.observers.append(self.watcher)
        return response

    async def keep(self, flight: Flight) -> bool:
        self.kept.append(b"".join(flight.pieces))
        return True

    def begin(self, *, alone: bool = False) -> Flight:
        return self.flights.begin("a:k", self.source, self.keep, alone=alone, apart=False)

    def listen(self) -> Listener:
        flight = self.flights.under_way("a:k")
        return self.begin().listen(began=True) if flight is None else flight.listen()

    async def is_empty(self) -> bool:
        await settle()
        return not self.flights._tasks and not any(self.flights._by_loop.values())


async def _all(listener: Listener) -> bytes:
    """What he hears, as a door would."""
    try:
        await listener.head()
        return b"".join([piece async for piece in listener])
    finally:
        await listener.aclose()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            await test()
        await settle()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others

    asyncio.run(main())


def test_all_hear_all_of_it_from_its_beginning_and_live() -> None:
    async def test() -> None:
        air = Air()
        one, two = air.listen(), air.listen()
        air.head.set()
        air.body.put(b"a")
        assert (await one.head()).status == 200
        assert await one.__anext__() == b"a"
        assert not one.ended
        late = air.listen()
        assert await late.__anext__() == b"a"
        hearing = asyncio.create_task(late.__anext__())
        await settle()
        assert not hearing.done()
        air.body.put(b"b")
        assert await hearing == b"b"
        air.body.put(None)
        assert [await _all(each) for each in (one, two, late)] == [b"b", b"ab", b""]
        assert late.ended
        await settle()
        assert (air.asked, air.body.closed, air.kept) == (1, 1, [b"ab"])
        assert (air.watcher.chunks, air.watcher.ends) == ([b"a", b"b"], [Ending.COMPLETE])
        assert await air.is_empty()

    run(test)


@pytest.mark.parametrize(
    "when", ["before it began", "before the head", "after it", "in the middle"]
)
@pytest.mark.parametrize("stays", [True, False])
def test_who_has_begun_it_leaves(when: str, stays: bool) -> None:
    async def test() -> None:
        air = Air()
        leader = air.listen()
        other = air.listen() if stays else None
        if when != "before it began":
            await settle()
        if when in ("after it", "in the middle"):
            air.head.set()
            await leader.head()
        if when == "in the middle":
            air.body.put(b"a")
            await leader.__anext__()
        await leader.aclose()
        await leader.aclose()
        if other is None:
            # Who comes in just this moment cannot hear of a call that is being cancelled.
            assert air.flights.under_way("a:k") is None
            await settle()
            assert air.asked == (when != "before it began")
            assert air.left == (when == "before the head")
            had_head = when in ("after it", "in the middle")
            assert air.watcher.ends == ([Ending.CANCELLED] if had_head else [])
            assert air.body.closed == had_head
            assert air.kept == []
        else:
            air.head.set()
            air.body.put(b"a", b"b", None)
            assert await _all(other) == (b"aab" if when == "in the middle" else b"ab")
            await settle()
            assert air.watcher.ends == [Ending.COMPLETE]
            assert len(air.kept) == 1
        assert await air.is_empty()

    run(test)


def test_who_comes_while_it_is_cancelled_asks_anew() -> None:
    class Slow(Hand):
        async def aclose(self) -> None:
            await closing.wait()

    closing = asyncio.Event()

    async def test() -> None:
        air = Air(Slow(b"a"))
        air.head.set()
        one = air.listen()
        assert await one.__anext__() == b"a"
        await one.aclose()
        await settle()
        assert air.flights.under_way("a:k") is None
        air.body = Hand(b"b", None)
        assert await _all(air.listen()) == b"b"
        closing.set()
        await settle()
        assert await air.is_empty()

    run(test)


@pytest.mark.parametrize("announced", [True, False])
def test_it_goes_on_alone(announced: bool) -> None:
    async def test() -> None:
        air = Air(Hand(b"a", b"", None, announced=announced))
        flight = air.begin(alone=True)
        listener = flight.listen()
        await listener.aclose()
        air.head.set()
        await settle()
        assert air.kept == [b"a"]
        assert (flight.times, flight.pieces) == ([0], [b"a"])
        assert air.watcher.ends == [Ending.COMPLETE]

    run(test)


@pytest.mark.parametrize("place", ["head", "body"])
def test_an_error_of_the_upstream_is_each_ones_own(place: str) -> None:
    async def test() -> None:
        air = Air()
        error = UpstreamTimeout("idle")
        error.__cause__ = OSError("why")
        if place == "head":
            air.errors = [error]
        listeners = [air.listen() for _ in range(3)]
        air.head.set()
        air.body.put(b"a", error)
        heard = []
        for listener in listeners:
            with pytest.raises(UpstreamTimeout) as caught:
                await _all(listener)
            caught.value.extra.append((b"x-own", b"1"))
            heard.append(caught.value)
        assert len({id(each) for each in (*heard, error)}) == 4
        assert [len(each.extra) for each in heard] == [1, 1, 1]
        assert {each.waited_for for each in heard} == {"idle"}
        assert heard[0].__cause__ is error.__cause__
        assert air.watcher.ends == ([Ending.CUT] if place == "body" else [])
        assert air.kept == []
        assert await air.is_empty()

    run(test)


@pytest.mark.parametrize("error", [PriceUnknown(), RuntimeError("a bug"), ClientGone()])
def test_what_is_the_callers_own_reaches_him_only(error: Exception) -> None:
    async def test() -> None:
        air = Air()
        air.errors = [error]
        leader, other = air.listen(), air.listen()
        air.head.set()
        with pytest.raises(type(error)):
            await leader.head()
        with pytest.raises(HandedOver):
            await other.head()
        # Asked again, it is an end like others.
        with pytest.raises((UpstreamDisconnected, PriceUnknown)):
            await leader.__anext__()
        assert await air.is_empty()

    run(test)


def test_a_cancellation_in_the_call_cancels_no_caller() -> None:
    async def test() -> None:
        air = Air()
        air.errors = [asyncio.CancelledError()]
        leader, other = air.listen(), air.listen()
        air.head.set()
        with pytest.raises(UpstreamDisconnected):
            await leader.head()
        with pytest.raises(HandedOver):
            await other.head()
        await settle()
        assert await air.is_empty()

    run(test)


def test_a_bug_in_the_middle_is_told_to_who_began_it() -> None:
    async def test() -> None:
        air = Air(Hand(b"a", RuntimeError("a bug")))
        leader, other = air.listen(), air.listen()
        air.head.set()
        with pytest.raises(RuntimeError):
            await _all(leader)
        with pytest.raises(UpstreamDisconnected):
            await _all(other)
        assert air.watcher.ends == [Ending.FAILED]

    run(test)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ClientGone()])
def test_a_bug_that_nobody_waits_for_is_logged(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        air = Air()
        air.errors = [error]
        leader, other = air.listen(), air.listen()
        await leader.aclose()
        air.head.set()
        with pytest.raises(HandedOver):
            await other.head()
        await other.aclose()

    run(test)
    told = [record for record in caplog.records if record.exc_info]
    assert len(told) == isinstance(error, RuntimeError)


def test_a_renewal_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        air = Air()
        air.errors = [UpstreamDisconnected()]
        air.begin(alone=True)
        air.head.set()
        await settle()
        assert await air.is_empty()

    run(test)
    assert "could not be renewed: UpstreamDisconnected" in caplog.text


def test_what_cannot_be_kept_has_been_heard(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        air = Air(Hand(b"a", None))

        async def keep(flight: Flight) -> bool:
            raise RuntimeError

        flight = air.flights.begin("a:k", air.source, keep, alone=False, apart=True)
        air.head.set()
        assert await _all(flight.listen()) == b"a"
        await settle()
        assert await air.is_empty()

    run(test)
    assert "could not be kept" in caplog.text


def test_an_answer_is_closed_and_settled_though_closing_fails() -> None:
    class Bad(Hand):
        async def aclose(self) -> None:
            raise OSError

    async def test() -> None:
        air = Air(Bad(b"a", None))
        air.head.set()
        assert await _all(air.listen()) == b"a"
        await settle()
        assert air.watcher.ends == [Ending.COMPLETE]
        assert await air.is_empty()

    run(test)


def test_landed_waits_until_it_is_kept() -> None:
    async def test() -> None:
        air = Air(Hand(b"a", None))
        keeping = asyncio.Event()

        async def keep(flight: Flight) -> bool:
            await keeping.wait()
            return True

        listener = air.flights.begin("a:k", air.source, keep, alone=False, apart=True).listen()
        air.head.set()
        assert await _all(listener) == b"a"
        waiting = asyncio.create_task(listener.landed())
        await settle()
        assert not waiting.done()
        # Who comes now still is given it.
        assert await _all(air.listen()) == b"a"
        keeping.set()
        await waiting
        await settle()
        await listener.landed()

    run(test)


# -- bounds ------------------------------------------------------------------------------------


def test_a_large_answer_waits_for_who_listens_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 10)
    monkeypatch.setattr(module, "GRACE", 0.01)

    async def test() -> None:
        pieces = [b"%04d" % number for number in range(100)]
        air = Air(Hand(*pieces, None), most=20)
        air.head.set()
        listener = air.listen()
        flight = listener._flight
        heard = []
        for number in range(100):
            if number == 50:
                await asyncio.sleep(0.05)  # longer than GRACE: he is alone, so nobody minds
            heard.append(await listener.__anext__())
            await settle(5)
            assert flight._held <= max(20, 10) + 4
            if number > 10:
                assert air.body.taken - number <= 5
        assert heard == pieces
        assert air.flights.under_way("a:k") is None
        assert await listener.whole() is None
        await listener.aclose()
        await settle()
        assert air.kept == []
        assert await air.is_empty()

    run(test)


def test_who_stalls_while_others_wait_is_cut(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WINDOW", 10)
    monkeypatch.setattr(module, "GRACE", 0.02)

    async def test() -> None:
        pieces = [b"%04d" % number for number in range(100)]
        air = Air(Hand(*pieces, None), most=20)
        air.head.set()
        quick, slow = air.listen(), air.listen()
        assert await slow.__anext__() == pieces[0]
        assert await _all(quick) == b"".join(pieces)
        with pytest.raises(UpstreamDisconnected):
            await slow.__anext__()
        assert slow.take_all() == []
        await slow.aclose()
        await settle()
        assert air.watcher.ends == [Ending.COMPLETE]
        assert await air.is_empty()

    run(test)
    assert caplog.text.count("too slowly") == 1


def test_whom_all_wait_for_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 10)

    async def test() -> None:
        pieces = [b"%04d" % number for number in range(100)]
        air = Air(Hand(*pieces, None), most=20)
        air.head.set()
        quick, slow = air.listen(), air.listen()
        hearing = asyncio.create_task(_all(quick))
        await settle(50)
        assert not hearing.done()
        assert air.flights.under_way("a:k") is None  # who would come now could not hear all of it
        await slow.aclose()
        assert await hearing == b"".join(pieces)
        await settle()
        assert await air.is_empty()

    run(test)


def test_a_renewal_that_is_too_large_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 10)

    async def test() -> None:
        air = Air(Hand(*[b"1234"] * 100, None), most=20)
        air.head.set()
        flight = air.begin(alone=True)
        await settle()
        assert flight._held <= 10
        assert flight.count == 100
        assert air.kept == []

    run(test)


def test_who_takes_all_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 10)

    async def test() -> None:
        air = Air(Hand(*[b"1234"] * 20, None), most=1000)
        air.head.set()
        listener = air.listen()
        await settle()
        assert listener.take_all() == [b"1234"] * 20
        air.body = Hand(*[b"1234"] * 20, None)
        air.flights._most = 20
        await settle()
        listener = air.listen()
        heard: list[bytes] = []
        while not listener.ended:
            await settle(3)
            heard += listener.take_all()
            await listener.aclose() if listener.ended else None
        assert heard == [b"1234"] * 20

    run(test)


def test_whole_gives_up_when_it_becomes_too_large() -> None:
    async def test() -> None:
        air = Air(Hand(b"1234"), most=5)
        air.head.set()
        listener = air.listen()
        hearing = asyncio.create_task(listener.whole())
        await settle()
        air.body.put(b"5678")
        assert await hearing is None
        air.body.put(None)
        assert await _all(listener) == b"12345678"

        air.body = Hand(b"12", b"34", None)
        listener = air.listen()
        assert await listener.whole() == b"1234"
        assert await _all(listener) == b"1234"
        await settle()
        air.body = Hand(b"12", UpstreamDisconnected())
        listener = air.listen()
        with pytest.raises(UpstreamDisconnected):
            await listener.whole()
        await listener.aclose()

    run(test)


@given(st.data())
def test_whoever_comes_and_goes(data: st.DataObject) -> None:
    """Listeners come, hear and leave in any order; who stays hears all, and nothing is left."""

    async def test() -> None:
        air = Air(most=data.draw(st.sampled_from([5, 1000]), label="most"))
        air.head.set()
        sent = b""
        here: list[tuple[Listener, list[bytes]]] = []
        flight = air.begin()
        here.append((flight.listen(began=True), []))
        await settle()
        for _ in range(data.draw(st.integers(0, 12))):
            step = data.draw(st.sampled_from(["put", "hear", "leave", "join"]))
            if step == "put":
                piece = data.draw(st.binary(max_size=4))
                air.body.put(piece)
                sent += piece
            elif step == "join" and air.flights.under_way("a:k") is flight:
                here.append((flight.listen(), []))
            elif step == "leave" and here:
                await here.pop(data.draw(st.integers(0, len(here) - 1)))[0].aclose()
            elif step == "hear" and here:
                listener, heard = here[data.draw(st.integers(0, len(here) - 1))]
                heard += listener.take_all()
            await settle(3)
        air.body.put(None)
        stay = bool(here)
        for listener, heard in here:
            heard.append(await _all(listener))
            assert b"".join(heard) == sent
        await settle()
        assert air.watcher.ends == [Ending.COMPLETE if stay else Ending.CANCELLED]
        assert air.kept == ([sent] if stay and not flight.too_large else [])
        assert await air.is_empty()

    run(test)


# -- closing -----------------------------------------------------------------------------------


def test_closing_gives_up_what_is_asked_and_waits_for_what_is_kept() -> None:
    async def test() -> None:
        air = Air(Hand(b"a", None))
        keeping = asyncio.Event()
        kept = []

        async def keep(flight: Flight) -> bool:
            await keeping.wait()
            kept.append(flight)
            return True

        air.head.set()
        listener = air.flights.begin("a:1", air.source, keep, alone=False, apart=True).listen()
        assert await _all(listener) == b"a"
        air.head.clear()
        # The second takes the place of the first, which is given up none the less.
        asked = [air.begin().listen(began=True) for _ in range(2)]
        await settle()
        closing = asyncio.create_task(air.flights.aclose())
        await settle()
        assert not closing.done()
        assert air.left == 2
        keeping.set()
        await closing
        assert len(kept) == 1
        for each in asked:
            with pytest.raises(UpstreamDisconnected):
                await each.head()
            await each.aclose()
        await air.flights.aclose()
        assert await air.is_empty()

    run(test)


def test_loops_that_are_gone_are_forgotten() -> None:
    flights = Flights(Keeper(MemoryCache()), most=10, is_fresh=bool)

    async def look() -> None:
        assert flights.under_way("k") is None
        assert flights.under_way("k") is None
        flights.part()

    for _ in range(3):
        asyncio.run(look())
    assert len(flights._by_loop) == 1


@pytest.mark.parametrize(
    "what",
    ["whole", "leaves at once", "leaves early", "leaves", "error", "price", "bug", "bug in it"],
)
def test_none_of_it_waits_for_the_garbage_collector(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # what is captured is kept

    async def fly() -> weakref.ref[Flight]:
        air = Air()
        if what != "leaves early":
            air.head.set()
        if what in ("price", "bug"):
            air.errors = [PriceUnknown() if what == "price" else RuntimeError()]
        air.body.put(b"a", {"error": UpstreamDisconnected(), "bug in it": OSError()}.get(what))
        listener = air.listen()
        ref = weakref.ref(listener._flight)
        if what == "leaves early":
            await settle()
        elif what == "leaves":
            await listener.head()
        elif what != "leaves at once":
            with suppress(UpstreamDisconnected, PriceUnknown, RuntimeError, OSError):
                await _all(listener)
        await listener.aclose()
        await settle()
        return ref

    gc.collect()
    gc.disable()
    try:
        ref = asyncio.run(fly())
        assert ref() is None
    finally:
        gc.enable()
