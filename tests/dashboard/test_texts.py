"""What came from outside does no harm in a file for spreadsheets, nor in JSON."""

from __future__ import annotations

import csv
import io

import pytest

from ai_proxy_mw.dashboard.texts import LONGEST, cell, shown


@pytest.mark.parametrize(
    "text",
    [
        *("=1", "+1", "-1", "@SUM(A1)", "\ta", "\ra", " =1", "\xa0=1", "\uff1d1"),
        '=HYPERLINK("a","b")',
    ],
)
def test_no_text_is_a_formula(text: str) -> None:
    (row,) = csv.reader(io.StringIO(f"{cell(text)},end\r\n", newline=""))
    assert row == [f"'{text}", "end"]


@pytest.mark.parametrize("end", [";", ";  ", "\t", "|", "\n", "\r\n", "a\r"])
def test_nor_is_a_part_of_it_for_those_that_end_cells_otherwise(end: str) -> None:
    assert cell(f"gpt{end}=1+1").strip('"') == f"gpt{end}'=1+1"
    assert cell(f"gpt{end}\uff1d1").strip('"') == f"gpt{end}'\uff1d1"
    assert cell(f"gpt{end}4").strip('"') == f"gpt{end}4"
    assert cell("\n=1") == "\"'\n'=1\""


@pytest.mark.parametrize("text", ["a,b", 'say "hi"', "two\r\nlines", "plain", "", "ü", "a-b"])
def test_what_is_read_is_what_was_written(text: str) -> None:
    (row,) = csv.reader(io.StringIO(f"{cell(text)},end\r\n", newline=""))
    assert row == [text, "end"]


def test_what_is_no_text() -> None:
    assert [cell(each) for each in (None, True, False, 0, -3, 1.5)] == [
        *("", "true", "false", "0", "-3", "1.5")
    ]
    assert cell("a\x00b") == "ab"
    assert cell("\x00=1") == "'=1"


def test_long_texts_are_cut_and_halves_of_pairs_replaced() -> None:
    assert len(shown("m" * 10_000)) == LONGEST
    assert shown("m" * LONGEST) == "m" * LONGEST
    assert shown("a\ud800b") == "a?b"
    assert shown("grün") == "grün"
