"""How what was counted lies in a store.

Whoever else can write to the store may have planted what is read here: what does not fit is not
there, and no number or name in it is believed beyond its bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from ai_proxy_mw.accounting.record import Record
from ai_proxy_mw.metrics.base import By
from ai_proxy_mw.metrics.cells import DIMENSIONS, LONGEST_NAME, Cell, Cells, Table

_VERSION = 1
"""Of both kinds; what another one has written is left out."""

_FIELDS = tuple(name for name in Record.__struct_fields__ if name != "bodies")


MOST_PARTS = 20_000
"""Documents that one can be the sum of."""

_Part = Annotated[str, msgspec.Meta(max_length=32)]


class _Counted(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """tables: by dimension, each to be decoded where it is asked for.

    parts: the names of those whose counts are in it, where it is the sum of several.
    """

    version: int
    total: Cell
    tables: dict[str, msgspec.Raw]
    parts: Annotated[list[_Part], msgspec.Meta(max_length=MOST_PARTS)] = []


class _Told(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Records: their fields' names once, then the values of each."""

    version: int
    fields: list[str]
    rows: Annotated[list[list[Any]], msgspec.Meta(max_length=1000)]


class Counted(NamedTuple):
    """What a document says of one dimension."""

    total: Cell
    table: Table
    parts: list[str]


_encoder = msgspec.msgpack.Encoder()
_counted = msgspec.msgpack.Decoder(_Counted)
_table = msgspec.msgpack.Decoder(Table)
_told = msgspec.msgpack.Decoder(_Told)


def encode(cells: Cells, parts: Sequence[str] = ()) -> bytes:
    return _encoder.encode([_VERSION, cells.total, cells.by, parts])


def decode(data: bytes, by: By) -> Counted | None:
    """None for what is no document, or of another version. Never raises."""
    try:
        found = _counted.decode(data)
        if found.version != _VERSION:
            return None
        return Counted(found.total, _table.decode(found.tables[by]), found.parts)
    except (ValueError, KeyError, RecursionError):
        return None


def decode_all(data: bytes) -> tuple[Cells, list[str]] | None:
    """All that a document says, and its parts; None as above."""
    found = [decode(data, by) for by in DIMENSIONS]
    cells = Cells()
    for by, counted in zip(DIMENSIONS, found, strict=True):
        if counted is None:
            return None
        cells.by[by] = counted.table
        parts = counted.parts
    return cells, parts


def encode_records(records: Iterable[Record]) -> bytes:
    """What of some records can be stored; bodies never are."""
    rows = []
    for record in records:
        row = [getattr(record, name) for name in _FIELDS]
        try:
            rows.append(msgspec.Raw(_encoder.encode(row)))
        except (ValueError, OverflowError):
            continue  # half of a surrogate pair, or a number that nobody has used
    return _encoder.encode([_VERSION, _FIELDS, rows])


def decode_records(data: bytes) -> list[Record]:
    """Those that can be read. Never raises."""
    try:
        told = _told.decode(data)
    except (ValueError, RecursionError):
        return []
    return [] if told.version != _VERSION else [*filter(None, map(_record, _rows(told)))]


def _rows(told: _Told) -> Iterable[dict[str, Any]]:
    return (dict(zip(told.fields, row, strict=False)) for row in told.rows)


def _record(values: dict[str, Any]) -> Record | None:
    if any(isinstance(value, bytes | dict) or _is_long(value) for value in values.values()):
        return None
    try:
        return msgspec.convert(values, Record)
    except ValueError:
        return None


def _is_long(value: object) -> bool:
    return isinstance(value, str) and len(value) > 4 * LONGEST_NAME
