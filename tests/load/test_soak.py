"""Many calls with callers who leave, upstreams that fail and a Redis that is killed: what is left.

Calls are made in legs, each with subjects of its own: light ones, in which the store is up and its
counts can be told exactly, and dark ones, in which it is killed and started again. `steady` callers
stay until they are answered; `hasty` ones may hang up at any moment. LOAD_CALLS says how many.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.load.app import EXPECTED, EXPECTED_INPUT
from tests.load.callers import Answer, call_all, calls, hasty, percentile
from tests.load.house import House, is_at_rest, serve_house
from tests.load.upstream import INPUT, Entry, text_of
from tests.redis_servers import RedisServer, redis_executable, serve_redis

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(redis_executable() is None, reason="there is no redis-server here"),
]

CALLS = int(os.environ.get("LOAD_CALLS", "10000"))
LINES = 50
LEGS = 6
GROWTH = 8_000_000
"""Bytes that the process may be larger at its end than after a third: what an allocator keeps."""

_AFTER_REDIS = 15.0  # seconds until it must have been found that the store is there again


class Leg(NamedTuple):
    """kills: how often the store was killed in it."""

    name: str
    kills: int
    answers: list[Answer]
    inside: dict[str, Any]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    # What it has confirmed it has written, so that it knows it after it was killed; the disk may be
    # behind, which matters only to a machine that is.
    with serve_redis("--appendonly", "yes", "--appendfsync", "no") as server:
        yield server


def test_nothing_leaks_and_all_books_agree(redis: RedisServer) -> None:
    with serve_house(redis.uri) as house:
        legs = asyncio.run(_soak(house, redis))
        log = asyncio.run(house.log())
    entries: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in log.entries:
        entries[entry.user].append(entry)
    _tell(legs, log.entries)
    for leg in legs:
        _check_the_answers(leg, entries)
        _check_the_sends(leg, entries)
        _check_the_charges(leg, entries)
        assert is_at_rest(leg.inside), leg.inside
    _check_that_nothing_grows(legs)


async def _soak(house: House, redis: RedisServer) -> list[Leg]:
    draw = random.Random(2)
    await call_all(house.port, calls("soak", "warm-up", 500), lines=LINES)
    legs = []
    for number in range(LEGS):
        name = f"{number}"
        steady = calls("soak", f"steady-{name}", CALLS // LEGS // 2)
        leaving = hasty(calls("soak", f"hasty-{name}", CALLS // LEGS // 2), draw, share=0.5)
        asks = [ask for pair in zip(steady, leaving, strict=True) for ask in pair]
        asking = asyncio.create_task(call_all(house.port, asks, lines=LINES))
        kills = await _kill_at_times(redis, asking) if number % 2 else 0
        answers = await asking
        await _until_it_is_light(house)
        inside = await house.at_rest(f"steady-{name}", f"hasty-{name}")
        legs.append(Leg(name, kills, answers, inside))
    return legs


async def _kill_at_times(redis: RedisServer, asking: asyncio.Task[list[Answer]]) -> int:
    """Kill the store and start it again while there are calls; gives how often."""
    kills = 0
    while not asking.done():
        kills += 1
        await asyncio.sleep(0.5)
        await asyncio.to_thread(redis.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(redis.start)
        await asyncio.wait((asking,), timeout=2.0)
    return kills


async def _until_it_is_light(house: House) -> None:
    """One call now and then asks the store whether it is there again."""
    until = time.monotonic() + _AFTER_REDIS
    while (await house.inside())["down"] and time.monotonic() < until:
        await call_all(house.port, calls("soak", "between", 1), lines=1)
        await asyncio.sleep(0.2)


def _of(leg: Leg, kind: str) -> list[Answer]:
    return [each for each in leg.answers if each.ask.user.startswith(kind)]


def _check_the_answers(leg: Leg, entries: dict[str, list[Entry]]) -> None:
    for answer in leg.answers:
        user = answer.ask.user
        if _cut(entries[user]):
            assert user.startswith("hasty")
        elif not answer.left:
            assert answer.status == 200, answer
            assert answer.text == text_of(user)


def _cut(entries: list[Entry]) -> bool:
    return any(entry.fault == "cut" for entry in entries)


def _check_the_sends(leg: Leg, entries: dict[str, list[Entry]]) -> None:
    """Who has sent how often: as callers were told, as we count, as the upstream counts."""
    for kind in ("steady", "hasty"):
        answers = _of(leg, kind)
        who = f"{kind}-{leg.name}"
        told = sum(answer.attempts for answer in answers)
        seen = sum(len(entries[answer.ask.user]) for answer in answers)
        sends, cancelled = _sum(leg, "sends", who), _sum(leg, "cancelled", who)
        if kind == "steady":
            assert told == seen == sends
            assert not cancelled
        else:
            # Whose caller left while it was on its way may have come there, or not.
            assert sends - cancelled <= seen <= sends
            assert told <= sends


def _sum(leg: Leg, what: str, who: str) -> int:
    lanes: dict[str, dict[str, int]] = leg.inside[what]
    return sum(lane.get(who, 0) for lane in lanes.values())


def _check_the_charges(leg: Leg, entries: dict[str, list[Entry]]) -> None:
    for kind in ("steady", "hasty"):
        answers = _of(leg, kind)
        counted = leg.inside["counted"][f"{kind}-{leg.name}"]
        total = counted["tokens"] + counted["tokens here"]
        charges = [_charges(answer, entries[answer.ask.user]) for answer in answers]
        least, most = (sum(each) for each in zip(*charges, strict=True))
        # What could not be settled stays as it was reserved: too much, and never too little. That
        # is what was under way with each kill, and what was asked of the store just then.
        assert least <= total <= most + leg.kills * 2 * LINES * EXPECTED
        if not leg.kills:
            assert counted["tokens here"] == counted["concurrent"] == 0
        assert kind == "hasty" or least == most


def _charges(answer: Answer, entries: list[Entry]) -> tuple[int, int]:
    """The least and the most that a call may be charged: the same where its caller has stayed."""
    if not answer.left and not _cut(entries):
        cost = sum(_cost(entry) for entry in entries)
        return cost, cost
    # Who leaves may do so before it was sent, and before or after all of the answer was read.
    least = EXPECTED_INPUT if entries else 0
    most = EXPECTED_INPUT + sum(
        INPUT + max(entry.output, len(text_of(entry.user))) for entry in entries
    )
    return least, most


def _cost(entry: Entry) -> int:
    if entry.whole:
        return INPUT + entry.output
    if entry.fault == "error" or (entry.stream and entry.fault == "half"):
        return 0  # it has said itself that it did nothing
    return EXPECTED_INPUT


def _check_that_nothing_grows(legs: list[Leg]) -> None:
    early, last = legs[LEGS // 3 - 1].inside, legs[-1].inside
    assert last["tasks"] <= early["tasks"] + 2, (early["tasks"], last["tasks"])
    assert last["fds"] <= early["fds"] + LINES, (early["fds"], last["fds"])  # kept connections
    assert last["rss"] - early["rss"] < GROWTH, (early["rss"], last["rss"])


def _tell(legs: list[Leg], entries: list[Entry]) -> None:
    answers = [answer for leg in legs for answer in leg.answers]
    print(f"\n{len(answers)} calls, {len(entries)} sends, of them at fault:")
    print(dict(Counter(entry.fault for entry in entries if entry.fault)))
    print(f"{sum(answer.left for answer in answers)} hung up")
    print(f"p50 {percentile(answers, 50):.0f} ms, p99 {percentile(answers, 99):.0f} ms")
    for leg in legs:
        inside = leg.inside
        kind = f"dark, {leg.kills} kills" if leg.kills else "light"
        counted = {who.partition("-")[0]: each["tokens"] for who, each in inside["counted"].items()}
        size = f"{inside['fds']} fds, {inside['tasks']} tasks, {inside['rss'] / 1e6:.1f} MB"
        print(f"{kind}: {counted}; {size}")
