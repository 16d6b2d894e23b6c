"""10,000 calls with one of two upstreams failing; and what callers get when none answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.load.app import FIRST_BYTE, OPEN_FOR
from tests.load.callers import Answer, Ask, call_all, calls, percentile
from tests.load.house import House, is_at_rest, serve_house
from tests.load.upstream import Log, text_of

pytestmark = pytest.mark.slow

CALLS = 10_000
LINES = 50
ROUND = 1000
OF_THEM_WELL = 300
"""Calls of each round that are made once more without faults, to compare."""

MARGIN = 2.0
"""Seconds beyond its own that a machine which does other things, too, may take."""


@pytest.fixture
def house() -> Iterator[House]:
    with serve_house() as running:
        yield running


def test_no_caller_sees_that_one_of_two_upstreams_fails(house: House) -> None:
    well, faulty, log, inside = asyncio.run(_both_in_turn(house))
    assert len(faulty) == CALLS
    for answer in [*well, *faulty]:
        assert answer.status == 200, answer
        assert answer.text == text_of(answer.ask.user)
    entries = [entry for entry in log.entries if entry.user.startswith("faulty:")]
    faults = Counter(entry.fault for entry in entries)
    assert sum(answer.attempts for answer in faulty) == len(entries)
    assert len(entries) == CALLS + sum(faults.values()) - faults[""]
    assert 0.3 * CALLS < sum(faults.values()) - faults[""] < 0.4 * CALLS
    assert is_at_rest(inside), inside
    print(f"\n{CALLS} calls, faults: {dict(faults)}")
    for share in (50, 75, 90, 95, 99):
        pair = percentile(well, share), percentile(faulty, share)
        print(f"p{share}: {pair[0]:.1f} ms without faults, {pair[1]:.1f} ms with")


async def _both_in_turn(
    house: House,
) -> tuple[list[Answer], list[Answer], Log, dict[str, Any]]:
    """In turn, so that what slows the machine for a while slows both."""
    well: list[Answer] = []
    faulty: list[Answer] = []
    await call_all(house.port, calls("well", "first", 500), lines=LINES)
    for start in range(0, CALLS, ROUND):
        asks = calls("well", "well", OF_THEM_WELL, first=start)
        well += await call_all(house.port, asks, lines=LINES)
        asks = calls("faulty", "faulty", ROUND, first=start)
        faulty += await call_all(house.port, asks, lines=LINES)
    return well, faulty, await house.log(), await house.at_rest()


@pytest.mark.parametrize(
    ("door", "status", "code", "seconds"),
    [
        ("refuse", 502, "upstream_unreachable", 0.0),
        ("stall", 504, "upstream_timeout", 2 * FIRST_BYTE),
        ("error", 500, "None", 0.0),  # as the upstream has it
    ],
)
def test_when_no_upstream_answers_that_is_told_in_time(
    house: House, door: str, status: int, code: str, seconds: float
) -> None:
    before, after = asyncio.run(_until_left_alone(house, door))
    told = {(status, code), (503, "upstream_unavailable")}
    if door == "error":
        told.add((200, code))  # a stream of the last who was asked, which begins with the error
    for answer in before:
        assert (answer.status, answer.code) in told, answer
        assert answer.seconds < seconds + MARGIN
    assert any(answer.status == status for answer in before)
    for answer in after:
        assert (answer.status, answer.code) == (503, "upstream_unavailable")
        assert 0 < int(answer.headers["retry-after"]) <= OPEN_FOR
        assert answer.attempts == 0
    worst = max(before, key=lambda answer: answer.seconds)
    print(f"\n{door}: {Counter((each.status, each.code) for each in before)}")
    print(
        f"at most {worst.seconds * 1000:.0f} ms; left alone: p50 {percentile(after, 50):.1f} ms, "
    )
    print(f"p99 {percentile(after, 99):.1f} ms, at most {percentile(after, 100):.1f} ms")
    assert percentile(after, 50) / 1000 < max(FIRST_BYTE, MARGIN / 4)


async def _until_left_alone(house: House, door: str) -> tuple[list[Answer], list[Answer]]:
    asks: list[Ask] = calls(door, door, 2 * LINES)
    before = await call_all(house.port, asks, lines=LINES)
    after = await call_all(house.port, calls(door, door, 1000), lines=LINES)
    return before, after
