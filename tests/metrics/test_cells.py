"""What is counted of a call, and what a name costs."""

from __future__ import annotations

from typing import Any

import pytest

from ai_proxy_mw.metrics.base import StatsRow
from ai_proxy_mw.metrics.cells import DIMENSIONS, PLACES, Cells
from ai_proxy_mw.metrics.documents import decode, encode
from tests.metrics.calls import call


def counted(*calls: Any) -> Cells:
    cells = Cells()
    for each in calls:
        cells.add(each)
    return cells


def row(**values: Any) -> StatsRow:
    """Of the calls here, all but how long they took."""
    return StatsRow(**values)


def untimed(found: StatsRow) -> StatsRow:
    values = {name: getattr(found, name) for name in StatsRow.__struct_fields__}
    return StatsRow(**{**values, "mean": None, "p50": None, "p95": None, "p99": None})


USED = {"input_tokens": 100, "output_tokens": 50, "cost": 1200}


@pytest.mark.parametrize(
    ("of_call", "expected"),
    [
        ({}, {"requests": 1, **USED}),
        ({"cached_input_tokens": 40}, {"requests": 1, "cached_input_tokens": 40, **USED}),
        ({"outcome": "failed"}, {"requests": 1, "errors": 1, **USED}),
        ({"outcome": "cut"}, {"requests": 1, "errors": 1, **USED}),
        ({"outcome": "stopped"}, {"requests": 1, "errors": 1, **USED}),
        ({"outcome": "cancelled"}, {"requests": 1, "cancelled": 1, **USED}),
        ({"outcome": "refused"}, {"requests": 1, "refused": 1, **USED}),
        ({"cost": None}, {"requests": 1, **USED, "cost": 0, "unpriced": 1}),
        ({"cache": "miss"}, {"requests": 1, "misses": 1, **USED}),
        ({"cache": "bypass"}, {"requests": 1, **USED}),
        ({"background": True}, USED),
        ({"background": True, "cache": "miss", "outcome": "failed"}, USED),
        ({"background": True, "cost": None}, {**USED, "cost": 0, "unpriced": 1}),
        ({"input_tokens": -1, "cost": 2**63}, {"requests": 1, **USED, "input_tokens": 0}
         | {"cost": 2**40}),
    ],
)  # fmt: skip
def test_what_a_call_counts_as(of_call: dict[str, Any], expected: dict[str, Any]) -> None:
    assert untimed(counted(call(**of_call)).total.row()) == row(**expected)


@pytest.mark.parametrize("cache", ["hit", "stale", "collapsed"])
def test_what_a_hit_counts_as(cache: str) -> None:
    nothing = {"input_tokens": 0, "output_tokens": 0, "cost": 0}
    known = call(**nothing, cache=cache, saved=1200, saved_tokens=150)
    unknown = call(**nothing, cache=cache, saved=None, saved_tokens=150)
    found = untimed(counted(known, unknown).total.row())
    assert found == row(requests=2, hits=2, saved=1200, saved_unpriced=1, saved_tokens=300)
    assert found.hit_rate == 1.0


def test_only_complete_calls_are_timed() -> None:
    slow = [call(total=100.0, outcome=outcome) for outcome in ("failed", "cancelled", "refused")]
    quick = [call(total=0.25), call(total=0.75), call(total=-1.0)]
    found = counted(*quick, *slow, call(total=100.0, background=True)).total.row()
    assert found.mean == pytest.approx(1.0 / 3)
    assert found.p50 == pytest.approx(0.25, rel=0.02)
    assert found.p99 == pytest.approx(0.25, rel=0.02)
    assert found.error_rate == 1 / 6


def test_by_each_dimension() -> None:
    cells = counted(call(), call(model=None, upstream=None, subject="bob"))
    assert {by: set(table.names) for by, table in cells.by.items()} == {
        "model": {"gpt-4.1", ""},
        "subject": {"alice", "bob"},
        "endpoint": {"POST /chat/completions"},
        "upstream": {"openai", ""},
    }
    assert all(table.total() == cells.total for table in cells.by.values())


@pytest.mark.parametrize("by", DIMENSIONS)
def test_names_are_bounded_and_no_call_is_lost(by: str) -> None:
    values = [{by: f"n{number}"} for number in range(3 * PLACES["subject"])]
    cells = counted(*[call(**each) for each in values], call(**{by: "n0"}), call(**{by: "(other)"}))
    table = cells.by[by]  # type: ignore[index]
    assert len(table.names) == PLACES[by]  # type: ignore[index]
    assert table.names["n0"].requests == 2
    assert table.total().requests == cells.total.requests == 1502
    assert table.other.requests == 1502 - 1 - len(table.names)


def test_models_that_there_are_not_leave_room_for_those_that_there_are() -> None:
    nothing = {"input_tokens": 0, "output_tokens": 0, "cost": 0}
    made_up = [call(model=f"x{number}", outcome="failed", **nothing) for number in range(5000)]
    cells = counted(*made_up, call(model="real"), call(model="background", background=True))
    both = Cells()
    both.merge(cells)
    for each in (cells, both):
        names = each.by["model"].names
        assert len(names) == PLACES["model"] // 2 + 2
        assert {"real", "background"} <= set(names)
        assert each.total.requests == 5001


def test_odd_names_can_be_stored() -> None:
    odd = "\ud800\u00e9" + "x" * 400
    cells = counted(call(model=odd), call(model=odd), call(subject="\u00e9" * 256))
    found = decode(encode(cells), "model")
    assert found is not None
    (name,) = set(found.table.names) - {"gpt-4.1"}
    assert name == ("\\ud800\u00e9" + "x" * 400)[:256]
    assert found.table.names[name].requests == 2


def test_the_sum_of_parts_is_the_whole() -> None:
    calls = [
        call(
            model=f"m{number % 3}",
            subject=f"s{number % 7}",
            total=number / 64,  # so that sums are exact
            cache=(None, "hit", "miss")[number % 3],
            outcome=("complete", "failed")[number % 2],
            cost=None if number % 5 == 0 else number,
            saved=number,
        )
        for number in range(200)
    ]
    whole, sum_of_parts = counted(*calls), Cells()
    for start in range(0, 200, 40):
        sum_of_parts.merge(counted(*calls[start : start + 40]))
    for by in DIMENSIONS:
        assert {name: cell.row() for name, cell in whole.by[by].names.items()} == {
            name: cell.row() for name, cell in sum_of_parts.by[by].names.items()
        }


def test_what_there_is_no_place_for_stays_together_when_added_up() -> None:
    halves = [
        counted(*[call(model=f"{half}-{number}") for number in range(250)]) for half in ("a", "b")
    ]
    both = Cells()
    for half in halves:
        both.merge(half)
    table = both.by["model"]
    assert set(table.names) == {f"a-{number}" for number in range(PLACES["model"])}
    assert table.other.requests == 300
