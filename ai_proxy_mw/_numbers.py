"""What counts as a number where one is asked for."""

from __future__ import annotations

from math import inf
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a finite number; True and False are none here."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -inf < value < inf
