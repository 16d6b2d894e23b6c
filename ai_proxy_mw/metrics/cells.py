"""What some calls were together, in whole numbers that can be added up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

import msgspec

from ai_proxy_mw.metrics.base import By, StatsRow
from ai_proxy_mw.metrics.sketch import LAST, class_of, percentile

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.record import Outcome, Record

DIMENSIONS: tuple[By, ...] = get_args(By)

PLACES: dict[By, int] = {"model": 200, "subject": 500, "endpoint": 50, "upstream": 50}
"""The most names that are counted apart; the others are counted together."""

MOST_PLACES = 2000
"""The same, where the counts of many processes are added up."""

LONGEST_NAME = 256
"""Characters."""

_MOST = 2**40
"""Tokens or micro-dollars; what says that it has used more is not believed any further."""

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

    names: Annotated[dict[_Name, Cell], msgspec.Meta(max_length=MOST_PLACES)] = {}
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
        """Count one call. Most are complete and no hits, and they pay for nothing else."""
        tokens_in, cached = record.input_tokens, record.cached_input_tokens
        tokens_out, cost = record.output_tokens, record.cost or 0
        if not 0 <= tokens_in | cached | tokens_out | cost <= _MOST:
            tokens_in, cached, tokens_out, cost = map(
                _believed, (tokens_in, cached, tokens_out, cost)
            )
        is_request = not record.background
        is_complete = is_request and record.outcome == "complete"
        took = max(0.0, record.total)
        number = class_of(took)
        cells = self._cells_of(record, was_of_use=is_complete or tokens_in or tokens_out)
        for cell in cells:
            cell.input_tokens += tokens_in
            cell.cached_input_tokens += cached
            cell.output_tokens += tokens_out
            cell.cost += cost
            cell.requests += is_request
            if is_complete:
                cell.took += took
                classes = cell.classes
                classes[number] = classes.get(number, 0) + 1
        if record.cost is None:
            for cell in cells:
                cell.unpriced += 1
        if is_request and not is_complete:
            _add_outcome(cells, record.outcome)
        if is_request and record.cache is not None:
            _add_cached(cells, record)

    def merge(self, other: Cells, places: int | None = None) -> None:
        """Count another's calls as well. places: in the place of `PLACES`."""
        for by, table in self.by.items():
            table.merge(other.by[by], places or PLACES[by])

    def _cells_of(self, record: Record, *, was_of_use: bool | int) -> list[Cell]:
        by = self.by
        cells: list[Cell] = []
        for table, places, name in (
            (by["model"], PLACES["model"], record.model or ""),
            (by["subject"], PLACES["subject"], record.subject),
            (by["endpoint"], PLACES["endpoint"], record.endpoint),
            (by["upstream"], PLACES["upstream"], record.upstream or ""),
        ):
            cell = table.names.get(name)
            if cell is None:
                cell = table.place(name, places, was_of_use=was_of_use)
            cells.append(cell)
        return cells


def _add_outcome(cells: list[Cell], outcome: Outcome) -> None:
    for cell in cells:
        if outcome == "refused":
            cell.refused += 1
        elif outcome == "cancelled":
            cell.cancelled += 1
        else:
            cell.errors += 1


def _add_cached(cells: list[Cell], record: Record) -> None:
    if record.cache == "miss":
        for cell in cells:
            cell.misses += 1
    elif record.cache != "bypass":
        saved, saved_tokens = _believed(record.saved or 0), _believed(record.saved_tokens)
        for cell in cells:
            cell.hits += 1
            cell.saved += saved
            cell.saved_tokens += saved_tokens
            cell.saved_unpriced += record.saved is None


def _believed(amount: int) -> int:
    return min(max(amount, 0), _MOST)


def _writable(name: str) -> str:
    """A name as it can be stored: half of a surrogate pair is written out."""
    return name.encode("utf-8", "backslashreplace").decode()[:LONGEST_NAME]
