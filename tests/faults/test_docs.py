"""The page of the matrix is what its table says."""

from __future__ import annotations

from tests.faults.faults import PLAYS
from tests.faults.table import TABLE
from tests.faults.write_docs import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.faults.write_docs"


def test_each_play_is_in_the_table() -> None:
    assert {case.plays for case in TABLE} - {None} == set(PLAYS) - {"sound"}


def test_two_transports_differ_for_a_reason_that_is_told() -> None:
    for case in TABLE:
        assert bool(case.why) == (case.httpx_json is not None or case.httpx_stream is not None)
