"""Text of others, made fit for a terminal."""

from __future__ import annotations


def plain(text: str) -> str:
    """The text with all that could move a cursor written out."""
    return text.encode("unicode_escape").decode()
