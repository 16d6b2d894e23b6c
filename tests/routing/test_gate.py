"""The gate: never more inside than may, no place is lost, nobody starves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw import Concurrency, ConfigurationError
from ai_proxy_mw._concurrency import concurrency_of
from ai_proxy_mw.routing.gate import Gate, Places


class Loop(asyncio.SelectorEventLoop):
    """Its clock is moved by hand."""

    now = 0.0

    def time(self) -> float:
        return self.now


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(work)


def pass_time(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    loop.now += seconds


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


class Crowd:
    """Calls at a gate, told apart by a number; those with a place have it until `go`."""

    def __init__(self, limit: int, **more: Any) -> None:
        self.places: Places = Gate(Concurrency(limit, **more)).here()
        self.tasks: dict[int, asyncio.Task[bool]] = {}
        self.entered: list[int] = []
        self.left: set[int] = set()
        self.refused: list[int] = []

    async def _call(self, number: int, subject: str) -> bool:
        entered = await self.places.enter(subject)
        (self.entered if entered else self.refused).append(number)
        return entered

    def come(self, subject: str) -> int:
        number = len(self.tasks)
        self.tasks[number] = asyncio.create_task(self._call(number, subject))
        return number

    async def comes(self, *subjects: str) -> list[int]:
        """One after the other."""
        numbers = []
        for subject in subjects:
            numbers.append(self.come(subject))
            await settle()
        return numbers

    @property
    def inside(self) -> list[int]:
        return [number for number in self.entered if number not in self.left]

    def go(self, number: int) -> None:
        self.left.add(number)
        self.places.leave()

    async def empty(self) -> list[int]:
        """Let all go one by one; gives the numbers in the order in which they went."""
        order = []
        while self.inside:
            order.append(self.inside[0])
            self.go(order[-1])
            await settle()
        return order


def test_as_many_as_there_are_places_and_then_in_turn() -> None:
    async def work() -> None:
        crowd = Crowd(2, queue=3)
        await crowd.comes("a", "a", "a", "a", "b")
        assert (crowd.places.inside, crowd.places.waiting) == (2, 3)
        assert not crowd.places.try_enter()
        assert await crowd.empty() == [0, 1, 2, 4, 3]
        assert (crowd.places.inside, crowd.places.waiting) == (0, 0)
        loop: Any = asyncio.get_running_loop()
        assert all(timer.cancelled() for timer in loop._scheduled)

    run(work())


def test_who_comes_anew_does_not_overtake() -> None:
    async def work() -> None:
        crowd = Crowd(1)
        await crowd.comes("a", "b")
        crowd.go(0)  # the one that waits has not run yet
        assert not crowd.places.try_enter()
        crowd.come("c")
        await settle()
        assert crowd.inside == [1]
        assert await crowd.empty() == [1, 2]

    run(work())


def test_one_subject_cannot_fill_the_line() -> None:
    async def work() -> None:
        crowd = Crowd(1, queue=3)
        await crowd.comes("x", "a", "a", "a")
        await crowd.comes("b")  # in the place of the last of a
        assert crowd.refused == [3]
        await crowd.comes("a")  # has as many as anybody
        assert crowd.refused == [3, 5]
        await crowd.comes("c")
        assert crowd.refused == [3, 5, 2]
        # Each has one waiting now: nobody is turned away for a new name.
        await crowd.comes("d", "a")
        assert crowd.refused == [3, 5, 2, 7, 8]
        assert await crowd.empty() == [0, 1, 4, 6]

    run(work())


def test_two_with_almost_as_many_do_not_push_each_other_out() -> None:
    async def work() -> None:
        crowd = Crowd(1, queue=3)
        await crowd.comes("x", "a", "a", "b")
        await crowd.comes("b", "a", "b")
        assert crowd.refused == [4, 5, 6]

    run(work())


def test_without_a_line_nobody_waits() -> None:
    async def work() -> None:
        crowd = Crowd(1, queue=0)
        await crowd.comes("a", "b")
        assert crowd.refused == [1]
        assert await crowd.empty() == [0]

    run(work())


def test_who_has_waited_long_enough_is_told() -> None:
    async def work() -> None:
        crowd = Crowd(1, wait=2)
        await crowd.comes("a", "b")
        pass_time(1.9)
        await crowd.comes("c")
        assert crowd.refused == []
        pass_time(0.1)
        await settle()
        assert crowd.refused == [1]
        assert await crowd.empty() == [0, 2]
        assert crowd.places.inside == 0

    run(work())


def test_a_place_that_comes_as_the_time_is_over_is_had_or_passed_on() -> None:
    async def work() -> None:
        for place_first in (True, False):
            crowd = Crowd(1, wait=2)
            await crowd.comes("a", "b")
            if place_first:
                crowd.go(0)
                pass_time(2)
            else:
                asyncio.get_running_loop().call_later(2.1, crowd.go, 0)
                pass_time(2.2)  # both in one turn of the loop
            await settle()
            assert (crowd.inside, crowd.refused) == (([1], []) if place_first else ([], [1]))
            await crowd.empty()
            assert crowd.places.inside == 0

    run(work())


def test_a_place_given_to_one_that_leaves_in_that_moment_goes_to_the_next() -> None:
    async def work() -> None:
        for place_first in (True, False):
            crowd = Crowd(1)
            await crowd.comes("a", "b", "c")
            if place_first:
                crowd.go(0)
                crowd.tasks[1].cancel()
            else:
                crowd.tasks[1].cancel()
                crowd.go(0)
            await settle()
            assert crowd.inside == [2]
            assert await crowd.empty() == [2]
            assert crowd.places.inside == 0

    run(work())


def test_one_turned_away_that_leaves_in_that_moment_takes_nothing_along() -> None:
    async def work() -> None:
        crowd = Crowd(1, queue=2)
        await crowd.comes("x", "a", "a")
        crowd.come("b")
        await asyncio.sleep(0)  # its turn comes, and the last of a has not run yet
        crowd.tasks[2].cancel()
        await settle()
        assert crowd.tasks[2].cancelled()
        assert await crowd.empty() == [0, 1, 3]
        assert crowd.places.inside == 0

    run(work())


def test_who_leaves_makes_room_in_the_line() -> None:
    async def work() -> None:
        crowd = Crowd(1, queue=1)
        await crowd.comes("a", "a")
        crowd.tasks[1].cancel()
        await settle()
        assert crowd.places.waiting == 0
        await crowd.comes("a")
        assert await crowd.empty() == [0, 2]

    run(work())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "come", "cancel", "go", "turn", "settle", "time"]),
        st.integers(0, 99),
    ),
    max_size=80,
)


@given(st.integers(1, 3), st.integers(0, 5), STEPS)
def test_whatever_happens(limit: int, queue: int, steps: list[tuple[str, int]]) -> None:
    async def work() -> None:
        crowd = Crowd(limit, queue=queue, wait=2)
        places = crowd.places
        for step, number in steps:
            if step == "come":
                crowd.come("abc"[number % 3])
            elif step == "cancel" and crowd.tasks:
                crowd.tasks[number % len(crowd.tasks)].cancel()
            elif step == "go" and crowd.inside:
                crowd.go(crowd.inside[number % len(crowd.inside)])
            elif step == "turn":
                await asyncio.sleep(0)
            elif step == "settle":
                await settle()
                assert len(crowd.inside) == places.inside
            elif step == "time":
                pass_time(0.7)
            assert len(crowd.inside) <= places.inside <= limit
            assert places.waiting <= queue
            assert places.inside == limit or not places.waiting
        await settle()
        await crowd.empty()
        assert all(task.done() for task in crowd.tasks.values())
        assert (places.inside, places.waiting) == (0, 0)

    run(work())


@given(st.integers(1, 3), st.lists(st.sampled_from("aaaabc"), min_size=1, max_size=20))
def test_nobody_starves(limit: int, arrivals: list[str]) -> None:
    """One that waits sees no other subject served twice before it is served."""

    async def work() -> None:
        crowd = Crowd(limit, queue=100)
        await crowd.comes(*["x"] * limit)
        whose = dict(zip(await crowd.comes(*arrivals), arrivals, strict=True))
        served = (await crowd.empty())[limit:]
        for subject in "abc":
            first = next((i for i, one in enumerate(served) if whose[one] == subject), 0)
            before = [whose[one] for one in served[:first]]
            assert len(set(before)) == len(before)
            own = [one for one in served if whose[one] == subject]
            assert own == sorted(own)
        assert sorted(served) == sorted(whose)

    run(work())


def test_each_loop_has_places_of_its_own() -> None:
    gate = Gate(Concurrency(1))

    async def enter() -> bool:
        assert gate.here() is gate.here()
        return gate.here().try_enter()

    async def other() -> bool:
        return await asyncio.to_thread(asyncio.run, enter())

    async def work() -> None:
        assert await enter()
        assert not await enter()
        assert await other()
        assert not await enter()  # the other loop has changed nothing here
        assert await other()
        assert len(gate._by_loop) == 2  # and is forgotten when it has ended

    run(work())


def test_what_to_tell_those_who_are_turned_away() -> None:
    assert Gate(Concurrency(1, wait=0.1)).retry_after == 1
    assert Gate(Concurrency(1, wait=2.1)).retry_after == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": True},
        {"limit": "10"},
        {"limit": 1, "queue": -1},
        {"limit": 1, "queue": 1.5},
        {"limit": 1, "wait": 0},
        {"limit": 1, "wait": True},
        {"limit": 1, "wait": "2"},
        {"limit": 1, "wait": float("nan")},
        {"limit": 1, "wait": float("inf")},
    ],
)
def test_what_cannot_be_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="write "):
        Concurrency(**wrong)


def test_a_number_alone_will_do() -> None:
    assert concurrency_of(None, "x") is None
    assert concurrency_of(5, "x") == Concurrency(5, queue=100, wait=2.0)
    own = Concurrency(limit=5, queue=0)
    assert concurrency_of(own, "x") is own
    wrong: Any
    for wrong in (0, True, "5", 1.5):
        with pytest.raises(ConfigurationError, match=r"^max_concurrent="):
            concurrency_of(wrong, "max_concurrent")
