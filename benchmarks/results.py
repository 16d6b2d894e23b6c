"""The samples of a run, and what is computed from them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.load import Sample


class Cell(NamedTuple):
    """A row at a number of connections."""

    row: str
    connections: int


Results = dict[Cell, list[Sample]]
"""The samples of each cell, in the order of the rounds."""


class Spread(NamedTuple):
    """Median, least and most of the rounds."""

    median: float
    least: float
    most: float

    def show(self, digits: int = 0) -> str:
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f} to {self.most:,.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def of(samples: list[Sample], figure: Callable[[Sample], float]) -> Spread:
    return spread([figure(sample) for sample in samples])


def ratio(results: Results, cell: Cell, to: Cell) -> Spread | None:
    """CPU for each unit of one cell over that of another; None if one was not measured.

    Taken round by round: what slows the machine for a while slows both, and cancels out.
    """
    pairs = list(zip(results.get(cell, []), results.get(to, []), strict=False))
    if not pairs:
        return None
    return spread([one.cpu_us / other.cpu_us for one, other in pairs])
