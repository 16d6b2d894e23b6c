"""What some calls were together, in whole numbers that can be added up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

import msgspec

from ai_proxy_mw.metrics.base import By, StatsRow
from ai_proxy_mw.metrics.sketch import LAST, class_of, percentile

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.record import Record

DIMENSIONS: tuple[By, ...] = get_args(By)

PLACES: dict[By, int] = {"model": 200, "subject": 500, "endpoint": 50, "upstream": 50}
"""The most names that are counted apart; the others are counted together."""

LONGEST_NAME = 256
"""Characters."""

_MOST = 2**40
"""Tokens or micro-dollars; what says that it has used more is not believed any further."""

_HITS = ("hit", "stale", "collapsed")

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**60)]
_Class = Annotated[int, msgspec.Meta(ge=0, le=LAST)]
_Name = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]


class Cell(msgspec.Struct, array_like=True, gc=False):
    """As in `StatsRow`, while it grows.

    took: seconds of all complete calls; classes: how many of them were how quick.
    """

    requests: _Count = 0
    errors: _Count = 0
    refused: _Count = 0
    cancelled: _Count = 0
    hits: _Count = 0
    misses: _Count = 0
    input_tokens: _Count = 0
    cached_input_tokens: _Count = 0
    output_tokens: _Count = 0
    cost: _Count = 0
    unpriced: _Count = 0
    saved: _Count = 0
    saved_unpriced: _Count = 0
    saved_tokens: _Count = 0
    took: Annotated[float, msgspec.Meta(ge=0, le=2**60)] = 0.0
    classes: dict[_Class, _Count] = {}

    @property
    def was_of_use(self) -> bool:
        """Whether any of the calls came to anything."""
        return bool(self.input_tokens or self.output_tokens or self.classes)

    def merge(self, other: Cell) -> None:
        """Count another's calls as well."""
        self.requests += other.requests
        self.errors += other.errors
        self.refused += other.refused
        self.cancelled += other.cancelled
        self.hits += other.hits
        self.misses += other.misses
        self.input_tokens += other.input_tokens
        self.cached_input_tokens += other.cached_input_tokens
        self.output_tokens += other.output_tokens
        self.cost += other.cost
        self.unpriced += other.unpriced
        self.saved += other.saved
        self.saved_unpriced += other.saved_unpriced
        self.saved_tokens += other.saved_tokens
        self.took += other.took
        classes = self.classes
        for number, count in other.classes.items():
            classes[number] = classes.get(number, 0) + count

    def row(self) -> StatsRow:
        timed = sum(self.classes.values())
        return StatsRow(
            requests=self.requests,
            errors=self.errors,
            refused=self.refused,
            cancelled=self.cancelled,
            hits=self.hits,
            misses=self.misses,
            input_tokens=self.input_tokens,
            cached_input_tokens=self.cached_input_tokens,
            output_tokens=self.output_tokens,
            cost=self.cost,
            unpriced=self.unpriced,
            saved=self.saved,
            saved_unpriced=self.saved_unpriced,
            saved_tokens=self.saved_tokens,
            mean=self.took / timed if timed else None,
            p50=percentile(self.classes, 0.5),
            p95=percentile(self.classes, 0.95),
            p99=percentile(self.classes, 0.99),
        )


class Table(msgspec.Struct, array_like=True):
    """Cells by name. other: of those that found no place."""

    names: Annotated[dict[_Name, Cell], msgspec.Meta(max_length=2048)] = {}
    other: Cell = msgspec.field(default_factory=Cell)

    def place(self, name: str, places: int, *, was_of_use: bool | int) -> Cell:
        """The cell of a name.

        Callers choose the names of models: what never comes to anything gets half of the places
        at most, so that nobody can crowd the others out with names of models that there are not.
        """
        names = self.names
        cell = names.get(name)
        if cell is None and not (name.isascii() and len(name) <= LONGEST_NAME):
            name = _writable(name)
            cell = names.get(name)
        if cell is not None:
            return cell
        if len(names) >= (places if was_of_use else places // 2):
            return self.other
        cell = names[name] = Cell()
        return cell

    def total(self) -> Cell:
        """The sum of all of them."""
        total = Cell()
        for cell in (*self.names.values(), self.other):
            total.merge(cell)
        return total

    def merge(self, other: Table, places: int) -> None:
        """Count another's calls as well."""
        for name, cell in other.names.items():
            self.place(name, places, was_of_use=cell.was_of_use).merge(cell)
        self.other.merge(other.other)


class Cells:
    """By each of the dimensions. What all calls were together is the sum of any of them."""

    __slots__ = ("by",)

    def __init__(self) -> None:
        self.by: dict[By, Table] = {by: Table() for by in DIMENSIONS}

    @property
    def total(self) -> Cell:
        return self.by["endpoint"].total()

    def add(self, record: Record) -> None:
        """Count one call."""
        amounts = (
            record.input_tokens,
            record.cached_input_tokens,
            record.output_tokens,
            record.cost or 0,
        )
        if max(amounts) > _MOST or min(amounts) < 0:
            tokens_in, cached, tokens_out, cost = _believed(*amounts)
        else:
            tokens_in, cached, tokens_out, cost = amounts
        was_used = tokens_in or tokens_out or cost
        cells = self._cells_of(record, was_of_use=was_used or record.outcome == "complete")
        if was_used or record.cost is None:
            unpriced = record.cost is None
            for cell in cells:
                cell.input_tokens += tokens_in
                cell.cached_input_tokens += cached
                cell.output_tokens += tokens_out
                cell.cost += cost
                cell.unpriced += unpriced
        if not record.background:
            self._add_request(record, cells)

    def _add_request(self, record: Record, cells: list[Cell]) -> None:
        outcome, cache, took = record.outcome, record.cache, max(0.0, record.total)
        was_timed = outcome == "complete"
        number = class_of(took) if was_timed else 0
        for cell in cells:
            cell.requests += 1
            if was_timed:
                cell.took += took
                classes = cell.classes
                classes[number] = classes.get(number, 0) + 1
            elif outcome == "refused":
                cell.refused += 1
            elif outcome == "cancelled":
                cell.cancelled += 1
            else:
                cell.errors += 1
            if cache == "miss":
                cell.misses += 1
        if cache in _HITS:
            saved, saved_tokens = _believed(record.saved or 0, record.saved_tokens)
            for cell in cells:
                cell.hits += 1
                cell.saved += saved
                cell.saved_tokens += saved_tokens
                cell.saved_unpriced += record.saved is None

    def merge(self, other: Cells) -> None:
        """Count another's calls as well."""
        for by, table in self.by.items():
            table.merge(other.by[by], PLACES[by])

    def _cells_of(self, record: Record, *, was_of_use: bool | int) -> list[Cell]:
        cells = []
        names = (record.model or "", record.subject, record.endpoint, record.upstream or "")
        for (by, table), name in zip(self.by.items(), names, strict=True):
            cell = table.names.get(name)
            if cell is None:
                cell = table.place(name, PLACES[by], was_of_use=was_of_use)
            cells.append(cell)
        return cells


def _believed(*amounts: int) -> tuple[int, ...]:
    return tuple([min(max(amount, 0), _MOST) for amount in amounts])


def _writable(name: str) -> str:
    """A name as it can be stored: half of a surrogate pair is written out."""
    return name.encode("utf-8", "backslashreplace").decode()[:LONGEST_NAME]
