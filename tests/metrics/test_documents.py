"""What is read from a store was perhaps planted there."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ai_proxy_mw.accounting.record import Bodies
from ai_proxy_mw.metrics.cells import Cells
from ai_proxy_mw.metrics.documents import decode, decode_records, encode, encode_records
from ai_proxy_mw.metrics.sketch import LAST
from tests.metrics.calls import call


def packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def document() -> list[Any]:
    cells = Cells()
    cells.add(call())
    found: list[Any] = msgspec.msgpack.decode(encode(cells), strict=False)
    return found


def test_there_and_back() -> None:
    cells = Cells()
    for number in range(20):
        cells.add(call(model=f"m{number}", total=number))
    found = decode(encode(cells), "model")
    assert found is not None
    assert found.total == cells.total
    assert found.table == cells.by["model"]


def wrong_documents() -> list[bytes]:
    right = document()
    cell = right[1]
    table = right[2]["model"]

    def with_total(position: int, value: Any) -> list[Any]:
        total = [*cell[:position], value, *cell[position + 1 :]]
        return [right[0], total, right[2]]

    def with_table(value: Any) -> list[Any]:
        return [right[0], cell, {**right[2], "model": value}]

    return [
        b"",
        b"\xc1",
        b"no document",
        packed(None),
        packed({}),
        packed(7),
        packed([]),
        packed([2, *right[1:]]),
        packed([*right, "more"]),
        packed([right[0], cell, {}]),
        packed(with_total(0, -1)),
        packed(with_total(0, 2**62)),
        packed(with_total(0, "1")),
        packed(with_total(14, float("nan"))),
        packed(with_total(14, float("inf"))),
        packed(with_total(15, {LAST + 1: 1})),
        packed(with_total(15, {-1: 1})),
        packed(with_table([{"x" * 257: []}, []])),
        packed(with_table([{str(number): [] for number in range(2049)}, []])),
        packed(with_table([{"\0": [-1]}, []])),
        packed(with_table(table[0])),
        packed(with_table([{1: []}, []])),
        b"\x91" * 100_000,
        packed(right)[:-1],
        packed(right) + b"\0",
    ]


@pytest.mark.parametrize("data", wrong_documents())
def test_what_is_no_document_is_not_there(data: bytes) -> None:
    assert decode(data, "model") is None


def test_records_there_and_back_without_bodies() -> None:
    bodies = Bodies(
        request=b"secret", response=b"secret", request_is_whole=True, response_is_whole=True
    )
    record = call(error="cut", cache="hit", first_byte=0.5, measured=False)
    data = encode_records([record, msgspec.structs.replace(record, bodies=bodies)])
    assert b"secret" not in data
    assert decode_records(data) == [record, record]


def test_records_that_cannot_be_written_are_left_out() -> None:
    records = [call(), call(subject="\ud800"), call(input_tokens=2**70), call(request_id="last")]
    assert [record.request_id for record in decode_records(encode_records(records))] == [
        "req_1",
        "last",
    ]


RIGHT: list[Any] = [["time", "request_id", "model"], [[1.0, "a", "m"]]]


def test_records_of_which_less_or_more_is_known() -> None:
    (found,) = decode_records(packed([1, [*RIGHT[0], "new"], [[1.0, "a", "m", "?"]]]))
    assert (found.time, found.request_id, found.model, found.subject) == (1.0, "a", "m", "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        packed([2, *RIGHT]),
        packed([1, *RIGHT, 0]),
        packed([1, RIGHT[0], [["now", "a", "m"]]]),
        packed([1, RIGHT[0], [[1.0]]]),
        packed([1, RIGHT[0], [[1.0, "a", "m" * 2000]]]),
        packed([1, RIGHT[0], [[1.0, "a", {}]]]),
        packed([1, RIGHT[0], [[1.0, "a", b"m"]]]),
        packed([1, [*RIGHT[0], "outcome"], [[1.0, "a", "m", "won"]]]),
        packed([1, RIGHT[0], [[1.0, "a", "m"]] * 1001]),
        packed([1, RIGHT[0], 7]),
    ],
)
def test_what_are_no_records_are_none(data: bytes) -> None:
    assert decode_records(data) == []
