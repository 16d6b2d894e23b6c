"""Two are asked, and one is heard: nothing of the other is left behind, whenever it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from ai_proxy_mw._errors import ClientGone, InvalidRequest
from ai_proxy_mw.routing.hedge import first_good
from tests.routing.scripted import case, settle


@dataclass(frozen=True)
class Heard:
    name: str
    good: bool = True


class Side:
    """One that is asked; it answers when the test says so."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0
        self.left = 0
        self.says: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> Heard:
        self.asked += 1
        try:
            return Heard(self.name, await self.says)
        except asyncio.CancelledError:
            self.left += 1
            raise


class Lost:
    def __init__(self) -> None:
        self.names: list[str] = []

    async def __call__(self, heard: Heard) -> None:
        await asyncio.sleep(0)
        self.names.append(heard.name)


class Two:
    def __init__(self, after: float = 0.0) -> None:
        self.first, self.second, self.lost = Side("first"), Side("second"), Lost()
        self.call = asyncio.create_task(
            first_good(self.first, self.second, after=after, lost=self.lost)
        )


async def both_asked() -> Two:
    two = Two()
    while not two.second.asked:
        await asyncio.sleep(0)
    return two


@case
async def test_one_that_answers_in_time_is_the_only_one_asked() -> None:
    two = Two(after=60)
    two.first.says.set_result(True)
    assert (await two.call).name == "first"
    assert (two.second.asked, two.lost.names) == (0, [])


@case
async def test_one_that_fails_in_time_is_not_hedged() -> None:
    two = Two(after=60)
    two.first.says.set_result(False)
    assert await two.call == Heard("first", good=False)
    assert two.second.asked == 0


@case
async def test_the_quicker_one_is_heard_and_the_other_is_cancelled() -> None:
    two = await both_asked()
    two.second.says.set_result(True)
    assert (await two.call).name == "second"
    assert (two.first.left, two.lost.names) == (1, [])


@case
async def test_a_failure_waits_for_the_other() -> None:
    two = await both_asked()
    two.first.says.set_result(False)
    await settle()
    assert not two.call.done()
    two.second.says.set_result(True)
    assert (await two.call).name == "second"
    assert two.lost.names == ["first"]


@case
async def test_of_two_failures_the_last_is_told() -> None:
    two = await both_asked()
    two.second.says.set_result(False)
    await settle()
    two.first.says.set_result(False)
    assert await two.call == Heard("first", good=False)
    assert two.lost.names == ["second"]


@pytest.mark.parametrize("good", [True, False])
def test_both_at_once(good: bool) -> None:
    @case
    async def work() -> None:
        two = await both_asked()
        two.first.says.set_result(good)
        two.second.says.set_result(good)
        heard = await two.call
        assert sorted([heard.name, *two.lost.names]) == ["first", "second"]

    work()


@pytest.mark.parametrize("error", [ClientGone(), InvalidRequest("no")])
@pytest.mark.parametrize("which", ["first", "second"])
def test_what_ends_the_call_ends_both(error: Exception, which: str) -> None:
    @case
    async def work() -> None:
        two = await both_asked()
        raising, other = (two.first, two.second) if which == "first" else (two.second, two.first)
        raising.says.set_exception(error)
        with pytest.raises(type(error)):
            await two.call
        assert other.left == 1

    work()


@case
async def test_an_error_beside_an_answer_lets_the_answer_go() -> None:
    two = await both_asked()
    two.first.says.set_exception(ClientGone())
    two.second.says.set_result(True)
    with pytest.raises(ClientGone):
        await two.call
    assert two.lost.names == ["second"]


async def left_behind(answers: str, turns: int, again: int | None) -> list[str]:
    """Each side once for each way in which it ended: cancelled, lost or given."""
    two = await both_asked()
    for side in (two.first, two.second):
        if answers in (side.name, "both", "failed"):
            side.says.set_result(answers != "failed")
    for _ in range(turns):
        await asyncio.sleep(0)
    two.call.cancel()
    if again is not None:
        for _ in range(again):
            await asyncio.sleep(0)
        two.call.cancel()
    (given,) = await asyncio.gather(two.call, return_exceptions=True)
    await settle()
    ended = [side.name for side in (two.first, two.second) if side.left] + two.lost.names
    return ended + ([given.name] if isinstance(given, Heard) else [])


@pytest.mark.parametrize("answers", ["none", "first", "second", "both", "failed"])
def test_a_caller_who_leaves_at_any_moment_leaves_nothing_behind(answers: str) -> None:
    @case
    async def work() -> None:
        for turns in range(12):
            for again in (None, 0, 1, 2, 3):
                ended = await left_behind(answers, turns, again)
                assert sorted(ended) == ["first", "second"], (turns, again)

    work()


@case
async def test_a_caller_who_leaves_before_the_second_is_asked() -> None:
    two = Two(after=60)
    await settle()
    two.call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await two.call
    assert (two.first.left, two.second.asked) == (1, 0)
