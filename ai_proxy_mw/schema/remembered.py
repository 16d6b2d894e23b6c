"""What is asked again and again is the same bytes, which mean what they meant a moment ago."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")

LONGEST = 8 * 1024
"""Bytes of a body whose meaning is kept in mind."""

MOST = 512


def remembered(function: Callable[[str, bytes], T]) -> Callable[[str, bytes], T]:
    """A pure function of a name and bytes that is quick for those of the last few calls.

    What it gives must not be changed by anybody. Errors are not kept.
    """
    known = lru_cache(maxsize=MOST)(function)

    def ask(name: str, body: bytes) -> T:
        return known(name, body) if len(body) <= LONGEST else function(name, body)

    return ask
