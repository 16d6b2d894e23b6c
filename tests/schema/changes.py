"""Changes of one place in a request, named as errors name it."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec


class _Gone:
    def __repr__(self) -> str:
        return "gone"


GONE: Final = _Gone()
"""The value of what is taken out."""

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def steps(path: str) -> list[str | int]:
    """The names and indices that a path is made of."""
    return [int(index) if index else name for name, index in _STEP.findall(path)]


def changed(body: Any, path: str, value: Any) -> Any:
    """A copy of a body with another value at a path, or with none, where it is GONE."""
    copied = msgspec.json.decode(msgspec.json.encode(body))  # shares nothing with itself
    *way, last = steps(path)
    inner = copied
    for step in way:
        inner = inner[step]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return copied
