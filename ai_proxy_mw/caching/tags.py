"""By what else than its key an entry can be purged."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Literal

Kind = Literal["subject", "endpoint", "model"]

_LONGEST = 256

_LETTERS: dict[Kind, str] = {"subject": "s", "endpoint": "e", "model": "m"}


def tag_of(kind: Kind, text: str) -> str:
    """A short name for whatever text. Stores then hold no names of people, either."""
    # Only what is short is kept in mind: a model is whatever a caller writes, however long.
    return _remembered(kind, text) if len(text) <= _LONGEST else _digest(kind, text)


def _digest(kind: Kind, text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_LETTERS[kind]}:{digest[:24]}"


_remembered = lru_cache(maxsize=4096)(_digest)
