"""The page of the fields is what the tables say."""

from __future__ import annotations

from tests.schema.write_docs import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.schema.write_docs"


def test_each_rule_between_members_is_described() -> None:
    assert "|  |  |" not in page()
