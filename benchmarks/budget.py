"""What the proxy may cost, as ratios within one run, and whether it keeps to it.

Nothing fails on these figures: they are printed for a human who knows what else ran meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.results import Cell, Results, ratio

STREAMS = 50
"""Streams open at once in the rows of server-sent events."""


@dataclass(frozen=True)
class Budget:
    """The CPU of `cell` may be at most `most` times that of `to`."""

    what: str
    cell: Cell
    to: Cell
    most: float


BUDGETS = (
    Budget("bare relay, 32 connections", Cell("bare", 32), Cell("sketch", 32), 1.25),
    Budget("bare relay, 256 connections", Cell("bare", 256), Cell("sketch", 256), 1.25),
    Budget("full corridor, kept in memory", Cell("cache-miss", 32), Cell("sketch", 32), 1.7),
    Budget("full corridor, from memory", Cell("cache-hit", 32), Cell("floor-json", 32), 2.0),
    # "No growth": 0.1 is what two runs of the same row differ by on a shared machine.
    Budget("bare relay, growth 1 to 256 connections", Cell("bare", 256), Cell("bare", 1), 1.1),
    Budget("SSE event", Cell("bare-sse", STREAMS), Cell("sketch-sse", STREAMS), 1.3),
    Budget(
        "SSE event, use observed", Cell("corridor-sse", STREAMS), Cell("sketch-sse", STREAMS), 1.3
    ),
    Budget("WSGI door, 32 connections", Cell("wsgi", 32), Cell("wsgi-floor", 32), 1.7),
    Budget("WSGI door, full corridor", Cell("wsgi-corridor", 32), Cell("wsgi-floor", 32), 1.7),
)


def verdicts(results: Results) -> Iterator[str]:
    """The lines of a Markdown table: each budget whose rows were measured."""
    for budget in BUDGETS:
        measured = ratio(results, budget.cell, budget.to)
        if measured is None:
            continue
        verdict = "inside" if measured.median <= budget.most else "**over**"
        yield (
            f"| {budget.what}: `{budget.cell.row}` ÷ `{budget.to.row}` "
            f"| {measured.show(2)} | {budget.most:.2f} | {verdict} |"
        )
